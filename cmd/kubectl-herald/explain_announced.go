package main

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	herald "github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/ipam"
)

// announced says who announces an address and, if nobody does, what to do about it.
func (s *situation) announced(al ipam.Allocation, endpoints *endpointsReport, now time.Time) (facts []fact, next string) {
	address := al.Address.String()
	var selected bool // By an advertisement of a kind that is for the address's family.
	if al.Address.Is4() {
		for _, ad := range s.l2 {
			selected = selected || s.selects(&ad.Spec.Selection, al.Pool)
		}
		for _, o := range s.speakers {
			for _, c := range o.Status.Claims {
				if c.Address == address && c.Since != nil {
					facts = append(facts, fact{address, fmt.Sprintf("by ARP: node %s answers, for %s", o.Name, age(c.Since.Time, now)), false})
				}
			}
		}
	}
	up := len(facts) > 0
	for _, ad := range s.bgp {
		peers, err := ad.Spec.SelectPeers(s.peers)
		if err != nil || !s.selects(&ad.Spec.Selection, al.Pool) {
			continue // The speakers leave out one that cannot be read, too.
		}
		selected = true
		for _, peer := range peers {
			var by []string
			for _, o := range s.speakers {
				if !s.onNode(&ad.Spec.Selection, o.Name) || !endpoints.servedBy(o.Name) {
					continue
				}
				for _, session := range o.Status.Sessions {
					switch {
					case session.Peer != peer:
					case session.State == "Established":
						by = append(by, o.Name)
					default:
						facts = append(facts, fact{address, fmt.Sprintf("by BGP: the session of %s with %s is %s: %s", o.Name, peer, session.State, session.Reason), true})
					}
				}
			}
			if len(by) > 0 {
				up = true
				facts = append(facts, fact{address, fmt.Sprintf("by BGP: %s to %s", strings.Join(by, ", "), peer), false})
			}
		}
	}
	if !up {
		next = s.silent(al, selected, endpoints.Ready, facts)
		facts = append(facts, fact{address, "by nobody", true})
	}
	return facts, next
}

// servedBy reports whether a node has endpoints to announce for.
func (r *endpointsReport) servedBy(node string) bool {
	return r.Ready > 0 && (!r.Local || slices.Contains(r.Nodes, node))
}

// silent says what to do about an address that nobody announces.
func (s *situation) silent(al ipam.Allocation, selected bool, ready int, facts []fact) string {
	switch {
	case !selected && al.Address.Is6():
		return fmt.Sprintf("no BGPAdvertisement selects %s, of pool %s, for this Service; IPv6 is announced by BGP only: create one, or widen one", al.Address, al.Pool)
	case !selected:
		return fmt.Sprintf("no L2Advertisement or BGPAdvertisement selects %s, of pool %s, for this Service: create one with spec.pools: [%s], or widen one",
			al.Address, al.Pool, al.Pool)
	case ready == 0:
		return "no endpoint is ready, so no node announces: see the pods that spec.selector chooses"
	case len(s.speakers) == 0:
		return "no herald-speaker has said anything of its node: see whether they run"
	case len(facts) > 0:
		return facts[0].Text
	}
	for _, o := range s.speakers {
		if o.Status.Problem != "" {
			return fmt.Sprintf("node %s announces nothing: %s", o.Name, o.Status.Problem)
		}
	}
	if al.Address.Is4() && !s.reached(al.Address) {
		return fmt.Sprintf("no node has an interface in a subnet of %s: name one in spec.interfaces of an L2Advertisement, or announce it by BGP", al.Address)
	}
	return "no node that advertisements select can serve it: see their nodeSelector, and kubectl get speakerstatuses -o yaml"
}

// reached reports whether a node is on a segment that holds the address, or has an interface that is named.
func (s *situation) reached(address netip.Addr) bool {
	return slices.ContainsFunc(s.speakers, func(o *herald.SpeakerStatus) bool {
		return slices.ContainsFunc(o.Status.Interfaces, func(i herald.SpeakerInterface) bool {
			return slices.ContainsFunc(s.l2, func(ad *herald.L2Advertisement) bool { return slices.Contains(ad.Spec.Interfaces, i.Name) }) ||
				slices.ContainsFunc(i.Subnets, func(text string) bool {
					subnet, err := netip.ParsePrefix(text)
					return err == nil && subnet.Contains(address)
				})
		})
	})
}

// selects reports whether an advertisement is about the Service's addresses of a pool. One that cannot be read is about
// nothing.
func (s *situation) selects(selection *herald.Selection, pool string) bool {
	c, err := selection.Compile()
	var l map[string]string
	if o := s.pool(pool); o != nil {
		l = o.Labels
	}
	return err == nil && c.Pool(pool, l) && c.Service(s.service.Labels, s.namespace.Labels)
}

func (s *situation) onNode(selection *herald.Selection, name string) bool {
	c, err := selection.Compile()
	for _, n := range s.nodes {
		if n.Name == name {
			return err == nil && c.Node(n.Labels)
		}
	}
	return false
}
