package provider

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	herald "github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/ipam"
)

// The contract by which other systems grant addresses is the IPAM contract of Cluster API: for an IPAddressClaim, which
// names a pool of the other system, that system creates an IPAddress. https://cluster-api.sigs.k8s.io, "Contract rules for
// IPAM providers".
const (
	IPAMGroup      = "ipam.cluster.x-k8s.io"
	claimsResource = "ipaddressclaims"
	grantsResource = "ipaddresses"
)

// IPAMVersions are the versions of the contract that are understood, the preferred one first. What is read and written here
// is the same in both.
var IPAMVersions = []string{"v1beta2", "v1beta1"}

// maxFailure is the most bytes of another system's message that a message repeats.
const maxFailure = 256

// Claim is an IPAddressClaim of ours, and what the other system made of it.
type Claim struct {
	Name     string
	Pool     string     // the IPPool that needs the address
	Owner    ipam.Owner // the Service that needs the address
	Address  netip.Addr // the address that is granted; the zero Addr if there is none
	claimed  herald.ExternalPoolReference
	uid      string
	version  string
	class    string
	created  int64 // in seconds
	family   ipam.Family
	ordinal  int
	deleting bool
	bound    string // the name of the IPAddress
	recorded bool   // whether a record names it
	failure  string // why the other system does not grant it, as it says itself, or why its answer cannot be used
}

// grant is the content of an IPAddress.
type grant struct {
	name, claim, address string
	pool                 herald.ExternalPoolReference
}

// claimName returns the name of a claim for the address of a family that a Service needs. It is the same after a restart,
// so no address is claimed twice.
func claimName(uid string, f ipam.Family, ordinal int) string {
	return fmt.Sprintf("herald-%s-%s-%d", uid, strings.ToLower(f.String()), ordinal)
}

// newClaim returns the claim for an address that a Service needs from a pool.
func newClaim(o ipam.Owner, w ipam.Want, ref herald.ExternalPoolReference, ordinal int) Claim {
	return Claim{Name: claimName(o.UID, w.Family, ordinal), Pool: w.Pool, Owner: o, claimed: ref, family: w.Family, ordinal: ordinal}
}

// object returns the IPAddressClaim to create.
func (c Claim) object(version, class string) *unstructured.Unstructured {
	return &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": IPAMGroup + "/" + version, "kind": "IPAddressClaim",
		"metadata": map[string]any{
			"name":   c.Name,
			"labels": map[string]any{herald.LabelManagedBy: herald.LabelManagedByValue},
			"annotations": map[string]any{
				herald.AnnotationClaimPool: c.Pool, herald.AnnotationClaimNamespace: c.Owner.Namespace, herald.AnnotationClaimName: c.Owner.Name,
				herald.AnnotationClaimUID: c.Owner.UID, herald.AnnotationClaimClass: class,
			},
		},
		"spec": map[string]any{"poolRef": map[string]any{"apiGroup": c.claimed.APIGroup, "kind": c.claimed.Kind, "name": c.claimed.Name}},
	}}
}

// claimOf reads an IPAddressClaim. The family is zero if the claim is not one that a herald-ccm created.
func claimOf(u *unstructured.Unstructured) Claim {
	said := u.GetAnnotations()
	c := Claim{
		Name: u.GetName(), Pool: said[herald.AnnotationClaimPool],
		Owner:   ipam.Owner{Namespace: said[herald.AnnotationClaimNamespace], Name: said[herald.AnnotationClaimName], UID: said[herald.AnnotationClaimUID]},
		claimed: poolRefOf(u), uid: string(u.GetUID()), version: u.GetResourceVersion(), class: said[herald.AnnotationClaimClass], deleting: u.GetDeletionTimestamp() != nil,
		created: u.GetCreationTimestamp().Unix(),
	}
	for _, f := range []ipam.Family{ipam.IPv4, ipam.IPv6} {
		prefix := strings.TrimSuffix(claimName(c.Owner.UID, f, 0), "0")
		if n, err := strconv.Atoi(strings.TrimPrefix(c.Name, prefix)); err == nil && n >= 0 && claimName(c.Owner.UID, f, n) == c.Name {
			c.family, c.ordinal = f, n
		}
	}
	bound, _, _ := unstructured.NestedString(u.Object, "status", "addressRef", "name")
	c.bound = cmp.Or(bound, c.Name)
	for _, path := range [][]string{{"status", "conditions"}, {"status", "v1beta2", "conditions"}} {
		conditions, _, _ := unstructured.NestedSlice(u.Object, path...)
		for _, item := range conditions {
			condition, _ := item.(map[string]any)
			if condition["type"] == "Ready" && condition["status"] == "False" {
				reason, _ := condition["reason"].(string)
				message, _ := condition["message"].(string)
				c.failure = cmp.Or(strings.Trim(reason+": "+message, ": "), "it says no reason")
			}
		}
	}
	return c
}

// grantOf reads an IPAddress.
func grantOf(u *unstructured.Unstructured) grant {
	text := func(path ...string) string { s, _, _ := unstructured.NestedString(u.Object, path...); return s }
	return grant{u.GetName(), text("spec", "claimRef", "name"), text("spec", "address"), poolRefOf(u)}
}

