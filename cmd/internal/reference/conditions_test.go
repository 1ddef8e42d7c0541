package reference

import (
	"go/ast"
	"go/token"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const api = root + "/api/v1alpha1"

// TestEveryReasonIsInTheReference looks for reasons of conditions and events in the code. Each must be a constant of the
// API's package, whose comment is in the reference, and each constant must be used.
func TestEveryReasonIsInTheReference(t *testing.T) {
	all, err := constants(api)
	if err != nil {
		t.Fatal(err)
	}
	used := map[string]bool{}
	for _, dir := range []string{"provider", "provider/configuration", "speaker", "cmd/herald-ccm", "cmd/herald-speaker"} {
		files, err := parsed(filepath.Join(root, dir))
		if err != nil {
			t.Fatal(err)
		}
		for _, text := range literals(files) {
			if text == "NodeNotReady" {
				continue // It is Kubernetes' own, for a pod.
			}
			t.Errorf("%s: the reason %q is not a constant of %s: write one there, with a comment that says what it means, what to do, and where it occurs", dir, text, api)
		}
		for _, file := range files {
			ast.Inspect(file, func(n ast.Node) bool {
				if s, ok := n.(*ast.SelectorExpr); ok {
					used[s.Sel.Name] = true
				}
				return true
			})
		}
	}
	reasons := 0
	for _, c := range all {
		if !strings.HasPrefix(c.name, "Reason") && !strings.HasPrefix(c.name, "Event") {
			continue
		}
		reasons++
		upstream := slices.ContainsFunc(c.uses, func(u use) bool { return strings.HasPrefix(u.by, "Kubernetes' ") || c.value == "LeaderElection" })
		switch {
		case c.text == "" || len(c.uses) == 0:
			t.Errorf("%s has no comment that says what it means and where it occurs", c.name)
		case !used[c.name] && !upstream:
			t.Errorf("%s is in the reference, and nothing has this reason", c.name)
		}
	}
	if reasons < 40 {
		t.Errorf("there are only %d reasons", reasons)
	}
}

// TestAbout has comments on conditions that mean different things for different kinds.
func TestAbout(t *testing.T) {
	const both = "of an IPPool: it is announced, e.g. by BGP. Others wait. Of an advertisement: it selects pools."
	for _, c := range []struct{ text, kind, want string }{
		{both, "IPPool", "It is announced, e.g. by BGP. Others wait."},
		{both, "BGPAdvertisement", "It selects pools."},
		{"of a BGPPeer with spec.bfd: BFD is up.", "BGPPeer", "With spec.bfd: BFD is up."},
		{"the spec is valid.", "BGPPeer", "The spec is valid."},
		{"the spec is valid. Of an IPPool: it lists addresses.", "BGPPeer", "The spec is valid."},
		{"the spec is valid. Of an IPPool: it lists addresses.", "IPPool", "It lists addresses."},
	} {
		if got := about(c.text, c.kind); got != c.want {
			t.Errorf("%q of %s: %q, want %q", c.text, c.kind, got, c.want)
		}
	}
	page, err := os.ReadFile(filepath.Join(root, "docs", "reference", "conditions.md"))
	if err != nil {
		t.Fatal(err)
	}
	if found := regexp.MustCompile(`(?m)^(Condition|Pool|Allocation)[A-Z]\w+ of `).FindAllString(string(page), -1); found != nil {
		t.Errorf("the reference has the names of constants: %q", found)
	}
}

// TestEveryEventOfTheServiceControllerIsInTheReference reads the source of the controller that herald-ccm contains.
func TestEveryEventOfTheServiceControllerIsInTheReference(t *testing.T) {
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "k8s.io/cloud-provider").Output()
	if err != nil {
		t.Fatal(err)
	}
	files, err := parsed(filepath.Join(strings.TrimSpace(string(out)), "controllers", "service"))
	if err != nil {
		t.Fatal(err)
	}
	page, err := os.ReadFile(filepath.Join(root, "docs", "reference", "conditions.md"))
	if err != nil {
		t.Fatal(err)
	}
	// The first two are dropped. The others are about updates of nodes, which herald-ccm never makes.
	without := []string{"EnsuringLoadBalancer", "DeletingLoadBalancer", "UpdatedLoadBalancer", "UpdateLoadBalancerFailed"}
	reasons := literals(files)
	for _, reason := range reasons {
		if !slices.Contains(without, reason) && !strings.Contains(string(page), "| `"+reason+"` |") {
			t.Errorf("the service controller has events of reason %s, which is not in the reference", reason)
		}
	}
	if len(reasons) < 8 {
		t.Errorf("there are only %q", reasons)
	}
}

