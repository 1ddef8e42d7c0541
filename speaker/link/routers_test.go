package link

import (
	"errors"
	"net"
	"net/netip"
	"slices"
	"testing"

	"github.com/heraldlb/herald/e2e/lab/enclave"
	"github.com/mdlayher/ndp"
)

// A machine is a router from its first Router Advertisement on, also where the kernel uses none of what it advertises.
// Another neighbour is none.
func TestRoutersAreThoseThatAdvertiseThemselves(t *testing.T) {
	for _, forwarding := range []string{"0", "1"} {
		name := "up" + forwarding
		far := cable(t, name)
		on(t, "sysctl -qw net.ipv6.conf."+name+".forwarding="+forwarding)
		address := netip.MustParseAddr("fe80::b")
		if err := far.Script("ip addr add %v/64 dev %s-peer nodad", address, name); err != nil {
			t.Fatal(err)
		}
		on(t, "ip neigh add fe80::c lladdr 02:00:5e:00:53:0c dev "+name)
		interfaces, err := List()
		if err != nil {
			t.Fatal(err)
		}
		i := find(interfaces, name)
		if got, err := Routers(i); err != nil || len(got) > 0 {
			t.Errorf("before any advertisement: %v, %v", got, err)
		}
		eventually(t, func() bool {
			if err := advertise(far, name+"-peer", address); err != nil {
				t.Fatal(err)
			}
			got, err := Routers(i)
			return err == nil && slices.Equal(got, []netip.Addr{address})
		})
	}
}

// advertise sends a Router Advertisement of lifetime zero.
func advertise(from enclave.Host, device string, address netip.Addr) (err error) {
	return from.Do(func() (err error) {
		i, err := net.InterfaceByName(device)
		if err != nil {
			return err
		}
		conn, _, err := ndp.Listen(i, ndp.Addr(address.String()))
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, conn.Close()) }()
		return conn.WriteTo(&ndp.RouterAdvertisement{Options: []ndp.Option{&ndp.LinkLayerAddress{Direction: ndp.Source, Addr: i.HardwareAddr}}},
			nil, netip.IPv6LinkLocalAllNodes())
	})
}
