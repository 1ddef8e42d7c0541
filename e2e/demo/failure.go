package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/heraldlb/herald/e2e/lab"
)

// every is the interval of a client's requests while a failure is measured.
const every = 20 * time.Millisecond

// standing says which nodes an address leads to: the node that answers ARP, and the router's next hops.
type standing struct {
	owner *lab.Node
	hops  []string // Names of nodes, sorted.
}

var standingHeader = []string{"owner by ARP", "next hops"}

func (s standing) cells() []string {
	return []string{s.owner.Name + "\n" + s.owner.MAC.String(), strings.Join(s.hops, "\n")}
}

// awaitOwner repeats the request until one node answers: a speaker may get no CPU time while answers are awaited.
func (s *story) awaitOwner(ctx context.Context) (owner *lab.Node, err error) {
	err = lab.Eventually(ctx, func(ctx context.Context) error {
		owner, err = s.owner(ctx)
		return err
	})
	return owner, err
}

// owner returns the node that answers an ARP request for the address.
func (s *story) owner(ctx context.Context) (*lab.Node, error) {
	answers, err := s.lab.Segment.ARP(ctx, s.address)
	if err != nil {
		return nil, err
	}
	if len(answers) != 1 {
		return nil, fmt.Errorf("ARP for %s is answered by %v, want one", s.address, answers)
	}
	node := s.lab.NodeByMAC(answers[0])
	if node == nil {
		return nil, fmt.Errorf("ARP for %s is answered by %v, which is not a node", s.address, answers[0])
	}
	return node, nil
}

// awaitHops waits until the router's next hops for the address are the given nodes.
func (s *story) awaitHops(ctx context.Context, nodes ...*lab.Node) error {
	router := s.lab.Routers[0]
	return lab.Eventually(ctx, func(ctx context.Context) error {
		hops, err := router.NextHops(ctx, netip.PrefixFrom(s.address, s.address.BitLen()))
		if err != nil {
			return err
		}
		missing := slices.ContainsFunc(nodes, func(n *lab.Node) bool { return !slices.Contains(hops, n.IPv4) })
		if missing || len(hops) != len(nodes) {
			return fmt.Errorf("%s sends %s to %v", router.Name, s.address, hops)
		}
		return nil
	})
}

// stands waits until the router's next hops are the given nodes and one node answers ARP.
func (s *story) stands(ctx context.Context, hops ...*lab.Node) (is standing, err error) {
	if err := s.awaitHops(ctx, hops...); err != nil {
		return is, err
	}
	for _, n := range hops {
		is.hops = append(is.hops, n.Name)
	}
	is.owner, err = s.awaitOwner(ctx)
	return is, err
}

// but returns all nodes except one.
func (s *story) but(node *lab.Node) []*lab.Node {
	return slices.DeleteFunc(slices.Clone(s.lab.Nodes), func(n *lab.Node) bool { return n == node })
}

// probe is a client that sends requests repeatedly.
type probe struct {
	way    string
	client *lab.Client
	*lab.Opener
}

func (s *story) startProbes(ctx context.Context) (string, error) {
	// The probes outlive this step. The end of the enclave stops them in any case.
	ctx = context.WithoutCancel(ctx)
	for _, p := range []probe{{way: "segment, by ARP", client: s.lab.Segment}, {way: "behind the router, by BGP", client: s.lab.Outside}} {
		p.Opener = p.client.Open(ctx, s.target(), every)
		s.probes = append(s.probes, p)
	}
	return s.target(), s.answered(ctx)
}

// answered waits until both clients get an answer.
func (s *story) answered(ctx context.Context) error {
	for _, from := range []*lab.Client{s.lab.Segment, s.lab.Outside} {
		if _, err := from.Eventually(ctx, s.target(), nil); err != nil {
			return err
		}
	}
	return nil
}

// cut disconnects the node that holds the address from the network, and starts to watch the segment.
func (s *story) cut(ctx context.Context) (said string, err error) {
	if s.before.owner.Name == "k8s-node1" {
		// The lab has no node controller, which would mark the pods of a lost node as not ready.
		if err := s.lab.SetReady(ctx, namespace, "pod-1", false); err != nil {
			return "", err
		}
	}
	if s.watch, err = s.lab.Segment.Watch(); err != nil {
		return "", err
	}
	s.lost, s.lostAt = s.before.owner, time.Now()
	return s.lost.Name, s.lost.Cut()
}

func (s *story) hopDropped(ctx context.Context) (string, error) {
	err := s.awaitHops(ctx, s.but(s.lost)...)
	took := time.Since(s.lostAt).Milliseconds()
	s.figures.add("bgp_failover_ms", "%d", took)
	return fmt.Sprintf("%d ms after the loss", took), err
}

