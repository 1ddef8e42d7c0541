package provider

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	herald "github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/ipam"
)

// Grants are the claims of a cluster, with what other systems granted.
type Grants struct {
	namespace string
	claims    map[string][]Claim // by the UID of the Service, in the order of family and ordinal
	named     map[string]Claim
	refs      map[string]herald.ExternalPoolReference
	// counted has the claims of each namespace that no record names, grouped by Service. The Service with the oldest of these
	// claims comes first. first is the index of the first claim of each Service, by its UID.
	counted map[string][]ipam.Claimed
	first   map[string]int
}

// GrantsOf returns what is granted, from the IPAddressClaims and IPAddresses in the namespace of herald-ccm, the IPPools and the
// records.
func GrantsOf(namespace string, claims, addresses []*unstructured.Unstructured, pools []*herald.IPPool, records []*herald.IPAllocation) *Grants {
	var all []Claim
	for _, u := range claims {
		all = append(all, readClaim(u))
	}
	var granted []grant
	for _, u := range addresses {
		granted = append(granted, grantOf(u))
	}
	recorded := map[string]bool{}
	for _, rec := range records {
		recorded[rec.Spec.Claim] = true
	}
	return newGrants(namespace, all, granted, refsOf(pools), func(claim string) bool { return recorded[claim] })
}

// In returns the grants as they would be if there were these pools instead.
func (g *Grants) In(pools []*herald.IPPool) *Grants {
	then := *g
	then.refs = refsOf(pools)
	return &then
}

// refsOf returns the pools of other systems by the IPPools that name them.
func refsOf(pools []*herald.IPPool) map[string]herald.ExternalPoolReference {
	refs := map[string]herald.ExternalPoolReference{}
	for _, o := range pools {
		if o.Spec.ExternalPoolRef != nil {
			refs[o.Name] = *o.Spec.ExternalPoolRef
		}
	}
	return refs
}

func newGrants(namespace string, claims []Claim, granted []grant, refs map[string]herald.ExternalPoolReference, recorded func(claim string) bool) *Grants {
	g := &Grants{namespace: namespace, claims: map[string][]Claim{}, named: map[string]Claim{}, refs: refs, counted: map[string][]ipam.Claimed{}, first: map[string]int{}}
	by := make(map[string]grant, len(granted))
	for _, o := range granted {
		by[o.name] = o
	}
	for _, c := range claims {
		if c.family == 0 || c.Owner.UID == "" {
			continue
		}
		c = c.with(by)
		c.recorded = recorded(c.Name)
		g.claims[c.Owner.UID] = append(g.claims[c.Owner.UID], c)
	}
	for _, all := range g.claims {
		slices.SortFunc(all, older)
		for i, c := range all {
			// The same address was granted twice. The Service can hold it once, so the younger claim has no address.
			at := slices.IndexFunc(all[:i], func(o Claim) bool { return c.Address.IsValid() && o.Address == c.Address })
			if at >= 0 {
				all[i].failure = fmt.Sprintf("it granted %s, which it granted for IPAddressClaim %s as well", c.Address, all[at].Name)
				all[i].Address = netip.Addr{}
			}
			g.named[c.Name] = all[i]
		}
		slices.SortFunc(all, func(x, y Claim) int {
			return cmp.Or(cmp.Compare(x.family, y.family), cmp.Compare(x.ordinal, y.ordinal))
		})
	}
	g.count()
	return g
}

// count fills counted and first.
func (g *Grants) count() {
	var all []Claim
	for _, c := range g.named {
		if !c.recorded && !c.deleting {
			all = append(all, c)
		}
	}
	slices.SortFunc(all, older)
	rank := map[string]int{}
	for _, c := range all {
		if _, ranked := rank[c.Owner.UID]; !ranked {
			rank[c.Owner.UID] = len(rank)
		}
	}
	slices.SortStableFunc(all, func(x, y Claim) int { return rank[x.Owner.UID] - rank[y.Owner.UID] })
	for _, c := range all {
		of := g.counted[c.Owner.Namespace]
		if _, known := g.first[c.Owner.UID]; !known {
			g.first[c.Owner.UID] = len(of)
		}
		g.counted[c.Owner.Namespace] = append(of, ipam.Claimed{Pool: c.Pool, Family: c.family, Address: c.Address})
	}
}

