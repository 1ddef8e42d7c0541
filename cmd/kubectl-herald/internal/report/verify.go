package report

import (
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/heraldlb/herald/speaker/inspect"
)

// VerifyReport is the output of verify for programs.
type VerifyReport struct {
	Speakers  int       `json:"speakers"`  // How many speakers have asked.
	Addresses int       `json:"addresses"` // How many were asked for.
	Findings  []finding `json:"findings"`  // By address. Empty, as Unasked and NotAsked: the exit code is 0.
	// Unasked are the nodes whose speaker could not be asked, or could not ask on all its interfaces. By name.
	Unasked []Unasked `json:"unasked"`
	// NotAsked are the addresses that no speaker asked for, or not on the segment of an owner.
	NotAsked []notAsked `json:"notAsked"`
	// Unread are the objects that could not be decoded, and why. Because of them it may not be known which addresses are
	// announced.
	Unread []string `json:"unread"`
}

// Good reports whether everything was checked and nothing is wrong.
func (r *VerifyReport) Good() bool {
	return len(r.Findings)+len(r.Unasked)+len(r.NotAsked)+len(r.Unread) == 0
}

// AddUnasked adds speakers that could not be asked. It keeps the first reason for each node.
func (r *VerifyReport) AddUnasked(all []Unasked) {
	for _, u := range all {
		if !slices.ContainsFunc(r.Unasked, func(x Unasked) bool { return x.Node == u.Node }) {
			r.Unasked = append(r.Unasked, u)
		}
	}
	slices.SortFunc(r.Unasked, func(x, y Unasked) int { return strings.Compare(x.Node, y.Node) })
}

// Confirm replaces the findings by those of a second check of the same addresses. It keeps findings of speakers that
// failed in the second check.
func (r *VerifyReport) Confirm(second *VerifyReport, failed []Unasked) {
	looked := func(node string) bool {
		return !slices.ContainsFunc(failed, func(u Unasked) bool { return u.Node == node })
	}
	first := r.Findings
	r.Findings = second.Findings
	for _, f := range first {
		again := len(failed) == 0 || len(f.Seen) > 0 && !slices.ContainsFunc(f.Seen, func(p place) bool { return !looked(p.Node) })
		if !again && !slices.ContainsFunc(second.Findings, f.like) {
			r.Findings = append(r.Findings, f)
		}
	}
	slices.SortStableFunc(r.Findings, func(x, y finding) int {
		return netip.MustParseAddr(x.Address).Compare(netip.MustParseAddr(y.Address))
	})
	r.AddUnasked(failed)
}

// finding is something that is wrong with an address on one segment.
type finding struct {
	Kind    findingKind `json:"kind"`
	Address string      `json:"address"`
	// Owners are the nodes that own the address on the segment, according to the SpeakerStatuses.
	Owners []string `json:"owners"`
	// Answered are the nodes that answered. Of a machine that is not a speaker there is only an entry in MACs.
	Answered []string `json:"answered"`
	MACs     []string `json:"macs"`
	// Seen are the interfaces that asked and found the problem.
	Seen []place `json:"seen"`
	Text string  `json:"text"`
}

// like reports whether two findings are the same, whoever has seen them.
func (f finding) like(o finding) bool {
	return f.Kind == o.Kind && f.Address == o.Address && slices.Equal(f.MACs, o.MACs)
}

type findingKind string

// The kinds of findings.
const (
	splitBrain findingKind = "SplitBrain" // Several nodes answer.
	notOwner   findingKind = "NotOwner"   // A node answers that is not the owner.
	stranger   findingKind = "Stranger"   // A machine answers that is not a speaker.
	silence    findingKind = "Silence"    // Nobody answers.
)

// Unasked is a node whose speaker could not be asked.
type Unasked struct {
	Node   string `json:"node"`
	Reason string `json:"reason"`
}

// notAsked is an address that no speaker asked for.
type notAsked struct {
	Address string `json:"address"`
	Reason  string `json:"reason"`
}

// hearing is what the interfaces of one segment have heard about one address.
type hearing struct {
	owners  []string           // Nodes.
	heard   map[string][]place // Who has heard each MAC address.
	nothing []place            // Interfaces that should have heard an answer.
	others  bool               // A node that does not answer itself was asked.
}

