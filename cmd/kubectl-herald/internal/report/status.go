package report

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"

	herald "github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/speaker/announce"
)

// StatusReport is the output of status for programs.
type StatusReport struct {
	Problems  []problem       `json:"problems"` // The gravest first. If empty, the exit code is 0.
	Nodes     []nodeReport    `json:"nodes"`    // By name.
	Addresses []addressStatus `json:"addresses"`
	Unseen    []string        `json:"unseen"` // Resources that the user may not read: what is wrong with them is not known.

	noPool bool // There is no IPPool.
}

// problem is something that needs attention.
type problem struct {
	Kind    problemKind `json:"kind"`
	Address string      `json:"address,omitempty"`
	Nodes   []string    `json:"nodes"` // Those that it is about.
	Text    string      `json:"text"`
}

type problemKind string

// The kinds of problems, the gravest first.
const (
	addressConflict problemKind = "AddressConflict" // A machine that is not a speaker uses an address.
	segmentSplit    problemKind = "SegmentSplit"    // Speakers on a segment take each other for dead.
	twoOwners       problemKind = "TwoOwners"       // An address has several owners on one segment.
	noOwner         problemKind = "NoOwner"         // An address that must be announced has none.
	unreadable      problemKind = "Unreadable"      // An object exists and cannot be decoded.
	nodeDead        problemKind = "NodeDead"        // Neighbours have witnessed the death of a node.
	noSpeaker       problemKind = "NoSpeaker"       // A node has no SpeakerStatus.
	nodeNotReady    problemKind = "NodeNotReady"
	ccmSilent       problemKind = "ControllerSilent" // herald-ccm does not renew its Lease, or has none.
	servicePending  problemKind = "ServicePending"   // A Service does not have what it asks for.
	conditionFalse  problemKind = "ConditionFalse"   // A condition of a configuration object is not True.
	outOfItsRange   problemKind = "OutOfRange"       // An address in use is in no pool any more, or in another.
	silentSpeaker   problemKind = "SilentSpeaker"    // A speaker does not renew its Lease, or another one answers for its node.
	unheardSpeaker  problemKind = "UnheardSpeaker"
	oneWay          problemKind = "OneWay" // One of two speakers hears the other, which does not hear it.
	degraded        problemKind = "Degraded"
	listening       problemKind = "Listening"
	announcesNone   problemKind = "AnnouncesNothing"
	sessionDown     problemKind = "SessionDown" // A BGP session is not established.
	bfdDown         problemKind = "BFDDown"     // BFD with a router is not up.
)

var gravity = []problemKind{
	addressConflict, segmentSplit, twoOwners, noOwner, unreadable, nodeDead, noSpeaker, nodeNotReady, silentSpeaker, unheardSpeaker, oneWay, ccmSilent, servicePending,
	degraded, listening, announcesNone, notSent, sessionDown, bfdDown, routesWithheld, routesDiffer, conditionFalse, outOfItsRange,
}

// nodeReport is a node and its speaker.
type nodeReport struct {
	Node    string `json:"node"`
	Ready   bool   `json:"ready"`
	Speaker bool   `json:"speaker"` // It has a SpeakerStatus.
	// Excluded says that somebody, or kubeadm, has taken the node out by a label, so that it announces nothing.
	Excluded bool `json:"excluded"`
	// Stale says why the report of its speaker is out of date; empty if it is not. The fields below are of the last report.
	Stale string `json:"stale"`
	// SilentSince is when the speaker last renewed its Lease, or when the node died, if the speaker does not reach the API server.
	SilentSince string `json:"silentSince,omitempty"`
	// Interfaces are those on which the speaker works.
	Interfaces  []interfaceReport `json:"interfaces"`
	L2Addresses int               `json:"l2Addresses"` // An address on two segments counts twice.
	Sessions    string            `json:"sessions"`    // Established, of all.
	BFD         string            `json:"bfd"`         // Up, of the sessions with BFD. Empty: none has it.

	os   string // The node's operating system, if no speaker can run on it.
	sign string // What SilentSince is the time of.
}

