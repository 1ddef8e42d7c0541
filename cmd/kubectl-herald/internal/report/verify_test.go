package report

import (
	"bytes"
	"crypto/ed25519"
	"encoding/hex"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"

	herald "github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/speaker/inspect"
)

// heard is what the speakers of a healthy cluster hear. The nth node has the MAC address 02:00:5e:00:53:0n.
type heard map[string][]inspect.Answer

// of sets what a node hears about an address, with the last parts of the MAC addresses.
func (h heard) of(node, address string, macs ...string) heard {
	for i, m := range macs {
		macs[i] = "02:00:5e:00:53:" + m
	}
	a := netip.MustParseAddr(address)
	h[node] = slices.DeleteFunc(h[node], func(x inspect.Answer) bool { return x.Address == a })
	h[node] = append(h[node], inspect.Answer{Address: a, Interface: "eth0", MACs: macs})
	return h
}

func allWell() heard {
	h := heard{}
	for i, address := range []string{"198.51.100.1", "198.51.100.2", "198.51.100.3"} {
		for n, node := range []string{"n1", "n2", "n3"} {
			if n == i {
				h.of(node, address)
			} else {
				h.of(node, address, "0"+strconv.Itoa(i+1))
			}
		}
	}
	return h
}

// TestVerify changes one thing at a time, and checks all findings.
func TestVerify(t *testing.T) {
	const one = "198.51.100.1"
	for _, c := range []struct {
		name   string
		change func(n *Network, h heard)
		want   []string // in the form "Kind: text"
	}{
		{"all is well", func(*Network, heard) {}, nil},
		{"the split brain", func(_ *Network, h heard) { h.of("n1", one, "02").of("n3", one, "01", "02") }, []string{
			"SplitBrain: 198.51.100.1: nodes n1 and n2 answer, as n2 (eth0), n3 (eth0), n1 (eth0) heard; node n1 owns it: see kubectl herald status, and on those nodes whether something else has the address (ip addr)",
		}},
		{"the two halves of one", func(_ *Network, h heard) { h.of("n3", one, "02") }, []string{
			"SplitBrain: 198.51.100.1: nodes n1 and n2 answer, as n2 (eth0), n3 (eth0) heard; node n1 owns it: see kubectl herald status, and on those nodes whether something else has the address (ip addr)",
		}},
		{"another node answers", func(_ *Network, h heard) { h.of("n1", one, "02").of("n2", one).of("n3", one, "02") }, []string{
			"NotOwner: 198.51.100.1: node n2 answers, as n1 (eth0), n3 (eth0) heard; node n1 owns it: see there whether something else has the address (ip addr)",
			"Silence: 198.51.100.1: n2 (eth0) heard no answer; node n1 owns it: check the network between them",
		}},
		{"a stranger answers", func(_ *Network, h heard) { h.of("n1", one, "99").of("n2", one, "01", "99") }, []string{
			"Stranger: 198.51.100.1: a machine that is not a speaker answers, with 02:00:5e:00:53:99, as n1 (eth0), n2 (eth0) heard; node n1 owns it: find that machine; it has the address, or is a router that answers for others (proxy ARP)",
		}},
		{"silence", func(_ *Network, h heard) { h.of("n2", one).of("n3", one) }, []string{
			"Silence: 198.51.100.1: n2 (eth0), n3 (eth0) heard no answer; node n1 owns it: check the network between them",
		}},
		{"nobody owns it", func(n *Network, h heard) {
			n.speakers[0].Status.Claims, n.speakers[0].Status.L2Addresses = nil, 0
			h.of("n2", one).of("n3", one)
		}, []string{"Silence: 198.51.100.1: nobody answers, and no SpeakerStatus says who owns it: kubectl herald explain service default/web1 says why"}},
		{"nobody owns it, since nothing is ready", func(n *Network, h heard) {
			n.speakers[0].Status.Claims, n.speakers[0].Status.L2Addresses, n.ready = nil, 0, nil
			h.of("n2", one).of("n3", one)
		}, nil},
		{"nobody owns it, and one answers", func(n *Network, _ heard) { n.speakers[0].Status.Claims, n.speakers[0].Status.L2Addresses = nil, 0 }, []string{
			"NotOwner: 198.51.100.1: node n1 answers, as n2 (eth0), n3 (eth0) heard; no node owns it there, by the SpeakerStatuses: see there whether something else has the address (ip addr)",
		}},
		{"more than is listed", func(n *Network, _ heard) { n.speakers[0].Status.Claims, n.speakers[0].Status.L2Addresses = nil, 3000 }, nil},
		{"more than is listed, and only the owner has asked", func(n *Network, h heard) {
			n.speakers[0].Status.Claims, n.speakers[0].Status.L2Addresses = nil, 3000
			delete(h, "n2")
			delete(h, "n3")
		}, nil},
		{"a deputy answers with the owner's address", func(n *Network, h heard) {
			n.claim(2, "n1")
			h.of("n3", one)
			delete(h, "n1")
		}, nil},
		{"owners on two segments", func(n *Network, h heard) {
			n.claim(1, "")
			hears(n.eth0(0))
			hears(n.eth0(1), "n3")
			hears(n.eth0(2), "n2")
			h.of("n2", one).of("n3", one, "02").of("n1", "198.51.100.2").of("n1", "198.51.100.3").of("n2", one)
		}, nil},
		{"nobody has asked", func(_ *Network, h heard) {
			for node := range h {
				h[node] = nil
			}
		}, []string{
			"NotAsked: 198.51.100.1: no node that was asked has an interface with a subnet that holds it, or that an L2Advertisement of it names",
			"NotAsked: 198.51.100.2: no node that was asked has an interface with a subnet that holds it, or that an L2Advertisement of it names",
			"NotAsked: 198.51.100.3: no node that was asked has an interface with a subnet that holds it, or that an L2Advertisement of it names",
		}},
		{"nobody has asked on the segment of one of the owners", func(n *Network, h heard) {
			hears(n.eth0(0), "n2")
			hears(n.eth0(1), "n1")
			hears(n.eth0(2))
			h.of("n1", "198.51.100.3").of("n2", "198.51.100.3")
			delete(h, "n3")
		}, []string{"NotAsked: 198.51.100.3: node n3 owns it, and no node was asked on the segment of its eth0"}},
		{"only the owner was asked", func(_ *Network, h heard) {
			delete(h, "n2")
			delete(h, "n3")
		}, []string{"NotAsked: 198.51.100.1: node n1 owns it and does not hear itself, and no other node was asked on the segment of its eth0"}},
		{"nonsense, and a loop", func(_ *Network, h heard) {
			h["n2"] = []inspect.Answer{{Address: netip.MustParseAddr(one), Interface: "eth0", MACs: []string{"\x1b[2J", "02:00:5e:00:53:02", "02:00:5e:00:53:01"}}, {}}
			h["n4"] = []inspect.Answer{{Address: netip.MustParseAddr(one), Interface: "\x1b[2J"}}
		}, []string{"Silence: 198.51.100.1: n4 (�[2J) heard no answer; node n1 owns it: check the network between them"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			n, h := healthy(), allWell()
			c.change(n, h)
			wanted, err := n.Wanted(nil)
			if err != nil || len(wanted) != 3 {
				t.Fatalf("%d addresses are asked for: %v", len(wanted), err)
			}
			r := n.Verify(wanted, h, now)
			var got []string
			for _, f := range r.Findings {
				got = append(got, string(f.Kind)+": "+f.Text)
			}
			for _, a := range r.NotAsked {
				got = append(got, "NotAsked: "+a.Address+": "+a.Reason)
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestWhatIsVerified(t *testing.T) {
	n := healthy()
	n.l2 = []*herald.L2Advertisement{{Spec: herald.L2AdvertisementSpec{Interfaces: []string{"eth1", "eth0"}}}, {Spec: herald.L2AdvertisementSpec{Interfaces: []string{"eth1"}}}}
	wanted, err := n.Wanted([]string{"::ffff:198.51.100.2", "2001:db8::9"})
	if err != nil {
		t.Fatal(err)
	}
	if len(wanted) != 2 || wanted[0].address != "198.51.100.2" || !slices.Equal(wanted[0].interfaces, []string{"eth0", "eth1"}) || wanted[1].address != "2001:db8::9" || wanted[1].interfaces != nil {
		t.Errorf("%+v", wanted)
	}
	if _, err := n.Wanted([]string{"web"}); err == nil || !strings.Contains(err.Error(), `"web" is not an IP address`) {
		t.Errorf("error %v", err)
	}
}

func TestWhoCanBeAsked(t *testing.T) {
	n := healthy()
	key := strings.Repeat("0a", ed25519.PublicKeySize)
	for i, text := range []string{key, "xyz", key} {
		n.speakers[i].Status.Identity = &herald.SpeakerIdentity{PublicKey: text}
	}
	n.nodes[2].Status.Addresses = nil
	n.nodes = append(n.nodes, &corev1.Node{})
	n.nodes[3].Name = "n4"
	windows := &corev1.Node{}
	windows.Name, windows.Labels = "win1", map[string]string{corev1.LabelOSStable: "windows"}
	n.nodes = append(n.nodes, windows)
	speakers, unasked, err := n.Askable(nil)
	if err != nil {
		t.Fatal(err)
	}
	if len(speakers) != 1 || speakers[0].Node != "n1" || !slices.Equal(speakers[0].Addresses, []string{"198.51.100.101"}) || hex.EncodeToString(speakers[0].Key) != key {
		t.Errorf("%+v", speakers)
	}
	want := []Unasked{
		{"n2", "identity.publicKey in its SpeakerStatus is not a key: restart herald-speaker there"},
		{"n3", "status.addresses of the node has no InternalIP"},
		{"n4", "it has no SpeakerStatus: see whether herald-speaker runs there"},
	}
	if diff := cmp.Diff(want, unasked); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if speakers, unasked, err := n.Askable([]string{"n1"}); err != nil || len(speakers) != 1 || len(unasked) != 0 {
		t.Errorf("%v, %v, %v", speakers, unasked, err)
	}
	if _, _, err := n.Askable([]string{"n5"}); err == nil {
		t.Error("a node that is not there can be asked from")
	}
}

// TestWhatIsForRouters has addresses that are in no subnet of a node. If a BGPAdvertisement also selects them, they need
// not be on a segment.
func TestWhatIsForRouters(t *testing.T) {
	n := healthy()
	for i := range n.speakers {
		n.eth0(i).Subnets = []string{"203.0.113.7/24"}
	}
	if wanted, err := n.Wanted(nil); err != nil || len(wanted) != 3 {
		t.Errorf("without a BGPAdvertisement %d addresses are asked for: %v", len(wanted), err)
	}
	n.bgp = []*herald.BGPAdvertisement{{}}
	if wanted, err := n.Wanted(nil); err != nil || len(wanted) != 0 {
		t.Errorf("with a BGPAdvertisement %d addresses are asked for: %v", len(wanted), err)
	}
	n.l2[0].Spec.Interfaces = []string{"bond0"}
	if wanted, err := n.Wanted(nil); err != nil || len(wanted) != 3 {
		t.Errorf("with an interface that is named %d addresses are asked for: %v", len(wanted), err)
	}
}

func TestVerifyForPeople(t *testing.T) {
	r := &VerifyReport{Speakers: 3, Addresses: 12}
	say := func() string { return r.Text(StyleOf(&bytes.Buffer{})) }
	if want := "Asked for 12 addresses from 3 nodes.\nNobody but its owner answers for an address, and every owner does.\n"; say() != want {
		t.Errorf("%q, want %q", say(), want)
	}
	r.Unasked = []Unasked{{"n3", "connection refused"}}
	for i := range 8 {
		r.NotAsked = append(r.NotAsked, notAsked{"203.0.113." + strconv.Itoa(i), "nobody can"})
	}
	for range maxFindings + 5 {
		r.Findings = append(r.Findings, finding{Text: "198.51.100.7: ..."})
	}
	said := say()
	if strings.Count(said, "198.51.100.7") != maxFindings || !strings.HasSuffix(said, "✗ and 5 more: -o json lists all\n✗ node n3 could not be asked: connection refused\n"+
		"✗ nobody asked for 203.0.113.0, 203.0.113.1, 203.0.113.2, 203.0.113.3, 203.0.113.4 and 3 more: nobody can\n") {
		t.Errorf("%s", said)
	}
}
