package e2e

import (
	"fmt"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	herald "github.com/heraldlb/herald/api/v1alpha1"
)

func TestTheOrderOfAddresses(t *testing.T) {
	c, _, ccm := withCCM(t)
	c.pool("rested", delay(0), "198.51.100.1-198.51.100.5")
	inOrder := func(s *herald.IPPoolSpec) { s.AddressOrder = herald.OrderLowest }
	c.pool("lowest", with(delay(0), named, inOrder), "198.51.100.101-198.51.100.110")
	lowest := annotated(herald.AnnotationPool, "lowest")

	c.served("a", "198.51.100.1")
	c.served("b", "198.51.100.2")
	c.free("a", "198.51.100.1")
	c.served("c", "198.51.100.3")
	c.served("low-a", "198.51.100.101", lowest)
	c.served("low-b", "198.51.100.102", lowest)
	c.free("low-a", "198.51.100.101")

	// It is not recorded since when an address is free. After a restart, assignment continues after the youngest record.
	c.must(ccm.Restart(c.ctx))
	c.served("d", "198.51.100.4")
	c.served("low-c", "198.51.100.101", lowest)
	c.served("e", "198.51.100.5")
	c.served("f", "198.51.100.1")

	// Once all addresses have been used, the one that was free the longest is next.
	c.free("d", "198.51.100.4")
	c.free("b", "198.51.100.2")
	c.free("f", "198.51.100.1")
	c.served("g", "198.51.100.4")
	c.served("h", "198.51.100.2")
	c.served("i", "198.51.100.1")
}

func TestFamilies(t *testing.T) {
	c, _, ccm := withCCM(t)
	c.pool("four", delay(0), "198.51.100.1-198.51.100.50")
	c.pool("six", delay(0), "2001:db8:51::1-2001:db8:51::50")
	c.pool("both", with(delay(0), named), "203.0.113.1-203.0.113.50", "2001:db8:113::1-2001:db8:113::50")
	c.pool("late", with(delay(0), named), "198.51.100.101")
	from := func(pool string) func(*corev1.Service) { return annotated(herald.AnnotationPool, pool) }
	policy := func(p corev1.IPFamilyPolicy) func(*corev1.Service) {
		return func(svc *corev1.Service) { svc.Spec.IPFamilyPolicy = &p }
	}
	const v4, v6 = corev1.IPv4Protocol, corev1.IPv6Protocol

	c.served("late", "198.51.100.101", from("late"), policy(corev1.IPFamilyPolicyPreferDualStack))
	c.must(ccm.Restart(c.ctx))

	t.Run("in the order of the Service, from one pool or from two", func(t *testing.T) {
		c := c.within(t)
		c.served("six", "2001:db8:51::1", families(v6))
		c.service("two-pools", families(v6, v4), policy(corev1.IPFamilyPolicyRequireDualStack))
		c.holds("two-pools", "2001:db8:51::2", "198.51.100.1")
		c.service("one-pool", families(v4, v6), policy(corev1.IPFamilyPolicyPreferDualStack), from("both"))
		c.holds("one-pool", "203.0.113.1", "2001:db8:113::1")
	})
	t.Run("a second family comes and goes, and the first stays", func(t *testing.T) {
		c := c.within(t)
		for i, grown := range []corev1.IPFamilyPolicy{corev1.IPFamilyPolicyPreferDualStack, corev1.IPFamilyPolicyRequireDualStack} {
			// Each Service has its own name, because an address is kept for its name until herald-ccm sees that the record is gone.
			name, first, second := fmt.Sprintf("four-%d", i), fmt.Sprintf("198.51.100.%d", 2+i), fmt.Sprintf("2001:db8:51::%d", 3+i)
			c.served(name, first)
			c.edit(name, policy(grown))
			c.holds(name, first, second)
			c.edit(name, func(svc *corev1.Service) {
				policy(corev1.IPFamilyPolicySingleStack)(svc)
				svc.Spec.IPFamilies, svc.Spec.ClusterIPs = svc.Spec.IPFamilies[:1], svc.Spec.ClusterIPs[:1]
			})
			c.holds(name, first)
			c.unrecorded(second)
		}
	})
	t.Run("one that is preferred comes also after a restart", func(t *testing.T) {
		c := c.within(t)
		c.editPool("late", func(s *herald.IPPoolSpec) { s.Addresses = append(s.Addresses, "2001:db8:100::1") })
		c.holds("late", "198.51.100.101", "2001:db8:100::1")
	})
}

func TestWhichPoolIsUsed(t *testing.T) {
	c, _, _ := withCCM(t)
	c.pool("older", delay(0), "198.51.100.1-198.51.100.9")
	c.pool("younger", delay(0), "203.0.113.1-203.0.113.9")
	ips := func(ips string) func(*corev1.Service) { return annotated(herald.AnnotationIPs, ips) }
	disabled := func(yes bool) func(*herald.IPPoolSpec) { return func(s *herald.IPPoolSpec) { s.Disabled = yes } }

	t.Run("the higher priority, whenever it was set", func(t *testing.T) {
		c := c.within(t)
		c.served("a", "198.51.100.1")
		c.editPool("younger", func(s *herald.IPPoolSpec) { s.Priority = 1 })
		c.capacity("younger", 9, 0)
		c.served("b", "203.0.113.1")
		c.holds("a", "198.51.100.1")
	})
	t.Run("not a disabled one, whose addresses stay in use", func(t *testing.T) {
		c := c.within(t)
		c.editPool("younger", disabled(true))
		c.condition("younger", herald.PoolReady, metav1.ConditionFalse, "spec.disabled is set")
		c.served("c", "198.51.100.2")
		c.service("d", ips("203.0.113.2"))
		c.refused("d", `pool "younger" gives no new addresses, because it is disabled, invalid or being deleted`)
		c.service("e", annotated(herald.AnnotationPool, "younger"))
		c.refused("e", `pool "younger" gives no new addresses`)
		c.holds("b", "203.0.113.1")
		c.edit("b", ports("TCP/81")) // It is still served.
		c.editPool("younger", disabled(false))
		c.holds("d", "203.0.113.2")
		c.holds("e", "203.0.113.3")
	})
	t.Run("not one that does not auto-assign, unless it is asked for", func(t *testing.T) {
		c := c.within(t)
		c.editPool("older", named)
		c.editPool("younger", named)
		c.capacity("older", 9, 2)
		c.capacity("younger", 9, 3)
		c.service("f")
		c.refused("f", "no pool auto-assigns addresses: name a pool by annotation herald.dev/pool, or set spec.autoAssign of a pool")
		c.served("g", "198.51.100.7", ips("198.51.100.7"))
		c.holds("a", "198.51.100.1")
		c.editPool("younger", func(s *herald.IPPoolSpec) { yes := true; s.AutoAssign = &yes })
		c.holds("f", "203.0.113.4")
	})
}
