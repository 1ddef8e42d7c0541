package lab

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/heraldlb/herald/e2e/lab/enclave"
)

// Bridge is the segment: a switch in the enclave's own namespace.
const Bridge = "segment"

// layBridge makes the segment, with the API server's address on it.
func layBridge() error {
	v4, v6 := onSegment(apiServerHost)
	if err := newSwitch(Bridge); err != nil {
		return err
	}
	return enclave.Host{}.Script("ip addr add %[2]s dev %[1]s; ip addr add %[3]s dev %[1]s nodad", Bridge, v4, v6)
}

// newSwitch makes a switch. Multicast snooping is off: a switch without a querier would forget who listens, and
// stories are to be about Herald.
func newSwitch(bridge string) error {
	return enclave.Host{}.Script("ip link add %[1]s type bridge mcast_snooping 0; ip link set %[1]s up", bridge)
}

func removeBridge() error { return enclave.Host{}.Script("ip link delete %s", Bridge) }

// port is the bridge's end of a host's cable.
func port(host string) string { return "v-" + host }

// plug connects an interface of a host to a switch. The interface has the same MAC whenever it is made, so that a
// host that is made anew in a cluster that stays is known there.
func plug(h enclave.Host, iface, mac string, to Cable) error {
	if err := enclave.Connect(enclave.Host{}, to.port, h, iface); err != nil {
		return err
	}
	if err := (enclave.Host{}).Script("ip link set %s master %s", to.port, to.bridge); err != nil {
		return err
	}
	return h.Script("ip link set %s address %s", iface, mac)
}

// attach makes a host on the segment.
func attach(name string, number int) (Client, error) {
	h, err := enclave.NewHost(name)
	if err != nil {
		return Client{Host: h}, err
	}
	cable := Cable{port: port(name), bridge: Bridge}
	if err := plug(h, eth0, fmt.Sprintf("02:00:5e:00:53:%02x", number), cable); err != nil {
		return Client{Host: h}, err
	}
	v4, v6 := onSegment(number)
	c, err := newClient(h, v4, v6)
	c.Cable = cable
	return c, err
}

// detach removes a host. Its cable goes first: the kernel would remove that with the namespace, but
// some time later.
func detach(h enclave.Host) error {
	return errors.Join(unplug(port(h.Name)), h.Remove())
}

// unplug removes a cable, if it is there, by the switch's end. A cable to a host that is gone goes at any moment.
func unplug(port string) error {
	return enclave.Host{}.Script("ip link delete %[1]s 2>/dev/null || ! ip link show %[1]s >/dev/null 2>&1", port)
}

// newClient gives a host's eth0 its addresses.
func newClient(h enclave.Host, v4, v6 netip.Prefix) (Client, error) {
	c := Client{Host: h, IPv4: v4.Addr(), IPv6: v6.Addr()}
	if err := h.Script("ip addr add %s dev %s; ip addr add %s dev %s nodad", v4, eth0, v6, eth0); err != nil {
		return c, err
	}
	return c, h.Do(func() error {
		i, err := net.InterfaceByName(eth0)
		if err != nil {
			return err
		}
		c.MAC = i.HardwareAddr
		return nil
	})
}

// routes are the commands that let a host reach prefixes by way of a gateway of each family.
func routes(gateway4, gateway6 netip.Addr, prefixes ...netip.Prefix) (script string) {
	for _, p := range prefixes {
		via := gateway4
		if p.Addr().Is6() {
			via = gateway6
		}
		script += fmt.Sprintf("ip route replace %s via %s\n", p, via)
	}
	return script
}

// onLink are the commands that let a host ask the segment itself for the addresses of prefixes.
func onLink(prefixes ...netip.Prefix) (script string) {
	for _, p := range prefixes {
		script += fmt.Sprintf("ip route replace %s dev %s\n", p, eth0)
	}
	return script
}
