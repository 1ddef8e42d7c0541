package provider

import (
	"cmp"
	"fmt"
	"strings"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	herald "github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/ipam"
	"github.com/heraldlb/herald/provider/configuration"
)

// describePool sets the status of a pool. invalid is the error in its spec, or nil; if there is one, lastValid says
// whether the last valid spec is known and stays in force. assessed is the assessment of the pool; if it is nil because
// there was none yet, the corresponding parts of the status do not change.
func describePool(o *herald.IPPool, u use, assessed *configuration.PoolAssessment, invalid error, lastValid bool) {
	o.Status.Ranges = rangesText(o.Spec.Addresses)
	o.Status.IPv4, o.Status.IPv6 = u.family(ipam.IPv4), u.family(ipam.IPv6)
	set := func(kind string, yes bool, reason, message string) {
		c := metav1.Condition{Type: kind, Status: metav1.ConditionFalse, Reason: reason, Message: message, ObservedGeneration: o.Generation}
		if yes {
			c.Status = metav1.ConditionTrue
		}
		meta.SetStatusCondition(&o.Status.Conditions, c)
	}
	ready, reason, message := true, herald.ReasonAddressesAvailable, "addresses can be given out"
	exhausted := u.exhausted()
	switch {
	case o.DeletionTimestamp != nil:
		ready, reason, message = false, herald.ReasonDeleting, deleting(u.holders)
	case invalid != nil && !lastValid:
		ready, reason, message = false, herald.ReasonInvalid, fmt.Sprintf("%v; nothing new is given out, and what is in use stays in use", invalid)
	case o.Spec.Disabled:
		ready, reason, message = false, herald.ReasonDisabled, "spec.disabled is set: nothing new is given out"
	case len(u.families) == 0:
		ready, reason, message = false, herald.ReasonNoAddresses, "the pool has no address of its own: all are excluded, or belong to older pools"
	case len(exhausted) > 0 && len(exhausted) == len(u.families):
		ready, reason, message = false, herald.ReasonExhausted, u.none("")+": add some to spec.addresses, or delete Services"
	}
	set(herald.PoolReady, ready, reason, message)
	const valid = "the spec is valid and in force"
	switch {
	case invalid != nil:
		inForce := "nothing new is given out, and what is in use stays in use"
		if lastValid {
			inForce = "the last valid spec stays in force"
		}
		set(herald.ConditionAccepted, false, herald.ReasonInvalid, fmt.Sprintf("%v; %s", invalid, inForce))
	case assessed != nil:
		set(herald.ConditionAccepted, true, herald.ReasonValid, cmp.Or(skippedText(assessed.Occupied), valid))
	case !meta.IsStatusConditionTrue(o.Status.Conditions, herald.ConditionAccepted):
		set(herald.ConditionAccepted, true, herald.ReasonValid, valid)
	}
	if len(exhausted) > 0 {
		set(herald.PoolAddressesAvailable, false, herald.ReasonNoneAvailable, u.none(strings.Join(exhausted, " and ")+" "))
	} else {
		set(herald.PoolAddressesAvailable, true, herald.ReasonAvailable, "each family of the pool has a free address")
	}
	switch {
	case len(u.overlaps) > 0:
		set(herald.PoolExclusive, false, herald.ReasonOlderPoolHasThem, "these addresses are given out by older pools: "+someOf(u.overlaps))
	case assessed != nil && assessed.InClusterNetwork != "":
		set(herald.PoolExclusive, false, herald.ReasonInClusterNetwork, assessed.InClusterNetwork)
	case assessed != nil:
		set(herald.PoolExclusive, true, herald.ReasonNoOverlap, "no older pool has addresses of this one, and the cluster uses none for pods or ClusterIPs")
	}
	if len(u.outside) > 0 {
		set(herald.PoolInRange, false, herald.ReasonInUse, "in use though the pool no longer holds them: "+someOf(u.outside))
	} else {
		set(herald.PoolInRange, true, herald.ReasonInRange, "the pool has every address that is recorded for it")
	}
	if assessed != nil {
		meta.SetStatusCondition(&o.Status.Conditions, assessed.Announced)
	}
}

// deleting returns a message about what the deletion of a pool waits for.
func deleting(holders []string) string {
	if len(holders) == 0 {
		return "what is reserved or kept for a name is released; the pool is deleted when its last address is free"
	}
	return fmt.Sprintf("the pool is deleted when its last address is free; delete these Services, or give them addresses of another pool "+
		"by kubectl herald renumber NAMESPACE/NAME: %s", someOf(holders))
}

// rangesText returns the text of a column of kubectl for spec.addresses: as many entries as fit, and the number of the
// others.
func rangesText(ranges []herald.AddressRange) string {
	const short = 40
	text := ""
	for i, r := range ranges {
		if i > 0 && len(text)+len(r) > short {
			return fmt.Sprintf("%s, +%d", text, len(ranges)-i)
		}
		if i > 0 {
			text += ", "
		}
		text += string(r)
	}
	return text
}

// skippedText returns a message about addresses of a pool that it does not assign.
func skippedText(occupied []string) string {
	if len(occupied) == 0 {
		return ""
	}
	return "never given out: " + someOf(occupied)
}
