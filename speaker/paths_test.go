package speaker

import (
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/cache"

	herald "github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/speaker/bfd"
	"github.com/heraldlb/herald/speaker/bgp"
)

func TestBFDGoesByTheBGPSession(t *testing.T) {
	in := &inputs{peers: cache.NewSharedIndexInformer(nil, &herald.BGPPeer{}, 0, nil)}
	router, node := netip.MustParseAddr("198.18.0.2"), netip.MustParseAddr("198.18.0.11")
	for name, b := range map[string]*herald.BFD{
		"plain": nil, "default": {},
		"distant": {DetectMultiplier: 5, MinimumTTL: 254, TransmitInterval: &metav1.Duration{Duration: 50 * time.Millisecond}},
	} {
		o := &herald.BGPPeer{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: herald.BGPPeerSpec{BFD: b}}
		if err := in.peers.GetStore().Add(o); err != nil {
			t.Fatal(err)
		}
	}
	got := in.bfdSessions([]bgp.Peer{
		{Name: "default", Address: router, LocalAddress: node, Interface: "vrf-red"},
		{Name: "distant", Address: router},
		{Name: "plain", Address: router},
		{Name: "deleted meanwhile", Address: router},
	})
	if diff := cmp.Diff([]bfd.Session{
		{Name: "default", Peer: router, Local: node, Device: "vrf-red"},
		{Name: "distant", Peer: router, MinimumTTL: 254, Multiplier: 5, TransmitInterval: 50 * time.Millisecond},
	}, got, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
		t.Error(diff)
	}
}

func TestWhyBFDIsDown(t *testing.T) {
	dropped := func(d bfd.Drop) (all bfd.Drops) { all[d] = 1; return all }
	for _, c := range []struct {
		is   bfd.Status
		want string
	}{
		{bfd.Status{State: bfd.Down, Problem: "UDP port 3784 is held"}, "UDP port 3784 is held"},
		{bfd.Status{State: bfd.Down, RemoteState: bfd.AdminDown, PacketsReceived: 1}, "closed BFD on purpose"},
		{bfd.Status{State: bfd.Down, RemoteState: bfd.Down, Drops: dropped(bfd.DropTTL)}, "spec.bfd.minimumTTL"},
		{bfd.Status{State: bfd.Down, RemoteState: bfd.Down, Drops: dropped(bfd.DropAuthentication)}, "authentication of BFD"},
		{bfd.Status{State: bfd.Down, RemoteState: bfd.Down, Local: netip.MustParseAddr("198.18.0.11")}, "no BFD session with 198.18.0.11"},
		{bfd.Status{State: bfd.Down, RemoteState: bfd.Down, PacketsReceived: 1}, "has fallen silent"},
		{bfd.Status{State: bfd.Down, RemoteState: bfd.Down, PacketsReceived: 1, RemoteDiscriminator: 7}, "does not hear this node"},
		{bfd.Status{State: bfd.Init, RemoteState: bfd.Init, PacketsReceived: 1, RemoteDiscriminator: 7}, "coming up"},
	} {
		if got := whyDown(c.is); !strings.Contains(got, c.want) {
			t.Errorf("%+v: %q, want %q", c.is, got, c.want)
		}
	}
	if got := whyDown(bfd.Status{State: bfd.Up, PacketsReceived: 1}); got != "" {
		t.Errorf("up: %q", got)
	}
}

// A session whose BFD is not possible is reported as up, together with the reason why BFD is down.
func TestBFDThatIsNotPossibleIsReported(t *testing.T) {
	l := &loop{s: &Speaker{paths: bfd.New(nil, nil)}, unwatched: map[string]error{"twin": errors.New("there can be one only")}}
	sessions := []herald.SpeakerSession{{Peer: "plain", State: "Established"}, {Peer: "twin", State: "Established"}}
	l.reportPaths(sessions)
	if diff := cmp.Diff([]herald.SpeakerSession{
		{Peer: "plain", State: "Established"},
		{Peer: "twin", State: "Established", BFD: "Down", BFDReason: "there can be one only"},
	}, sessions); diff != "" {
		t.Error(diff)
	}
}
