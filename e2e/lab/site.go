package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"strconv"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/heraldlb/herald/e2e/lab/enclave"
	"github.com/heraldlb/herald/e2e/lab/router"
)

// Site is the network of a cluster: its nodes, and the hosts around them.
type Site struct {
	// Nodes, k8s-node1 first.
	Nodes []*Node
	// Routers, router1 first.
	Routers []*Router
	// Segment is a client in the nodes' own subnet, without a default route.
	Segment *Client
	// Outside is the client behind router1, or nil if there is no router.
	Outside *Client
	// Second is the client on the second segment, or nil if [Site.LaySecond] was not called.
	Second *Client

	clients int  // Number of clients on the segment.
	bridge  bool // The site made the bridge, and Close removes it.

	mu    sync.Mutex
	hosts []enclave.Host // All but those of pods.
}

// NewSite makes a segment with one client and with nodes that are plain hosts, without Kubernetes.
func NewSite(nodes int) (*Site, error) {
	if nodes > MaxNodes {
		return nil, fmt.Errorf("the address plan has room for %d nodes", MaxNodes)
	}
	if err := layBridge(); err != nil {
		return nil, err
	}
	s := &Site{bridge: true}
	var err error
	if s.Segment, err = s.NewClient(); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	for i := range nodes {
		n, err := newNode(i + 1)
		s.own(n.Host)
		if err != nil {
			return nil, errors.Join(err, s.Close())
		}
		s.Nodes = append(s.Nodes, n)
	}
	return s, nil
}

// NewClient adds a client to the segment. It must not be called concurrently.
func (s *Site) NewClient() (*Client, error) {
	if s.clients == MaxClients {
		return nil, fmt.Errorf("the address plan has room for %d clients", MaxClients)
	}
	name := "client"
	if s.clients > 0 {
		name += strconv.Itoa(s.clients + 1)
	}
	c, err := attach(name, clientHost+s.clients)
	s.own(c.Host)
	s.clients++
	if err == nil {
		err = c.Host.Script("%s", onLink(Many4, Many6))
	}
	return &c, err
}

// Surround makes a site for the nodes of a running cluster, whose switch must have the name [Bridge]. It starts
// the routers, with their files in the folder dir. The routers run until ctx ends.
func Surround(ctx context.Context, nodes []*Node, routers []router.Kind, password, dir string) (*Site, error) {
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

// surround makes the clients and the routers. It does not start the routers' daemons.
func (s *Site) surround(ctx context.Context, routers []router.Kind, password string) error {
	var err error
	if s.Segment, err = s.NewClient(); err != nil {
		return err
	}
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

// startRouters starts the routers' daemons, each with its own folder in dir.
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

// NodeByMAC returns the node that has the MAC on one of the segments, or nil.
func (s *Site) NodeByMAC(mac net.HardwareAddr) *Node {
	return s.node(func(n *Node) bool {
		return bytes.Equal(n.MAC, mac) || n.Second != nil && bytes.Equal(n.Second.MAC, mac)
	})
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

// Close removes the site. Nodes that [Surround] was given stay, and so does their switch.
func (s *Site) Close() error {
	var all errgroup.Group
	for _, r := range s.Routers {
		all.Go(r.Kill)
	}
	errs := []error{all.Wait()}
	for _, h := range s.hosts {
		errs = append(errs, detach(h))
	}
	if s.Second != nil {
		errs = append(errs, s.removeSecond())
	}
	if s.bridge {
		errs = append(errs, removeBridge())
	}
	return errors.Join(errs...)
}
