package provider

import (
	"net/netip"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/heraldlb/herald/ipam"
)

// TestWordsTellNothingOfOtherNamespaces asks for an address that a Service of another namespace
// holds.
func TestWordsTellNothingOfOtherNamespaces(t *testing.T) {
	set, err := ipam.ParseAddresses([]string{"198.51.100.0/30"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	address := netip.MustParseAddr("198.51.100.0")
	secret := ipam.Sharing{Key: "s3cret-key", Traffic: "Local in victim: app=payments-db", Ports: []ipam.Port{{Protocol: "TCP", Number: 443}}}
	for name, c := range map[string]struct {
		holder, asker string
		across        bool
		theirs, ours  ipam.Sharing
		want          string
	}{
		"not shared": {"victim", "evil", false, ipam.Sharing{}, ipam.Sharing{}, "held by a Service of another namespace: ask"},
		"another key": {"victim", "evil", true, secret, ipam.Sharing{Key: "guess"},
			"shared by a Service of another namespace with another sharing key: ask"},
		"not across namespaces": {"victim", "evil", false, secret, secret, "shared by a Service of another namespace, and the pool does not let"},
		"other traffic": {"victim", "evil", true, secret, ipam.Sharing{Key: secret.Key},
			"shared by a Service of another namespace, which has another externalTrafficPolicy or selector: ask"},
		"one's own namespace": {"victim", "victim", false, secret, ipam.Sharing{},
			`shared by victim/payments with the sharing key "s3cret-key": ask`},
	} {
		t.Run(name, func(t *testing.T) {
			a := ipam.New()
			a.SetPools([]ipam.Pool{{Name: "public", Addresses: set, AutoAssign: true, ShareAcrossNamespaces: c.across}})
			holder := ipam.Owner{Namespace: c.holder, Name: "payments", UID: "v"}
			if err := a.Restore(ipam.Allocation{Address: address, Pool: "public", Owner: holder}, c.theirs); err != nil {
				t.Fatal(err)
			}
			_, err := a.Allocate(ipam.Request{Owner: ipam.Owner{Namespace: c.asker, Name: "x", UID: "e"}, Families: []ipam.Family{ipam.IPv4},
				Addresses: []netip.Addr{address}, Sharing: c.ours})
			if err == nil {
				t.Fatal("it was given the address")
			}
			got := Words(err)
			if !strings.Contains(got, c.want) {
				t.Errorf("got %q, want %q", got, c.want)
			}
			for _, secret := range []string{"s3cret", "payments", "victim"} {
				if c.asker != c.holder && (strings.Contains(got, secret) || strings.Contains(err.Error(), secret)) {
					t.Errorf("%q and %q tell %q", got, err, secret)
				}
			}
		})
	}
}

func TestWords(t *testing.T) {
	red := ipam.Owner{Namespace: "red", Name: "web", UID: "u"}
	address := netip.MustParseAddr("198.51.100.1")
	for want, err := range map[string]*ipam.Error{
		`pool "tiny" has no free IPv4 address: add addresses to it, or release some`:                                       {Reason: ipam.ErrExhausted, Cause: ipam.NoneFree, Pool: "tiny", Family: 4, Wanted: 1},
		`pool "tiny" does not have 3 free IPv4 addresses: add addresses to it, or release some`:                            {Reason: ipam.ErrExhausted, Cause: ipam.NoneFree, Pool: "tiny", Family: 4, Wanted: 3},
		`no auto-assigning pool (a, b, c, d, e and 1 more) has a free IPv6 address: add addresses to one, or release some`: {Reason: ipam.ErrExhausted, Cause: ipam.NoneFree, Pools: []string{"a", "b", "c", "d", "e", "f"}, Family: 6, Wanted: 1},
		`there is no IPPool: create one`: {Reason: ipam.ErrNoPool, Cause: ipam.NoPools},
		`there is no pool "` + strings.Repeat("x", 61) + `...": create it, or name another`:                                {Reason: ipam.ErrNoPool, Cause: ipam.UnknownPool, Pool: strings.Repeat("x", 1000)},
		`there is no pool "a?[31mb": create it, or name another`:                                                           {Reason: ipam.ErrNoPool, Cause: ipam.UnknownPool, Pool: "a\x1b[31mb"},
		`198.51.100.1 is in pool "other", not in pool "public": name the pool it is in, or ask for an address of "public"`: {Reason: ipam.ErrNotInPool, Cause: ipam.AnotherPool, Address: address, Home: "other", Asked: "public"},
		`198.51.100.1 is in no pool: ask for an address of a pool, or add this one to a pool`:                              {Reason: ipam.ErrNotInPool, Cause: ipam.InNoPool, Address: address},
		`198.51.100.1 is not given out (the address of node n1): ask for another address`:                                  {Reason: ipam.ErrSkipped, Cause: ipam.IsSkipped, Address: address, Word: "the address of node n1"},
		`namespace red holds 2 IPv4 addresses, and its quota is 2 (annotation herald.dev/quota): release one, or raise the quota`: {Reason: ipam.ErrQuota, Cause: ipam.OverQuota, Asker: red,
			Family: 4, Used: 2, Limit: 2, QuotaFrom: "annotation herald.dev/quota"},
		`namespace red holds 2 IPv4 addresses of pool "p", and its quota there is 1 (spec.quota of the pool): ` +
			`wait until the addresses of earlier moves are free, or raise the quota`: {Reason: ipam.ErrQuota, Cause: ipam.MoveOverQuota, Asker: red, Family: 4, Used: 2, Limit: 1, Pool: "p"},
	} {
		if got := Words(err); got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
	}
}

func FuzzCut(f *testing.F) {
	f.Add("web")
	f.Add(strings.Repeat("ü", 60))
	f.Add("\x1b]0;\xff\x00")
	f.Fuzz(func(t *testing.T, text string) {
		// Each byte that is not UTF-8 becomes a question mark, so that the text does not become
		// longer.
		if got := cut(text); len(got) > maxQuoted || strings.ContainsFunc(got, func(r rune) bool { return r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 }) {
			t.Errorf("%q became %q", text, got)
		}
	})
}

// TestWordsSayWhereAnAddressIsReleased checks that a refusal says which object is the obstacle, and
// which command changes it.
func TestWordsSayWhereAnAddressIsReleased(t *testing.T) {
	for name, story := range map[string]struct {
		holder ipam.Owner
		want   string
	}{
		"a Service of the namespace": {ipam.Owner{Namespace: "default", Name: "other", UID: "other"}, "kubectl herald renumber default/other"},
		"a Service of another":       {ipam.Owner{Namespace: "team", Name: "other", UID: "other"}, "kubectl get ipallocation 198.51.100.5"},
		"a reservation":              {ipam.Owner{Namespace: "default", Name: "later"}, "kubectl delete ipallocation 198.51.100.5"},
		"a reservation for nobody":   {ipam.Owner{}, "kubectl delete ipallocation 198.51.100.5"},
	} {
		t.Run(name, func(t *testing.T) {
			l := storyLedger()
			note(l, ipam.Allocation{Address: addresses("198.51.100.5")[0], Pool: "public", Owner: story.holder}, false)
			_, err := ask(t, l, service("web", wish{families: []corev1.IPFamily{v4}, ips: "198.51.100.5"}))
			if err == nil || !strings.Contains(Words(err), story.want) {
				t.Errorf("%v, want %q", err, story.want)
			}
			if strings.Contains(Words(err), "team") {
				t.Errorf("%q names a Service of another namespace", Words(err))
			}
		})
	}
}
