package lab

import (
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Connections describes the connections to addresses of Services that are open in this node's connection tracking
// table. A connection that moved to another node stays in the table until it times out, after minutes or a day. If
// the client reuses its port before that, the kernel sends the new connection to the pod of the old one, even if that
// pod has ended.
func (n *Node) Connections() (open []string, err error) {
	err = n.Host.Do(func() error {
		for _, family := range families {
			all, err := netlink.ConntrackTableList(netlink.ConntrackTable, family)
			if err != nil {
				return fmt.Errorf("list the connections of %s: %w", n.Name, err)
			}
			for _, f := range all {
				tcp, is := f.ProtoInfo.(*netlink.ProtoInfoTCP)
				if is && tcp.State != nl.TCP_CONNTRACK_TIME_WAIT && (toService{}).MatchConntrackFlow(f) {
					open = append(open, fmt.Sprintf("%s: from %v port %d to %v at %v, state %d, forgotten in %d s", n.Name, f.Forward.SrcIP, f.Forward.SrcPort, f.Forward.DstIP, f.Reverse.SrcIP, tcp.State, f.TimeOut))
				}
			}
		}
		return nil
	})
	return open, err
}

// ForgetConnections removes the connections to addresses of Services from this node's connection tracking table.
// See [Node.Connections].
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
