package e2e

import (
	"fmt"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	herald "github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/provider"
)

// TestNonsenseIsRefusedAtApply checks that kubectl apply reports mistakes with the field and the cure. herald-ccm can read
// the accepted pools, and none of those that the policy refuses.
func TestNonsenseIsRefusedAtApply(t *testing.T) {
	t.Parallel()
	ctx, c := startControlPlane(t, false)
	object := func(kind, name, spec string) string {
		return fmt.Sprintf("apiVersion: herald.dev/v1alpha1\nkind: %s\nmetadata: {name: %q}\nspec: %s\n", kind, name, spec)
	}
	pool := func(spec string) string { return object("IPPool", "p", spec) }
	const ref = "{apiGroup: ipam.cluster.x-k8s.io, kind: InClusterIPPool, name: corp}"
	lent := func(addresses, ref, more string) string {
		return pool("{addresses: " + addresses + ", externalPoolRef: " + ref + more + "}")
	}
	peer := func(more string) string {
		return object("BGPPeer", "p", "{localASN: 64512, peerASN: 64500, address: 198.18.0.2"+more+"}")
	}
	shared := func(port string) string {
		return object("IPAllocation", "198.51.100.9", `{address: 198.51.100.9, owners: [{namespace: default, name: web, sharing: {key: k, traffic: Cluster, ports: [`+port+`]}}]}`)
	}
	ranges := func(format string) string {
		var list []string
		for i := range 64 {
			list = append(list, fmt.Sprintf(format, i))
		}
		return strings.Join(list, ", ")
	}
	status := func(list, entry string, n int) string {
		text := "apiVersion: herald.dev/v1alpha1\nkind: SpeakerStatus\nmetadata: {name: node-1}\nstatus:\n  l2Addresses: 0\n  " + list + ":\n"
		for i := range n {
			text += "  - {" + strings.Replace(entry, "eth0", fmt.Sprint("eth", i), 1) + "}\n"
		}
		return text
	}
	for _, story := range []struct{ name, yaml, refusal string }{
		{"prefixes, ranges and single addresses of both families", pool(`{addresses: [198.51.100.0/26, 198.51.100.100-198.51.100.120, 198.51.100.130, "2001:db8:1::/112", "2001:db8:2::1-2001:db8:2::ff", "2001:db8:3::7"], exclude: [198.51.100.7]}`), ""},
		{"a range with spaces", pool(`{addresses: ["198.51.100.1 - 198.51.100.9"]}`), ""},
		{"neighbours that only touch", pool(`{addresses: [198.51.100.0/25, 198.51.100.128-198.51.100.200, "2001:db8::-2001:db8::f", "2001:db8::10/124"]}`), ""},
		{"as many ranges as a pool may have", pool("{addresses: [" + ranges(`"2001:db8:ffff:ffff:ffff:ffff:1%02x:ff00-2001:db8:ffff:ffff:ffff:ffff:1%02[1]x:ffff"`) + "], exclude: [" + ranges(`"2001:db8:ffff:ffff:ffff:ffff:1%02x:ff00-2001:db8:ffff:ffff:ffff:ffff:1%02[1]x:ff7f"`) + "]}"), ""},
		{"no addresses", pool(`{addresses: []}`), "spec.addresses"},
		{"addresses missing", pool(`{}`), "spec.addresses: Required"},
		{"no address at all", pool(`{addresses: [public]}`), "must be a prefix such as"},
		{"host bits", pool(`{addresses: [198.51.100.7/26]}`), "write the first address of the prefix, or 198.51.100.7 for the one address"},
		{"IPv6 host bits", pool(`{addresses: ["2001:db8::7/64"]}`), "or 2001:db8::7 for the one address"},
		{"end before start", pool(`{addresses: [198.51.100.20-198.51.100.3]}`), "spec.addresses: 198.51.100.20-198.51.100.3: the end precedes the start"},
		{"IPv6 end before start", pool(`{addresses: ["2001:db8::10-2001:db8::f"]}`), "the end precedes the start"},
		{"an exclusion's end before its start", pool(`{addresses: [198.51.100.0/26], exclude: [198.51.100.20-198.51.100.3]}`), "spec.exclude: 198.51.100.20-198.51.100.3: the end precedes the start"},
		{"exclusions that overlap", pool(`{addresses: [198.51.100.0/26], exclude: [198.51.100.0/28, 198.51.100.3, 192.0.2.1]}`), ""},
		{"loopback", pool(`{addresses: [127.0.0.0/8]}`), "spec.addresses: 127.0.0.0/8: no Service can have addresses of 0.0.0.0/8, 127.0.0.0/8"},
		{"a loopback address", pool(`{addresses: [198.51.100.0/26, 127.0.0.1]}`), "spec.addresses: 127.0.0.1: no Service"},
		{"multicast within a range", pool(`{addresses: [223.255.255.0-240.0.0.0]}`), "spec.addresses: 223.255.255.0-240.0.0.0: no Service"},
		{"everything", pool(`{addresses: ["0.0.0.0/0", "::/0"]}`), "spec.addresses: 0.0.0.0/0, ::/0: no Service"},
		{"the broadcast address", pool(`{addresses: [255.255.255.255]}`), "spec.addresses: 255.255.255.255: no Service"},
		{"IPv6 multicast", pool(`{addresses: ["ff0e::/112"], exclude: ["::1"]}`), "spec.addresses: ff0e::/112: no Service"},
		{"IPv4 addresses of IPv6 within a range", pool(`{addresses: ["::fffe:0:0-::1:0:0:0"]}`), "spec.addresses: ::fffe:0:0-::1:0:0:0: no Service"},
		{"the broadcast address, excluded", pool(`{addresses: [240.0.0.0/4], exclude: [255.255.255.255]}`), ""},
		{"the broadcast address, not excluded", pool(`{addresses: [240.0.0.0/4], exclude: [255.255.255.254]}`), "spec.addresses: 240.0.0.0/4: no Service"},
		{"everything but what no Service can have", pool(`{addresses: ["0.0.0.0/0", "::/0"], exclude: [0.0.0.0/8, 126.0.0.0-127.255.255.255, 224.0.0.0/3, "::/64", "fe80::-ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"]}`), ""},
		{"multicast that is excluded in part", pool(`{addresses: [223.255.255.0-224.0.0.255], exclude: [224.0.0.0/24]}`), "leave those out, or list all of such a block in one entry of spec.exclude"},
		{"an exclusion of all that is below", pool(`{addresses: [198.51.100.0/24], exclude: [0.0.0.0-198.51.100.9]}`), ""},
		{"an exclusion of what no Service can have", pool(`{addresses: [198.51.100.0/24], exclude: [255.255.255.255, 127.0.0.1, "::1", "ff02::/16"]}`), ""},
		{"the neighbours of what no Service can have", pool(`{addresses: [1.0.0.0-126.255.255.255, 128.0.0.0-223.255.255.255, 240.0.0.0-255.255.255.254, "0:0:0:1::-fe00::"]}`), ""},
		{"mixed families", pool(`{addresses: ["198.51.100.1-2001:db8::1"]}`), "two ends of one family"},
		{"a prefix twice", pool(`{addresses: [198.51.100.0/26, 198.51.100.0/26]}`), "overlap"},
		{"a prefix in a prefix", pool(`{addresses: [198.51.100.0/24, 198.51.100.64/26]}`), "overlap"},
		{"a range over the edge of a prefix", pool(`{addresses: [198.51.100.64/26, 198.51.100.1-198.51.100.64]}`), "overlap"},
		{"two ranges that cross", pool(`{addresses: [198.51.100.1-198.51.100.20, 198.51.100.9-198.51.100.30]}`), "overlap"},
		{"an address in a range", pool(`{addresses: [198.51.100.1-198.51.100.20, 198.51.100.9]}`), "overlap"},
		{"IPv6 ranges that cross", pool(`{addresses: ["2001:db8::1-2001:db8::ffff", "2001:db8::abc-2001:db8:1::"]}`), "overlap"},
		{"a negative reuse delay", pool(`{addresses: [198.51.100.0/26], reuseDelay: -1s}`), "spec.reuseDelay in body should match"},
		{"a reuse delay in days", pool(`{addresses: [198.51.100.0/26], reuseDelay: 1d}`), "spec.reuseDelay in body should match"},
		{"a fraction of a second", pool(`{addresses: [198.51.100.0/26], reuseDelay: 0.5s}`), "spec.reuseDelay in body should match"},
		{"two units", pool(`{addresses: [198.51.100.0/26], reuseDelay: 1m500ms}`), ""},
		{"a prefix in capitals", pool(`{addresses: ["2001:DB8::/32"]}`), "write the address in its canonical form"},
		{"a range in full", pool(`{addresses: ["2001:db8:0:0::1-2001:db8::9"]}`), "write the address in its canonical form"},
		{"a priority of 33 bits", pool(`{addresses: [198.51.100.0/26], priority: 2147483648}`), "spec.priority"},

		{"a peer", peer(", holdTime: 9s, keepaliveTime: 3s"), ""},
		{"every peer that a node finds by itself", object("BGPPeer", "p", "{localASNFrom: {nodeLabel: example.com/asn}, peerType: External, addressFrom: {defaultGateway: IPv6}, routerIDFrom: {nodeAnnotation: example.com/id}, ttlSecurityHops: 1, interface: eth0}"), ""},
		{"a peer with a role", object("BGPPeer", "p", "{localASN: 64512, peerType: External, address: 198.18.0.2, role: RSClient}"), ""},
		{"an unnumbered peer", object("BGPPeer", "p", "{localASN: 64512, peerType: Internal, addressFrom: {interface: eth1}}"), ""},
		{"no AS number of the nodes", object("BGPPeer", "p", "{peerASN: 64500, address: 198.18.0.2}"), "give exactly one of spec.localASN and spec.localASNFrom"},
		{"no AS number of the router", object("BGPPeer", "p", "{localASN: 64512, address: 198.18.0.2}"), "give exactly one of spec.peerASN, spec.peerASNFrom and spec.peerType"},
		{"two of the router", peer(", peerType: External"), "give exactly one of spec.peerASN, spec.peerASNFrom and spec.peerType"},
		{"no router", object("BGPPeer", "p", "{localASN: 64512, peerASN: 64500}"), "give exactly one of spec.address and spec.addressFrom"},
		{"two ways to find it", peer(", addressFrom: {defaultGateway: IPv4}"), "give exactly one of spec.address and spec.addressFrom"},
		{"two ways to find one", object("BGPPeer", "p", "{localASN: 64512, peerASN: 64500, addressFrom: {defaultGateway: IPv4, nodeLabel: x}}"), "give exactly one of defaultGateway, nodeLabel, nodeAnnotation and interface"},
		{"a gateway of no family", object("BGPPeer", "p", "{localASN: 64512, peerASN: 64500, addressFrom: {defaultGateway: IPv5}}"), "spec.addressFrom.defaultGateway"},
		{"an AS number from nowhere", object("BGPPeer", "p", "{localASNFrom: {}, peerASN: 64500, address: 198.18.0.2}"), "give exactly one of nodeLabel and nodeAnnotation"},
		{"a type of peer that there is not", object("BGPPeer", "p", "{localASN: 64512, peerType: Confederation, address: 198.18.0.2}"), "spec.peerType"},
		{"a link-local address without an interface", object("BGPPeer", "p", `{localASN: 64512, peerASN: 64500, address: "fe80::1"}`), "name the interface that it is on in spec.interface"},
		{"a link-local address", object("BGPPeer", "p", `{localASN: 64512, peerASN: 64500, address: "fe80::1", interface: eth0}`), ""},
		{"an unnumbered peer on two interfaces", object("BGPPeer", "p", "{localASN: 64512, peerASN: 64500, addressFrom: {interface: eth1}, interface: eth0}"), "leave spec.interface out"},
		{"TTL security and multihop", peer(", ttlSecurityHops: 2, multihopTTL: 2"), "spec.ttlSecurityHops excludes spec.multihopTTL"},
		{"TTL security of 255 hops", peer(", ttlSecurityHops: 255"), "spec.ttlSecurityHops"},
		{"a role that there is not", peer(", role: Complex"), "spec.role"},
		{"a role in one AS", object("BGPPeer", "p", "{localASN: 64512, peerASN: 64512, address: 198.18.0.2, role: Peer}"), "spec.role is for routers of another AS"},
		{"a role of an internal peer", object("BGPPeer", "p", "{localASN: 64512, peerType: Internal, address: 198.18.0.2, role: Customer}"), "spec.role is for routers of another AS"},
		{"multihop without an AS number", object("BGPPeer", "p", "{localASN: 64512, peerType: External, address: 198.18.0.2, multihopTTL: 2}"), "spec.multihopTTL needs spec.peerASN"},
		{"a session without a hold time", peer(", holdTime: 0s"), "a session without a hold time is not offered"},
		{"graceful restart", peer(", gracefulRestart: {restartTime: 1m, staleTime: 24h, onNotification: Keep}"), ""},
		{"a stale time of half a second", peer(", gracefulRestart: {staleTime: 500ms}"), "from 1s to 16777215s"},
		{"a stale time of 200 days", peer(", gracefulRestart: {staleTime: 4800h}"), "from 1s to 16777215s"},
		{"no policy for NOTIFICATIONs", peer(", gracefulRestart: {onNotification: Maybe}"), "spec.gracefulRestart.onNotification"},
		{"a passive peer", peer(", passive: true, port: 1790"), ""},
		{"ASN 0", object("BGPPeer", "p", "{localASN: 0, peerASN: 64500, address: 198.18.0.2}"), "spec.localASN"},
		{"an ASN of 33 bits", object("BGPPeer", "p", "{localASN: 64512, peerASN: 4294967296, address: 198.18.0.2}"), "spec.peerASN"},
		{"a name for an address", object("BGPPeer", "p", "{localASN: 64512, peerASN: 64500, address: tor-a}"), "must be an IP address"},
		{"an IPv6 router in capitals", object("BGPPeer", "p", `{localASN: 64512, peerASN: 64500, address: "2001:DB8::1"}`), "write the address in its canonical form"},
		{"an IPv6 source in full", peer(`, sourceAddress: "2001:db8:0:0::1"`), "write the address in its canonical form"},
		{"a hold time of 1s", peer(", holdTime: 1s"), "from 3s to 65535s"},
		{"a hold time of 2s", peer(", holdTime: 2s"), "from 3s to 65535s"},
		{"a keepalive as long as the hold time", peer(", holdTime: 9s, keepaliveTime: 9s"), "spec.keepaliveTime must be shorter"},
		{"BFD by default", peer(", bfd: {}"), ""},
		{"BFD with a router behind another", peer(", multihopTTL: 2, bfd: {minimumTTL: 254}"), ""},
		{"BFD with a router behind another, as if it were on the link", peer(", multihopTTL: 2, bfd: {}"), "needs spec.bfd.minimumTTL"},
		{"BFD every 5 ms", peer(", bfd: {transmitInterval: 5ms}"), "must be from 10ms to 60s"},
		{"BFD every two minutes", peer(", bfd: {receiveInterval: 2m}"), "must be from 10ms to 60s"},
		{"BFD with a multiplier of 256", peer(", bfd: {detectMultiplier: 256}"), "detectMultiplier"},
		{"a source of the other family", peer(`, sourceAddress: "2001:db8::1"`), "of one family"},

		{"communities", object("BGPAdvertisement", "a", `{communities: [no-export, "64512:100", "4200000000:1:2"]}`), ""},
		{"extended communities", object("BGPAdvertisement", "a", `{communities: ["rt:64512:4294967295", "soo:4200000000:65535", no-llgr]}`), ""},
		{"an extended community out of range", object("BGPAdvertisement", "a", `{communities: ["rt:65536:65536"]}`), "or up to 65535 after an AS number above 65535"},
		{"an extended community of an unknown kind", object("BGPAdvertisement", "a", `{communities: ["color:0:100"]}`), "must be a community such as"},
		{"a community with leading zeros", object("BGPAdvertisement", "a", `{communities: ["064512:1"]}`), "numbers without leading zeros"},
		{"a community of three words", object("BGPAdvertisement", "a", `{communities: [no-way]}`), "must be a community such as"},
		{"a community out of range", object("BGPAdvertisement", "a", `{communities: ["65536:1"]}`), "must be a community such as"},
		{"a large community out of range", object("BGPAdvertisement", "a", `{communities: ["4294967296:1:1"]}`), "must be a community such as"},
		{"networks", object("BGPAdvertisement", "a", `{aggregationLength: {ipv4: 24, ipv6: 64}}`), ""},
		{"networks of no family", object("BGPAdvertisement", "a", `{aggregationLength: {}}`), "spec.aggregationLength"},
		{"an IPv4 network of 33 bits", object("BGPAdvertisement", "a", `{aggregationLength: {ipv4: 33}}`), "spec.aggregationLength.ipv4"},
		{"a link bandwidth of an unknown kind", object("BGPAdvertisement", "a", `{linkBandwidth: Cores}`), "spec.linkBandwidth"},
		{"overrides", object("BGPAdvertisement", "a", `{serviceOverrides: [Announce, Communities, LocalPreference, MED, Prepend]}`), ""},
		{"an override of an unknown kind", object("BGPAdvertisement", "a", `{serviceOverrides: [Peers]}`), "spec.serviceOverrides[0]"},
		{"a drain", object("BGPAdvertisement", "a", `{drainTime: 5s}`), ""},
		{"a drain of no time", object("BGPAdvertisement", "a", `{drainTime: 0s}`), "must be from 1s to 20s"},
		{"a drain longer than a pod may take to end", object("BGPAdvertisement", "a", `{drainTime: 1m}`), "must be from 1s to 20s"},
		{"a local preference below 0", object("BGPAdvertisement", "a", `{localPreference: -1}`), "spec.localPreference"},

		{"granted by another system", lent("[198.51.100.0/26, 198.51.100.100-198.51.100.120]", ref, ""), ""},
		{"granted by another system, IPv6", lent(`["2001:db8:1::/112", "2001:db8:2::7"]`, ref, ""), ""},
		{"granted by another system, both families", lent(`[198.51.100.0/26, "2001:db8:1::/112"]`, ref, ""), "with externalPoolRef a pool has addresses of one family, as the IPAM contract demands: create a pool for each family"},
		{"granted by another system and given by another controller", lent("[198.51.100.0/26]", ref, ", announceClasses: [example.com/gateway]"), "externalPoolRef and announceClasses exclude each other"},
		{"another system's pool without a group", lent("[198.51.100.0/26]", "{kind: InClusterIPPool, name: corp}", ""), "spec.externalPoolRef.apiGroup: Required"},
		{"another system's pool without a name", lent("[198.51.100.0/26]", `{apiGroup: ipam.cluster.x-k8s.io, kind: InClusterIPPool, name: ""}`, ""), "spec.externalPoolRef.name"},
		{"another system's pool of a kind that cannot be", lent("[198.51.100.0/26]", "{apiGroup: ipam.cluster.x-k8s.io, kind: in/cluster, name: corp}", ""), "spec.externalPoolRef.kind"},
		{"another system's pool with a namespace", lent("[198.51.100.0/26]", "{apiGroup: ipam.cluster.x-k8s.io, kind: InClusterIPPool, name: corp, namespace: default}", ""), ".spec.externalPoolRef.namespace: field not declared in schema"},
		{"a record with its claim", object("IPAllocation", "198.51.100.7", "{address: 198.51.100.7, claim: herald-0e1f6f0c-ipv4-0}"), ""},
		{"a record with a claim that no object can be named", object("IPAllocation", "198.51.100.7", "{address: 198.51.100.7, claim: "+strings.Repeat("a", 254)+"}"), "spec.claim: Too long"},
		{"a reservation", object("IPAllocation", "198.51.100.7", "{address: 198.51.100.7}"), ""},
		{"an IPv6 reservation", object("IPAllocation", "2001-0db8-0000-0000-0000-0000-0000-0007", `{address: "2001:db8::7"}`), ""},
		{"a reservation under another name", object("IPAllocation", "mine", "{address: 198.51.100.7}"), "metadata.name must be spec.address"},
		{"a second name for an IPv6 address", object("IPAllocation", "2001-db8--7", `{address: "2001:db8::7"}`), "metadata.name must be spec.address"},
		{"a reservation in capitals", object("IPAllocation", "2001-0db8-0000-0000-0000-0000-0000-0007", `{address: "2001:DB8::7"}`), "write the address in its canonical form"},
		{"an IPv4 address in IPv6", object("IPAllocation", "0000-0000-0000-0000-0000-ffff-c633-6407", `{address: "::ffff:198.51.100.7"}`), "must be an IP address"},
		{"a release on no day", object("IPAllocation", "198.51.100.8", `{address: 198.51.100.8, releasedAt: "2026-99-99T99:99:99Z"}`), "spec.releasedAt"},
		{"a release in another zone", object("IPAllocation", "198.51.100.8", `{address: 198.51.100.8, releasedAt: "2026-01-01T00:00:00+01:00"}`), "spec.releasedAt"},

		{"a record of the highest port", shared("TCP/65535"), ""},
		{"a record of a port that there is not", shared("TCP/65536"), "spec.owners[0].sharing.ports[0]"},

		{"a report", status("claims", "address: 198.51.100.7, interface: eth0, since: soon", 500), ""},
		{"a report of too many claims", status("claims", "address: 198.51.100.7, interface: eth0", 501), "status.claims: Too many"},
		{"a report with much text", status("claims", "address: 198.51.100.7, interface: eth0, reason: "+strings.Repeat("x", 100), 400), "must not have more than 32768 characters together"},
		{"a report with long names", status("deaths", "node: "+strings.Repeat("n", 254)+", interface: eth0, at: now", 1), "status.deaths[0].node: Too long"},
		{"a report with control characters", status("sessions", `peer: p, state: Down, reason: "\e[31m"`, 1), "status.sessions[0].reason"},
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
			var o herald.IPPool
			if yaml.Unmarshal([]byte(story.yaml), &o) != nil || o.Kind != "IPPool" {
				return
			}
			_, unreadable := provider.PoolOf(&o)
			switch byPolicy := err != nil && strings.Contains(err.Error(), "ValidatingAdmissionPolicy"); {
			case err == nil && unreadable != nil:
				t.Errorf("taken, but herald-ccm cannot read it: %v", unreadable)
			case byPolicy && unreadable == nil:
				t.Errorf("refused, but herald-ccm could read it: %v", err)
			}
		})
	}
}
