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
	"k8s.io/apimachinery/pkg/types"

	herald "github.com/heraldlb/herald/api/v1alpha1"
)

func TestAServiceGetsItsAddress(t *testing.T) {
	c, _, _ := withCCM(t)
	c.advertise()
	c.pool("public", delay(0), "198.51.100.1-198.51.100.100", "2001:db8:51::/112")
	c.pool("private", func(s *herald.IPPoolSpec) { no := false; s.AutoAssign = &no; delay(0)(s) }, "198.51.100.200-198.51.100.210")

	t.Run("the lowest free one, recorded, as a VIP, in two writes and one event", func(t *testing.T) {
		c := c.within(t)
		c.condition("public", herald.PoolReady, metav1.ConditionTrue, "")
		c.condition("private", herald.PoolReady, metav1.ConditionTrue, "")
		c.service("warm-up")
		c.holds("warm-up", "198.51.100.1")
		c.event("Service", "warm-up", "EnsuredLoadBalancer", "")
		before := c.settled() // A Service that is created while herald-ccm starts may be synced twice.
		c.service("web")
		svc := c.holds("web", "198.51.100.2")
		c.event("Service", "web", "EnsuredLoadBalancer", "")
		if mode := svc.Status.LoadBalancer.Ingress[0].IPMode; mode == nil || *mode != corev1.LoadBalancerIPModeVIP {
			t.Errorf("ipMode %v, want VIP", mode)
		}
		if !slices.Contains(svc.Finalizers, "service.kubernetes.io/load-balancer-cleanup") {
			t.Errorf("finalizers %v", svc.Finalizers)
		}
		d := since(before, c.settled())
		delete(d, "PUT ippools/status") // Once a second at most, however many Services there are.
		want := map[string]int{"POST services": 1 /* ours */, "PATCH services/status": 1 /* finalizer and status */, "POST ipallocations": 1, "POST events": 1}
		if diff := cmp.Diff(want, d); diff != "" {
			t.Errorf("writes (-want +got):\n%s", diff)
		}
		c.remove("warm-up")
		c.remove("web")
	})
	t.Run("by class", func(t *testing.T) {
		c := c.within(t)
		c.service("foreign", classed("example.com/other"))
		c.service("ours", classed(herald.LoadBalancerClass))
		c.eventually("an address", func(context.Context) error {
			if len(addresses(c.get("ours"))) != 1 {
				return errors.New("none")
			}
			return nil
		})
		if svc := c.get("foreign"); len(svc.Finalizers) != 0 || len(addresses(svc)) != 0 {
			t.Errorf("a Service of another class was touched: %v %v", svc.Finalizers, addresses(svc))
		}
		// The status that the other load balancer wrote stays, even when the Service is deleted.
		c.must(setStatus(c, "foreign", "203.0.113.9"))
		c.edit("foreign", func(svc *corev1.Service) {
			svc.Finalizers = append(svc.Finalizers, "service.kubernetes.io/load-balancer-cleanup")
		})
		c.remove("foreign")
		c.remove("ours")
		c.gone("ours")
		if svc := c.get("foreign"); !slices.Equal(addresses(svc), []string{"203.0.113.9"}) || len(svc.Finalizers) != 1 {
			t.Errorf("a Service of another class was touched: %v %v", svc.Finalizers, addresses(svc))
		}
		c.edit("foreign", func(svc *corev1.Service) { svc.Finalizers = nil })
	})
	t.Run("a wiped status is repaired", func(t *testing.T) {
		c := c.within(t)
		c.service("wiped", annotated(herald.AnnotationIPs, "198.51.100.50"))
		c.holds("wiped", "198.51.100.50")
		c.must(setStatus(c, "wiped"))
		c.holds("wiped", "198.51.100.50")
	})
	t.Run("a record deleted by hand is written again", func(t *testing.T) {
		c := c.within(t)
		c.must(c.herald.Allocations.Delete(c.ctx, "198.51.100.50", metav1.DeleteOptions{}))
		c.holds("wiped", "198.51.100.50")
		c.remove("wiped")
	})
	t.Run("another type and back keeps the address if nobody took it", func(t *testing.T) {
		c := c.within(t)
		c.service("types", annotated(herald.AnnotationIPs, "198.51.100.60"), classed(herald.LoadBalancerClass))
		c.holds("types", "198.51.100.60")
		c.edit("types", clusterIP)
		c.eventually("cleaned up after", func(context.Context) error {
			if svc := c.get("types"); len(svc.Finalizers) > 0 || len(addresses(svc)) > 0 {
				return fmt.Errorf("%v %v", svc.Finalizers, addresses(svc))
			}
			return nil
		})
		c.unrecorded("198.51.100.60")
		c.edit("types", func(svc *corev1.Service) { svc.Spec.Type = corev1.ServiceTypeLoadBalancer })
		c.holds("types", "198.51.100.60")
		c.remove("types")
	})
	t.Run("both families", func(t *testing.T) {
		c := c.within(t)
		c.service("dual", dualStack, annotated(herald.AnnotationIPs, "2001:db8:51::7, 198.51.100.70"))
		c.holds("dual", "198.51.100.70", "2001:db8:51::7")
		c.remove("dual")
	})
	t.Run("from the pool that it names, which others do not get", func(t *testing.T) {
		c := c.within(t)
		c.service("named", annotated(herald.AnnotationPool, "private"))
		c.holds("named", "198.51.100.200")
		c.edit("named", annotated(herald.AnnotationIPs, "198.51.100.205"))
		c.holds("named", "198.51.100.205")
		c.unrecorded("198.51.100.200")
		c.edit("named", func(svc *corev1.Service) { svc.Annotations = nil })
		c.service("flush")
		c.eventually("an address", func(context.Context) error {
			if len(addresses(c.get("flush"))) == 0 {
				return errors.New("none")
			}
			return nil
		})
		c.holds("named", "198.51.100.205") // It requested no other address, so it keeps this one.
		c.remove("named")
		c.remove("flush")
	})
}

