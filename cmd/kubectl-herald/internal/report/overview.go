package report

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/types"

	herald "github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/speaker/announce"
)

// Overview is the content of the page of ui: the report of status, the pools, and how everything is connected.
type Overview struct {
	Problems []problem
	Nodes    []nodeOverview
	Segments []segmentOverview
	Sessions []sessionOverview // By peer and node.
	Pools    []poolReport
	Services []serviceOverview // Those that herald-ccm serves or whose class a pool announces, by namespace and name.

	addresses []addressStatus
}

// nodeOverview is a node in the report of status.
type nodeOverview struct {
	nodeReport
	// Problem says why the node announces nothing; empty if it does, or if it is Excluded.
	Problem string `json:"problem"`
	// Foreign is the operating system of the node if no speaker can run on it.
	Foreign string `json:"foreign"`
}

// segmentOverview is a segment: the interfaces whose speakers hear each other.
type segmentOverview struct {
	Subnets []string `json:"subnets"`
	Members []place  `json:"members"` // One of each node, by node.
}

// sessionOverview is a BGP session, from the SpeakerStatus of the node.
type sessionOverview struct {
	Peer    string `json:"peer"`
	Node    string `json:"node"`
	Address string `json:"address"` // Of the router.
	State   string `json:"state"`
	Since   string `json:"since"`
	Reason  string `json:"reason"`
	Routes  int    `json:"routes"`
	// Withheld are the families whose routes are not sent, although the session is established.
	Withheld  []herald.IPFamily `json:"withheld"`
	BFD       string            `json:"bfd"` // Empty: the BGPPeer has none.
	BFDReason string            `json:"bfdReason"`
	Stale     string            `json:"stale"` // As of the node.
}

// serviceOverview is a Service, with the announcers of its addresses.
type serviceOverview struct {
	Service   string            `json:"service"`
	Addresses []addressOverview `json:"addresses"`
	Pending   string            `json:"pending"` // Empty: it has what it asks for.
	Wrong     bool              `json:"wrong"`   // It waits, or one of the problems is about an address of its.
}

type addressOverview struct {
	Address string `json:"address"`
	// State is the state on the segments; empty if the address is not for segments.
	State  addressState `json:"state"`
	Owners []owner      `json:"owners"`
	// Routers are the routers that it is announced to.
	Routers []announcedTo `json:"routers"`
}

// announcedTo has the nodes that announce an address to a router: they must, and their sessions carry its route.
type announcedTo struct {
	Peer  string   `json:"peer"`
	Nodes []string `json:"nodes"`
}

// OverviewOf needs the objects that Status, Explain and Pools need.
func OverviewOf(o *Objects, ccm *CCM, now time.Time) *Overview {
	n, s := NewNetwork(o), situationOf(o, now)
	status := n.status(ccm, now)
	s.unannounced(status)
	r := &Overview{
		Problems: status.Problems, Nodes: []nodeOverview{}, Segments: []segmentOverview{}, Sessions: []sessionOverview{},
		Pools: Pools(o).Pools, Services: []serviceOverview{}, addresses: status.Addresses,
	}
	for _, node := range status.Nodes {
		x := nodeOverview{nodeReport: node, Foreign: node.os}
		x.Stale, x.SilentSince = s.segments.stale[node.Node], "" // Stale says since when.
		if st := statusOf(o, node.Node); st != nil {
			if st.Status.Problem != announce.ExcludedByLabel {
				x.Problem = st.Status.Problem
			}
			r.Sessions = append(r.Sessions, sessionsOf(st, x.Stale)...)
		}
		r.Nodes = append(r.Nodes, x)
	}
	slices.SortStableFunc(r.Sessions, func(x, y sessionOverview) int {
		return cmp.Or(cmp.Compare(x.Peer, y.Peer), cmp.Compare(x.Node, y.Node))
	})
	for _, segment := range s.on {
		r.Segments = append(r.Segments, overviewOfSegment(segment))
	}
	r.services(n, s, ccm)
	return r
}

