package provider

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"go.uber.org/zap"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/cache"

	"github.com/heraldlb/herald/api/client"
	herald "github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/ipam"
)

// errHeldByAnother means that the API server has a record of the address for another owner.
var errHeldByAnother = errors.New("another owner holds the address")

// errUngranted means that another system must grant the address, which has no record any more.
var errUngranted = errors.New("the address is not granted")

// recordsAPI is the client for IPAllocations.
type recordsAPI interface {
	Get(context.Context, string, metav1.GetOptions) (*herald.IPAllocation, error)
	Create(context.Context, *herald.IPAllocation, metav1.CreateOptions) (*herald.IPAllocation, error)
	Update(context.Context, *herald.IPAllocation, metav1.UpdateOptions) (*herald.IPAllocation, error)
	UpdateStatus(context.Context, *herald.IPAllocation, metav1.UpdateOptions) (*herald.IPAllocation, error)
	Delete(context.Context, string, metav1.DeleteOptions) error
}

// records writes IPAllocations, and brings their content into the ledger.
type records struct {
	api      recordsAPI
	cache    cache.Indexer
	class    string
	services *services
	ledger   *ledger
	changes  *changes
	log      *zap.Logger
}

// The indexes of the records: by spec.pool, by spec.claim, and by the namespaces of owners that have only a name.
const (
	byPool          = "pool"
	byClaim         = "claim"
	byNameNamespace = "namespace"
)

var recordIndexers = cache.Indexers{
	byPool: func(o any) ([]string, error) { return []string{o.(*herald.IPAllocation).Spec.Pool}, nil },
	byClaim: func(o any) (claims []string, _ error) {
		if claim := o.(*herald.IPAllocation).Spec.Claim; claim != "" {
			claims = append(claims, claim)
		}
		return claims, nil
	},
	byNameNamespace: func(o any) (namespaces []string, _ error) {
		for _, owner := range o.(*herald.IPAllocation).Spec.Owners {
			if owner.UID == "" {
				namespaces = append(namespaces, owner.Namespace)
			}
		}
		return namespaces, nil
	},
}

// load reads all records into the ledger, oldest first. If an owner has several addresses, the one with the youngest record
// then counts as the last that it took.
func (r *records) load() {
	all := client.Items[*herald.IPAllocation](r.cache)
	slices.SortFunc(all, func(x, y *herald.IPAllocation) int { return Older(x, y) })
	for _, rec := range all {
		address, tenants := r.tenants(rec)
		_, _, _ = r.ledger.learn(address, rec, tenants) // learn fails for an address that the schema refuses.
		r.ledger.resume(address)
	}
}

// tenants is like TenantsOf, except that an owner loses its UID if another Service has its name by now. A Service that is
// deleted and created again, or restored from a backup, thus gets the address that it had. The cache may know only the
// earlier of the two Services. So before the record itself is changed in this way, the API server is asked. If a record cannot
// be decoded, its Services keep the address on the terms that they themselves have.
func (r *records) tenants(rec *herald.IPAllocation) (netip.Addr, []ipam.Tenant) {
	address, tenants, err := TenantsOf(rec)
	if err != nil {
		r.log.Warn("cannot read an IPAllocation: its owners keep the address", zap.String("ipallocation", rec.Name), zap.Error(err))
	}
	for i, t := range tenants {
		svc := r.services.named(t.Owner.Namespace, t.Owner.Name)
		is := svc != nil && string(svc.UID) == t.Owner.UID
		if svc != nil && !is {
			tenants[i].Owner.UID = ""
		}
		switch {
		case !r.ledger.ours(rec):
			tenants[i].Sharing = ipam.Sharing{} // Its Services share only with those of their class.
		case err != nil && is:
			tenants[i].Sharing = sharing(svc)
		}
	}
	return address, tenants
}

// learn stores the content of a record, and queues the Services that wrongly believed that they hold the address. It reports
// whether the record is older than the known one.
func (r *records) learn(rec *herald.IPAllocation) (stale bool, err error) {
	if is := r.cached(rec.Name); is != nil && is.ResourceVersion == rec.ResourceVersion {
		rec = is // The ledger keeps it, and the cache has it anyway.
	}
	address, tenants := r.tenants(rec)
	lost, stale, err := r.ledger.learn(address, rec, tenants)
	for _, o := range lost {
		if svc := r.services.of(o); svc != nil && r.services.mayHold(svc) {
			r.changes.serve(svc)
		}
	}
	return stale, err
}

// cached returns a record from the cache; nil if there is none.
func (r *records) cached(name string) *herald.IPAllocation {
	o, exists, err := r.cache.GetByKey(name)
	if err != nil || !exists {
		return nil
	}
	return o.(*herald.IPAllocation)
}

