package provider

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/dynamic/dynamicinformer"
	"k8s.io/client-go/tools/cache"

	herald "github.com/heraldlb/herald/api/v1alpha1"
)

// claimsRetry is the delay after which claims are read or written again when that failed, and after which the API server is
// asked again for definitions that are missing.
const claimsRetry = 3 * time.Second

// longestLookPause is the longest time between two attempts to look for claims of an earlier run.
const longestLookPause = 5 * time.Minute

// ourClaims selects the claims that a herald-ccm created.
const ourClaims = herald.LabelManagedBy + "=" + herald.LabelManagedByValue

// claims asks other systems for addresses: it creates an IPAddressClaim for each address that a Service needs from a pool
// with spec.externalPoolRef, and deletes those that nobody needs. On every change it compares all claims with all that are
// needed. One goroutine, run, does all of this. Before a pool has the field it only looks once for claims of an earlier run.
type claims struct {
	services  *services
	requests  requests
	ledger    *ledger
	records   *records
	waiting   *waiting
	changes   *changes
	discovery discovery.DiscoveryInterface
	dynamic   dynamic.Interface
	namespace string
	class     string
	log       *zap.Logger
	// grants has what is known of the claims, without those that are about to be deleted. It is never nil.
	grants *atomic.Pointer[Grants]
	// known has all. It belongs to run.
	known *Grants
	// kept has the claims that stay although they seem superfluous, with the reason. It belongs to run.
	kept map[string]string

	mu sync.Mutex
	// problem is why claims cannot be read; nil if they can. Until read is true, it is not known whether they can.
	problem error
	read    bool
	// told has what each waiting Service was told last.
	told map[types.UID]string
	// refusals has what is wrong with claims that Services wait for, by IPPool.
	refusals map[string][]string
	// failed has the claims that could not be created the last time, and why.
	failed map[string]string
}

func (c *claims) run(ctx context.Context) error {
	looked, next, pause := false, time.Time{}, claimsRetry // whether and when to look for claims of an earlier run
	for {
		var again, look <-chan time.Time
		needed := c.needed()
		if now := time.Now(); !needed && !looked && !now.Before(next) {
			var err error
			if needed, err = c.leftover(ctx); err == nil {
				looked = !needed
			} else {
				c.log.Warn("cannot look for IPAddressClaims of an earlier run, trying again", zap.Error(err), zap.Duration("in", pause))
				next, pause = now.Add(pause), min(2*pause, longestLookPause)
			}
		}
		if !needed && !looked {
			look = time.After(time.Until(next))
		}
		if needed {
			version, err := c.discover()
			if err == nil {
				err = c.serve(ctx, version)
			}
			if ctx.Err() != nil {
				return ctx.Err()
			}
			c.report(c.unread(), err)
			again = time.After(claimsRetry)
		} else {
			c.know(c.unread())
		}
		c.retell()
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-c.changes.claims:
			if again != nil {
				select {
				case <-ctx.Done():
					return ctx.Err()
				case <-again:
				}
			}
		case <-again:
		case <-look:
		}
	}
}

// unread is what is known of the claims when they are not read.
func (c *claims) unread() *Grants {
	return newGrants(c.namespace, nil, nil, c.ledger.external(), c.records.haveClaim)
}

// needed reports whether claims are to be created, now or later, or to be deleted when their addresses are free.
func (c *claims) needed() bool { return len(c.ledger.external()) > 0 || c.records.haveClaims() }

// leftover reports whether there are claims of an earlier run. It is asked once, if nothing else says that claims are needed: the
// pool may have lost spec.externalPoolRef while no herald-ccm ran.
func (c *claims) leftover(ctx context.Context) (bool, error) {
	version, err := c.discover()
	if _, missing := errors.AsType[*missingError](err); missing {
		return false, nil
	} else if err != nil {
		return false, err
	}
	list, err := c.dynamic.Resource(c.resource(version, claimsResource)).Namespace(c.namespace).List(ctx, metav1.ListOptions{LabelSelector: ourClaims, Limit: 1})
	if apierrors.IsNotFound(err) || apierrors.IsForbidden(err) {
		return false, nil
	} else if err != nil {
		return false, err
	}
	return len(list.Items) > 0, nil
}

// missingError says that a CustomResourceDefinition of the contract is not installed.
type missingError struct{ resource string }

func (e *missingError) Error() string {
	return fmt.Sprintf("CustomResourceDefinition %s.%s is not installed: install the IPAM provider of the pool that spec.externalPoolRef names", e.resource, IPAMGroup)
}

