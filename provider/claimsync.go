package provider

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"net/netip"
	"slices"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"

	"github.com/heraldlb/herald/api/client"
	herald "github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/ipam"
)

// sync makes the claims those that are needed. A claim is needed if a record names it, if its Service has the granted
// address, or if its Service waits for it. decided is how long it took to find the difference.
func (c *claims) sync(ctx context.Context, api dynamic.ResourceInterface, version string, asked []Claim, granted []grant) (decided time.Duration, err error) {
	start, served := time.Now(), c.grants.Load()
	recorded := c.ledger.claims() // The ledger knows a new record before the cache does.
	is := newGrants(c.namespace, asked, granted, c.ledger.external(), func(claim string) bool { return recorded[claim] || c.records.haveClaim(claim) })
	if was := c.report(is, nil); !was.equal(is) {
		c.changes.capacity.set()
		c.changes.usage.set()
	}
	needed, refusals, unread := map[string]bool{}, map[string][]string{}, map[string]error{}
	var create []Claim
	claimed := map[string][]ipam.Claimed{} // by namespace: the claims that count, and after them those in create
	for namespace, of := range is.counted {
		claimed[namespace] = slices.Clone(of)
	}
	for _, svc := range c.concerned(is) {
		namespace, err := (*corev1.Namespace)(nil), unread[svc.Namespace]
		if err == nil {
			namespace, err = c.requests.find(ctx, svc.Namespace)
		}
		var req ipam.Request
		if err == nil {
			var invalid error
			if req, invalid = c.requests.of(svc, namespace); invalid != nil {
				continue
			}
			err = c.records.dropUngranted(ctx, svc, req)
		}
		if err != nil { // Without the quota and the records, a claim that is needed might be deleted.
			unread[svc.Namespace] = err
			for _, o := range is.claims[string(svc.UID)] {
				needed[o.Name] = true
			}
			continue
		}
		all := claimed[svc.Namespace]
		if _, has := is.first[req.Owner.UID]; has {
			req.Claimed = append(req.Claimed, all[len(is.counted[svc.Namespace]):]...)
		} else {
			req.Claimed = slices.Clip(all)
		}
		wants, idle := c.wants(req, is)
		open, missing := is.open(req.Owner, wants, idle)
		create = append(create, missing...)
		for _, o := range missing {
			if text := c.failure(o); text != "" {
				refusals[o.Pool] = append(refusals[o.Pool], text)
			}
			claimed[svc.Namespace] = append(claimed[svc.Namespace], ipam.Claimed{Pool: o.Pool, Family: o.family})
		}
		for _, o := range open {
			needed[o.Name] = true
			if refused := c.ledger.refused(req, o); refused != nil || o.failure != "" {
				refusals[o.Pool] = append(refusals[o.Pool], is.words(o, refused))
			}
		}
	}
	for name := range needed {
		if served.named[name].deleting && !is.named[name].deleting {
			c.changes.capacity.set() // A Service may wait because this claim was about to be deleted.
			break
		}
	}
	c.refuse(refusals)
	c.retell()
	superfluous := slices.DeleteFunc(slices.Collect(maps.Values(is.named)), func(o Claim) bool {
		return o.class != c.class || o.deleting || needed[o.Name] || !c.idle(o)
	})
	if len(superfluous) > 0 {
		// From now on no Service gets an address for them. Whether a claim is in use is asked last: a Service that no longer waits
		// for it may just have got the address. loadBalancers.ensure does the two steps in the other order: it takes the address, and
		// then checks that the grants are still the same. So one of the two sees what the other has done.
		c.grants.Store(is.without(superfluous))
		superfluous = slices.DeleteFunc(superfluous, func(o Claim) bool { return !c.idle(o) })
	}
	decided = time.Since(start)
	errs := slices.Collect(maps.Values(unread))
	removed := write(ctx, superfluous, func(ctx context.Context, o Claim) error { return c.remove(ctx, api, o) })
	c.keep(superfluous, removed)
	errs = append(errs, removed...)
	created := write(ctx, create, func(ctx context.Context, o Claim) error {
		_, err := api.Create(ctx, o.object(version, c.class), metav1.CreateOptions{})
		if apierrors.IsAlreadyExists(err) {
			return nil // The informer will have it.
		}
		return err
	})
	if c.fail(create, created) {
		c.retell()
	}
	return decided, errors.Join(append(errs, created...)...)
}

// keep notes the claims that were not deleted because a record cannot be decoded, and takes these errors out of errs. Such a record may name
// the claim: without the claim the other system could grant the address to somebody else. They are tried again from time to time.
func (c *claims) keep(claims []Claim, errs []error) {
	kept := map[string]string{}
	for i, o := range claims {
		if _, unreadable := errors.AsType[*client.DecodeError](errs[i]); !unreadable {
			continue
		}
		if kept[o.Name] = errs[i].Error(); kept[o.Name] != c.kept[o.Name] {
			c.log.Warn("an IPAddressClaim that nobody seems to need stays as long as an IPAllocation that may name it cannot be decoded",
				zap.String("ipaddressclaim", o.Name), zap.Error(errs[i]))
		}
		errs[i] = nil
	}
	c.kept = kept
}