// Verify compares what speakers have heard with the SpeakerStatuses.
func (n *Network) Verify(wanted []Announcement, answers map[string][]inspect.Answer, now time.Time) *VerifyReport {
	s := segmentsOf(n.speakers, n.gone(now))
	nodes := s.byMAC()
	cut := s.cut()
	heard := map[string][]inspect.Answer{} // By address.
	from := map[string][]string{}
	for _, node := range slices.Sorted(maps.Keys(answers)) {
		for _, a := range answers[node] {
			address := a.Address.String()
			heard[address], from[address] = append(heard[address], a), append(from[address], node)
		}
	}
	r := &VerifyReport{Findings: []finding{}, Unasked: []Unasked{}, NotAsked: []notAsked{}, Unread: []string{}}
	for _, p := range n.unreadable {
		r.Unread = append(r.Unread, p.Text)
	}
	for _, a := range wanted {
		hearings := map[place]*hearing{}
		asked, answered := map[string]bool{}, false
		for i, answer := range heard[a.address] {
			at := place{from[a.address][i], Clean(answer.Interface)}
			segment, known := s.segment[at]
			if !known { // The interface is new.
				segment = at
			}
			h := hearings[segment]
			if h == nil {
				h = &hearing{heard: map[string][]place{}, owners: s.ownersFrom(at, a.address)}
				hearings[segment] = h
			}
			h.add(at, answer.MACs, nodes, s.answersItself(at, a.address))
			asked[at.Node], answered = true, answered || len(h.heard) > 0
		}
		r.notAsked(a.address, hearings, s)
		for _, segment := range slices.SortedFunc(maps.Keys(hearings), comparePlaces) {
			r.Findings = append(r.Findings, hearings[segment].findings(a.address, nodes, cut)...)
		}
		// The owner does not hear itself. If the lists are cut and the owner is in none of them, one of those that asked
		// may be the owner.
		if a.ready && !answered && len(s.current(a.address)) == 0 && (len(asked) > 1 || len(asked) == 1 && len(cut) == 0) {
			r.Findings = append(r.Findings, finding{silence, a.address, []string{}, []string{}, []string{}, []place{},
				fmt.Sprintf("%s: nobody answers, and no SpeakerStatus says who owns it: kubectl herald explain service %s says why", a.address, a.services[0])})
		}
	}
	return r
}

// notAsked notes an address that was not asked for anywhere, or not on the segment of an owner.
func (r *VerifyReport) notAsked(address string, hearings map[place]*hearing, s *segments) {
	if len(hearings) == 0 {
		r.NotAsked = append(r.NotAsked, notAsked{address, "no node that was asked has an interface with a subnet that holds it, or that an L2Advertisement of it names"})
		return
	}
	for _, o := range s.current(address) {
		segment, known := s.segment[o.place]
		switch {
		case !known:
		case hearings[segment] == nil:
			r.NotAsked = append(r.NotAsked, notAsked{address, fmt.Sprintf("node %s owns it, and no node was asked on the segment of its %s", o.Node, o.Interface)})
		case !hearings[segment].others && s.shared(segment):
			r.NotAsked = append(r.NotAsked, notAsked{address, fmt.Sprintf("node %s owns it and does not hear itself, and no other node was asked on the segment of its %s", o.Node, o.Interface)})
		}
	}
}

// shared reports whether several interfaces are on a segment.
func (s *segments) shared(segment place) bool {
	on := 0
	for _, x := range s.segment {
		if x == segment {
			on++
		}
	}
	return on > 1
}

// ownersFrom returns the nodes that own an address on the segment of an interface. If no SpeakerStatus has the segment, it
// returns all owners.
func (s *segments) ownersFrom(at place, address string) (nodes []string) {
	_, known := s.segment[at]
	for _, o := range s.current(address) {
		if known && o.place != at && !s.same(o.place, at) {
			continue
		}
		node := o.Node
		if o.DeputyFor != "" { // A deputy answers with the MAC address of the node that it answers for.
			node = o.DeputyFor
		}
		if !slices.Contains(nodes, node) {
			nodes = append(nodes, node)
		}
	}
	slices.Sort(nodes)
	return nodes
}

// answersItself reports whether the speaker on the interface answers for an address, as the owner or as a deputy. A
// speaker does not hear itself.
func (s *segments) answersItself(at place, address string) bool {
	return slices.ContainsFunc(s.current(address), func(o owner) bool { return o.place == at })
}

// add adds what one interface has heard. It should have heard an answer if a node owns the address, unless its own speaker
// answers.
func (h *hearing) add(at place, macs []string, nodes map[string][]place, itself bool) {
	answered := false
	h.others = h.others || !itself
	for _, text := range macs {
		mac, err := net.ParseMAC(text)
		if err != nil {
			continue // The speaker does not report the MAC address of the interface.
		}
		if slices.ContainsFunc(nodes[mac.String()], func(p place) bool { return p.Node == at.Node }) {
			continue // A speaker that hears itself means that the network has a loop.
		}
		answered = true
		h.heard[mac.String()] = append(h.heard[mac.String()], at)
	}
	if !answered && !itself && len(h.owners) > 0 {
		h.nothing = append(h.nothing, at)
	}
}

