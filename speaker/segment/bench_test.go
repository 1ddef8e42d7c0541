package segment

import (
	"context"
	"crypto/ed25519"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/heraldlb/herald/speaker/segment/ownership"
)

// senders is set for a child process that simulates this many neighbours.
const senders = "HERALD_SEGMENT_SENDERS"

// sender is one of the simulated neighbours. It sends Hellos, claims an address, and sends beats.
type sender struct {
	node  string
	mac   MAC
	boot  uint64
	key   ed25519.PrivateKey
	addr  netip.Addr
	chain chain
}

func newSender(i int) *sender {
	seed := make([]byte, ed25519.SeedSize)
	binary.BigEndian.PutUint32(seed, uint32(i))
	return &sender{
		node: fmt.Sprintf("c%d", i), mac: MAC{6, 0, 0, 0, byte(i >> 8), byte(i)}, boot: uint64(i) + 1, key: ed25519.NewKeyFromSeed(seed),
		addr: netip.AddrFrom4([4]byte{198, 19, byte(i >> 8), byte(i)}),
	}
}

func (c *sender) identity() Identity {
	return Identity{Boot: c.boot, Key: c.key.Public().(ed25519.PublicKey)}
}

func (c *sender) frames(cluster uint64) [][]byte {
	sign := func(k kind, sequence uint64, body func(*writer)) []byte {
		w := begin(k)
		w.envelope(envelope{cluster: cluster, boot: c.boot, sequence: sequence, mac: c.mac, node: c.node})
		body(&w)
		return append(w, ed25519.Sign(c.key, w)...)
	}
	c.chain = newChain(1, secret{1}, maxChain)
	h := hello{state: 1, claims: 1, flags: flagServing, period: 100, chain: 1, length: maxChain, secret: c.chain.links[0],
		prefixes: []netip.Prefix{netip.PrefixFrom(c.addr, 15)}, hears: []uint64{bootOf(0)}}
	return [][]byte{
		sign(kindHello, 1, h.encode),
		sign(kindUpdate, 2, update{from: 0, to: 1, changes: []change{{addr: c.addr, term: 2}}}.encode),
	}
}

// sendCrowd runs in the child process, and sends until the process is killed.
func sendCrowd(count int) error {
	i, err := net.InterfaceByName("eth0")
	if err != nil {
		return err
	}
	fd, err := openSocket(i.Index, 0, filterARP, MAC{})
	if err != nil {
		return err
	}
	cluster := New(Config{Cluster: "real"}).cluster()
	all := make([]*sender, count)
	greetings := make([][][]byte, count)
	for i := range all {
		all[i] = newSender(i)
		greetings[i] = all[i].frames(cluster)
	}
	send := func(c *sender, payload []byte) {
		_, _ = unix.Write(fd, datagram(Interface{MAC: c.mac, Prefixes: []netip.Prefix{netip.PrefixFrom(c.addr, 15)}}, MAC{}, payload))
	}
	// The neighbours must be on time on busy processors, too, because a late beat causes questions.
	if err := unix.Setpriority(unix.PRIO_PROCESS, 0, -15); err != nil {
		return err
	}
	tick := time.NewTicker(time.Millisecond)
	began, sent := time.Now(), 0
	for range tick.C {
		for due := int(time.Since(began) * time.Duration(count) / fastPeriod); sent < due; sent++ {
			c := all[sent%count]
			if round := sent / count; round < 5 {
				for _, g := range greetings[sent%count] {
					send(c, g)
				}
			}
			if c.chain.spent() {
				return errors.New("the chain is spent")
			}
			c.chain.used++
			send(c, beat{id: idOf(cluster, c.boot, c.node, c.mac), chain: 1, index: c.chain.used, secret: c.chain.links[c.chain.used], state: 1, claims: 1}.encode())
		}
	}
	return nil
}