type interfaceReport struct {
	Name       string   `json:"name"`
	State      string   `json:"state"`
	Subnets    []string `json:"subnets"`
	Neighbours int      `json:"neighbours"`
	// Addresses counts the addresses listed in the SpeakerStatus that the node owns here.
	Addresses int `json:"addresses"`
	// Unheard is true if no other speaker hears this one here, or if another node answers for it. The rest is then only what its own
	// speaker reports.
	Unheard bool `json:"unheard"`
	// UnheardSince is since when another node has answered for this one.
	UnheardSince string `json:"unheardSince,omitempty"`
}

// addressStatus is an address that L2Advertisements announce, or that a node owns.
type addressStatus struct {
	Address  string       `json:"address"`
	Services []string     `json:"services"`
	State    addressState `json:"state"`
	Owners   []owner      `json:"owners"`
}

type addressState string

// The states of an address.
const (
	stateOwned      addressState = "Owned"
	stateDeputy     addressState = "Deputy"     // A node answers for another one.
	stateNone       addressState = "None"       // It must be announced, and nobody owns it.
	stateNew        addressState = "New"        // As None, but so new that no speaker can be expected to have reported it.
	stateNoEndpoint addressState = "NoEndpoint" // Nobody owns it, because no endpoint is ready.
	stateUnknown    addressState = "Unknown"    // No node lists it, but some nodes own more than they list.
)

// Status reports what needs attention, and who owns what. It needs what NewNetwork needs, and BGPPeers.
func Status(o *Objects, ccm *CCM, now time.Time) *StatusReport {
	r := NewNetwork(o).status(ccm, now)
	situationOf(o, now).unannounced(r)
	return r
}

func (n *Network) status(ccm *CCM, now time.Time) *StatusReport {
	gone := n.gone(now)
	s := segmentsOf(n.speakers, gone)
	r := &StatusReport{Problems: append([]problem{}, n.unreadable...), Nodes: []nodeReport{}, Addresses: []addressStatus{}, Unseen: list(n.unseen)}
	r.noPool = len(n.pools) == 0 && len(n.unreadable) == 0
	add := func(kind problemKind, address string, nodes []string, format string, args ...any) {
		r.Problems = append(r.Problems, problem{kind, address, nodes, fmt.Sprintf(format, args...)})
	}
	n.addressStatuses(r, s, func(rec *herald.IPAllocation) bool { return now.Sub(rec.CreationTimestamp.Time) < reportedWithin })
	n.addressProblems(r, s, now, add)
	n.nodeStatuses(r, s, gone, add)
	speakerProblems(s, now, add)
	splits(s, add)
	n.controllerProblem(now, add)
	n.pendingServices(ccm, add)
	n.configurationProblems(n.outOfRange(add), add)
	ordered(r.Problems)
	return r
}

type addProblem func(kind problemKind, address string, nodes []string, format string, args ...any)

// addressStatuses adds the owners of the addresses. An address without an owner counts as new if isNew says so of its record.
func (n *Network) addressStatuses(r *StatusReport, s *segments, isNew func(*herald.IPAllocation) bool) {
	known := map[string]bool{}
	for _, a := range n.announcements() {
		known[a.address] = true
		status := addressStatus{a.address, a.services, stateOwned, s.current(a.address)}
		switch {
		case len(status.Owners) > 0:
			if !slices.ContainsFunc(status.Owners, func(o owner) bool { return o.DeputyFor == "" }) {
				status.State = stateDeputy
			}
		case !a.ready:
			status.State = stateNoEndpoint
		case s.hides(a.address):
			status.State = stateUnknown
		case isNew(a.record):
			status.State = stateNew
		default:
			status.State = stateNone
		}
		if status.Owners == nil {
			status.Owners = []owner{}
		}
		r.Addresses = append(r.Addresses, status)
	}
	for _, address := range slices.Sorted(maps.Keys(s.owners)) {
		// An address that is no longer announced but still owned. It is about to be given up.
		if owners := s.current(address); !known[address] && len(owners) > 0 {
			r.Addresses = append(r.Addresses, addressStatus{address, []string{}, stateOwned, owners})
		}
	}
}

