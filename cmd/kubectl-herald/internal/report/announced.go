package report

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	netutils "k8s.io/utils/net"

	herald "github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/ipam"
	"github.com/heraldlb/herald/speaker/announce"
)

const seeSpeakers = "see whether herald-speaker runs there, and its log"

// announced says who announces an address, and what is wrong. It computes who must announce the address, with the
// speakers' own code, and compares the result with the speakers' reports.
func (s *situation) announced(al ipam.Allocation) []fact {
	v := &view{situation: s, al: al, address: al.Address.String()}
	v.strangers()
	v.externalIPs()
	needs := []string{
		"ippools.herald.dev", "ipallocations.herald.dev", "l2advertisements.herald.dev", "bgpadvertisements.herald.dev",
		"bgppeers.herald.dev", "speakerstatuses.herald.dev", "nodes", "namespaces", "endpointslices.discovery.k8s.io",
	}
	if !s.sees(needs...) {
		v.reported()
		return v.facts
	}
	rec, _ := s.record(al.Address)
	whole := announce.AddressOf(rec, s.now, func(n types.NamespacedName) *corev1.Service { return s.services[n] }, s.slicesOf)
	own := announce.AddressOf(rec, s.now, func(n types.NamespacedName) *corev1.Service {
		if n.Namespace == s.service.Namespace && n.Name == s.service.Name {
			return s.service
		}
		return nil
	}, s.slicesOf)
	if own == nil { // The facts already say what is missing.
		v.nobody("speakers announce an address that is recorded for the Service and is in its status", "")
		return v.facts
	}
	v.whole, v.own = whole, own
	v.decide()
	return v.facts
}

// view is one address of the Service.
type view struct {
	*situation
	al      ipam.Allocation
	address string
	// whole is the address with all Services that share it. own is the address as if this Service were the only one that
	// has it.
	whole, own *announce.Address

	facts []fact
	up    bool // A node announces it.
	// invalid says which advertisement is not valid, and why; empty if all are.
	invalid string
}

func (v *view) right(format string, args ...any) {
	v.facts = append(v.facts, fact{Address: v.address, Text: fmt.Sprintf(format, args...)})
}

func (v *view) wrong(cure, format string, args ...any) {
	v.facts = append(v.facts, fact{Address: v.address, Text: fmt.Sprintf(format, args...), Wrong: true, cure: cure})
}

// nobody adds the fact that no node announces the address, with the cause. The new fact comes before all other facts that
// are wrong.
func (v *view) nobody(cause, cure string) {
	i := slices.IndexFunc(v.facts, func(f fact) bool { return f.Wrong })
	f := fact{Address: v.address, Text: "is announced by no node: " + cause, Wrong: true, cure: cure}
	if i < 0 {
		i = len(v.facts)
	}
	v.facts = slices.Insert(v.facts, i, f)
}

// strangers adds the machines without a speaker that use the address, and the nodes that own it on the same segment.
func (v *view) strangers() {
	cure := fmt.Sprintf("find that machine and take the address from it, or give the Service another address: kubectl herald renumber %s/%s", v.service.Namespace, v.service.Name)
	conflicts := v.segments.conflicts()[v.address]
	for _, c := range conflicts {
		v.wrong(cure, "%s", c.text(v.now))
	}
	if rec, _ := v.record(v.al.Address); rec != nil && len(conflicts) == 0 && inConflict(rec) != nil {
		v.wrong(cure, "%s", inConflict(rec).Message)
	}
	if rivals := v.segments.rivals(v.address); rivals != nil {
		v.wrong("kubectl herald status shows which speakers do not hear each other, and kubectl herald verify "+v.address+" who answers", "%s", rivalry(rivals, v.now))
	}
}