// TestPoolsChooseWhomTheyServe is about pools that serve only some namespaces or Services.
func TestPoolsChooseWhomTheyServe(t *testing.T) {
	c, _, _ := withCCM(t)
	gold := &metav1.LabelSelector{MatchLabels: map[string]string{"tier": "gold"}}
	c.pool("gold", func(s *herald.IPPoolSpec) { s.ServiceSelector, s.Priority = gold, 10 }, "198.51.100.0/30")
	c.pool("team", func(s *herald.IPPoolSpec) {
		s.NamespaceSelector = &metav1.LabelSelector{MatchLabels: map[string]string{"team": "red"}}
		s.Priority = 5
	}, "198.51.100.4/30")
	c.pool("named", func(s *herald.IPPoolSpec) { s.Namespaces = []string{"elsewhere"} }, "198.51.100.8/30")
	tier := func(tier string) func(*corev1.Service) {
		return func(svc *corev1.Service) { svc.Labels = map[string]string{"tier": tier} }
	}

	c.service("precious", tier("gold"))
	c.holds("precious", "198.51.100.0")
	c.service("common", tier("tin"))
	c.event("Service", "common", "SyncLoadBalancerFailed", "no auto-assigning pool serves this Service: none of gold, team, named has")
	c.service("wishful", annotated(herald.AnnotationPool, "named"))
	c.event("Service", "wishful", "SyncLoadBalancerFailed", `pool "named" does not serve this Service`)

	// The namespace gets the label of the team: waiting Services are served.
	namespaces := c.kube.CoreV1().Namespaces()
	labels := func(labels string) {
		t.Helper()
		_, err := namespaces.Patch(c.ctx, "default", types.MergePatchType, []byte(`{"metadata":{"labels":`+labels+`}}`), metav1.PatchOptions{})
		c.must(err)
	}
	labels(`{"team":"red"}`)
	c.holds("common", "198.51.100.4")
	// A Service that changes its own labels is served, too.
	c.must(c.namespaceWith("plain", nil))
	plain := c.in("plain")
	plain.service("rising", tier("tin"))
	plain.event("Service", "rising", "SyncLoadBalancerFailed", "no auto-assigning pool serves this Service")
	plain.edit("rising", tier("gold"))
	plain.holds("rising", "198.51.100.1")
	labels(`{"team":null}`)
	// A Service with an address keeps it, whatever happens to labels and selectors.
	c.edit("precious", tier("tin"))
	c.editPool("gold", func(s *herald.IPPoolSpec) {
		s.ServiceSelector = &metav1.LabelSelector{MatchLabels: map[string]string{"tier": "platinum"}}
	})
	c.service("new", tier("platinum"))
	c.holds("new", "198.51.100.2")
	c.holds("precious", "198.51.100.0")
	plain.holds("rising", "198.51.100.1")
	c.holds("common", "198.51.100.4")

	c.pool("careful", func(s *herald.IPPoolSpec) { s.AvoidBuggyIPs, s.Priority = true, 1 }, "203.0.113.254-203.0.114.9")
	for i, want := range []string{"203.0.113.254", "203.0.114.1"} {
		name := fmt.Sprintf("careful-%d", i)
		c.service(name)
		c.holds(name, want)
	}

	// A pool with an invalid selector does not serve everybody.
	c.pool("broken", func(s *herald.IPPoolSpec) {
		s.ServiceSelector = &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{Key: "tier", Operator: "Near"}}}
	}, "198.51.100.128/30")
	c.condition("broken", herald.PoolReady, metav1.ConditionFalse, "spec.serviceSelector: ")
}

