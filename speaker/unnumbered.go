package speaker

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/heraldlb/herald/speaker/link"
)

const (
	// hearAgain is the pause after a failure before this node listens for routers again.
	hearAgain = time.Second
	// timeToAnswer is how long this node listens for routers before it chooses one. It sends two Router Solicitations in this
	// time. A router answers within half a second, or within three and a half after its last advertisement (RFC 4861 section
	// 6.2.6).
	timeToAnswer = 5 * time.Second
	// presentFor is how long a router still counts as present after it was last heard. It could have answered three
	// solicitations in this time.
	presentFor = 3*link.SolicitationPeriod + timeToAnswer
	// maxHeard bounds the routers that are remembered for a link: any machine there can advertise itself.
	maxHeard = 64
)

// linkRouters is what a node knows about the routers on a link. The addresses have the zone of the link's interface.
type linkRouters struct {
	iface string
	since time.Time // when the node began to hear all Router Advertisements; zero: it does not hear them
	fault error     // the last error because of which it did not hear them
	heard map[netip.Addr]time.Time
	// kernel has the neighbours that the kernel takes for routers, which are all that forward.
	kernel []netip.Addr
}

// router chooses the router of a BGPPeer, which is the one that advertises itself:
//
//   - A router with an established session stays: nothing is better evidence that it is present.
//   - If several advertise themselves, it chooses the one with which there was a session last (proved).
//   - It chooses none before all have had time to answer, because the first machine to answer need not be the right router.
//     Until then the router that was chosen before stays.
//   - If none advertises itself, it chooses the router that the kernel knows.
func (l linkRouters) router(established, before, proved netip.Addr, now time.Time) (netip.Addr, error) {
	const field = "spec.addressFrom.interface"
	switch answered := !l.since.IsZero() && now.Sub(l.since) >= timeToAnswer; {
	case established.IsValid():
		return established, nil
	case !answered && before.IsValid():
		return before, nil
	case !answered && l.fault != nil:
		return netip.Addr{}, missing(field, "routers on the link of %s cannot be told from other machines: %w", l.iface, l.fault)
	case !answered:
		return netip.Addr{}, missing(field, "the routers on the link of %s have been asked to advertise themselves: wait %v for all to answer", l.iface, timeToAnswer)
	}
	found := l.kernel
	if heard := l.present(now); len(heard) > 0 {
		found = heard
	}
	return one(found, before, proved, field, "no router has advertised itself on the link of "+l.iface+
		" yet: see to it that it sends Router Advertisements there", "taken for routers on the link of "+l.iface+
		": remove the others, or see to it that only the router sends Router Advertisements")
}

// present returns the routers that have been heard lately.
func (l linkRouters) present(now time.Time) (all []netip.Addr) {
	for a, last := range l.heard {
		if now.Sub(last) < presentFor {
			all = append(all, a)
		}
	}
	return all
}

// hear records that a router has advertised itself. It fails if there are too many routers to remember.
func (l *linkRouters) hear(router netip.Addr, now time.Time) error {
	maps.DeleteFunc(l.heard, func(_ netip.Addr, last time.Time) bool { return now.Sub(last) >= presentFor })
	if _, known := l.heard[router]; !known && len(l.heard) >= maxHeard {
		return fmt.Errorf("more than %d machines advertise themselves as routers on %s: see to it that only the router sends Router Advertisements", maxHeard, l.iface)
	}
	l.heard[router] = now
	return nil
}

// listenForRouters listens on the links of unnumbered peers, and returns what is known about the routers there, by interface.
func (l *loop) listenForRouters(interfaces []link.Interface) map[string]linkRouters {
	names := l.s.inputs.unnumbered()
	near := slices.DeleteFunc(slices.Clone(interfaces), func(i link.Interface) bool { return !names[i.Name] })
	l.links.follow(near)
	routers := map[string]linkRouters{}
	for _, i := range near {
		all, err := link.Routers(i)
		if err != nil {
			l.s.log.Warn("failed to find the routers on a link", zap.String("interface", i.Name), zap.Error(err))
		}
		known := l.links.of[i.Name].known()
		for _, a := range all {
			known.kernel = append(known.kernel, a.WithZone(i.Name))
		}
		routers[i.Name] = known
	}
	return routers
}

// unnumberedLinks are the links on which this node looks for the routers of unnumbered peers. The loop owns them.
type unnumberedLinks struct {
	log *zap.Logger
	of  map[string]*unnumberedLink // by interface
}

// unnumberedLink listens to the Router Advertisements on one link.
type unnumberedLink struct {
	index  int // of the interface
	cancel context.CancelFunc
	done   chan struct{}

	mu      sync.Mutex
	routers linkRouters
}

// follow listens on the links of these interfaces and on no others. It returns when the goroutines of the other links have
// ended.
func (u *unnumberedLinks) follow(interfaces []link.Interface) {
	for name, l := range u.of {
		if !slices.ContainsFunc(interfaces, func(i link.Interface) bool { return i.Name == name && i.Index == l.index }) {
			l.cancel()
			<-l.done
			delete(u.of, name)
		}
	}
	for _, i := range interfaces {
		if u.of[i.Name] == nil {
			u.of[i.Name] = listenOn(i, u.log.With(zap.String("interface", i.Name)))
		}
	}
}

func listenOn(i link.Interface, log *zap.Logger) *unnumberedLink {
	ctx, cancel := context.WithCancel(context.Background())
	l := &unnumberedLink{
		index: i.Index, cancel: cancel, done: make(chan struct{}),
		routers: linkRouters{iface: i.Name, heard: map[netip.Addr]time.Time{}},
	}
	go func() {
		defer close(l.done)
		told := ""
		for {
			l.listens(time.Now(), nil)
			err := link.HearRouters(ctx, i, func(a netip.Addr) error { return l.hear(a.WithZone(i.Name), time.Now()) })
			l.listens(time.Time{}, err)
			if err != nil && err.Error() != told {
				told = err.Error()
				log.Warn("failed to listen for the routers of unnumbered BGPPeers", zap.Error(err))
			}
			select {
			case <-ctx.Done():
				return
			case <-time.After(hearAgain):
			}
		}
	}()
	return l
}

// listens records since when this node hears routers, or why it does not.
func (l *unnumberedLink) listens(since time.Time, fault error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.routers.since = since
	if fault != nil {
		l.routers.fault = fault
	}
}

func (l *unnumberedLink) hear(router netip.Addr, now time.Time) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.routers.hear(router, now)
}

// known returns a copy of what the link has heard. It has no routers from the kernel.
func (l *unnumberedLink) known() linkRouters {
	l.mu.Lock()
	defer l.mu.Unlock()
	k := l.routers
	k.heard = maps.Clone(k.heard)
	return k
}
