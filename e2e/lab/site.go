package lab

import (
	"context"
	"errors"
	"net"
	"path/filepath"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/heraldlb/herald/e2e/lab/enclave"
)

// Site is the network that a cluster stands in: its nodes, and the hosts around them.
type Site struct {
	// Nodes, k8s-node1 first.
	Nodes []*Node
	// Routers, router1 first.
	Routers []*Router
	// Segment is a client in the nodes' own subnet, without a default route.
	Segment *Client
	// Outside is the client behind router1, or nil if there is no router.
	Outside *Client

	mu    sync.Mutex
	hosts []enclave.Host // All but those of pods.
}

// Surround lays a site around the nodes of a cluster that is up and starts its routers, with their files
// in the folder dir. The nodes' switch is there and is called as [Bridge] says. The routers end with ctx.
func Surround(ctx context.Context, nodes []*Node, routers []RouterKind, password, dir string) (*Site, error) {
	s := &Site{Nodes: nodes}
	err := s.surround(ctx, routers, password)
	for _, n := range nodes {
		for _, r := range s.Routers {
			if err == nil {
				err = n.routeTo(r)
			}
		}
	}
	if err == nil {
		err = s.startRouters(dir)
	}
	if err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// surround makes the clients and the routers, whose daemons are not started.
func (s *Site) surround(ctx context.Context, routers []RouterKind, password string) error {
	client, err := attach("client", clientHost)
	s.own(client.Host)
	if err != nil {
		return err
	}
	s.Segment = &client
	for i, kind := range routers {
		r, err := newRouter(ctx, i+1, kind, password)
		s.own(r.Host, r.Outside.Host)
		if err != nil {
			return err
		}
		s.Routers = append(s.Routers, r)
	}
	if len(s.Routers) > 0 {
		s.Outside = s.Routers[0].Outside
	}
	return nil
}

// startRouters starts the daemons, each with a folder of its own in dir.
func (s *Site) startRouters(dir string) error {
	var all errgroup.Group
	for _, r := range s.Routers {
		r.dir = filepath.Join(dir, r.Name)
		all.Go(r.Start)
	}
	return all.Wait()
}

// Node returns the node of that name, or nil.
func (s *Site) Node(name string) *Node {
	return s.node(func(n *Node) bool { return n.Name == name })
}

// NodeByMAC returns the node whose interface on the segment has the MAC, or nil.
func (s *Site) NodeByMAC(mac net.HardwareAddr) *Node {
	return s.node(func(n *Node) bool { return n.MAC.String() == mac.String() })
}

func (s *Site) node(is func(*Node) bool) *Node {
	for _, n := range s.Nodes {
		if is(n) {
			return n
		}
	}
	return nil
}

func (s *Site) own(hosts ...enclave.Host) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.hosts = append(s.hosts, hosts...)
}

// Close takes away all but the nodes that Surround was given.
func (s *Site) Close() error {
	var all errgroup.Group
	for _, r := range s.Routers {
		all.Go(r.Kill)
	}
	errs := []error{all.Wait()}
	for _, h := range s.hosts {
		errs = append(errs, detach(h))
	}
	return errors.Join(errs...)
}
