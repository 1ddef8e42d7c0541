package e2e

import (
	"archive/tar"
	"compress/gzip"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/heraldlb/herald/e2e/lab"
)

// unpacked returns the files of an archive by name.
func unpacked(t *testing.T, name string) map[string]string {
	t.Helper()
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]string{}
	for r := tar.NewReader(z); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return files
		}
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		files[strings.TrimPrefix(h.Name, "herald-bundle/")] = string(text)
	}
}

// TestABundleForMaintainers is about kubectl herald bundle. The bundle must have everything that a maintainer asks for,
// and none of the secrets that the test puts into the objects.
func TestABundleForMaintainers(t *testing.T) {
	const address, secret = "198.18.0.200", "hunter2-5f4dcc3b"
	f := withLab(t, lab.Options{Nodes: 2})
	_, err := f.access.Kubectl(f.ctx, "apply", "-f", "../manifests/rbac/viewer.yaml")
	f.must(err)
	f.pool("segment", delay(0), address)
	f.announce()
	f.pod("pod-1", f.site.Nodes[0].Name)
	f.service("web", to8080)
	owner := f.answeredBy(address, names(f.site)...)
	// kubectl apply copies the whole object into an annotation.
	_, err = f.access.Kubectl(f.ctx, "apply", "-f", file(t, `apiVersion: v1
kind: Secret
metadata: {name: tor, namespace: herald-system}
stringData: {password: `+secret+`}
---
apiVersion: v1
kind: Pod
metadata: {name: herald-ccm-1, namespace: herald-system, labels: {app.kubernetes.io/name: herald-ccm}, annotations: {example.org/api-token: `+secret+`}}
spec:
  nodeName: `+owner+`
  containers:
  - {name: herald-ccm, image: x, env: [{name: HTTPS_PROXY, value: "http://me:`+secret+`@proxy"}], args: [--v=2, --password=`+secret+`, --token, `+secret+`]}
`))
	f.must(err)
	f.comesToSay("status", 0, "Nothing needs attention.")

	name := filepath.Join(t.TempDir(), "x.tar.gz")
	said, code := f.ask("bundle", "-o", name)
	if code != 2 {
		t.Errorf("exit code %d, want 2: there are no logs here", code)
	}
	f.says(said, "! logs/herald-ccm-1", "files; index.yaml lists them")
	files := unpacked(t, name)
	for path, text := range files {
		if strings.Contains(text, secret) {
			t.Errorf("%s has a secret:\n%s", path, text)
		}
	}
	for path, has := range map[string]string{
		"versions.yaml": "gitVersion: v1.36", "status.txt": address, "preflight.txt": "✓ 2 speakers run", "index.yaml": "what: logs/herald-ccm-1",
		"objects/ippools.herald.dev.yaml": address, "objects/ipallocations.herald.dev.yaml": "name: " + address, "objects/l2advertisements.herald.dev.yaml": "name: all",
		"objects/speakerstatuses.herald.dev.yaml": "name: " + owner, "objects/nodes.yaml": "name: " + owner, "objects/services.yaml": "name: web",
		"objects/endpointslices.discovery.k8s.io.yaml": "kubernetes.io/service-name: web", "objects/events.yaml": "kind: Event",
		"objects/pods.yaml": "- --password=REDACTED", "objects/leases.coordination.k8s.io.yaml": "name: speaker-" + owner,
		"metrics/herald-speaker/" + owner + ".txt": "herald_build_info",
	} {
		if !strings.Contains(files[path], has) {
			t.Errorf("%s does not have %q:\n%.2000s", path, has, files[path])
		}
	}
	if text := files["objects/services.yaml"]; strings.Contains(text, "name: kubernetes") {
		t.Errorf("it has Services of other types:\n%s", text)
	}

	// A user without read permissions gets an archive that says so.
	said, code = f.ask("bundle", "-o", name, "--as", "nobody")
	if files = unpacked(t, name); code != 2 || !strings.Contains(files["index.yaml"], "what: objects/nodes.yaml") || files["objects/nodes.yaml"] != "" || !strings.Contains(files["preflight.txt"], "you may not read nodes") {
		t.Errorf("exit code %d: %s\n%s", code, said, files["index.yaml"])
	}
}
