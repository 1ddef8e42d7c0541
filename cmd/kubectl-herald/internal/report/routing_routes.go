package report

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	herald "github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/speaker/bgp/route"
	"github.com/heraldlb/herald/speaker/inspect"
)

// RoutesReport is the output of bgp routes for programs.
type RoutesReport struct {
	Problems []problem       `json:"problems"` // The gravest first. If empty, and Unasked is as well, the exit code is 0.
	Routes   []routeReport   `json:"routes"`   // By prefix, peer and node.
	NotSent  []notSentReport `json:"notSent"`  // Addresses that are not announced, and should not be.
	Leaving  []leavingNode   `json:"leaving"`
	Unasked  []Unasked       `json:"unasked"`
	Unseen   []string        `json:"unseen"` // Resources that the user may not read: what is missing is not known.
	More     int             `json:"more"`   // How many more routes the speakers have.
}

// routeReport is a prefix that one node announces to one peer.
type routeReport struct {
	Node string `json:"node"`
	inspect.RoutingRoute
	// Services are those that have the address, or an address in the network.
	Services []string `json:"services"`

	prefix netip.Prefix
}

// notSentReport is an address that some nodes, or all nodes, do not announce.
type notSentReport struct {
	Address  string   `json:"address"`
	Services []string `json:"services"`
	Nodes    []string `json:"nodes"` // None: all.
	Reason   string   `json:"reason"`
}

// leavingNode is a node whose routes have the community GRACEFUL_SHUTDOWN.
type leavingNode struct {
	Node string `json:"node"`
	For  string `json:"for"`
}

// RoutesQuery selects routes. An empty field selects all.
type RoutesQuery struct {
	Prefixes     []netip.Prefix // The routes that overlap one of these.
	Peers, Nodes []string
}

func (q *RoutesQuery) wants(p netip.Prefix) bool {
	return len(q.Prefixes) == 0 || slices.ContainsFunc(q.Prefixes, p.Overlaps)
}

// PrefixesOf parses the arguments of a user: addresses, prefixes, or Services, whose addresses it takes from the
// objects. The result is sorted and has no duplicates. named parses the name of a Service.
func PrefixesOf(o *Objects, args []string, named func(string) (types.NamespacedName, error)) (prefixes []netip.Prefix, err error) {
	for _, text := range args {
		if address, err := netip.ParseAddr(text); err == nil {
			address = address.Unmap().WithZone("")
			prefixes = append(prefixes, netip.PrefixFrom(address, address.BitLen()))
			continue
		}
		if p, err := netip.ParsePrefix(text); err == nil {
			prefixes = append(prefixes, p.Masked())
			continue
		}
		name, err := named(text)
		if err != nil {
			return nil, fmt.Errorf("%q is not an address, prefix or Service: write 198.51.100.7, 198.51.100.0/24 or NAMESPACE/NAME", text)
		}
		i := slices.IndexFunc(o.Services, func(svc *corev1.Service) bool { return svc.Namespace == name.Namespace && svc.Name == name.Name })
		switch {
		case i < 0 && !o.sees("services"):
			return nil, fmt.Errorf("you may not list services: name the addresses of %s", name)
		case i < 0:
			return nil, fmt.Errorf("there is no Service %s", name)
		case len(Addresses(o.Services[i])) == 0:
			return nil, fmt.Errorf("the Service %s has no address: kubectl herald explain service %s says why", name, name)
		}
		for _, text := range Addresses(o.Services[i]) {
			if address, err := netip.ParseAddr(text); err == nil {
				prefixes = append(prefixes, netip.PrefixFrom(address, address.BitLen()))
			}
		}
	}
	slices.SortFunc(prefixes, netip.Prefix.Compare)
	prefixes = slices.Compact(prefixes)
	if n := len(prefixes); n > inspect.MaxPrefixes {
		return nil, fmt.Errorf("these are %d addresses and prefixes: name %d at most, or one prefix with the addresses in it", n, inspect.MaxPrefixes)
	}
	return prefixes, nil
}

// router is a session: a peer of a node.
type router struct{ node, peer string }

// routes is a RoutesReport in progress.
type routes struct {
	*RoutesReport
	*situation
	query   *RoutesQuery
	answers map[string]*inspect.Routing // By node.
	// actual has the routes that the speakers have, expected those that they must have.
	actual   map[netip.Prefix]map[router]*routeReport
	expected map[netip.Prefix]map[router]bool
	sums     map[string]*sum
	order    []*sum
}

