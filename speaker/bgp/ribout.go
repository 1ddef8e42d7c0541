package bgp

import (
	"maps"
	"net/netip"
	"sync"

	"github.com/heraldlb/herald/speaker/bgp/route"
)

// ribOut has the routes that one peer should hear: its desired Adj-RIB-Out. Callers write it, and the peer's session follows
// it. It belongs to the peer's name and outlives sessions, so a peer that is added later finds its routes.
type ribOut struct {
	mu      sync.Mutex
	wanted  map[netip.Prefix]route.Attributes
	changed map[netip.Prefix]struct{} // prefixes that changed since the session last looked
	wake    chan struct{}             // capacity one
}

func newRibOut() *ribOut {
	return &ribOut{
		wanted:  map[netip.Prefix]route.Attributes{},
		changed: map[netip.Prefix]struct{}{},
		wake:    make(chan struct{}, 1),
	}
}

// announce sets the attributes of a prefix. They must be normal (see route.Attributes.Normal).
func (r *ribOut) announce(prefix netip.Prefix, a route.Attributes) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if old, ok := r.wanted[prefix]; ok && old.Same(a) {
		return
	}
	r.wanted[prefix] = a
	r.touch(prefix)
}

// withdraw removes a prefix.
func (r *ribOut) withdraw(prefix netip.Prefix) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, ok := r.wanted[prefix]; !ok {
		return
	}
	delete(r.wanted, prefix)
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
	return len(r.wanted) == 0
}

// all returns all wanted routes. takeChanged then returns the changes since this call.
func (r *ribOut) all() map[netip.Prefix]route.Attributes {
	r.mu.Lock()
	defer r.mu.Unlock()
	clear(r.changed)
	return maps.Clone(r.wanted)
}

// list returns all wanted routes. The attributes must not be modified.
func (r *ribOut) list() map[netip.Prefix]route.Attributes {
	r.mu.Lock()
	defer r.mu.Unlock()
	return maps.Clone(r.wanted)
}

// takeChanged returns the current attributes of each prefix that has changed since the last call; nil stands for a withdrawal.
func (r *ribOut) takeChanged() map[netip.Prefix]*route.Attributes {
	r.mu.Lock()
	defer r.mu.Unlock()
	changes := make(map[netip.Prefix]*route.Attributes, len(r.changed))
	for prefix := range r.changed {
		changes[prefix] = nil
		if a, ok := r.wanted[prefix]; ok {
			changes[prefix] = &a
		}
	}
	// A burst leaves a large map behind. A new map releases its memory.
	r.changed = map[netip.Prefix]struct{}{}
	return changes
}