// addressProblems adds the problems of single addresses.
func (n *Network) addressProblems(r *StatusReport, s *segments, now time.Time, add addProblem) {
	conflicts := s.conflicts()
	const cure = "find that machine and take the address from it"
	for _, address := range slices.Sorted(maps.Keys(conflicts)) {
		all := conflicts[address]
		var nodes []string
		for _, c := range all {
			nodes = append(nodes, c.Node)
		}
		slices.Sort(nodes)
		add(addressConflict, address, slices.Compact(nodes), "%s: %s: %s", address, all[0].text(now), cure)
	}
	for _, rec := range n.records {
		if c := inConflict(rec); c != nil && conflicts[rec.Spec.Address] == nil {
			add(addressConflict, rec.Spec.Address, []string{}, "%s: %s: %s", rec.Spec.Address, c.Message, cure)
		}
	}
	for _, a := range r.Addresses {
		if rivals := s.rivals(a.Address); rivals != nil {
			var nodes []string
			for _, o := range rivals {
				nodes = append(nodes, o.Node)
			}
			add(twoOwners, a.Address, nodes, "%s %s: kubectl herald verify %s asks who answers", a.Address, rivalry(rivals, now), a.Address)
		}
		if a.State == stateNone {
			add(noOwner, a.Address, []string{}, "%s of %s has no owner: kubectl herald explain service %s says why", a.Address, strings.Join(a.Services, ", "), a.Services[0])
		}
	}
}

// nodeStatuses adds the states of the nodes.
func (n *Network) nodeStatuses(r *StatusReport, s *segments, gone map[string]string, add addProblem) {
	var without, unready []string
	for _, node := range n.nodes {
		report := nodeReport{
			Node: node.Name, Ready: isReady(node), Excluded: announce.RunsOn(node) && announce.Exclusion(node) == announce.ExcludedByLabel,
			Interfaces: []interfaceReport{},
		}
		if !report.Ready {
			unready = append(unready, node.Name)
		}
		i := slices.IndexFunc(s.speakers, func(o *herald.SpeakerStatus) bool { return o.Name == node.Name })
		switch {
		case i < 0 && !announce.RunsOn(node):
			report.os = node.Labels[corev1.LabelOSStable]
		case i < 0:
			without = append(without, node.Name)
		default:
			report.fill(s.speakers[i], s)
			report.Stale = s.stale[node.Name]
			if gone[node.Name] != "" || report.Stale != "" {
				report.sign, report.SilentSince = n.lastSign(node.Name, s)
			}
			if why := gone[node.Name]; why != "" && !s.dead[node.Name] {
				add(silentSpeaker, "", []string{node.Name}, "node %s: %s: see whether its herald-speaker runs and reaches the API server", node.Name, why)
			}
		}
		r.Nodes = append(r.Nodes, report)
	}
	if len(without) > 0 {
		add(noSpeaker, "", without, "%s no SpeakerStatus: see whether herald-speaker runs there", subject(without, "has", "have"))
	}
	if len(unready) > 0 {
		add(nodeNotReady, "", unready, "%s not Ready: kubectl describe node %s says why", subject(unready, "is", "are"), unready[0])
	}
}

// The last signs of a speaker.
const (
	signDeath   = "death"   // Neighbours have witnessed the death of the node.
	signEnd     = "end"     // The speaker has given up its Lease.
	signRenewal = "renewal" // The speaker has renewed its Lease.
)

// lastSign returns the last sign of a speaker that does not reach the API server, and its time; both are empty if none is known.
func (n *Network) lastSign(node string, s *segments) (sign, at string) {
	for _, o := range s.speakers {
		for _, d := range o.Status.Deaths {
			if s.dead[node] && d.Node == node && s.stale[o.Name] == "" && (at == "" || d.At < at) { // Times in UTC, so their order is that of their text.
				sign, at = signDeath, d.At
			}
		}
	}
	for _, l := range n.leases {
		if sign == "" && l.Name == herald.SpeakerLeasePrefix+node && l.Spec.RenewTime != nil {
			sign, at = signRenewal, l.Spec.RenewTime.UTC().Format(time.RFC3339)
			if ptr.Deref(l.Spec.HolderIdentity, "") == "" {
				sign = signEnd
			}
		}
	}
	return sign, at
}