// findings returns what is wrong on one segment.
func (h *hearing) findings(address string, nodes map[string][]place, cut []string) (all []finding) {
	var answered, macs []string
	var seen []place
	for _, mac := range slices.Sorted(maps.Keys(h.heard)) {
		by := h.heard[mac]
		if len(nodes[mac]) == 0 {
			all = append(all, finding{stranger, address, list(h.owners), []string{}, []string{mac}, by, fmt.Sprintf(
				"%s: a machine that is not a speaker answers, with %s, as %s heard; %s: find that machine; it has the address, or is a router that answers for others (proxy ARP)",
				address, mac, places(by), owned(h.owners))})
			continue
		}
		if node := nodes[mac][0].Node; !slices.Contains(answered, node) {
			answered = append(answered, node)
		}
		macs = append(macs, mac)
		for _, at := range by {
			if !slices.Contains(seen, at) {
				seen = append(seen, at)
			}
		}
	}
	slices.Sort(answered)
	// If the list of a node's claims is cut, the node may own addresses that are not in it.
	mayOwn := func(node string) bool {
		return slices.Contains(h.owners, node) || len(h.owners) == 0 && slices.Contains(cut, node)
	}
	switch {
	case len(answered) > 1:
		all = append(all, finding{splitBrain, address, list(h.owners), answered, macs, seen, fmt.Sprintf(
			"%s: nodes %s answer, as %s heard; %s: see kubectl herald status, and on those nodes whether something else has the address (ip addr)",
			address, strings.Join(answered, " and "), places(seen), owned(h.owners))})
	case len(answered) == 1 && !mayOwn(answered[0]):
		all = append(all, finding{notOwner, address, list(h.owners), answered, macs, seen, fmt.Sprintf(
			"%s: node %s answers, as %s heard; %s: see there whether something else has the address (ip addr)",
			address, answered[0], places(seen), owned(h.owners))})
	}
	if len(h.nothing) > 0 {
		all = append(all, finding{silence, address, list(h.owners), []string{}, []string{}, h.nothing, fmt.Sprintf(
			"%s: %s heard no answer; %s: check the network between them", address, places(h.nothing), owned(h.owners))})
	}
	return all
}

func owned(nodes []string) string {
	switch len(nodes) {
	case 0:
		return "no node owns it there, by the SpeakerStatuses"
	case 1:
		return "node " + nodes[0] + " owns it"
	}
	return "nodes " + strings.Join(nodes, " and ") + " own it"
}

func places(all []place) string {
	var texts []string
	for _, p := range all {
		texts = append(texts, p.Node+" ("+p.Interface+")")
	}
	return some(texts)
}

// list returns an empty list for nil, so that JSON does not have null.
func list[T any](all []T) []T {
	if all == nil {
		return []T{}
	}
	return all
}

// Text writes the report for people.
func (r *VerifyReport) Text(s Style) string {
	var l lines
	l.add("Asked for ", count(r.Addresses, "address", "addresses"), " from ", count(r.Speakers, "node", "nodes"), ".")
	for i, f := range r.Findings {
		if i == maxFindings {
			l.add(s.bad.Render("✗ "), fmt.Sprintf("and %d more: -o json lists all", len(r.Findings)-i))
			break
		}
		l.add(s.bad.Render("✗ "), f.Text)
	}
	for _, u := range r.Unasked {
		l.add(s.bad.Render("✗ "), "node ", u.Node, " could not be asked: ", u.Reason)
	}
	for _, text := range r.Unread {
		l.add(s.bad.Render("✗ "), text)
	}
	by, order := map[string][]string{}, []string{}
	for _, n := range r.NotAsked {
		if by[n.Reason] == nil {
			order = append(order, n.Reason)
		}
		by[n.Reason] = append(by[n.Reason], n.Address)
	}
	for _, reason := range order {
		l.add(s.bad.Render("✗ "), "nobody asked for ", some(by[reason]), ": ", reason)
	}
	switch {
	case !r.Good():
	case r.Addresses == 0:
		l.add("No L2Advertisement announces an address.")
	default:
		l.add(s.good.Render("Nobody but its owner answers for an address, and every owner does."))
	}
	return l.String()
}

// maxFindings is the most findings in the text for people.
const maxFindings = 30
