package bgp

import (
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"sync"

	"github.com/osrg/gobgp/v4/pkg/packet/bgp"
)

// maxReceived bounds the bytes of the UPDATE messages that gobgp keeps for a router's routes. maxRoutes ordinary routes of each
// family have 4 MB. An UPDATE has up to 64 KB (RFC 8654), and each route that it announces keeps all of it in memory.
const maxReceived = 16 << 20

// errTooLarge ends a session with a router whose routes have very large attributes.
var errTooLarge = fmt.Errorf("the router sent routes with more than %d MiB of attributes, and none of them is used here: "+
	"configure it to send none; the session is tried again every %v", maxReceived>>20, refusedPause)

// received counts the bytes of the UPDATEs of which gobgp keeps a route.
type received struct {
	stale bool // Routes are kept after the end of a session (RFC 4724).

	mu    sync.Mutex
	of    map[netip.Prefix]*kept
	bytes int
}

// kept is an UPDATE, and how many of its routes are kept.
type kept struct{ bytes, routes int }

// note counts the UPDATE in a record of gobgp's log, and reports whether the router has sent too much.
func (r *received) note(record slog.Record) (tooMuch bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch record.Message {
	case "Peer Down":
		if !r.stale {
			r.of, r.bytes = nil, 0
		}
	case "received update":
		var announced, withdrawn []bgp.PathNLRI
		var attributes []bgp.PathAttributeInterface
		record.Attrs(func(a slog.Attr) bool {
			switch value := a.Value.Any().(type) {
			case []bgp.PathAttributeInterface:
				attributes = value
			case []bgp.PathNLRI:
				if a.Key == "nlri" {
					announced = value
				} else {
					withdrawn = value
				}
			}
			return true
		})
		r.update(announced, withdrawn, attributes)
	}
	return r.bytes > maxReceived
}

// update counts an UPDATE. Like gobgp, it handles the withdrawn prefixes last.
func (r *received) update(announced, withdrawn []bgp.PathNLRI, attributes []bgp.PathAttributeInterface) {
	// routes begins at 1, so that it does not fall to 0 when a prefix that comes twice replaces itself. The last line takes the 1 off.
	k := &kept{bytes: 5 * (len(announced) + len(withdrawn)), routes: 1}
	for _, a := range attributes {
		k.bytes += a.Len()
		switch a := a.(type) {
		case *bgp.PathAttributeMpReachNLRI:
			announced = slices.Concat(announced, a.Value)
		case *bgp.PathAttributeMpUnreachNLRI:
			withdrawn = slices.Concat(withdrawn, a.Value)
		}
	}
	if r.of == nil {
		r.of = map[netip.Prefix]*kept{}
	}
	r.bytes += k.bytes
	for _, n := range announced {
		if p, is := n.NLRI.(*bgp.IPAddrPrefix); is {
			r.drop(r.of[p.Prefix])
			r.of[p.Prefix] = k
			k.routes++
		}
	}
	for _, n := range withdrawn {
		if p, is := n.NLRI.(*bgp.IPAddrPrefix); is {
			r.drop(r.of[p.Prefix])
			delete(r.of, p.Prefix)
		}
	}
	r.drop(k)
}

// drop notes that a route of an UPDATE is no longer kept.
func (r *received) drop(k *kept) {
	if k == nil {
		return
	}
	if k.routes--; k.routes == 0 {
		r.bytes -= k.bytes
	}
}