func (r *nodeReport) fill(o *herald.SpeakerStatus, s *segments) {
	r.Speaker, r.L2Addresses, r.Sessions = true, int(o.Status.L2Addresses), o.Status.Established
	up, watched := 0, 0
	for _, x := range o.Status.Sessions {
		if x.BFD != "" {
			watched++
		}
		if x.BFD == bfdUp {
			up++
		}
	}
	if watched > 0 {
		r.BFD = fmt.Sprintf("%d/%d", up, watched)
	}
	owned := map[string]int{}
	for _, c := range o.Status.Claims {
		if c.DeputyFor == "" {
			owned[c.Interface]++
		}
	}
	for _, i := range o.Status.Interfaces {
		if i.State == "" && i.Neighbours == 0 && owned[i.Name] == 0 {
			continue // For example, the interface of a pod.
		}
		x := interfaceReport{Name: i.Name, State: i.State, Subnets: i.Subnets, Neighbours: int(i.Neighbours), Addresses: owned[i.Name]}
		at := place{o.Name, i.Name}
		x.UnheardSince = s.deputisedSince(at)
		x.Unheard = s.unheard[at] || x.UnheardSince != ""
		if x.Subnets == nil {
			x.Subnets = []string{}
		}
		r.Interfaces = append(r.Interfaces, x)
	}
}

func isReady(node *corev1.Node) bool {
	return slices.ContainsFunc(node.Status.Conditions, func(c corev1.NodeCondition) bool {
		return c.Type == corev1.NodeReady && c.Status == corev1.ConditionTrue
	})
}

// subject returns the beginning of a sentence about nodes.
func subject(nodes []string, one, many string) string {
	if len(nodes) == 1 {
		return "node " + nodes[0] + " " + one
	}
	return "nodes " + some(nodes) + " " + many
}

// speakerProblems adds the problems that speakers report about themselves and about others. If many report the
// same, it is one problem.
func speakerProblems(s *segments, now time.Time, add addProblem) {
	g := grouped{add: add}
	for _, o := range s.speakers {
		if s.stale[o.Name] != "" {
			continue
		}
		for _, d := range o.Status.Deaths {
			if !s.dead[d.Node] {
				continue // The segment is split.
			}
			seen := ""
			if at, err := time.Parse(time.RFC3339, d.At); err == nil {
				seen = " " + age(at, now) + " ago"
			}
			g.report(nodeDead, d.Node, o.Name, func(by []string) (string, []string) {
				return fmt.Sprintf("node %s died%s, as %s witnessed on %s: see to the machine", d.Node, seen, some(by), d.Interface), []string{d.Node}
			})
		}
		answered := map[place]int{}
		for _, c := range o.Status.Claims {
			if c.DeputyFor != "" {
				answered[place{c.DeputyFor, c.Interface}]++
			}
		}
		for _, of := range slices.SortedFunc(maps.Keys(answered), func(x, y place) int { return cmp.Compare(x.String(), y.String()) }) {
			add(silentSpeaker, "", []string{of.Node}, "the speaker of node %s is silent, and node %s answers on %s for %s of that node: see why it is silent",
				of.Node, o.Name, of.Interface, count(answered[of], "address", "addresses"))
		}
		for _, i := range o.Status.Interfaces {
			switch at := (place{o.Name, i.Name}); {
			case s.unheard[at]:
				g.report(unheardSpeaker, at.String(), o.Name, func([]string) (string, []string) {
					return fmt.Sprintf("no other speaker hears the speaker of node %s on %s, which reports that it has heard %s: see whether it runs, and whether the network drops its frames",
						at.Node, at.Interface, some(i.Hears)), []string{at.Node}
				})
			case i.State == herald.SegmentDegraded:
				g.report(degraded, i.Name, o.Name, func(nodes []string) (string, []string) {
					return fmt.Sprintf("%s Degraded on %s: there are other speakers with its subnets, and none is heard: check the network between them", subject(nodes, "is", "are"), i.Name), nodes
				})
			case i.State == herald.SegmentListening:
				g.report(listening, i.Name, o.Name, func(nodes []string) (string, []string) {
					return fmt.Sprintf("%s Listening on %s, and not yet owners of addresses", subject(nodes, "is", "are"), i.Name), nodes
				})
			}
		}
		if why := o.Status.Problem; why != "" && why != announce.ExcludedByLabel { // The label is deliberate.
			g.report(announcesNone, why, o.Name, func(nodes []string) (string, []string) {
				return fmt.Sprintf("%s nothing: %s", subject(nodes, "announces", "announce"), why), nodes
			})
		}
		for _, x := range o.Status.Sessions {
			if x.BFD != "" && x.BFD != bfdUp {
				g.report(bfdDown, x.Peer+"\n"+x.BFDReason, o.Name, func(nodes []string) (string, []string) {
					return fmt.Sprintf("BFD with %s is %s on %s: %s: kubectl herald bgp peers %[1]s says more", x.Peer, x.BFD, some(nodes), x.BFDReason), nodes
				})
			}
			if x.State == established {
				if len(x.Withheld) > 0 {
					what := families(x.Withheld)
					g.report(routesWithheld, x.Peer+"\n"+what+"\n"+x.Reason, o.Name, func(nodes []string) (string, []string) {
						return fmt.Sprintf("%s routes for %s are withheld on %s: %s: kubectl herald bgp peers %[2]s says more", what, x.Peer, some(nodes), whyWithheld(x.Reason)), nodes
					})
				}
				continue
			}
			g.report(sessionDown, x.Peer+"\n"+x.State+"\n"+x.Reason, o.Name, func(nodes []string) (string, []string) {
				return fmt.Sprintf("the session with %s is %s on %s: %s: kubectl herald bgp peers %[1]s says more", x.Peer, x.State, some(nodes), x.Reason), nodes
			})
		}
	}
	for _, pair := range s.deaf {
		deaf, heard := pair[0], pair[1]
		g.report(oneWay, deaf.String(), heard.Node, func(nodes []string) (string, []string) {
			return fmt.Sprintf("node %s does not hear %s on %s, though it is heard there: see whether the network drops multicast frames to it", deaf.Node, some(nodes), deaf.Interface),
				append([]string{deaf.Node}, nodes...)
		})
	}
	g.done()
}

