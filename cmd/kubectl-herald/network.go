package main

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	herald "github.com/heraldlb/herald/api/v1alpha1"
)

// network is all that bears on what is announced on the nodes' segments.
type network struct {
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

// network reads the cluster. Speakers' Leases are in Herald's own namespace.
func (c *cluster) network(ctx context.Context, own string) (*network, error) {
	n := &network{pools: map[string]*herald.IPPool{}, services: map[string]*corev1.Service{}, namespaces: map[string]*corev1.Namespace{}, ready: map[string]bool{}}
	pools, records, err := c.pools(ctx)
	if err != nil {
		return nil, err
	}
	for _, o := range pools {
		n.pools[o.Name] = o
	}
	n.records = records
	slices.SortFunc(n.records, func(x, y *herald.IPAllocation) int { return addressOf(x).Compare(addressOf(y)) })
	l2, err := c.herald.L2Advertisements.List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, err
	}
	if n.speakers, err = c.speakers(ctx); err != nil {
		return nil, err
	}
	core := c.kube.CoreV1()
	nodes, err := core.Nodes().List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, err
	}
	services, err := core.Services(metav1.NamespaceAll).List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, err
	}
	namespaces, err := core.Namespaces().List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, err
	}
	endpoints, err := c.kube.DiscoveryV1().EndpointSlices(metav1.NamespaceAll).List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, err
	}
	leases, err := c.kube.CoordinationV1().Leases(own).List(ctx, metav1.ListOptions{})
	if err != nil && !apierrors.IsForbidden(err) { // Who may not read Leases learns a little less.
		return nil, err
	}
	n.l2, n.nodes, n.leases = pointers(l2.Items), pointers(nodes.Items), pointers(leases.Items)
	slices.SortFunc(n.nodes, func(x, y *corev1.Node) int { return strings.Compare(x.Name, y.Name) })
	for _, svc := range pointers(services.Items) {
		n.services[svc.Namespace+"/"+svc.Name] = svc
	}
	for _, o := range pointers(namespaces.Items) {
		n.namespaces[o.Name] = o
	}
	for _, slice := range endpoints.Items {
		if slices.ContainsFunc(slice.Endpoints, func(e discoveryv1.Endpoint) bool { return e.Conditions.Ready == nil || *e.Conditions.Ready }) {
			n.ready[slice.Namespace+"/"+slice.Labels[discoveryv1.LabelServiceName]] = true
		}
	}
	return n, nil
}

func addressOf(rec *herald.IPAllocation) netip.Addr {
	address, _ := netip.ParseAddr(rec.Spec.Address)
	return address
}

// announcement is what is to be announced of an address on the segments.
type announcement struct {
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
func (n *network) announcements() (all []announcement) {
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
		a := announcement{address: rec.Spec.Address, record: rec}
		for _, o := range rec.Spec.Owners {
			name := o.Namespace + "/" + o.Name
			svc, namespace := n.services[name], n.namespaces[o.Namespace]
			if svc == nil || namespace == nil || o.UID == "" || svc.UID != o.UID || !slices.Contains(addresses(svc), a.address) {
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
func (n *network) gone(now time.Time) map[string]string {
	gone := map[string]string{}
	for _, o := range n.speakers {
		if !slices.ContainsFunc(n.nodes, func(node *corev1.Node) bool { return node.Name == o.Name }) {
			gone[o.Name] = "there is no such node"
		}
	}
	for _, l := range n.leases {
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
