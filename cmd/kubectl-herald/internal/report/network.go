package report

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	herald "github.com/heraldlb/herald/api/v1alpha1"
)

// Network is all that bears on what is announced on the nodes' segments.
type Network struct {
	pools    map[string]*herald.IPPool
	records  []*herald.IPAllocation // By address.
	l2       []*herald.L2Advertisement
	speakers []*herald.SpeakerStatus

	nodes      []*corev1.Node // By name.
	services   map[string]*corev1.Service
	namespaces map[string]*corev1.Namespace
	// ready are the Services with a ready endpoint.
	ready map[string]bool
	// leases are those of the speakers. There need not be any.
	leases []*coordinationv1.Lease
}

// NewNetwork needs Pools, Allocations, L2Advertisements, Speakers, Nodes, Services, Namespaces, Endpoints and, for what they
// tell besides, Leases.
func NewNetwork(o *Objects) *Network {
	o.sort()
	n := &Network{
		pools: map[string]*herald.IPPool{}, services: map[string]*corev1.Service{}, namespaces: map[string]*corev1.Namespace{}, ready: map[string]bool{},
		records: slices.Clone(o.Allocations), l2: o.L2Advertisements, speakers: o.Speakers, nodes: slices.Clone(o.Nodes), leases: o.Leases,
	}
	slices.SortFunc(n.records, func(x, y *herald.IPAllocation) int { return addressOf(x).Compare(addressOf(y)) })
	slices.SortFunc(n.nodes, func(x, y *corev1.Node) int { return strings.Compare(x.Name, y.Name) })
	for _, p := range o.Pools {
		n.pools[p.Name] = p
	}
	for _, svc := range o.Services {
		n.services[svc.Namespace+"/"+svc.Name] = svc
	}
	for _, namespace := range o.Namespaces {
		n.namespaces[namespace.Name] = namespace
	}
	for _, slice := range o.Endpoints {
		if slices.ContainsFunc(slice.Endpoints, func(e discoveryv1.Endpoint) bool { return e.Conditions.Ready == nil || *e.Conditions.Ready }) {
			n.ready[slice.Namespace+"/"+slice.Labels[discoveryv1.LabelServiceName]] = true
		}
	}
	return n
}

func addressOf(rec *herald.IPAllocation) netip.Addr {
	address, _ := netip.ParseAddr(rec.Spec.Address)
	return address
}

// Announcement is what is to be announced of an address on the segments.
type Announcement struct {
	address  string
	services []string // Those that carry it and that an L2Advertisement selects.
	ready    bool     // One of them has a ready endpoint.
	// interfaces are those that L2Advertisements name. Without a name an advertisement is for all interfaces with a
	// subnet that holds the address.
	interfaces []string
	record     *herald.IPAllocation
}

// announcements are the addresses that L2Advertisements announce, in order. Services that do not carry their address in
// their status, and so are not announced, are not among them.
func (n *Network) announcements() (all []Announcement) {
	type selector struct {
		*herald.Selector
		*herald.L2Advertisement
	}
	var ads []selector
	for _, ad := range n.l2 {
		if c, err := ad.Spec.Compile(); err == nil { // The speakers leave out one that cannot be read, too.
			ads = append(ads, selector{c, ad})
		}
	}
	for _, rec := range n.records {
		var labels map[string]string
		if pool := n.pools[rec.Spec.Pool]; pool != nil {
			labels = pool.Labels
		}
		a := Announcement{address: rec.Spec.Address, record: rec}
		for _, o := range rec.Spec.Owners {
			name := o.Namespace + "/" + o.Name
			svc, namespace := n.services[name], n.namespaces[o.Namespace]
			if svc == nil || namespace == nil || o.UID == "" || svc.UID != o.UID || !slices.Contains(Addresses(svc), a.address) {
				continue
			}
			selected := false
			for _, ad := range ads {
				if ad.Pool(rec.Spec.Pool, labels) && ad.Service(svc.Labels, namespace.Labels) {
					selected = true
					a.interfaces = append(a.interfaces, ad.L2Advertisement.Spec.Interfaces...)
				}
			}
			if selected {
				a.services = append(a.services, name)
				a.ready = a.ready || n.ready[name]
			}
		}
		if len(a.services) > 0 {
			slices.Sort(a.interfaces)
			a.interfaces = slices.Compact(a.interfaces)
			all = append(all, a)
		}
	}
	return all
}

// gone says of nodes why what their speakers have written is out of date.
func (n *Network) gone(now time.Time) map[string]string {
	gone := silentSpeakers(n.leases, now)
	for _, o := range n.speakers {
		if !slices.ContainsFunc(n.nodes, func(node *corev1.Node) bool { return node.Name == o.Name }) {
			gone[o.Name] = "there is no such node"
		}
	}
	return gone
}

// silentSpeakers says of nodes, by the speakers' Leases, why their speakers do not work.
func silentSpeakers(leases []*coordinationv1.Lease, now time.Time) map[string]string {
	gone := map[string]string{}
	for _, l := range leases {
		node, ok := strings.CutPrefix(l.Name, "speaker-")
		if !ok || l.Spec.RenewTime == nil || l.Spec.LeaseDurationSeconds == nil {
			continue
		}
		since := now.Sub(l.Spec.RenewTime.Time)
		switch {
		case l.Spec.HolderIdentity == nil || *l.Spec.HolderIdentity == "":
			gone[node] = fmt.Sprintf("its speaker ended %s ago", age(l.Spec.RenewTime.Time, now))
		case since > 2*time.Duration(*l.Spec.LeaseDurationSeconds)*time.Second: // The clocks here and there may differ.
			gone[node] = fmt.Sprintf("its speaker has not renewed the Lease %s for %s", l.Name, age(l.Spec.RenewTime.Time, now))
		}
	}
	return gone
}

// Addresses are those in a Service's status.
func Addresses(svc *corev1.Service) []string {
	var all []string
	for _, i := range svc.Status.LoadBalancer.Ingress {
		if i.IP != "" {
			all = append(all, i.IP)
		}
	}
	return all
}
