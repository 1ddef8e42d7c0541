package report

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	herald "github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/ipam"
	"github.com/heraldlb/herald/provider"
	"github.com/heraldlb/herald/provider/configuration"
)

// state is the starting point of a plan.
type state struct {
	pools   []*herald.IPPool       // Oldest first.
	records []*herald.IPAllocation // Oldest first.
	held    []ipam.Record          // What the records say.
	// occupied are the addresses that are never assigned, each with a description.
	occupied map[netip.Addr]string
	asks     []ipam.Ask // Oldest first.
	// misread are the Services whose requests are invalid, and why.
	misread []waitingReport
	unread  []string
	// network are the nodes, with the advertisements of the cluster, and wanted the advertisements that would be applied.
	network configuration.Cluster
	wanted  Wanted
	// grants are the addresses that other systems granted; nil if no pool has spec.externalPoolRef, or if they cannot be read.
	grants *provider.Grants
}

// Wanted are the objects that are to be applied.
type Wanted struct {
	Pools             []*herald.IPPool
	L2Advertisements  []*herald.L2Advertisement
	BGPAdvertisements []*herald.BGPAdvertisement
}

// in returns the cluster with the advertisements as they would be.
func (w Wanted) in(c configuration.Cluster) configuration.Cluster {
	c.L2Advertisements, c.BGPAdvertisements = withWanted(c.L2Advertisements, w.L2Advertisements), withWanted(c.BGPAdvertisements, w.BGPAdvertisements)
	return c
}

// withWanted returns the objects with the wanted ones, of which each takes the place of the one of its name.
func withWanted[T metav1.Object](objects, wanted []T) []T {
	stay := slices.DeleteFunc(slices.Clone(objects), func(o T) bool {
		return slices.ContainsFunc(wanted, func(w T) bool { return w.GetName() == o.GetName() })
	})
	return append(stay, wanted...)
}

// Plan returns the effect of applying these objects and deleting these pools. It needs Pools, Allocations, Services, Namespaces,
// advertisements, BGPPeers, Nodes and Speakers. Without Grants, Services count as waiting for another system also if it granted them an address.
func Plan(o *Objects, ccm *CCM, wanted Wanted, deletions []string) (*PlanReport, error) {
	o.sort()
	s := state{pools: o.Pools, held: o.held(), occupied: o.occupied(), network: o.network(), wanted: wanted}
	s.records, s.unread, s.grants = o.Allocations, o.Unread, o.Grants
	namespaces := map[string]*corev1.Namespace{}
	for _, n := range o.Namespaces {
		namespaces[n.Name] = n
	}
	services := slices.DeleteFunc(slices.Clone(o.Services), func(svc *corev1.Service) bool {
		return svc.DeletionTimestamp != nil || !ccm.Serves(svc) && !provider.Elsewhere(svc, ccm.Class)
	})
	slices.SortFunc(services, func(x, y *corev1.Service) int { return provider.Older(x, y) })
	for _, svc := range services {
		if !ccm.Serves(svc) {
			req, err := provider.RequestElsewhere(svc, namespaces[svc.Namespace], ccm.Quota)
			if err != nil { // Herald records no further address for it.
				req.Addresses = slices.DeleteFunc(req.Addresses, func(address netip.Addr) bool { return !s.holds(req.Owner, address) })
			}
			s.asks = append(s.asks, ipam.Ask{Request: req, Carried: req.Addresses})
			continue
		}
		req, err := provider.RequestOf(ccm.Foreign.Read(svc), namespaces[svc.Namespace], ccm.Quota)
		if err != nil {
			s.misread = append(s.misread, waitingReport{svc.Namespace + "/" + svc.Name, err.Error()})
			continue
		}
		s.asks = append(s.asks, ipam.Ask{Request: req, Carried: provider.Carried(svc)})
	}
	return s.plan(wanted.Pools, deletions)
}

// holds reports whether an address is recorded for an owner.
func (s *state) holds(o ipam.Owner, address netip.Addr) bool {
	return slices.ContainsFunc(s.held, func(r ipam.Record) bool {
		return r.Address == address && slices.ContainsFunc(r.Tenants, func(t ipam.Tenant) bool { return t.Owner == o })
	})
}

