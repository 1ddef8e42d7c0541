package e2e

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	herald "github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/e2e/lab"
)

// withCCM starts an API server and herald-ccm.
func withCCM(t testing.TB, args ...string) (*cluster, *lab.ControlPlane, *lab.Process) {
	t.Helper()
	ctx, plane := startControlPlane(t, false)
	// Without a Node, the service controller writes an event for every sync.
	if _, err := plane.Client.CoreV1().Nodes().Create(ctx, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "node"}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	ccm, err := plane.StartCCM(args...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(tail(ccm.Log()))
		}
	})
	return clusterOf(t, ctx, &plane.Access), plane, ccm
}

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
		{"no-address", herald.AnnotationIPs, "web", `"web" is no IP address`},
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

// TestAServiceThatBecameSomebodyElsesLetsGo is about a Service that changes its type, and then its class, while
// herald-ccm is stopped.
func TestAServiceThatBecameSomebodyElsesLetsGo(t *testing.T) {
	c, _, ccm := withCCM(t)
	c.pool("public", delay(0), "198.51.100.1")
	c.service("turncoat")
	c.holds("turncoat", "198.51.100.1")
	c.must(ccm.Stop(c.ctx))
	c.edit("turncoat", func(svc *corev1.Service) {
		svc.Spec.Type, svc.Spec.AllocateLoadBalancerNodePorts, svc.Finalizers = corev1.ServiceTypeClusterIP, nil, nil
		svc.Spec.Ports[0].NodePort = 0
	})
	c.edit("turncoat", func(svc *corev1.Service) {
		svc.Spec.Type = corev1.ServiceTypeLoadBalancer
		classed("example.com/other")(svc)
	})
	c.must(ccm.Start())
	c.unrecorded("198.51.100.1")
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

// TestTheLeaseIsGivenUp checks that a restart does not take the 15 s for which a Lease is valid.
func TestTheLeaseIsGivenUp(t *testing.T) {
	c, plane, first := withCCM(t)
	c.pool("public", nil, "198.51.100.0/24")
	c.service("one")
	c.holds("one", "198.51.100.0")
	second, err := plane.StartCCM("--secure-port", "10259")
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

func setStatus(c *cluster, name string, ips ...string) error {
	patch := `{"status":{"loadBalancer":{"ingress":[` + strings.Join(quoteIngress(ips), ",") + `]}}}`
	_, err := c.services().Patch(c.ctx, name, types.MergePatchType, []byte(patch), metav1.PatchOptions{}, "status")
	return err
}

func quoteIngress(ips []string) []string {
	var list []string
	for _, ip := range ips {
		list = append(list, fmt.Sprintf(`{"ip":%q}`, ip))
	}
	return list
}

// gone waits until a Service is gone.
func (c *cluster) gone(name string) {
	c.t.Helper()
	c.eventually("Service "+name+" is gone", func(ctx context.Context) error {
		_, err := c.services().Get(ctx, name, metav1.GetOptions{})
		return missing(err)
	})
}

// unrecorded waits until an address has no record.
func (c *cluster) unrecorded(address string) {
	c.t.Helper()
	c.eventually(address+" is free", func(ctx context.Context) error {
		_, err := c.herald.Allocations.Get(ctx, herald.AllocationName(netip.MustParseAddr(address)), metav1.GetOptions{})
		return missing(err)
	})
}

func missing(err error) error {
	switch {
	case err == nil:
		return errors.New("it is still there")
	case apierrors.IsNotFound(err):
		return nil
	}
	return err
}

// allAddresses returns the addresses of all Services that have one, by name.
func (c *cluster) allAddresses() map[string]string {
	c.t.Helper()
	list, err := c.services().List(c.ctx, metav1.ListOptions{})
	c.must(err)
	all := map[string]string{}
	for _, svc := range list.Items {
		if a := addresses(&svc); len(a) > 0 {
			all[svc.Name] = strings.Join(a, ",")
		}
	}
	return all
}

// tail returns the end of a log, or the report of the race detector.
func tail(log string) string { return lab.Tail(log, 40) }
