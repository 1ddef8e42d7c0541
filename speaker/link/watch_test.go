package link

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/heraldlb/herald/e2e/lab/enclave"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
)

// patience is how long a condition may take on a busy machine.
const patience = 20 * time.Second

func eventually(t testing.TB, condition func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(patience)
	for !condition() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatal("condition not met")
		}
	}
}

// start runs w until the test ends.
func start(t testing.TB, w *Watcher) {
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := w.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() { cancel(); wg.Wait() })
}

// settle waits for a change after which condition holds. It checks condition only after Changed has fired.
func settle(t testing.TB, w *Watcher, condition func() bool) {
	t.Helper()
	deadline := time.After(patience)
	for {
		select {
		case <-w.Changed():
			if condition() {
				return
			}
		case <-deadline:
			t.Fatalf("no such change; now %+v", w.Interfaces())
		}
	}
}

func TestWatcherFollowsTheKernel(t *testing.T) {
	w := Watch(zap.NewNop())
	start(t, w)
	var far enclave.Host
	here := func(script string) func() error {
		return func() error { return enclave.Host{}.Script("%s", script) }
	}
	there := func(script string) func() error { return func() error { return far.Script("%s", script) } }
	eth0 := func(ok func(Interface) bool) func() bool {
		return func() bool { return ok(find(w.Interfaces(), "eth0")) }
	}
	const mac = "02:00:5e:00:53:01"
	for _, c := range []struct {
		name string
		do   func() error
		then func() bool
	}{
		{name: "an interface appears", do: func() error { far = cable(t, "eth0"); return nil },
			then: eth0(func(i Interface) bool { return i.Up && len(i.Subnets) == 0 })},
		{name: "an address is added", do: here("ip addr add 198.18.0.1/24 dev eth0"),
			then: eth0(func(i Interface) bool { return cmp.Equal(i.Subnets, prefixes("198.18.0.1/24"), comparable) })},
		{name: "an IPv6 address is added", do: here("ip addr add 2001:db8::1/64 dev eth0 nodad"),
			then: eth0(func(i Interface) bool {
				return cmp.Equal(i.Subnets, prefixes("198.18.0.1/24", "2001:db8::1/64"), comparable)
			})},
		{name: "a default route", do: here("ip route add default via 198.18.0.254 dev eth0 table 7"),
			then: eth0(func(i Interface) bool { return cmp.Equal(i.Gateways, addresses("198.18.0.254"), comparable) })},
		{name: "through another gateway", do: here("ip route replace default via 198.18.0.253 dev eth0 table 7"),
			then: eth0(func(i Interface) bool { return cmp.Equal(i.Gateways, addresses("198.18.0.253"), comparable) })},
		{name: "an address is removed, and its routes", do: here("ip addr del 198.18.0.1/24 dev eth0; ip route flush table 7"),
			then: eth0(func(i Interface) bool { return cmp.Equal(i.Subnets, prefixes("2001:db8::1/64"), comparable) })},
		{name: "the far end goes down", do: there("ip link set eth0-peer down"), then: eth0(func(i Interface) bool { return !i.Up })},
		{name: "the far end comes back", do: there("ip link set eth0-peer up"), then: eth0(func(i Interface) bool { return i.Up })},
		{name: "set down; its IPv6 addresses go", do: here("ip link set eth0 down"),
			then: eth0(func(i Interface) bool { return !i.Up && len(i.Subnets) == 0 })},
		{name: "another MAC", do: here("ip link set eth0 address " + mac), then: eth0(func(i Interface) bool { return i.MAC.String() == mac })},
		{name: "set up", do: here("ip link set eth0 up"), then: eth0(func(i Interface) bool { return i.Up })},
		{name: "given to a bridge, which takes its place", do: here("ip link add br0 type bridge; ip link set eth0 master br0; ip link set br0 up"),
			then: func() bool {
				return find(w.Interfaces(), "eth0").Index == 0 && find(w.Interfaces(), "br0").Up
			}},
		{name: "taken from the bridge", do: here("ip link del br0"), then: eth0(func(i Interface) bool { return i.Up })},
		{name: "ARP off", do: here("ip link set eth0 arp off"), then: eth0(func(i Interface) bool { return i.Index == 0 })},
		{name: "ARP on", do: here("ip link set eth0 arp on"), then: eth0(func(i Interface) bool { return i.Up })},
		{name: "renamed", do: here("ip link set eth0 name uplink"), then: func() bool {
			return find(w.Interfaces(), "eth0").Index == 0 && find(w.Interfaces(), "uplink").Up
		}},
		{name: "gone", do: here("ip link del uplink"), then: func() bool { return find(w.Interfaces(), "uplink").Index == 0 }},
	} {
		t.Run(c.name, func(t *testing.T) {
			if err := c.do(); err != nil {
				t.Fatal(err)
			}
			settle(t, w, c.then)
			// When nothing changes any more, the Watcher has the same interfaces as a new list.
			eventually(t, func() bool {
				fresh, err := List()
				return err == nil && cmp.Equal(fresh, w.Interfaces(), comparable)
			})
		})
	}
}

