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

// newSwitch makes a switch. Multicast snooping is off: without a querier the switch would forget the members of
// multicast groups, which is not what the stories test.
func newSwitch(bridge string) error {
	return enclave.Host{}.Script("ip link add %[1]s type bridge mcast_snooping 0; ip link set %[1]s up", bridge)
}

func removeBridge() error { return enclave.Host{}.Script("ip link delete %s", Bridge) }

// port returns the name of the bridge's end of a host's cable.
func port(host string) string { return "v-" + host }

// plug connects an interface of a host to a switch. The interface always gets the same MAC. A host that is recreated
// in a running cluster therefore matches the neighbour entries there.
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

// detach removes a host. It removes the cable first: the kernel would remove the cable with the namespace,
// but some time later.
func detach(h enclave.Host) error {
	return errors.Join(unplug(port(h.Name)), h.Remove())
}

// unplug removes a cable at the switch's end, if the cable exists. The kernel may remove a cable to a removed
// host at any moment.
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

// routes returns the commands that route prefixes via the gateway of their family.
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

// onLink returns the commands that make prefixes on-link on the segment.
func onLink(prefixes ...netip.Prefix) (script string) {
	for _, p := range prefixes {
		script += fmt.Sprintf("ip route replace %s dev %s\n", p, eth0)
	}
	return script
}
