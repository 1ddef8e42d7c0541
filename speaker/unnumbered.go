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
	// hearAgain is the pause before routers are listened to again after a failure.
	hearAgain = time.Second
	// timeToAnswer is how long routers are listened to before one is chosen. Two Router Solicitations are sent in this time. A
	// router answers within half a second, or within three and a half after its last advertisement (RFC 4861 section 6.2.6).
	timeToAnswer = 5 * time.Second
	// silentFor is how long a router that is not heard counts as there. It could have answered three solicitations.
	silentFor = 3*link.SolicitationPeriod + timeToAnswer
	// maxHeard bounds the routers that are remembered of a link: anybody there can advertise himself.
	maxHeard = 64
)

// linkRouters is what a node knows of the routers on a link. The addresses have the zone of its interface.
type linkRouters struct {
	iface string
	since time.Time // when it began to hear all Router Advertisements; zero: it does not
	fault error     // why it did not, last
	heard map[netip.Addr]time.Time
	// kernel has those that the kernel takes for routers: all that forward.
	kernel []netip.Addr
}

// router chooses the router of a BGPPeer: the one that advertises itself. One that there is a session with stays: nothing
// tells better that it is there. Of several it is the one that there was a session with last (proved). None is chosen before
// all have had the time to answer, since a machine that is quicker is not the router for that; until then the one that was
// chosen before stays. If none advertises itself, it is the one in the kernel.
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
		": leave one there, or see to it that only the router sends Router Advertisements")
}

// present are the routers that have been heard lately.
func (l linkRouters) present(now time.Time) (all []netip.Addr) {
	for a, last := range l.heard {
		if now.Sub(last) < silentFor {
			all = append(all, a)
		}
	}
	return all
}

// hear notes that a router has advertised itself. It is an error that there are too many to know all of them.
func (l *linkRouters) hear(router netip.Addr, now time.Time) error {
	maps.DeleteFunc(l.heard, func(_ netip.Addr, last time.Time) bool { return now.Sub(last) >= silentFor })
	if _, known := l.heard[router]; !known && len(l.heard) >= maxHeard {
		return fmt.Errorf("more than %d machines advertise themselves as routers on %s: leave one of them", maxHeard, l.iface)
	}
	l.heard[router] = now
	return nil
}

// listenForRouters tells what is known of the routers on the links of unnumbered peers, by interface.
func (l *loop) listenForRouters(interfaces []link.Interface) map[string]linkRouters {
	names := l.s.inputs.unnumbered()
	near := slices.DeleteFunc(slices.Clone(interfaces), func(i link.Interface) bool { return !names[i.Name] })
	l.links.follow(near)
	routers := map[string]linkRouters{}
	for _, i := range near {
		all, err := link.Routers(i)
		if err != nil {
			l.s.log.Warn("the routers on a link are not known", zap.String("interface", i.Name), zap.Error(err))
		}
		known := l.links.of[i.Name].known()
		for _, a := range all {
			known.kernel = append(known.kernel, a.WithZone(i.Name))
		}
		routers[i.Name] = known
	}
	return routers
}

// unnumberedLinks are the links on which the routers of unnumbered peers are looked for. The loop owns them.
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

// follow listens on the links of these interfaces and on no others. It returns when those that are left have ended.
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
				log.Warn("routers of unnumbered BGPPeers are not heard", zap.Error(err))
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

// listens notes since when routers are heard, or why they are not.
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

// known is what is known now, apart from what the kernel knows.
func (l *unnumberedLink) known() linkRouters {
	l.mu.Lock()
	defer l.mu.Unlock()
	k := l.routers
	k.heard = maps.Clone(k.heard)
	return k
}