// sum is a problem of one or more prefixes and nodes.
type sum struct {
	kind            problemKind
	prefixes, nodes []string
	text            func(prefixes, nodes string) string // prefixes with their verb: "198.51.100.7 is"
}

// add adds a problem of a prefix and a node. Problems with the same words are combined.
func (r *routes) add(kind problemKind, prefix netip.Prefix, node, what string, text func(prefixes, nodes string) string) {
	key := string(kind) + "\n" + what
	s := r.sums[key]
	if s == nil {
		s = &sum{kind: kind, nodes: []string{}, text: text}
		r.sums[key], r.order = s, append(r.order, s)
	}
	for list, name := range map[*[]string]string{&s.prefixes: plain(prefix), &s.nodes: node} {
		if name != "" && !slices.Contains(*list, name) {
			*list = append(*list, name)
		}
	}
}

func isOrAre(all []string) string {
	if len(all) == 1 {
		return " is"
	}
	return " are"
}

// plain returns a prefix of one address without its length.
func plain(p netip.Prefix) string {
	if p.IsSingleIP() {
		return p.Addr().String()
	}
	return p.String()
}

// Routes reports what is announced to which routers, what is not, and why. It needs Nodes and Speakers. To find missing
// routes, it also needs what Explain needs.
func Routes(o *Objects, asked *Asked, q *RoutesQuery, now time.Time) (*RoutesReport, error) {
	s := situationOf(o, now)
	r := &routes{
		RoutesReport: &RoutesReport{
			Problems: o.unreadable(), Routes: []routeReport{}, NotSent: []notSentReport{}, Leaving: []leavingNode{}, Unasked: []Unasked{}, Unseen: list(o.Unseen),
		},
		situation: s, query: q, answers: map[string]*inspect.Routing{}, sums: map[string]*sum{},
		actual: map[netip.Prefix]map[router]*routeReport{}, expected: map[netip.Prefix]map[router]bool{},
	}
	for _, a := range asked.answers() {
		r.answers[a.Node] = a
		r.take(a)
	}
	r.RoutesReport.Unasked = append(r.RoutesReport.Unasked, asked.Unasked...)
	r.services()
	if o.sees("ippools.herald.dev", "ipallocations.herald.dev", "bgpadvertisements.herald.dev", "bgppeers.herald.dev", "nodes", "namespaces", "services", "endpointslices.discovery.k8s.io") {
		r.expect()
		r.compare()
	}
	r.withheld()
	r.differences()
	for _, x := range r.order {
		r.Problems = append(r.Problems, problem{x.kind, "", x.nodes, x.text(some(x.prefixes)+isOrAre(x.prefixes), some(x.nodes))})
	}
	ordered(r.Problems)
	return r.RoutesReport, nil
}

// take adds the response of one speaker.
func (r *routes) take(a *inspect.Routing) {
	r.More += a.More
	if a.Leaving != "" {
		r.Leaving = append(r.Leaving, leavingNode{a.Node, a.Leaving})
	}
	for _, route := range a.Routes {
		p, err := netip.ParsePrefix(route.Prefix)
		if err != nil || !r.query.wants(p) || !among(r.query.Peers, route.Peer) {
			continue
		}
		r.Routes = append(r.Routes, routeReport{Node: a.Node, RoutingRoute: route, Services: []string{}, prefix: p})
	}
}

// services sorts the routes, and adds the Services that they are for.
func (r *routes) services() {
	slices.SortFunc(r.Routes, func(x, y routeReport) int {
		return cmp.Or(x.prefix.Compare(y.prefix), cmp.Compare(x.Peer, y.Peer), cmp.Compare(x.Node, y.Node))
	})
	single, networks := map[netip.Prefix][]string{}, map[netip.Prefix][]string{}
	for i := range r.Routes {
		if p := r.Routes[i].prefix; !p.IsSingleIP() {
			networks[p] = nil
		}
	}
	for _, rec := range r.Allocations {
		address := addressOf(rec)
		names := owners(rec)
		single[netip.PrefixFrom(address, address.BitLen())] = names
		for p := range networks {
			if p.Contains(address) {
				networks[p] = append(networks[p], names...)
			}
		}
	}
	for i := range r.Routes {
		x := &r.Routes[i]
		names := slices.Concat(single[x.prefix], networks[x.prefix])
		slices.Sort(names)
		x.Services = list(slices.Compact(names))
		if r.actual[x.prefix] == nil {
			r.actual[x.prefix] = map[router]*routeReport{}
		}
		r.actual[x.prefix][router{x.Node, x.Peer}] = x
	}
}

