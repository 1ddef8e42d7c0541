package e2e

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	herald "github.com/heraldlb/herald/api/v1alpha1"
)

func TestAddressesAreKeptForAName(t *testing.T) {
	c, _, ccm := withCCM(t)
	allows := func(s *herald.IPPoolSpec) { s.AllowRetain = true }
	c.pool("public", with(delay(0), allows), "198.51.100.1-198.51.100.50")
	retains := func(s *herald.IPPoolSpec) { s.ReclaimPolicy = herald.ReclaimRetain }
	c.pool("retained", with(delay(0), named, retains), "198.51.100.101-198.51.100.109")
	c.pool("resting", with(delay(time.Hour), named), "198.51.100.201-198.51.100.209")
	c.pool("single", with(delay(0), named), "203.0.113.1")
	retain := annotated(herald.AnnotationReclaim, string(herald.ReclaimRetain))
	from := func(pool string) func(*corev1.Service) { return annotated(herald.AnnotationPool, pool) }
	ips := func(ips string) func(*corev1.Service) { return annotated(herald.AnnotationIPs, ips) }

	t.Run("by the Service's annotation", func(t *testing.T) {
		c := c.within(t)
		c.served("loyal", "198.51.100.1", retain)
		c.remove("loyal")
		c.kept("198.51.100.1", "default/loyal")
		c.service("greedy", ips("198.51.100.1"))
		c.refused("greedy", "198.51.100.1 is reserved for default/loyal")
		c.gone("loyal")
		c.served("loyal", "198.51.100.1", retain)
		c.remove("loyal")
		c.kept("198.51.100.1", "default/loyal")
		c.gone("loyal")
		// This also holds if herald-ccm is stopped when the Service is deleted, and if no Service asks for the address.
		c.served("loyal", "198.51.100.1", retain)
		c.must(ccm.Stop(c.ctx))
		c.edit("loyal", func(svc *corev1.Service) { svc.Finalizers = nil })
		c.remove("loyal")
		c.gone("loyal")
		c.must(ccm.Start())
		c.kept("198.51.100.1", "default/loyal")
		c.served("another", "198.51.100.2")
		c.served("loyal", "198.51.100.1", retain)
	})
	t.Run("until the record is deleted", func(t *testing.T) {
		c := c.within(t)
		c.remove("loyal")
		c.kept("198.51.100.1", "default/loyal")
		c.must(c.herald.Allocations.Delete(c.ctx, "198.51.100.1", metav1.DeleteOptions{}))
		c.holds("greedy", "198.51.100.1") // This Service waited for it.
	})
	t.Run("by the pool, if the Service does not say otherwise", func(t *testing.T) {
		c := c.within(t)
		c.served("pooled", "198.51.100.101", from("retained"))
		c.remove("pooled")
		c.kept("198.51.100.101", "default/pooled")
		c.served("flighty", "198.51.100.102", from("retained"), annotated(herald.AnnotationReclaim, string(herald.ReclaimDelete)))
		c.free("flighty", "198.51.100.102")
		// herald-ccm recognizes the Service by its name. The Service need not ask for the pool again.
		c.served("pooled", "198.51.100.101")
	})
	t.Run("also if the annotation is misspelt, which is told", func(t *testing.T) {
		c := c.within(t)
		c.edit("pooled", annotated(herald.AnnotationReclaim, "retain"))
		c.refused("pooled", `annotation herald.dev/reclaim: "retain" is not a reclaim policy: write Delete or Retain`)
		c.remove("pooled")
		c.kept("198.51.100.101", "default/pooled")
	})
	t.Run("while it is of another type", func(t *testing.T) {
		c := c.within(t)
		c.served("types", "198.51.100.3", retain)
		c.edit("types", clusterIP)
		c.kept("198.51.100.3", "default/types")
		c.eventually("cleaned up after", func(context.Context) error {
			if svc := c.get("types"); len(svc.Finalizers) > 0 || len(addresses(svc)) > 0 {
				return fmt.Errorf("%v %v", svc.Finalizers, addresses(svc))
			}
			return nil
		})
		c.edit("types", func(svc *corev1.Service) { svc.Spec.Type = corev1.ServiceTypeLoadBalancer })
		c.holds("types", "198.51.100.3")
	})
	t.Run("while it cools down", func(t *testing.T) {
		c := c.within(t)
		c.served("phoenix", "198.51.100.201", from("resting"))
		c.remove("phoenix")
		c.gone("phoenix")
		c.served("stranger", "198.51.100.202", from("resting"))
		c.served("phoenix", "198.51.100.201", from("resting"))
		c.remove("phoenix")
		c.gone("phoenix")
		c.must(ccm.Restart(c.ctx))
		c.served("phoenix", "198.51.100.201", from("resting"))
	})
	t.Run("by hand, and then for good", func(t *testing.T) {
		c := c.within(t)
		c.reserve("198.51.100.4", herald.AllocationOwner{Namespace: "default", Name: "chosen"})
		c.reserve("198.51.100.5")
		c.served("passer-by", "198.51.100.6")
		c.served("chosen", "198.51.100.4")
		if rec := c.recordOf("198.51.100.4"); rec.Spec.ReclaimPolicy != herald.ReclaimRetain || rec.Spec.Pool != "public" {
			t.Errorf("the record says %+v", rec.Spec)
		}
		c.remove("chosen")
		c.kept("198.51.100.4", "default/chosen")
		c.service("nobody", ips("198.51.100.5"))
		c.refused("nobody", "198.51.100.5 is reserved: ask for another address")
	})
	t.Run("by hand, for one that waits", func(t *testing.T) {
		c := c.within(t)
		c.reserve("203.0.113.1")
		c.service("patient", from("single"))
		c.refused("patient", `pool "single" has no free IPv4 address`)
		c.editRecord("203.0.113.1", func(rec *herald.IPAllocation) {
			rec.Spec.Owners = []herald.AllocationOwner{{Namespace: "default", Name: "patient"}}
		})
		c.holds("patient", "203.0.113.1")
	})
	t.Run("but not outside of every pool", func(t *testing.T) {
		c := c.within(t)
		c.served("lost", "198.51.100.7", retain)
		c.remove("lost")
		c.kept("198.51.100.7", "default/lost")
		c.editPool("public", func(s *herald.IPPoolSpec) { s.Exclude = []herald.AddressRange{"198.51.100.7"} })
		c.marked("198.51.100.7", metav1.ConditionFalse, "198.51.100.7 is in no IPPool any more")
		c.served("lost", "198.51.100.8", retain)
		c.event("Service", "lost", "AddressNotKept",
			"198.51.100.7 was kept for the Service, but it is in no pool any more: the Service was given 198.51.100.8")
		c.kept("198.51.100.7", "default/lost")
	})
}

