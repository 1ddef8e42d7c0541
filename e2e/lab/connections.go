package lab

import (
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Connection is an entry of a node's connection tracking table: a connection to the address of a Service. An entry
// stays in the table until it times out, which takes from seconds to a day, even if the connection has moved to another node. If
// the client reuses its port before that, the kernel sends the new connection to the pod of the old one, even if that
// pod has ended.
type Connection struct {
	Node     string
	From, To netip.AddrPort
	Pod      netip.AddrPort // To if the connection was not forwarded to a pod.
	State    uint8          // One of nl.TCP_CONNTRACK_…
	Expires  uint32         // Seconds until the entry times out.
}

// Over reports whether both sides have closed the connection.
func (c Connection) Over() bool { return c.State == nl.TCP_CONNTRACK_TIME_WAIT }

func (c Connection) String() string {
	return fmt.Sprintf("%s: from %v to %v at %v, state %d, expires in %d s", c.Node, c.From, c.To, c.Pod, c.State, c.Expires)
}

// Connections returns the TCP connections to addresses of Services in this node's connection tracking table.
func (n *Node) Connections() (all []Connection, err error) {
	err = n.Host.Do(func() error {
		for _, family := range families {
			flows, err := netlink.ConntrackTableList(netlink.ConntrackTable, family)
			if err != nil {
				return fmt.Errorf("list the connections of %s: %w", n.Name, err)
			}
			for _, f := range flows {
				if tcp, is := f.ProtoInfo.(*netlink.ProtoInfoTCP); is && (toService{}).MatchConntrackFlow(f) {
					all = append(all, Connection{
						Node: n.Name, From: addrPort(f.Forward.SrcIP, f.Forward.SrcPort), To: addrPort(f.Forward.DstIP, f.Forward.DstPort),
						Pod: addrPort(f.Reverse.SrcIP, f.Reverse.SrcPort), State: tcp.State, Expires: f.TimeOut,
					})
				}
			}
		}
		return nil
	})
	return all, err
}

func addrPort(ip []byte, port uint16) netip.AddrPort {
	a, _ := netip.AddrFromSlice(ip)
	return netip.AddrPortFrom(a.Unmap(), port)
}

// ForgetConnections removes the connections to addresses of Services from this node's connection tracking table.
// See [Connection].
func (n *Node) ForgetConnections() error {
	return n.Host.Do(func() error {
		for _, family := range families {
			if _, err := netlink.ConntrackDeleteFilters(netlink.ConntrackTable, family, toService{}); err != nil {
				return fmt.Errorf("remove the connections of %s: %w", n.Name, err)
			}
		}
		return nil
	})
}

var families = []netlink.InetFamily{unix.AF_INET, unix.AF_INET6}

// toService matches connections to the addresses that stories give to Services.
type toService struct{}

func (toService) MatchConntrackFlow(f *netlink.ConntrackFlow) bool {
	to, ok := netip.AddrFromSlice(f.Forward.DstIP)
	return ok && LeftForStories(to.Unmap())
}
