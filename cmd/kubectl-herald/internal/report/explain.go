package report

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/duration"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"

	herald "github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/ipam"
	"github.com/heraldlb/herald/provider"
	"github.com/heraldlb/herald/speaker/announce"
)

// ServiceReport is the output of explain service for programs. It has one entry for each fact, and the next thing to do.
// Lists that do not concern the Service are empty.
type ServiceReport struct {
	Service string   `json:"service"`
	Class   string   `json:"class"` // Which load balancer serves it.
	Asks    []string `json:"asks"`
	// Ignored are annotations that look as if they were for Herald, and that Herald does not read.
	Ignored   []string        `json:"ignored"`
	Pools     []verdictReport `json:"pools"` // In the order of choice.
	Addresses []fact          `json:"addresses"`
	// Endpoints is empty if Herald does not serve the Service.
	Endpoints *endpointsReport `json:"endpoints,omitempty"`
	Announced []fact           `json:"announced"`
	Unseen    []string         `json:"unseen"` // Resources that the user may not read.
	Unread    []string         `json:"unread"` // Objects that could not be read, and why.
	Next      string           `json:"next"`   // Empty: nothing has to be done, as far as can be seen.
	// Check is what to check if clients cannot connect although nothing has to be done; empty if there is nothing to suggest.
	Check string `json:"check"`

	served bool // It has the addresses that it asks for, so the pools' free addresses do not matter.
}

// verdictReport says whether a pool would serve a request for a new address.
type verdictReport struct {
	Pool   string `json:"pool"`
	Family string `json:"family"`
	Fits   bool   `json:"fits"`
	Text   string `json:"text"`

	invalid bool // The spec of the pool is invalid, which concerns every Service.
}

// fact is a statement about an address.
type fact struct {
	Address string `json:"address"`
	Text    string `json:"text"`
	Wrong   bool   `json:"wrong"`

	cure string // What to do if Wrong.
}

// next returns a wrong fact, with what to do about it.
func (f *fact) next() string {
	text := f.Address + " " + f.Text
	if f.cure != "" {
		text += ": " + f.cure
	}
	return text
}

// endpointsReport counts the ready endpoints. A pod with an address of each family is one endpoint.
type endpointsReport struct {
	Ready int      `json:"ready"`
	IPv4  int      `json:"ipv4"`
	IPv6  int      `json:"ipv6"`
	Nodes []string `json:"nodes"` // Those with a ready endpoint. An endpoint may be on no node.
	Local bool     `json:"local"` // Only these nodes announce: externalTrafficPolicy is Local.
	// Unserved says which ports of the Service no ready endpoint has, and why, if some endpoint is ready.
	Unserved []string `json:"unserved"`
}

// situation is a Service and everything that concerns it.
type situation struct {
	*Objects
	now       time.Time
	service   *corev1.Service
	namespace *corev1.Namespace // nil if it cannot be read
	held      []ipam.Record     // From Allocations, in their order.

	services map[types.NamespacedName]*corev1.Service
	slices   map[types.NamespacedName][]*discoveryv1.EndpointSlice

	shared   *announce.Shared
	rejected []announce.Rejected
	segments *segments
	on       []announce.Segment // One for each segment, with its nodes.
	gone     map[string]string  // Why the report of a node's speaker is ignored.
}