// externalIPs adds other Services that receive the traffic to the address.
func (v *view) externalIPs() {
	// kube-proxy accepts every spelling of an address.
	same := func(text string) bool {
		ip, _ := netip.AddrFromSlice(netutils.ParseIPSloppy(text))
		return ip.Unmap() == v.al.Address
	}
	for _, name := range slices.SortedFunc(maps.Keys(v.services), func(x, y types.NamespacedName) int { return strings.Compare(x.String(), y.String()) }) {
		if svc := v.services[name]; svc != v.service && slices.ContainsFunc(svc.Spec.ExternalIPs, same) {
			v.wrong("remove it there, and forbid spec.externalIPs by an admission policy",
				"is in spec.externalIPs of Service %s, too: kube-proxy sends connections to that Service from every node (CVE-2020-8554)", name)
		}
	}
}

// reported adds what the speakers report about the address. It is used if the user may not read what decide needs.
func (v *view) reported() {
	owners := v.owned()
	for _, f := range owners {
		v.facts = append(v.facts, f.fact)
	}
	if len(owners) == 0 {
		v.right("who announces it cannot be seen")
	}
}

// decide compares what the speakers must do with what they report.
func (v *view) decide() {
	ads, nearest := v.advertisements()
	if what := announce.Decide(v.shared, v.whole).Refused; what != "" {
		v.nobody("it is "+what, "take it out of spec.addresses of the IPPool by spec.exclude, and give the Service another address: kubectl herald renumber "+
			v.service.Namespace+"/"+v.service.Name)
		return
	}
	if len(ads) == 0 && v.invalid != "" && nearest.step <= 0 { // The speakers that saw its last valid spec go on with that.
		for _, f := range v.owned() {
			v.facts = append(v.facts, f.fact)
		}
		v.wrong("correct it", "is not announced by speakers that start now: %s; speakers that have seen a valid spec of it announce by that one until they restart: kubectl herald bgp routes %s and kubectl herald verify %[2]s show who announces it",
			v.invalid, v.address)
		return
	}
	if len(ads) == 0 {
		v.nobody(nearest.cause, nearest.cure)
		return
	}
	a := &ailing{nodes: map[string][]string{}, cures: map[string]string{}}
	v.notPermitted(ads)
	l2, unowned := v.decideL2(ads, a)
	bgp := v.decideBGP(a)
	v.covered()
	v.facts = append(v.facts, a.facts(v.address)...)
	cut := v.segments.cut()
	switch {
	case len(unowned) > 0 && len(cut) > 0:
		v.wrong("find out who answers for it: kubectl herald verify "+v.address,
			"by %s: not known, since the SpeakerStatus of %s lists only some of the addresses that the node owns", protocolOf(v.al.Address), some(cut))
	case v.up:
		for _, segment := range unowned {
			v.wrong("kubectl herald status shows what they wait for", "by %s: none of the nodes that may own it on the segment of %s owns it: %s",
				protocolOf(v.al.Address), segment.Interface, some(segment.Candidates.Nodes()))
		}
	case len(unowned) > 0 || bgp:
		v.nobody(v.why(len(unowned) > 0), "")
	default:
		o := furthest(ads)
		v.nobody(o.ad.String()+": "+o.cause, o.cure)
	}
	if v.up {
		v.elsewhere(ads, l2, bgp)
	}
}

// elsewhere adds the advertisements that do not announce an address that is announced: those that cannot announce any
// address as they are, and those that must announce it on a segment, or to routers, because no other one does.
func (v *view) elsewhere(ads []*advertisement, l2, bgp bool) {
	for _, ad := range ads {
		decided := l2
		if ad.bgp != nil {
			decided = bgp
		}
		if o := ad.obstacle(); o != nil && (o.misconfigured || !decided && !o.excused) {
			v.wrong(o.cure, "%s: %s", ad, o.cause)
		}
		ad.unknownPeers()
	}
}

// reportedWithin is the longest time until a new address is announced, and also until a speaker has reported this.
const reportedWithin = 5 * time.Second

// why returns why no node announces the address although some must.
func (v *view) why(l2 bool) string {
	for _, f := range v.facts {
		if f.Wrong {
			return f.Text + ": " + f.cure
		}
	}
	if rec, _ := v.record(v.al.Address); rec != nil && v.now.Sub(rec.CreationTimestamp.Time) < reportedWithin {
		return fmt.Sprintf("it is recorded for %s only, and no speaker has reported it yet: ask again in a few seconds", age(rec.CreationTimestamp.Time, v.now))
	}
	if l2 {
		return "the nodes that may own it have not taken it yet: kubectl herald status shows what they wait for"
	}
	return "no session reports a route: see the log of herald-speaker"
}

