package e2e

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	herald "github.com/heraldlb/herald/api/v1alpha1"
)

// with combines several edits of a pool.
func with(edits ...func(*herald.IPPoolSpec)) func(*herald.IPPoolSpec) {
	return func(s *herald.IPPoolSpec) {
		for _, edit := range edits {
			edit(s)
		}
	}
}

// named makes a pool serve only Services that name it.
func named(s *herald.IPPoolSpec) { no := false; s.AutoAssign = &no }

// acrossNamespaces allows Services of different namespaces to share a pool's addresses.
func acrossNamespaces(s *herald.IPPoolSpec) { s.ShareAcrossNamespaces = true }

// ports sets the ports of a Service, each in the form TCP/80.
func ports(ports ...string) func(*corev1.Service) {
	return func(svc *corev1.Service) {
		svc.Spec.Ports = nil
		for _, p := range ports {
			protocol, number, _ := strings.Cut(p, "/")
			n, _ := strconv.Atoi(number) // The API server refuses port 0.
			port := corev1.ServicePort{Name: strings.ToLower(protocol) + "-" + number, Protocol: corev1.Protocol(protocol), Port: int32(n)}
			svc.Spec.Ports = append(svc.Spec.Ports, port)
		}
	}
}

func families(families ...corev1.IPFamily) func(*corev1.Service) {
	return func(svc *corev1.Service) { svc.Spec.IPFamilies = families }
}

// served creates a Service and waits until it has exactly this address.
func (c *cluster) served(name, address string, edit ...func(*corev1.Service)) {
	c.t.Helper()
	c.service(name, edit...)
	c.holds(name, address)
}

// refused waits for the event that a Service cannot be served, whose message contains the text.
func (c *cluster) refused(name, text string) {
	c.t.Helper()
	c.event("Service", name, "SyncLoadBalancerFailed", text)
}

// free deletes a Service and waits until its address is available.
func (c *cluster) free(name, address string) {
	c.t.Helper()
	c.remove(name)
	c.unrecorded(address)
}

// addressOf creates a Service and returns the address that it gets.
func (c *cluster) addressOf(name string, edit ...func(*corev1.Service)) (address string) {
	c.t.Helper()
	c.service(name, edit...)
	c.eventually(name+" has an address", func(context.Context) error {
		has := addresses(c.get(name))
		if len(has) != 1 {
			return fmt.Errorf("it has %v", has)
		}
		address = has[0]
		return nil
	})
	return address
}

func (c *cluster) recordOf(address string) *herald.IPAllocation {
	c.t.Helper()
	rec, err := c.herald.Allocations.Get(c.ctx, herald.AllocationName(netip.MustParseAddr(address)), metav1.GetOptions{})
	c.must(err)
	return rec
}

// shares waits until exactly these Services have the address, in their status and in its record.
func (c *cluster) shares(address string, owners ...string) {
	c.t.Helper()
	c.recorded(address, owners, func(ctx context.Context, o herald.AllocationOwner) error {
		svc, err := c.kube.CoreV1().Services(o.Namespace).Get(ctx, o.Name, metav1.GetOptions{})
		if err == nil && (svc.UID != o.UID || !slices.Equal(addresses(svc), []string{address})) {
			err = fmt.Errorf("%s/%s has UID %s and addresses %v; in the record is %s", o.Namespace, o.Name, svc.UID, addresses(svc), o.UID)
		}
		return err
	})
}

// kept waits until an address is kept for these names, and for no existing Service.
func (c *cluster) kept(address string, names ...string) {
	c.t.Helper()
	c.recorded(address, names, func(_ context.Context, o herald.AllocationOwner) error {
		if o.UID != "" {
			return fmt.Errorf("%s/%s has it", o.Namespace, o.Name)
		}
		return nil
	})
}

func (c *cluster) recorded(address string, owners []string, check func(context.Context, herald.AllocationOwner) error) {
	c.t.Helper()
	c.eventually(fmt.Sprintf("%s recorded for %v", address, owners), func(ctx context.Context) error {
		rec, err := c.herald.Allocations.Get(ctx, herald.AllocationName(netip.MustParseAddr(address)), metav1.GetOptions{})
		if err != nil {
			return err
		}
		var names []string
		for _, o := range rec.Spec.Owners {
			names = append(names, o.Namespace+"/"+o.Name)
			err = errors.Join(err, check(ctx, o))
		}
		slices.Sort(names)
		if !slices.Equal(names, owners) || rec.Spec.ReleasedAt != nil {
			err = fmt.Errorf("its owners are %v, released %v", names, rec.Spec.ReleasedAt)
		}
		return err
	})
}