// discover returns the version of the contract that the API server serves.
func (c *claims) discover() (version string, err error) {
	missing := &missingError{claimsResource}
	for _, version := range IPAMVersions {
		list, err := c.discovery.ServerResourcesForGroupVersion(IPAMGroup + "/" + version)
		if apierrors.IsNotFound(err) {
			continue
		}
		if err != nil {
			return "", err
		}
		serves := func(resource string) bool {
			return slices.ContainsFunc(list.APIResources, func(r metav1.APIResource) bool { return r.Name == resource })
		}
		if serves(claimsResource) && serves(grantsResource) {
			return version, nil
		}
		if serves(claimsResource) {
			missing.resource = grantsResource
		}
	}
	return "", missing
}

func (c *claims) resource(version, resource string) schema.GroupVersionResource {
	return schema.GroupVersionResource{Group: IPAMGroup, Version: version, Resource: resource}
}

// serve reads and writes claims until ctx ends, or until they cannot be read.
func (c *claims) serve(ctx context.Context, version string) error {
	var running sync.WaitGroup
	defer running.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	failed := make(chan error, 1)
	asked := c.informer(c.resource(version, claimsResource), ourClaims, failed, func(u *unstructured.Unstructured) any { return readClaim(u) })
	granted := c.informer(c.resource(version, grantsResource), "", failed, func(u *unstructured.Unstructured) any { return grantOf(u) })
	synced := make(chan struct{})
	running.Go(func() { asked.RunWithContext(ctx) })
	running.Go(func() { granted.RunWithContext(ctx) })
	running.Go(func() {
		if cache.WaitForCacheSync(ctx.Done(), asked.HasSynced, granted.HasSynced) {
			close(synced)
		}
	})
	select {
	case <-ctx.Done():
		return ctx.Err()
	case err := <-failed:
		return err
	case <-synced:
	}
	api := c.dynamic.Resource(c.resource(version, claimsResource)).Namespace(c.namespace)
	for {
		decided, err := c.sync(ctx, api, version, contents[Claim](asked.GetStore()), contents[grant](granted.GetStore()))
		var again <-chan time.Time
		if err != nil && ctx.Err() == nil {
			c.log.Warn("failed to write IPAddressClaims, trying again", zap.Error(err))
			again = time.After(claimsRetry)
		} else if len(c.kept) > 0 {
			again = time.After(unreadableRetry) // No informer reports that such a record is deleted.
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(max(wakePeriod, 10*decided)):
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case err := <-failed:
			return err
		case <-c.changes.claims:
		case <-again:
		}
	}
}

// seen is the part of an object that is kept of it.
type seen struct {
	metav1.ObjectMeta
	content any
}

// informer returns an informer of one resource in the namespace of herald-ccm, which keeps what read returns. It passes on the
// error if the resource cannot be read. After the first list only two errors count: that it does not exist, and that
// herald-ccm may not read it.
func (c *claims) informer(r schema.GroupVersionResource, selector string, failed chan<- error, read func(*unstructured.Unstructured) any) cache.SharedIndexInformer {
	i := dynamicinformer.NewFilteredDynamicInformer(c.dynamic, r, c.namespace, 0, nil, func(o *metav1.ListOptions) { o.LabelSelector = selector }).Informer()
	// The following fail only for an informer that runs or ran.
	_ = i.SetTransform(func(o any) (any, error) {
		if u, ok := o.(*unstructured.Unstructured); ok {
			return &seen{metav1.ObjectMeta{Namespace: u.GetNamespace(), Name: u.GetName(), UID: u.GetUID(), ResourceVersion: u.GetResourceVersion()}, read(u)}, nil
		}
		return o, nil
	})
	_ = i.SetWatchErrorHandlerWithContext(func(ctx context.Context, reflector *cache.Reflector, err error) {
		if i.HasSynced() && !apierrors.IsNotFound(err) && !apierrors.IsForbidden(err) {
			cache.DefaultWatchErrorHandler(ctx, reflector, err)
			return
		}
		if apierrors.IsNotFound(err) {
			err = &missingError{r.Resource}
		}
		select {
		case failed <- err:
		default:
		}
	})
	look := func(any) { c.changes.claims.set() }
	_, _ = i.AddEventHandler(cache.ResourceEventHandlerFuncs{AddFunc: look, UpdateFunc: func(_, o any) { look(o) }, DeleteFunc: look})
	return i
}

// contents returns what is kept of the objects in a store.
func contents[T any](store cache.Store) (all []T) {
	for _, o := range store.List() {
		if s, ok := o.(*seen); ok {
			all = append(all, s.content.(T))
		}
	}
	return all
}