// Explain follows a Service from its request to the announcement of its addresses. It needs Pools, Allocations, the
// advertisements, BGPPeers, Speakers, Nodes, Namespaces, Services, and the EndpointSlices of this Service and of those that
// share an address with it. Leases and Warnings give further information. The resources in Unseen may be missing.
func Explain(o *Objects, svc *corev1.Service, ccm *CCM, now time.Time) (*ServiceReport, error) {
	svc = ccm.Foreign.Read(svc)
	r := &ServiceReport{
		Service: svc.Namespace + "/" + svc.Name, Asks: []string{}, Ignored: ignored(svc), Pools: []verdictReport{}, Addresses: []fact{},
		Announced: []fact{}, Unseen: list(o.Unseen), Unread: list(o.Unread),
	}
	if svc.DeletionTimestamp == nil && ccm.announces(svc, slices.Values(o.Pools)) {
		return r, r.elsewhere(o, svc, ccm, now)
	}
	if r.Class, r.Next = classOf(svc, ccm); r.Next != "" {
		return r, nil
	}
	s := situationOf(o, now).about(svc)
	r.Unread = list(o.Unread)
	req, err := provider.RequestOf(svc, s.namespace, ccm.Quota)
	if err != nil {
		r.Next = err.Error()
		return r, nil
	}
	if o.Grants != nil {
		req.Granted, req.Claimed = o.Grants.Of(req.Owner), o.Grants.Claimed(req.Owner)
	}
	r.Asks, r.Endpoints = asks(svc, &req), s.ready()
	var next []string // What to do, in the order of the steps from request to announcement.
	var held []ipam.Allocation
	if o.sees("ippools.herald.dev", "ipallocations.herald.dev") {
		pools, invalid := poolsInForce(o.Pools, nil, s.held)
		a, err := ipam.Rebuilt(pools, s.held, o.occupied())
		if err != nil {
			return nil, err
		}
		for _, v := range a.Explain(req) {
			text, err := provider.VerdictWords(v), invalid[v.Pool]
			switch {
			case err != nil:
				text = invalidWords(s.pool(v.Pool), err)
			case v.Refused != nil && v.Refused.Cause == ipam.NotGrantedYet:
				text = s.waits(a, req, v.Refused)
			}
			r.Pools = append(r.Pools, verdictReport{v.Pool, v.Family.String(), v.Refused == nil, text, err != nil})
		}
		held = a.HeldBy(req.Owner)
		for _, al := range held {
			r.Addresses = append(r.Addresses, s.origin(al, &req))
		}
		for _, f := range a.NotKept(req) {
			if rec, _ := s.record(f.Address); rec.Spec.ReleasedAt == nil { // A released address only cools down.
				r.Addresses = append(r.Addresses, fact{Address: f.Address.String(), Text: "is reserved for the Service, but " + provider.NotKeptWords(f, req.Owner), Wrong: true,
					cure: "delete the IPAllocation " + rec.Name + " if the reservation is not needed, or have the Service ask for the address by the annotation " + herald.AnnotationIPs})
			}
		}
		r.Addresses = append(r.Addresses, s.clashes(a, &req, held)...)
		lacking := s.lacking(a, req, held, invalid)
		r.served = lacking == ""
		next = append(next, s.unrecorded(), lacking)
	} else {
		for _, address := range provider.Carried(svc) {
			held = append(held, ipam.Allocation{Address: address})
			r.Addresses = append(r.Addresses, fact{Address: address.String(), Text: "is in its status; pool and record cannot be seen"})
		}
	}
	for _, al := range held {
		r.Announced = append(r.Announced, s.announced(al)...)
	}
	for _, f := range slices.Concat(r.Addresses, r.Announced) {
		if f.Wrong {
			next = append(next, f.next())
		}
	}
	if r.Next = cmp.Or(slices.Concat(next, r.Endpoints.Unserved, r.Ignored, r.Unread)...); r.Next == "" && r.Endpoints.Ready > 0 {
		r.Check = whetherPodsListen(svc)
	}
	return r, nil
}

// whetherPodsListen says how to find out whether the pods of a Service listen on its ports, which the API does not know. It is empty for a
// Service without pods or without TCP ports, because kubectl port-forward does not serve it.
func whetherPodsListen(svc *corev1.Service) string {
	if len(svc.Spec.Selector) == 0 {
		return ""
	}
	const most = 5
	var ports, targets, forwarded []string
	for _, p := range svc.Spec.Ports {
		if cmp.Or(p.Protocol, corev1.ProtocolTCP) != corev1.ProtocolTCP || len(ports) == most {
			continue
		}
		port := strconv.Itoa(int(p.Port))
		target := p.TargetPort.String()
		if target == "0" || target == "" { // The API server sets it to the port.
			target = port
		}
		ports, targets, forwarded = append(ports, port), append(targets, quoted(target)), append(forwarded, ":"+port)
	}
	if len(ports) == 0 {
		return ""
	}
	return fmt.Sprintf("If clients cannot connect to port %s, see whether the pods listen on targetPort %s: kubectl -n %s port-forward service/%s %s, and connect to the port of localhost that it prints.",
		strings.Join(ports, " or "), strings.Join(targets, " or "), svc.Namespace, svc.Name, strings.Join(forwarded, " "))
}