func TestAPreferredFamilyComesWhenThereIsAPoolForIt(t *testing.T) {
	c, _, _ := withCCM(t)
	c.pool("four", delay(0), "198.51.100.0/24")
	prefer := corev1.IPFamilyPolicyPreferDualStack
	c.service("both", func(svc *corev1.Service) { svc.Spec.IPFamilyPolicy = &prefer })
	c.holds("both", "198.51.100.0")
	require := corev1.IPFamilyPolicyRequireDualStack
	c.service("strict", dualStack)
	c.event("Service", "strict", "SyncLoadBalancerFailed", "IPv6")
	c.edit("strict", func(svc *corev1.Service) { svc.Spec.IPFamilyPolicy = &prefer })
	c.holds("strict", "198.51.100.1")
	refused := c.times("Service", "strict", "SyncLoadBalancerFailed")
	c.edit("strict", func(svc *corev1.Service) { svc.Spec.IPFamilyPolicy = &require })
	c.eventually("it is refused once more", func(context.Context) error {
		if n := c.times("Service", "strict", "SyncLoadBalancerFailed"); n == refused {
			return fmt.Errorf("%d times", n)
		}
		return nil
	})
	c.pool("six", delay(0), "2001:db8:51::/112")
	c.holds("both", "198.51.100.0", "2001:db8:51::")
	c.holds("strict", "198.51.100.1", "2001:db8:51::1")
}

func TestOneBrokenPoolDoesNotStopTheOthers(t *testing.T) {
	c, _, _ := withCCM(t)
	// The schema admits multicast addresses, which no Service can have. A pool can be older than the policy that refuses it.
	c.kubectl("delete", "validatingadmissionpolicybindings", "ippools.herald.dev")
	c.eventually("the policy is out of force", func(ctx context.Context) error {
		_, err := c.herald.Pools.Create(ctx, &herald.IPPool{
			ObjectMeta: metav1.ObjectMeta{Name: "broken"}, Spec: herald.IPPoolSpec{Addresses: []herald.AddressRange{"224.0.0.0/24"}},
		}, metav1.CreateOptions{})
		return err
	})
	c.pool("older", delay(0), "198.51.100.0/30")
	c.pool("younger", delay(0), "198.51.100.2-198.51.100.9")
	c.condition("broken", herald.PoolReady, metav1.ConditionFalse, `spec.addresses[0] "224.0.0.0/24"`)
	c.condition("younger", herald.PoolExclusive, metav1.ConditionFalse, "198.51.100.2-198.51.100.3 (pool older)")
	c.service("web")
	c.holds("web", "198.51.100.0")

	// Narrowing a pool does not take addresses away from Services.
	c.editPool("older", func(s *herald.IPPoolSpec) {
		s.Addresses = []herald.AddressRange{"198.51.100.1"}
	})
	c.condition("older", herald.PoolInRange, metav1.ConditionFalse, "198.51.100.0 (default/web)")
	c.holds("web", "198.51.100.0")
}

