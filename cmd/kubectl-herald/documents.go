package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer/json"
	"k8s.io/apimachinery/pkg/util/yaml"

	"github.com/heraldlb/herald/api/client"
	herald "github.com/heraldlb/herald/api/v1alpha1"
)

// documents are what files hold.
type documents struct {
	pools  []*herald.IPPool
	others int // Documents of other kinds.
}

// strict refuses fields that do not exist, which are slips, and such that are given twice.
var strict = json.NewSerializerWithOptions(json.DefaultMetaFactory, client.Scheme, client.Scheme, json.SerializerOptions{Yaml: true, Strict: true})

// readFiles reads IPPools from files; - is standard input.
func readFiles(names []string, stdin io.Reader) (*documents, error) {
	var d documents
	for _, name := range names {
		if name == "-" {
			if err := d.read("standard input", stdin); err != nil {
				return nil, err
			}
			continue
		}
		f, err := os.Open(name)
		if err != nil {
			return nil, err
		}
		err = d.read(name, f)
		_ = f.Close()
		if err != nil {
			return nil, err
		}
	}
	return &d, nil
}

// read adds the documents of one file, in YAML or JSON.
func (d *documents) read(file string, r io.Reader) error {
	reader := yaml.NewYAMLReader(bufio.NewReader(r))
	for n := 1; ; {
		text, err := reader.Read()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err == nil && empty(text) {
			continue
		}
		if err == nil {
			err = d.add(text)
		}
		if err != nil {
			return fmt.Errorf("%s, document %d: %w", file, n, err)
		}
		n++
	}
}

func (d *documents) add(text []byte) error {
	object, kind, err := strict.Decode(text, nil, nil)
	switch {
	case runtime.IsNotRegisteredError(err) && kind.Kind == "List" && kind.Group == "":
		return d.addList(text)
	case runtime.IsNotRegisteredError(err) && kind.Group != herald.GroupVersion.Group:
		d.others++
		return nil
	case err != nil:
		return err
	}
	p, ok := object.(*herald.IPPool)
	if !ok {
		d.others++
		return nil
	}
	if p.Name == "" {
		return errors.New("metadata.name is empty: name the IPPool")
	}
	for _, other := range d.pools {
		if other.Name == p.Name {
			return fmt.Errorf("IPPool %s is there twice: leave one out", p.Name)
		}
	}
	p.Spec = withDefaults(p.Spec)
	d.pools = append(d.pools, p)
	return nil
}

// addList adds what kubectl get -o yaml writes of several.
func (d *documents) addList(text []byte) error {
	var list struct {
		Items []runtime.RawExtension `json:"items"`
	}
	if err := yaml.Unmarshal(text, &list); err != nil {
		return err
	}
	for i, item := range list.Items {
		if err := d.add(item.Raw); err != nil {
			return fmt.Errorf("items[%d]: %w", i, err)
		}
	}
	return nil
}

// empty reports whether a document has nothing but comments.
func empty(text []byte) bool {
	for line := range strings.Lines(string(text)) {
		if line = strings.TrimSpace(line); line != "" && line != "---" && !strings.HasPrefix(line, "#") {
			return false
		}
	}
	return true
}

// withDefaults fills in what the API server does: see the markers in api/v1alpha1.
func withDefaults(spec herald.IPPoolSpec) herald.IPPoolSpec {
	if spec.AutoAssign == nil {
		yes := true
		spec.AutoAssign = &yes
	}
	if spec.AddressOrder == "" {
		spec.AddressOrder = herald.OrderLeastRecentlyUsed
	}
	if spec.ReclaimPolicy == "" {
		spec.ReclaimPolicy = herald.ReclaimDelete
	}
	if spec.OnConflict == "" {
		spec.OnConflict = herald.ConflictDefend
	}
	if spec.ReuseDelay == nil {
		spec.ReuseDelay = &metav1.Duration{Duration: 10 * time.Second}
	}
	return spec
}