// situationOf returns the situation of all Services; about turns it into that of one Service.
func situationOf(o *Objects, now time.Time) *situation {
	o.sort()
	s := &situation{
		Objects: o, now: now, held: o.held(),
		services: map[types.NamespacedName]*corev1.Service{}, slices: map[types.NamespacedName][]*discoveryv1.EndpointSlice{},
	}
	for _, other := range o.Services {
		s.services[types.NamespacedName{Namespace: other.Namespace, Name: other.Name}] = other
	}
	for _, slice := range o.Endpoints {
		name := types.NamespacedName{Namespace: slice.Namespace, Name: slice.Labels[discoveryv1.LabelServiceName]}
		s.slices[name] = append(s.slices[name], slice)
	}
	s.gone = s.goneSpeakers()
	s.segments = segmentsOf(o.Speakers, s.gone)
	s.on = s.segments.joined()
	s.shared, s.rejected = (&announce.Objects{
		Nodes: o.Nodes, Namespaces: o.Namespaces, Pools: o.Pools,
		L2Advertisements: o.L2Advertisements, BGPAdvertisements: o.BGPAdvertisements, BGPPeers: o.BGPPeers,
	}).Shared()
	for _, o := range o.Speakers { // Each speaker knows the gateways of its own node.
		for _, i := range o.Status.Interfaces {
			for _, text := range i.Gateways {
				if gateway, err := netip.ParseAddr(text); err == nil && s.shared.Infrastructure[gateway] == "" {
					s.shared.Infrastructure[gateway] = "a gateway of node " + o.Name
				}
			}
		}
	}
	return s
}

// about returns the situation of one Service.
func (s *situation) about(svc *corev1.Service) *situation {
	o := *s
	o.service, o.namespace = svc, nil
	for _, n := range s.Namespaces {
		if n.Name == svc.Namespace {
			o.namespace = n
		}
	}
	o.services[types.NamespacedName{Namespace: svc.Namespace, Name: svc.Name}] = svc
	return &o
}

// goneSpeakers returns, for each node whose SpeakerStatus must be ignored, the reason.
func (s *situation) goneSpeakers() map[string]string {
	gone := silentSpeakers(s.Leases, s.now)
	if !s.sees("nodes") {
		return gone
	}
	for _, o := range s.Speakers {
		i := slices.IndexFunc(s.Nodes, func(n *corev1.Node) bool { return n.Name == o.Name })
		switch {
		case i < 0:
			gone[o.Name] = "there is no such node"
		case len(s.Leases) == 0 && !isReady(s.Nodes[i]) && gone[o.Name] == "":
			gone[o.Name] = "the node is not Ready"
		}
	}
	return gone
}

// ignored returns the annotations of the Service that have no effect.
func ignored(svc *corev1.Service) []string {
	lines := []string{}
	for _, text := range provider.AnnotationWarnings(svc) {
		lines = append(lines, "annotation "+text)
	}
	return lines
}