// fetch reads a record from the API server; nil if there is none.
func (r *records) fetch(ctx context.Context, name string) (*herald.IPAllocation, error) {
	rec, err := r.api.Get(ctx, name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	return rec, err
}

// confirm asks the API server for the record of an address before the address counts as unrecorded: the record may have been written
// although the answer was lost. It learns the record, and reports whether there is none. A record that cannot be decoded is one.
func (r *records) confirm(ctx context.Context, address netip.Addr) (none bool, err error) {
	rec, err := r.fetch(ctx, herald.AllocationName(address))
	if _, unreadable := errors.AsType[*client.DecodeError](err); unreadable {
		return false, nil
	}
	if rec == nil || err != nil {
		return err == nil, err
	}
	_, err = r.learn(rec)
	return false, err
}

// dropUngranted makes a Service lose, in memory, addresses that were granted to it and are not any more, and that were neither
// recorded for it nor written into its status in between.
func (r *records) dropUngranted(ctx context.Context, svc *corev1.Service, req ipam.Request) error {
	for _, a := range r.ledger.ungranted(svc, req) {
		none, err := r.confirm(ctx, a.Address)
		if err != nil {
			return err
		}
		if none {
			r.ledger.withdraw(a, func(holders []ipam.Allocation) bool {
				return len(holders) != 1 || holders[0].Owner.UID != req.Owner.UID
			})
		}
	}
	return nil
}

// areForeign reports whether a controller of another class recorded an address in the status of a Service for it. It asks the API
// server, because the cache and the ledger may have the Service before they have its record. A record that cannot be decoded counts.
func (r *records) areForeign(ctx context.Context, svc *corev1.Service) (bool, error) {
	for _, a := range Carried(svc) {
		rec, err := r.fetch(ctx, herald.AllocationName(a))
		_, unreadable := errors.AsType[*client.DecodeError](err)
		if err != nil && !unreadable {
			return false, err
		}
		if unreadable || rec != nil && !r.ledger.ours(rec) && hasOwner(rec, string(svc.UID)) {
			return true, nil
		}
	}
	return false, nil
}

// haveClaim reports whether a record names the IPAddressClaim, and haveClaims whether a record names any.
func (r *records) haveClaim(name string) bool {
	keys, _ := r.cache.IndexKeys(byClaim, name) // IndexKeys fails only for an index that does not exist.
	return len(keys) > 0
}

func (r *records) haveClaims() bool { return len(r.cache.ListIndexFuncValues(byClaim)) > 0 }

// ofPool returns the records of a pool: those that name it, and those that name none and whose address it has. The latter are read
// first, because a record that names no pool gets one when a Service takes the address.
func (r *records) ofPool(pool string) []*herald.IPAllocation {
	var list []*herald.IPAllocation
	at := map[string]int{}                    // by name, the places of those that named none
	unnamed, _ := r.cache.ByIndex(byPool, "") // ByIndex fails only for an index that does not exist.
	for _, o := range unnamed {
		rec := o.(*herald.IPAllocation)
		address, err := netip.ParseAddr(rec.Spec.Address)
		if err == nil && r.ledger.poolOf(address) == pool {
			at[rec.Name] = len(list)
			list = append(list, rec)
		}
	}
	named, _ := r.cache.ByIndex(byPool, pool)
	for _, o := range named {
		rec := o.(*herald.IPAllocation)
		if i, both := at[rec.Name]; both {
			list[i] = rec
		} else {
			list = append(list, rec)
		}
	}
	return list
}

// namespaceGone queues the records that keep an address for a name in a namespace.
func (r *records) namespaceGone(name string) {
	indexed, _ := r.cache.ByIndex(byNameNamespace, name) // ByIndex fails only for an index that does not exist.
	for _, o := range indexed {
		r.changes.queue.Add(o.(*herald.IPAllocation).Name)
	}
}

// unreadableRetry is how long an address is held for nobody when its record cannot be decoded. No informer reports the
// deletion of such a record.
const unreadableRetry = time.Minute

// ensure makes sure that the address is recorded for a Service. If it already is, ensure writes nothing. It fails with
// errHeldByAnother if the record belongs to another owner or cannot be decoded, and the ledger then knows this. If
// the record cannot be decoded, a Service that carries the address must not move, so it waits until the record is corrected.
// claim is the IPAddressClaim for which the address was granted; empty if there is none.
func (r *records) ensure(ctx context.Context, a ipam.Allocation, mine herald.AllocationOwner, claim string) error {
	name := herald.AllocationName(a.Address)
	if a.Pool == "" {
		a.Pool = r.ledger.poolOf(a.Address) // The address was reserved by hand, in any pool.
	}
	rec, fresh := r.cached(name), false
	var known string // the version that was known before the record was fetched
	for {
		stale, err := r.write(ctx, rec, a, mine, claim)
		switch {
		case apierrors.IsAlreadyExists(err), apierrors.IsConflict(err):
		case apierrors.IsNotFound(err) && rec != nil: // The record was deleted in between. If there was none, the CustomResourceDefinition is missing.
		case (errors.Is(err, errHeldByAnother) || errors.Is(err, errUngranted)) && !fresh: // The cache may lag behind.
		case errors.Is(err, errUngranted):
			r.ledger.outdated(a.Address, known) // Another Service that shares the address may have recorded it in between.
			return err
		case errors.Is(err, errHeldByAnother):
			return cmp.Or(r.lose(a.Address, rec, mine), err)
		case err != nil || !stale:
			return err
		case fresh:
			r.ledger.outdated(a.Address, known)
		}
		known = r.ledger.version(a.Address)
		rec, err = r.fetch(ctx, name)
		if _, unreadable := errors.AsType[*client.DecodeError](err); unreadable && !r.carries(mine, a.Address) {
			rec.Spec.Address = a.Address.String()
			r.changes.queue.AddAfter(name, unreadableRetry)
			return cmp.Or(r.lose(a.Address, rec, mine), fmt.Errorf("%w: %w", errHeldByAnother, err))
		}
		if err != nil {
			return err
		}
		fresh = true
	}
}

// lose brings a record into the ledger that denies a Service an address that it was given.
func (r *records) lose(a netip.Addr, rec *herald.IPAllocation, mine herald.AllocationOwner) error {
	// A pending Service would get the address again.
	r.ledger.keepPending(a, func(o ipam.Owner) bool { return o.UID != string(mine.UID) })
	_, err := r.learn(rec)
	return err
}

// carries reports whether an address is in the status of the Service of an owner.
func (r *records) carries(o herald.AllocationOwner, a netip.Addr) bool {
	svc := r.services.of(ownerOf(o))
	return svc != nil && slices.Contains(Carried(svc), a)
}

// write adds an owner to the record of an address, or creates the record if rec is nil, and brings the result into the
// ledger. It reports whether the result is older than what the ledger knows. It fails with errUngranted if the Service was to have
// an address that is kept or shared, and the record of this address is gone.
func (r *records) write(ctx context.Context, rec *herald.IPAllocation, a ipam.Allocation, mine herald.AllocationOwner, claim string) (stale bool, err error) {
	var written *herald.IPAllocation
	if rec == nil && claim == "" && r.ledger.termsOf(a.Pool).external != nil && !r.carries(mine, a.Address) {
		return false, fmt.Errorf("%w: %s", errUngranted, a.Address)
	}
	if rec == nil {
		fresh := recordOf(a, r.class, mine)
		fresh.Spec.Claim = claim
		written, err = r.api.Create(ctx, fresh, metav1.CreateOptions{})
	} else if written, err = r.withOwner(ctx, rec, a.Pool, mine, claim); err == nil && written != rec {
		written, err = r.api.Update(ctx, written, metav1.UpdateOptions{})
	}
	if err != nil {
		return false, err
	}
	return r.learn(written)
}

// withOwner returns the record with this owner in it: the record itself if it already has the owner. A record without a
// pool, which somebody wrote by hand, gets this pool, and a record without a claim gets this claim. withOwner fails with
// errHeldByAnother if others hold the address.
func (r *records) withOwner(ctx context.Context, rec *herald.IPAllocation, pool string, mine herald.AllocationOwner, claim string) (*herald.IPAllocation, error) {
	owners, released := rec.Spec.Owners, released(rec)
	at := slices.IndexFunc(owners, func(o herald.AllocationOwner) bool { return o.UID == mine.UID })
	if at >= 0 && !released && r.ledger.ours(rec) && equality.Semantic.DeepEqual(owners[at], mine) {
		return rec, nil
	}
	if at < 0 { // It may be kept for this name, or an earlier Service of the name may have it.
		at = slices.IndexFunc(owners, func(o herald.AllocationOwner) bool { return o.Namespace == mine.Namespace && o.Name == mine.Name })
		if at >= 0 && owners[at].UID != "" && !released {
			// The cache is not enough to know that an owner is gone.
			svc, err := r.services.fetch(ctx, mine.Namespace, mine.Name)
			switch {
			case err != nil:
				return nil, err
			case svc == nil:
				return nil, fmt.Errorf("the Service %s/%s is gone", mine.Namespace, mine.Name)
			case svc.UID != mine.UID:
				return nil, fmt.Errorf("IPAllocation %s is for a younger Service of this name", rec.Name)
			}
		}
	}
	edit := rec.DeepCopy()
	switch {
	case released && at < 0:
		return nil, fmt.Errorf("%w: %s", errHeldByAnother, rec.Name)
	case released:
		edit.Spec.Owners = []herald.AllocationOwner{mine} // The other owners released it as well.
	case !r.agrees(rec, at, mine):
		return nil, fmt.Errorf("%w: %s", errHeldByAnother, rec.Name)
	case at < 0:
		edit.Spec.Owners = append(edit.Spec.Owners, mine)
	default:
		if rec.Spec.Class == "" && owners[at].UID == "" && rec.Spec.ReclaimPolicy == "" {
			edit.Spec.ReclaimPolicy = herald.ReclaimRetain // A reservation by hand outlives the Service.
		}
		edit.Spec.Owners[at] = mine
	}
	edit.Spec.Class, edit.Spec.Pool, edit.Spec.ReleasedAt = r.class, cmp.Or(rec.Spec.Pool, pool), nil
	edit.Spec.Claim = cmp.Or(rec.Spec.Claim, claim)
	return edit, nil
}

// agrees reports whether an owner can be in a record beside the others. If at is not negative, the owner takes the place at
// that index. An owner that keeps its terms is not compared again. No owner can be beside owners of another controller,
// because each controller would release those of the other.
func (r *records) agrees(rec *herald.IPAllocation, at int, mine herald.AllocationOwner) bool {
	if alone := at >= 0 && len(rec.Spec.Owners) == 1; !alone && !r.ledger.ours(rec) {
		return false
	}
	if at >= 0 && rec.Spec.Owners[at].UID == mine.UID && equality.Semantic.DeepEqual(rec.Spec.Owners[at].Sharing, mine.Sharing) {
		return true
	}
	tenant, err := tenantOf(mine)
	address, others := r.tenants(rec)
	if at >= 0 {
		others = slices.Delete(others, at, at+1)
	}
	return err == nil && r.ledger.agrees(address, others, tenant)
}

// reclaimPolicyOf returns what happens to the address of a record when an owner releases it.
type reclaimPolicyOf func(*herald.IPAllocation) herald.ReclaimPolicy

// always is the policy for an owner that moved to another address: the old address is not kept.
func always(*herald.IPAllocation) herald.ReclaimPolicy { return herald.ReclaimDelete }

// unlessReserved is the policy for an address that another controller takes away from its Service: it is kept only if it was
// reserved by hand.
func unlessReserved(rec *herald.IPAllocation) herald.ReclaimPolicy {
	return cmp.Or(rec.Spec.ReclaimPolicy, herald.ReclaimDelete)
}

// reclaims returns the policy of the Service or, if it sets none, of the record or the pool. If the Service says Retain,
// this counts only if the pool permits it. A pool that is being deleted keeps nothing.
func (r *records) reclaims(said herald.ReclaimPolicy) reclaimPolicyOf {
	return func(rec *herald.IPAllocation) herald.ReclaimPolicy {
		terms := r.ledger.termsOf(rec.Spec.Pool)
		switch {
		case terms.deleting:
			return herald.ReclaimDelete
		case said == herald.ReclaimRetain && !terms.mayRetain:
			return cmp.Or(rec.Spec.ReclaimPolicy, terms.reclaim)
		}
		return cmp.Or(said, rec.Spec.ReclaimPolicy, terms.reclaim)
	}
}

// release removes an owner from the record of an address. If it was the last owner, the record is marked as released. From
// then on the address cools down, or is kept for the owner's name. A record that cannot be decoded stays until somebody
// corrects or deletes it.
func (r *records) release(ctx context.Context, address netip.Addr, o ipam.Owner, policy reclaimPolicyOf) error {
	name := herald.AllocationName(address)
	rec := r.cached(name)
	for {
		if rec == nil || !hasOwner(rec, o.UID) {
			// The cache may lag behind our own write.
			var err error
			rec, err = r.fetch(ctx, name)
			_, unreadable := errors.AsType[*client.DecodeError](err)
			switch {
			case err != nil && !unreadable:
				return err
			case rec == nil, unreadable:
				// There is no record, so the address was never announced, or the record cannot be decoded, so nobody else
				// gets the address.
				r.ledger.drop(address, o)
				r.changes.capacity.set()
				return nil
			}
			if !hasOwner(rec, o.UID) {
				r.ledger.drop(address, o)
				r.changes.record(address) // to learn the holder
				return nil
			}
		}
		if !r.ledger.ours(rec) { // A controller of another class has taken it over, and releases it.
			_, err := r.learn(rec)
			return err
		}
		if !released(rec) {
			edit, err := r.api.Update(ctx, withoutOwner(rec, o, policy(rec)), metav1.UpdateOptions{})
			if apierrors.IsConflict(err) || apierrors.IsNotFound(err) {
				rec = nil
				continue
			}
			if err != nil {
				return err
			}
			rec = edit
		}
		_, err := r.learn(rec)
		r.changes.record(address)
		return err
	}
}
