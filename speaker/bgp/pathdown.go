package bgp

import (
	"context"
	"fmt"
	_ "unsafe" // for go:linkname

	"github.com/osrg/gobgp/v4/pkg/server"
)

// bfdDown is the subcode BFD Down of Cease (RFC 9384).
const bfdDown = 10

// PathDown ends the session with a peer at once with Cease, BFD Down (RFC 9384), because BFD has found the path to the peer
// dead. The session is tried again as after any other end, without waiting for BFD. PathDown does nothing if the session is
// not established.
func (s *Speaker) PathDown(peer string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if m := s.members[peer]; m != nil && m.status.established() {
		signal(m.pathDown)
	}
}

// pathDown ends the session. It does nothing if the session has just ended: gobgp would keep the message for the next session.
func (s *routeServer) pathDown(ctx context.Context) error {
	if !s.established(ctx) {
		return nil
	}
	if err := sendNotification(s.gobgp, "BFD down", s.neighbour(), bfdDown, nil); err != nil {
		return fmt.Errorf("end the session with peer %q: %w", s.peer.Name, err)
	}
	return nil
}

// sendNotification is an unexported method of gobgp (v4.8.0) that ends an established session with Cease and a subcode. The
// exported method, ResetPeer, does the same with the subcode Administrative Reset. sendNotification reads the list of
// neighbours, which only the goroutine that calls it here changes.
//
//go:linkname sendNotification github.com/osrg/gobgp/v4/pkg/server.(*BgpServer).sendNotification
func sendNotification(s *server.BgpServer, operation, address string, subcode uint8, data []byte) error
