package link

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/heraldlb/herald/e2e/lab/enclave"
	"github.com/mdlayher/ndp"
)

// A machine is a router from its first Router Advertisement on, even if the kernel uses nothing that it advertises. A
// neighbour that sends none is not a router, and neither is this machine, which hears its own advertisements.
func TestRoutersAreThoseThatAdvertiseThemselves(t *testing.T) {
	for _, forwarding := range []string{"0", "1"} {
		name := "up" + forwarding
		far := cable(t, name)
		on(t, "sysctl -qw net.ipv6.conf."+name+".forwarding="+forwarding)
		address := netip.MustParseAddr("fe80::b")
		if err := far.Script("ip addr add %v/64 dev %s-peer nodad", address, name); err != nil {
			t.Fatal(err)
		}
		own := netip.MustParseAddr("fe80::a")
		on(t, fmt.Sprintf("ip neigh add fe80::c lladdr 02:00:5e:00:53:0c dev %[1]s; ip addr add %[2]v/64 dev %[1]s nodad", name, own))
		if err := advertise(enclave.Host{}, name, own, 1); err != nil {
			t.Fatal(err)
		}
		interfaces, err := List()
		if err != nil {
			t.Fatal(err)
		}
		i := find(interfaces, name)
		if got, err := Routers(i); err != nil || len(got) > 0 {
			t.Errorf("before any advertisement: %v, %v", got, err)
		}
		eventually(t, func() bool {
			if err := advertise(far, name+"-peer", address, 1); err != nil {
				t.Fatal(err)
			}
			got, err := Routers(i)
			return err == nil && slices.Equal(got, []netip.Addr{address})
		})
	}
}

// A neighbour that only forwards packets is a router for the kernel, but sends no Router Advertisements. HearRouters hears a
// router that sends them, and solicits them at once and again later. It does not report this machine.
func TestARouterThatAdvertisesItselfIsHeard(t *testing.T) {
	const name = "heard"
	far := cable(t, name)
	if err := far.Script("sysctl -qw net.ipv6.conf.%[1]s-peer.forwarding=1; ip addr add fe80::b/64 dev %[1]s-peer nodad", name); err != nil {
		t.Fatal(err)
	}
	interfaces, err := List()
	if err != nil {
		t.Fatal(err)
	}
	i, b := find(interfaces, name), netip.MustParseAddr("fe80::b")
	eventually(t, func() bool { // The node's own address is tentative for a moment.
		conn, err := net.Dial("udp6", net.JoinHostPort("fe80::b%"+name, "9"))
		if err != nil {
			return false
		}
		_, err = conn.Write([]byte("x"))
		got, listed := Routers(i)
		return errors.Join(err, conn.Close(), listed) == nil && slices.Equal(got, []netip.Addr{b})
	})
	asked := make(chan error, 1)
	listening := make(chan struct{})
	go func() { asked <- hearSolicitations(far, name+"-peer", 2, listening) }()
	<-listening
	ctx, cancel := context.WithCancel(t.Context())
	heard, ended := make(chan netip.Addr, 100), make(chan error, 1)
	go func() { ended <- HearRouters(ctx, i, func(a netip.Addr) error { heard <- a; return nil }) }()
	if err := <-asked; err != nil {
		t.Fatal(err)
	}
	if err := advertise(enclave.Host{}, name, linkLocal(t, enclave.Host{}, name), 1); err != nil {
		t.Fatal(err)
	}
	select {
	case a := <-heard:
		t.Errorf("%v is heard, and it has not advertised itself", a)
	default:
	}
	if err := advertise(far, name+"-peer", b, 1); err != nil {
		t.Fatal(err)
	}
	if a := <-heard; a != b {
		t.Errorf("%v is heard, want %v", a, b)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// Three Router Solicitations are sent in short succession, and further ones for ever after that.
func TestHowOftenRoutersAreAsked(t *testing.T) {
	for n, want := range map[int]time.Duration{1: 4 * time.Second, 2: 4 * time.Second, 3: time.Minute, 4: time.Minute, 1000: time.Minute} {
		if got := pauseAfter(n); got != want {
			t.Errorf("after %d solicitations the pause is %v, want %v", n, got, want)
		}
	}
}

// HearRouters returns an error when it may have missed a router: in a flood, or if its caller had no room for one.
func TestHearingRoutersEnds(t *testing.T) {
	const name = "flood"
	far := cable(t, name)
	full := errors.New("no room")
	for _, c := range []struct {
		name   string
		number int
		heard  error
		want   string
	}{
		{"in a flood", 2 * maxAdvertisements, nil, "more than 100 Router Advertisements a second come on flood: find the machine"},
		{"without room", 1, full, "no room"},
	} {
		i, ended := Interface{Name: name}, make(chan error, 1)
		_, from := linkLocal(t, enclave.Host{}, name), linkLocal(t, far, name+"-peer")
		go func() { ended <- HearRouters(t.Context(), i, func(netip.Addr) error { return c.heard }) }()
		eventually(t, func() bool {
			if err := advertise(far, name+"-peer", from, c.number); err != nil {
				t.Fatal(err)
			}
			select {
			case err := <-ended:
				if err == nil || !strings.HasPrefix(err.Error(), c.want) {
					t.Errorf("%s it ends with %v, want %q", c.name, err, c.want)
				}
				return true
			default:
				return false
			}
		})
	}
}

// hearSolicitations returns after it has received this number of Router Solicitations.
func hearSolicitations(at enclave.Host, device string, number int, listening chan<- struct{}) error {
	return at.Do(func() (err error) {
		i, err := net.InterfaceByName(device)
		if err != nil {
			return err
		}
		conn, err := OpenNDP(i, ndp.Addr("fe80::b"))
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, conn.Close()) }()
		if err := errors.Join(conn.JoinGroup(netip.IPv6LinkLocalAllRouters()), conn.SetReadDeadline(time.Now().Add(time.Minute))); err != nil {
			return err
		}
		close(listening)
		for number > 0 {
			m, _, _, err := conn.ReadFrom()
			if err != nil {
				return err
			}
			if _, is := m.(*ndp.RouterSolicitation); is {
				number--
			}
		}
		return nil
	})
}

