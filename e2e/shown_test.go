package e2e

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// shown is a command that a document shows.
type shown struct {
	document string // Its path in this repository.
	line     int
	block    string // The code block that has the command. It is empty if the command stands in the text.
	command  string // It may have several lines.
	output   string // What the document shows below the command. If there is no command, it is a part of an output.
}

func (s shown) where() string { return fmt.Sprintf("%s:%d", s.document, s.line) }

// shows says what is wrong, for those who read of a failure, and what to do.
func (s shown) shows() string {
	what, cure := "does not work", "correct the document. If it cannot run in the lab, add it to places in e2e/shown_test.go, with the reason"
	if s.output != "" {
		what, cure = "does not print what is shown", "write what it prints into the document"
	}
	return fmt.Sprintf("%s: %q %s: %s", s.where(), s.command, what, cure)
}

// lineOf returns the line of a document at which a block begins.
func lineOf(t testing.TB, document, block string) int {
	t.Helper()
	content, err := os.ReadFile(filepath.Join("..", document))
	if err != nil {
		t.Fatal(err)
	}
	before, _, _ := strings.Cut(string(content), block)
	return strings.Count(before, "\n")
}

// programs are those that documents call.
const programs = `(?:kubectl|helm|docker|kind|make|go|sudo|curl|ip|vtysh|birdc|tcpdump|sysctl|ctr|sed|cosign|gh|git|build/bin/\w+|herald-speaker) `

var (
	inline = regexp.MustCompile("`(" + programs + "[^`]+)`")
	begins = regexp.MustCompile(`\A(?:#!.*\n)? *(?:` + programs + `|(?:export|exec|cat|for|while|only) |[A-Z_]+=|[a-z]+\(\) )`)
	// settles finds the commands on which later ones of the same document depend.
	settles = regexp.MustCompile(`^([A-Z_]+=[^ ]|export |[a-z]+\(\) )`)
	// begun and ended find where loops and the texts of objects begin and end.
	begun = regexp.MustCompile(`; do\b|<<'?EOF'?`)
	ended = regexp.MustCompile(`(?m)\bdone$|^EOF$`)
	// neither finds the blocks that are neither commands nor their output: diagrams and the configurations of routers, which
	// TestDocumentedConfigurations checks.
	neither  = regexp.MustCompile(`[─│►▼]|(?m)^(router bgp |bfd$|protocol |filter |  local role )`)
	optional = regexp.MustCompile(` \[[^\]]*\](\.\.\.)?`)
	remark   = regexp.MustCompile(`(?m)\s+# .*$`)
)

// shownCommands returns the commands of all documents, in the order in which they stand. The records of decisions are not for
// users, and CHANGELOG.md names what there once was.
func shownCommands(t testing.TB) (all []shown) {
	t.Helper()
	documents := []string{"README.md", "CONTRIBUTING.md", "SECURITY.md", "SUPPORT.md"}
	for _, pattern := range []string{"docs/*.md", "docs/reference/*.md"} {
		files, err := filepath.Glob(filepath.Join("..", pattern))
		if err != nil || len(files) == 0 {
			t.Fatalf("no document is like %s: %v", pattern, err)
		}
		for _, f := range files {
			documents = append(documents, strings.TrimPrefix(f, "../"))
		}
	}
	for _, d := range documents {
		content, err := os.ReadFile(filepath.Join("..", d))
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, shownIn(d, string(content))...)
	}
	return all
}

// shownIn returns the commands of a document.
func shownIn(document, text string) (all []shown) {
	line := func(offset int) int { return 1 + strings.Count(text[:offset], "\n") }
	at, end := 0, []int{len(text), len(text), len(text), len(text)}
	for _, m := range append(fenced.FindAllStringSubmatchIndex(text, -1), end) {
		for _, i := range inline.FindAllStringSubmatchIndex(text[at:m[0]], -1) {
			command := strings.Join(strings.Fields(strings.ReplaceAll(text[at+i[2]:at+i[3]], `\|`, "|")), " ")
			all = append(all, shown{document: document, line: line(at + i[0]), command: optional.ReplaceAllString(command, "")})
		}
		at = m[1]
		s := shown{document: document, line: line(m[0]), block: text[m[2]:m[3]]}
		language := strings.Trim(text[m[0]:m[2]], "`\n")
		switch {
		case language == "yaml" || language == "go": // TestDocumentedRouters applies objects.
		case strings.HasPrefix(s.block, "$ "):
			for part := range strings.SplitSeq(strings.TrimPrefix(s.block, "$ "), "\n$ ") {
				s.command, s.output, _ = strings.Cut(part, "\n")
				all = append(all, s)
			}
		case strings.Contains(s.block, "[flags]"): // The synopsis of a page that make generate writes.
		case begins.MatchString(s.block):
			for _, s.command = range commandsOf(s.block) {
				all = append(all, s)
			}
		case s.block != "" && !neither.MatchString(s.block): // The output of a command that stands elsewhere.
			s.output = s.block
			all = append(all, s)
		}
	}
	return all
}

