package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"k8s.io/cli-runtime/pkg/resource"
)

// TestTakeoverReadsObjectsOfHerald checks which objects the files may have that replace the translation.
func TestTakeoverReadsObjectsOfHerald(t *testing.T) {
	const pool = "apiVersion: herald.dev/v1alpha1\nkind: IPPool\nmetadata: {name: a}\nspec: {addresses: [198.51.100.0/24]}\n"
	for _, c := range []struct {
		name, text, err string
		objects         int
	}{
		{"what import writes", pool + "---\napiVersion: herald.dev/v1alpha1\nkind: L2Advertisement\nmetadata: {name: a}\n", "", 2},
		{"an unknown field", strings.Replace(pool, "addresses:", "adresses:", 1), `IPPool a: strict decoding error: unknown field "spec.adresses"`, 0},
		{"an object twice", pool + "---\n" + pool, "IPPool a has no name, or is there twice: correct it", 0},
		{"an object of MetalLB", "apiVersion: metallb.io/v1beta1\nkind: IPAddressPool\nmetadata: {name: a}\n", "IPAddressPool a is not an object of Herald: give the objects that import writes, corrected", 0},
		{"a record", "apiVersion: herald.dev/v1alpha1\nkind: IPAllocation\nmetadata: {name: 198.51.100.1}\nspec: {address: 198.51.100.1, pool: a}\n", "a takeover applies IPPools, L2Advertisements, BGPPeers and BGPAdvertisements: leave it out", 0},
		{"nothing", "\n", "there is no object in the files", 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "herald.yaml")
			if err := os.WriteFile(file, []byte(c.text), 0o600); err != nil {
				t.Fatal(err)
			}
			all, err := readHerald(&resource.FilenameOptions{Filenames: []string{file}})
			if len(all) != c.objects || (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
				t.Errorf("%d objects, %v", len(all), err)
			}
		})
	}
}
