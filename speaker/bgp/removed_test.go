package bgp

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
)

// Peers are removed at about the time at which the OPEN of their router arrives, which is a test for the race detector. gobgp
// must disable each peer before it deletes it.
func TestPeersAreRemovedWhileRoutersConnect(t *testing.T) {
	const routers = 24
	for range 4 {
		core, logs := observer.New(zap.DebugLevel)
		s := New(zap.New(core))
		ctx, cancel := context.WithCancel(context.Background())
		ended := make(chan error, 1)
		go func() { ended <- s.Run(ctx) }()
		at := freePort(t)
		var peers []Peer
		for i := range routers {
			p := validPeer()
			p.Name, p.Address, p.Passive, p.Port = fmt.Sprint("router", i), hostileAt(i), true, at.Port()
			peers = append(peers, p)
		}
		if faults := s.SetPeers(peers); faults != nil {
			t.Fatal(faults)
		}
		var connected, done sync.WaitGroup
		connected.Add(routers)
		removing := make(chan struct{})
		for i := range routers {
			done.Go(func() {
				conn, err := connectedFrom(hostileAt(i), at)
				connected.Done()
				if err != nil {
					t.Error(err)
					return
				}
				<-removing
				time.Sleep(rand.N(12 * time.Millisecond))
				_, _ = conn.Write(openOf(64500)) // The connection may have been closed.
				time.Sleep(20 * time.Millisecond)
				_ = conn.Close()
			})
		}
		connected.Wait()
		close(removing)
		for i := range peers {
			time.Sleep(rand.N(300 * time.Microsecond))
			s.SetPeers(peers[i+1:])
		}
		done.Wait()
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		disabled, deleted := map[any]bool{}, map[any]bool{} // gobgp logs that it has disabled a peer a moment afterwards.
		for _, e := range logs.All() {
			switch key := e.ContextMap()["Key"]; e.Message {
			case "Administrative shutdown":
				disabled[key] = true
			case "Delete a peer configuration":
				deleted[key] = true
			}
		}
		if len(deleted) != routers || !maps.Equal(deleted, disabled) {
			t.Errorf("%d of %d neighbours were deleted, and %d were disabled", len(deleted), routers, len(disabled))
		}
	}
}

// connectedFrom returns a router's connection on which this node has sent its OPEN.
func connectedFrom(from netip.Addr, at netip.AddrPort) (_ *routerEnd, err error) {
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		var conn net.Conn
		if conn, err = dialFrom(from, at); err != nil {
			continue
		}
		_ = conn.SetDeadline(time.Now().Add(patience))
		r := &routerEnd{conn}
		if _, err = r.until(1); err == nil {
			return r, nil
		}
		_ = r.Close()
	}
	return nil, err
}
