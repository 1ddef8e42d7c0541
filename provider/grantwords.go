package provider

import (
	"fmt"
	"strings"

	herald "github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/ipam"
)

// maxFailure is the most bytes of another system's message that a message repeats.
const maxFailure = 256

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
