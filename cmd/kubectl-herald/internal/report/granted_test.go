package report

import (
	"bytes"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	herald "github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/ipam"
	"github.com/heraldlb/herald/provider"
)

// TestPlanOfAddressesThatAnotherSystemGrants has a Service to which an address was granted that is not in its pool, and a Service to
// which none was granted.
func TestPlanOfAddressesThatAnotherSystemGrants(t *testing.T) {
	ref := herald.ExternalPoolReference{APIGroup: "ipam.cluster.x-k8s.io", Kind: "InClusterIPPool", Name: "corp"}
	lent := func(ref *herald.ExternalPoolReference, addresses ...herald.AddressRange) *herald.IPPool {
		o := pool("lent", 0, addresses...)
		o.Spec.ExternalPoolRef = ref
		return o
	}
	now := lent(&ref, "198.51.100.0/29")
	poolRef := map[string]any{"apiGroup": ref.APIGroup, "kind": ref.Kind, "name": ref.Name}
	claim := &unstructured.Unstructured{Object: map[string]any{
		"metadata": map[string]any{"name": "herald-web-ipv4-0", "annotations": map[string]any{
			herald.AnnotationClaimPool: "lent", herald.AnnotationClaimNamespace: "default", herald.AnnotationClaimName: "web", herald.AnnotationClaimUID: "web",
		}},
		"spec": map[string]any{"poolRef": poolRef},
	}}
	address := &unstructured.Unstructured{Object: map[string]any{
		"metadata": map[string]any{"name": "herald-web-ipv4-0"},
		"spec":     map[string]any{"address": "198.51.100.9", "claimRef": map[string]any{"name": "herald-web-ipv4-0"}, "poolRef": poolRef},
	}}
	s := state{
		pools: []*herald.IPPool{now}, asks: []ipam.Ask{request("web", ipam.IPv4), request("db", ipam.IPv4)},
		grants: provider.GrantsOf("herald-system", []*unstructured.Unstructured{claim}, []*unstructured.Unstructured{address}, []*herald.IPPool{now}, nil),
	}
	another := ref
	another.Name = "another"
	const waits = `would wait: pool "lent" waits until another system grants the IPv4 address`
	for what, c := range map[string]struct {
		then *herald.IPPool
		want []string
	}{
		"nothing changes":                     {now, []string{"default/web  " + waits, "default/db   " + waits}},
		"the pool gets the granted address":   {lent(&ref, "198.51.100.0/28"), []string{"198.51.100.9  default/web  would be given, from lent", "default/db   " + waits}},
		"the pool names another one":          {lent(&another, "198.51.100.0/28"), []string{"default/web  " + waits, "default/db   " + waits}},
		"the pool gives the addresses itself": {lent(nil, "198.51.100.0/28"), []string{"198.51.100.0  default/web  would be given, from lent", "198.51.100.1  default/db   would be given, from lent"}},
		"the pool gives one to each namespace": {func() *herald.IPPool {
			o, one := lent(&ref, "198.51.100.0/29"), int64(1)
			o.Spec.Quota = &herald.AddressQuota{IPv4: &one}
			return o
		}(), []string{"default/web  " + waits, `default/db   would wait: namespace default holds 0 IPv4 addresses and waits for 1 more of pool "lent", and its quota there is 1`}},
	} {
		t.Run(what, func(t *testing.T) {
			r, err := s.plan([]*herald.IPPool{c.then}, nil)
			if err != nil {
				t.Fatal(err)
			}
			for _, want := range c.want {
				if got := r.Text(StyleOf(&bytes.Buffer{})); !strings.Contains(got, want) {
					t.Errorf("no %q in:\n%s", want, got)
				}
			}
		})
	}
}