func TestQuotas(t *testing.T) {
	c, _, ccm := withCCM(t, "--namespace-quota=ipv4=4")
	c.must(c.namespaceWith("small", map[string]string{herald.AnnotationQuota: "ipv4=1"}))
	c.must(c.namespaceWith("confused", map[string]string{herald.AnnotationQuota: "four"}))
	small, confused := c.in("small"), c.in("confused")
	quota := func(n int64) func(*herald.IPPoolSpec) {
		return func(s *herald.IPPoolSpec) { s.Quota = &herald.AddressQuota{IPv4: &n} }
	}
	c.pool("first", with(delay(0), quota(2), func(s *herald.IPPoolSpec) { s.Priority = 1 }), "198.51.100.1-198.51.100.50")
	c.pool("second", delay(0), "203.0.113.1-203.0.113.50", "2001:db8:51::/112")
	c.pool("wide", with(delay(0), named, acrossNamespaces), "198.51.100.101-198.51.100.110")
	key := func(key string) func(*corev1.Service) { return annotated(herald.AnnotationSharingKey, key) }

	t.Run("of a pool: the next one is used", func(t *testing.T) {
		c := c.within(t)
		c.served("a", "198.51.100.1")
		c.served("b", "198.51.100.2")
		c.served("c", "203.0.113.1")
		c.service("named", annotated(herald.AnnotationPool, "first"))
		c.refused("named",
			`namespace default holds 2 IPv4 addresses of pool "first", and its quota there is 2 (spec.quota of the pool): release one`)
		c.editPool("first", quota(3))
		c.holds("named", "198.51.100.3")
	})
	t.Run("of the cluster: of all pools together", func(t *testing.T) {
		c := c.within(t)
		c.service("fifth")
		c.refused("fifth",
			"namespace default holds 4 IPv4 addresses, and its quota is 4 (herald-ccm's --namespace-quota): release one, or raise the quota")
		c.service("strict", dualStack)
		c.refused("strict", "namespace default holds 4 IPv4 addresses")
		c.remove("strict")
		c.served("six", "2001:db8:51::", families(corev1.IPv6Protocol)) // The quota does not limit this family.
		c.free("a", "198.51.100.1")
		c.holds("fifth", "198.51.100.4")
	})
	t.Run("of a namespace, by its annotation", func(t *testing.T) {
		c := small.within(t)
		c.served("a", "198.51.100.5", key("k"), ports("TCP/1"))
		c.service("b")
		c.refused("b",
			"namespace small holds 1 IPv4 addresses, and its quota is 1 (annotation herald.dev/quota of the namespace)")
		// A shared address counts once. An address that its Service has left for another one does not count.
		c.service("c", key("k"), ports("TCP/2"))
		c.shares("198.51.100.5", "small/a", "small/c")
		c.remove("c")
		c.gone("c")
		c.edit("a", annotated(herald.AnnotationRenumber, "198.51.100.5"))
		c.holds("a", "198.51.100.6")
		c.quota("ipv4=2")
		c.holds("b", "198.51.100.7")
	})
	t.Run("who holds more keeps it", func(t *testing.T) {
		c := small.within(t)
		c.quota("ipv4=1")
		c.edit("a", ports("TCP/3"))
		c.eventually("the record has the new port", func(ctx context.Context) error {
			rec, err := c.herald.Allocations.Get(ctx, "198.51.100.6", metav1.GetOptions{})
			if err == nil && !slices.Equal(rec.Spec.Owners[0].Sharing.Ports, []string{"TCP/3"}) {
				err = fmt.Errorf("it says %+v", rec.Spec.Owners)
			}
			return err
		})
		c.must(ccm.Restart(c.ctx))
		c.service("d")
		c.refused("d", "namespace small holds 2 IPv4 addresses, and its quota is 1")
		c.holds("a", "198.51.100.6")
		c.holds("b", "198.51.100.7")
		c.remove("a")
		c.free("b", "198.51.100.7")
		c.holds("d", "198.51.100.8")
	})
	t.Run("one that shares makes room by leaving", func(t *testing.T) {
		c, outer := small.within(t), c.within(t)
		wide := annotated(herald.AnnotationPool, "wide")
		c.free("d", "198.51.100.8")
		outer.quota("") // An empty quota means no quota.
		outer.served("w", "198.51.100.101", key("w"), ports("TCP/1"), wide)
		c.service("w", key("w"), ports("TCP/2"), wide)
		c.shares("198.51.100.101", "default/w", "small/w")
		c.service("e")
		c.refused("e", "namespace small holds 1 IPv4 addresses")
		c.remove("w")
		c.holds("e", "198.51.100.9")
		outer.shares("198.51.100.101", "default/w")
	})
	t.Run("an invalid quota is reported to a Service that asks for an address", func(t *testing.T) {
		c := confused.within(t)
		c.service("a")
		c.refused("a",
			`annotation herald.dev/quota of Namespace confused: "four" is not a quota: write ipv4=5,ipv6=10`)
		c.quota("ipv4=1")
		c.holds("a", "198.51.100.10")
	})
}
