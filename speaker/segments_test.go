package speaker

import (
	"context"
	"crypto/ed25519"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	herald "github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/e2e/lab/enclave"
	"github.com/heraldlb/herald/speaker/arp"
	"github.com/heraldlb/herald/speaker/link"
	"github.com/heraldlb/herald/speaker/ndp"
	"github.com/heraldlb/herald/speaker/responder"
	"github.com/heraldlb/herald/speaker/segment"
	"github.com/heraldlb/herald/speaker/segment/ownership"
)

// member has the segments of a node at one end of a cable.
type member struct {
	*segments
	t     *testing.T
	iface string
	end   context.CancelFunc // ends the context of the process
}

// cable connects two members, n1 on eth1 and n2 on eth2. They learn each other's keys from the API server.
func cable(t *testing.T) (n1, n2 *member) {
	t.Helper()
	if !enclosed {
		t.Skip(enclave.ErrNotRoot)
	}
	script(t, `ip link add eth1 type veth peer name eth2
		ip addr add 198.51.100.1/24 dev eth1; ip addr add 198.51.100.2/24 dev eth2
		ip link set eth1 up; ip link set eth2 up`)
	t.Cleanup(func() { script(t, "ip link delete eth2") })
	server := newAPIServer()
	n1, n2 = join(t, server, 1), join(t, server, 2)
	for _, m := range []*member{n1, n2} {
		eventually(t, m.iface+" is up", func() bool { return m.interfaces()[0].Up })
		m.update(m.interfaces(), m.tell)
	}
	eventually(t, "both are members", func() bool { return n1.state() == segment.Joined && n2.state() == segment.Joined })
	eventually(t, "one owns the address", func() bool { return n1.owns() != n2.owns() })
	return n1, n2
}

func script(t *testing.T, text string) {
	t.Helper()
	if err := (enclave.Host{}).Script("%s", text); err != nil {
		t.Fatal(err)
	}
}

func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	ticker := time.NewTicker(5 * time.Millisecond)
	defer ticker.Stop()
	for deadline := time.After(20 * time.Second); !is(); { // Only a busy machine takes this long.
		select {
		case <-ticker.C:
		case <-deadline:
			t.Fatal("it does not come to pass that " + what)
		}
	}
}

