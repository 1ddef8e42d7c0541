// Command gobgp announces one address to one router with gobgp and gobgp's own BFD. Benchmarks compare it with Herald's speaker,
// which uses gobgp for BGP and has a BFD of its own.
//
//	gobgp -asn 64512 -address 198.18.0.11 -router 198.18.0.1 -router-asn 64500 -interval 100ms -announce 198.18.0.200 -med 100
package main

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/osrg/gobgp/v4/api"
	"github.com/osrg/gobgp/v4/pkg/apiutil"
	"github.com/osrg/gobgp/v4/pkg/packet/bgp"
	"github.com/osrg/gobgp/v4/pkg/server"
)

// detectMultiplier is the number of BFD packets after whose loss the router is dead.
const detectMultiplier = 3

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "gobgp:", err)
		os.Exit(1)
	}
}

func run() error {
	var (
		address, router, announced netip.Addr
		asn                        = flag.Uint("asn", 0, "AS number of this node")
		routerASN                  = flag.Uint("router-asn", 0, "AS number of the router")
		interval                   = flag.Duration("interval", 0, "time between two BFD packets")
		med                        = flag.Uint("med", 0, "MED of the route")
	)
	flag.TextVar(&address, "address", address, "address of this node, its router ID and next hop")
	flag.TextVar(&router, "router", router, "address of the router")
	flag.TextVar(&announced, "announce", announced, "address to announce")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()

	s := server.NewBgpServer(server.LoggerOption(slog.New(slog.NewTextHandler(os.Stderr, nil)), nil))
	go s.Serve()
	defer s.Stop()
	if err := s.StartBgp(ctx, &api.StartBgpRequest{Global: &api.Global{Asn: uint32(*asn), RouterId: address.String(), ListenPort: -1}}); err != nil { //nolint:gosec // AS numbers have 32 bits.
		return fmt.Errorf("start: %w", err)
	}
	microseconds := uint32(*interval / time.Microsecond) //nolint:gosec // Intervals are below a second.
	if err := s.AddPeer(ctx, &api.AddPeerRequest{Peer: &api.Peer{
		Conf: &api.PeerConf{NeighborAddress: router.String(), PeerAsn: uint32(*routerASN)}, //nolint:gosec // AS numbers have 32 bits.
		// The router listens. Connections are tried every second, so that a round does not take minutes.
		Timers: &api.Timers{Config: &api.TimersConfig{ConnectRetry: 1, IdleHoldTimeAfterReset: 1}},
		Bfd:    &api.BfdPeerConfig{Enabled: true, DesiredMinimumTxInterval: microseconds, RequiredMinimumReceive: microseconds, DetectionMultiplier: detectMultiplier},
	}}); err != nil {
		return fmt.Errorf("add router %v: %w", router, err)
	}
	nlri, err := bgp.NewIPAddrPrefix(netip.PrefixFrom(announced, announced.BitLen()))
	if err != nil {
		return err
	}
	nextHop, err := bgp.NewPathAttributeNextHop(address)
	if err != nil {
		return err
	}
	if _, err := s.AddPath(apiutil.AddPathRequest{Paths: []*apiutil.Path{{
		Family: bgp.RF_IPv4_UC, Nlri: nlri,
		Attrs: []bgp.PathAttributeInterface{
			bgp.NewPathAttributeOrigin(bgp.BGP_ORIGIN_ATTR_TYPE_IGP), nextHop,
			bgp.NewPathAttributeMultiExitDisc(uint32(*med)), //nolint:gosec // A MED has 32 bits.
		},
	}}}); err != nil {
		return fmt.Errorf("announce %v: %w", announced, err)
	}
	<-ctx.Done()
	return nil
}