func sessionsOf(st *herald.SpeakerStatus, stale string) (all []sessionOverview) {
	for _, x := range st.Status.Sessions {
		all = append(all, sessionOverview{x.Peer, st.Name, x.Address, x.State, x.Since, x.Reason, int(x.Routes), list(x.Withheld), x.BFD, x.BFDReason, stale})
	}
	return all
}

func overviewOfSegment(segment announce.Segment) segmentOverview {
	r := segmentOverview{Subnets: []string{}, Members: []place{}}
	for _, n := range segment.Nodes {
		r.Members = append(r.Members, place{n.Node, n.Interface})
		for _, p := range n.Subnets {
			if text := p.Masked().String(); !slices.Contains(r.Subnets, text) && !p.Addr().IsLinkLocalUnicast() {
				r.Subnets = append(r.Subnets, text)
			}
		}
	}
	return r
}

// services adds the Services and the announcers of their addresses.
func (r *Overview) services(n *Network, s *situation, ccm *CCM) {
	states, troubled := map[string]addressStatus{}, map[string]bool{}
	for _, a := range r.addresses {
		states[a.Address] = a
	}
	for _, p := range r.Problems {
		troubled[p.Address] = true
	}
	routers := s.routers(r.Sessions)
	for _, name := range slices.Sorted(maps.Keys(n.services)) {
		svc := n.services[name]
		if !ccm.Serves(svc) && !ccm.announces(svc, maps.Values(n.pools)) {
			continue
		}
		x := serviceOverview{Service: name, Addresses: []addressOverview{}, Pending: n.pending(svc, ccm)}
		x.Wrong = x.Pending != ""
		for _, address := range Addresses(svc) {
			a := addressOverview{Address: address, State: states[address].State, Owners: list(states[address].Owners), Routers: list(routers[address])}
			x.Addresses = append(x.Addresses, a)
			x.Wrong = x.Wrong || troubled[address]
		}
		r.Services = append(r.Services, x)
	}
}

// routers returns, for each address, which nodes announce it to which routers.
func (s *situation) routers(sessions []sessionOverview) map[string][]announcedTo {
	type session struct{ node, peer string }
	up := map[session]sessionOverview{}
	for _, x := range sessions {
		if x.State == established && x.Stale == "" {
			up[session{x.Node, x.Peer}] = x
		}
	}
	service := func(n types.NamespacedName) *corev1.Service { return s.services[n] }
	all := map[string][]announcedTo{}
	for _, rec := range s.Allocations {
		a := announce.AddressOf(rec, s.now, service, s.slicesOf)
		if a == nil {
			continue
		}
		nodes := map[string][]string{} // By peer.
		for node, d := range announce.DecideRoutes(s.shared, a) {
			peers := slices.Collect(maps.Keys(d.Exports))
			for _, network := range d.Aggregates {
				peers = append(peers, network.Peer)
			}
			slices.Sort(peers)
			for _, peer := range slices.Compact(peers) {
				if x, is := up[session{node, peer}]; is && !withholds(x.Withheld, a.Addr) {
					nodes[peer] = append(nodes[peer], node)
				}
			}
		}
		for _, peer := range slices.Sorted(maps.Keys(nodes)) {
			slices.Sort(nodes[peer])
			all[a.Addr.String()] = append(all[a.Addr.String()], announcedTo{peer, nodes[peer]})
		}
	}
	return all
}

