package provider

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"

	herald "github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/ipam"
)

// establishedAfter is the age of a record from which on the address counts as in established use. The Service then keeps
// the address, whatever conflict a node reports.
const establishedAfter = time.Minute

// decide gives the Service what it asks for. It replaces an address that conflicts by another one if there is one.
func (l *ledger) decide(svc *corev1.Service, req ipam.Request, now time.Time) ([]ipam.Allocation, []notice, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	// The address that the Service left because of a conflict is kept for its name. It must not be assigned to it again.
	req.Leave = slices.Concat(req.Leave, l.leftForConflict(req.Owner))
	leave := l.toLeave(req, now)
	if len(leave) == 0 {
		return l.allocateLocked(svc, req)
	}
	other := req
	other.Leave = slices.Concat(req.Leave, leave)
	allocations, notices, err := l.allocateLocked(svc, other)
	if err != nil {
		why := err
		if allocations, notices, err = l.allocateLocked(svc, req); err == nil {
			notices = append(notices, notice{herald.EventAddressConflict, fmt.Sprintf("the Service keeps %s, which another machine uses as well: %s", leave[0], Words(why))})
		}
		return allocations, notices, err
	}
	for _, old := range leave {
		for _, a := range allocations {
			if carried := Carried(svc); ipam.FamilyOf(a.Address) == ipam.FamilyOf(old) && slices.Contains(carried, old) && !slices.Contains(carried, a.Address) {
				notices = append(notices, notice{herald.EventAddressReplaced, fmt.Sprintf("another machine uses %s as well: the Service was given %s instead", old, a.Address)})
				break
			}
		}
	}
	return allocations, notices, nil
}

// ungranted lists addresses that were granted to a Service and are not any more, and that are neither known to be recorded nor in its
// status. The Service is to lose them.
func (l *ledger) ungranted(svc *corev1.Service, req ipam.Request) (list []ipam.Allocation) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, a := range l.alloc.HeldBy(req.Owner) {
		if l.needsGrantLocked(a) && len(l.alloc.Holders(a.Address)) == 1 &&
			!slices.Contains(req.Granted, ipam.Grant{Address: a.Address, Pool: a.Pool}) && !slices.Contains(Carried(svc), a.Address) {
			list = append(list, a)
		}
	}
	return list
}

// withdraw makes all holders of an address lose it, if another system must grant it, it is not recorded, and keeps returns false for the
// holders. It reports whether they lost it. All is read at once: in between, one of the holders could be recorded.
func (l *ledger) withdraw(a ipam.Allocation, keeps func(holders []ipam.Allocation) bool) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	holders := l.alloc.Holders(a.Address)
	if !l.needsGrantLocked(a) || keeps(holders) {
		return false
	}
	var owners []ipam.Owner
	for _, h := range holders {
		owners = append(owners, h.Owner)
	}
	return l.dropLocked(a.Address, owners...)
}

// needsGrantLocked reports whether another system must grant an address that is not recorded yet.
func (l *ledger) needsGrantLocked(a ipam.Allocation) bool {
	return l.terms[a.Pool].external != nil && l.addresses[a.Address].record == nil
}

// mayBeUngranted reports whether another system must grant an address that is not known to be recorded, and keeps returns false for
// its holders.
func (l *ledger) mayBeUngranted(a ipam.Allocation, keeps func(holders []ipam.Allocation) bool) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.needsGrantLocked(a) && !keeps(l.alloc.Holders(a.Address))
}

// wants returns the new addresses that a request needs from pools whose addresses another system grants, and the names of those
// claims that are in use. Both are read at once: in between, the Service could get an address that was granted for one of the claims,
// and it would then seem to need another claim.
func (l *ledger) wants(req ipam.Request, claims []Claim) (wants []ipam.Want, used map[string]bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	req.Leave = slices.Concat(req.Leave, l.leftForConflict(req.Owner))
	used = map[string]bool{}
	for _, c := range claims {
		used[c.Name] = c.UsedIn(l.alloc)
	}
	return l.alloc.Wants(req), used
}

// refused returns why a Service cannot get the address that was granted for a claim; nil if it can.
func (l *ledger) refused(req ipam.Request, c Claim) *ipam.Error {
	l.mu.Lock()
	defer l.mu.Unlock()
	req.Leave = slices.Concat(req.Leave, l.leftForConflict(req.Owner))
	return c.RefusedBy(l.alloc, req)
}

// uses is Claim.UsedIn.
func (l *ledger) uses(c Claim) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return c.UsedIn(l.alloc)
}

// claims returns the claims that records name.
func (l *ledger) claims() map[string]bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	all := map[string]bool{}
	for _, e := range l.addresses {
		if e.record != nil && e.record.Spec.Claim != "" {
			all[e.record.Spec.Claim] = true
		}
	}
	return all
}

// external returns the pools of other systems by the IPPools that name them.
func (l *ledger) external() map[string]herald.ExternalPoolReference {
	l.mu.Lock()
	defer l.mu.Unlock()
	refs := map[string]herald.ExternalPoolReference{}
	for name, t := range l.terms {
		if t.external != nil {
			refs[name] = *t.external
		}
	}
	return refs
}

// leaves reports whether the Service must move off an address because of a conflict.
func (l *ledger) leaves(req ipam.Request, address netip.Addr, now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.leavesLocked(req, address, now)
}

// leavesLocked is leaves for callers that hold the lock. A Service leaves an address that is new, that it did not ask
// for and that was not reserved for it by hand, if it has not moved because of a conflict before.
func (l *ledger) leavesLocked(req ipam.Request, address netip.Addr, now time.Time) bool {
	e := l.addresses[address]
	return e.conflicting() && l.ours(e.record) && !e.cooling() && now.Sub(e.record.CreationTimestamp.Time) < establishedAfter &&
		e.record.Spec.ReclaimPolicy != herald.ReclaimRetain &&
		!slices.Contains(req.Addresses, address) && len(l.leftForConflict(req.Owner)) == 0
}

// toLeave lists the addresses that an owner must move off because of a conflict.
func (l *ledger) toLeave(req ipam.Request, now time.Time) (list []netip.Addr) {
	for _, a := range l.alloc.HeldBy(req.Owner) {
		if l.leavesLocked(req, a.Address, now) {
			list = append(list, a.Address)
		}
	}
	return list
}

// leftForConflict lists the addresses that an owner left because of a conflict and that are still kept for its name.
func (l *ledger) leftForConflict(o ipam.Owner) (list []netip.Addr) {
	for _, a := range l.coolingForLocked(o) {
		if l.addresses[a.Address].conflicting() {
			list = append(list, a.Address)
		}
	}
	return list
}