func owners(rec *herald.IPAllocation) (names []string) {
	for _, o := range rec.Spec.Owners {
		names = append(names, o.Namespace+"/"+o.Name)
	}
	return names
}

// attributes returns the attributes of the route in words.
func (x *routeReport) attributes() string {
	var parts []string
	if x.LocalPreference != nil {
		parts = append(parts, "local preference "+strconv.FormatUint(uint64(*x.LocalPreference), 10))
	}
	if x.MED != nil {
		parts = append(parts, "MED "+strconv.FormatUint(uint64(*x.MED), 10))
	}
	if x.Prepend > 0 {
		parts = append(parts, fmt.Sprintf("prepend %d", x.Prepend))
	}
	if len(x.Communities) > 0 {
		parts = append(parts, "communities "+strings.Join(x.Communities, " "))
	}
	if x.LinkBandwidth > 0 {
		parts = append(parts, fmt.Sprintf("link bandwidth %g Mbit/s", x.LinkBandwidth*8/1e6))
	}
	return strings.Join(parts, ", ")
}

// Text writes the report for people.
func (r *RoutesReport) Text(s Style) string {
	var l lines
	told(&l, s, r.Problems, r.Unasked)
	for _, x := range r.Leaving {
		l.add(s.warn.Render("! "), fmt.Sprintf("node %s has been leaving for %s: its routes have the community %s (RFC 8326)", x.Node, x.For, route.GracefulShutdown))
	}
	if len(r.Unseen) > 0 {
		l.add(s.warn.Render("! "), "What is missing cannot be told: you may not list "+strings.Join(r.Unseen, ", "))
	}
	if r.More > 0 {
		l.add(s.warn.Render("! "), fmt.Sprintf("There are %d more routes: name an address, a prefix, a Service or, by --peer, a BGPPeer", r.More))
	}
	switch {
	case len(r.Routes) == 0 && len(r.Problems)+len(r.Unasked) == 0:
		l.add("No node announces such a route.")
	case len(r.Problems)+len(r.Unasked)+r.More == 0:
		l.add(s.good.Render("All routes are sent."))
	}
	if len(r.Routes) > 0 {
		l.add()
		l.table("", r.rows(s))
	}
	if len(r.NotSent) > 0 {
		rows := [][]string{titles(s, "NOT ANNOUNCED", "SERVICE", "BY", "WHY")}
		for _, x := range r.NotSent {
			by := some(x.Nodes)
			if len(x.Nodes) == 0 {
				by = "any node"
			}
			rows = append(rows, []string{x.Address, firstOf(x.Services), by, x.Reason})
		}
		l.add()
		l.table("", rows)
	}
	return l.String()
}

// rows returns one row for the same routes of several nodes.
func (r *RoutesReport) rows(s Style) [][]string {
	rows := [][]string{titles(s, "PREFIX", "SERVICE", "PEER", "SENT", "NODES", "NEXT HOPS", "ATTRIBUTES")}
	var last netip.Prefix
	for i := 0; i < len(r.Routes); {
		x := &r.Routes[i]
		rest := r.Routes[i:]
		n := slices.IndexFunc(rest, func(y routeReport) bool { return y.prefix != x.prefix || y.Peer != x.Peer })
		if n < 0 {
			n = len(rest)
		}
		type looks struct{ attributes, withheld string }
		nodes, hops, order := map[looks][]string{}, map[looks][]string{}, []looks{}
		for j := range rest[:n] {
			y := &rest[j]
			k := looks{y.attributes(), y.Withheld}
			if nodes[k] == nil {
				order = append(order, k)
			}
			nodes[k] = append(nodes[k], y.Node)
			if y.NextHop != "" && !slices.Contains(hops[k], y.NextHop) {
				hops[k] = append(hops[k], y.NextHop)
			}
		}
		for _, k := range order {
			sent := s.good.Render("yes")
			if k.withheld != "" {
				sent = s.bad.Render("no")
			}
			row := []string{"", "", x.Peer, sent, some(nodes[k]), orDash(some(hops[k])), k.attributes}
			if x.prefix != last {
				row[0], row[1] = x.Prefix, firstOf(x.Services)
			}
			last = x.prefix
			rows = append(rows, row)
		}
		i += n
	}
	return rows
}

// firstOf names the first of several Services.
func firstOf(services []string) string {
	switch n := len(services); n {
	case 0:
		return "-"
	case 1:
		return services[0]
	default:
		return fmt.Sprintf("%s and %d more", services[0], n-1)
	}
}