// linkLocal returns the link-local address of a device, as soon as the address can be used.
func linkLocal(t *testing.T, h enclave.Host, device string) (address netip.Addr) {
	t.Helper()
	eventually(t, func() bool {
		out, err := h.Command(t.Context(), "ip", "-6", "-o", "addr", "show", "dev", device, "scope", "link", "-tentative").CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		_, text, found := strings.Cut(string(out), "inet6 ")
		prefix, err := netip.ParsePrefix(strings.SplitN(text, " ", 2)[0])
		address = prefix.Addr()
		return found && err == nil
	})
	return address
}

// advertise sends this number of Router Advertisements with lifetime zero in short succession.
func advertise(from enclave.Host, device string, address netip.Addr, times int) (err error) {
	return from.Do(func() (err error) {
		i, err := net.InterfaceByName(device)
		if err != nil {
			return err
		}
		conn, err := OpenNDP(i, ndp.Addr(address.String()))
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, conn.Close()) }()
		says := &ndp.RouterAdvertisement{Options: []ndp.Option{&ndp.LinkLayerAddress{Direction: ndp.Source, Addr: i.HardwareAddr}}}
		for range times {
			err = errors.Join(err, conn.WriteTo(says, nil, netip.IPv6LinkLocalAllNodes()))
		}
		return err
	})
}

// An interface that is removed and created again has a new index, which package net does not know for a minute.
func TestAnInterfaceIsOpenedAnew(t *testing.T) {
	const name = "anew"
	far := cable(t, name)
	for range 3 {
		if err := advertise(far, name+"-peer", linkLocal(t, far, name+"-peer"), 1); err != nil {
			t.Fatal(err)
		}
		on(t, "ip link delete "+name)
		if err := enclave.Connect(enclave.Host{}, name, far, name+"-peer"); err != nil {
			t.Fatal(err)
		}
	}
}
