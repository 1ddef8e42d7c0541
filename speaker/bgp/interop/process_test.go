package interop

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/heraldlb/herald/e2e/lab/enclave"
	"github.com/heraldlb/herald/e2e/lab/rack"
	"github.com/heraldlb/herald/e2e/lab/router"
	"github.com/heraldlb/herald/speaker/bgp"
	"github.com/heraldlb/herald/speaker/bgp/route"
	"go.uber.org/zap"
)

// childVariable is the environment variable with a childWish. Crashes are tested with a speaker in a child process.
const childVariable = "HERALD_BGP_CHILD"

// childWish is the configuration of a speaker in a child process.
type childWish struct {
	Peers []bgp.Peer
	// Prefixes has the prefixes to announce, by peer name.
	Prefixes map[string][]netip.Prefix
}

// runChild announces until the process is killed.
func runChild(text string) error {
	var wish childWish
	if err := json.Unmarshal([]byte(text), &wish); err != nil {
		return err
	}
	s := bgp.New(zap.NewNop())
	for peer, prefixes := range wish.Prefixes {
		for _, p := range prefixes {
			s.Set(p, to(route.Attributes{}, peer))
		}
	}
	if faults := s.SetPeers(wish.Peers); faults != nil {
		return fmt.Errorf("%v", faults)
	}
	return s.Run(context.Background())
}

// child is a speaker in a process of its own.
type child struct {
	t   testing.TB
	cmd *exec.Cmd
}

func startChild(t testing.TB, peer bgp.Peer, prefixes ...netip.Prefix) *child {
	t.Helper()
	return startChildOn(t, enclave.Host{}, childWish{[]bgp.Peer{peer}, map[string][]netip.Prefix{peer.Name: prefixes}})
}

func startChildOn(t testing.TB, host enclave.Host, wish childWish) *child {
	t.Helper()
	text, err := json.Marshal(wish)
	if err != nil {
		t.Fatal(err)
	}
	c := &child{t: t, cmd: host.Command(context.Background(), os.Args[0])}
	c.cmd.Env = append(os.Environ(), childVariable+"="+string(text))
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.kill)
	return c
}

func (c *child) signal(s syscall.Signal) {
	c.t.Helper()
	if err := c.cmd.Process.Signal(s); err != nil {
		c.t.Error(err)
	}
}

func (c *child) kill() {
	if c.cmd.ProcessState == nil {
		_ = c.cmd.Process.Kill()
		_ = c.cmd.Wait()
	}
}

// traffic is a client behind the router. It sends packets to an address of this node, and the node answers each of them.
type traffic struct {
	t    *testing.T
	stop func()

	mu       sync.Mutex
	sent     int          // the number of the last packet
	answered map[int]bool // by number
	from     int          // the first packet that counts
}

// clientPeriod is the time between two packets.
const clientPeriod = 5 * time.Millisecond

