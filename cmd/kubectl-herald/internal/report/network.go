package report

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	herald "github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/speaker/announce"
)

// Network is everything that concerns announcements on the nodes' segments.
type Network struct {
	pools    map[string]*herald.IPPool
	records  []*herald.IPAllocation // By address.
	l2       []*herald.L2Advertisement
	bgp      []*herald.BGPAdvertisement
	peers    []*herald.BGPPeer
	speakers []*herald.SpeakerStatus

	nodes      []*corev1.Node // By name.
	services   map[string]*corev1.Service
	namespaces map[string]*corev1.Namespace
	// ready has the Services with a ready endpoint.
	ready map[string]bool
	// leases are the Leases of Objects.
	leases []*coordinationv1.Lease
	unseen []string // of Objects
	// unreadable are objects that could not be read.
	unreadable []problem
}

// NewNetwork needs Pools, Allocations, L2Advertisements, BGPAdvertisements, Speakers, Nodes, Services, Namespaces and
// Endpoints. Leases give further information.
func NewNetwork(o *Objects) *Network {
	o.sort()
	o.held() // held notes what cannot be decoded.
	n := &Network{
		unreadable: o.unreadable(),
		pools:      map[string]*herald.IPPool{}, services: map[string]*corev1.Service{}, namespaces: map[string]*corev1.Namespace{}, ready: map[string]bool{},
		records: slices.Clone(o.Allocations), l2: o.L2Advertisements, bgp: o.BGPAdvertisements, peers: o.BGPPeers, speakers: o.Speakers, nodes: slices.Clone(o.Nodes), leases: o.Leases, unseen: o.Unseen,
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

// Announcement is an address that must be announced on segments.
type Announcement struct {
	address  string
	services []string // Those that carry the address and that an L2Advertisement selects.
	ready    bool     // One of them has a ready endpoint.
	// interfaces are those that L2Advertisements name. An advertisement that names none applies to all interfaces with a
	// subnet that holds the address.
	interfaces []string
	record     *herald.IPAllocation
}

// announcements returns the addresses that L2Advertisements announce, in order. It leaves out Services that do not have the
// address in their status, because these are not announced. It also leaves out addresses that are on no segment and that a
// BGPAdvertisement selects, because these are for routers.
func (n *Network) announcements() (all []Announcement) {
	type selector struct {
		*herald.Selector
		interfaces []string
	}
	var l2, bgp []selector
	for _, ad := range n.l2 {
		if c, err := ad.Spec.Compile(); err == nil { // Speakers also ignore advertisements that do not compile.
			l2 = append(l2, selector{c, ad.Spec.Interfaces})
		}
	}
	for _, ad := range n.bgp {
		if c, err := ad.Spec.Compile(); err == nil {
			bgp = append(bgp, selector{Selector: c})
		}
	}
	subnets := n.onSegments()
	for _, rec := range n.records {
		var labels map[string]string
		if pool := n.pools[rec.Spec.Pool]; pool != nil {
			labels = pool.Labels
		}
		a, routed := Announcement{address: rec.Spec.Address, record: rec}, false
		for _, o := range rec.Spec.Owners {
			name := o.Namespace + "/" + o.Name
			svc, namespace := n.services[name], n.namespaces[o.Namespace]
			if svc == nil || namespace == nil || o.UID == "" || svc.UID != o.UID || !slices.Contains(announce.StatusAddresses(svc), addressOf(rec)) {
				continue
			}
			selects := func(ad selector) bool {
				return ad.Pool(rec.Spec.Pool, labels) && ad.Service(svc.Labels, namespace.Labels)
			}
			selected := false
			for _, ad := range l2 {
				if selects(ad) {
					selected = true
					a.interfaces = append(a.interfaces, ad.interfaces...)
				}
			}
			routed = routed || slices.ContainsFunc(bgp, selects)
			if selected {
				a.services = append(a.services, name)
				a.ready = a.ready || n.ready[name]
			}
		}
		onSegment := len(a.interfaces) > 0 || slices.ContainsFunc(subnets, func(p netip.Prefix) bool { return p.Contains(addressOf(rec)) })
		if len(a.services) > 0 && (onSegment || !routed) {
			slices.Sort(a.interfaces)
			a.interfaces = slices.Compact(a.interfaces)
			all = append(all, a)
		}
	}
	return all
}

// onSegments returns the subnets of the nodes' interfaces, without duplicates.
func (n *Network) onSegments() (all []netip.Prefix) {
	known := map[netip.Prefix]bool{}
	for _, o := range n.speakers {
		for i := range o.Status.Interfaces {
			for _, p := range subnets(&o.Status.Interfaces[i]) {
				known[p] = true
			}
		}
	}
	return slices.Collect(maps.Keys(known))
}

// gone returns, for each node whose speaker's reports are out of date, the reason.
func (n *Network) gone(now time.Time) map[string]string {
	gone := silentSpeakers(n.leases, now)
	for _, o := range n.speakers {
		if !slices.ContainsFunc(n.nodes, func(node *corev1.Node) bool { return node.Name == o.Name }) {
			gone[o.Name] = "there is no such node"
		}
	}
	return gone
}

// silentSpeakers returns, for each node whose speaker does not work according to its Lease, the reason.
func silentSpeakers(leases []*coordinationv1.Lease, now time.Time) map[string]string {
	gone := map[string]string{}
	for _, l := range leases {
		if node, ok := strings.CutPrefix(l.Name, herald.SpeakerLeasePrefix); ok && expired(l, now) != "" {
			gone[node] = "its speaker " + expired(l, now)
		}
	}
	return gone
}

// expired says why the holder of a Lease no longer holds it; empty if it does.
func expired(l *coordinationv1.Lease, now time.Time) string {
	if l.Spec.RenewTime == nil || l.Spec.LeaseDurationSeconds == nil {
		return ""
	}
	renewed := l.Spec.RenewTime.Time
	switch {
	case l.Spec.HolderIdentity == nil || *l.Spec.HolderIdentity == "":
		return fmt.Sprintf("ended %s ago", age(renewed, now))
	case renewed.Sub(now) > 2*time.Duration(*l.Spec.LeaseDurationSeconds)*time.Second:
		return fmt.Sprintf("has renewed the Lease %s in the future: compare the clocks of the nodes and of this machine", l.Name)
	case now.Sub(renewed) > 2*time.Duration(*l.Spec.LeaseDurationSeconds)*time.Second: // The clocks may differ.
		return fmt.Sprintf("has not renewed the Lease %s for %s", l.Name, age(renewed, now))
	}
	return ""
}

// Addresses returns the addresses in a Service's status.
func Addresses(svc *corev1.Service) []string {
	var all []string
	for _, i := range svc.Status.LoadBalancer.Ingress {
		if i.IP != "" {
			all = append(all, i.IP)
		}
	}
	return all
}
