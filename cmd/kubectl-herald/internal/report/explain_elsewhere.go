package report

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/heraldlb/herald/ipam"
	"github.com/heraldlb/herald/provider"
)

// elsewhere fills the report of a Service to which another controller gives addresses, and whose class a pool admits.
func (r *ServiceReport) elsewhere(o *Objects, svc *corev1.Service, ccm *CCM, now time.Time) error {
	class := quoted(*svc.Spec.LoadBalancerClass)
	r.Class = "is of class " + class + ": its controller gives the addresses, and Herald announces those that a pool admits"
	s := situationOf(o, now).about(svc)
	r.Unread, r.Endpoints, r.served = list(o.Unread), s.ready(), true
	req, invalid := provider.RequestElsewhere(svc, s.namespace, ccm.Quota)
	if len(req.Addresses) > 0 {
		r.Asks = []string{"exactly " + join(req.Addresses, ", ") + " (status.loadBalancer)"}
	}
	var held []ipam.Allocation
	if o.sees("ipallocations.herald.dev") {
		pools, _ := poolsInForce(o.Pools, nil, s.held)
		a, err := ipam.Rebuilt(pools, s.held, o.occupied())
		if err != nil {
			return err
		}
		for _, f := range req.Families {
			for _, p := range pools {
				v := verdictReport{Pool: p.Name, Family: f.String(), Fits: slices.Contains(p.Classes, req.Class), Text: "announces what the class gives"}
				if !v.Fits {
					v.Text = "does not announce what the class gives (spec.announceClasses)"
				}
				r.Pools = append(r.Pools, v)
			}
		}
		held = a.HeldBy(req.Owner)
		r.Addresses = list(s.claims(a, req, invalid, held))
	} else {
		for _, address := range req.Addresses {
			held = append(held, ipam.Allocation{Address: address})
			r.Addresses = append(r.Addresses, fact{Address: address.String(), Text: "is in its status; its record cannot be seen"})
		}
	}
	for _, al := range held {
		r.Announced = append(r.Announced, s.announced(al)...)
	}
	var next []string
	if len(req.Addresses) == 0 {
		next = append(next, fmt.Sprintf("the controller of class %s has given it no address: look there", class))
	}
	for _, f := range slices.Concat(r.Addresses, r.Announced) {
		if f.Wrong {
			next = append(next, f.next())
		}
	}
	r.Next = cmp.Or(slices.Concat(next, r.Endpoints.Unserved, r.Ignored, r.Unread)...)
	return nil
}

// claims returns what became of each address in the status of a Service of another class, and of each that it holds.
func (s *situation) claims(a *ipam.Allocator, req ipam.Request, invalid error, held []ipam.Allocation) (facts []fact) {
	for _, address := range req.Addresses {
		has := slices.ContainsFunc(held, func(al ipam.Allocation) bool { return al.Address == address })
		f := fact{Address: address.String(), Wrong: true}
		al, err := a.Claim(req, address)
		if err == nil && invalid != nil {
			err = invalid
		}
		switch {
		case err == nil && has:
			f = s.origin(al, &ipam.Request{Owner: req.Owner})
		case err == nil:
			f.Text = "is in its status, and no IPAllocation records it, so no node announces it"
			f.cure = "see whether herald-ccm runs, which records it"
		case has:
			f.Text, f.cure = "is announced as before", provider.Words(err)
		default:
			f.Text, f.cure = "is not announced", provider.Words(err)
		}
		facts = append(facts, f)
	}
	for _, al := range held {
		if !slices.Contains(req.Addresses, al.Address) {
			facts = append(facts, fact{Address: al.Address.String(), Wrong: true, Text: "is recorded for it, and is not in its status",
				cure: "see whether herald-ccm runs, which releases it"})
		}
	}
	return facts
}