// editRecord changes an IPAllocation by hand.
func (c *cluster) editRecord(address string, change func(*herald.IPAllocation)) {
	c.t.Helper()
	c.eventually("edit of IPAllocation "+address, func(ctx context.Context) error {
		rec, err := c.herald.Allocations.Get(ctx, address, metav1.GetOptions{})
		if err != nil {
			return err
		}
		change(rec)
		_, err = c.herald.Allocations.Update(ctx, rec, metav1.UpdateOptions{})
		return err
	})
}

// poolGone waits until a deleted pool is gone, which happens when its last address is released.
func (c *cluster) poolGone(name string) {
	c.t.Helper()
	c.eventually("IPPool "+name+" is gone", func(ctx context.Context) error {
		_, err := c.herald.Pools.Get(ctx, name, metav1.GetOptions{})
		return missing(err)
	})
}

// editPool changes an IPPool, and retries on a conflict.
func (c *cluster) editPool(name string, change func(*herald.IPPoolSpec)) {
	c.t.Helper()
	c.eventually("edit of IPPool "+name, func(ctx context.Context) error {
		p, err := c.herald.Pools.Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		change(&p.Spec)
		_, err = c.herald.Pools.Update(ctx, p, metav1.UpdateOptions{})
		return err
	})
}

// capacity waits until the status of a pool's newest generation has these numbers of IPv4 addresses in total and in use.
func (c *cluster) capacity(pool string, capacity, assigned int64) {
	c.t.Helper()
	c.eventually(fmt.Sprintf("%d of %d addresses of IPPool %s in use", assigned, capacity, pool), func(ctx context.Context) error {
		p, err := c.herald.Pools.Get(ctx, pool, metav1.GetOptions{})
		if err != nil {
			return err
		}
		ready := meta.FindStatusCondition(p.Status.Conditions, herald.PoolReady)
		if p.Status.IPv4 == nil || p.Status.IPv4.Capacity != capacity || p.Status.IPv4.Assigned != assigned ||
			ready.ObservedGeneration != p.Generation {
			return fmt.Errorf("it says %+v, %+v", p.Status.IPv4, ready)
		}
		return nil
	})
}

// marked waits until the condition InRange of an IPAllocation has this status: whether its pool still has the address.
func (c *cluster) marked(address string, status metav1.ConditionStatus, text string) {
	c.t.Helper()
	what := fmt.Sprintf("condition InRange=%s of IPAllocation %s with %q", status, address, text)
	c.eventually(what, func(ctx context.Context) error {
		rec, err := c.herald.Allocations.Get(ctx, address, metav1.GetOptions{})
		if err != nil {
			return err
		}
		is := meta.FindStatusCondition(rec.Status.Conditions, herald.AllocationInRange)
		if is == nil || is.Status != status || !strings.Contains(is.Message, text) {
			return fmt.Errorf("it says %+v", is)
		}
		return nil
	})
}

func (c *cluster) namespaceWith(name string, annotations map[string]string) error {
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, Annotations: annotations}}
	_, err := c.kube.CoreV1().Namespaces().Create(c.ctx, ns, metav1.CreateOptions{})
	return err
}

// quota sets the quota annotation of the namespace.
func (c *cluster) quota(text string) {
	c.t.Helper()
	patch := fmt.Sprintf(`{"metadata":{"annotations":{%q:%q}}}`, herald.AnnotationQuota, text)
	_, err := c.kube.CoreV1().Namespaces().Patch(c.ctx, c.namespace, types.MergePatchType, []byte(patch), metav1.PatchOptions{})
	c.must(err)
}

func version(t *testing.T, rec *herald.IPAllocation) int {
	t.Helper()
	n, err := strconv.Atoi(rec.ResourceVersion)
	if err != nil {
		t.Fatal(err)
	}
	return n
}