// ailing collects what is wrong with nodes that must announce, and the nodes for each problem.
type ailing struct {
	order []string
	nodes map[string][]string
	cures map[string]string
}

func (a *ailing) add(node, what, cure string) {
	if _, ok := a.nodes[what]; !ok {
		a.order = append(a.order, what)
	}
	if !slices.Contains(a.nodes[what], node) {
		a.nodes[what] = append(a.nodes[what], node)
	}
	a.cures[what] = cure
}

// facts returns the problems as facts. The word NODE in a problem is replaced by the nodes.
func (a *ailing) facts(address string) (all []fact) {
	for _, what := range a.order {
		name := "node "
		if len(a.nodes[what]) > 1 {
			name = "nodes "
		}
		all = append(all, fact{Address: address, Text: strings.Replace(what, "NODE", name+some(a.nodes[what]), 1), Wrong: true, cure: a.cures[what]})
	}
	return all
}

// state reports whether a node can announce, and notes why it cannot.
func (v *view) state(node string, a *ailing) bool {
	st := statusOf(v.Objects, node)
	switch {
	case st == nil:
		a.add(node, "not by NODE: no SpeakerStatus", seeSpeakers)
	case v.segments.stale[node] != "":
		a.add(node, "not by NODE, as far as is known: "+v.segments.stale[node], seeSpeakers)
	case st.Status.Problem != "":
		a.add(node, "not by NODE: "+st.Status.Problem, "mend it there")
	default:
		return true
	}
	return false
}

// notPermitted adds the annotations of the Service that have no effect because no advertisement that announces it permits
// them.
func (v *view) notPermitted(ads []*advertisement) {
	for _, key := range slices.Sorted(maps.Keys(herald.OverrideAnnotations)) {
		if _, asked := v.service.Annotations[key]; !asked {
			continue
		}
		var some *advertisement
		permitted := false
		for _, ad := range ads {
			if ad.bgp != nil {
				some = ad
				permitted = permitted || slices.Contains(ad.bgp.Permits, herald.OverrideAnnotations[key])
			}
		}
		if some != nil && !permitted {
			v.wrong(fmt.Sprintf("add %s to spec.serviceOverrides of %s, or remove the annotation", herald.OverrideAnnotations[key], some),
				"annotation %s has no effect: no BGPAdvertisement of the address permits it", key)
		}
	}
}

// decideBGP adds which nodes announce to which peers. It reports whether any node must.
func (v *view) decideBGP(a *ailing) (decided bool) {
	to := map[string][]string{} // Nodes by peer, with the network if they announce it instead: "tor-a, in 198.51.100.0/24".
	decisions := maps.Collect(announce.DecideRoutes(v.shared, v.whole))
	for _, node := range slices.Sorted(maps.Keys(decisions)) {
		d := decisions[node]
		for peer := range d.Exports {
			to[peer] = append(to[peer], node)
		}
		for _, a := range d.Aggregates {
			if key := fmt.Sprintf("%s, in %s", a.Peer, a.Prefix); !slices.Contains(to[key], node) {
				to[key] = append(to[key], node)
			}
		}
	}
	sticky := ""
	if v.service.Spec.SessionAffinity == corev1.ServiceAffinityClientIP {
		sticky = " (one node only, since spec.sessionAffinity is ClientIP)"
	}
	for _, route := range slices.Sorted(maps.Keys(to)) {
		decided = true
		peer, _, _ := strings.Cut(route, ",")
		var by []string
		for _, node := range to[route] {
			if v.state(node, a) && v.session(node, peer, a) {
				by = append(by, node)
			}
		}
		if len(by) > 0 {
			v.up = true
			v.right("by BGP: %s to %s%s", some(by), route, sticky)
		}
	}
	return decided
}

