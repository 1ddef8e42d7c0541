package bgp

import (
	"context"
	"fmt"
	_ "unsafe" // for go:linkname

	"github.com/osrg/gobgp/v4/pkg/server"
)

// bfdDown is the subcode BFD Down of Cease (RFC 9384).
const bfdDown = 10

// PathDown ends the session with a peer at once, because BFD has found the path to it dead: with Cease, BFD Down (RFC 9384).
// It is tried again as after any other end: BFD does not hold it up. Nothing happens to a session that is not established.
func (s *Speaker) PathDown(peer string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if m := s.members[peer]; m != nil && m.status.established() {
		signal(m.pathDown)
	}
}

// pathDown ends the session. One that has just ended is left alone: gobgp would keep the message for the next one.
func (s *routeServer) pathDown(ctx context.Context) error {
	if !s.established(ctx) {
		return nil
	}
	if err := sendNotification(s.gobgp, "BFD down", s.peer.Address.String(), bfdDown, nil); err != nil {
		return fmt.Errorf("end the session with peer %q: %w", s.peer.Name, err)
	}
	return nil
}

// sendNotification is gobgp's own (v4.8.0), which has it end an established session with Cease and a subcode. What it
// exports, ResetPeer, is the same with the subcode Administrative Reset. It reads the list of neighbours, which only
// the goroutine that calls it here changes.
//
//go:linkname sendNotification github.com/osrg/gobgp/v4/pkg/server.(*BgpServer).sendNotification
func sendNotification(s *server.BgpServer, operation, address string, subcode uint8, data []byte) error
