package speaker

import (
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	herald "github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/speaker/bgp"
	"github.com/heraldlb/herald/speaker/link"
	"github.com/heraldlb/herald/speaker/responder"
	"github.com/heraldlb/herald/speaker/segment"
)

// claimsOf returns the claims that a loop reports for these views.
func claimsOf(l *loop, views map[string]segment.View) herald.SpeakerStatusStatus {
	var st herald.SpeakerStatusStatus
	l.reportClaims(&st, views)
	return st
}

func TestClaimsAreSortedCountedAndLimited(t *testing.T) {
	l := loopOf(t, "n1")
	var eth0, eth1 segment.View
	a := netip.MustParseAddr("198.18.0.0")
	for range maxClaims + 5 {
		eth0.Holdings = append(eth0.Holdings, segment.Holding{Addr: a, Node: "n1", Reason: strings.Repeat("long ", 100)})
		a = a.Next()
	}
	eth1.Holdings = []segment.Holding{{Addr: vip, Node: "n1"}, {Addr: netip.MustParseAddr("10.0.0.1"), Node: "n2", Reason: "the speaker of n2 is silent"}}
	st := claimsOf(l, map[string]segment.View{"eth1": eth1, "eth0": eth0})
	if st.L2Addresses != maxClaims+6 {
		t.Errorf("%d addresses are owned, want all that the node owns and none of which it is the deputy", st.L2Addresses)
	}
	if len(st.Claims) != maxClaims {
		t.Errorf("%d claims", len(st.Claims))
	}
	if c := st.Claims[0]; c.Address != "10.0.0.1" || c.DeputyFor != "n2" || c.Interface != "eth1" || c.Reason != "the speaker of n2 is silent" {
		t.Errorf("%+v", c)
	}
	if !slices.IsSortedFunc(st.Claims, func(x, y herald.SpeakerClaim) int { return strings.Compare(x.Address, y.Address) }) {
		t.Error("they are not sorted")
	}
	for _, c := range st.Claims {
		if len(c.Reason) > maxReason {
			t.Fatalf("a reason of %d bytes makes the API server refuse the report", len(c.Reason))
		}
	}
}

func TestAReportFits(t *testing.T) {
	st := herald.SpeakerStatusStatus{L2Addresses: maxClaims}
	for i := range maxInterfaces {
		o := herald.SpeakerInterface{Name: fmt.Sprint("eth", i), Neighbours: maxHears}
		for j := range maxHears {
			o.Hears = append(o.Hears, fmt.Sprintf("%s-%d", strings.Repeat("n", 20), j))
		}
		st.Interfaces = append(st.Interfaces, o)
	}
	for range maxClaims {
		st.Claims = append(st.Claims, herald.SpeakerClaim{Address: "198.18.0.200", Reason: strings.Repeat("r", maxReason)})
	}
	fit(&st)
	if n := textOf(&st); n > herald.MaxStatusText || len(st.Interfaces) != maxInterfaces || st.L2Addresses != maxClaims {
		t.Errorf("%d characters, %d interfaces", n, len(st.Interfaces))
	}
	if len(st.Claims) != 0 || len(st.Interfaces[0].Hears) == 0 || st.Interfaces[maxInterfaces-1].Hears != nil {
		t.Errorf("%d claims, %d and %d nodes heard", len(st.Claims), len(st.Interfaces[0].Hears), len(st.Interfaces[maxInterfaces-1].Hears))
	}
	// A report with the maximum of everything is too long, and fit turns it into one that the API server accepts.
	address, node, at := strings.Repeat("f", 39), strings.Repeat("n", 253), strings.Repeat("0", 20)
	st = herald.SpeakerStatusStatus{}
	for range 64 {
		st.Interfaces = append(st.Interfaces, herald.SpeakerInterface{
			Name: "eth0", MAC: "02:00:00:00:00:01", State: string(segment.Listening), Hears: slices.Repeat([]string{node}, maxHears),
			Subnets: slices.Repeat([]string{address + "/128"}, maxSubnets), Gateways: slices.Repeat([]string{address}, maxGateways),
		})
		st.Deaths = append(st.Deaths, herald.SpeakerDeath{Node: node, Interface: "eth0", At: at})
		st.Conflicts = append(st.Conflicts, herald.SpeakerConflict{Address: address, MAC: "02:00:00:00:00:01", At: at})
		st.Sessions = append(st.Sessions, herald.SpeakerSession{Peer: node[:63], State: sessionEstablished, Since: at, Reason: strings.Repeat("r", maxReason), BFD: "AdminDown", BFDReason: strings.Repeat("b", maxReason)})
	}
	if fit(&st); textOf(&st) > herald.MaxStatusText || len(st.Deaths) != 64 || len(st.Conflicts) != 64 || len(st.Sessions) != 64 {
		t.Errorf("%d characters, of deaths, conflicts and sessions %d, %d and %d", textOf(&st), len(st.Deaths), len(st.Conflicts), len(st.Sessions))
	}
	if got := printable("\x1b[31mrouteur arrêté" + strings.Repeat("x", 400)); !strings.HasPrefix(got, "?[31mrouteur arr?t?x") || len(got) != maxReason {
		t.Errorf("%q", got)
	}
}

