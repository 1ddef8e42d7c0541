package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/cli-runtime/pkg/resource"
)

func TestFiles(t *testing.T) {
	const first = "# Pools.\n---\napiVersion: herald.dev/v1alpha1\nkind: IPPool\nmetadata: {name: a}\nspec: {addresses: [198.51.100.0/24]}\n"
	for _, c := range []struct {
		name, text          string
		pools               []string
		onSegments, routers int // L2Advertisements and BGPAdvertisements
		others              int
		err                 string
	}{
		{name: "several, and others", pools: []string{"a", "b"}, onSegments: 1, routers: 1, others: 2, text: first + "---\n" +
			`{"apiVersion":"herald.dev/v1alpha1","kind":"IPPool","metadata":{"name":"b"},"spec":{"addresses":["203.0.113.0"],"reuseDelay":"1m"}}` +
			"\n---\napiVersion: v1\nkind: Service\nmetadata: {name: web}\n---\napiVersion: herald.dev/v1alpha1\nkind: L2Advertisement\nmetadata: {name: a}\n" +
			"---\napiVersion: herald.dev/v1alpha1\nkind: BGPAdvertisement\nmetadata: {name: a}\n---\napiVersion: herald.dev/v1alpha1\nkind: BGPPeer\nmetadata: {name: a}\n"},
		{name: "a list", pools: []string{"c"}, text: "apiVersion: v1\nkind: List\nitems:\n- apiVersion: herald.dev/v1alpha1\n  kind: IPPool\n" +
			"  metadata: {name: c, uid: x}\n  spec: {addresses: [203.0.113.0]}\n  status: {ipv4: {capacity: 1, assigned: 0, cooling: 0, available: 1}}\n"},
		{name: "nothing", text: "# Nothing.\n"},
		{name: "a slip", text: first + "---\n" + strings.Replace(first, "{addresses:", "{adresses:", 1), err: `strict decoding error: unknown field "spec.adresses"`},
		{name: "no YAML", text: "a: [", err: "error parsing "},
		{name: "no kind", text: "metadata: {name: a}\n", err: "Kind' is missing"},
		{name: "an unknown kind of ours", text: "apiVersion: herald.dev/v1alpha1\nkind: Pool\n", err: `no kind "Pool" is registered`},
		{name: "twice", text: first + first, err: "IPPool a is there twice"},
		{name: "an advertisement twice", text: strings.Repeat("---\napiVersion: herald.dev/v1alpha1\nkind: L2Advertisement\nmetadata: {name: a}\n", 2), err: "L2Advertisement a is there twice"},
		{name: "no name", text: strings.Replace(first, "name: a", "namespace: a", 1), err: "metadata.name is empty"},
	} {
		t.Run(c.name, func(t *testing.T) {
			name := filepath.Join(t.TempDir(), "pools.yaml")
			if err := os.WriteFile(name, []byte(c.text), 0o600); err != nil {
				t.Fatal(err)
			}
			wanted, others, err := readFiles(&resource.FilenameOptions{Filenames: []string{name}})
			if c.err != "" {
				if err == nil || !strings.Contains(err.Error(), c.err) || !strings.Contains(err.Error(), name) {
					t.Errorf("error %v, want %q, and the name of the file", err, c.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			var names []string
			for _, p := range wanted.Pools {
				names = append(names, p.Name)
				if !*p.Spec.AutoAssign {
					t.Errorf("%s does not auto-assign", p.Name)
				}
			}
			if len(wanted.L2Advertisements) != c.onSegments || len(wanted.BGPAdvertisements) != c.routers {
				t.Errorf("%d L2Advertisements and %d BGPAdvertisements, want %d and %d", len(wanted.L2Advertisements), len(wanted.BGPAdvertisements), c.onSegments, c.routers)
			}
			if diff := cmp.Diff(c.pools, names); diff != "" || others != c.others {
				t.Errorf("%d others, want %d; pools (-want +got):\n%s", others, c.others, diff)
			}
		})
	}
	if _, _, err := readFiles(&resource.FilenameOptions{Filenames: []string{"no-such-file.yaml"}}); err == nil || !strings.Contains(err.Error(), `"no-such-file.yaml" does not exist`) {
		t.Errorf("a file that is not there: %v", err)
	}
	if wanted, others, err := readFiles(&resource.FilenameOptions{}); err != nil || wanted.Pools != nil || others != 0 {
		t.Errorf("nothing is read: %v, %d, %v", wanted, others, err)
	}
	t.Run("a directory, and one of kustomize", func(t *testing.T) {
		dir := t.TempDir()
		for name, text := range map[string]string{"a.yaml": first, "b.json": `{"apiVersion":"herald.dev/v1alpha1","kind":"IPPool","metadata":{"name":"b"},"spec":{"addresses":["203.0.113.0"]}}`} {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if wanted, _, err := readFiles(&resource.FilenameOptions{Filenames: []string{dir}}); err != nil || len(wanted.Pools) != 2 {
			t.Errorf("a directory: %v, %v", wanted.Pools, err)
		}
		if err := os.WriteFile(filepath.Join(dir, "kustomization.yaml"), []byte("resources: [a.yaml]\nnamePrefix: x-\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		if wanted, _, err := readFiles(&resource.FilenameOptions{Kustomize: dir}); err != nil || len(wanted.Pools) != 1 || wanted.Pools[0].Name != "x-a" {
			t.Errorf("kustomize: %v, %v", wanted.Pools, err)
		}
	})
}