// ready counts the ready endpoints.
func (s *situation) ready() *endpointsReport {
	r := &endpointsReport{Nodes: []string{}, Unserved: []string{}, Local: s.service.Spec.ExternalTrafficPolicy == corev1.ServiceExternalTrafficPolicyLocal}
	own := s.slices[types.NamespacedName{Namespace: s.service.Namespace, Name: s.service.Name}]
	distinct := map[discoveryv1.AddressType]map[string]bool{discoveryv1.AddressTypeIPv4: {}, discoveryv1.AddressTypeIPv6: {}, "": {}}
	for _, slice := range own {
		of, known := distinct[slice.AddressType]
		if !known {
			continue
		}
		for i, e := range slice.Endpoints {
			if e.Conditions.Ready != nil && !*e.Conditions.Ready {
				continue
			}
			key := fmt.Sprint(slice.Name, "/", i)
			if e.TargetRef != nil {
				key = fmt.Sprint(e.TargetRef.Kind, "/", e.TargetRef.Namespace, "/", e.TargetRef.Name)
			} else if len(e.Addresses) > 0 {
				key = e.Addresses[0]
			}
			of[key], distinct[""][key] = true, true
		}
	}
	r.IPv4, r.IPv6, r.Ready = len(distinct[discoveryv1.AddressTypeIPv4]), len(distinct[discoveryv1.AddressTypeIPv6]), len(distinct[""])
	ready4, ready6 := announce.Ready(own)
	for _, node := range slices.Concat(ready4, ready6) {
		if node != "" && !slices.Contains(r.Nodes, node) {
			r.Nodes = append(r.Nodes, node)
		}
	}
	slices.Sort(r.Nodes)
	if r.Ready > 0 {
		r.Unserved = s.unserved(own)
	}
	return r
}

// unserved returns the ports of the Service that no ready endpoint has. A pod without the port that targetPort names is in an
// EndpointSlice without that port. Whether a process listens on a port is not known to the API.
func (s *situation) unserved(own []*discoveryv1.EndpointSlice) []string {
	texts := []string{}
	for _, p := range s.service.Spec.Ports {
		if slices.ContainsFunc(own, func(slice *discoveryv1.EndpointSlice) bool { return hasPort(slice, &p) && hasReady(slice) }) {
			continue
		}
		protocol := cmp.Or(p.Protocol, corev1.ProtocolTCP)
		text := fmt.Sprintf("connections to %s port %d fail: ", protocol, p.Port)
		switch {
		case p.TargetPort.Type == intstr.String && len(s.service.Spec.Selector) > 0:
			text += fmt.Sprintf("spec.ports has targetPort: %s, and no container of the ready pods has a %s port of this name: correct targetPort, or name the port in the pods",
				quoted(p.TargetPort.StrVal), protocol)
		case p.Name == "":
			text += fmt.Sprintf("no EndpointSlice with a ready endpoint has a %s port without a name: correct the ports of the EndpointSlices", protocol)
		default:
			text += fmt.Sprintf("no EndpointSlice with a ready endpoint has a %s port %s: correct the ports of the EndpointSlices", protocol, quoted(p.Name))
		}
		texts = append(texts, text)
	}
	return texts
}

// hasPort reports whether an EndpointSlice has a port of a Service. kube-proxy, too, goes by name and protocol.
func hasPort(slice *discoveryv1.EndpointSlice, p *corev1.ServicePort) bool {
	return slices.ContainsFunc(slice.Ports, func(o discoveryv1.EndpointPort) bool {
		return o.Port != nil && ptr.Deref(o.Name, "") == p.Name && ptr.Deref(o.Protocol, corev1.ProtocolTCP) == cmp.Or(p.Protocol, corev1.ProtocolTCP)
	})
}

func hasReady(slice *discoveryv1.EndpointSlice) bool {
	return slices.ContainsFunc(slice.Endpoints, func(e discoveryv1.Endpoint) bool { return ptr.Deref(e.Conditions.Ready, true) })
}

// classOf says which load balancer serves a Service, and what to do if it is not herald-ccm.
func classOf(svc *corev1.Service, ccm *CCM) (class, next string) {
	const again = "the field cannot be changed: delete the Service and create it again with spec.loadBalancerClass: "
	switch {
	case svc.DeletionTimestamp != nil:
		return "is being deleted", "wait until it is gone; herald-ccm releases its addresses"
	case svc.Spec.Type != corev1.ServiceTypeLoadBalancer:
		return "is of type " + string(svc.Spec.Type), "set spec.type to LoadBalancer: only that type is given addresses"
	case ccm.Serves(svc) && svc.Spec.LoadBalancerClass == nil:
		return "has no class: herald-ccm serves it", ""
	case ccm.Serves(svc):
		return "is of class " + *svc.Spec.LoadBalancerClass + ": herald-ccm serves it", ""
	case svc.Spec.LoadBalancerClass == nil:
		return "has no class, and herald-ccm serves only class " + ccm.Class, again + ccm.Class
	}
	return "is of class " + quoted(*svc.Spec.LoadBalancerClass) + ", which another load balancer serves",
		"look there; if Herald is to announce the addresses that it gives, list the class in spec.announceClasses of their IPPool; if Herald is to serve the Service, " + again + ccm.Class
}

