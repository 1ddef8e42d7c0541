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
// gobgp (v4.8.0) keeps two options of a server, its route selection and its use of multiple paths,
// in variables of a package instead of in the server. StartBgp writes them, and every server reads
// them as it handles routes. Ours all have the same options, so nobody would ever read a wrong
// value, but it is a data race all the same. So while one server starts, the others are held still,
// each inside its own lock, under which it does all its reading.
var lockstep struct {
	starting sync.Mutex // held while a server starts
	running  sync.Map   // the keys are *routeServer
}

// holdTime bounds how long an idle server is held while another does not come to a stand. That one may
// be busy for seconds with the routes of its router, and the others have withdrawals to send.
const holdTime = 100 * time.Millisecond

// startAlone is StartBgp with all other servers held still.
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

// holdOthers returns when all running servers are held still. If some are busy, the others go on
// until those have come to a stand. Those stay held then: else they might be busy by turns forever.
func holdOthers() map[*routeServer]*hold {
	held := map[*routeServer]*hold{}
	for {
		asked, busy := map[*routeServer]*hold{}, map[*routeServer]*hold{}
		for key := range lockstep.running.Range {
			if s := key.(*routeServer); held[s] == nil {
				asked[s] = newHold(s)
			}
		}
		limit, cancel := context.WithTimeout(context.Background(), holdTime)
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

// endLockstep takes out a server that does nothing any more.
func endLockstep(s *routeServer) {
	lockstep.running.Delete(s)
	close(s.stopped)
}

// hold is a path attribute that holds still the server which looks at it: AddPath does so within
// the server's lock, and then refuses the path because it has no next hop.
type hold struct {
	bgp.PathAttributeInterface
	still    chan struct{} // closed when the server has come to a stand
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
			return // It has been held, and may have stopped since.
		default:
		}
		<-s.stopped // One that is stopping refuses the path but may still be reading.
		close(h.still)
	}()
	return h
}

// GetType is all that AddPath asks of it, once.
func (h *hold) GetType() bgp.BGPAttrType {
	close(h.still)
	<-h.released
	return bgp.BGP_ATTR_TYPE_ORIGIN
}

// within waits until the server has come to a stand or the limit is over, and reports which.
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

// end lets the server go on. It must have come to a stand.
func (h *hold) end() {
	close(h.released)
	<-h.ended
}
