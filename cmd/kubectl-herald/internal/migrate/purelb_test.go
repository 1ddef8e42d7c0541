package migrate

import (
	"slices"
	"strings"
	"testing"

	herald "github.com/heraldlb/herald/api/v1alpha1"
)

// TestPureLBNamespaces has several ServiceGroups for the same namespace. Services that name none get addresses from at most
// one of them.
func TestPureLBNamespaces(t *testing.T) {
	group := func(name, spec, addresses string) string {
		return "apiVersion: purelb.io/v2\nkind: ServiceGroup\nmetadata: {name: " + name + ", namespace: p}\nspec: {" + spec + "local: {v4pool: {pool: " + addresses + "}}}"
	}
	for _, c := range []struct {
		name, a, b string
		automatic  []string
		said       string
	}{
		{name: "one of a namespace", a: "namespaces: [shop], ", b: "namespaces: [mail], ", automatic: []string{"a", "b", "default"}},
		{name: "two, and one is the default", a: "namespaces: [shop], ", b: "namespaces: [shop], namespaceDefault: true, ", automatic: []string{"b", "default"}},
		{name: "two, and none is the default", a: "namespaces: [shop], ", b: "namespaces: [shop], ", automatic: []string{"default"}},
		{
			name: "one that is the default of some", a: "namespaces: [shop, mail], ", b: "namespaces: [shop], namespaceDefault: true, ", automatic: []string{"a", "b", "default"},
			said: "ServiceGroup p/a: spec.namespaces: Services of shop that name no group get addresses of another one in PureLB",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := pureLB.Translate(objects(t, strings.Join([]string{group("a", c.a, "192.0.2.0/28"), group("b", c.b, "192.0.2.16/28"), group("default", "", "192.0.2.32/28")}, "\n---\n")))
			var automatic []string
			for _, o := range r.Objects {
				if p, ok := o.(*herald.IPPool); ok && (p.Spec.AutoAssign == nil || *p.Spec.AutoAssign) {
					automatic = append(automatic, p.Name)
				}
			}
			slices.Sort(automatic)
			if !slices.Equal(automatic, c.automatic) {
				t.Errorf("Services get addresses of %v without naming them, and not of %v", automatic, c.automatic)
			}
			if said := strings.Contains(r.Text(), "that name no group"); said != (c.said != "") || !strings.Contains(r.Text(), c.said) {
				t.Errorf("want %q in\n%s", c.said, r.Text())
			}
		})
	}
}