// through sends packets through the router from now on.
func (r *bench) through(t *testing.T, vip netip.Addr) *traffic {
	t.Helper()
	client := r.NewHost("client")
	r.Must(enclave.Connect(r.Host, "clients", client, "eth0"))
	r.OnRouter("sysctl -qw net.ipv4.ip_forward=1; ip addr add 198.19.%d.1/24 dev clients", r.Number)
	r.Must(client.Script("ip addr add 198.19.%[1]d.2/24 dev eth0; ip route add default via 198.19.%[1]d.1", r.Number))
	r.OnNode("ip addr add %v/32 dev lo; ip route add 198.19.%d.0/24 via %v", vip, r.Number, r.Router4)
	t.Cleanup(func() { _ = (enclave.Host{}).Script("ip addr del %v/32 dev lo", vip) })

	server, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.AddrPortFrom(vip, 7)))
	r.Must(err)
	var socket *net.UDPConn
	r.Must(client.Do(func() error {
		var err error
		socket, err = net.DialUDP("udp4", nil, net.UDPAddrFromAddrPort(netip.AddrPortFrom(vip, 7)))
		return err
	}))
	f := &traffic{t: t, answered: map[int]bool{}}
	var group sync.WaitGroup
	group.Go(func() {
		buffer := make([]byte, 64)
		for {
			n, from, err := server.ReadFromUDP(buffer)
			if err != nil {
				return
			}
			_, _ = server.WriteToUDP(buffer[:n], from)
		}
	})
	group.Go(func() {
		buffer := make([]byte, 64)
		for {
			n, err := socket.Read(buffer)
			if err != nil && strings.Contains(err.Error(), "closed") {
				return
			} else if err != nil {
				continue // An ICMP error: the packet is not answered.
			}
			number, _ := strconv.Atoi(string(buffer[:n])) // The server echoes the packet.
			f.mu.Lock()
			f.answered[number] = true
			f.mu.Unlock()
		}
	})
	ended := make(chan struct{})
	group.Go(func() {
		ticker := time.NewTicker(clientPeriod)
		defer ticker.Stop()
		for {
			select {
			case <-ended:
				return
			case <-ticker.C:
			}
			f.mu.Lock()
			f.sent++
			packet := fmt.Sprint(f.sent)
			f.mu.Unlock()
			_, _ = socket.Write([]byte(packet))
		}
	})
	sending := sync.OnceFunc(func() { close(ended) })
	t.Cleanup(func() { sending(); _ = socket.Close(); _ = server.Close(); group.Wait() })
	f.stop = sending
	f.flows(20)
	f.mu.Lock()
	f.from = f.sent + 1
	f.mu.Unlock()
	return f
}

// flows waits until more further packets were answered.
func (f *traffic) flows(more int) {
	f.t.Helper()
	f.mu.Lock()
	before := len(f.answered)
	f.mu.Unlock()
	rack.Eventually(f.t, func() error {
		f.mu.Lock()
		defer f.mu.Unlock()
		if n := len(f.answered) - before; n < more {
			return fmt.Errorf("%d more packets were answered, want %d", n, more)
		}
		return nil
	})
}

// lost ends the traffic and counts the packets that got no answer.
func (f *traffic) lost() (lost, sent int) {
	f.stop()
	_ = rack.Within(2*time.Second, func() error {
		f.mu.Lock()
		defer f.mu.Unlock()
		lost, sent = 0, f.sent-f.from+1
		for n := f.from; n <= f.sent; n++ {
			if !f.answered[n] {
				lost++
			}
		}
		if lost > 0 {
			return fmt.Errorf("%d of %d", lost, sent)
		}
		return nil
	})
	return lost, sent
}

func (r *bench) own() netip.Prefix {
	return netip.PrefixFrom(r.Address("203.0.113.%d"), 32)
}

// No packet is lost when a speaker is killed, nor when another one replaces it.
func TestAKilledSpeakerLosesNoPacket(t *testing.T) {
	rack.Each(t, func(t *testing.T, kind router.Kind) {
		r := newBench(t, kind)
		r.Start()
		p := r.peer("tor")
		p.GracefulRestart = &bgp.GracefulRestart{RestartTime: time.Minute}
		vip := r.own()
		c := startChild(t, p, vip)
		r.hears(r.plain(vip))
		f := r.through(t, vip.Addr())
		for range 2 {
			c.kill()
			f.flows(200) // After a second the router has long noticed, and keeps the route.
			c = startChild(t, p, vip)
			rack.Eventually(t, func() error { return r.hasSession(true) })
			f.flows(200)
		}
		if lost, sent := f.lost(); lost > 0 {
			t.Errorf("%d of %d packets lost", lost, sent)
		} else {
			t.Logf("%d packets, none lost", sent)
		}
	})
}

