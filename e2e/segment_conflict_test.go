package e2e

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	herald "github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/e2e/lab"
)

// TestAStrangerUsesAnAddress is about a machine on the segment that is not a node and uses an address of Herald's.
func TestAStrangerUsesAnAddress(t *testing.T) {
	f := withSegment(t, 3)
	stranger, err := f.site.NewClient()
	f.must(err)
	addresses := func(last int) []netip.Addr {
		return []netip.Addr{netip.MustParseAddr(fmt.Sprintf("198.18.0.%d", last)), netip.MustParseAddr(fmt.Sprintf("2001:db8:18::%d", last))}
	}

	t.Run("before a Service gets it: the Service is given another", func(t *testing.T) {
		f := f.within(t)
		taken := addresses(201)
		f.must(use(stranger, taken...))
		f.service("late", to8080, dualStack, local)
		f.holds("late", "198.18.0.202", "2001:db8:18::202")
		for _, a := range taken {
			f.disputed(herald.AllocationName(a), metav1.ConditionTrue)
		}
		// Only the stranger ever answers for its addresses.
		f.addresses = taken
		o := f.observe(observing{by: stranger.MAC.String()})
		f.pass(time.Second)
		o.end().stayed(stranger.MAC.String())
		f.addresses = addresses(202)
		f.observe(observing{}).end().neverTwo(0)
		f.must(leave(stranger, taken...))
	})
	// The Service asks for these addresses, so it keeps them.
	taken := addresses(210)
	t.Run("before a Service gets it that asks for it: the Service keeps it", func(t *testing.T) {
		f := f.within(t)
		f.must(use(stranger, taken...))
		f.service("sure", to8080, dualStack, local, annotated(herald.AnnotationIPs, "198.18.0.210,2001:db8:18::210"))
		f.holds("sure", "198.18.0.210", "2001:db8:18::210")
		f.addresses = taken
		o := f.observe(observing{by: stranger.MAC.String()})
		for _, a := range taken {
			f.disputed(herald.AllocationName(a), metav1.ConditionTrue)
		}
		f.holds("sure", "198.18.0.210", "2001:db8:18::210")
		o.end().stayed(stranger.MAC.String())
		f.must(leave(stranger, taken...))
		// The nodes check again for the stranger, and answer when it is gone.
		f.observe(observing{}).end().neverTwo(0)
	})
	t.Run("after: it is defended", func(t *testing.T) {
		f := f.within(t)
		f.addresses = taken
		owner := f.gather()
		watch, err := f.site.Segment.Watch()
		f.must(err)
		f.must(use(stranger, f.addresses...))
		for _, a := range f.addresses {
			f.eventually(fmt.Sprintf("%s is announced again by %s", a, owner), func(context.Context) error {
				strange := false
				for _, c := range watch.Claims(a, time.Time{}) {
					if c.MAC.String() == stranger.MAC.String() {
						strange = true
					} else if strange && c.Kind == lab.Announcement && c.MAC.String() == f.site.Node(owner).MAC.String() {
						return nil
					}
				}
				return errors.New("it is not")
			})
			f.disputed(herald.AllocationName(a), metav1.ConditionTrue)
		}
		f.event("Service", "sure", "AddressConflict", stranger.MAC.String())
		f.must(watch.Close())
		f.holds("sure", "198.18.0.210", "2001:db8:18::210")
	})
	t.Run("after, where the pool says Yield: no node answers", func(t *testing.T) {
		f := f.within(t)
		f.addresses = taken
		_, err := f.herald.Pools.Patch(f.ctx, "segment", types.MergePatchType, []byte(`{"spec":{"onConflict":"Yield"}}`), metav1.PatchOptions{})
		f.must(err)
		o := f.observe(observing{by: stranger.MAC.String()})
		o.settled(stranger.MAC.String())
		o.stays(15*time.Second, stranger.MAC.String()) // The nodes check for the stranger every ten seconds.
		o.end()
		f.must(leave(stranger, f.addresses...))
	})
}

// use gives a client addresses, and makes its kernel announce them, as a starting machine may do.
func use(c *lab.Client, addresses ...netip.Addr) error {
	script := "sysctl -qw net.ipv4.conf.eth0.arp_notify=1 net.ipv6.conf.eth0.ndisc_notify=1\n"
	for _, a := range addresses {
		flag := ""
		if a.Is6() {
			flag = "nodad"
		}
		script += fmt.Sprintf("ip addr add %s dev eth0 %s\n", netip.PrefixFrom(a, a.BitLen()), flag)
	}
	// When the present MAC is set again, the kernel announces all addresses.
	return c.Host.Script("%s ip link set eth0 address %s", script, c.MAC)
}

func leave(c *lab.Client, addresses ...netip.Addr) error {
	script := ""
	for _, a := range addresses {
		script += fmt.Sprintf("ip addr del %s dev eth0\n", netip.PrefixFrom(a, a.BitLen()))
	}
	return c.Host.Script("%s", script)
}
