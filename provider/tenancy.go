package provider

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	herald "github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/ipam"
)

// This is how a Service comes into the record of an address, and out of it.

// errHeldByAnother says that the API server holds a record of the address for another owner.
var errHeldByAnother = errors.New("another owner holds the address")

// ensure has the address recorded for a Service. It costs nothing if it is.
func (r *records) ensure(ctx context.Context, a ipam.Allocation, svc *corev1.Service) error {
	name, mine := herald.AllocationName(a.Address), entry(svc)
	if a.Pool == "" {
		a.Pool, _ = r.p.ledger.displaced(a.Address) // It was reserved by hand, for any pool.
	}
	rec, fresh := r.cached(name), false
	var known string // what was, before the record was fetched
	for {
		var written *herald.IPAllocation
		var err error
		if rec == nil {
			written, err = r.p.herald.Allocations.Create(ctx, r.recordOf(a, mine), metav1.CreateOptions{})
		} else if written, err = r.with(ctx, rec, a.Pool, mine); err == nil && written != rec {
			written, err = r.p.herald.Allocations.Update(ctx, written, metav1.UpdateOptions{})
		}
		stale := false
		if err == nil {
			stale, err = r.learn(written)
		}
		switch {
		case apierrors.IsAlreadyExists(err), apierrors.IsConflict(err), apierrors.IsNotFound(err):
		case errors.Is(err, errHeldByAnother) && !fresh: // The cache may lag behind.
		case errors.Is(err, errHeldByAnother):
			// If it were still on its way there it would be given the address again.
			r.p.ledger.strand(a.Address, func(o ipam.Owner) bool { return o.UID != string(svc.UID) })
			if _, unlearned := r.learn(rec); unlearned != nil {
				return unlearned
			}
			return err
		case err != nil || !stale:
			return err
		case fresh:
			r.p.ledger.outdated(a.Address, known)
		}
		known = r.p.ledger.version(a.Address)
		if rec, err = r.fetch(ctx, name); err != nil {
			return err
		}
		fresh = true
	}
}

// with returns the record with this owner in it: the record itself if it is. If it was written by hand and names no
// pool, it is of this one now. It fails with errHeldByAnother if the address is not to be had.
func (r *records) with(ctx context.Context, rec *herald.IPAllocation, pool string, mine herald.AllocationOwner) (*herald.IPAllocation, error) {
	owners, released := rec.Spec.Owners, rec.Spec.ReleasedAt != nil
	at := slices.IndexFunc(owners, func(o herald.AllocationOwner) bool { return o.UID == mine.UID })
	if at >= 0 && !released && r.ours(rec) && equality.Semantic.DeepEqual(owners[at], mine) {
		return rec, nil
	}
	if at < 0 { // It may be kept for our name, or an earlier Service of this name may have had it.
		at = slices.IndexFunc(owners, func(o herald.AllocationOwner) bool { return o.Namespace == mine.Namespace && o.Name == mine.Name })
		if at >= 0 && owners[at].UID != "" && !released {
			// The cache is not enough to say that an owner is no more.
			svc, err := r.p.kube.CoreV1().Services(mine.Namespace).Get(ctx, mine.Name, metav1.GetOptions{})
			if err == nil && svc.UID != mine.UID {
				err = fmt.Errorf("IPAllocation %s is for a younger Service of this name", rec.Name)
			}
			if err != nil {
				return nil, err
			}
		}
	}
	edit := rec.DeepCopy()
	switch {
	case released && at < 0:
		return nil, fmt.Errorf("%w: %s", errHeldByAnother, rec.Name)
	case released:
		edit.Spec.Owners = []herald.AllocationOwner{mine} // What others had here before is over.
	case !r.agrees(rec, at, mine):
		return nil, fmt.Errorf("%w: %s", errHeldByAnother, rec.Name)
	case at < 0:
		edit.Spec.Owners = append(edit.Spec.Owners, mine)
	default:
		if rec.Spec.Class == "" && owners[at].UID == "" && rec.Spec.ReclaimPolicy == "" {
			edit.Spec.ReclaimPolicy = herald.ReclaimRetain // Somebody wrote it by hand, for more than one Service's life.
		}
		edit.Spec.Owners[at] = mine
	}
	edit.Spec.Class, edit.Spec.Pool, edit.Spec.ReleasedAt = r.p.class, cmp.Or(rec.Spec.Pool, pool), nil
	return edit, nil
}