// unannounced adds the addresses that BGPAdvertisements select, and that no node announces to a router. Addresses of a pool whose
// condition Announced is not True are left out: that is a problem of its own. Nothing is added if not all sessions are known, or if
// an advertisement or a pool is not valid: speakers may go on with its last valid spec.
func (s *situation) unannounced(r *StatusReport) {
	if len(s.rejected) > 0 || slices.ContainsFunc(s.Speakers, func(o *herald.SpeakerStatus) bool { return len(o.Status.Sessions) >= herald.MaxStatusSessions }) {
		return
	}
	onSegments := map[string]bool{}
	for _, a := range r.Addresses {
		onSegments[a.Address] = true
	}
	var sessions []sessionOverview
	for _, st := range s.Speakers {
		sessions = append(sessions, sessionsOf(st, s.segments.stale[st.Name])...)
	}
	to := s.routers(sessions)
	var ads []*herald.Selector
	for _, ad := range s.BGPAdvertisements {
		if c, err := ad.Spec.Compile(); err == nil {
			ads = append(ads, c)
		}
	}
	namespaces := map[string]map[string]string{}
	for _, o := range s.Namespaces {
		namespaces[o.Name] = o.Labels
	}
	for _, rec := range s.Allocations {
		a := announce.AddressOf(rec, s.now, func(n types.NamespacedName) *corev1.Service { return s.services[n] }, s.slicesOf)
		if a == nil || onSegments[a.String()] || len(to[a.String()]) > 0 || s.now.Sub(rec.CreationTimestamp.Time) < reportedWithin {
			continue
		}
		pool := s.pool(rec.Spec.Pool)
		if pool == nil || !meta.IsStatusConditionTrue(pool.Status.Conditions, herald.ConditionAnnounced) {
			continue
		}
		wanted := func(svc *announce.Service) bool {
			labels := s.services[svc.Name].Labels // AddressOf has found the Service.
			return len(svc.Ready(a.Addr)) > 0 && (svc.Overrides == nil || !svc.Overrides.Silent) && slices.ContainsFunc(ads, func(ad *herald.Selector) bool {
				return ad.Pool(pool.Name, pool.Labels) && ad.Service(labels, namespaces[svc.Name.Namespace])
			})
		}
		if slices.ContainsFunc(a.Services, wanted) {
			r.Problems = append(r.Problems, problem{notSent, a.String(), []string{}, fmt.Sprintf("%s of %s is announced by no node: kubectl herald explain service %[2]s says why", a, a.Services[0].Name)})
		}
	}
	ordered(r.Problems)
}

// ServiceNamed explains the Service with a name.
func ServiceNamed(o *Objects, name types.NamespacedName, ccm *CCM, now time.Time) (*ServiceReport, error) {
	i := slices.IndexFunc(o.Services, func(svc *corev1.Service) bool { return svc.Namespace == name.Namespace && svc.Name == name.Name })
	if i < 0 {
		return nil, fmt.Errorf("there is no Service %s", name)
	}
	return Explain(o, o.Services[i], ccm, now)
}

// Change is something that has happened between two overviews.
type Change struct {
	At    string `json:"at"`
	Wrong bool   `json:"wrong"` // It is for the worse.
	Text  string `json:"text"`
}

// Changes returns the speakers that became silent or came back, the addresses whose owners changed, and the sessions
// whose state changed. If the same happened to many addresses, this is one change.
func Changes(before, after *Overview, now time.Time) []Change {
	g := moves{by: map[string]*move{}}
	was := map[string]addressStatus{}
	for _, a := range before.addresses {
		was[a.Address] = a
	}
	for _, a := range after.addresses {
		g.compare(was[a.Address], a)
		delete(was, a.Address)
	}
	for _, address := range slices.SortedFunc(maps.Keys(was), compareAddresses) {
		g.compare(was[address], addressStatus{})
	}
	all := append(speakerChanges(before.Nodes, after.Nodes, now), g.changes(now)...)
	type session struct{ node, peer string }
	sessions := map[session]sessionOverview{}
	for _, x := range before.Sessions {
		sessions[session{x.Node, x.Peer}] = x
	}
	for _, x := range after.Sessions {
		if y, known := sessions[session{x.Node, x.Peer}]; known {
			all = append(all, x.changes(&y, now)...)
		}
	}
	return all
}

