package report

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	herald "github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/ipam"
	"github.com/heraldlb/herald/speaker/announce"
	"github.com/heraldlb/herald/speaker/bgp/route"
	"github.com/heraldlb/herald/speaker/inspect"
)

// expect computes the routes that must exist, with the speakers' own code.
func (r *routes) expect() {
	for _, rec := range r.Allocations {
		address := addressOf(rec)
		own := netip.PrefixFrom(address, address.BitLen())
		if !r.query.wants(own) {
			continue
		}
		whole := announce.AddressOf(rec, r.now, func(n types.NamespacedName) *corev1.Service { return r.situation.services[n] }, r.slicesOf)
		if whole == nil {
			continue // Speakers announce only addresses that are recorded and in a Service's status.
		}
		decisions := maps.Collect(announce.DecideRoutes(r.shared, whole))
		for node, d := range decisions {
			for peer := range d.Exports {
				r.want(own, router{node, peer})
			}
			for _, a := range d.Aggregates {
				r.want(a.Prefix, router{node, a.Peer})
			}
		}
		r.absent(rec, whole, decisions)
	}
}

func (r *routes) want(p netip.Prefix, to router) {
	if !among(r.query.Peers, to.peer) {
		return
	}
	if r.expected[p] == nil {
		r.expected[p] = map[router]bool{}
	}
	r.expected[p][to] = true
}

// absent says why some or all nodes do not announce an address. It mentions that some do not only if the user asks about
// the address.
func (r *routes) absent(rec *herald.IPAllocation, whole *announce.Address, decisions map[string]announce.Decision) {
	asked := len(r.query.Prefixes) > 0
	if len(decisions) > 0 && !asked {
		return
	}
	svc := r.situation.services[whole.Services[0].Name]
	s := r.about(svc)
	v := &view{situation: s, al: ipam.Allocation{Address: whole.Addr, Pool: rec.Spec.Pool}, address: whole.String(), whole: whole}
	v.own = &announce.Address{Addr: whole.Addr, Pool: whole.Pool, New: whole.New, Services: whole.Services[:1]}
	all, _ := v.advertisements()
	ads := slices.DeleteFunc(all, func(ad *advertisement) bool { return ad.bgp == nil })
	say := func(nodes []string, reason string) {
		r.NotSent = append(r.NotSent, notSentReport{v.address, owners(rec), nodes, reason})
	}
	if what := announce.Decide(r.shared, whole).Refused; what != "" {
		r.add(notSent, netip.PrefixFrom(whole.Addr, whole.BitLen()), "", what, func(prefixes, _ string) string {
			return fmt.Sprintf("%s not announced: it is %s: take it out of spec.addresses of the IPPool by spec.exclude", prefixes, what)
		})
		return
	}
	if len(ads) == 0 {
		if asked {
			say([]string{}, "no BGPAdvertisement selects it")
		}
		return
	}
	if len(decisions) == 0 {
		switch o := furthest(ads); {
		case o == nil:
		case o.misconfigured:
			text := fmt.Sprintf("%s: %s: %s", o.ad, o.cause, o.cure)
			r.add(notSent, netip.PrefixFrom(whole.Addr, whole.BitLen()), "", text, func(prefixes, _ string) string {
				return fmt.Sprintf("%s not announced: %s", prefixes, text)
			})
		default:
			say([]string{}, o.ad.String()+": "+o.cause)
		}
		return
	}
	by := map[string][]string{}
	for _, node := range slices.Sorted(maps.Keys(r.shared.Nodes)) {
		if _, does := decisions[node]; !does && among(r.query.Nodes, node) {
			reason := unmetOn(node, ads)
			by[reason] = append(by[reason], node)
		}
	}
	for _, reason := range slices.Sorted(maps.Keys(by)) {
		say(by[reason], reason)
	}
}

// unmetOn returns why a node does not announce an address that others announce, for the advertisement that comes
// closest.
func unmetOn(node string, ads []*advertisement) string {
	reason, most := "another node announces it, since spec.sessionAffinity is ClientIP", -1
	for _, ad := range ads {
		if step, c := ad.unmet(node); c != nil && step > most {
			if most = step; c.here != nil {
				reason = c.here(ad, node)
			} else {
				reason, _ = c.tell(ad)
			}
		}
	}
	return reason
}

