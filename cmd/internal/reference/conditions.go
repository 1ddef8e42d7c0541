package reference

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// constant is a string constant of the API's package, with its comment.
type constant struct {
	name, value, text string
	uses              []use // in the order of the comment; empty if the constant is not a reason
}

// use is one use of a reason: "Accepted=False: IPPool, BGPPeer." or "Warning: Service, by herald-ccm."
type use struct {
	condition, status string   // of a condition, or
	level, by         string   // of an event
	kinds             []string // of the objects
}

var (
	ofCondition = regexp.MustCompile(`^(\w+)=(True|False): ([\w, ]+)\.$`)
	ofEvent     = regexp.MustCompile(`^(Normal|Warning): (\w+), by (.+)\.$`)
)

// constants returns the string constants of a package.
func constants(dir string) (all []constant, err error) {
	files, err := parsed(dir)
	if err != nil {
		return nil, err
	}
	for _, file := range files {
		for _, d := range file.Decls {
			group, ok := d.(*ast.GenDecl)
			if !ok || group.Tok != token.CONST {
				continue
			}
			for _, s := range group.Specs {
				spec := s.(*ast.ValueSpec)
				for i, name := range spec.Names {
					if i >= len(spec.Values) {
						continue
					}
					c := constant{name: name.Name}
					switch v := spec.Values[i].(type) {
					case *ast.BasicLit:
						c.value, _ = strconv.Unquote(v.Value) // A string literal can always be unquoted.
					case *ast.Ident:
						c.value = "=" + v.Name
					}
					if err := c.comment(spec.Doc.Text()); err != nil {
						return nil, err
					}
					all = append(all, c)
				}
			}
		}
	}
	for i, c := range all {
		if of, alias := strings.CutPrefix(c.value, "="); alias {
			all[i].value = ""
			if j := slices.IndexFunc(all, func(x constant) bool { return x.name == of }); j >= 0 {
				all[i].value = all[j].value
			}
		}
	}
	return all, nil
}

// comment parses the comment of a constant.
func (c *constant) comment(doc string) error {
	text, uses, ok := strings.Cut(strings.TrimSpace(doc), "\n\n")
	c.text = strings.Join(strings.Fields(strings.TrimPrefix(strings.TrimPrefix(text, c.name), ":")), " ")
	if !ok {
		return nil
	}
	for line := range strings.Lines(uses) {
		line = strings.TrimSpace(line)
		if m := ofCondition.FindStringSubmatch(line); m != nil {
			c.uses = append(c.uses, use{condition: m[1], status: m[2], kinds: strings.Split(m[3], ", ")})
		} else if m := ofEvent.FindStringSubmatch(line); m != nil {
			c.uses = append(c.uses, use{level: m[1], by: m[3], kinds: []string{m[2]}})
		} else {
			return fmt.Errorf("comment of %s: cannot read %q: write Condition=True: Kind, Kind. or Warning: Kind, by whom", c.name, line)
		}
	}
	return nil
}

// parsed returns the parsed files of a package, without its tests, sorted by name.
func parsed(dir string) (files []*ast.File, err error) {
	names, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ParseComments)
		if err != nil {
			return nil, err
		}
		files = append(files, file)
	}
	return files, nil
}

// conditionedKinds has the kinds with conditions, in the order of the page, and the conditions of each.
var conditionedKinds = []struct {
	kind       string
	conditions []string
}{
	{"IPPool", []string{"Accepted", "Ready", "AddressesAvailable", "Exclusive", "InRange", "Announced", "Granted"}},
	{"IPAllocation", []string{"Accepted", "InRange", "AddressConflict"}},
	{"L2Advertisement", []string{"Accepted", "Announced"}},
	{"BGPAdvertisement", []string{"Accepted", "Announced", "Exclusive"}},
	{"BGPPeer", []string{"Accepted", "Established", "PathsAlive"}},
}

// Conditions describes the conditions and events, from the comments in the API's package.
func Conditions(dir string) (string, error) {
	all, err := constants(dir)
	if err != nil {
		return "", err
	}
	var out strings.Builder
	out.WriteString("# Conditions and events\n\n" +
		"Types and reasons are stable; messages are not. `kubectl describe` shows the conditions and the events of an object, and\n" +
		"`kubectl herald status` those conditions that need attention.\n\n" +
		"herald-ccm writes all conditions. Every condition but AddressConflict is True when all is well. An IPAllocation has\n" +
		"InRange and AddressConflict only once something was wrong.\n")
	for _, of := range conditionedKinds {
		fmt.Fprintf(&out, "\n## Conditions of %s\n", of.kind)
		for _, condition := range of.conditions {
			i := slices.IndexFunc(all, func(c constant) bool { return c.value == condition && c.uses == nil && c.text != "" })
			if i < 0 {
				return "", fmt.Errorf("no constant in %s has the value %q and a comment", dir, condition)
			}
			fmt.Fprintf(&out, "\n### %s of %s\n\n%s\n\n%s", condition, of.kind, sentence(about(all[i].text, of.kind)), head("status", "reason", ""))
			for _, status := range []string{"True", "False"} {
				for _, c := range all {
					for _, u := range c.uses {
						if u.condition == condition && u.status == status && slices.Contains(u.kinds, of.kind) {
							out.WriteString(row(status, code(c.value), cell(about(c.text, of.kind))))
						}
					}
				}
			}
		}
	}
	events := map[string]string{} // Rows by kind.
	for _, c := range all {
		for _, u := range c.uses {
			if u.level != "" {
				events[u.kinds[0]] += row(u.level, code(c.value), u.by, cell(about(c.text, u.kinds[0])))
			}
		}
	}
	for _, kind := range slices.Sorted(maps.Keys(events)) {
		fmt.Fprintf(&out, "\n## Events of %s\n\n%s%s", kind, head("type", "reason", "by", ""), events[kind])
	}
	return out.String(), nil
}

// ofKind is the beginning of the part of a comment that is about one kind: "Of an IPPool: ", or "of a BGPPeer with spec.bfd: ".
var ofKind = regexp.MustCompile(`(?:^|\. )[Oo]f an? (\w+) ?([^:]*): `)

// about returns the part of a comment that is about a kind: "of an IPPool: ... Of an advertisement: ...". If no part is about this
// kind, it returns what precedes the first part or, if nothing does, the whole comment.
func about(text, kind string) string {
	parts := ofKind.FindAllStringSubmatchIndex(text, -1)
	for i, at := range parts {
		if !strings.HasSuffix(strings.ToLower(kind), strings.ToLower(text[at[2]:at[3]])) {
			continue
		}
		end := len(text)
		if i+1 < len(parts) {
			end = parts[i+1][0]
		}
		what := text[at[1]:end]
		if qualifier := text[at[4]:at[5]]; qualifier != "" {
			what = qualifier + ": " + what
		}
		return strings.TrimSuffix(upper(what), ".") + "."
	}
	if len(parts) > 0 && parts[0][0] > 0 {
		return upper(text[:parts[0][0]]) + "."
	}
	return upper(text)
}

// upper capitalizes the first letter of text, unless text begins with the name of a field or a program.
func upper(text string) string {
	if word, _, _ := strings.Cut(text, " "); text == "" || strings.ContainsAny(word, ".-") {
		return text
	}
	return strings.ToUpper(text[:1]) + text[1:]
}
