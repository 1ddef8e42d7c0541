package lab

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"time"

	"github.com/heraldlb/herald/e2e/lab/enclave"
	"github.com/heraldlb/herald/e2e/lab/router"
)

// maximumPaths is the largest number of nodes over which a router spreads connections.
const maximumPaths = 16

// Router is a router on the segment with a network beyond it. It accepts BGP sessions from any number of
// nodes, from any address on the segment, in both families; it never opens a session itself. It uses all
// equally good paths at once and announces nothing to the nodes.
type Router struct {
	Client // The router's interface on the segment.
	Name   string
	Kind   router.Kind
	ASN    uint32
	// Outside is a client beyond the router. It has routes to the segment and to the addresses
	// that are reachable by BGP, and no default route.
	Outside *Client
	// IPv4Only leaves IPv6 routes out of the sessions. It takes effect at the next start.
	IPv4Only bool

	ctx      context.Context // Of the lab. When it ends the daemon is killed.
	dir      string          // The daemon's folder, which Start empties.
	password string
	bfd      time.Duration // BFD packet interval; 0 means no BFD.
	bfdKeeps bool
	daemon   router.Router // nil while the daemon is stopped.
}

// newRouter makes router number r, counted from 1, and its client. It does not start the daemon.
func newRouter(ctx context.Context, r int, kind router.Kind, password string) (*Router, error) {
	made := &Router{
		Name: fmt.Sprintf("router%d", r), Kind: kind, ASN: routerASNs[kind],
		Outside: &Client{Host: enclave.Host{Name: fmt.Sprintf("outside%d", r)}},
		ctx:     ctx, password: password,
	}
	var err error
	if made.Client, err = attach(made.Name, routerHosts+r); err != nil {
		return made, err
	}
	if _, err := enclave.NewHost(made.Outside.Host.Name); err != nil {
		return made, err
	}
	if err := enclave.Connect(made.Host, "eth1", made.Outside.Host, eth0); err != nil {
		return made, err
	}
	near4, near6, far4, far6 := beyond(r)
	// With the layer 4 hash policy, one client's connections use all paths.
	if err := made.Host.Script(`
		ip addr add %s dev eth1
		ip addr add %s dev eth1 nodad
		sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1
		sysctl -qw net.ipv4.fib_multipath_hash_policy=1 net.ipv6.fib_multipath_hash_policy=1
	`, near4, near6); err != nil {
		return made, err
	}
	if *made.Outside, err = newClient(made.Outside.Host, far4, far6); err != nil {
		return made, err
	}
	return made, made.Outside.Host.Script("%s", routes(near4.Addr(), near6.Addr(), segment4, segment6, routed4, routed6))
}

// routeTo gives the node routes to the network of the router's client.
func (n *Node) routeTo(r *Router) error {
	far4, far6 := netip.PrefixFrom(r.Outside.IPv4, 25).Masked(), netip.PrefixFrom(r.Outside.IPv6, 64).Masked()
	return n.Host.Script("%s", routes(r.IPv4, r.IPv6, far4, far6))
}

// Start starts the routing daemon and waits until it answers.
func (r *Router) Start() (err error) {
	if r.daemon != nil {
		return fmt.Errorf("start %s: it is running already", r.Name)
	}
	config := router.Config{ASN: r.ASN, RouterID: r.IPv4, MaximumPaths: maximumPaths}
	if r.bfd > 0 {
		config.BFD = router.BFD{Interval: r.bfd, Multiplier: 20}
	}
	for _, p := range []netip.Prefix{segment4, segment6} {
		config.Neighbors = append(config.Neighbors, router.Neighbor{Range: p, ASN: NodeASN, Password: r.password, BFD: r.bfd > 0, BFDKeeps: r.bfdKeeps, IPv4Only: r.IPv4Only})
	}
	if err := os.RemoveAll(r.dir); err != nil { // It may have sockets and PID files of an earlier run.
		return err
	}
	r.daemon, err = router.Start(r.ctx, r.Kind, r.Host, r.dir, config)
	if err != nil {
		return fmt.Errorf("start %s on %s: %w", r.Kind, r.Name, err)
	}
	return nil
}

// Stop ends the daemon gracefully: the daemon closes its sessions and removes its routes from the kernel.
func (r *Router) Stop() error { return r.end(router.Router.Stop) }

// Kill kills the daemon, like a crash.
func (r *Router) Kill() error { return r.end(router.Router.Kill) }

func (r *Router) end(how func(router.Router) error) error {
	if r.daemon == nil {
		return nil
	}
	err := how(r.daemon)
	r.daemon = nil
	return err
}

// Restart is Stop, then Start.
func (r *Router) Restart() error {
	if err := r.Stop(); err != nil {
		return err
	}
	return r.Start()
}

// Routes lists the paths that the router has learned by BGP.
func (r *Router) Routes(ctx context.Context) ([]router.Route, error) {
	if r.daemon == nil {
		return nil, errors.New(r.Name + " is stopped")
	}
	return r.daemon.Routes(ctx)
}

// BFD lists the router's BFD sessions.
func (r *Router) BFD(ctx context.Context) ([]router.BFDSession, error) {
	if r.daemon == nil {
		return nil, errors.New(r.Name + " is stopped")
	}
	return r.daemon.BFD(ctx)
}

// NextHops returns the next hops in the router's kernel for the prefix. There are several if their cost is equal.
func (r *Router) NextHops(ctx context.Context, prefix netip.Prefix) (hops []netip.Addr, err error) {
	family := "-4"
	if prefix.Addr().Is6() {
		family = "-6"
	}
	out, err := r.Host.Command(ctx, "ip", family, "route", "show", prefix.String()).Output()
	if err != nil {
		return nil, fmt.Errorf("routes of %s: %w", r.Name, err)
	}
	words := strings.Fields(string(out))
	for i := 1; i < len(words); i++ {
		if words[i-1] != "via" {
			continue
		}
		hop, err := netip.ParseAddr(words[i])
		if err != nil {
			return nil, fmt.Errorf("routes of %s: %w", r.Name, err)
		}
		hops = append(hops, hop)
	}
	return hops, nil
}