// If nothing else has changed, the times at which claims began must not change either.
func TestSinceWhenStaysTheSame(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := loopOf(t, "n1")
		began := time.Now()
		since := func(began time.Time, node string) string {
			st := claimsOf(l, map[string]segment.View{"eth0": {Holdings: []segment.Holding{{Addr: vip, Node: node, For: time.Since(began)}}}})
			return st.Claims[0].Since
		}
		want := since(began, "n1")
		for range 50 {
			time.Sleep(333 * time.Millisecond)
			// The boot clock and the wall clock differ slightly.
			for _, off := range []time.Duration{-900 * time.Millisecond, 0, 900 * time.Millisecond} {
				if got := since(began.Add(off), "n1"); got != want {
					t.Fatalf("%s, and before %s", got, want)
				}
			}
		}
		if got := since(began.Add(10*time.Second), "n1"); got != stamp(began.Add(10*time.Second)) {
			t.Errorf("it was lost and is owned again since %s", got)
		}
		if got := since(time.Now(), "n2"); got != stamp(time.Now()) {
			t.Errorf("this node is the deputy of another since %s", got)
		}
		if claimsOf(l, nil); len(l.since) != 0 {
			t.Errorf("claims that are over are remembered: %v", l.since)
		}
	})
}

func TestInterfacesOfAReport(t *testing.T) {
	mac := net.HardwareAddr{2, 0, 0, 0, 0, 1}
	iface := func(name string, up bool, subnets ...string) link.Interface {
		return link.Interface{Name: name, MAC: mac, Up: up, Subnets: neighbour("", "", subnets...).Subnets}
	}
	var members []segment.Member
	for i := range 100 {
		members = append(members, segment.Member{Node: fmt.Sprintf("n%03d", i), Life: "alive"})
	}
	members = append(members, segment.Member{Node: "dead", Life: "dead"}, segment.Member{Node: "silent", Life: "silent"}, segment.Member{Node: "missing", Life: "expected"})
	views := map[string]segment.View{"eth0": {State: segment.Joined, Members: members}, "trunk": {State: segment.Alone}}
	got := reportInterfaces([]link.Interface{
		iface("eth0", true, "198.51.100.1/24", "2001:db8::1/64", "198.51.100.7/32"), iface("eth1", false, "203.0.113.1/24"),
		iface("eth2", true, "203.0.113.2/24"), iface("pod", true, "10.0.0.1/32"), iface("trunk", true),
	}, views)
	var names []string
	for _, i := range got {
		names = append(names, i.Name)
	}
	if want := []string{"eth0", "eth2", "trunk"}; !slices.Equal(names, want) {
		t.Fatalf("%v, want %v", names, want)
	}
	if i := got[0]; !slices.Equal(i.Subnets, []string{"198.51.100.1/24", "2001:db8::1/64"}) || i.MAC != "02:00:00:00:00:01" || i.State != "Member" {
		t.Errorf("%+v", i)
	}
	if i := got[0]; i.Neighbours != 100 || len(i.Hears) != maxHears || i.Hears[63] != "n063" {
		t.Errorf("%d neighbours, %d of them by name: %v", i.Neighbours, len(i.Hears), i.Hears)
	}

	var many []link.Interface
	for i := range 300 {
		many = append(many, iface(fmt.Sprintf("br%03d", i), true, fmt.Sprintf("10.%d.%d.1/24", i/256, i%256)))
	}
	crowded := iface("zz", true)
	crowded.Gateways = slices.SortedFunc(maps.Keys(someAddresses(20)), netip.Addr.Compare)
	for i := range 100 {
		crowded.Subnets = append(crowded.Subnets, neighbour("", "", fmt.Sprintf("10.200.%d.1/24", i)).Subnets...)
	}
	got = reportInterfaces(append(many, crowded), map[string]segment.View{"zz": {State: segment.Alone}, "br299": {State: segment.Alone}})
	if n := len(got); n != maxInterfaces || got[n-1].Name != "zz" || got[n-2].Name != "br299" || got[0].Name != "br000" {
		t.Errorf("of 301 interfaces %d are reported, from %s to %s", n, got[0].Name, got[n-1].Name)
	}
	if n := len(got[len(got)-1].Subnets); n != maxSubnets {
		t.Errorf("%d subnets of one interface", n)
	}
	if g := got[len(got)-1].Gateways; len(g) != maxGateways || g[0] != "198.18.0.0" {
		t.Errorf("%d gateways of one interface: %v", len(g), g)
	}
}