// know notes what is known of the claims, and returns what was known before. If nothing has changed, decisions that were made with
// the grants of before stay valid.
func (c *claims) know(is *Grants) (was *Grants) {
	was = c.known
	if was.equal(is) && c.grants.Load() == was {
		return was
	}
	c.known = is
	c.grants.Store(is)
	return was
}

// write writes several claims at once, and returns an error, or nil, for each. It goes on if the API server refuses one, and stops
// if the API server is not available.
func write(ctx context.Context, all []Claim, one func(context.Context, Claim) error) []error {
	errs := make([]error, len(all))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(reconcileWorkers)
	for i, o := range all {
		g.Go(func() error {
			if ctx.Err() != nil {
				return nil
			}
			err := one(ctx, o)
			if ctx.Err() != nil && errors.Is(err, ctx.Err()) {
				return nil // Another one has ended this one.
			}
			errs[i] = err
			if unavailable(err) {
				return err
			}
			return nil
		})
	}
	_ = g.Wait() // The error is among errs.
	return errs
}

// idle reports whether a claim is not in use: no record names it, and its Service does not have the address. The ledger knows
// a new record before the cache does.
func (c *claims) idle(o Claim) bool { return !c.hasRecord(o) && !c.ledger.uses(o) }

// hasRecord reports whether a record names a claim.
func (c *claims) hasRecord(o Claim) bool { return o.recorded || c.records.haveClaim(o.Name) }

// wants returns the new addresses that a Service needs from pools whose addresses another system grants, and a function that
// reports whether a claim of the Service is not in use. The records are read first, because a Service gets an address before it is
// recorded: if a claim had a record and the Service did not have the address yet, it would seem to need another claim.
func (c *claims) wants(req ipam.Request, grants *Grants) ([]ipam.Want, func(Claim) bool) {
	of, recorded := grants.claims[req.Owner.UID], map[string]bool{}
	for _, o := range of {
		recorded[o.Name] = c.hasRecord(o)
	}
	wants, used := c.ledger.wants(req, of)
	return wants, func(o Claim) bool { return !used[o.Name] && !recorded[o.Name] }
}

// concerned returns the Services that may wait for claims: those that wait for an address, and those with a claim that is not
// in use. They are in the order in which quotas count their claims.
func (c *claims) concerned(is *Grants) []*corev1.Service {
	all := map[types.UID]*corev1.Service{}
	for _, svc := range c.waiting.list() {
		if c.services.wants(svc) {
			all[svc.UID] = svc
		}
	}
	for _, of := range is.claims {
		if svc := c.services.of(of[0].Owner); svc != nil && c.services.wants(svc) && slices.ContainsFunc(of, c.idle) {
			all[svc.UID] = svc
		}
	}
	return slices.SortedFunc(maps.Values(all), func(x, y *corev1.Service) int { return cmp.Or(cmp.Compare(is.rank(x), is.rank(y)), Older(x, y)) })
}

// remove deletes a claim. It asks the API server for the Service, because another leader may have created the claim for a
// Service that the cache does not have yet, and for the records of the addresses, because another leader may have recorded them, or
// the answer to our own write may have been lost. It fails with a DecodeError if one of these records cannot be decoded.
// The preconditions keep a claim that has changed in the meantime.
func (c *claims) remove(ctx context.Context, api dynamic.ResourceInterface, o Claim) error {
	if c.services.of(o.Owner) == nil {
		svc, err := c.services.fetch(ctx, o.Owner.Namespace, o.Owner.Name)
		if err != nil {
			return err
		}
		if svc != nil && string(svc.UID) == o.Owner.UID && c.services.wants(svc) {
			return nil // When the cache has it, claims are compared again.
		}
	}
	var addresses []netip.Addr
	if o.Address.IsValid() {
		addresses = append(addresses, o.Address)
	}
	for _, a := range c.ledger.heldBy(o.Owner) { // One may have been recorded for the claim, and its grant may be gone since then.
		addresses = append(addresses, a.Address)
	}
	for _, a := range addresses {
		rec, err := c.records.fetch(ctx, herald.AllocationName(a))
		if err != nil {
			return err
		}
		if rec != nil && rec.Spec.Claim == o.Name {
			return nil
		}
	}
	uid := types.UID(o.uid)
	err := api.Delete(ctx, o.Name, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &uid, ResourceVersion: &o.version}})
	if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
		return nil
	}
	return err
}
