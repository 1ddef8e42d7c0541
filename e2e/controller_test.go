package e2e

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	herald "github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/e2e/lab"
)

// TestRestartIsANoOp restarts herald-ccm with 500 Services, of which some wait because there is no address for them.
func TestRestartIsANoOp(t *testing.T) {
	const many = 500
	c, _, ccm := withCCM(t)
	c.advertise()
	c.pool("public", nil, "198.51.100.0/24", "203.0.113.0/24")
	for i := range many {
		c.service(fmt.Sprintf("svc-%03d", i))
	}
	c.eventually("everybody has an address", func(context.Context) error {
		if n := len(c.allAddresses()); n < many {
			return fmt.Errorf("%d have", n)
		}
		return nil
	})
	c.condition("public", herald.PoolReady, metav1.ConditionTrue, "")
	c.eventually("the pool counts them", func(ctx context.Context) error {
		p, err := c.herald.Pools.Get(ctx, "public", metav1.GetOptions{})
		if err != nil || p.Status.IPv4 == nil || p.Status.IPv4.Assigned != many {
			return fmt.Errorf("%+v, %w", p.Status.IPv4, err)
		}
		return nil
	})
	had := c.allAddresses()
	c.quietRestart(ccm, "canary")
	has := c.allAddresses()
	delete(has, "canary")
	if diff := cmp.Diff(had, has); diff != "" {
		t.Errorf("addresses moved:\n%s", diff)
	}
}

func TestAddressesWithoutRecordsAreAdopted(t *testing.T) {
	c, _, ccm := withCCM(t)
	c.pool("public", delay(0), "198.51.100.1-198.51.100.5")
	c.service("first")
	c.holds("first", "198.51.100.1")
	c.service("second")
	c.holds("second", "198.51.100.2")
	c.must(ccm.Stop(c.ctx))
	// Simulate a backup restored without the records, a Service that another load balancer served, a Service
	// with an address that another Service has, and a new Service, which must not get any of these addresses.
	for _, name := range []string{"198.51.100.1", "198.51.100.2"} {
		c.must(c.herald.Allocations.Delete(c.ctx, name, metav1.DeleteOptions{}))
	}
	c.service("new")
	c.service("arrived", classed(herald.LoadBalancerClass))
	c.must(setStatus(c, "arrived", "198.51.100.3"))
	c.service("late", classed(herald.LoadBalancerClass))
	c.must(setStatus(c, "late", "198.51.100.3"))
	c.service("stranger", classed(herald.LoadBalancerClass))
	c.must(setStatus(c, "stranger", "203.0.113.5"))
	c.must(ccm.Start())
	c.holds("first", "198.51.100.1")
	c.holds("second", "198.51.100.2")
	c.event("Service", "stranger", "SyncLoadBalancerFailed", "203.0.113.5, which is in no IPPool")
	if got := addresses(c.get("stranger")); !slices.Equal(got, []string{"203.0.113.5"}) {
		t.Errorf("an address that cannot be adopted was taken away: %v", got)
	}
	// Both were created in the same second, so either may count as the older one. The other one gets an event.
	var keeper, loser string
	c.eventually("one keeps the address that two came with", func(ctx context.Context) error {
		rec, err := c.herald.Allocations.Get(ctx, "198.51.100.3", metav1.GetOptions{})
		if err != nil {
			return err
		}
		keeper = rec.Spec.Owners[0].Name
		loser = map[string]string{"arrived": "late", "late": "arrived"}[keeper]
		return nil
	})
	c.holds(keeper, "198.51.100.3")
	c.event("Service", loser, "AddressReplaced", "198.51.100.3")
	// The event may be written before the status.
	c.eventually(loser+" has another address", func(context.Context) error {
		if has := addresses(c.get(loser)); len(has) != 1 || has[0] == "198.51.100.3" {
			return fmt.Errorf("it has %v", has)
		}
		return nil
	})
	has := c.allAddresses()
	seen := map[string]string{}
	for name, a := range has {
		if other := seen[a]; other != "" {
			t.Errorf("%s and %s both have %s", name, other, a)
		}
		seen[a] = name
	}
}

func TestAServiceThatVanishedIsCollected(t *testing.T) {
	c, _, ccm := withCCM(t)
	c.pool("public", delay(0), "198.51.100.1")
	c.service("gone")
	c.holds("gone", "198.51.100.1")
	c.must(ccm.Stop(c.ctx))
	// The Service is force-deleted while herald-ccm is stopped.
	c.edit("gone", func(svc *corev1.Service) { svc.Finalizers = nil })
	c.remove("gone")
	c.gone("gone")
	c.must(ccm.Start())
	c.unrecorded("198.51.100.1")
}