func TestOnlyADeathWithinTheGraceIsReported(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSegments(segment.Config{Node: "n1"}, zap.NewNop(), nil, func() {})
		happens := func(kind segment.EventKind, node, iface string, after time.Duration) {
			s.event(zap.NewNop(), iface, segment.Event{Kind: kind, Node: node, After: after})
		}
		reported := func() (all []string) {
			for _, d := range s.reportDeaths() {
				all = append(all, d.Node+" on "+d.Interface+" at "+d.At)
			}
			return all
		}
		now := func() string { return stamp(time.Now()) }
		happens(segment.EventSuspect, "n2", "eth0", 150*time.Millisecond)
		happens(segment.EventSilent, "n3", "eth0", 200*time.Millisecond)
		if got := reported(); got != nil {
			t.Errorf("nobody has died: %v", got)
		}
		happens(segment.EventDead, "n3", "eth0", segment.Grace) // Its kernel answered until then.
		happens(segment.EventDead, "n2", "eth0", 250*time.Millisecond)
		first := now()
		time.Sleep(time.Minute)
		happens(segment.EventDead, "n2", "eth1", 250*time.Millisecond)
		happens(segment.EventDead, "n4", "eth0", 5*time.Second)
		want := []string{"n2 on eth1 at " + now(), "n4 on eth0 at " + now(), "n2 on eth0 at " + first}
		if got := reported(); !slices.Equal(got, want) {
			t.Errorf("%v, want %v", got, want)
		}
		happens(segment.EventHeard, "n2", "eth0", 0)
		s.forget([]string{"n4", "n9"})
		if got := reported(); !slices.Equal(got, want[:1]) {
			t.Errorf("n2 is heard on eth0, and n4 is gone: %v", got)
		}
		for i := range 100 {
			happens(segment.EventDead, fmt.Sprint("x", i), "eth0", time.Second)
		}
		if n := len(reported()); n != maxReports {
			t.Errorf("%d deaths", n)
		}
	})
}

func TestConflictsAreReportedForAMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSegments(segment.Config{Node: "n1"}, zap.NewNop(), nil, func() {})
		mac := net.HardwareAddr{2, 0, 0, 0, 0, 9}
		conflict := func(iface string) { s.conflict(responder.Conflict{Interface: iface, Address: vip, MAC: mac}) }
		conflict("eth0")
		conflict("eth1")
		before := s.reportConflicts(time.Now())
		time.Sleep(time.Second)
		conflict("eth0")
		if after := s.reportConflicts(time.Now()); len(after) != 2 || after[0] != before[0] || after[0].MAC != mac.String() {
			t.Errorf("one is seen again a second later: %v, and before %v", after, before)
		}
		time.Sleep(conflictTime)
		if got := s.reportConflicts(time.Now()); len(got) != 1 || got[0].Interface != "eth0" {
			t.Errorf("one is over: %v", got)
		}
		time.Sleep(conflictTime)
		if got := s.reportConflicts(time.Now()); len(got) > 0 {
			t.Errorf("both are over: %v", got)
		}
		for a := range someAddresses(100) {
			s.conflict(responder.Conflict{Interface: "eth0", Address: a, MAC: mac})
		}
		if n := len(s.reportConflicts(time.Now())); n != maxReports {
			t.Errorf("%d conflicts", n)
		}
	})
}

// A BGPPeer that is deleted and created again has no event yet, whatever was said about the one before.
func TestASessionIsReportedForEachPeerOfTheSameName(t *testing.T) {
	peer := func(uid types.UID) *herald.BGPPeer {
		return &herald.BGPPeer{ObjectMeta: metav1.ObjectMeta{Name: "tor", UID: uid}}
	}
	l := loopOf(t, "n1")
	up := bgp.Session{Peer: "tor", State: bgp.Established}
	for _, uid := range []types.UID{"a", "b"} {
		l.put(t, peer(uid))
		for range 2 {
			l.reportSession(up)
		}
		if got := l.events(); len(got) != 1 || got[0] != "Normal SessionUp node n1: the session is established" {
			t.Errorf("peer %s: %q", uid, got)
		}
	}
}

// A node ends a session when its BGPPeer is edited, and begins a new one. Until the first attempt there is no reason why that one is down.
func TestTheSessionWithAnEditedPeerIsReportedAgain(t *testing.T) {
	l := loopOf(t, "n1", &herald.BGPPeer{ObjectMeta: metav1.ObjectMeta{Name: "tor"}})
	up, begins, refused := bgp.Session{Peer: "tor", State: bgp.Established}, bgp.Session{Peer: "tor"}, bgp.Session{Peer: "tor", Reason: "refused"}
	const isUp, isDown = "Normal SessionUp node n1: the session is established", "Warning SessionDown node n1: refused"
	for i, step := range []struct {
		session bgp.Session
		want    []string
	}{
		{begins, nil}, {up, []string{isUp}}, {begins, nil}, {begins, nil}, {up, []string{isUp}}, {up, nil},
		{refused, []string{isDown}}, {begins, nil}, {refused, nil}, {up, []string{isUp}},
	} {
		l.reportSession(step.session)
		if got := l.events(); !slices.Equal(got, step.want) {
			t.Errorf("step %d: %q, want %q", i+1, got, step.want)
		}
	}
}

// someAddresses returns n addresses.
func someAddresses(n int) map[netip.Addr]bool {
	all, a := map[netip.Addr]bool{}, netip.MustParseAddr("198.18.0.0")
	for range n {
		all[a] = true
		a = a.Next()
	}
	return maps.Clone(all)
}