func poolRefOf(u *unstructured.Unstructured) herald.ExternalPoolReference {
	text := func(field string) string {
		s, _, _ := unstructured.NestedString(u.Object, "spec", "poolRef", field)
		return s
	}
	return herald.ExternalPoolReference{APIGroup: text("apiGroup"), Kind: text("kind"), Name: text("name")}
}

// with returns the claim with what was granted for it. The claim names its IPAddress; until it does, that is the one with
// its own name.
func (c Claim) with(grants map[string]grant) Claim {
	g, granted := grants[c.bound]
	if !granted {
		return c
	}
	address, err := netip.ParseAddr(g.address)
	switch {
	case g.claim != c.Name:
		c.failure = fmt.Sprintf("IPAddress %s is for IPAddressClaim %s, and not for this one", cut(g.name), quote(g.claim))
	case g.pool != c.claimed:
		c.failure = fmt.Sprintf("IPAddress %s is of %s, and not of the pool that the claim names", cut(g.name), refWords(g.pool))
	case err != nil || address.Zone() != "":
		c.failure = fmt.Sprintf("spec.address of IPAddress %s is %s, which is no address", cut(g.name), quote(g.address))
	default:
		c.Address, c.failure = address, ""
	}
	return c
}

// UsedIn reports whether the Service of the claim, or another of its name, holds the granted address, or whether the address
// is kept for it.
func (c Claim) UsedIn(a *ipam.Allocator) bool {
	return c.Address.IsValid() && slices.ContainsFunc(a.Holders(c.Address), func(h ipam.Allocation) bool {
		return h.Owner.UID == c.Owner.UID || h.Owner.Reservation() == c.Owner.Reservation()
	})
}

// RefusedBy returns why the Service cannot get the address that was granted for the claim; nil if it can, or if there is none.
func (c Claim) RefusedBy(a *ipam.Allocator, req ipam.Request) *ipam.Error {
	if !c.Address.IsValid() {
		return nil
	}
	return a.Refused(req, ipam.Grant{Address: c.Address, Pool: c.Pool})
}

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
		all = append(all, claimOf(u))
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
			// An address for which the Service has a grant already is none that it can have beside the other.
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

// older compares claims by age, the older first.
func older(x, y Claim) int {
	return cmp.Or(cmp.Compare(x.created, y.created), strings.Compare(x.Name, y.Name))
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

// LostWords returns why the address of a record is no longer granted; empty if it is granted, or nobody had to grant it.
func (g *Grants) LostWords(rec *herald.IPAllocation) string {
	if rec.Spec.Claim == "" {
		return ""
	}
	c, exists := g.named[rec.Spec.Claim]
	switch {
	case !exists:
		return fmt.Sprintf("IPAddressClaim %s is gone", rec.Spec.Claim)
	case !c.Address.IsValid():
		return fmt.Sprintf("IPAddressClaim %s has no IPAddress any more", rec.Spec.Claim)
	case c.Address.String() != rec.Spec.Address:
		return fmt.Sprintf("IPAddressClaim %s has %s now", rec.Spec.Claim, c.Address)
	}
	return ""
}

// WaitWords says which claims a Service waits for; it is empty if there are none. wants are the addresses that the Service
// needs, idle reports whether a claim is not in use, and refused returns why a granted address cannot be given.
func (g *Grants) WaitWords(o ipam.Owner, wants []ipam.Want, idle func(Claim) bool, refused func(Claim) *ipam.Error) string {
	const most = 3 // A message of an event may have 1024 bytes.
	var texts []string
	open, create := g.open(o, wants, idle)
	for _, c := range append(open, create...) {
		why := refused(c)
		if c.Address.IsValid() && why == nil {
			continue
		}
		if len(texts) == most {
			texts = append(texts, "and for more")
			break
		}
		texts = append(texts, g.words(c, why))
	}
	return strings.Join(texts, "; ")
}

// words says what a Service waits for with a claim. refused is why the granted address cannot be given; nil if it can.
func (g *Grants) words(c Claim, refused *ipam.Error) string {
	name, system := "IPAddressClaim "+g.namespace+"/"+c.Name, refWords(c.claimed)
	if refused == nil && c.failure == "" {
		return fmt.Sprintf("waits until %s grants %s, for IPPool %s", system, name, c.Pool)
	}
	if refused == nil {
		return fmt.Sprintf("%s does not grant %s, for IPPool %s: %s", system, name, c.Pool, cutAt(c.failure, maxFailure))
	}
	var why string
	cure := fmt.Sprintf("correct %s, and delete the claim to have another address granted", system)
	switch refused.Cause {
	case ipam.InNoPool:
		why, cure = "which is not in IPPool "+c.Pool, "add it to spec.addresses, or "+cure
	case ipam.AnotherPool:
		why = fmt.Sprintf("which is in IPPool %s and not in %s", refused.Home, c.Pool)
	case ipam.IsSkipped:
		why = fmt.Sprintf("which is not given out (%s)", cut(refused.Word))
	case ipam.ToBeLeft:
		why = fmt.Sprintf("which the Service is to leave (annotation %s)", herald.AnnotationRenumber)
	default:
		why = "which is " + ConflictWords(refused.Conflict, refused.Asker)
	}
	return fmt.Sprintf("%s granted %s for %s, %s: %s", system, c.Address, name, why, cure)
}

// refWords names a pool of another system.
func refWords(ref herald.ExternalPoolReference) string { return cut(ref.Kind) + " " + quote(ref.Name) }