func TestWhatCannotBeServedSaysWhy(t *testing.T) {
	c, _, _ := withCCM(t)
	c.service("early")
	c.event("Service", "early", "SyncLoadBalancerFailed", "IPPool")
	c.pool("tiny", delay(0), "198.51.100.1-198.51.100.2")
	c.holds("early", "198.51.100.1") // A new pool serves waiting Services.
	c.condition("tiny", herald.ConditionAnnounced, metav1.ConditionFalse, "create one with spec.pools: [tiny]")
	c.service("second")
	c.holds("second", "198.51.100.2")

	for _, story := range []struct{ name, key, value, message string }{
		{"outside", herald.AnnotationIPs, "203.0.113.1", "203.0.113.1"},
		{"taken", herald.AnnotationIPs, "198.51.100.1", "default/early"},
		{"no-address", herald.AnnotationIPs, "web", `"web" is not an IP address`},
		{"wrong-family", herald.AnnotationIPs, "2001:db8::1", "spec.ipFamilies"},
		{"two-of-a-family", herald.AnnotationIPs, "198.51.100.1,198.51.100.2", "the Service gets 1 of each family"},
		{"unknown-pool", herald.AnnotationPool, "gold", "gold"},
		{"exhausted", "", "", "tiny"},
	} {
		t.Run(story.name, func(t *testing.T) {
			c := c.within(t)
			c.service(story.name, annotated(story.key, story.value), func(svc *corev1.Service) { delete(svc.Annotations, "") })
			c.event("Service", story.name, "SyncLoadBalancerFailed", story.message)
			if story.name != "exhausted" {
				c.remove(story.name) // It has no address, so nothing delays the deletion.
				c.gone(story.name)
			}
		})
	}
	c.condition("tiny", herald.PoolAddressesAvailable, metav1.ConditionFalse, "IPv4")
	c.holds("early", "198.51.100.1")
	c.holds("second", "198.51.100.2")

	// A released address goes to the waiting Service.
	c.remove("second")
	c.holds("exhausted", "198.51.100.2")

	// A deleted pool stays until its last address is released. Its status names the Service that holds it.
	c.must(c.herald.Pools.Delete(c.ctx, "tiny", metav1.DeleteOptions{}))
	c.condition("tiny", herald.PoolReady, metav1.ConditionFalse, "198.51.100.1 (default/early)")
	c.holds("early", "198.51.100.1")
	c.remove("early")
	c.remove("exhausted")
	c.poolGone("tiny")
}

func TestAReleasedAddressCoolsDown(t *testing.T) {
	c, _, ccm := withCCM(t)
	c.pool("public", delay(time.Hour), "198.51.100.1")
	c.service("old")
	c.holds("old", "198.51.100.1")
	c.remove("old")
	c.gone("old")
	rec, err := c.herald.Allocations.Get(c.ctx, "198.51.100.1", metav1.GetOptions{})
	c.must(err)
	if rec.Spec.ReleasedAt == nil {
		t.Fatal("the record of a deleted Service is not released")
	}
	// This also holds after a restart.
	c.must(ccm.Stop(c.ctx))
	c.must(ccm.Start())
	c.service("new")
	c.event("Service", "new", "SyncLoadBalancerFailed", "public")
	// The delay is that of the pool's present spec, and counts from the release.
	c.editPool("public", delay(4*time.Second))
	c.holds("new", "198.51.100.1")
	if rested := time.Since(rec.Spec.ReleasedAt.Time); rested < 4*time.Second {
		t.Errorf("given again after %v, want 4s at least", rested)
	}
}

func TestAReservationIsGivenToNobody(t *testing.T) {
	c, _, _ := withCCM(t)
	_, err := c.herald.Allocations.Create(c.ctx, &herald.IPAllocation{
		ObjectMeta: metav1.ObjectMeta{Name: "198.51.100.1"}, Spec: herald.IPAllocationSpec{Address: "198.51.100.1"},
	}, metav1.CreateOptions{})
	c.must(err)
	c.pool("public", nil, "198.51.100.1-198.51.100.2")
	c.service("web")
	c.holds("web", "198.51.100.2")
	c.service("greedy", annotated(herald.AnnotationIPs, "198.51.100.1"))
	c.event("Service", "greedy", "SyncLoadBalancerFailed", "reserv")
}