// plan returns the effect of applying and deleting these pools.
func (s *state) plan(wanted []*herald.IPPool, deletions []string) (*PlanReport, error) {
	then, err := s.edited(wanted, deletions)
	if err != nil {
		return nil, err
	}
	before, _ := poolsInForce(s.pools, nil, s.held)
	after, invalid := poolsInForce(then, s.pools, s.held)
	asks := slices.Clone(s.asks)
	if s.grants != nil {
		grants := s.grants.In(then)
		for i := range asks {
			asks[i].Granted, asks[i].Claimed = grants.Of(asks[i].Owner), grants.Claimed(asks[i].Owner)
		}
	}
	effect, err := ipam.Plan(before, after, s.held, s.occupied, asks)
	if err != nil {
		return nil, err
	}
	r := s.report(then, invalid, effect)
	now, off := offSubnets(s.network, s.pools, before), offSubnets(s.wanted.in(s.network), then, after)
	for i := range r.Pools {
		if c := &r.Pools[i]; c.Change == "added" || c.Change == "changed" || now[c.Name] != off[c.Name] {
			c.OffSubnet = Clean(off[c.Name].Problem)
		}
	}
	return r, nil
}

// offSubnets returns the pools with addresses that no node can announce on a segment: see [configuration.Cluster.OffSubnets].
func offSubnets(c configuration.Cluster, pools []*herald.IPPool, inForce []ipam.Pool) map[string]configuration.OffSubnet {
	for i, o := range pools {
		c.Pools = append(c.Pools, configuration.Pool{IPPool: o, Addresses: inForce[i].Addresses})
	}
	return c.OffSubnets()
}

// edited returns the pools as they would be, oldest first. New pools are created within one second, so their order is that
// of their names.
func (s *state) edited(wanted []*herald.IPPool, deletions []string) ([]*herald.IPPool, error) {
	then := slices.Clone(s.pools)
	at := func(name string) int {
		return slices.IndexFunc(then, func(o *herald.IPPool) bool { return o.Name == name })
	}
	for _, w := range slices.SortedFunc(slices.Values(wanted), func(x, y *herald.IPPool) int { return strings.Compare(x.Name, y.Name) }) {
		i := at(w.Name)
		if i < 0 {
			then = append(then, &herald.IPPool{ObjectMeta: metav1.ObjectMeta{Name: w.Name, Labels: w.Labels}, Spec: w.Spec})
			continue
		}
		o := *then[i]
		o.Spec, o.Labels = w.Spec, maps.Clone(o.Labels)
		if o.Labels == nil {
			o.Labels = map[string]string{}
		}
		maps.Copy(o.Labels, w.Labels)
		then[i] = &o
	}
	for _, name := range deletions {
		i := at(name)
		switch {
		case i < 0:
			return nil, fmt.Errorf("--delete: there is no IPPool %q: kubectl herald pools shows all", name)
		case slices.ContainsFunc(wanted, func(w *herald.IPPool) bool { return w.Name == name }):
			return nil, fmt.Errorf("--delete: IPPool %q is in a file, too: leave it out in one of them", name)
		}
		if !s.inUse(then[i]) {
			then = slices.Delete(then, i, i+1)
			continue
		}
		o, now := *then[i], metav1.Now()
		o.DeletionTimestamp = &now // Its finalizer keeps it, as a closed pool, until its last address is free.
		then[i] = &o
	}
	return then, nil
}

// inUse reports whether an address of the pool is held, or recorded for the pool.
func (s *state) inUse(o *herald.IPPool) bool {
	homes := homesOf(s.pools, s.held)
	return slices.ContainsFunc(s.held, func(r ipam.Record) bool {
		in, _ := homes.PoolOf(r.Address)
		return r.Pool == o.Name || in == o.Name
	})
}

// WithDefaults sets the defaults of the API server: see the markers in api/v1alpha1.
func WithDefaults(spec herald.IPPoolSpec) herald.IPPoolSpec {
	if spec.AutoAssign == nil {
		yes := true
		spec.AutoAssign = &yes
	}
	if spec.AddressOrder == "" {
		spec.AddressOrder = herald.OrderLeastRecentlyUsed
	}
	if spec.ReclaimPolicy == "" {
		spec.ReclaimPolicy = herald.ReclaimDelete
	}
	if spec.OnConflict == "" {
		spec.OnConflict = herald.ConflictDefend
	}
	if spec.ReuseDelay == nil {
		spec.ReuseDelay = &metav1.Duration{Duration: 10 * time.Second}
	}
	return spec
}
