package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/heraldlb/herald/e2e/lab"
)

// fenced finds the code blocks of a Markdown document.
var fenced = regexp.MustCompile("(?ms)^```[a-z]*\n(.*?)^```$")

// blockWith returns the one code block of README.md that contains text.
func blockWith(t testing.TB, text string) string {
	t.Helper()
	return blockOf(t, "README.md", text)
}

// blockOf returns the one code block of a Markdown document of this repository that contains text.
func blockOf(t testing.TB, document, text string) string {
	t.Helper()
	content, err := os.ReadFile(filepath.Join("..", document))
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, m := range fenced.FindAllStringSubmatch(string(content), -1) {
		if strings.Contains(m[1], text) {
			found = append(found, m[1])
		}
	}
	if len(found) != 1 {
		t.Fatalf("%s has %d code blocks with %q, want one", document, len(found), text)
	}
	return found[0]
}

// TestReadme pastes the first example of README.md unchanged: its range is in the subnet of the lab's nodes. The lab has no
// real kubelets, so a pod of the lab replaces the Deployment.
func TestReadme(t *testing.T) {
	f := withLab(t, lab.Options{Nodes: 2})
	subnets, _ := strings.CutPrefix(strings.TrimSpace(blockWith(t, "SUBNETS")), "kubectl ")
	f.eventually("the nodes' subnets", func(ctx context.Context) error {
		out, err := f.access.Shell(ctx, "kubectl "+subnets)
		for _, n := range names(f.site) {
			if want := regexp.MustCompile(`(?m)^` + n + `\s+.*198\.18\.0\.\d+/24`); err == nil && !want.MatchString(out) {
				err = fmt.Errorf("no subnet of %s in\n%s", n, out)
			}
		}
		return err
	})

	const end = "\nEOF\n"
	objects, rest, ok := strings.Cut(blockWith(t, "RANGE="), end)
	if !ok {
		t.Fatal("the example has no end of its objects")
	}
	_, err := f.access.Shell(f.ctx, objects+end)
	f.must(err)
	f.pod("web-1", names(f.site)[0])
	f.service("web", to8080)
	f.holds("web", "198.18.0.200")
	if r := f.reached(f.site.Segment, "198.18.0.200:9000"); r.Pod != "web-1" {
		t.Errorf("%+v answers", r)
	}
	if !strings.Contains(rest, "--type=LoadBalancer") {
		t.Errorf("the example creates no Service of type LoadBalancer:\n%s", rest)
	}
	const served = "Nothing has to be done in Herald: it announces the Service.\nIf clients cannot connect to port 9000, see whether the pods listen on targetPort 8080: " +
		"kubectl -n default port-forward service/web :9000, and connect to the port of localhost that it prints."
	f.eventually("the speakers have reported what they do", func(ctx context.Context) error {
		explained, err := f.access.Kubectl(ctx, "herald", "explain", "service", "default/web")
		if err == nil && !strings.HasSuffix(strings.TrimSpace(explained), served) {
			err = fmt.Errorf("explain says\n%s", explained)
		}
		return err
	})

	_, err = f.access.Shell(f.ctx, "kubectl apply --dry-run=server -f - <<EOF\n"+blockWith(t, "name: tor-a")+"EOF\n")
	f.must(err)
}