func join(t *testing.T, server *apiServer, i int) *member {
	t.Helper()
	kube, set := server.clients(t)
	key := ed25519.NewKeyFromSeed(append(make([]byte, ed25519.SeedSize-1), byte(i)))
	c := Config{Node: fmt.Sprint("n", i), Boot: uint64(i), Key: key}
	status := &herald.SpeakerStatus{ObjectMeta: metav1.ObjectMeta{Name: c.Node}, Status: herald.SpeakerStatusStatus{Identity: identityFor(c)}}
	if _, err := set.SpeakerStatuses.Create(t.Context(), status, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	keys := newIdentities(set, &lease{leases: kube.CoordinationV1().Leases("herald-system")}, c.Node, func(string) bool { return true }, zap.NewNop())
	m := &member{t: t, iface: fmt.Sprint("eth", i)}
	m.segments = newSegments(segment.Config{Cluster: "c", Node: c.Node, Boot: c.Boot, Key: key}, zap.NewNop(), keys, func() {})
	options := responder.Options{Silent: m.mustNotSend, Sibling: m.sibling, Conflict: m.conflict}
	m.arp, m.ndp = responder.New(zap.NewNop(), arp.Protocol{}, options), responder.New(zap.NewNop(), ndp.Protocol{}, options)
	keys.segments, keys.joined = m.list, m.joined
	m.ctx, m.end = context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { _ = keys.run(m.ctx); close(done) }()
	t.Cleanup(func() {
		m.end()
		m.leave(false)
		m.work.Wait()
		<-done
	})
	return m
}

// interfaces returns the member's end of the cable in its current state.
func (m *member) interfaces() []link.Interface {
	m.t.Helper()
	all, err := link.List()
	if err != nil {
		m.t.Fatal(err)
	}
	return slices.DeleteFunc(all, func(i link.Interface) bool { return i.Name != m.iface })
}

func (m *member) tell(seg *segment.Segment) {
	both := ownership.NewCandidates([]string{"n1", "n2"}, nil)
	seg.Do(func(m *segment.Machine, now segment.Time) {
		m.Serve(now, true)
		m.Trust(now, true)
		m.Want(now, vip, &ownership.Want{Candidates: both})
	})
}

func (m *member) state() segment.State { return m.views()[m.iface].State }

func (m *member) owns() bool {
	return slices.ContainsFunc(m.views()[m.iface].Holdings, func(h segment.Holding) bool { return h.Addr == vip && h.Node == m.config.Node })
}

// byOwnership returns the member that owns the address as the first result.
func byOwnership(x, y *member) (owner, other *member) {
	if x.owns() {
		return x, y
	}
	return y, x
}

// A speaker that leaves a segment says so, and the others take over at once. If it did not say so, they would see that its node
// is alive, and would answer for it for as long as a restart takes.
func TestASegmentThatIsLeftIsTakenOverAtOnce(t *testing.T) {
	for name, leave := range map[string]func(m *member){
		"nothing is announced there any more": func(m *member) { m.update(nil, nil) },
		"the process ends": func(m *member) {
			m.end()
			for range 10 {
				if m.state() != segment.Joined {
					m.t.Fatal("the segment ends before it is left")
				}
			}
			m.leave(false)
		},
		"the interface is another": func(m *member) {
			i := m.interfaces()
			i[0].Index += 100 // No interface has this index, so the segment cannot be opened again.
			m.update(i, m.tell)
		},
	} {
		t.Run(name, func(t *testing.T) {
			owner, other := byOwnership(cable(t))
			leave(owner)
			if len(owner.opened) > 0 || len(owner.list()) > 0 {
				t.Error("the segment is open")
			}
			began := time.Now()
			eventually(t, "the other takes the address", other.owns)
			if d := time.Since(began); d > segment.Grace/4 {
				t.Errorf("it takes the address after %v", d)
			}
			eventually(t, "it hears nobody", func() bool { return other.state() == segment.Alone })
		})
	}
}

// A planned stop leaves the segments before the routes are drained, and does not join them again: a shutdown of the machine may
// not wait for the drain.
func TestAStopLeavesTheSegmentsBeforeTheRouters(t *testing.T) {
	owner, other := byOwnership(cable(t))
	l := loopOf(t, owner.config.Node)
	l.s.segments = owner.segments
	left := 0
	owner.whenLeft = func() { left++ }
	l.beginStop()
	eventually(t, "the other takes the address", other.owns)
	owner.update(owner.interfaces(), owner.tell)
	if len(owner.opened) > 0 || left != 1 {
		t.Errorf("%d segments are open; told %d times that they are left", len(owner.opened), left)
	}
}

func TestASuccessorFindsWhatThereWas(t *testing.T) {
	owner, other := byOwnership(cable(t))
	owner.end()
	owner.leave(true)
	eventually(t, "the other is the deputy", func() bool {
		return slices.ContainsFunc(other.views()[other.iface].Holdings, func(h segment.Holding) bool { return h.Node == owner.config.Node })
	})
}

// A segment forgets the keys of nodes that are gone. When such a node comes back, the segment asks for a key that it was told
// before.
func TestAKeyIsToldAgain(t *testing.T) {
	n1, n2 := cable(t)
	forgotten := make(chan struct{})
	n1.each(func(m *segment.Machine, now segment.Time) {
		m.Forget(now, "n2")
		close(forgotten)
	})
	<-forgotten
	eventually(t, "n1 hears n2 again", func() bool {
		return slices.ContainsFunc(n1.views()["eth1"].Members, func(m segment.Member) bool { return m.Node == "n2" && m.Heard() })
	})
	_ = n2
}

// A stuck segment must not hide the reports of the others.
func TestAStuckSegmentIsLeftOutOfTheReport(t *testing.T) {
	n1, _ := cable(t)
	i, err := net.InterfaceByName("eth1")
	if err != nil {
		t.Fatal(err)
	}
	stuck, err := segment.Open(zap.NewNop(), n1.config, "stuck", i.Index, segment.Callbacks{})
	if err != nil {
		t.Fatal(err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	defer func() { _ = stuck.Run(ended) }() // Run closes the sockets.
	n1.mu.Lock()
	for i := range 10 {
		n1.running[fmt.Sprint("stuck", i)] = stuck
	}
	n1.mu.Unlock()
	began := time.Now()
	views := n1.views()
	if _, ok := views["eth1"]; !ok || len(views) != 1 || time.Since(began) > 2*viewTimeout {
		t.Errorf("%d views after %v", len(views), time.Since(began))
	}
}

// Decisions do not depend on which nodes are alive: otherwise every death would cost a pass over all addresses.
func TestNodesOnASegment(t *testing.T) {
	s := newSegments(segment.Config{Node: "n1"}, zap.NewNop(), nil, func() {})
	s.running = map[string]*segment.Segment{"eth0": nil, "eth1": {}}
	prefix := netip.MustParsePrefix("198.51.100.9/24")
	s.members["eth1"] = []segment.Member{
		{Node: "n3", Interface: "lan0", Prefixes: []netip.Prefix{prefix}, Life: "alive"}, {Node: "n0", Life: "dead"}, {Node: "n1", Life: "alive"}, {Node: "n2", Life: "expected"},
	}
	got := s.nodes("n1", []link.Interface{{Name: "eth9"}, {Name: "eth1", Up: false, Subnets: []netip.Prefix{prefix}}})
	if len(got) != 1 || got[0].Interface != "eth1" {
		t.Fatalf("%+v", got)
	}
	var names []string
	for _, n := range got[0].Nodes {
		names = append(names, n.Node+"/"+n.Interface+"/"+fmt.Sprint(n.Subnets))
	}
	if want := "n0//[] n1/eth1/[198.51.100.9/24] n2//[] n3/lan0/[198.51.100.9/24]"; strings.Join(names, " ") != want {
		t.Errorf("%v, want %s", names, want)
	}
}

// The other nodes know this boot of the speaker already, and refuse frames that they have seen before.
func TestASegmentThatIsOpenedAgainIsHeard(t *testing.T) {
	n1, n2 := cable(t)
	for range 2 {
		n1.update(nil, nil)
		eventually(t, "n2 is alone", func() bool { return n2.state() == segment.Alone })
		n1.update(n1.interfaces(), n1.tell)
		eventually(t, "they hear each other again", func() bool { return n1.state() == segment.Joined && n2.state() == segment.Joined })
	}
}

// A speaker that hears no other any more asks the API again which others there are.
func TestASegmentWhoseOnlyNeighbourDiesIsNotJoined(t *testing.T) {
	n1, n2 := cable(t)
	if !n1.joined() || !n2.joined() {
		t.Error("they hear each other and are not joined")
	}
	script(t, "ip link set eth2 down")
	eventually(t, "n1 hears nobody", func() bool { return n1.state() == segment.Alone })
	if n1.joined() {
		t.Error("it is joined")
	}
}