// covered adds the announced networks that have the address although a Service with the address must not be announced to
// routers. A network is one route: routers send all traffic for it to the nodes.
func (v *view) covered() {
	silent := false
	asked := *v.whole
	asked.Services = make([]*announce.Service, len(v.whole.Services))
	for i, svc := range v.whole.Services {
		loud := *svc
		if svc.Overrides != nil && svc.Overrides.Silent {
			silent, loud.Overrides = true, nil
		}
		asked.Services[i] = &loud
	}
	if !silent {
		return
	}
	told := map[announce.Aggregate]bool{}
	own, loud := maps.Collect(announce.DecideRoutes(v.shared, v.whole)), maps.Collect(announce.DecideRoutes(v.shared, &asked))
	for _, node := range slices.Sorted(maps.Keys(loud)) {
		for _, network := range loud[node].Aggregates {
			if told[network] || slices.Contains(own[node].Aggregates, network) {
				continue
			}
			if other, some := v.announcedFor(node, network); some {
				told[network] = true
				v.wrong(fmt.Sprintf("have it ask for a pool whose addresses are not announced in networks, by the annotation %s, if routers are not to reach it", herald.AnnotationPool),
					"opted out by the annotation %s, but covered by the network %s, which BGPAdvertisement %s announces to %s for others, such as %s: routers send to the nodes what is for it, and kube-proxy forwards that",
					herald.AnnotationBGPAnnounce, network.Prefix, network.Advertisement, network.Peer, other)
			}
		}
	}
}

// announcedFor returns another address for which the node announces the network, if there is one. If the endpoints of an
// address are not known, it assumes that there are some.
func (v *view) announcedFor(node string, network announce.Aggregate) (other netip.Addr, some bool) {
	for i, rec := range v.Allocations {
		if address := v.held[i].Address; address == v.al.Address || !network.Prefix.Contains(address) {
			continue
		}
		a := announce.AddressOf(rec, v.now, func(n types.NamespacedName) *corev1.Service { return v.services[n] }, v.slicesOf)
		if a == nil {
			continue
		}
		for _, svc := range a.Services {
			svc.Ready4, svc.Ready6 = []string{""}, []string{""}
		}
		for other, d := range announce.DecideRoutes(v.shared, a) {
			if other == node && slices.Contains(d.Aggregates, network) {
				return a.Addr, true
			}
		}
	}
	return netip.Addr{}, false
}

// session reports whether a node sends the address's route to a peer, and notes why not.
func (v *view) session(node, peer string, a *ailing) bool {
	st := statusOf(v.Objects, node) // state has found it.
	if i := slices.IndexFunc(st.Status.Sessions, func(x herald.SpeakerSession) bool { return x.Peer == peer }); i >= 0 {
		x := st.Status.Sessions[i]
		if x.BFD != "" && x.BFD != bfdUp {
			a.add(node, strings.TrimSuffix(fmt.Sprintf("by BGP: BFD of NODE with %s is %s: %s", peer, x.BFD, x.BFDReason), ": "),
				"see the path between them and BFD on the router: kubectl herald bgp peers "+peer)
		}
		if x.State != established {
			a.add(node, strings.TrimSuffix(fmt.Sprintf("by BGP: the session of NODE with %s is %s: %s", peer, x.State, x.Reason), ": "),
				"compare the BGPPeer with the router's configuration: kubectl describe bgppeers.herald.dev "+peer)
		}
		if x.State == established && withholds(x.Withheld, v.al.Address) {
			a.add(node, fmt.Sprintf("by BGP: its route from NODE to %s is withheld: %s", peer, whyWithheld(x.Reason)), "kubectl herald bgp peers "+peer+" says more")
			return false
		}
		return x.State == established
	}
	if len(st.Status.Sessions) >= herald.MaxStatusSessions {
		a.add(node, fmt.Sprintf("by BGP: the SpeakerStatus of NODE lists only its first %d sessions, and not that with %s", herald.MaxStatusSessions, peer), "ask the speaker: kubectl herald bgp peers "+peer)
		return false
	}
	a.add(node, "by BGP: there is no session of NODE with "+peer, seeSpeakers)
	return false
}

