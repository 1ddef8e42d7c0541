package main

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/duration"

	herald "github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/ipam"
	"github.com/heraldlb/herald/provider"
)

// serviceReport is what explain service writes for programs, the trace of a decision: what is so, one line for each
// thing, and the one thing to do next. The lists that the way does not come to are empty.
type serviceReport struct {
	Service   string          `json:"service"`
	Class     string          `json:"class"` // Whose the Service is.
	Asks      []string        `json:"asks"`
	Pools     []verdictReport `json:"pools"` // In the order in which they are asked.
	Addresses []fact          `json:"addresses"`
	// Endpoints is left out if the way does not come to them.
	Endpoints *endpointsReport `json:"endpoints,omitempty"`
	Announced []fact           `json:"announced"`
	Next      string           `json:"next"` // Empty: nothing is to be done.
}

// verdictReport is what a pool has to say to a request for a new address.
type verdictReport struct {
	Pool   string `json:"pool"`
	Family string `json:"family"`
	Fits   bool   `json:"fits"`
	Text   string `json:"text"`
}

// fact is something about an address. What is wrong is marked.
type fact struct {
	Address string `json:"address"`
	Text    string `json:"text"`
	Wrong   bool   `json:"wrong"`
}

type endpointsReport struct {
	Ready int      `json:"ready"`
	Nodes []string `json:"nodes"` // Those with a ready endpoint. An endpoint may be on no node.
	Local bool     `json:"local"` // Only these nodes announce: externalTrafficPolicy is Local.
}

// explain goes the way that a Service goes, and stops where that does.
func (s *situation) explain(ccm *ccm, now time.Time) (*serviceReport, error) {
	svc := s.service
	r := &serviceReport{
		Service: svc.Namespace + "/" + svc.Name,
		Asks:    []string{}, Pools: []verdictReport{}, Addresses: []fact{}, Announced: []fact{},
	}
	if r.Class, r.Next = classOf(svc, ccm); r.Next != "" {
		return r, nil
	}
	req, err := provider.RequestOf(svc, s.namespace, ccm.quota.Limits)
	if err != nil {
		r.Next = err.Error()
		return r, nil
	}
	r.Asks = asks(svc, &req)
	usable, _ := usablePools(s.pools)
	a, err := ipam.Rebuilt(usable, s.held)
	if err != nil {
		return nil, err
	}
	for _, v := range a.Explain(req) {
		r.Pools = append(r.Pools, verdictReport{v.Pool, v.Family.String(), v.Refused == nil, provider.VerdictWords(v)})
	}
	held := a.HeldBy(req.Owner)
	for _, al := range held {
		r.Addresses = append(r.Addresses, s.origin(al, &req, now))
	}
	for _, f := range a.Forgone(req) {
		if rec, _ := s.record(f.Address); rec.Spec.ReleasedAt != nil {
			continue // It left that one, and it cools down.
		}
		r.Addresses = append(r.Addresses, fact{f.Address.String(), "is kept for the Service, but " + provider.ForgoneWords(f, req.Owner), true})
	}
	r.Endpoints = s.ready()
	var unannounced string
	for _, al := range held {
		facts, next := s.announced(al, r.Endpoints, now)
		r.Announced, unannounced = append(r.Announced, facts...), cmp.Or(unannounced, next)
	}
	r.Next = cmp.Or(s.lacking(a, req, held), s.misplaced(held), unannounced)
	return r, nil
}

// classOf says whose a Service is, and what to do if it is not herald-ccm's.
func classOf(svc *corev1.Service, ccm *ccm) (class, next string) {
	switch {
	case svc.DeletionTimestamp != nil:
		return "is being deleted", "wait until it is gone; herald-ccm releases its addresses"
	case svc.Spec.Type != corev1.ServiceTypeLoadBalancer:
		return "is of type " + string(svc.Spec.Type), "set spec.type to LoadBalancer: no other type is given addresses"
	case ccm.serves(svc) && svc.Spec.LoadBalancerClass == nil:
		return "is of no class: herald-ccm serves it", ""
	case ccm.serves(svc):
		return "is of class " + *svc.Spec.LoadBalancerClass + ": herald-ccm serves it", ""
	case svc.Spec.LoadBalancerClass == nil:
		return "is of no class, and herald-ccm serves only class " + ccm.class, "make it again with spec.loadBalancerClass: " + ccm.class
	}
	return "is of class " + *svc.Spec.LoadBalancerClass + ", which another load balancer serves",
		"look there, or make it again with spec.loadBalancerClass: " + ccm.class + " (the field cannot be changed)"
}