// compare notes routes that are missing, and routes that must not exist.
func (r *routes) compare() {
	for _, p := range slices.SortedFunc(maps.Keys(r.expected), netip.Prefix.Compare) {
		for _, to := range slices.SortedFunc(maps.Keys(r.expected[p]), compareRouters) {
			a := r.answers[to.node]
			if a == nil || a.More > 0 || r.actual[p][to] != nil {
				continue
			}
			why := missing(a, p, to.peer)
			r.add(notSent, p, to.node, to.peer+"\n"+why, func(prefixes, nodes string) string {
				return fmt.Sprintf("%s not sent to %s by %s: %s", prefixes, to.peer, nodes, why)
			})
		}
	}
	for _, p := range slices.SortedFunc(maps.Keys(r.actual), netip.Prefix.Compare) {
		for _, to := range slices.SortedFunc(maps.Keys(r.actual[p]), compareRouters) {
			if r.expected[p][to] || r.answers[to.node].Leaving != "" || r.outside(p) {
				continue
			}
			r.add(routesDiffer, p, to.node, "more\n"+to.peer, func(prefixes, nodes string) string {
				return fmt.Sprintf("%s announced to %s by %s without a BGPAdvertisement that says so: ask again, and if that stays see whether herald-speaker there reaches the API server", prefixes, to.peer, nodes)
			})
		}
	}
}

// outside reports whether the expected state of a network is unknown because only some addresses were examined.
func (r *routes) outside(p netip.Prefix) bool { return len(r.query.Prefixes) > 0 && !p.IsSingleIP() }

// missing returns why a node lacks a route that it must have.
func missing(a *inspect.Routing, p netip.Prefix, peer string) string {
	if a.Problem != "" {
		return "the node announces nothing: " + a.Problem
	}
	for _, h := range a.Held {
		if h.Address == p.Addr().String() {
			return h.Reason
		}
	}
	i := slices.IndexFunc(a.Peers, func(o inspect.RoutingPeer) bool { return o.Peer == peer })
	switch {
	case i < 0 && a.MorePeers > 0:
		return "its speaker has more BGPPeers than it tells of at once: name this one, by --peer, to learn why"
	case i < 0:
		return "it has no session with that peer: see its log"
	case unusable(a.Peers[i].State):
		return a.Peers[i].Reason
	case a.Leaving != "":
		return "the node has been leaving for " + a.Leaving + ", and announces nothing new"
	case a.MoreHeld > 0:
		return "its speaker holds back more addresses than it tells of at once: name the address to learn why"
	}
	return "the speaker has not done so yet: ask again, and if that stays see its log and whether it reaches the API server"
}

func compareRouters(x, y router) int {
	return cmp.Or(cmp.Compare(x.peer, y.peer), cmp.Compare(x.node, y.node))
}

// withheld notes the routes that were not sent to the routers.
func (r *routes) withheld() {
	for i := range r.Routes {
		x := &r.Routes[i]
		if x.Withheld == "" {
			continue
		}
		kind, why := routesWithheld, x.Withheld
		peers := r.answers[x.Node].Peers
		if j := slices.IndexFunc(peers, func(o inspect.RoutingPeer) bool { return o.Peer == x.Peer }); j >= 0 && peers[j].State != established {
			kind, why = sessionDown, "the session is down: "+cmp.Or(peers[j].Reason, "no attempt has failed yet")
		}
		r.add(kind, x.prefix, x.Node, x.Peer+"\n"+why, func(prefixes, nodes string) string {
			return fmt.Sprintf("%s not sent to %s by %s: %s", prefixes, x.Peer, nodes, why)
		})
	}
}

// differences notes where nodes announce one prefix to one peer with different attributes.
func (r *routes) differences() {
	for _, p := range slices.SortedFunc(maps.Keys(r.actual), netip.Prefix.Compare) {
		by := map[string]map[string][]string{} // Nodes by peer and attributes.
		for _, to := range slices.SortedFunc(maps.Keys(r.actual[p]), compareRouters) {
			x := *r.actual[p][to]
			if r.answers[to.node].Leaving != "" {
				x.Communities = slices.DeleteFunc(slices.Clone(x.Communities), func(c string) bool { return c == route.GracefulShutdown.String() })
			}
			if x.LinkBandwidth > 0 {
				x.LinkBandwidth = 1 // The value depends on the endpoints, so only its presence is compared.
			}
			if by[to.peer] == nil {
				by[to.peer] = map[string][]string{}
			}
			what := cmp.Or(x.attributes(), "none")
			by[to.peer][what] = append(by[to.peer][what], to.node)
		}
		for _, peer := range slices.Sorted(maps.Keys(by)) {
			if len(by[peer]) < 2 {
				continue
			}
			var parts, nodes []string
			for _, what := range slices.Sorted(maps.Keys(by[peer])) {
				parts = append(parts, fmt.Sprintf("%s from %s", what, some(by[peer][what])))
				nodes = append(nodes, by[peer][what]...)
			}
			slices.Sort(nodes)
			text := fmt.Sprintf("to %s with different attributes, which ought to be equal: %s: ask again, and if that stays see whether these speakers reach the API server", peer, strings.Join(parts, "; "))
			for _, node := range nodes {
				r.add(routesDiffer, p, node, text, func(prefixes, _ string) string { return prefixes + " announced " + text })
			}
		}
	}
}