// splits adds a problem for each split segment, with the nodes that hear each other in each part.
func splits(s *segments, add addProblem) {
	of := map[place][]place{} // By segment, the interfaces that somebody takes for dead.
	for _, pair := range s.apart {
		root := s.segment[pair[0]]
		of[root] = append(of[root], pair[:]...)
	}
	for _, root := range slices.SortedFunc(maps.Keys(of), comparePlaces) {
		var parts [][]string
		var nodes []string
		for _, at := range slices.SortedFunc(slices.Values(of[root]), comparePlaces) {
			if slices.Contains(nodes, at.Node) {
				continue
			}
			nodes = append(nodes, at.Node)
			with := slices.IndexFunc(parts, func(part []string) bool {
				i := s.interfaces[at]
				return i != nil && slices.Contains(i.Hears, part[0])
			})
			if with < 0 {
				parts = append(parts, nil)
				with = len(parts) - 1
			}
			parts[with] = append(parts[with], at.Node)
		}
		var texts []string
		for _, part := range parts {
			texts = append(texts, some(part))
		}
		add(segmentSplit, "", nodes, "the segment of %s is split: these nodes hear only each other, and all reach the API server: %s: see to the switches and cables between them",
			root.Interface, strings.Join(texts, " | "))
	}
}

// grouped combines what several nodes report in the same way.
type grouped struct {
	add   addProblem
	order []*group
	by    map[string]*group
}

type group struct {
	kind  problemKind
	nodes []string
	tell  func(nodes []string) (text string, about []string)
}

// report adds a node to those that report the same.
func (g *grouped) report(kind problemKind, what, node string, tell func(nodes []string) (text string, about []string)) {
	key := string(kind) + "\n" + what
	if g.by == nil {
		g.by = map[string]*group{}
	}
	if g.by[key] == nil {
		g.by[key] = &group{kind: kind, tell: tell}
		g.order = append(g.order, g.by[key])
	}
	if x := g.by[key]; !slices.Contains(x.nodes, node) {
		x.nodes = append(x.nodes, node)
	}
}

func (g *grouped) done() {
	for _, x := range g.order {
		text, about := x.tell(x.nodes)
		g.add(x.kind, "", about, "%s", text)
	}
}
