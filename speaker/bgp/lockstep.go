package bgp

import (
	"context"
	"sync"

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
var lockstep = struct {
	sync.Mutex // held while a server starts
	running    map[*routeServer]struct{}
}{running: map[*routeServer]struct{}{}}

// startAlone is StartBgp with all other servers held still. stopped ends it.
func startAlone(ctx context.Context, s *routeServer, request *api.StartBgpRequest) error {
	lockstep.Lock()
	defer lockstep.Unlock()

	release := make(chan struct{})
	var holders, held sync.WaitGroup
	for other := range lockstep.running {
		held.Add(1)
		holders.Go(func() {
			h := hold{reached: sync.OnceFunc(held.Done), release: release}
			_, _ = other.gobgp.AddPath(apiutil.AddPathRequest{Paths: []*apiutil.Path{{
				Family: bgp.RF_IPv4_UC,
				Attrs:  []bgp.PathAttributeInterface{h},
			}}})
			// A server that is stopping refuses the path but may still be reading.
			select {
			case <-release:
			case <-other.stopped:
				h.reached()
			}
		})
	}
	held.Wait()
	err := s.gobgp.StartBgp(ctx, request)
	close(release)
	holders.Wait()
	if err == nil {
		lockstep.running[s] = struct{}{}
	}
	return err
}

// endLockstep takes out a server that does nothing any more.
func endLockstep(s *routeServer) {
	// First the channel: whoever starts a server may hold the lock and wait for this one.
	close(s.stopped)
	lockstep.Lock()
	defer lockstep.Unlock()
	delete(lockstep.running, s)
}

// hold is a path attribute that holds still the server which looks at it: AddPath does so within
// the server's lock, and then refuses the path because it has no next hop.
type hold struct {
	bgp.PathAttributeInterface
	reached func()
	release <-chan struct{}
}

// GetType is all that AddPath asks of it.
func (h hold) GetType() bgp.BGPAttrType {
	h.reached()
	<-h.release
	return bgp.BGP_ATTR_TYPE_ORIGIN
}