// TestTheAddressOfAServiceThatGetsAnotherClassIsReleased is about a Service that changes its type, and then its class, while
// herald-ccm is stopped.
func TestTheAddressOfAServiceThatGetsAnotherClassIsReleased(t *testing.T) {
	c, _, ccm := withCCM(t)
	c.pool("public", delay(0), "198.51.100.1")
	c.service("turncoat")
	c.holds("turncoat", "198.51.100.1")
	c.must(ccm.Stop(c.ctx))
	c.edit("turncoat", func(svc *corev1.Service) {
		svc.Spec.Type, svc.Spec.AllocateLoadBalancerNodePorts = corev1.ServiceTypeClusterIP, nil
		svc.Spec.Ports[0].NodePort = 0
	})
	c.edit("turncoat", func(svc *corev1.Service) {
		svc.Spec.Type = corev1.ServiceTypeLoadBalancer
		classed("example.com/other")(svc)
	})
	c.must(setStatus(c, "turncoat", "203.0.113.1"))
	c.must(ccm.Start())
	c.unrecorded("198.51.100.1")
	if has := addresses(c.get("turncoat")); !slices.Equal(has, []string{"203.0.113.1"}) {
		t.Errorf("the status has %v, want the address that the other controller wrote", has)
	}
	c.remove("turncoat")
	c.gone("turncoat") // herald-ccm removed its finalizer.
	c.service("next")
	c.holds("next", "198.51.100.1")
}

// TestTwoClassesShareThePools runs two controllers, each with its own class, that assign addresses from one pool.
// Neither may touch Services of the other one, and no address may be assigned twice.
func TestTwoClassesShareThePools(t *testing.T) {
	c, plane, first := withCCM(t)
	second, err := plane.StartCCM("--load-balancer-class=example.com/second", "--serve-classless=false", "--leader-elect-resource-name=herald-ccm-second", "--secure-port=0")
	c.must(err)
	c.pool("public", delay(0), "198.51.100.1-198.51.100.12")
	all := map[string]string{} // The Service by address.
	serve := func(from, to int) {
		t.Helper()
		var names []string
		for i := range 2 * (to - from) {
			name := fmt.Sprintf("first-%d", from+i/2)
			class := func(*corev1.Service) {}
			if i%2 == 1 {
				name, class = fmt.Sprintf("second-%d", from+i/2), classed("example.com/second")
			}
			c.service(name, class)
			names = append(names, name)
		}
		for _, name := range names {
			c.eventually(name+" has an address", func(context.Context) error {
				if len(addresses(c.get(name))) != 1 {
					return errors.New("it has none")
				}
				return nil
			})
			address := addresses(c.get(name))[0]
			if other, twice := all[address]; twice {
				t.Errorf("%s is given to %s and to %s", address, name, other)
			}
			all[address] = name
		}
	}
	serve(0, 5)

	// After a restart, herald-ccm checks every record.
	for _, ccm := range []*lab.Process{first, second} {
		c.must(ccm.Stop(c.ctx))
		c.must(ccm.Start())
	}
	serve(5, 6)
	for address, name := range all {
		c.holds(name, address)
	}
	c.capacity("public", 12, 12)
	c.settle()
	before := c.writes()
	time.Sleep(2 * time.Second) // A controller that corrected the other one would do so now.
	if d := since(before, c.writes()); len(d) > 0 {
		t.Errorf("they do not come to rest: %v", d)
	}

	// Each controller cleans up its own Services, even when a Service changes its type.
	for address, name := range all {
		switch name {
		case "first-0", "second-0":
			c.remove(name)
		case "first-1", "second-1":
			c.edit(name, clusterIP)
			c.eventually(name+" is let go", func(context.Context) error {
				if svc := c.get(name); len(svc.Finalizers) > 0 || len(addresses(svc)) > 0 {
					return fmt.Errorf("%v, %v", svc.Finalizers, addresses(svc))
				}
				return nil
			})
		default:
			continue
		}
		c.unrecorded(address)
		delete(all, address)
	}
	serve(6, 8)
	for address, name := range all {
		c.holds(name, address)
	}
}

// TestTheLeaseIsGivenUp checks that a restart does not take the 15 s for which a Lease is valid.
func TestTheLeaseIsGivenUp(t *testing.T) {
	c, plane, first := withCCM(t)
	c.pool("public", nil, "198.51.100.0/24")
	c.service("one")
	c.holds("one", "198.51.100.0")
	second, err := plane.StartCCM("--secure-port=0")
	c.must(err)
	holder := func() (string, error) {
		lease, err := c.kube.CoordinationV1().Leases(lab.HeraldNamespace).Get(c.ctx, "herald-ccm", metav1.GetOptions{})
		if err != nil || lease.Spec.HolderIdentity == nil {
			return "", err
		}
		return *lease.Spec.HolderIdentity, nil
	}
	before, err := holder()
	c.must(err)
	c.must(first.Stop(c.ctx))
	after, err := holder()
	c.must(err)
	if after == before {
		t.Errorf("the Lease still belongs to %s, which has stopped:\n%s", after, tail(first.Log()))
	}
	c.service("two")
	c.holds("two", "198.51.100.1")
	if !second.Running() {
		t.Error(second.Log())
	}
}
