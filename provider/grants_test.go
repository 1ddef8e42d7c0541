package provider

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	herald "github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/ipam"
)

var corp = herald.ExternalPoolReference{APIGroup: "ipam.cluster.x-k8s.io", Kind: "InClusterIPPool", Name: "corp"}

// asked returns a claim as the API server has it, after edits.
func asked(uid string, ordinal int, edits ...func(*unstructured.Unstructured)) *unstructured.Unstructured {
	u := newClaim(ipam.Owner{Namespace: "default", Name: "web", UID: uid}, ipam.Want{Pool: "lent", Family: ipam.IPv4}, corp, ordinal).object("v1beta2", herald.LoadBalancerClass)
	for _, edit := range edits {
		edit(u)
	}
	return u
}

// answer returns an IPAddress for a claim.
func answer(claim, address string) *unstructured.Unstructured {
	return &unstructured.Unstructured{Object: map[string]any{
		"metadata": map[string]any{"name": claim},
		"spec": map[string]any{
			"address": address, "claimRef": map[string]any{"name": claim},
			"poolRef": map[string]any{"apiGroup": corp.APIGroup, "kind": corp.Kind, "name": corp.Name},
		},
	}}
}

func denied(path []string, reason string) func(*unstructured.Unstructured) {
	return func(u *unstructured.Unstructured) {
		_ = unstructured.SetNestedSlice(u.Object, []any{map[string]any{"type": "Ready", "status": "False", "reason": reason, "message": "none left"}}, path...)
	}
}