func TestChangedIsSilentWhenNothingThatMattersChanges(t *testing.T) {
	cable(t, "eth0")
	w := Watch(zap.NewNop())
	var lists atomic.Int32
	w.list = func() ([]Interface, error) {
		defer lists.Add(1)
		return List()
	}
	start(t, w)
	settle(t, w, func() bool { return find(w.Interfaces(), "eth0").Index != 0 })
	eventually(t, func() bool {
		fresh, err := List()
		return err == nil && cmp.Equal(fresh, w.Interfaces(), comparable)
	})
	for len(w.Changed()) > 0 {
		<-w.Changed()
	}
	before := lists.Load()
	on(t, "ip link set eth0 alias uplink-to-the-world; ip link set eth0 mtu 1400; ip link add i0 type ifb; ip link del i0")
	eventually(t, func() bool { return lists.Load() > before+1 })
	if n := len(w.Changed()); n != 0 {
		t.Error("Changed fired for an alias, an MTU and a NOARP interface")
	}
}

// Events that come during a slow list fill the channel, and then the socket. The kernel drops the
// rest. The Watcher must notice this, and must still end with the right list.
func TestOverflowIsNoticedAndMadeGood(t *testing.T) {
	core, logs := observer.New(zap.WarnLevel)
	w := Watch(zap.New(core))
	entered, release := make(chan struct{}), make(chan struct{})
	var once sync.Once
	w.list = func() ([]Interface, error) {
		once.Do(func() { close(entered); <-release })
		return List()
	}
	start(t, w)
	<-entered
	on(t, `
		ip link add eth0 type veth peer eth1
		for i in $(seq 1500); do
			echo "link set eth0 up"; echo "link set eth0 down"
		done > /run/batch
		ip -batch /run/batch
		ip link del eth0
		ip link add last type veth peer last-peer
	`)
	t.Cleanup(func() { on(t, "ip link del last") })
	close(release)
	settle(t, w, func() bool {
		return find(w.Interfaces(), "last").Index != 0 && find(w.Interfaces(), "eth0").Index == 0
	})
	eventually(t, func() bool { return logs.Len() > 0 })
	if cause := logs.All()[0].ContextMap()["error"]; cause != "Receive failed: no buffer space available" {
		t.Errorf("lost for another reason than an overflow: %v", cause)
	}
	// The new subscription gets later events.
	on(t, "ip link set last up; ip link set last-peer up")
	settle(t, w, func() bool { return find(w.Interfaces(), "last").Up })
}

func TestAFailingListKeepsTheOldOneAndIsRetried(t *testing.T) {
	on(t, "ip link add v0 type veth peer v1")
	t.Cleanup(func() { on(t, "ip link del v0") })
	core, logs := observer.New(zap.WarnLevel)
	w := Watch(zap.New(core))
	var broken atomic.Bool
	w.list = func() ([]Interface, error) {
		if broken.Load() {
			return nil, errors.New("the kernel is out of sorts")
		}
		return List()
	}
	start(t, w)
	settle(t, w, func() bool { return find(w.Interfaces(), "v0").Index != 0 })
	broken.Store(true)
	on(t, "ip addr add 198.18.0.1/24 dev v0")
	eventually(t, func() bool { return logs.Len() > 0 })
	if got := find(w.Interfaces(), "v0"); got.Index == 0 || len(got.Subnets) != 0 {
		t.Errorf("v0 is now %+v", got)
	}
	broken.Store(false)
	settle(t, w, func() bool { return len(find(w.Interfaces(), "v0").Subnets) == 1 })
}