// A peer that changes needs a new session. With graceful restart no packet is lost either.
func TestAPeerThatChangesLosesNoPacket(t *testing.T) {
	rack.EachAlone(t, func(t *testing.T, kind router.Kind) {
		r := newBench(t, kind)
		r.Start()
		p := r.peer("tor")
		p.GracefulRestart = &bgp.GracefulRestart{RestartTime: time.Minute}
		vip := r.own()
		s := newSpeaker(t, p)
		s.Set(vip, to(route.Attributes{}, "tor"))
		r.hears(r.plain(vip))
		before := s.up("tor")
		f := r.through(t, vip.Addr())
		p.HoldTime = 30 * time.Second
		s.peers(p)
		s.replaced(before)
		f.flows(200)
		if lost, sent := f.lost(); lost > 0 {
			t.Errorf("%d of %d packets lost", lost, sent)
		}
		s.peers() // The router keeps nothing from a removed peer.
		if err := rack.Within(2*time.Second, func() error { return r.heard() }); err != nil {
			t.Error(err)
		}
	})
}

// Without graceful restart a crash loses packets. This shows that the test above would notice a loss.
func TestAKilledSpeakerWithoutGracefulRestartLosesPackets(t *testing.T) {
	rack.Each(t, func(t *testing.T, kind router.Kind) {
		r := newBench(t, kind)
		r.Start()
		vip := r.own()
		c := startChild(t, r.peer("tor"), vip)
		r.hears(r.plain(vip))
		f := r.through(t, vip.Addr())
		c.kill()
		r.hears()
		startChild(t, r.peer("tor"), vip)
		r.hears(r.plain(vip))
		f.flows(20)
		if lost, _ := f.lost(); lost == 0 {
			t.Error("no packet was lost")
		}
	})
}

// After a crash the route stays as a last resort for a while (RFC 9494). It becomes a normal route again when another speaker
// announces it.
func TestLongLivedGracefulRestart(t *testing.T) {
	rack.Each(t, func(t *testing.T, kind router.Kind) {
		r := newBench(t, kind)
		r.Start()
		p := r.peer("tor")
		p.GracefulRestart = &bgp.GracefulRestart{RestartTime: time.Second, StaleTime: time.Hour}
		vip := r.own()
		c := startChild(t, p, vip)
		r.hears(r.plain(vip))
		c.kill()
		stale := r.plain(vip)
		stale.Communities = []string{"65535:6"} // LLGR_STALE
		r.hears(stale)
		c = startChild(t, p, vip)
		r.hears(r.plain(vip))
		c.kill()
		r.hears(stale)
	})
}

// The hold time of a frozen speaker expires, and it loses its session. With RFC 8538 the router keeps the routes, except for
// routes that are withdrawn for good.
func TestRoutesStayWhenTheHoldTimeExpires(t *testing.T) {
	rack.EachAlone(t, func(t *testing.T, kind router.Kind) {
		for _, keep := range []bool{false, true} {
			t.Run(fmt.Sprint(keep), func(t *testing.T) {
				if keep && kind == rack.BIRD {
					t.Skip("BIRD 2 does not have RFC 8538")
				}
				r := newBench(t, kind)
				r.Config.Neighbors[0].KeepOnNotification = keep
				r.Start()
				p := r.peer("tor")
				p.HoldTime = 3 * time.Second
				p.GracefulRestart = &bgp.GracefulRestart{RestartTime: time.Minute, KeepOnNotification: keep}
				vip := r.own()
				c := startChild(t, p, vip)
				r.hears(r.plain(vip))
				c.signal(syscall.SIGSTOP)
				rack.Eventually(t, func() error { return r.hasSession(false) })
				if keep {
					if err := r.heard(r.plain(vip)); err != nil {
						t.Error(err)
					}
				} else {
					r.hears()
				}
				c.signal(syscall.SIGCONT)
				r.hears(r.plain(vip))
				c.kill()

				// A speaker that stops in order withdraws its routes.
				s := newSpeaker(t, p)
				s.Set(vip, to(route.Attributes{}, "tor"))
				s.up("tor")
				r.hears(r.plain(vip))
				s.stop()
				if err := rack.Within(2*time.Second, func() error { return r.heard() }); err != nil {
					t.Error(err)
				}
			})
		}
	})
}
