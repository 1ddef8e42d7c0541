package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"

	herald "github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/e2e/lab"
)

// external plays the other system that grants addresses by the IPAM contract of Cluster API. It uses the version of the
// contract that the in-cluster provider 1.0 uses, and herald-ccm the version that is preferred.
type external struct {
	*cluster
	claims, addresses dynamic.ResourceInterface
}

func externalOf(c *cluster) *external {
	c.t.Helper()
	config := rest.CopyConfig(c.access.Config)
	config.WarningHandler = rest.NoWarnings{} // The version is deprecated.
	untyped, err := dynamic.NewForConfig(config)
	c.must(err)
	of := func(resource string) dynamic.ResourceInterface {
		return untyped.Resource(schema.GroupVersionResource{Group: "ipam.cluster.x-k8s.io", Version: "v1beta1", Resource: resource}).Namespace(lab.HeraldNamespace)
	}
	return &external{c, of("ipaddressclaims"), of("ipaddresses")}
}

// lent makes another system grant the addresses of a pool, and only to Services that name the pool.
func lent(s *herald.IPPoolSpec) {
	named(s)
	s.ExternalPoolRef = &herald.ExternalPoolReference{APIGroup: "ipam.cluster.x-k8s.io", Kind: "InClusterIPPool", Name: "corp"}
}

func fromPool(name string) func(*corev1.Service) { return annotated(herald.AnnotationPool, name) }

// of returns the claims for a Service, in the order of their names.
func (e *external) of(ctx context.Context, service string) (all []unstructured.Unstructured, err error) {
	list, err := e.claims.List(ctx, metav1.ListOptions{LabelSelector: "app.kubernetes.io/managed-by=herald-ccm"})
	if err != nil {
		return nil, err
	}
	for _, o := range list.Items {
		if o.GetAnnotations()["herald.dev/service-name"] == service {
			all = append(all, o)
		}
	}
	slices.SortFunc(all, func(x, y unstructured.Unstructured) int { return strings.Compare(x.GetName(), y.GetName()) })
	return all, nil
}

// claimed waits until there are so many claims for a Service, and returns the last.
func (e *external) claimed(service string, n int) (last *unstructured.Unstructured) {
	e.t.Helper()
	e.eventually(fmt.Sprintf("%d claims of %s", n, service), func(ctx context.Context) error {
		all, err := e.of(ctx, service)
		if err != nil {
			return err
		}
		if len(all) != n {
			return fmt.Errorf("there are %d", len(all))
		}
		if n > 0 {
			last = &all[n-1]
		}
		return nil
	})
	return last
}

// grants creates the IPAddress for a claim, as providers do.
func (e *external) grants(claim *unstructured.Unstructured, address string) {
	e.t.Helper()
	ref, _, err := unstructured.NestedMap(claim.Object, "spec", "poolRef")
	e.must(err)
	_, err = e.addresses.Create(e.ctx, &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "ipam.cluster.x-k8s.io/v1beta1", "kind": "IPAddress",
		"metadata": map[string]any{"name": claim.GetName()},
		"spec":     map[string]any{"claimRef": map[string]any{"name": claim.GetName()}, "poolRef": ref, "address": address, "prefix": int64(24)},
	}}, metav1.CreateOptions{})
	e.must(err)
	e.says(claim, `{"addressRef":{"name":"`+claim.GetName()+`"}}`)
}

// denies writes into the status of a claim why no address is granted.
func (e *external) denies(claim *unstructured.Unstructured, reason, message string) {
	e.t.Helper()
	e.says(claim, fmt.Sprintf(`{"conditions":[{"type":"Ready","status":"False","reason":%q,"message":%q,"lastTransitionTime":"2026-01-02T15:04:05Z"}]}`, reason, message))
}

func (e *external) says(claim *unstructured.Unstructured, status string) {
	e.t.Helper()
	_, err := e.claims.Patch(e.ctx, claim.GetName(), types.MergePatchType, []byte(`{"status":`+status+`}`), metav1.PatchOptions{}, "status")
	e.must(err)
}