// TestWhatAServiceWaitsFor has claims and answers, and what the Service is told. No answer of another system may be taken for
// a grant if it is for another claim or another pool.
func TestWhatAServiceWaitsFor(t *testing.T) {
	pools := []*herald.IPPool{{Spec: herald.IPPoolSpec{ExternalPoolRef: &corp}}}
	pools[0].Name = "lent"
	a := ipam.New()
	set, err := ipam.ParseAddresses([]string{"198.51.100.0/29"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	a.SetPools([]ipam.Pool{{Name: "lent", Addresses: set, AutoAssign: true, Granted: true}})
	req := ipam.Request{Owner: ipam.Owner{Namespace: "default", Name: "web", UID: "u"}, Families: []ipam.Family{ipam.IPv4}, RequireAll: true}
	field := func(value string, path ...string) func(*unstructured.Unstructured) {
		return func(u *unstructured.Unstructured) { _ = unstructured.SetNestedField(u.Object, value, path...) }
	}
	edited := func(u *unstructured.Unstructured, edits ...func(*unstructured.Unstructured)) *unstructured.Unstructured {
		for _, edit := range edits {
			edit(u)
		}
		return u
	}
	const name = "herald-u-ipv4-0"
	for what, c := range map[string]struct {
		claims, answers []*unstructured.Unstructured
		told            string // empty: the Service gets 198.51.100.5
	}{
		"no claim yet":  {nil, nil, `waits until InClusterIPPool "corp" grants IPAddressClaim herald-system/herald-u-ipv4-0, for IPPool lent`},
		"no answer yet": {[]*unstructured.Unstructured{asked("u", 0)}, nil, `waits until InClusterIPPool "corp" grants IPAddressClaim herald-system/herald-u-ipv4-0`},
		"granted":       {[]*unstructured.Unstructured{asked("u", 0)}, []*unstructured.Unstructured{answer(name, "198.51.100.5")}, ""},
		"granted by an object of another name": {
			[]*unstructured.Unstructured{asked("u", 0, field("other", "status", "addressRef", "name"))},
			[]*unstructured.Unstructured{edited(answer(name, "198.51.100.5"), field("other", "metadata", "name"))}, "",
		},
		"refused":                {[]*unstructured.Unstructured{asked("u", 0, denied([]string{"status", "conditions"}, "Exhausted"))}, nil, "for IPPool lent: Exhausted: none left"},
		"refused, v1beta":        {[]*unstructured.Unstructured{asked("u", 0, denied([]string{"status", "v1beta2", "conditions"}, "Exhausted"))}, nil, "for IPPool lent: Exhausted: none left"},
		"no address":             {[]*unstructured.Unstructured{asked("u", 0)}, []*unstructured.Unstructured{answer(name, "corp")}, `is "corp", which is no address`},
		"an address with a zone": {[]*unstructured.Unstructured{asked("u", 0)}, []*unstructured.Unstructured{answer(name, "2001:db8::5%eth0")}, `is "2001:db8::5%eth0", which is no address`},
		"for another claim": {[]*unstructured.Unstructured{asked("u", 0)},
			[]*unstructured.Unstructured{edited(answer(name, "198.51.100.5"), field("x", "spec", "claimRef", "name"))}, `is for IPAddressClaim "x"`},
		"of another pool": {[]*unstructured.Unstructured{asked("u", 0)},
			[]*unstructured.Unstructured{edited(answer(name, "198.51.100.5"), field("x", "spec", "poolRef", "name"))}, `is of InClusterIPPool "x"`},
		"out of range":       {[]*unstructured.Unstructured{asked("u", 0)}, []*unstructured.Unstructured{answer(name, "203.0.113.5")}, "granted 203.0.113.5 for IPAddressClaim herald-system/herald-u-ipv4-0, which is not in IPPool lent"},
		"of another Service": {[]*unstructured.Unstructured{asked("v", 0)}, []*unstructured.Unstructured{answer("herald-v-ipv4-0", "198.51.100.5")}, "waits until"},
		"of a pool that is no longer named": {[]*unstructured.Unstructured{asked("u", 0, field("old", "spec", "poolRef", "name"))},
			[]*unstructured.Unstructured{edited(answer(name, "198.51.100.5"), field("old", "spec", "poolRef", "name"))}, "grants IPAddressClaim herald-system/herald-u-ipv4-1"},
		"not a claim of ours": {[]*unstructured.Unstructured{asked("u", 0, field("x", "metadata", "name"))}, nil, name},
	} {
		t.Run(what, func(t *testing.T) {
			g := GrantsOf("herald-system", c.claims, c.answers, pools, nil)
			got := g.Of(req.Owner)
			granted := slices.Equal(got, []ipam.Grant{{Address: netip.MustParseAddr("198.51.100.5"), Pool: "lent"}})
			told := g.WaitWords(req.Owner, a.Wants(req), func(c Claim) bool { return !c.UsedIn(a) }, func(c Claim) *ipam.Error { return c.RefusedBy(a, req) })
			if granted != (c.told == "") || !strings.Contains(told, c.told) || c.told == "" && told != "" {
				t.Errorf("granted %v, told %q, want %q", got, told, c.told)
			}
		})
	}
}

func TestALostGrantIsNoticed(t *testing.T) {
	rec := recordOf(ipam.Allocation{Address: netip.MustParseAddr("198.51.100.5"), Pool: "lent"}, "", herald.AllocationOwner{})
	claims := []*unstructured.Unstructured{asked("u", 0)}
	for _, c := range []struct {
		claim           string
		claims, answers []*unstructured.Unstructured
		lost            string
	}{
		{"", nil, nil, ""}, // Nobody had to grant it.
		{"herald-u-ipv4-0", claims, []*unstructured.Unstructured{answer("herald-u-ipv4-0", "198.51.100.5")}, ""},
		{"herald-u-ipv4-0", claims, []*unstructured.Unstructured{answer("herald-u-ipv4-0", "198.51.100.6")}, "has 198.51.100.6 now"},
		{"herald-u-ipv4-0", claims, nil, "has no IPAddress any more"},
		{"herald-u-ipv4-0", nil, nil, "is gone"},
	} {
		rec.Spec.Claim = c.claim
		if lost := GrantsOf("herald-system", c.claims, c.answers, nil, nil).LostWords(rec); !strings.Contains(lost, c.lost) || c.lost == "" && lost != "" {
			t.Errorf("claim %q: %q, want %q", c.claim, lost, c.lost)
		}
	}
}