func asks(svc *corev1.Service, req *ipam.Request) []string {
	lines := []string{join(req.Families, " and ")}
	if !req.RequireAll && len(req.Families) > 1 {
		lines[0] += ", or one of these (spec.ipFamilyPolicy)"
	}
	if len(req.Addresses) > 0 {
		field := "annotation " + herald.AnnotationIPs
		if svc.Annotations[herald.AnnotationIPs] == "" {
			field = "spec.loadBalancerIP"
		}
		lines = append(lines, "exactly "+join(req.Addresses, ", ")+" ("+field+")")
	}
	if req.Pool != "" {
		lines = append(lines, "of pool "+req.Pool+" (annotation "+herald.AnnotationPool+")")
	}
	if len(req.Leave) > 0 {
		lines = append(lines, "any but "+join(req.Leave, ", ")+" (annotation "+herald.AnnotationRenumber+")")
	}
	if req.Sharing.Key != "" {
		lines = append(lines, fmt.Sprintf("shared, by the key %q (annotation %s)", req.Sharing.Key, herald.AnnotationSharingKey))
	}
	return lines
}

// origin says where an address comes from.
func (s *situation) origin(al ipam.Allocation, req *ipam.Request, now time.Time) fact {
	rec, r := s.record(al.Address)
	parts := []string{"from pool " + al.Pool, "recorded for " + age(rec.CreationTimestamp.Time, now)}
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
		parts = append(parts, "kept for its name when it goes")
	}
	f := fact{al.Address.String(), strings.Join(parts, ", "), false}
	if outOfRange(rec) != nil {
		f.Text, f.Wrong = f.Text+"; out of range", true
	}
	return f
}

// outOfRange is the condition of a record that says so, or nil.
func outOfRange(rec *herald.IPAllocation) *metav1.Condition {
	if !meta.IsStatusConditionFalse(rec.Status.Conditions, herald.AllocationInRange) {
		return nil
	}
	return meta.FindStatusCondition(rec.Status.Conditions, herald.AllocationInRange)
}

func age(since, now time.Time) string { return duration.HumanDuration(now.Sub(since)) }

func (s *situation) record(address netip.Addr) (*herald.IPAllocation, ipam.Record) {
	i := slices.IndexFunc(s.held, func(r ipam.Record) bool { return r.Address == address })
	return s.records[i], s.held[i]
}

func (s *situation) pool(name string) *herald.IPPool {
	i := slices.IndexFunc(s.pools, func(o *herald.IPPool) bool { return o.Name == name })
	if i < 0 {
		return nil
	}
	return s.pools[i]
}

// lacking says what keeps a Service from what it asks for; empty if nothing does.
func (s *situation) lacking(a *ipam.Allocator, req ipam.Request, held []ipam.Allocation) string {
	ask := ipam.Ask{Request: req, Carried: provider.Carried(s.service)}
	if err := a.Adopt(ask.Request, ask.Carried); err != nil {
		return provider.Words(err)
	}
	given, err := a.Allocate(req)
	if err != nil {
		return provider.Words(err)
	}
	has := addresses(s.service)
	for _, al := range given {
		switch {
		case !slices.Contains(held, al):
			return fmt.Sprintf("it can have %s of pool %s, and has not been given it: see whether herald-ccm runs", al.Address, al.Pool)
		case !slices.Contains(has, al.Address.String()):
			return fmt.Sprintf("%s is recorded for it, and not in its status: see whether herald-ccm runs", al.Address)
		}
	}
	return ""
}

// misplaced says what to do about an address out of range.
func (s *situation) misplaced(held []ipam.Allocation) string {
	for _, al := range held {
		rec, _ := s.record(al.Address)
		if c := outOfRange(rec); c != nil {
			return fmt.Sprintf("%s; move off it by kubectl herald renumber %s/%s, or put it back into spec.addresses of a pool",
				c.Message, s.service.Namespace, s.service.Name)
		}
	}
	return ""
}
