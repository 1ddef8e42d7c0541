package provider

import (
	"fmt"
	"strings"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	herald "github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/ipam"
)

// describePool fills in the status of a pool. invalid is what is wrong with its spec, or nil; then lastValid tells
// whether the last valid spec is known and stays in force.
func describePool(o *herald.IPPool, u use, announced bool, invalid error, lastValid bool) {
	o.Status.IPv4, o.Status.IPv6 = u.family(ipam.IPv4), u.family(ipam.IPv6)
	set := func(kind string, yes bool, reason, message string) {
		c := metav1.Condition{Type: kind, Status: metav1.ConditionFalse, Reason: reason, Message: message, ObservedGeneration: o.Generation}
		if yes {
			c.Status = metav1.ConditionTrue
		}
		meta.SetStatusCondition(&o.Status.Conditions, c)
	}
	ready, reason, message := true, "AddressesAvailable", "addresses can be given out"
	exhausted := u.exhausted()
	switch {
	case o.DeletionTimestamp != nil:
		ready, reason, message = false, "Deleting", deleting(u.holders)
	case invalid != nil && !lastValid:
		ready, reason, message = false, "Invalid", fmt.Sprintf("%v; nothing new is given out, and what is in use stays in use", invalid)
	case o.Spec.Disabled:
		ready, reason, message = false, "Disabled", "spec.disabled is set: nothing new is given out"
	case len(u.families) == 0:
		ready, reason, message = false, "NoAddresses", "the pool has no address of its own: all are excluded, or belong to older pools"
	case len(exhausted) > 0 && len(exhausted) == len(u.families):
		ready, reason, message = false, "Exhausted", "every address is in use: add some to spec.addresses, or delete Services"
	}
	set(herald.PoolReady, ready, reason, message)
	if invalid != nil {
		inForce := "nothing new is given out, and what is in use stays in use"
		if lastValid {
			inForce = "the last valid spec stays in force"
		}
		set(herald.ConditionAccepted, false, "Invalid", fmt.Sprintf("%v; %s", invalid, inForce))
	} else {
		set(herald.ConditionAccepted, true, "Valid", "")
	}
	if len(exhausted) > 0 {
		set(herald.PoolAddressesAvailable, false, "NoneAvailable", fmt.Sprintf("every %s address is in use", strings.Join(exhausted, " and ")))
	} else {
		set(herald.PoolAddressesAvailable, true, "Available", "")
	}
	if len(u.overlaps) > 0 {
		set(herald.PoolExclusive, false, "OlderPoolHasThem", "these addresses are given out by older pools: "+someOf(u.overlaps))
	} else {
		set(herald.PoolExclusive, true, "NoOverlap", "")
	}
	if len(u.outside) > 0 {
		set(herald.PoolInRange, false, "InUse", "in use though the pool no longer holds them: "+someOf(u.outside))
	} else {
		set(herald.PoolInRange, true, "InRange", "")
	}
	if announced {
		set(herald.ConditionAnnounced, true, "Selected", "")
	} else {
		set(herald.ConditionAnnounced, false, "NoAdvertisement",
			fmt.Sprintf("no L2Advertisement or BGPAdvertisement selects the pool, so nothing reaches its addresses: create one with spec.pools: [%s]", o.Name))
	}
}

// deleting says what a pool that is being deleted waits for.
func deleting(holders []string) string {
	if len(holders) == 0 {
		return "what is reserved or kept for a name is released; the pool is deleted when its last address is free"
	}
	return fmt.Sprintf("the pool is deleted when its last address is free; delete these Services, or give them addresses of another pool "+
		"by kubectl herald renumber NAMESPACE/NAME: %s", someOf(holders))
}
