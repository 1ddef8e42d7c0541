package main

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	herald "github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/ipam"
)

// announced says who announces an address and, if nobody does or something is wrong, what to do about it. Problems
// come first.
func (s *situation) announced(al ipam.Allocation, endpoints *endpointsReport, now time.Time) (facts []fact, next string) {
	address := al.Address.String()
	var selected bool // By an advertisement.
	for _, ad := range s.l2 {
		selected = selected || s.selects(&ad.Spec.Selection, al.Pool)
	}
	onSegment := selected
	segments := segmentsOf(s.speakers, nil)
	for _, c := range segments.conflicts()[address] {
		facts = append(facts, fact{address, c.text(now), true})
	}
	if rec, _ := s.record(al.Address); len(facts) == 0 && inConflict(rec) != nil {
		facts = append(facts, fact{address, inConflict(rec).Message, true})
	}
	if len(facts) > 0 {
		next = fmt.Sprintf("%s: %s; find that machine and take the address from it, or leave the address: kubectl herald renumber %s/%s",
			address, facts[0].Text, s.service.Namespace, s.service.Name)
	}
	if rivals := segments.rivals(address); rivals != nil {
		text := rivalry(rivals, now)
		facts = append(facts, fact{address, text, true})
		next = cmp.Or(next, fmt.Sprintf("%s %s: kubectl herald status shows which speakers do not hear each other, kubectl herald verify %s who answers", address, text, address))
	}
	served, silent := s.owned(segments, al.Address, now)
	facts, next = append(facts, served...), cmp.Or(next, silent)
	up := slices.ContainsFunc(served, func(f fact) bool { return !f.Wrong || silent != "" })
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
	switch cut := segments.cut(); {
	case up:
	case onSegment && endpoints.Ready > 0 && len(cut) > 0:
		facts = append(facts, fact{address, "by " + protocolOf(al.Address) + ": not known: more addresses are owned than are listed in the SpeakerStatus of " + some(cut), false})
		next = cmp.Or(next, fmt.Sprintf("find out who answers for %s: kubectl herald verify %s", address, address))
	default:
		next = cmp.Or(next, s.silent(al, selected, endpoints.Ready, facts))
		facts = append(facts, fact{address, "by nobody", true})
	}
	return facts, next
}

// owned says who owns an address on the segments. Of a claim that is out of date it says so if there is no other.
// next is what to do about a speaker for which another one answers.
func (s *situation) owned(segments *segments, address netip.Addr, now time.Time) (facts []fact, next string) {
	owners := segments.current(address.String())
	if len(owners) == 0 {
		owners = segments.owners[address.String()]
	}
	for _, o := range owners {
		f := fact{Address: address.String()}
		by := "by " + protocolOf(address) + " on " + o.Interface + ": "
		switch {
		case o.Stale != "":
			f.Text, f.Wrong = fmt.Sprintf("%snode %s owned it, but %s", by, o.Node, o.Stale), true
		case o.DeputyFor != "":
			f.Text, f.Wrong = fmt.Sprintf("%snode %s answers for %s, whose speaker is silent%s%s", by, o.Node, o.DeputyFor, o.age(now), o.why()), true
			next = "see why the herald-speaker of node " + o.DeputyFor + " is silent"
		default:
			f.Text = fmt.Sprintf("%snode %s owns it%s%s", by, o.Node, o.age(now), o.why())
		}
		facts = append(facts, f)
	}
	return facts, next
}

// rivalry says who owns an address besides others on one segment.
func rivalry(rivals []owner, now time.Time) string {
	var texts []string
	for _, r := range rivals {
		texts = append(texts, r.Node+" ("+r.Interface+r.age(now)+")")
	}
	return "has " + count(len(rivals), "owner", "owners") + " on one segment: " + strings.Join(texts, ", ")
}

// inConflict is the condition of a record that says that a stranger uses the address, or nil.
func inConflict(rec *herald.IPAllocation) *metav1.Condition {
	if !meta.IsStatusConditionTrue(rec.Status.Conditions, herald.AllocationConflict) {
		return nil
	}
	return meta.FindStatusCondition(rec.Status.Conditions, herald.AllocationConflict)
}

// protocolOf is how an address is announced on a segment.
func protocolOf(address netip.Addr) string {
	if address.Is4() {
		return "ARP"
	}
	return "NDP"
}

// servedBy reports whether a node has endpoints to announce for.
func (r *endpointsReport) servedBy(node string) bool {
	return r.Ready > 0 && (!r.Local || slices.Contains(r.Nodes, node))
}

// silent says what to do about an address that nobody announces.
func (s *situation) silent(al ipam.Allocation, selected bool, ready int, facts []fact) string {
	switch {
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
	if !s.reached(al.Address) {
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