// BenchmarkNeighbours measures one Segment on a segment where all nodes own addresses. It measures only the Segment's process.
func BenchmarkNeighbours(b *testing.B) {
	for _, count := range []int{3, 50, 200, 1000} {
		b.Run(strconv.Itoa(count), func(b *testing.B) {
			s := newSite(b, []string{"198.18.0.1/15", "198.18.0.2/15"}, "")
			r, from := s.hosts[0], s.hosts[1]
			r.anyThread = true
			s.start(r, "eth0")
			r.segment.Do(func(m *Machine, now Time) {
				for i := range count {
					c := newSender(i)
					m.Identify(now, c.node, c.identity())
				}
			})
			self, err := os.Executable()
			if err != nil {
				b.Fatal(err)
			}
			ctx, cancel := context.WithCancel(b.Context())
			child := from.Command(ctx, self)
			child.Env = append(os.Environ(), senders+"="+strconv.Itoa(count))
			child.Stderr = os.Stderr
			if err := child.Start(); err != nil {
				b.Fatal(err)
			}
			defer func() { cancel(); _ = child.Wait() }()
			eventually(b, "all neighbours are heard", func() bool {
				n := 0
				for _, m := range s.view(r).Members {
					if m.Claims > 0 {
						n++
					}
				}
				return n == count
			})
			wait := func(d time.Duration) { <-time.After(d) }
			wait(time.Second)
			b.ResetTimer()
			cpu, heard, began := cpuTime(b), s.view(r).Counters.Heard["beat"], time.Now()
			for range b.N {
				wait(3 * time.Second)
			}
			passed := time.Since(began)
			used := cpuTime(b) - cpu
			v := s.view(r)
			b.StopTimer()
			b.ReportMetric(100*used.Seconds()/passed.Seconds(), "cpu-%")
			b.ReportMetric(float64(v.Counters.Heard["beat"]-heard)/passed.Seconds(), "packets/s")
			runtime.GC()
			var m runtime.MemStats
			runtime.ReadMemStats(&m)
			b.ReportMetric(float64(m.HeapAlloc)/1e6, "MB")
			b.ReportMetric(float64(v.Counters.Events[EventSuspect]), "suspicions")
			b.ReportMetric(0, "ns/op")
		})
	}
}

func cpuTime(t testing.TB) time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// crowded returns a member of a segment with this many nodes and 10,000 addresses. The first neighbour owns 1,000 of them.
func crowded(b *testing.B, nodes int) (m *Machine, victim *neighbour) {
	m = New(Config{Cluster: "test", Node: "self", Boot: 1, Key: ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))})
	names := []string{"self"}
	m.Serve(1, true)
	m.Set(1, Interface{Name: "eth0", MAC: MAC{2}, Up: true})
	m.listening = false
	var all []*neighbour
	for i := range nodes - 1 {
		c := newSender(i)
		names = append(names, c.node)
		n := m.meet(envelope{node: c.node, boot: c.boot, mac: c.mac})
		n.said = hello{flags: flagServing, period: 100, length: maxChain, prefixes: []netip.Prefix{netip.PrefixFrom(c.addr, 15)}}
		all = append(all, n)
	}
	m.loadChanges++
	candidates := ownership.NewCandidates(names, nil)
	for i := range 10_000 {
		addr := netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)})
		n := all[0]
		if i >= 1000 {
			n = all[1+i%(len(all)-1)]
		}
		n.claims[addr] = 2
		m.address(addr).want = &ownership.Want{Candidates: candidates}
		m.claimed(n, addr)
	}
	m.decideTouched()
	m.Take()
	if len(m.owned) > 0 {
		b.Fatal("it owns addresses")
	}
	return m, all[0]
}

// BenchmarkPass measures decisions about all addresses that the death of a node touches, and about all addresses.
func BenchmarkPass(b *testing.B) {
	for _, nodes := range []int{1000, 5000} {
		b.Run(fmt.Sprintf("death/%d", nodes), func(b *testing.B) {
			m, victim := crowded(b, nodes)
			for b.Loop() {
				m.setStatus(victim, dead)
				m.decideTouched()
				b.StopTimer()
				for a := range m.owned { // Undo the takeovers, as if the node came back.
					a.ownTerm = 0
					delete(m.owned, a)
				}
				m.pending = nil
				m.setStatus(victim, alive)
				m.decideTouched()
				m.Take()
				b.StartTimer()
			}
		})
		b.Run(fmt.Sprintf("everything/%d", nodes), func(b *testing.B) {
			m, _ := crowded(b, nodes)
			for b.Loop() {
				m.touchAll()
				m.decideTouched()
			}
		})
	}
}

// BenchmarkReceive measures one beat from one of 1,000 neighbours.
func BenchmarkReceive(b *testing.B) {
	m, _ := crowded(b, 1000)
	cluster := m.cluster()
	var all []*sender
	for i := range 999 {
		c := newSender(i)
		c.chain = newChain(1, secret{1}, maxChain)
		all = append(all, c)
		n := m.neighbours[c.node]
		delete(m.byID, n.id)
		n.id = idOf(cluster, c.boot, c.node, c.mac)
		m.byID[n.id] = n
		n.said.chain, n.secret = 1, c.chain.links[0]
	}
	now := m.now
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		c := all[i%len(all)]
		if c.chain.spent() {
			c.chain.used = 0
			n := m.neighbours[c.node]
			n.index, n.secret = 0, c.chain.links[0]
		}
		c.chain.used++
		now += fastPeriod / 1000
		frame := beat{id: m.neighbours[c.node].id, chain: 1, index: c.chain.used, secret: c.chain.links[c.chain.used]}.encode()
		if d := m.Receive(now, Arrival{At: now, From: c.mac}, frame); d != "" {
			b.Fatal(d)
		}
		if now >= m.Next() {
			m.Tick(now)
			m.Take()
		}
	}
}
