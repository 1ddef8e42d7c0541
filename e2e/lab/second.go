package lab

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/heraldlb/herald/e2e/lab/enclave"
)

// secondBridge is the switch of the second segment.
const secondBridge = "segment2"

// SecondInterface is a node's interface on the second segment.
type SecondInterface struct {
	Name string
	MAC  net.HardwareAddr
	Cable
}

// LaySecond makes a second segment. Each existing node gets an interface eth1 on it, and [Site.Second] is a client
// there. The client has on-link routes for the prefixes in here, which may be part of the first segment.
func (s *Site) LaySecond(here ...netip.Prefix) error {
	if err := newSwitch(secondBridge); err != nil {
		return err
	}
	h, err := enclave.NewHost("second")
	if err != nil {
		return err
	}
	s.own(h)
	s.Second = &Client{Host: h}
	cable := Cable{port: port(h.Name), bridge: secondBridge}
	if err := plug(h, eth0, secondMAC(clientHost), cable); err != nil {
		return err
	}
	v4, v6 := onSecond(clientHost)
	if *s.Second, err = newClient(h, v4, v6); err != nil {
		return err
	}
	s.Second.Cable = cable
	for _, n := range s.Nodes {
		if err := n.plugSecond(); err != nil {
			return err
		}
	}
	return h.Script("%s", onLink(here...))
}

func (n *Node) plugSecond() error {
	const eth1 = "eth1"
	mac, err := net.ParseMAC(secondMAC(nodeHosts + n.Number))
	if err != nil {
		return err
	}
	n.Second = &SecondInterface{Name: eth1, MAC: mac, Cable: Cable{port: "w-" + n.Host.Name, bridge: secondBridge}}
	if err := plug(n.Host, eth1, mac.String(), n.Second.Cable); err != nil {
		return err
	}
	v4, v6 := onSecond(nodeHosts + n.Number)
	return n.Host.Script("ip addr add %[2]s dev %[1]s; ip addr add %[3]s dev %[1]s nodad", eth1, v4, v6)
}

func secondMAC(number int) string { return fmt.Sprintf("02:00:5e:00:54:%02x", number) }

// removeSecond removes the second switch and its remaining cables.
func (s *Site) removeSecond() error {
	var errs []error
	for _, n := range s.Nodes {
		if n.Second != nil {
			errs = append(errs, unplug(n.Second.port))
		}
	}
	return errors.Join(append(errs, enclave.Host{}.Script("ip link delete %s", secondBridge))...)
}