// quoted shortens a user's text, and replaces characters that control the terminal.
func quoted(text string) string {
	const most = 64
	if text = Clean(text); len(text) > most {
		return strings.ToValidUTF8(text[:most], "") + "..."
	}
	return text
}

func asks(svc *corev1.Service, req *ipam.Request) []string {
	lines := []string{join(req.Families, " and ")}
	if !req.RequireAll && len(req.Families) > 1 {
		lines[0] += ", or one of these (spec.ipFamilyPolicy)"
	}
	if len(req.Addresses) > 0 {
		field := "annotation " + provider.Written(svc, herald.AnnotationIPs)
		if svc.Annotations[herald.AnnotationIPs] == "" {
			field = "spec.loadBalancerIP"
		}
		lines = append(lines, "exactly "+join(req.Addresses, ", ")+" ("+field+")")
	}
	if req.Pool != "" {
		lines = append(lines, "of pool "+quoted(req.Pool)+" (annotation "+provider.Written(svc, herald.AnnotationPool)+")")
	}
	if len(req.Leave) > 0 {
		lines = append(lines, "any but "+join(req.Leave, ", ")+" (annotation "+herald.AnnotationRenumber+")")
	}
	if req.Sharing.Key != "" {
		lines = append(lines, fmt.Sprintf("shared, by the key %q (annotation %s)", quoted(req.Sharing.Key), provider.Written(svc, herald.AnnotationSharingKey)))
	}
	return lines
}

// origin says where an address comes from.
func (s *situation) origin(al ipam.Allocation, req *ipam.Request) fact {
	rec, r := s.record(al.Address)
	parts := []string{"from pool " + al.Pool, "recorded for " + age(rec.CreationTimestamp.Time, s.now)}
	if al.Pool == "" {
		parts[0] = "from no pool"
	}
	if slices.Contains(req.Addresses, al.Address) {
		parts = append(parts, "as asked for")
	}
	var others []ipam.Owner
	policy := rec.Spec.ReclaimPolicy
	for i, t := range r.Tenants {
		if t.Owner != req.Owner {
			others = append(others, t.Owner)
		} else {
			policy = cmp.Or(rec.Spec.Owners[i].ReclaimPolicy, policy)
		}
	}
	if len(others) > 0 {
		parts = append(parts, "shared with "+join(others, ", "))
	}
	if pool := s.pool(al.Pool); pool != nil {
		policy = cmp.Or(policy, pool.Spec.ReclaimPolicy)
	}
	if policy == herald.ReclaimRetain {
		parts = append(parts, "kept for its name when the Service is deleted")
	}
	lost := ""
	if s.Grants != nil && rec.Spec.Claim != "" {
		if lost = s.Grants.LostWords(rec); lost == "" {
			parts = append(parts, "granted for IPAddressClaim "+rec.Spec.Claim)
		}
	}
	f := fact{Address: al.Address.String(), Text: strings.Join(parts, ", ")}
	if lost != "" {
		f.Text, f.Wrong = f.Text+"; no longer granted", true
		f.cure = fmt.Sprintf("%s; give the Service another address by kubectl herald renumber %s/%s, or have this one granted again",
			lost, s.service.Namespace, s.service.Name)
	}
	if c := outOfRange(rec); c != nil {
		f.Text, f.Wrong = f.Text+"; out of range", true
		f.cure = fmt.Sprintf("%s; give the Service another address by kubectl herald renumber %s/%s, or put the address back into spec.addresses of a pool",
			c.Message, s.service.Namespace, s.service.Name)
	}
	return f
}

