package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"sigs.k8s.io/yaml"

	"github.com/heraldlb/herald/cmd/kubectl-herald/internal/report"
)

// unpacked returns the files of an archive by name, and their names in order.
func unpacked(t *testing.T, name string) (files map[string]string, order []string) {
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
	files = map[string]string{}
	for r := tar.NewReader(z); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return files, order
		}
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		path := strings.TrimPrefix(h.Name, "herald-bundle/")
		files[path], order = string(text), append(order, path)
	}
}

// listed returns a list of objects that are written in YAML.
func listed(t *testing.T, apiVersion, kind string, objects ...string) any {
	t.Helper()
	items := []any{}
	for _, text := range objects {
		o := map[string]any{}
		if err := yaml.Unmarshal([]byte(text), &o); err != nil {
			t.Fatal(err)
		}
		o["apiVersion"], o["kind"] = apiVersion, kind
		items = append(items, o)
	}
	return map[string]any{"kind": kind + "List", "apiVersion": apiVersion, "metadata": map[string]any{}, "items": items}
}

// TestABundleHasNoSecrets puts secrets wherever a bundle could find them, and looks for them in the archive.
func TestABundleHasNoSecrets(t *testing.T) {
	const secret = "hunter2-5f4dcc3b" // must not be in the archive
	own := "/api/v1/namespaces/herald-system"
	content := map[string]any{
		"/version":        map[string]any{"major": "1", "minor": "36", "gitVersion": "v1.36.3"},
		"/api":            map[string]any{"kind": "APIVersions", "versions": []string{}},
		"/apis":           map[string]any{"kind": "APIGroupList", "apiVersion": "v1", "groups": []any{}},
		"/api/v1/secrets": listed(t, "v1", "Secret", "{metadata: {name: tor, namespace: herald-system-peers}, data: {password: "+secret+"}}"),
		"/api/v1/nodes":   listed(t, "v1", "Node", "{metadata: {name: n1, annotations: {join-token: "+secret+"}}}"),
		"/api/v1/services": listed(t, "v1", "Service",
			`{metadata: {name: web, namespace: red, annotations: {kubectl.kubernetes.io/last-applied-configuration: '{"env":[{"value":"`+secret+`"}]}'}}, spec: {type: LoadBalancer}}`),
		"/apis/discovery.k8s.io/v1/endpointslices": listed(t, "discovery.k8s.io/v1", "EndpointSlice",
			"{metadata: {name: web-1, namespace: red, labels: {kubernetes.io/service-name: web}}, addressType: IPv4}", "{metadata: {name: other-1, namespace: red, labels: {kubernetes.io/service-name: other}}, addressType: IPv4}"),
		"/api/v1/events": listed(t, "v1", "Event",
			"{metadata: {name: a, namespace: red}, involvedObject: {kind: Service, namespace: red, name: web}, message: 'password="+secret+"'}",
			"{metadata: {name: b, namespace: red}, involvedObject: {kind: Pod, namespace: red, name: theirs}, message: nothing of ours}",
			"{metadata: {name: c, namespace: default}, involvedObject: {kind: IPPool, apiVersion: herald.dev/v1alpha1, name: public}, message: of a pool}"),
		own + "/pods": listed(t, "v1", "Pod", `
metadata: {name: herald-ccm-1, namespace: herald-system, labels: {app.kubernetes.io/name: herald-ccm}}
spec:
  initContainers: [{name: init, env: [{name: A, value: `+secret+`}]}]
  containers:
  - {name: herald-ccm, env: [{name: HTTP_PROXY, value: "http://me:`+secret+`@proxy"}, {name: B, value: `+secret+`}], args: [--api-token, `+secret+`, --password=`+secret+`, "--url=https://me:`+secret+`@x"]}
status: {containerStatuses: [{name: herald-ccm, restartCount: 1, ready: true, image: a, imageID: b}]}
`),
		"/apis/apps/v1/namespaces/herald-system/deployments": listed(t, "apps/v1", "Deployment",
			"{metadata: {name: herald-ccm, namespace: herald-system}, spec: {template: {spec: {containers: [{name: a, env: [{name: C, value: "+secret+"}]}]}}}}"),
		"/apis/apps/v1/namespaces/herald-system/daemonsets":  listed(t, "apps/v1", "DaemonSet"),
		own + "/pods/herald-ccm-1/log":                       "ready\ntoken: " + secret + "\nsent Bearer " + secret + "\n",
		own + "/pods/https:herald-ccm-1:10258/proxy/metrics": `up{password="` + secret + `"} 1`,
	}
	flags := server(t, content, func(path string) bool {
		if strings.Contains(path, "secrets") {
			t.Error("it reads Secrets:", path)
		}
		return !strings.Contains(path, "leases")
	})
	name := filepath.Join(t.TempDir(), "x.tar.gz")
	said, err := ran(t, append(flags, "bundle", "-o", name)...)
	if !errors.Is(err, errAttention) {
		t.Fatalf("%v: %s", err, said)
	}
	files, order := unpacked(t, name)
	want := []string{
		"versions.yaml", "objects/bgpadvertisements.herald.dev.yaml", "objects/bgppeers.herald.dev.yaml", "objects/ipallocations.herald.dev.yaml", "objects/ippools.herald.dev.yaml",
		"objects/l2advertisements.herald.dev.yaml", "objects/speakerstatuses.herald.dev.yaml", "objects/nodes.yaml", "objects/services.yaml", "objects/endpointslices.discovery.k8s.io.yaml",
		"objects/events.yaml", "objects/pods.yaml", "objects/daemonsets.apps.yaml", "objects/deployments.apps.yaml", "logs/herald-ccm-1/herald-ccm.log", "logs/herald-ccm-1/herald-ccm.previous.log",
		"metrics/herald-ccm/herald-ccm-1.txt", "status.txt", "preflight.txt", "index.yaml",
	}
	if diff := cmp.Diff(want, order); diff != "" {
		t.Errorf("files (-want +got):\n%s", diff)
	}
	for path, text := range files {
		if strings.Contains(text, secret) {
			t.Errorf("%s has the secret:\n%s", path, text)
		}
	}
	for path, has := range map[string]string{
		"objects/nodes.yaml": "name: n1", "objects/services.yaml": "name: web", "objects/endpointslices.discovery.k8s.io.yaml": "name: web-1", "objects/events.yaml": "message: of a pool",
		"objects/pods.yaml": "- --api-token\n    - REDACTED", "logs/herald-ccm-1/herald-ccm.log": "ready", "status.txt": "n1", "versions.yaml": "gitVersion: v1.36.3",
	} {
		if !strings.Contains(files[path], has) {
			t.Errorf("%s does not have %q:\n%s", path, has, files[path])
		}
	}
	if text := files["objects/endpointslices.discovery.k8s.io.yaml"] + files["objects/events.yaml"]; strings.Contains(text, "other-1") || strings.Contains(text, "nothing of ours") {
		t.Errorf("it has what is not about Services of type LoadBalancer:\n%s", text)
	}
	var index report.Index
	if err := yaml.UnmarshalStrict([]byte(files["index.yaml"]), &index); err != nil || len(index.Files) != len(order)-1 || index.Files[7].Note != "1 object" {
		t.Errorf("%v: %+v", err, index)
	}
	if !slices.ContainsFunc(index.Missing, func(m report.Missing) bool {
		return m.What == "objects/leases.coordination.k8s.io.yaml" && strings.Contains(m.Reason, "forbidden")
	}) || !strings.Contains(said, "! objects/leases.coordination.k8s.io.yaml: ") {
		t.Errorf("%+v; it says\n%s", index.Missing, said)
	}
	left, err := filepath.Glob(filepath.Join(filepath.Dir(name), ".herald*"))
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestLogLinesAreBounded(t *testing.T) {
	long := strings.Repeat("x", maxLine)
	for _, c := range []struct {
		name, text, want, note string
		most                   int64
	}{
		{"lines", "a\nb", "a\nb\n", "", 100},
		{"a secret after what is cut", "a" + long + " token=abc\nb\n", ("a" + long)[:maxLine] + " (cut)\nb\n", "", 10 * maxLine},
		{"a private key that begins in what is cut", long + "----- -----BEGIN PRIVATE KEY-----\nMHc\n-----END PRIVATE KEY-----\nb\n", long + " (cut)\nREDACTED\nREDACTED\nb\n", "", 10 * maxLine},
		{"a private key that begins where the line is cut", long[20:] + "-----BEGIN PRIVATE KEY-----\nMHc\n-----END PRIVATE KEY-----\nb\n", long[20:] + "-----BEGIN PRIVATE K (cut)\nREDACTED\nREDACTED\nb\n", "", 10 * maxLine},
		{"a private key that ends in what is cut", "-----BEGIN PRIVATE KEY-----\n" + long + "-----END PRIVATE KEY-----\nb\n", "REDACTED\nREDACTED (cut)\nb\n", "", 10 * maxLine},
		{"too many", "a\nb\nc\n", "a\nb\n", "cut at 4 bytes", 4},
		{"nothing", "", "", "", 100},
		{"a private key", "a\n1 key -----BEGIN PRIVATE KEY-----\n2 MHc\n3 MHc\n4 -----END PRIVATE KEY-----\nb\n", "a\n1 key REDACTED\nREDACTED\nREDACTED\nREDACTED\nb\n", "", 200},
		{"a private key without an end", "-----BEGIN RSA PRIVATE KEY-----\n" + strings.Repeat("x\n", maxKeyLines) + "b\n", strings.Repeat("REDACTED\n", maxKeyLines+1) + "b\n", "", 10 * maxLine},
	} {
		t.Run(c.name, func(t *testing.T) {
			var out bytes.Buffer
			note, err := redactLines(&out, strings.NewReader(c.text), c.most)
			if err != nil || note != c.note || out.String() != c.want {
				t.Errorf("%v, %q: %.100q", err, note, out.String())
			}
		})
	}
}

func TestABundleReplacesRegularFilesOnly(t *testing.T) {
	flags := server(t, map[string]any{}, func(path string) bool {
		t.Error("it reads:", path)
		return false
	})
	dir := t.TempDir()
	link := filepath.Join(dir, "link")
	if err := os.Symlink("/dev/null", link); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{dir, link, "/dev/null"} {
		if said, err := ran(t, append(flags, "bundle", "-o", name)...); err == nil || !strings.Contains(err.Error(), "-o "+name+": ") {
			t.Errorf("%v: %s", err, said)
		}
	}
}

func TestTheEndOfALogIsKept(t *testing.T) {
	for _, c := range []struct{ text, want, note string }{
		{"a\nb\n", "a\nb\n", ""},
		{"a\nb\nc\n", "b\nc\n", "the last 5 bytes"},
		{strings.Repeat("a\n", 100) + "b\nc\n", "b\nc\n", "the last 5 bytes"},
		{"a\nbcd\n", "bcd\n", "the last 5 bytes"},
		{"a\nbcde\n", "bcde\n", "the last 5 bytes"},
		{"a\nbcdef\n", "", "the last 5 bytes"},
	} {
		end := &ending{most: 5}
		if _, err := redactLines(end, strings.NewReader(c.text), math.MaxInt64); err != nil {
			t.Fatal(err)
		}
		var out bytes.Buffer
		if note, err := end.writeTo(&out); err != nil || note != c.note || out.String() != c.want {
			t.Errorf("%q: %v, %q: %q", c.text, err, note, out.String())
		}
	}
}

// TestMetricsThatCannotBeRead is about the metrics of herald-ccm. herald-ccm requires a token, which the API server cannot
// send. This is not a failure.
func TestMetricsThatCannotBeRead(t *testing.T) {
	own := "/api/v1/namespaces/herald-system"
	content := map[string]any{
		"/version":    map[string]any{"major": "1", "minor": "36", "gitVersion": "v1.36.3"},
		own + "/pods": listed(t, "v1", "Pod", "{metadata: {name: herald-ccm-1, namespace: herald-system, labels: {app.kubernetes.io/name: herald-ccm}}}"),
	}
	flags := server(t, content, func(path string) bool { return !strings.HasSuffix(path, "/metrics") })
	name := filepath.Join(t.TempDir(), "x.tar.gz")
	if said, err := ran(t, append(flags, "bundle", "-o", name)...); !errors.Is(err, errAttention) {
		t.Fatalf("%v: %s", err, said)
	}
	files, _ := unpacked(t, name)
	var index report.Index
	if err := yaml.UnmarshalStrict([]byte(files["index.yaml"]), &index); err != nil {
		t.Fatal(err)
	}
	const metrics = "metrics/herald-ccm/herald-ccm-1.txt"
	if i := slices.IndexFunc(index.Files, func(f report.IndexedFile) bool { return f.Path == metrics }); i < 0 || !strings.HasPrefix(index.Files[i].Note, "not read: herald-ccm requires a token") {
		t.Errorf("%+v", index.Files)
	}
	if slices.ContainsFunc(index.Missing, func(m report.Missing) bool { return m.What == metrics }) {
		t.Errorf("%+v", index.Missing)
	}
}