// Claimed returns the addresses that were claimed for others of the namespace, and that count before a claim for this Service. If
// the claims of a namespace exceed its quota, the Services with the oldest claims are within it.
func (g *Grants) Claimed(o ipam.Owner) []ipam.Claimed {
	all := g.counted[o.Namespace]
	if at, has := g.first[o.UID]; has {
		all = all[:at]
	}
	return slices.Clip(all)
}

// rank is the place of a Service among those of its namespace that have claims; those without come last.
func (g *Grants) rank(svc *corev1.Service) int {
	if at, has := g.first[string(svc.UID)]; has {
		return at
	}
	return math.MaxInt
}

// without returns the snapshot in which these claims are being deleted.
func (g *Grants) without(claims []Claim) *Grants {
	then := &Grants{namespace: g.namespace, claims: maps.Clone(g.claims), named: maps.Clone(g.named), refs: g.refs, counted: map[string][]ipam.Claimed{}, first: map[string]int{}}
	for _, o := range claims {
		of := slices.Clone(then.claims[o.Owner.UID])
		at := slices.IndexFunc(of, func(c Claim) bool { return c.Name == o.Name })
		of[at].deleting = true
		then.claims[o.Owner.UID], then.named[o.Name] = of, of[at]
	}
	then.count()
	return then
}

// equal reports whether two snapshots have the same claims and grants. The versions of the objects do not count.
func (g *Grants) equal(o *Grants) bool {
	same := func(x, y Claim) bool {
		x.version = y.version
		return x == y
	}
	return maps.EqualFunc(g.named, o.named, same) && maps.Equal(g.refs, o.refs)
}

// valid reports whether a claim is for the pool of the other system that the IPPool names now, and stays.
func (g *Grants) valid(c Claim) bool {
	ref, known := g.refs[c.Pool]
	return known && c.claimed == ref && !c.deleting
}

// Of returns the addresses that are granted to a Service, without those of claims that records name: if the other system changes
// its answer while an address is in use, nobody gets the new address for the same claim.
func (g *Grants) Of(o ipam.Owner) (all []ipam.Grant) {
	for _, c := range g.claims[o.UID] {
		if c.Address.IsValid() && g.valid(c) && !c.recorded {
			all = append(all, ipam.Grant{Address: c.Address, Pool: c.Pool})
		}
	}
	return all
}

// claimFor returns the name of the claim for which an address is granted to one of its holders; empty if there is none.
func (g *Grants) claimFor(a netip.Addr, holders []ipam.Allocation) string {
	for _, h := range holders {
		for _, c := range g.claims[h.Owner.UID] {
			if c.Address == a && g.valid(c) {
				return c.Name
			}
		}
	}
	return ""
}

// open returns the claims that a Service waits for: those that exist, the granted ones first, and those that are to be
// created. idle reports whether a claim is not in use.
func (g *Grants) open(o ipam.Owner, wants []ipam.Want, idle func(Claim) bool) (open, create []Claim) {
	of := g.claims[o.UID]
	for _, w := range wants {
		ref, known := g.refs[w.Pool]
		if !known {
			continue // The ledger has an edit of the pools that is not seen here yet, or the other way round.
		}
		fit := slices.DeleteFunc(slices.Clone(of), func(c Claim) bool { return c.Pool != w.Pool || c.family != w.Family || !g.valid(c) || !idle(c) })
		slices.SortStableFunc(fit, func(x, y Claim) int { return y.Address.BitLen() - x.Address.BitLen() })
		fit = fit[:min(len(fit), w.Count)]
		open = append(open, fit...)
		for ordinal, n := 0, len(fit); n < w.Count; ordinal++ {
			c := newClaim(o, w, ref, ordinal)
			if !slices.ContainsFunc(slices.Concat(of, create), func(is Claim) bool { return is.Name == c.Name }) {
				create = append(create, c)
				n++
			}
		}
	}
	return open, create
}