// ownerMoved waits until another node claims the address on the segment.
func (s *story) ownerMoved(ctx context.Context) (said string, err error) {
	var taken lab.Claim
	if err := lab.Eventually(ctx, func(context.Context) error {
		// The lost node may have announced the address between lostAt and the moment at which the cable was out.
		claims := slices.DeleteFunc(s.watch.Claims(s.address, s.lostAt), func(c lab.Claim) bool { return bytes.Equal(c.MAC, s.lost.MAC) })
		if len(claims) == 0 {
			return fmt.Errorf("nobody says to have %s", s.address)
		}
		taken = claims[0]
		return nil
	}); err != nil {
		return "", err
	}
	took := taken.At.Sub(s.lostAt).Milliseconds()
	s.figures.add("arp_failover_ms", "%d", took)
	if s.now, err = s.stands(ctx, s.but(s.lost)...); err != nil {
		return "", err
	}
	if s.now.owner == s.lost {
		return "", errors.New(s.lost.Name + " is cut off and answers")
	}
	return fmt.Sprintf("%d ms after the loss\n%s", took, s.terminal.table(append([]string{""}, standingHeader...),
		append([]string{"before"}, s.before.cells()...), append([]string{"now"}, s.now.cells()...))), nil
}

// servedAgain ends the probes and shows what the clients noticed.
func (s *story) servedAgain(ctx context.Context) (string, error) {
	if err := s.answered(ctx); err != nil {
		return "", err
	}
	var rows [][]string
	var gaps []int64
	for _, p := range s.probes {
		attempts := p.Stop()
		gaps = append(gaps, attempts.Gap().Milliseconds())
		rows = append(rows, []string{p.way, strconv.Itoa(len(attempts)), strconv.Itoa(attempts.Failed()), fmt.Sprintf("%d ms", attempts.Gap().Milliseconds())})
	}
	s.figures.add("segment_gap_ms", "%d", gaps[0])
	s.figures.add("outside_gap_ms", "%d", gaps[1])
	return "\n" + s.terminal.table([]string{"client", "requests", "failed", "longest gap"}, rows...), nil
}

func (s *story) heal(context.Context) (string, error) {
	node := s.lost
	s.lost, s.healedAt = nil, time.Now()
	return node.Name, node.Heal()
}

func (s *story) hopBack(ctx context.Context) (string, error) {
	return "", s.awaitHops(ctx, s.lab.Nodes...)
}

// stays checks that the node that came back does not hold the address and never claimed it.
func (s *story) stays(ctx context.Context) (string, error) {
	owner, err := s.awaitOwner(ctx)
	if err != nil {
		return "", err
	}
	if owner != s.now.owner {
		return "", fmt.Errorf("%s went from %s to %s", s.address, s.now.owner.Name, owner.Name)
	}
	back := s.before.owner
	claims := slices.DeleteFunc(s.watch.Claims(s.address, s.healedAt), func(c lab.Claim) bool {
		return !bytes.Equal(c.MAC, back.MAC)
	})
	if len(claims) > 0 {
		return "", fmt.Errorf("two nodes said to have %s: %s came back with %v", s.address, back.Name, claims[0])
	}
	return owner.Name + "\n" + back.Name + " has come back without claiming it", nil
}

// killSpeaker kills the speaker on the node that holds the address, like a crash.
func (s *story) killSpeaker(ctx context.Context) (string, error) {
	victim := s.now.owner
	began := time.Now()
	if err := s.speakers[victim.Name].Kill(); err != nil {
		return "", err
	}
	err := s.awaitHops(ctx, s.but(victim)...)
	took := time.Since(began).Milliseconds()
	s.figures.add("crash_withdrawn_ms", "%d", took)
	return fmt.Sprintf("the speaker of %s\nrouter1 drops the next hop %d ms after", victim.Name, took), err
}

// deputised waits until another node answers ARP with the MAC address of the node whose speaker was killed.
func (s *story) deputised(ctx context.Context) (deputy string, err error) {
	victim, began := s.now.owner, time.Now()
	err = lab.Eventually(ctx, func(ctx context.Context) error {
		if _, err := s.lab.Segment.ARP(ctx, s.address); err != nil {
			return err
		}
		for _, c := range s.watch.Claims(s.address, began) {
			if n := s.lab.NodeByMAC(c.Source); n != nil && n != victim && bytes.Equal(c.MAC, victim.MAC) {
				deputy = fmt.Sprintf("%s says: %s is at %v, of %s", n.Name, s.address, c.MAC, victim.Name)
				return nil
			}
		}
		return fmt.Errorf("nobody answers for %s in the place of %s", s.address, victim.Name)
	})
	return deputy, err
}

func (s *story) served(ctx context.Context) (string, error) { return s.target(), s.answered(ctx) }
