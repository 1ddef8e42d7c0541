package bgp

import (
	"context"
	"maps"
	"sync"
	"time"

	"github.com/osrg/gobgp/v4/api"
	"github.com/osrg/gobgp/v4/pkg/apiutil"
	"github.com/osrg/gobgp/v4/pkg/packet/bgp"
)

// lockstep lets several gobgp servers live in one process.
//
// gobgp (v4.8.0) keeps two options of a server, its route selection and its use of multiple paths, in package variables
// instead of in the server. StartBgp writes them, and every server reads them when it handles routes. All servers here have
// the same options and would never read a wrong value, but this is still a data race. Therefore, while one server starts, each
// of the others is stopped inside its own lock, under which it does all such reads.
var lockstep struct {
	starting sync.Mutex // held while a server starts
	running  sync.Map   // the keys are *routeServer
}

// maxIdleHold bounds how long idle servers are held while another one does not stop. A server may be busy for seconds with the
// routes of its router, and the others have withdrawals to send.
const maxIdleHold = 100 * time.Millisecond

// startAlone calls StartBgp while all other servers are held.
func startAlone(ctx context.Context, s *routeServer, request *api.StartBgpRequest) error {
	lockstep.starting.Lock()
	defer lockstep.starting.Unlock()
	held := holdOthers()
	err := s.gobgp.StartBgp(ctx, request)
	if err == nil {
		lockstep.running.Store(s, nil)
	}
	for _, h := range held {
		h.end()
	}
	return err
}

// holdOthers returns when all running servers are held. If some are busy, it lets the others go on, and waits until the busy
// ones have stopped. Those that were busy then stay held while it tries again: otherwise servers might be busy in turns forever.
func holdOthers() map[*routeServer]*hold {
	held := map[*routeServer]*hold{}
	for {
		asked, busy := map[*routeServer]*hold{}, map[*routeServer]*hold{}
		for key := range lockstep.running.Range {
			if s := key.(*routeServer); held[s] == nil {
				asked[s] = newHold(s)
			}
		}
		limit, cancel := context.WithTimeout(context.Background(), maxIdleHold)
		for s, h := range asked {
			if !h.within(limit) {
				busy[s] = h
			}
		}
		cancel()
		if len(busy) == 0 {
			maps.Copy(held, asked)
			return held
		}
		for s, h := range asked {
			if busy[s] == nil {
				h.end()
			}
		}
		for s, h := range busy {
			<-h.still
			held[s] = h
		}
	}
}

// endLockstep removes a server that does nothing any more.
func endLockstep(s *routeServer) {
	lockstep.running.Delete(s)
	close(s.stopped)
}

// hold is a path attribute that stops the server that reads it. AddPath reads it inside the server's lock, and then refuses the
// path because it has no next hop.
type hold struct {
	bgp.PathAttributeInterface
	still    chan struct{} // closed when the server has stopped
	released chan struct{}
	ended    chan struct{}
}

func newHold(s *routeServer) *hold {
	h := &hold{still: make(chan struct{}), released: make(chan struct{}), ended: make(chan struct{})}
	go func() {
		defer close(h.ended)
		_, _ = s.gobgp.AddPath(apiutil.AddPathRequest{Paths: []*apiutil.Path{{
			Family: bgp.RF_IPv4_UC,
			Attrs:  []bgp.PathAttributeInterface{h},
		}}})
		select {
		case <-h.still:
			return // The server was held, and may have been shut down since.
		default:
		}
		<-s.stopped // A server that is shutting down refuses the path but may still be reading.
		close(h.still)
	}()
	return h
}

// GetType is the only method that AddPath calls, once. It blocks until the hold ends.
func (h *hold) GetType() bgp.BGPAttrType {
	close(h.still)
	<-h.released
	return bgp.BGP_ATTR_TYPE_ORIGIN
}

// within waits until the server is held or the limit ends. It reports whether the server is held.
func (h *hold) within(limit context.Context) bool {
	select {
	case <-h.still:
	case <-limit.Done():
	}
	select {
	case <-h.still:
		return true
	default:
		return false
	}
}

// end lets the server go on. The server must be held.
func (h *hold) end() {
	close(h.released)
	<-h.ended
}