// outOfRange returns the condition of a record that says that its address is out of range, or nil.
func outOfRange(rec *herald.IPAllocation) *metav1.Condition {
	if !meta.IsStatusConditionFalse(rec.Status.Conditions, herald.AllocationInRange) {
		return nil
	}
	return meta.FindStatusCondition(rec.Status.Conditions, herald.AllocationInRange)
}

// age returns how long ago a time is, for people. A time in the future, by another clock, is now.
func age(since, now time.Time) string { return duration.HumanDuration(max(0, now.Sub(since))) }

func (s *situation) record(address netip.Addr) (*herald.IPAllocation, ipam.Record) {
	i := slices.IndexFunc(s.held, func(r ipam.Record) bool { return r.Address == address })
	if i < 0 {
		return nil, ipam.Record{}
	}
	return s.Allocations[i], s.held[i]
}

func (s *situation) pool(name string) *herald.IPPool {
	i := slices.IndexFunc(s.Pools, func(o *herald.IPPool) bool { return o.Name == name })
	if i < 0 {
		return nil
	}
	return s.Pools[i]
}

// clashes returns the addresses that the Service cannot share although the Services that have them use the same sharing
// key.
func (s *situation) clashes(a *ipam.Allocator, req *ipam.Request, held []ipam.Allocation) (facts []fact) {
	if req.Sharing.Key == "" {
		return nil
	}
	for i := range s.held {
		r := &s.held[i]
		others := slices.DeleteFunc(slices.Clone(r.Tenants), func(t ipam.Tenant) bool { return t.Owner == req.Owner })
		alike := slices.ContainsFunc(others, func(t ipam.Tenant) bool { return t.Sharing.Key == req.Sharing.Key && t.Owner.UID != "" })
		wanted := slices.Contains(req.Families, ipam.FamilyOf(r.Address)) && s.Allocations[i].Spec.ReleasedAt == nil
		if !alike || !wanted {
			continue
		}
		err := a.Agree(r.Address, others, ipam.Tenant{Owner: req.Owner, Sharing: req.Sharing})
		switch {
		case err == nil:
			return nil // The Service can share one of them.
		case slices.ContainsFunc(held, func(al ipam.Allocation) bool { return al.Address == r.Address }):
			facts = append(facts, fact{Address: r.Address.String(), Wrong: true, Text: "cannot be shared any more: " + provider.Words(err),
				cure: "change the ports of one of the Services, or give them different sharing keys"})
		case a.MayJoin(*req, r.Address):
			facts = append(facts, fact{Address: r.Address.String(), Wrong: true, Text: "has the same sharing key, and cannot be shared: " + provider.Words(err),
				cure: "change the ports of one of the Services, or give this one another sharing key"})
		}
	}
	return facts
}

// unrecorded says what to do about an address in the Service's status that is recorded for an earlier Service of its name.
// Speakers announce only addresses that are recorded for the present Service.
func (s *situation) unrecorded() string {
	for _, address := range provider.Carried(s.service) {
		rec, r := s.record(address)
		mine := func(t ipam.Tenant) bool { return t.Owner.UID == string(s.service.UID) }
		if rec == nil || slices.ContainsFunc(r.Tenants, mine) {
			continue
		}
		for _, t := range r.Tenants {
			if t.Owner.Namespace == s.service.Namespace && t.Owner.Name == s.service.Name && t.Owner.UID != "" {
				return fmt.Sprintf("%s is in its status, and IPAllocation %s records it for another Service of this name (UID %s, this one has %s), so no node announces it: "+
					"see whether herald-ccm runs, which corrects the record", address, rec.Name, t.Owner.UID, s.service.UID)
			}
		}
	}
	return ""
}