// speakerChanges returns the nodes whose reports became out of date, and those whose reports are up to date again.
func speakerChanges(before, after []nodeOverview, now time.Time) (all []Change) {
	was := map[string]string{}
	for _, node := range before {
		was[node.Node] = node.Stale
	}
	for _, node := range after {
		at := now.UTC().Format(time.RFC3339)
		switch stale := was[node.Node]; {
		case stale == "" && node.Stale != "":
			all = append(all, Change{at, true, "Node " + node.Node + ": " + node.Stale})
		case stale != "" && node.Stale == "":
			all = append(all, Change{at, false, "Node " + node.Node + ": its speaker reports again"})
		}
	}
	return all
}

func compareAddresses(x, y string) int {
	a, _ := netip.ParseAddr(x)
	b, _ := netip.ParseAddr(y)
	return cmp.Or(a.Compare(b), strings.Compare(x, y))
}

// move is a change of owners that several addresses have in common.
type move struct {
	addresses []string
	services  []string // Of the first address.
	from, to  []owner
}

type moves struct {
	by    map[string]*move
	order []string
}

// compare notes which owners an address has lost, and which it has got.
func (g *moves) compare(was, is addressStatus) {
	without := func(all, others []owner) (rest []owner) {
		for _, o := range all {
			if !slices.ContainsFunc(others, func(x owner) bool { return x.place == o.place && x.DeputyFor == o.DeputyFor }) {
				rest = append(rest, o)
			}
		}
		return rest
	}
	from, to := without(was.Owners, is.Owners), without(is.Owners, was.Owners)
	if len(from)+len(to) == 0 {
		return
	}
	key := fmt.Sprint(ownersText(from), "\n", ownersText(to), "\n", reasonOf(to))
	if g.by[key] == nil {
		services := is.Services
		if len(services) == 0 {
			services = was.Services
		}
		g.by[key] = &move{services: services, from: from, to: to}
		g.order = append(g.order, key)
	}
	g.by[key].addresses = append(g.by[key].addresses, cmp.Or(is.Address, was.Address))
}

func (g *moves) changes(now time.Time) (all []Change) {
	for _, key := range g.order {
		m := g.by[key]
		what := m.addresses[0]
		if len(m.services) > 0 {
			what += " of " + strings.Join(m.services, ", ")
		}
		if n := len(m.addresses) - 1; n > 0 {
			what += " and " + count(n, "other address", "other addresses")
		}
		c := Change{At: now.UTC().Format(time.RFC3339)}
		switch {
		case len(m.to) == 0:
			c.Text, c.Wrong = what+": no owner any more, after "+ownersText(m.from), true
		case len(m.from) == 0:
			c.Text, c.At = what+": owner is now "+ownersText(m.to), cmp.Or(m.to[0].Since, c.At)
		default:
			c.Text, c.At = what+": "+ownersText(m.from)+" → "+ownersText(m.to), cmp.Or(m.to[0].Since, c.At)
		}
		if reason := reasonOf(m.to); reason != "" {
			c.Text += " (" + reason + ")"
		}
		all = append(all, c)
	}
	return all
}

func reasonOf(owners []owner) string {
	if len(owners) == 0 {
		return ""
	}
	return owners[0].Reason
}

// ownersText lists owners: n1 (eth0), n2 for n1 (eth0).
func ownersText(owners []owner) string {
	var all []string
	for _, o := range owners {
		who := o.Node
		if o.DeputyFor != "" {
			who += " for " + o.DeputyFor
		}
		all = append(all, who+" ("+o.Interface+")")
	}
	return strings.Join(all, ", ")
}

// changes returns the changes of a session, and of its BFD, since before.
func (x *sessionOverview) changes(before *sessionOverview, now time.Time) (all []Change) {
	at, where := now.UTC().Format(time.RFC3339), fmt.Sprintf(" of %s with %s is ", x.Node, x.Peer)
	with := func(text, reason string) string { return strings.TrimSuffix(text+": "+reason, ": ") }
	if x.State != before.State {
		all = append(all, Change{cmp.Or(x.Since, at), x.State != established, with("Session"+where+x.State, x.Reason)})
	}
	if x.BFD != before.BFD && x.BFD != "" {
		all = append(all, Change{at, x.BFD != bfdUp, with("BFD"+where+x.BFD, x.BFDReason)})
	}
	return all
}
