package provider

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

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

// readClaim reads an IPAddressClaim. The family is zero if the claim is not one that a herald-ccm created.
func readClaim(u *unstructured.Unstructured) Claim {
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

// older compares claims by age, the older first.
func older(x, y Claim) int {
	return cmp.Or(cmp.Compare(x.created, y.created), strings.Compare(x.Name, y.Name))
}

// refWords names a pool of another system.
func refWords(ref herald.ExternalPoolReference) string { return cut(ref.Kind) + " " + quote(ref.Name) }
