package e2e

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	herald "github.com/heraldlb/herald/api/v1alpha1"
)

// atRest waits until herald-ccm has nothing left to do: every Service that can be served has addresses that are recorded
// for it, every record has such a Service, and no released address is waiting for its reuse delay.
func (c *cluster) atRest() {
	c.t.Helper()
	c.eventually("everything comes to rest", func(ctx context.Context) error {
		services, err := c.kube.CoreV1().Services("default").List(ctx, metav1.ListOptions{})
		if err != nil {
			return err
		}
		records, err := c.herald.Allocations.List(ctx, metav1.ListOptions{})
		if err != nil {
			return err
		}
		s := standing{services: map[types.UID]*corev1.Service{}, records: map[netip.Addr]*herald.IPAllocation{}}
		for i := range services.Items {
			s.services[services.Items[i].UID] = &services.Items[i]
		}
		for i := range records.Items {
			s.records[netip.MustParseAddr(records.Items[i].Spec.Address)] = &records.Items[i]
		}
		if unrest := append(s.ofServices(), s.ofRecords()...); len(unrest) > 0 {
			slices.Sort(unrest)
			return errors.New(strings.Join(unrest, "\n"))
		}
		return nil
	})
}

// standing is the state of Services and records.
type standing struct {
	services map[types.UID]*corev1.Service
	records  map[netip.Addr]*herald.IPAllocation
}

// ofServices lists the Services that are not in their final state.
func (s standing) ofServices() (unrest []string) {
	carriers := map[netip.Addr]string{}
	for _, svc := range s.services {
		for _, a := range parsed(svc) {
			if other, twice := carriers[a]; twice {
				unrest = append(unrest, fmt.Sprintf("%s is in the status of %s and of %s", a, svc.Name, other))
			}
			carriers[a] = svc.Name
			if !s.recorded(a, svc.UID) {
				unrest = append(unrest, fmt.Sprintf("%s is in the status of %s and not recorded for it", a, svc.Name))
			}
		}
		if err := s.settled(svc); err != nil {
			unrest = append(unrest, fmt.Sprintf("Service %s %v", svc.Name, err))
		}
	}
	return unrest
}

// settled returns an error if a Service does not have the addresses that it should have, unless another Service has them.
func (s standing) settled(svc *corev1.Service) error {
	switch {
	case svc.DeletionTimestamp != nil:
		return errors.New("is being deleted")
	case svc.Spec.Type != corev1.ServiceTypeLoadBalancer:
		if len(addresses(svc)) > 0 || len(svc.Finalizers) > 0 {
			return fmt.Errorf("is of another type, and has %v and %v", addresses(svc), svc.Finalizers)
		}
		return nil
	}
	for _, w := range wishes(svc) {
		if rec := s.records[w]; rec != nil && rec.Spec.ReleasedAt == nil && !owns(rec, svc.UID) {
			return nil
		} else if !slices.Contains(parsed(svc), w) {
			return fmt.Errorf("has %v, though %s is free", addresses(svc), w)
		}
	}
	if len(addresses(svc)) != len(svc.Spec.IPFamilies) {
		return fmt.Errorf("has %v, want %v", addresses(svc), svc.Spec.IPFamilies)
	}
	return nil
}

// recorded reports whether an address is recorded for a Service and not released.
func (s standing) recorded(a netip.Addr, uid types.UID) bool {
	rec := s.records[a]
	return rec != nil && rec.Spec.ReleasedAt == nil && owns(rec, uid)
}

// ofRecords lists the records that are not in their final state.
func (s standing) ofRecords() (unrest []string) {
	for a, rec := range s.records {
		for _, o := range rec.Spec.Owners {
			switch svc := s.services[o.UID]; {
			case rec.Spec.ReleasedAt != nil:
				unrest = append(unrest, fmt.Sprintf("%s cools down", a))
			case svc == nil:
				unrest = append(unrest, fmt.Sprintf("%s is recorded for %s (%s), which is not there", a, o.Name, short(o.UID)))
			case !slices.Contains(parsed(svc), a):
				unrest = append(unrest, fmt.Sprintf("%s is recorded for %s, which has %v", a, o.Name, addresses(svc)))
			}
		}
	}
	return unrest
}