// commandsOf splits a block into commands. A command ends with its line unless the line, a text or a loop goes on.
func commandsOf(block string) (all []string) {
	command := ""
	for line := range strings.Lines(block) {
		command += line
		bare := strings.TrimSpace(remark.ReplaceAllString("\n"+command, ""))
		if bare == "" {
			command = ""
		} else if !strings.HasSuffix(bare, `\`) && strings.Count(bare, "'")%2 == 0 &&
			len(begun.FindAllString(bare, -1)) == len(ended.FindAllString(bare, -1)) {
			all = append(all, bare)
			command = ""
		}
	}
	return all
}

// place says what runs a command.
type place int

const (
	inLab         place = iota // TestShownCommands
	onPlane                    // TestShownInstallations
	onKubelets                 // TestShownCommandsOnKind
	besideMetalLB              // TestShownMoves
	compared                   // TestShownOutputs
	taken                      // Another test takes the block out of the document: takers.
	inspected                  // TestEveryShownCommandIsRun checks what the command names.
	nowhere
)

// places says which commands do not run in the lab. The first row that fits a command counts.
var places = []struct {
	at   place
	like string
	why  string // Why nothing runs it.
}{
	{nowhere, `^(kubectl (apply( -k)?|describe|drain|edit|get|delete -f|herald( bgp| import| explain( service)?| plan| renumber| takeover)?)|helm (template|test|uninstall|upgrade)|herald-speaker test)$`, "it is the name of a command"},
	{nowhere, `^(docker (build|buildx|push|save)|kind load) `, "it needs a registry: TestQuickStart loads an image that was built without one"},
	{nowhere, `^(ctr|cosign|gh|kubectl krew|git tag|make release) `, "it needs a release, or makes one"},
	{nowhere, `^(docker (kill|start)|kind delete) |kind create cluster|^while sleep`, "it begins or ends the user's cluster or a node of it"},
	{nowhere, `^(kubectl herald ui|(sudo nsenter .* )?tcpdump)( |$)`, "it runs until it is interrupted"},
	{nowhere, `^build/bin/cluster `, "it needs the cluster of make e2e-up, of which a machine has one"},
	{nowhere, `^herald-speaker test `, "the pod of helm test runs it: TestHelm"},
	{nowhere, `^(kubectl delete (-f manifests/|-k |crd )|helm uninstall )`, "TestUninstall and TestHelm do it: an API server may take five minutes to delete kinds that it created seconds ago"},
	{inspected, `^(sudo env PATH="\$PATH" )?make |\bgo (build|test) `, ""},
	{besideMetalLB, `^kubectl herald (import|takeover) metallb`, ""},
	{nowhere, `rollout restart daemonset/kube-proxy|^kubectl -n kube-system logs .*--previous`, "kube-proxy would start anew on nodes that other stories use"},
	{onKubelets, `^kubectl (rollout |-n (herald|kube)-system (describe|get|logs|rollout) |get pods --namespace herald-system)`, ""},
	{onPlane, `herald:dev#|^TAG=|^helm (install|upgrade) |^kubectl (create|label|delete) namespace |^kubectl (delete|patch) service |\$pool|` +
		`^kubectl delete (services,|ip\w+\.herald\.dev) |^kubectl -n herald-system scale |^kubectl get services -A --field`, ""},
}

// takers are the calls with which tests take a block out of a document, to run its commands or to compare it with an output.
var takers = []struct {
	call     *regexp.Regexp
	document string // Empty if the call names it.
}{
	{regexp.MustCompile(`blockOf\([a-z.]+, "([^"]+)", ("[^"]*"|` + "`[^`]*`" + `)\)`), ""},
	{regexp.MustCompile(`prints\((?:document|"docs/kubectl-herald.md"), ("[^"]*")`), "docs/kubectl-herald.md"},
	{regexp.MustCompile(`follow(?:er\("docs/moving.md", |\()("[^"]*")\)`), "docs/moving.md"},
}

// takenBlocks returns a text of each block that a test takes out of a document, by document.
func takenBlocks(t testing.TB) map[string][]string {
	t.Helper()
	sources, err := filepath.Glob("*_test.go")
	if err != nil {
		t.Fatal(err)
	}
	all := map[string][]string{quickStart: quickStartBlocks(t)}
	for _, file := range sources {
		source, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, taker := range takers {
			for _, m := range taker.call.FindAllStringSubmatch(string(source), -1) {
				document := cmp.Or(taker.document, m[1])
				text, err := strconv.Unquote(m[len(m)-1])
				if err != nil {
					t.Fatalf("%s: %s: %v", file, m[0], err)
				}
				all[document] = append(all[document], text)
			}
		}
	}
	return all
}

// placed returns the commands of all documents by what runs them.
func placed(t testing.TB) map[place][]shown {
	t.Helper()
	all, _ := placedBy(t)
	return all
}

// placedBy also returns the numbers of the rows of places that fit a command.
func placedBy(t testing.TB) (map[place][]shown, map[int]bool) {
	t.Helper()
	blocks, all, used := takenBlocks(t), map[place][]shown{}, map[int]bool{}
	var likes []*regexp.Regexp
	for _, row := range places {
		likes = append(likes, regexp.MustCompile(row.like))
	}
	for _, s := range shownCommands(t) {
		at := inLab
		row := slices.IndexFunc(likes, func(like *regexp.Regexp) bool { return like.MatchString(s.command) })
		switch {
		case s.block != "" && slices.ContainsFunc(blocks[s.document], func(text string) bool { return strings.Contains(s.block, text) }):
			at = taken
		case row >= 0:
			at, used[row] = places[row].at, true
		case s.output != "":
			at = compared
		}
		all[at] = append(all[at], s)
	}
	return all, used
}

// TestEveryShownCommandIsRun is about the commands that no story runs: what a command of make or go names must exist. A command
// that is in no row of places runs in the lab.
func TestEveryShownCommandIsRun(t *testing.T) {
	makefile, err := os.ReadFile("../Makefile")
	if err != nil {
		t.Fatal(err)
	}
	target := regexp.MustCompile(`(?m)^([a-z0-9-]+):`)
	var targets []string
	for _, m := range target.FindAllStringSubmatch(string(makefile), -1) {
		targets = append(targets, m[1])
	}
	all, used := placedBy(t)
	for i, row := range places {
		if !used[i] {
			t.Errorf("no document has a command like %s: delete that row of places in e2e/shown_test.go", row.like)
		}
		if (row.at == nowhere) != (row.why != "") {
			t.Errorf("places in e2e/shown_test.go: a row says why if nothing runs the command, and only then: %s", row.like)
		}
	}
	for _, s := range all[inspected] {
		if _, of, ok := strings.Cut(s.command, "make "); ok {
			for name := range strings.FieldsSeq(of) {
				if !slices.Contains(targets, name) {
					t.Errorf("%s: %s: make has no target %s", s.where(), s.command, name)
				}
			}
			continue
		}
		if err := testsExist(s.command); err != nil {
			t.Errorf("%s: %s: %v", s.where(), s.command, err)
		}
	}
}

var (
	packages = regexp.MustCompile(` \./(\S*)`)
	chosen   = regexp.MustCompile(` -(run|bench) (?:'([^']+)'|(\S+))`)
	tests    = regexp.MustCompile(`(?m)^func ((?:Test|Benchmark)\w+)\(`)
)

// testsExist returns an error if go test would find no package, or no test or benchmark of the name.
func testsExist(command string) error {
	var names []string
	for _, m := range packages.FindAllStringSubmatch(command, -1) {
		files, err := filepath.Glob(filepath.Join("..", strings.TrimSuffix(m[1], "/..."), "*_test.go"))
		if err != nil {
			return err
		}
		if len(files) == 0 {
			return fmt.Errorf("no tests are in ./%s", m[1])
		}
		for _, f := range files {
			source, err := os.ReadFile(f)
			if err != nil {
				return err
			}
			for _, m := range tests.FindAllStringSubmatch(string(source), -1) {
				names = append(names, m[1])
			}
		}
	}
	for _, m := range chosen.FindAllStringSubmatch(command, -1) {
		for one := range strings.SplitSeq(m[2]+m[3], "|") {
			one, _, _ = strings.Cut(one, "/") // What follows names parts of it.
			kind := map[string]string{"run": "Test", "bench": "Benchmark"}[m[1]]
			like := regexp.MustCompile(one)
			if one != "^$" && !slices.ContainsFunc(names, func(n string) bool { return strings.HasPrefix(n, kind) && like.MatchString(n) }) {
				return fmt.Errorf("there is no %s like %s", kind, one)
			}
		}
	}
	return nil
}