// agrees reports whether an owner can be in a record beside the others, in the place at of them if it is not negative.
// What has been agreed on is not asked again. With those of another controller there is no agreement: each would release
// the other's.
func (r *records) agrees(rec *herald.IPAllocation, at int, mine herald.AllocationOwner) bool {
	if alone := at >= 0 && len(rec.Spec.Owners) == 1; !alone && !r.ours(rec) {
		return false
	}
	if at >= 0 && rec.Spec.Owners[at].UID == mine.UID && equality.Semantic.DeepEqual(rec.Spec.Owners[at].Sharing, mine.Sharing) {
		return true
	}
	ours, err := tenantOf(mine)
	address, others, unread := TenantsOf(rec)
	if at >= 0 && unread == nil {
		others = slices.Delete(others, at, at+1)
	}
	return err == nil && unread == nil && r.p.ledger.agrees(address, others, ours)
}

// reclaim says of a record what becomes of its address when an owner lets go.
type reclaim func(*herald.IPAllocation) herald.ReclaimPolicy

// moved: it was left for another and is not to be kept.
func moved(*herald.IPAllocation) herald.ReclaimPolicy { return herald.ReclaimDelete }

// reclaims is what the Service says or, if it says nothing, the record, or the pool.
func (r *records) reclaims(said herald.ReclaimPolicy) reclaim {
	return func(rec *herald.IPAllocation) herald.ReclaimPolicy {
		return cmp.Or(said, rec.Spec.ReclaimPolicy, r.p.ledger.termsOf(rec.Spec.Pool).reclaim)
	}
}

// release takes an owner out of the record of an address. The last one's is marked as released, from which time it
// cools down, or kept for its name.
func (r *records) release(ctx context.Context, address netip.Addr, o ipam.Owner, policy reclaim) error {
	name := herald.AllocationName(address)
	rec := r.cached(name)
	for {
		if rec == nil || !holds(rec, o.UID) {
			// The cache may lag behind our own write.
			var err error
			if rec, err = r.fetch(ctx, name); err != nil {
				return err
			}
			if rec == nil {
				// Never recorded, so never announced.
				r.p.ledger.drop(address, o)
				r.p.waiting.wake()
				return nil
			}
			if !holds(rec, o.UID) {
				r.p.ledger.drop(address, o)
				r.queue.Add(name) // To learn whose it is.
				return nil
			}
		}
		if rec.Spec.ReleasedAt == nil {
			released, err := r.p.herald.Allocations.Update(ctx, without(rec, o.UID, policy(rec)), metav1.UpdateOptions{})
			if apierrors.IsConflict(err) || apierrors.IsNotFound(err) {
				rec = nil
				continue
			}
			if err != nil {
				return err
			}
			rec = released
		}
		_, err := r.learn(rec)
		r.queue.Add(name)
		return err
	}
}

// without returns a record that an owner has let go of.
func without(rec *herald.IPAllocation, uid string, policy herald.ReclaimPolicy) *herald.IPAllocation {
	edit := rec.DeepCopy()
	at := slices.IndexFunc(edit.Spec.Owners, func(o herald.AllocationOwner) bool { return string(o.UID) == uid })
	switch {
	case policy == herald.ReclaimRetain:
		edit.Spec.Owners[at].UID = ""
	case len(edit.Spec.Owners) > 1:
		edit.Spec.Owners = slices.Delete(edit.Spec.Owners, at, at+1)
	default:
		now := metav1.Now()
		edit.Spec.ReleasedAt = &now
	}
	return edit
}

func (r *records) recordOf(a ipam.Allocation, mine herald.AllocationOwner) *herald.IPAllocation {
	return &herald.IPAllocation{
		ObjectMeta: metav1.ObjectMeta{Name: herald.AllocationName(a.Address)},
		Spec:       herald.IPAllocationSpec{Address: a.Address.String(), Pool: a.Pool, Class: r.p.class, Owners: []herald.AllocationOwner{mine}},
	}
}

func holds(rec *herald.IPAllocation, uid string) bool {
	return slices.ContainsFunc(rec.Spec.Owners, func(o herald.AllocationOwner) bool { return string(o.UID) == uid })
}