// waits says for what a Service waits that another system is to grant an address: for which claims or, if they cannot be read,
// what is wrong with the pool.
func (s *situation) waits(a *ipam.Allocator, req ipam.Request, e *ipam.Error) string {
	if s.Grants != nil {
		named := map[string]bool{}
		for _, rec := range s.Allocations {
			named[rec.Spec.Claim] = true
		}
		if text := s.Grants.WaitWords(req.Owner, a.Wants(req), func(c provider.Claim) bool { return !named[c.Name] && !c.UsedIn(a) },
			func(c provider.Claim) *ipam.Error { return c.RefusedBy(a, req) }); text != "" {
			return text
		}
	}
	if pool := s.pool(e.Pool); pool != nil && meta.IsStatusConditionFalse(pool.Status.Conditions, herald.PoolGranted) {
		return fmt.Sprintf("pool %q waits for another system: %s", e.Pool, meta.FindStatusCondition(pool.Status.Conditions, herald.PoolGranted).Message)
	}
	return provider.Words(e)
}

// lacking returns why a Service does not have what it asks for; empty if it does. If no pool can serve it, and an invalid
// pool may be meant for it, the reason is the invalid pool.
func (s *situation) lacking(a *ipam.Allocator, req ipam.Request, held []ipam.Allocation, invalid map[string]error) string {
	ask := ipam.Ask{Request: req, Carried: provider.Carried(s.service)}
	if err := a.Adopt(ask.Request, ask.Carried); err != nil {
		return provider.Words(err)
	}
	given, err := a.Allocate(req)
	if errors.Is(err, ipam.ErrNoPool) || errors.Is(err, ipam.ErrExhausted) {
		for _, o := range s.Pools {
			if invalid[o.Name] != nil && (req.Pool == o.Name || req.Pool == "" && (o.Spec.AutoAssign == nil || *o.Spec.AutoAssign)) {
				return invalidWords(o, invalid[o.Name])
			}
		}
	}
	if e, ok := errors.AsType[*ipam.Error](err); ok && e.Cause == ipam.NotGrantedYet {
		return s.waits(a, req, e)
	}
	if err != nil {
		return provider.Words(err)
	}
	has := Addresses(s.service)
	for _, al := range given {
		switch {
		case !slices.Contains(held, al) && slices.Contains(has, al.Address.String()):
			return fmt.Sprintf("%s is in its status, and no IPAllocation records it, so no node announces it: see whether herald-ccm runs, which records it", al.Address)
		case !slices.Contains(held, al):
			return fmt.Sprintf("it can have %s of pool %s, and has not been given it: %s", al.Address, al.Pool, s.ungiven())
		case !slices.Contains(has, al.Address.String()):
			return fmt.Sprintf("%s is recorded for it, and is not in its status, so no node announces it: %s", al.Address, s.ungiven())
		}
	}
	isGiven := func(address string) bool {
		return slices.ContainsFunc(given, func(al ipam.Allocation) bool { return al.Address.String() == address })
	}
	for _, al := range held {
		if !isGiven(al.Address.String()) {
			return fmt.Sprintf("%s is recorded for it, and it does not ask for it any more: see whether herald-ccm runs, which releases it", al.Address)
		}
	}
	for _, address := range has {
		if !isGiven(address) {
			return fmt.Sprintf("%s is in its status, and no IPAllocation records it for this Service: see whether herald-ccm runs, which takes it out, "+
				"and who else writes the Service's status", quoted(address))
		}
	}
	return ""
}

// retried is the longest time after which the service controller retries a failed Service, 10 minutes, with some reserve.
const retried = 11 * time.Minute

// ungiven returns why herald-ccm has not done what it could do: its last message, or that it may not be running.
func (s *situation) ungiven() string {
	var last *corev1.Event
	for _, e := range s.Warnings {
		if e.Reason == herald.EventSyncLoadBalancerFailed && (last == nil || last.LastTimestamp.Before(&e.LastTimestamp)) {
			last = e
		}
	}
	if last == nil || s.now.Sub(last.LastTimestamp.Time) > retried {
		return "see whether herald-ccm runs"
	}
	return fmt.Sprintf("herald-ccm has failed, %s ago: %s", age(last.LastTimestamp.Time, s.now), Clean(last.Message))
}
