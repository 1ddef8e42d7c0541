package main

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestImportReadsFiles checks what is translated from files, what is written to which stream, and how the command
// ends.
func TestImportReadsFiles(t *testing.T) {
	const pool = "apiVersion: metallb.io/v1beta1\nkind: IPAddressPool\nmetadata: {name: a, namespace: metallb-system}\nspec: {addresses: [198.51.100.0/24]}\n"
	const more = "apiVersion: metallb.io/v1beta1\nkind: L2Advertisement\nmetadata: {name: a, namespace: metallb-system}\nspec: {interfaces: [eth0], colour: red}\n"
	const labelled = "apiVersion: metallb.io/v1beta1\nkind: IPAddressPool\nmetadata: {name: b, namespace: metallb-system, labels: {rack: 7}}\nspec: {addresses: [192.0.2.0/28]}\n"
	const service = "apiVersion: v1\nkind: Service\nmetadata: {name: web, namespace: default, annotations: {metallb.io/allow-shared-ip: true}}\nspec: {type: LoadBalancer}\n"
	const held = "apiVersion: v1\nkind: Service\nmetadata: {name: held, namespace: default}\nspec: {type: LoadBalancer}\nstatus:\n loadBalancer:\n"
	for _, c := range []struct {
		name, stdin   string
		files         map[string]string
		arguments     []string
		written, said []string
		unwritten     []string
		err           string // empty: no error; "2": errAttention
	}{
		{name: "standard input", stdin: pool, arguments: []string{"metallb", "-f", "-"}, written: []string{"kind: IPPool", "198.51.100.0/24"}, said: []string{"Translated:", "IPAddressPool metallb-system/a -> IPPool a"}},
		{name: "a directory", files: map[string]string{"a.yaml": pool, "b.yaml": more}, arguments: []string{"metallb", "-f", "DIR"}, written: []string{"kind: IPPool", "---\n", "kind: L2Advertisement"}, said: []string{"spec.colour: Herald's import does not know this field"}, err: "2"},
		{name: "a file that is no YAML beside one that is", files: map[string]string{"a.yaml": "a: [", "b.yaml": pool}, arguments: []string{"metallb", "-f", "DIR"}, written: []string{"kind: IPPool"}, err: "a.yaml"},
		{
			name: "an annotation and a label of a wrong type beside objects that can be read", stdin: labelled + "---\n" + service + "---\n" + pool, arguments: []string{"metallb", "-f", "-"},
			written: []string{"kind: IPPool", "198.51.100.0/24"}, unwritten: []string{"192.0.2.0/28"},
			said: []string{
				"IPAddressPool metallb-system/b: metadata.labels.rack: it is a number: write a string, in quotation marks, and import again",
				"Service default/web: metadata.annotations.metallb.io/allow-shared-ip: it is a boolean: write a string, in quotation marks, and import again",
			}, err: "2",
		},
		{
			name: "a list with elements that are not objects", stdin: "apiVersion: v1\nkind: List\nitems:\n- 7\n- metadata: {name: s3cret}\n- " + strings.ReplaceAll(strings.TrimSpace(pool), "\n", "\n  ") + "\n",
			arguments: []string{"metallb", "-f", "-"}, written: []string{"kind: IPPool", "198.51.100.0/24"},
			err: "items[0] of document 1 of standard input is not an object: write one with apiVersion, kind and metadata, or leave it out\nitems[1] of document 1 of standard input has no apiVersion or no kind: write both",
		},
		{
			name: "a list of one kind", stdin: "apiVersion: metallb.io/v1beta1\nkind: IPAddressPoolList\nitems: [{metadata: {name: a, namespace: metallb-system}, spec: {addresses: [198.51.100.0/24]}}]\n",
			arguments: []string{"metallb", "-f", "-"}, written: []string{"kind: IPPool", "198.51.100.0/24"},
		},
		{
			name: "documents that are not objects", stdin: "- 7\n---\nhello\n---\n{apiVersion: v1, kind: List, items: 7}\n---\n{apiVersion: 1, kind: A}\n---\n" + pool, arguments: []string{"metallb", "-f", "-"}, written: []string{"kind: IPPool"},
			err: "document 1 of standard input is not an object: write one with apiVersion, kind and metadata, or leave it out\ndocument 2 of standard input is not an object: write one with apiVersion, kind and metadata, or leave it out\n" +
				"document 3 of standard input: items is not a list: write a list of objects\ndocument 4 of standard input has no apiVersion or no kind: write both",
		},
		{
			name: "metadata of other types", stdin: "apiVersion: v1\nkind: Service\nmetadata: {name: on}\nspec: {type: LoadBalancer}\n---\n{apiVersion: v1, kind: Service, metadata: 7}\n---\n{apiVersion: v1, kind: List, items: null}\n---\n" + pool,
			arguments: []string{"metallb", "-f", "-"}, written: []string{"kind: IPPool"},
			err: "document 1 of standard input: metadata.name of this Service is not a string: write it in quotation marks\ndocument 2 of standard input: metadata of this Service is not a map: write one with a name",
		},
		{name: "a document that is not an object in one of two files", files: map[string]string{"a.yaml": pool, "b.yaml": "- 7\n"}, arguments: []string{"metallb", "-f", "DIR"}, written: []string{"kind: IPPool"}, err: "b.yaml is not an object"},
		{name: "a pattern", files: map[string]string{"a.yaml": pool}, arguments: []string{"metallb", "-f", "DIR/*.yaml"}, written: []string{"kind: IPPool"}},
		{name: "a file that is not there", arguments: []string{"metallb", "-f", "DIR/a.yaml"}, err: "a.yaml"},
		{
			name: "a check, of a Service that keeps its address and one that does not", stdin: pool + "---\n" + held + "  ingress: [{ip: 198.51.100.7}, {ip: 192.0.2.7}]\n" + "---\n" + more, arguments: []string{"metallb", "-f", "-", "--check"},
			written: []string{
				"Addresses that Services would not keep, with what to do:\n  Service default/held: it has 192.0.2.7, which is in no IPPool",
				"Not translatable, with what to do:\n  L2Advertisement metallb-system/a: spec.colour",
				"Addresses that Services keep: 1 of 2\n",
			}, unwritten: []string{"kind:", "Translated:"}, err: "2",
		},
		{
			name: "a check that finds nothing", stdin: pool + "---\n" + held + "  ingress: [{ip: 198.51.100.7}]\n", arguments: []string{"metallb", "-f", "-", "--check"},
			written: []string{"Addresses that Services keep: 1 of 1\n"}, unwritten: []string{"kind:", "would not"},
		},
		{name: "a check, and no Service has an address", stdin: pool, arguments: []string{"metallb", "-f", "-", "--check"}, written: []string{"No Service has an address.\n"}},
		{name: "of another load balancer", stdin: pool, arguments: []string{"cilium", "-f", "-"}, err: "there is no configuration of Cilium among the 1 objects"},
		{name: "an unknown load balancer", arguments: []string{"openelb", "-f", "-"}, err: `"openelb" is not a load balancer that kubectl herald import knows: write one of metallb, cilium`},
		{name: "none", err: "name a load balancer: metallb, cilium"},
		{name: "a file without -f", arguments: []string{"metallb", "metallb.yaml"}, err: `"metallb.yaml" is one argument too many: kubectl herald import metallb|cilium`},
		{name: "an unknown flag", arguments: []string{"metallb", "--chek"}, err: "unknown flag: --chek: kubectl herald import --help lists the flags"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			for name, text := range c.files {
				if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if c.stdin != "" {
				name := filepath.Join(dir, "stdin")
				if err := os.WriteFile(name, []byte(c.stdin), 0o600); err != nil {
					t.Fatal(err)
				}
				f, err := os.Open(name)
				if err != nil {
					t.Fatal(err)
				}
				defer f.Close()
				kept := os.Stdin
				os.Stdin = f
				defer func() { os.Stdin = kept }()
			}
			cmd := command()
			arguments := []string{"import"}
			for _, a := range c.arguments {
				arguments = append(arguments, strings.ReplaceAll(a, "DIR", dir))
			}
			cmd.SetArgs(arguments)
			var out, said bytes.Buffer
			cmd.SetOut(&out)
			cmd.SetErr(&said)
			err := cmd.Execute()
			switch {
			case c.err == "" && err != nil, c.err == "2" && !errors.Is(err, errAttention), c.err != "" && c.err != "2" && (err == nil || !strings.Contains(err.Error(), c.err)):
				t.Errorf("it ends with %v, want %q", err, c.err)
			case err != nil && (strings.Contains(err.Error(), "json:") || strings.Contains(err.Error(), "s3cret")):
				t.Errorf("it ends with %v, which is for programmers, or tells what is in the object", err)
			}
			for _, want := range c.written {
				if !strings.Contains(out.String(), want) {
					t.Errorf("standard output has no %q:\n%s", want, &out)
				}
			}
			for _, other := range c.unwritten {
				if strings.Contains(out.String(), other) {
					t.Errorf("standard output has %q:\n%s", other, &out)
				}
			}
			for _, want := range c.said {
				if !strings.Contains(said.String(), want) {
					t.Errorf("standard error has no %q:\n%s", want, &said)
				}
			}
		})
	}
}
