package lab_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"

	"github.com/heraldlb/herald/e2e/lab"
)

// site makes a segment with an app on each node.
func site(t *testing.T, nodes int) (context.Context, *lab.Site, []*lab.Process) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	s, err := lab.NewSite(nodes)
	if err != nil {
		cancel()
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error("close:", err)
		}
		for _, left := range leftovers(t) {
			t.Error("left behind:", left)
		}
	})
	var apps []*lab.Process
	for _, n := range s.Nodes {
		app, err := n.StartApp(ctx, t.TempDir())
		if err != nil {
			cancel()
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := app.Kill(); err != nil {
				t.Error(err)
			}
		})
		apps = append(apps, app)
	}
	t.Cleanup(cancel)
	return ctx, s, apps
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// lasts waits for the duration of a fault.
func lasts(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func app(addr netip.Addr) string { return netip.AddrPortFrom(addr, lab.AppPort).String() }

func TestAnOutageIsMeasured(t *testing.T) {
	const outage = 400 * time.Millisecond
	ctx, s, _ := site(t, 2)
	node, other := s.Nodes[0], s.Nodes[1]
	for name, targets := range map[string][]string{
		"IPv4":              {app(node.IPv4)},
		"IPv6":              {app(node.IPv6)},
		"worst of a sample": {app(other.IPv4), app(node.IPv4), app(node.IPv6)},
	} {
		t.Run(name, func(t *testing.T) {
			var took time.Duration // Of the fault: its scripts are slow on a busy machine.
			gap, failed, err := lab.Outage(ctx, s.Segment, targets, func() error {
				began := time.Now()
				defer func() { took = time.Since(began) }()
				return errors.Join(node.Isolate(), lasts(ctx, outage), node.Heal())
			}, outage)
			t.Logf("gap %v, %d attempts failed, an outage of %v", gap, failed, took)
			if err != nil || gap < outage || gap > took+2*outage || failed == 0 {
				t.Errorf("gap %v, %d failed (%v); want %v and some", gap, failed, err, took)
			}
		})
	}
	t.Run("an outage that lasts longer than the time to settle", func(t *testing.T) {
		var later sync.WaitGroup
		defer later.Wait()
		gap, failed, err := lab.Outage(ctx, s.Segment, []string{app(node.IPv4)}, func() error {
			err := node.Isolate()
			later.Go(func() {
				if err := errors.Join(lasts(ctx, outage), node.Heal()); err != nil {
					t.Error(err)
				}
			})
			return err
		}, time.Millisecond)
		if err != nil || gap < outage || failed == 0 {
			t.Errorf("gap %v, %d failed (%v); want %v and some", gap, failed, err, outage)
		}
	})
	t.Run("no fault, no gap", func(t *testing.T) {
		// An attempt that waits for CPU time has not failed. An attempt that lost a packet has, whatever the timeout.
		stalled := stalls()
		gap, failed, err := lab.Outage(ctx, s.Segment.Patient(), []string{app(node.IPv4), app(node.IPv6)}, func() error { return nil }, outage)
		if stall := stalled(); err != nil || gap > outage/2+stall || failed > 0 {
			t.Errorf("gap %v, %d failed (%v); this process did not run for %v", gap, failed, err, stall)
		}
	})
	t.Run("an outage that does not end", func(t *testing.T) {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		gap, _, err := lab.Outage(ctx, s.Segment, []string{app(node.IPv6)}, func() error {
			defer time.AfterFunc(3*outage, cancel) // The time counts from here, since the steps before may be slow.
			return node.Isolate()
		}, outage)
		must(t, node.Heal())
		if !errors.Is(err, lab.ErrNotOver) || gap < outage/2 {
			t.Errorf("gap %v, error %v; want %v", gap, err, lab.ErrNotOver)
		}
	})
}

// stalls starts a measurement, which stop ends. stop returns the longest time in which this process did not run.
func stalls() (stop func() time.Duration) {
	const period = 10 * time.Millisecond
	var longest time.Duration
	var work sync.WaitGroup
	done := make(chan struct{})
	work.Go(func() {
		ticker := time.NewTicker(period)
		defer ticker.Stop()
		for ran := time.Now(); ; {
			select {
			case <-ticker.C:
			case <-done:
				return
			}
			now := time.Now()
			longest = max(longest, now.Sub(ran)-period)
			ran = now
		}
	})
	return func() time.Duration { close(done); work.Wait(); return longest }
}

func TestAnOpenerTellsWhoAnsweredAndWhatFailed(t *testing.T) {
	ctx, s, _ := site(t, 1)
	patient := *s.Segment
	patient.Timeout = patience // This test may have to wait for CPU time.
	o := patient.Open(ctx, app(s.Nodes[0].IPv4), 5*time.Millisecond)
	nobody := s.Segment.Open(ctx, net.JoinHostPort(s.Nodes[0].IPv6.String(), "1"), 5*time.Millisecond)
	must(t, lab.Eventually(ctx, func(context.Context) error {
		if n := min(o.Made(), nobody.Made()); n < 5 {
			return fmt.Errorf("%d attempts, want 5", n)
		}
		return nil
	}))
	good, bad := o.Stop(), nobody.Stop()
	if n := good.ByNode()["k8s-node1"]; n < 5 || n != len(good) || good.Failed() > 0 || len(good.Durations()) != n {
		t.Errorf("%v, by node %v, %v", good, good.ByNode(), good.Errors())
	}
	if len(bad) < 5 || bad.Failed() != len(bad) || len(bad.Errors()) != len(bad) || bad.Gap() != bad[len(bad)-1].Start.Sub(bad[0].Start) {
		t.Errorf("%v; want that all fail, and a gap as long as it lasted", bad)
	}
}

func TestAClientNoticesThatItsSYNWasLost(t *testing.T) {
	ctx, s, _ := site(t, 1)
	patient, target := s.Segment.Patient(), app(s.Nodes[0].IPv4)
	if _, err := patient.Get(ctx, target); err != nil {
		t.Error(err)
	}
	must(t, s.Nodes[0].Isolate())
	asked := make(chan error)
	go func() {
		_, err := patient.Get(ctx, target)
		asked <- err
	}()
	must(t, lasts(ctx, 700*time.Millisecond))
	must(t, s.Nodes[0].Heal())
	var again *lab.SentAgainError
	if err := <-asked; !errors.As(err, &again) || again.Times == 0 {
		t.Errorf("%v, want that the SYN was sent again", err)
	}
	if counters, err := lab.Losses(s.Segment.Host); err != nil || !strings.Contains(strings.Join(counters, "\n"), " TCPSynRetrans=") {
		t.Errorf("%v, error %v; want TCPSynRetrans among them", counters, err)
	}
}

func TestHeldConnectionsOutliveAShortOutageAndBreakWithTheApp(t *testing.T) {
	const outage, connections = 300 * time.Millisecond, 10
	ctx, s, apps := site(t, 1)
	node := s.Nodes[0]
	for _, target := range []string{app(node.IPv4), app(node.IPv6)} {
		h, err := s.Segment.Hold(ctx, target, connections)
		must(t, err)
		must(t, lasts(ctx, outage))
		began := time.Now()
		must(t, errors.Join(node.Isolate(), lasts(ctx, outage), node.Heal()))
		took := time.Since(began) // TCP doubles the time between retransmissions.
		must(t, lasts(ctx, 2*outage))
		r := h.Stop()
		t.Log(r)
		if r.Broken > 0 || r.Connections != connections || r.LongestStall < outage/2 || r.LongestStall > 4*took || r.Exchanges < connections {
			t.Errorf("%v after an outage of %v, %v", r, took, r.Errors)
		}
	}
	h, err := s.Segment.Hold(ctx, app(node.IPv4), connections)
	must(t, err)
	must(t, errors.Join(lasts(ctx, outage), apps[0].Kill()))
	err = lab.Eventually(ctx, func(context.Context) error {
		if n := h.Broken(); n < connections {
			return fmt.Errorf("%d connections are broken, want %d", n, connections)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	if r := h.Stop(); r.Broken != connections || len(r.Errors) != connections {
		t.Errorf("after the app was killed: %v, want all broken", r)
	}
}

func TestAClientHearsWhoClaimsAnAddress(t *testing.T) {
	const every = 20 * time.Millisecond
	for _, family := range []struct {
		vip      netip.Addr
		add, del string
		announce string
	}{
		{netip.MustParseAddr("198.18.0.200"), "ip addr add %s/32 dev eth0", "ip addr del %s/32 dev eth0", "arping -q -U -c 1 -I eth0 -s %[1]s %[1]s # %[2]s"},
		{netip.MustParseAddr("2001:db8:18::200"), "ip addr add %s/128 dev eth0 nodad", "ip addr del %s/128 dev eth0", "sysctl -qw net.ipv6.conf.eth0.ndisc_notify=1; ip link set eth0 address 02:00:5e:00:53:ff; ip link set eth0 address %[2]s"},
	} {
		t.Run(family.vip.String(), func(t *testing.T) {
			ctx, s, _ := site(t, 2)
			first, second := s.Nodes[0], s.Nodes[1]
			w, err := s.Segment.Watch()
			must(t, err)
			asker, err := s.Segment.AskEvery(ctx, family.vip, every)
			must(t, err)
			answered := func(nodes ...*lab.Node) {
				t.Helper()
				var want []string
				for _, n := range nodes {
					want = append(want, n.MAC.String())
				}
				must(t, lab.Eventually(ctx, func(ctx context.Context) error {
					macs, err := s.Segment.Ask(ctx, family.vip)
					if err != nil {
						return err
					}
					var got []string
					for _, m := range macs {
						got = append(got, m.String())
					}
					slices.Sort(got)
					if !slices.Equal(got, want) {
						return fmt.Errorf("answers from %v, want %v", got, want)
					}
					return nil
				}))
			}
			answered()
			must(t, first.Host.Script(family.add, family.vip))
			answered(first)
			must(t, lab.Eventually(ctx, func(context.Context) error { // The asker may have had no CPU time for a while.
				if runs := w.Answerers(family.vip, time.Time{}); len(runs) != 1 || runs[0].Answers < 5 {
					return fmt.Errorf("runs %+v, want one of 5 answers", runs)
				}
				return nil
			}))
			must(t, first.Host.Script(family.del, family.vip))
			answered()
			must(t, second.Host.Script(family.add, family.vip))
			answered(second)
			if o := w.Overlaps(family.vip, every/2); len(o) > 0 {
				t.Errorf("the address moved in one piece, and there are overlaps: %v", o)
			}
			runs := w.Answerers(family.vip, time.Time{})
			if len(runs) != 2 || runs[0].MAC.String() != first.MAC.String() || runs[1].MAC.String() != second.MAC.String() ||
				runs[0].Answers < 5 || !runs[0].First.Before(runs[0].Last) || !runs[0].Last.Before(runs[1].First) {
				t.Errorf("runs %+v; want %v, then %v", runs, first.MAC, second.MAC)
			}

			moved := time.Now()
			must(t, first.Host.Script(family.add, family.vip))
			answered(first, second)
			must(t, lab.Eventually(ctx, func(context.Context) error {
				if o := w.Overlaps(family.vip, every/2); len(o) < 5 {
					return fmt.Errorf("two nodes answer every request, and there are %d overlaps", len(o))
				}
				if runs := w.Answerers(family.vip, moved); len(runs) < 5 {
					return fmt.Errorf("two nodes take turns, and there are %d runs", len(runs))
				}
				return nil
			}))
			if got := w.MACs(family.vip, time.Time{}); len(got) != 2 {
				t.Errorf("claims of %v, want both nodes", got)
			}

			must(t, first.Host.Script(family.announce, family.vip, first.MAC))
			must(t, lab.Eventually(ctx, func(context.Context) error {
				for _, c := range w.Claims(family.vip, moved) {
					if c.Kind == lab.Announcement && c.MAC.String() == first.MAC.String() && c.Source.String() == first.MAC.String() {
						return nil
					}
				}
				return errors.New("the announcement is not heard")
			}))
			must(t, errors.Join(asker.Stop(), w.Close()))
		})
	}
}

// silence is the time without a frame after which the remaining frames count as lost. On the cables of a site, a frame
// that is not lost arrives at once.
const silence = 150 * time.Millisecond

// datagrams sends n datagrams from one host to an address of another one, or to a group that the other one joins. It
// returns the number of datagrams that arrive until all have arrived, or until none arrives for the given time.
func datagrams(from, to *lab.Client, destination netip.Addr, n int, while time.Duration) (arrived int, err error) {
	var receiver *net.UDPConn
	if err := to.Host.Do(func() (err error) {
		if !destination.IsMulticast() {
			receiver, err = net.ListenUDP("udp", &net.UDPAddr{IP: destination.AsSlice()})
			return err
		}
		i, err := net.InterfaceByName("eth0")
		if err != nil {
			return err
		}
		receiver, err = net.ListenMulticastUDP("udp", i, &net.UDPAddr{IP: destination.AsSlice()})
		return err
	}); err != nil {
		return 0, err
	}
	defer receiver.Close()
	port := receiver.LocalAddr().(*net.UDPAddr).Port
	// The receiver also gets datagrams from other senders to the group at the same port.
	token := []byte(from.Host.Name + " to " + to.Host.Name)
	if err := from.Host.Do(func() error {
		i, err := net.InterfaceByName("eth0")
		if err != nil {
			return err
		}
		sender, err := net.ListenUDP("udp", nil)
		if err != nil {
			return err
		}
		defer sender.Close()
		if destination.Is4() {
			err = ipv4.NewPacketConn(sender).SetMulticastInterface(i)
		} else {
			err = ipv6.NewPacketConn(sender).SetMulticastInterface(i)
		}
		for range n {
			_, failed := sender.WriteToUDPAddrPort(token, netip.AddrPortFrom(destination, uint16(port)))
			err = errors.Join(err, failed)
		}
		return err
	}); err != nil {
		return 0, err
	}
	buf := make([]byte, 1500)
	for arrived < n {
		if err := receiver.SetReadDeadline(time.Now().Add(while)); err != nil {
			return arrived, err
		}
		size, err := receiver.Read(buf)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			break
		}
		if err != nil {
			return arrived, err
		}
		if bytes.Equal(buf[:size], token) {
			arrived++
		}
	}
	return arrived, nil
}

// TestFaults causes every fault, and checks which hosts receive datagrams from which others during the fault and after it.
func TestFaults(t *testing.T) {
	_, s, _ := site(t, 3)
	other, err := s.NewClient()
	must(t, err)
	a, b, c, client := &s.Nodes[0].Client, &s.Nodes[1].Client, &s.Nodes[2].Client, s.Segment
	hosts := map[string]*lab.Client{"a": a, "b": b, "c": c, "client": client, "other": other}
	// One-way faults would stop ARP and NDP, too.
	for _, from := range hosts {
		for _, to := range hosts {
			if from != to {
				must(t, from.Host.Script("ip neigh replace %[1]s lladdr %[3]v dev eth0 nud permanent; ip neigh replace %[2]s lladdr %[3]v dev eth0 nud permanent", to.IPv4, to.IPv6, to.MAC))
			}
		}
	}
	all := []string{"a b", "b a", "a c", "b c", "a client", "client a", "c client", "client c", "a other", "client other"}
	for name, f := range map[string]struct {
		fault     func() error
		lost      []string // Pairs that lose all frames.
		multicast []string // Pairs that lose the speakers' multicast.
	}{
		"cut":              {a.Cut, []string{"a b", "b a", "a c", "a client", "client a", "a other"}, nil},
		"isolated":         {a.Isolate, []string{"a b", "b a", "a c", "a client", "client a", "a other"}, nil},
		"from a":           {func() error { return a.OneWay(lab.FromHost) }, []string{"a b", "a c", "a client", "a other"}, nil},
		"to a":             {func() error { return a.OneWay(lab.ToHost) }, []string{"b a", "client a"}, nil},
		"between nodes":    {func() error { return lab.FilterBetween(a, b) }, []string{"a b", "b a"}, nil},
		"split":            {func() error { return lab.Split([]lab.Port{a, client}, []lab.Port{b, c, other}) }, []string{"a b", "b a", "a c", "c client", "client c", "a other", "client other"}, nil},
		"multicast":        {func() error { return lab.FilterMulticast(a, b) }, nil, []string{"a b", "b a"}},
		"two at once":      {func() error { return errors.Join(a.OneWay(lab.FromHost), lab.FilterMulticast(a, b, c)) }, []string{"a b", "a c", "a client", "a other"}, []string{"b a", "b c"}},
		"nothing happened": {func() error { return nil }, nil, nil},
	} {
		t.Run(name, func(t *testing.T) {
			check := func(lost, multicast []string) {
				t.Helper()
				var checks sync.WaitGroup
				defer checks.Wait()
				for _, pair := range all {
					from, to, _ := strings.Cut(pair, " ")
					none, silent := slices.Contains(lost, pair), slices.Contains(multicast, pair)
					for destination, want := range map[netip.Addr]bool{
						hosts[to].IPv4: !none, hosts[to].IPv6: !none,
						netip.MustParseAddr("224.0.0.254"): !none && !silent, netip.MustParseAddr("ff02::114"): !none && !silent,
						netip.MustParseAddr("224.0.0.253"): !none, netip.MustParseAddr("ff02::115"): !none,
					} {
						while := silence
						if want { // This test may have to wait for CPU time.
							while = patience / 2
						}
						checks.Go(func() {
							if got, err := datagrams(hosts[from], hosts[to], destination, 1, while); err != nil || (got == 1) != want {
								t.Errorf("from %s to %s (%v): %d datagrams arrived (%v), want that any does: %t", from, to, destination, got, err, want)
							}
						})
					}
				}
			}
			must(t, f.fault())
			check(f.lost, f.multicast)
			must(t, lab.Heal(a, b, c, client, other))
			check(nil, nil)
		})
	}
	for percent, tolerated := range map[int][2]int{10: {40, 180}, 30: {200, 400}, 100: {1000, 1000}} {
		for direction, ways := range map[lab.Direction][2]bool{lab.FromHost: {true, false}, lab.ToHost: {false, true}, lab.Both: {true, true}} {
			t.Run("loss of "+strconv.Itoa(percent)+" percent "+string(direction), func(t *testing.T) {
				must(t, a.Loss(percent, direction))
				const n = 1000
				for way, pair := range [][2]*lab.Client{{a, client}, {client, a}} {
					lost := 0
					for range 5 { // Each batch is smaller than a socket's buffer.
						arrived, err := datagrams(pair[0], pair[1], pair[1].IPv4, n/5, silence)
						must(t, err)
						lost += n/5 - arrived
					}
					low, high := 0, 0
					if ways[way] {
						low, high = tolerated[0], tolerated[1]
					}
					if lost < low || lost > high {
						t.Errorf("%s to %s: %d of %d lost, want %d to %d", pair[0].Host.Name, pair[1].Host.Name, lost, n, low, high)
					}
				}
				must(t, a.Heal())
				if got, err := datagrams(a, client, client.IPv4, 100, patience/2); err != nil || got != 100 {
					t.Errorf("healed, and %d of 100 arrive (%v)", got, err)
				}
			})
		}
	}
	if err := a.Loss(101, lab.Both); err == nil {
		t.Error("a loss of 101 percent is accepted")
	}
	if err := (&lab.Client{}).Cut(); err == nil {
		t.Error("a host without a port of the switch is cut")
	}
}