// decideL2 adds which nodes own the address on which segments. It reports whether any segment must have an owner, and
// returns the segments that have none.
func (v *view) decideL2(ads []*advertisement, a *ailing) (decided bool, unowned []announce.Placement) {
	snapshot := *v.shared
	snapshot.Healthy, snapshot.Segments = true, v.on
	may := map[place]bool{} // Where an owner may be: the place that represents the segment.
	candidates := map[string]bool{}
	unowned = announce.Decide(&snapshot, v.whole).Segments
	for _, p := range unowned {
		decided = true
		for _, node := range p.Candidates.Nodes() {
			candidates[node] = true
			may[place{node, p.Interface}] = true
		}
	}
	for _, f := range v.owned() {
		o, segment := f.owner, v.segments.segmentName(f.owner.place)
		switch {
		case o.Stale != "":
		case o.DeputyFor != "" || may[place{o.Node, segment}]:
			v.up = true
			unowned = slices.DeleteFunc(unowned, func(p announce.Placement) bool { return p.Interface == segment })
		default:
			f.Text += ", and will give it up"
		}
		v.facts = append(v.facts, f.fact)
	}
	// Look for nodes that would be candidates if their speakers worked.
	for _, node := range slices.Sorted(maps.Keys(v.shared.Nodes)) {
		n := v.shared.Nodes[node]
		selected := slices.ContainsFunc(ads, func(ad *advertisement) bool { return ad.l2 != nil && ad.l2.Selector.Node(n.Labels) })
		if selected && !n.Excluded && v.mayServe(node) && (candidates[node] || !v.works(node)) {
			v.state(node, a)
		}
	}
	return decided, unowned
}

// works reports whether the speaker of a node reports, so that the segments of the node are known.
func (v *view) works(node string) bool {
	return v.segments.stale[node] == "" && statusOf(v.Objects, node) != nil
}

// mayServe reports whether there is an endpoint to which a node may send traffic.
func (v *view) mayServe(node string) bool {
	svc := v.own.Services[0]
	return !svc.Local || slices.Contains(svc.Ready(v.al.Address), node)
}

// ownedFact is a fact about an owner.
type ownedFact struct {
	fact
	owner owner
}

// owned returns the owners of the address on the segments, from the speakers' reports. It returns claims that are out of
// date only if there are no others.
func (v *view) owned() (facts []ownedFact) {
	owners := v.segments.current(v.address)
	if len(owners) == 0 {
		owners = v.segments.owners[v.address]
	}
	for _, o := range owners {
		f := fact{Address: v.address}
		by := "by " + protocolOf(v.al.Address) + " on " + o.Interface + ": "
		switch {
		case o.Stale != "":
			f.Text, f.Wrong, f.cure = fmt.Sprintf("%snode %s owned it, but %s", by, o.Node, o.Stale), true, seeSpeakers
		case o.DeputyFor != "":
			f.Text, f.Wrong = fmt.Sprintf("%snode %s answers for %s, whose speaker is silent%s%s", by, o.Node, o.DeputyFor, o.age(v.now), o.why()), true
			f.cure = "see why the herald-speaker of node " + o.DeputyFor + " is silent"
		default:
			f.Text = fmt.Sprintf("%snode %s owns it%s%s", by, o.Node, o.age(v.now), o.why())
		}
		facts = append(facts, ownedFact{f, o})
	}
	return facts
}

// rivalry says which nodes own an address on one segment.
func rivalry(rivals []owner, now time.Time) string {
	var texts []string
	for _, r := range rivals {
		texts = append(texts, r.Node+" ("+r.Interface+r.age(now)+")")
	}
	return "has " + count(len(rivals), "owner", "owners") + " on one segment: " + strings.Join(texts, ", ")
}

// inConflict returns the condition of a record that says that a stranger uses the address, or nil.
func inConflict(rec *herald.IPAllocation) *metav1.Condition {
	if !meta.IsStatusConditionTrue(rec.Status.Conditions, herald.AllocationConflict) {
		return nil
	}
	return meta.FindStatusCondition(rec.Status.Conditions, herald.AllocationConflict)
}

// protocolOf returns the protocol that announces an address on a segment.
func protocolOf(address netip.Addr) string {
	if address.Is4() {
		return "ARP"
	}
	return "NDP"
}
