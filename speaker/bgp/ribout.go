package bgp

import (
	"maps"
	"net/netip"
	"sync"

	"github.com/heraldlb/herald/speaker/bgp/route"
)

// ribOut is what one peer should hear: its Adj-RIB-Out as wished. Callers write it, the peer's
// session follows it. It belongs to the peer's name and outlives sessions, so a peer that appears
// later finds its routes.
type ribOut struct {
	mu      sync.Mutex
	wished  map[netip.Prefix]route.Attributes
	changed map[netip.Prefix]struct{} // since the session last looked
	wake    chan struct{}             // capacity one
}

func newRibOut() *ribOut {
	return &ribOut{
		wished:  map[netip.Prefix]route.Attributes{},
		changed: map[netip.Prefix]struct{}{},
		wake:    make(chan struct{}, 1),
	}
}

// announce and withdraw say whether they changed anything. Attributes are normal.
func (r *ribOut) announce(prefix netip.Prefix, a route.Attributes) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if old, ok := r.wished[prefix]; ok && old.Same(a) {
		return
	}
	r.wished[prefix] = a
	r.touch(prefix)
}

func (r *ribOut) withdraw(prefix netip.Prefix) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, ok := r.wished[prefix]; !ok {
		return
	}
	delete(r.wished, prefix)
	r.touch(prefix)
}

func (r *ribOut) touch(prefix netip.Prefix) {
	r.changed[prefix] = struct{}{}
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

func (r *ribOut) empty() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.wished) == 0
}

// all is everything wished, and the point from which takeChanged counts.
func (r *ribOut) all() map[netip.Prefix]route.Attributes {
	r.mu.Lock()
	defer r.mu.Unlock()
	clear(r.changed)
	return maps.Clone(r.wished)
}

// list is everything wished. The attributes are not to be changed.
func (r *ribOut) list() map[netip.Prefix]route.Attributes {
	r.mu.Lock()
	defer r.mu.Unlock()
	return maps.Clone(r.wished)
}

// takeChanged is what is wished now about each prefix that changed since the last call; nil stands
// for a withdrawal.
func (r *ribOut) takeChanged() map[netip.Prefix]*route.Attributes {
	r.mu.Lock()
	defer r.mu.Unlock()
	changes := make(map[netip.Prefix]*route.Attributes, len(r.changed))
	for prefix := range r.changed {
		changes[prefix] = nil
		if a, ok := r.wished[prefix]; ok {
			changes[prefix] = &a
		}
	}
	// A burst leaves a large map behind; a fresh one lets it go.
	r.changed = map[netip.Prefix]struct{}{}
	return changes
}