// TestLiterals has a reason in each place where a reason can be.
func TestLiterals(t *testing.T) {
	dir := t.TempDir()
	const source = `package p
type told struct { reason, message string }
type condition struct { Reason string }
func f() (n int, reason string) {
	set := func(kind string, yes bool, reason, message string) {}
	set("No", true, "Call", "No")
	method(nil, "no reason at all")
	events.Event(svc, "No", "Event", "No")
	events.Eventf(svc, "No", "Eventf", "No %s", "No")
	c := condition{Reason: "Keyed"}
	_ = told{"Unkeyed", "No"}
	c.Reason = "Assigned"
	yes, reason := "No", "Defined"
	var otherReason = "Declared"
	c.Reason = ""
	if reason == "No" {
		return 1, "Returned"
	}
	return 1, constant
}
func method(x any, reason string) {}
`
	if err := os.WriteFile(filepath.Join(dir, "p.go"), []byte(source), 0o600); err != nil {
		t.Fatal(err)
	}
	files, err := parsed(dir)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"Call", "Event", "Eventf", "Keyed", "Unkeyed", "Assigned", "Defined", "Declared", "Returned"}
	if got := literals(files); !slices.Equal(got, want) {
		t.Errorf("found %q, want %q", got, want)
	}
}

// word matches reasons. Other strings that are called reasons are sentences, or labels of metrics.
var word = regexp.MustCompile(`^[A-Z][A-Za-z0-9]+$`)

// literals returns the string literals in a package that are used as a reason: in a variable, field, argument or result
// with such a name.
func literals(files []*ast.File) (found []string) {
	isReason := func(name string) bool { return strings.HasSuffix(strings.ToLower(name), "reason") }
	look := func(e ast.Expr) {
		if lit, ok := e.(*ast.BasicLit); ok && lit.Kind == token.STRING {
			if text, err := strconv.Unquote(lit.Value); err == nil && word.MatchString(text) {
				found = append(found, text)
			}
		}
	}
	positions := func(fields *ast.FieldList) (at []int) {
		n := 0
		if fields == nil {
			return nil
		}
		for _, f := range fields.List {
			for _, name := range f.Names {
				if isReason(name.Name) {
					at = append(at, n)
				}
				n++
			}
			n += map[bool]int{true: 1}[len(f.Names) == 0]
		}
		return at
	}
	parameters, members := map[string][]int{"Event": {2}, "Eventf": {2}}, map[string][]int{}
	each := func(visit func(ast.Node) bool) {
		for _, f := range files {
			ast.Inspect(f, visit)
		}
	}
	each(func(n ast.Node) bool {
		switch x := n.(type) {
		case *ast.FuncDecl:
			if at := positions(x.Type.Params); at != nil {
				parameters[x.Name.Name] = at
			}
		case *ast.AssignStmt:
			for i, right := range x.Rhs {
				f, ok := right.(*ast.FuncLit)
				if name, named := x.Lhs[min(i, len(x.Lhs)-1)].(*ast.Ident); ok && named && positions(f.Type.Params) != nil {
					parameters[name.Name] = positions(f.Type.Params)
				}
			}
		case *ast.TypeSpec:
			if s, ok := x.Type.(*ast.StructType); ok {
				members[x.Name.Name] = positions(s.Fields)
			}
		}
		return true
	})
	var results []int // The results of the current function. Closures return no reasons.
	each(func(n ast.Node) bool {
		switch x := n.(type) {
		case *ast.FuncDecl:
			results = positions(x.Type.Results)
		case *ast.ReturnStmt:
			for _, at := range results {
				if at < len(x.Results) {
					look(x.Results[at])
				}
			}
		case *ast.CallExpr:
			name := ""
			switch f := x.Fun.(type) {
			case *ast.Ident:
				name = f.Name
			case *ast.SelectorExpr:
				name = f.Sel.Name
			}
			for _, at := range parameters[name] {
				if at < len(x.Args) {
					look(x.Args[at])
				}
			}
		case *ast.CompositeLit:
			name, _ := x.Type.(*ast.Ident)
			for i, e := range x.Elts {
				if kv, ok := e.(*ast.KeyValueExpr); ok {
					if key, ok := kv.Key.(*ast.Ident); ok && isReason(key.Name) {
						look(kv.Value)
					}
				} else if name != nil && slices.Contains(members[name.Name], i) {
					look(e)
				}
			}
		case *ast.AssignStmt:
			for i, left := range x.Lhs {
				name := ""
				switch v := left.(type) {
				case *ast.Ident:
					name = v.Name
				case *ast.SelectorExpr:
					name = v.Sel.Name
				}
				if isReason(name) && len(x.Lhs) == len(x.Rhs) {
					look(x.Rhs[i])
				}
			}
		case *ast.ValueSpec:
			for i, name := range x.Names {
				if isReason(name.Name) && i < len(x.Values) {
					look(x.Values[i])
				}
			}
		}
		return true
	})
	return found
}