func (e *external) withdraws(claim *unstructured.Unstructured) {
	e.t.Helper()
	e.must(e.addresses.Delete(e.ctx, claim.GetName(), metav1.DeleteOptions{}))
}

// withinPart returns the other system for a part of the story.
func (e *external) withinPart(t *testing.T) *external {
	return &external{e.within(t), e.claims, e.addresses}
}

// TestAddressesThatAnotherSystemGrants is one story. In it the test plays the other system, and herald-ccm has only the rights that
// the manifests give it.
func TestAddressesThatAnotherSystemGrants(t *testing.T) {
	t.Parallel()
	ctx, plane := startControlPlane(t, false)
	c := clusterOf(t, ctx, &plane.Access)
	ccm := c.restrictedCCM(plane)
	c.advertise()
	c.pool("lent", with(delay(0), lent), "198.51.100.0/24")
	c.pool("own", delay(0), "203.0.113.1-203.0.113.99")
	e := externalOf(c)
	part := func(name string, f func(*testing.T, *external)) {
		t.Run(name, func(t *testing.T) { f(t, e.withinPart(t)) })
	}

	part("without its definitions", func(_ *testing.T, e *external) {
		e.condition("lent", herald.PoolGranted, metav1.ConditionFalse, "CustomResourceDefinition ipaddressclaims.ipam.cluster.x-k8s.io is not installed")
		e.service("web", fromPool("lent"))
		e.refused("web", "ipaddressclaims.ipam.cluster.x-k8s.io is not installed")
		e.service("other")
		e.holds("other", "203.0.113.1") // Everything else goes on.
		for _, file := range []string{"ipaddressclaims", "ipaddresses"} {
			yaml, err := os.ReadFile("testdata/ipam/" + file + ".yaml")
			e.must(err)
			e.must(e.access.Apply(e.ctx, string(yaml)))
		}
		claim := e.claimed("web", 1)
		if ref, _, _ := unstructured.NestedStringMap(claim.Object, "spec", "poolRef"); ref["kind"] != "InClusterIPPool" || ref["name"] != "corp" || ref["apiGroup"] != "ipam.cluster.x-k8s.io" {
			e.t.Errorf("the claim asks pool %v", ref)
		}
		e.refused("web", `waits until InClusterIPPool "corp" grants IPAddressClaim herald-system/`+claim.GetName()+", for IPPool lent")
		e.condition("lent", herald.PoolGranted, metav1.ConditionTrue, "")
		e.grants(claim, "198.51.100.5")
		e.holds("web", "198.51.100.5")
		if rec := e.recordOf("198.51.100.5"); rec.Spec.Claim != claim.GetName() {
			e.t.Errorf("the record names claim %q, want %q", rec.Spec.Claim, claim.GetName())
		}
	})

	part("a Service costs one claim", func(t *testing.T, e *external) {
		before := e.settled()
		e.service("counted", fromPool("lent"))
		claim := e.claimed("counted", 1)
		e.refused("counted", claim.GetName())
		e.grants(claim, "198.51.100.6")
		e.holds("counted", "198.51.100.6")
		e.event("Service", "counted", "EnsuredLoadBalancer", "")
		d := since(before, e.settled())
		delete(d, "PUT ippools/status")
		want := map[string]int{
			"POST services": 1, "POST ipaddressclaims": 1, "POST ipallocations": 1, "PATCH services/status": 1,
			"POST events":                  2, // that it waits, and that it has an address
			"PATCH ipaddressclaims/status": 1, // by the other system, as the IPAddress, which is not counted
		}
		if diff := cmp.Diff(want, d); diff != "" {
			t.Errorf("writes for a Service (-want +got):\n%s", diff)
		}
	})

	part("denied, and granted later", func(_ *testing.T, e *external) {
		e.service("late", fromPool("lent"))
		claim := e.claimed("late", 1)
		e.denies(claim, "PoolExhausted", "no address is left in 10.0.0.0/8")
		e.refused("late", `InClusterIPPool "corp" does not grant IPAddressClaim herald-system/`+claim.GetName()+", for IPPool lent: PoolExhausted: no address is left in 10.0.0.0/8")
		e.condition("lent", herald.PoolGranted, metav1.ConditionFalse, "PoolExhausted: no address is left")
		said, _ := e.ask("explain", "service", "default/late")
		e.cluster.says(said, `InClusterIPPool "corp" does not grant IPAddressClaim herald-system/`+claim.GetName())
		e.grants(claim, "198.51.100.7")
		e.holds("late", "198.51.100.7")
		e.condition("lent", herald.PoolGranted, metav1.ConditionTrue, "")
		e.claimed("late", 1)
	})

	part("grants that cannot be used", func(_ *testing.T, e *external) {
		e.service("misled", fromPool("lent"))
		claim := e.claimed("misled", 1)
		e.grants(claim, "192.0.2.9")
		e.refused("misled", `InClusterIPPool "corp" granted 192.0.2.9 for IPAddressClaim herald-system/`+claim.GetName()+`, which is not in IPPool lent: add it to spec.addresses, or correct InClusterIPPool "corp", and delete the claim`)
		e.withdraws(claim)
		e.grants(claim, "198.51.100.5")
		e.refused("misled", "which is held by default/web")
		e.withdraws(claim)
		e.grants(claim, "203.0.113.9")
		e.refused("misled", "which is in IPPool own and not in lent")
		e.condition("lent", herald.PoolGranted, metav1.ConditionFalse, "which is in IPPool own")
		e.holds("web", "198.51.100.5")
		// The remedy that the messages name.
		e.withdraws(claim)
		e.must(e.claims.Delete(e.ctx, claim.GetName(), metav1.DeleteOptions{}))
		e.eventually("another claim", func(ctx context.Context) error {
			all, err := e.of(ctx, "misled")
			if err != nil || len(all) != 1 || all[0].GetUID() == claim.GetUID() {
				return fmt.Errorf("%d claims, %w", len(all), err)
			}
			return nil
		})
		e.grants(e.claimed("misled", 1), "198.51.100.9")
		e.holds("misled", "198.51.100.9")
	})

	part("requests for a certain address", func(_ *testing.T, e *external) {
		e.service("picky", annotated(herald.AnnotationIPs, "198.51.100.77"))
		e.refused("picky", `198.51.100.77 was not granted to this Service: another system grants the addresses of pool "lent", and cannot be asked for a certain one`)
		e.claimed("picky", 0)
		e.remove("picky")
	})

	part("sharing and moving", func(_ *testing.T, e *external) {
		sharing := annotated(herald.AnnotationSharingKey, "k")
		e.service("tcp", fromPool("lent"), sharing, ports("TCP/53"))
		e.grants(e.claimed("tcp", 1), "198.51.100.20")
		e.holds("tcp", "198.51.100.20")
		e.service("udp", fromPool("lent"), sharing, ports("UDP/53"))
		e.shares("198.51.100.20", "default/tcp", "default/udp")
		e.claimed("udp", 0)
		// The claim outlives the Service for which it was made, as long as the address is in use.
		e.remove("tcp")
		e.gone("tcp")
		e.shares("198.51.100.20", "default/udp")
		e.claimed("tcp", 1)
		// A Service that leaves its address keeps it until another one is granted.
		e.edit("udp", func(svc *corev1.Service) { annotated(herald.AnnotationRenumber, "198.51.100.20")(svc) })
		e.grants(e.claimed("udp", 1), "198.51.100.21")
		e.holds("udp", "198.51.100.21")
		e.unrecorded("198.51.100.20")
		e.claimed("tcp", 0)
	})

	part("a grant that is lost", func(_ *testing.T, e *external) {
		claim := e.claimed("counted", 1)
		e.withdraws(claim)
		e.condition("lent", herald.PoolGranted, metav1.ConditionFalse, "198.51.100.6: IPAddressClaim "+claim.GetName()+" has no IPAddress any more")
		e.holds("counted", "198.51.100.6")
		said, _ := e.ask("explain", "service", "default/counted")
		e.cluster.says(said, "IPAddressClaim "+claim.GetName()+" has no IPAddress any more")
		e.grants(claim, "198.51.100.66")
		e.condition("lent", herald.PoolGranted, metav1.ConditionFalse, "has 198.51.100.66 now")
		e.holds("counted", "198.51.100.6")
		e.withdraws(claim)
		e.grants(claim, "198.51.100.6")
		e.condition("lent", herald.PoolGranted, metav1.ConditionTrue, "")
		if again := e.claimed("counted", 1); again.GetUID() != claim.GetUID() {
			e.t.Errorf("the claim of an address in use was replaced: %v", again.GetUID())
		}
	})

	part("what a restart leaves alone", func(_ *testing.T, e *external) {
		e.quietRestart(ccm, "canary")
		e.service("patient", fromPool("lent"))
		claim := e.claimed("patient", 1)
		e.service("fleeting", fromPool("lent"))
		e.claimed("fleeting", 1)
		e.must(ccm.Stop(e.ctx))
		e.remove("fleeting") // It has no finalizer, because it has no address.
		e.gone("fleeting")
		e.must(ccm.Start())
		e.claimed("fleeting", 0)
		e.service("second-canary")
		e.event("Service", "second-canary", "EnsuredLoadBalancer", "")
		if again := e.claimed("patient", 1); again.GetUID() != claim.GetUID() {
			e.t.Errorf("after the restart there is claim %s of %v, want the one of %v", again.GetName(), again.GetUID(), claim.GetUID())
		}
		e.grants(claim, "198.51.100.30")
		e.holds("patient", "198.51.100.30")
	})

	part("claims that nobody needs", func(_ *testing.T, e *external) {
		e.service("fickle", fromPool("lent"))
		e.claimed("fickle", 1)
		e.edit("fickle", func(svc *corev1.Service) { delete(svc.Annotations, herald.AnnotationPool) })
		e.claimed("fickle", 0)
		e.service("doomed", fromPool("lent"))
		e.claimed("doomed", 1)
		e.remove("doomed")
		e.claimed("doomed", 0)
		e.editPool("lent", func(s *herald.IPPoolSpec) { s.ReuseDelay = &metav1.Duration{Duration: 2 * time.Second} })
		e.remove("web")
		e.gone("web")
		e.eventually("the record and then the claim of web are deleted", func(ctx context.Context) error {
			all, err := e.of(ctx, "web")
			if err != nil {
				return err
			}
			_, err = e.herald.Allocations.Get(ctx, "198.51.100.5", metav1.GetOptions{})
			if len(all) == 0 && err == nil {
				e.t.Fatal("the claim is deleted before the record")
			}
			if len(all) > 0 {
				return errors.New("the claim is still there")
			}
			return missing(err)
		})
		// A record that is kept keeps its claim.
		e.editPool("lent", func(s *herald.IPPoolSpec) {
			s.ReclaimPolicy, s.ReuseDelay = herald.ReclaimRetain, &metav1.Duration{}
		})
		e.capacity("lent", 256, 5)
		e.remove("late")
		e.kept("198.51.100.7", "default/late")
		e.service("late", fromPool("lent"))
		e.holds("late", "198.51.100.7")
		e.claimed("late", 1)
		e.remove("late")
		e.kept("198.51.100.7", "default/late")
		e.must(e.herald.Allocations.Delete(e.ctx, "198.51.100.7", metav1.DeleteOptions{}))
		e.claimed("late", 0)
	})
	c.must(ccm.Stop(ctx))
	c.neverRefused(ccm)
}
