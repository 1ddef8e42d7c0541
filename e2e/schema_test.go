package e2e

import (
	"fmt"
	"strings"
	"testing"
)

// TestNonsenseIsRefusedAtApply shows that mistakes are told by kubectl apply, at the field, with the cure.
func TestNonsenseIsRefusedAtApply(t *testing.T) {
	ctx, c := startControlPlane(t, false)
	object := func(kind, name, spec string) string {
		return fmt.Sprintf("apiVersion: herald.dev/v1alpha1\nkind: %s\nmetadata: {name: %q}\nspec: %s\n", kind, name, spec)
	}
	pool := func(spec string) string { return object("IPPool", "p", spec) }
	peer := func(more string) string {
		return object("BGPPeer", "p", "{localASN: 64512, peerASN: 64500, address: 198.18.0.2"+more+"}")
	}
	for _, story := range []struct{ name, yaml, refusal string }{
		{"prefixes, ranges and single addresses of both families", pool(`{addresses: [198.51.100.0/26, 198.51.100.100-198.51.100.120, 198.51.100.130, "2001:db8:1::/112", "2001:db8:2::1-2001:db8:2::ff", "2001:db8:3::7"], exclude: [198.51.100.7]}`), ""},
		{"a range with spaces", pool(`{addresses: ["198.51.100.1 - 198.51.100.9"]}`), ""},
		{"neighbours that only touch", pool(`{addresses: [198.51.100.0/25, 198.51.100.128-198.51.100.200, "2001:db8::-2001:db8::f", "2001:db8::10/124"]}`), ""},
		{"no addresses", pool(`{addresses: []}`), "spec.addresses"},
		{"addresses missing", pool(`{}`), "spec.addresses: Required"},
		{"no address at all", pool(`{addresses: [public]}`), "must be a prefix such as"},
		{"host bits", pool(`{addresses: [198.51.100.7/26]}`), "write the first address of the prefix, or 198.51.100.7 for the one address"},
		{"IPv6 host bits", pool(`{addresses: ["2001:db8::7/64"]}`), "or 2001:db8::7 for the one address"},
		{"end before start", pool(`{addresses: [198.51.100.20-198.51.100.3]}`), "spec.addresses: 198.51.100.20-198.51.100.3: the end precedes the start"},
		{"IPv6 end before start", pool(`{addresses: ["2001:db8::10-2001:db8::f"]}`), "the end precedes the start"},
		{"mixed families", pool(`{addresses: ["198.51.100.1-2001:db8::1"]}`), "two ends of one family"},
		{"a prefix twice", pool(`{addresses: [198.51.100.0/26, 198.51.100.0/26]}`), "overlap"},
		{"a prefix in a prefix", pool(`{addresses: [198.51.100.0/24, 198.51.100.64/26]}`), "overlap"},
		{"a range over the edge of a prefix", pool(`{addresses: [198.51.100.64/26, 198.51.100.1-198.51.100.64]}`), "overlap"},
		{"two ranges that cross", pool(`{addresses: [198.51.100.1-198.51.100.20, 198.51.100.9-198.51.100.30]}`), "overlap"},
		{"an address in a range", pool(`{addresses: [198.51.100.1-198.51.100.20, 198.51.100.9]}`), "overlap"},
		{"IPv6 ranges that cross", pool(`{addresses: ["2001:db8::1-2001:db8::ffff", "2001:db8::abc-2001:db8:1::"]}`), "overlap"},
		{"a negative reuse delay", pool(`{addresses: [198.51.100.0/26], reuseDelay: -1s}`), "must not be negative"},

		{"a peer", peer(", holdTime: 9s, keepaliveTime: 3s"), ""},
		{"ASN 0", object("BGPPeer", "p", "{localASN: 0, peerASN: 64500, address: 198.18.0.2}"), "spec.localASN"},
		{"an ASN of 33 bits", object("BGPPeer", "p", "{localASN: 64512, peerASN: 4294967296, address: 198.18.0.2}"), "spec.peerASN"},
		{"a name for an address", object("BGPPeer", "p", "{localASN: 64512, peerASN: 64500, address: tor-a}"), "must be an IP address"},
		{"a hold time of 1s", peer(", holdTime: 1s"), "from 3s to 65535s"},
		{"a hold time of 2s", peer(", holdTime: 2s"), "from 3s to 65535s"},
		{"a keepalive as long as the hold time", peer(", holdTime: 9s, keepaliveTime: 9s"), "spec.keepaliveTime must be shorter"},
		{"a source of the other family", peer(`, sourceAddress: "2001:db8::1"`), "of one family"},

		{"communities", object("BGPAdvertisement", "a", `{communities: [no-export, "64512:100", "4200000000:1:2"]}`), ""},
		{"a community of three words", object("BGPAdvertisement", "a", `{communities: [no-way]}`), "must be a community such as"},
		{"a community out of range", object("BGPAdvertisement", "a", `{communities: ["65536:1"]}`), "must be a community such as"},
		{"a large community out of range", object("BGPAdvertisement", "a", `{communities: ["4294967296:1:1"]}`), "must be a community such as"},
		{"a local preference below 0", object("BGPAdvertisement", "a", `{localPreference: -1}`), "spec.localPreference"},

		{"a reservation", object("IPAllocation", "198.51.100.7", "{address: 198.51.100.7}"), ""},
		{"an IPv6 reservation", object("IPAllocation", "2001-0db8-0000-0000-0000-0000-0000-0007", `{address: "2001:db8::7"}`), ""},
		{"a reservation under another name", object("IPAllocation", "mine", "{address: 198.51.100.7}"), "metadata.name must be spec.address"},
		{"a second name for an IPv6 address", object("IPAllocation", "2001-db8--7", `{address: "2001:db8::7"}`), "metadata.name must be spec.address"},
		{"an unknown field", object("L2Advertisement", "a", "{pool: [public]}"), ".spec.pool: field not declared in schema"},
	} {
		t.Run(story.name, func(t *testing.T) {
			err := c.Apply(ctx, story.yaml)
			switch {
			case story.refusal == "" && err != nil:
				t.Errorf("refused: %v", err)
			case story.refusal != "" && err == nil:
				t.Errorf("taken; want a refusal with %q", story.refusal)
			case story.refusal != "" && !strings.Contains(err.Error(), story.refusal):
				t.Errorf("refused with\n%v\nwithout %q", err, story.refusal)
			}
		})
	}
}
