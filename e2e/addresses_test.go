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
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

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

	// What was free since when is not recorded: it goes on behind the youngest record.
	c.must(ccm.Restart(c.ctx))
	c.served("d", "198.51.100.4")
	c.served("low-c", "198.51.100.101", lowest)
	c.served("e", "198.51.100.5")
	c.served("f", "198.51.100.1")

	// When all were in use once, the one comes that rested longest.
	c.free("d", "198.51.100.4")
	c.free("b", "198.51.100.2")
	c.free("f", "198.51.100.1")
	c.served("g", "198.51.100.4")
	c.served("h", "198.51.100.2")
	c.served("i", "198.51.100.1")
}

func TestWhoSharesAnAddress(t *testing.T) {
	c, plane, ccm := withCCM(t)
	c.must(c.namespaceWith("other", nil))
	other := c.in("other")
	c.pool("public", delay(0), "198.51.100.1-198.51.100.50")
	c.pool("wide", with(delay(time.Hour), named, acrossNamespaces), "198.51.100.101-198.51.100.110")
	key := func(key string) func(*corev1.Service) { return annotated(herald.AnnotationSharingKey, key) }

	t.Run("with one key and different ports", func(t *testing.T) {
		c := c.within(t)
		for name, port := range map[string]string{"web": "TCP/80", "tls": "TCP/443", "quic": "UDP/443"} {
			c.service(name, key("k"), ports(port))
		}
		c.shares("198.51.100.1", "default/quic", "default/tls", "default/web")
	})
	t.Run("not if a port is another's", func(t *testing.T) {
		c := c.within(t)
		c.served("second", "198.51.100.2", key("k"), ports("TCP/8000", "TCP/80"))
		c.event("Service", "second", "NotShared",
			"198.51.100.1 is shared by default/web, which has port TCP/80, too: the Service was given 198.51.100.2, and shares it with none")
		c.service("third", key("k"), ports("TCP/443", "UDP/53"))
		c.shares("198.51.100.2", "default/second", "default/third")
	})
	t.Run("an address that is asked for is refused while the port is another's", func(t *testing.T) {
		c := c.within(t)
		c.service("insistent", key("k"), ports("TCP/80"), annotated(herald.AnnotationIPs, "198.51.100.1"))
		c.refused("insistent", "198.51.100.1 is shared by default/web, which has port TCP/80, too: ask for another address")
		c.service("keyless", ports("TCP/81"), annotated(herald.AnnotationIPs, "198.51.100.1"))
		c.refused("keyless", `198.51.100.1 is shared by default/`)
		c.remove("keyless")
		c.edit("web", ports("TCP/8080"))
		c.shares("198.51.100.1", "default/insistent", "default/quic", "default/tls", "default/web")
		c.remove("insistent")
		c.shares("198.51.100.1", "default/quic", "default/tls", "default/web")
	})
	t.Run("a change that collides is refused until it is taken back, and the address kept", func(t *testing.T) {
		c := c.within(t)
		c.edit("tls", ports("TCP/8080"))
		c.refused("tls", "198.51.100.1 is shared by default/web, which has port TCP/8080, too: take back what was changed")
		c.edit("second", func(svc *corev1.Service) { delete(svc.Annotations, herald.AnnotationSharingKey) })
		c.refused("second", `198.51.100.2 is shared by default/third with the sharing key "k": take back`)
		c.shares("198.51.100.1", "default/quic", "default/tls", "default/web")
		c.shares("198.51.100.2", "default/second", "default/third")
		c.edit("tls", ports("TCP/443"))
		c.edit("second", key("k"))
		c.quietRestart(ccm, "canary") // Who is not content would be told of it now.
		c.remove("canary")
	})
	t.Run("a change that collides comes into force when the other goes", func(t *testing.T) {
		c := c.within(t)
		c.edit("tls", ports("UDP/443"))
		c.refused("tls", "198.51.100.1 is shared by default/quic, which has port UDP/443, too: take back what was changed")
		c.remove("quic")
		c.shares("198.51.100.1", "default/tls", "default/web")
		c.eventually("the record has the new port", func(ctx context.Context) error {
			rec, err := c.herald.Allocations.Get(ctx, "198.51.100.1", metav1.GetOptions{})
			if err != nil {
				return err
			}
			for _, o := range rec.Spec.Owners {
				if o.Name == "tls" && slices.Equal(o.Sharing.Ports, []string{"UDP/443"}) {
					return nil
				}
			}
			return fmt.Errorf("there are %+v", rec.Spec.Owners)
		})
		c.service("quic", key("k"), ports("UDP/80"))
		c.shares("198.51.100.1", "default/quic", "default/tls", "default/web")
	})
	t.Run("only if keys and traffic agree", func(t *testing.T) {
		c := c.within(t)
		selects := func(app string) func(*corev1.Service) {
			return func(svc *corev1.Service) { svc.Spec.Selector = map[string]string{"app": app} }
		}
		first := c.addressOf("local-1", key("t"), ports("TCP/1"), local)
		c.service("local-2", key("t"), ports("TCP/2"), local)
		c.shares(first, "default/local-1", "default/local-2")
		for name, edit := range map[string]func(*corev1.Service){
			"otherwise": selects("another"),
			"cluster":   func(svc *corev1.Service) { svc.Spec.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyCluster },
		} {
			if got := c.addressOf(name, key("t"), ports("TCP/3"), local, edit); got == first {
				t.Errorf("%s shares %s", name, got)
			}
			c.event("Service", name, "NotShared", "which takes traffic otherwise (Local in default: app=pod; this one: ")
		}
		if got := c.addressOf("other-key", key("T"), ports("TCP/4"), local); got == first {
			t.Errorf("another key shares %s", got)
		}
		c.edit("local-2", selects("another"))
		c.refused("local-2", "which takes traffic otherwise (Local in default: app=pod; this one: Local in default: app=another)")
		c.edit("local-2", selects("pod"))
		c.shares(first, "default/local-1", "default/local-2")
	})
	t.Run("across namespaces where the pool lets them", func(t *testing.T) {
		c, other := c.within(t), other.within(t)
		first := c.addressOf("n", key("n"), ports("TCP/80"))
		if got := other.addressOf("n", key("n"), ports("TCP/443")); got == first {
			t.Errorf("%s is shared across namespaces", got)
		}
		other.event("Service", "n", "NotShared",
			first+" is shared by default/n, and the pool does not let namespaces share (shareAcrossNamespaces)")
		wide := annotated(herald.AnnotationPool, "wide")
		c.served("w", "198.51.100.101", key("w"), ports("TCP/80"), wide)
		other.service("w", key("w"), ports("TCP/443"), wide)
		c.shares("198.51.100.101", "default/w", "other/w")
	})
	t.Run("the others stay when one goes, and when the last goes it cools down", func(t *testing.T) {
		c, other := c.within(t), other.within(t)
		c.remove("w")
		c.gone("w")
		c.shares("198.51.100.101", "other/w")
		other.remove("w")
		other.gone("w")
		if rec := c.recordOf("198.51.100.101"); rec.Status.ReleasedAt == nil {
			t.Errorf("the last is gone and the record says %+v", rec)
		}
		c.editPool("wide", delay(0))
		c.unrecorded("198.51.100.101")
	})
	t.Run("a restart writes nothing", func(t *testing.T) {
		c.within(t).quietRestart(ccm, "canary-2")
	})
	t.Run("a record that is deleted by hand comes back with all owners", func(t *testing.T) {
		c := c.within(t)
		had := c.allAddresses()
		c.must(c.herald.Allocations.Delete(c.ctx, "198.51.100.1", metav1.DeleteOptions{}))
		c.shares("198.51.100.1", "default/quic", "default/tls", "default/web")
		// Also while nobody looks.
		c.must(ccm.Stop(c.ctx))
		c.must(c.herald.Allocations.Delete(c.ctx, "198.51.100.1", metav1.DeleteOptions{}))
		c.must(ccm.Start())
		c.shares("198.51.100.1", "default/quic", "default/tls", "default/web")
		if diff := cmp.Diff(had, c.allAddresses()); diff != "" {
			t.Errorf("addresses moved:\n%s", diff)
		}
	})
	t.Run("many at once, and no more than a record names", func(t *testing.T) {
		c := c.within(t)
		const many = 65
		name := func(i int) string { return fmt.Sprintf("many-%d", i) }
		for i := range many {
			c.service(name(i), key("m"), ports(fmt.Sprintf("TCP/%d", 1000+i)))
		}
		on := map[string][]string{}
		c.eventually("all have addresses", func(context.Context) error {
			clear(on)
			all := c.allAddresses()
			for i := range many {
				on[all[name(i)]] = append(on[all[name(i)]], "default/"+name(i))
			}
			if n := len(on[""]); n > 0 {
				return fmt.Errorf("%d have none", n)
			}
			return nil
		})
		for address, owners := range on {
			slices.Sort(owners)
			c.shares(address, owners...)
			if len(owners) == 1 {
				c.event("Service", strings.TrimPrefix(owners[0], "default/"), "NotShared", "is shared by 64 already, which is the most")
			}
		}
		if len(on) != 2 {
			t.Errorf("they are on %v", on)
		}
		for i := range many {
			c.remove(name(i))
		}
		for address := range on {
			c.unrecorded(address)
		}
	})
	t.Run("not with those of another controller", func(t *testing.T) {
		c := c.within(t)
		_, err := plane.StartCCM("--load-balancer-class=example.com/second", "--serve-classless=false",
			"--leader-elect-resource-name=herald-ccm-second", "--secure-port=0")
		c.must(err)
		first := c.addressOf("first-class", key("c"), ports("TCP/80"))
		second := c.addressOf("second-class", key("c"), ports("TCP/443"), classed("example.com/second"))
		if first == second {
			t.Errorf("two controllers write the record of %s", first)
		}
		c.holds("first-class", first)
		c.holds("second-class", second)
	})
}

func TestAddressesAreKeptForAName(t *testing.T) {
	c, _, ccm := withCCM(t)
	c.pool("public", delay(0), "198.51.100.1-198.51.100.50")
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
		c.served("loyal", "198.51.100.1", retain)
		c.remove("loyal")
		c.kept("198.51.100.1", "default/loyal")
		// Also if nobody looks when it goes, and nobody asks.
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
		c.holds("greedy", "198.51.100.1") // Who waited for it.
	})
	t.Run("by the pool, if the Service does not say otherwise", func(t *testing.T) {
		c := c.within(t)
		c.served("pooled", "198.51.100.101", from("retained"))
		c.remove("pooled")
		c.kept("198.51.100.101", "default/pooled")
		c.served("flighty", "198.51.100.102", from("retained"), annotated(herald.AnnotationReclaim, string(herald.ReclaimDelete)))
		c.free("flighty", "198.51.100.102")
		// It is known by its name: it need not ask for the pool again.
		c.served("pooled", "198.51.100.101")
	})
	t.Run("also if the annotation is misspelt, which is told", func(t *testing.T) {
		c := c.within(t)
		c.edit("pooled", annotated(herald.AnnotationReclaim, "retain"))
		c.refused("pooled", `annotation herald.dev/reclaim: "retain" is no reclaim policy: write Delete or Retain`)
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
		c.marked("198.51.100.7", metav1.ConditionTrue, "198.51.100.7 is in no IPPool any more")
		c.served("lost", "198.51.100.8", retain)
		c.event("Service", "lost", "AddressNotKept",
			"198.51.100.7 was kept for the Service, but it is in no pool any more: it was given 198.51.100.8")
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
		c.served("six", "2001:db8:51::", families(corev1.IPv6Protocol)) // That family is not limited.
		c.free("a", "198.51.100.1")
		c.holds("fifth", "198.51.100.4")
	})
	t.Run("of a namespace, by its annotation", func(t *testing.T) {
		c := small.within(t)
		c.served("a", "198.51.100.5", key("k"), ports("TCP/1"))
		c.service("b")
		c.refused("b",
			"namespace small holds 1 IPv4 addresses, and its quota is 1 (annotation herald.dev/quota of the namespace)")
		// One that is shared counts once, and one that is left for another does not count.
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
		outer.quota("") // That is none.
		outer.served("w", "198.51.100.101", key("w"), ports("TCP/1"), wide)
		c.service("w", key("w"), ports("TCP/2"), wide)
		c.shares("198.51.100.101", "default/w", "small/w")
		c.service("e")
		c.refused("e", "namespace small holds 1 IPv4 addresses")
		c.remove("w")
		c.holds("e", "198.51.100.9")
		outer.shares("198.51.100.101", "default/w")
	})
	t.Run("an annotation that says nothing sensible is told to who asks", func(t *testing.T) {
		c := confused.within(t)
		c.service("a")
		c.refused("a",
			`annotation herald.dev/quota of Namespace confused: "four" is no quota: write ipv4=5,ipv6=10`)
		c.quota("ipv4=1")
		c.holds("a", "198.51.100.10")
	})
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
			name, second := "four", fmt.Sprintf("2001:db8:51::%d", 3+i)
			if i == 0 {
				c.served(name, "198.51.100.2")
			}
			c.edit(name, policy(grown))
			c.holds(name, "198.51.100.2", second)
			c.edit(name, func(svc *corev1.Service) {
				policy(corev1.IPFamilyPolicySingleStack)(svc)
				svc.Spec.IPFamilies, svc.Spec.ClusterIPs = svc.Spec.IPFamilies[:1], svc.Spec.ClusterIPs[:1]
			})
			c.holds(name, "198.51.100.2")
			c.unrecorded(second)
		}
	})
	t.Run("one that is preferred comes also after a restart", func(t *testing.T) {
		c := c.within(t)
		c.editPool("late", func(s *herald.IPPoolSpec) { s.Addresses = append(s.Addresses, "2001:db8:100::1") })
		c.holds("late", "198.51.100.101", "2001:db8:100::1")
	})
}

func TestPoolsAreEdited(t *testing.T) {
	c, _, ccm := withCCM(t)
	c.pool("public", delay(0), "198.51.100.1-198.51.100.9")
	c.pool("resting", with(delay(time.Hour), named), "198.51.100.101-198.51.100.102")
	from := func(pool string) func(*corev1.Service) { return annotated(herald.AnnotationPool, pool) }
	spans := func(spans ...herald.AddressRange) func(*herald.IPPoolSpec) {
		return func(s *herald.IPPoolSpec) { s.Addresses = spans }
	}
	c.served("a", "198.51.100.1")
	c.served("b", "198.51.100.2")
	c.served("c", "198.51.100.3")
	everybody := func(c *cluster) {
		c.t.Helper()
		c.holds("a", "198.51.100.1")
		c.holds("b", "198.51.100.2")
		c.holds("c", "198.51.100.3")
	}

	t.Run("wider: nothing moves, and nothing but the pool is written", func(t *testing.T) {
		c := c.within(t)
		c.capacity("public", 9, 3)
		before := c.writes()
		c.editPool("public", spans("198.51.100.0-198.51.100.20"))
		c.capacity("public", 21, 3)
		d := since(before, c.writes())
		delete(d, "PUT ippools/status")
		if diff := cmp.Diff(map[string]int{"PUT ippools": 1}, d); diff != "" {
			t.Errorf("writes (-want +got):\n%s", diff)
		}
		everybody(c)
	})
	t.Run("narrower: who is outside keeps its address and is told", func(t *testing.T) {
		c := c.within(t)
		exclude := func(s *herald.IPPoolSpec) { s.Exclude = []herald.AddressRange{"198.51.100.2"} }
		c.editPool("public", with(spans("198.51.100.2-198.51.100.20"), exclude))
		for name, address := range map[string]string{"a": "198.51.100.1", "b": "198.51.100.2"} {
			c.condition("public", herald.PoolOutOfRange, metav1.ConditionTrue, address+" (default/"+name+")")
			c.marked(address, metav1.ConditionTrue, address+" is in no IPPool any more: it stays in use")
			c.event("Service", name, "OutOfRange", address+" is in no IPPool any more: it stays in use; move off it by ")
		}
		everybody(c)
		c.quietRestart(ccm, "canary")
		everybody(c)
	})
	t.Run("another pool has it, and then none again", func(t *testing.T) {
		c := c.within(t)
		c.pool("heir", delay(0), "198.51.100.1")
		c.marked("198.51.100.1", metav1.ConditionTrue,
			`198.51.100.1 was given from IPPool "public" and belongs to "heir" now: it stays in use`)
		c.editPool("heir", spans("203.0.113.1"))
		c.marked("198.51.100.1", metav1.ConditionTrue, "198.51.100.1 is in no IPPool any more")
		c.must(c.herald.Pools.Delete(c.ctx, "heir", metav1.DeleteOptions{}))
		everybody(c)
	})
	t.Run("wide again: the marks go", func(t *testing.T) {
		c := c.within(t)
		c.editPool("public", with(spans("198.51.100.1-198.51.100.9"), func(s *herald.IPPoolSpec) { s.Exclude = nil }))
		c.marked("198.51.100.1", metav1.ConditionFalse, "")
		c.marked("198.51.100.2", metav1.ConditionFalse, "")
		c.condition("public", herald.PoolOutOfRange, metav1.ConditionFalse, "")
		everybody(c)
	})
	t.Run("a Service is renumbered, once", func(t *testing.T) {
		c := c.within(t)
		c.served("mover", "198.51.100.101", from("resting"))
		c.editPool("resting", func(s *herald.IPPoolSpec) { s.Exclude = []herald.AddressRange{"198.51.100.101"} })
		c.marked("198.51.100.101", metav1.ConditionTrue, "in no IPPool")
		c.edit("mover", annotated(herald.AnnotationRenumber, "198.51.100.101"))
		c.holds("mover", "198.51.100.102")
		// Make before break: the new record is older than the release of the old one.
		made, released := c.recordOf("198.51.100.102"), c.recordOf("198.51.100.101")
		if released.Status.ReleasedAt == nil || made.Generation != 1 || version(t, made) >= version(t, released) {
			t.Errorf("the new record is %+v, the old one %+v", made, released)
		}
		c.quietRestart(ccm, "canary-2")
		c.holds("mover", "198.51.100.102")
	})
	t.Run("with nothing else free it stays where it is", func(t *testing.T) {
		c := c.within(t)
		c.edit("mover", annotated(herald.AnnotationRenumber, "198.51.100.101, 198.51.100.102"))
		c.refused("mover", `pool "resting" has no free IPv4 address`)
		c.holds("mover", "198.51.100.102")
		c.editPool("resting", spans("198.51.100.101-198.51.100.103"))
		c.holds("mover", "198.51.100.103")
	})
	t.Run("one that is deleted waits for all who hold, and names them", func(t *testing.T) {
		c := c.within(t)
		c.pool("going", with(delay(0), named), "203.0.113.101-203.0.113.109")
		retain := annotated(herald.AnnotationReclaim, string(herald.ReclaimRetain))
		key := annotated(herald.AnnotationSharingKey, "k")
		c.served("kept", "203.0.113.101", from("going"), retain)
		c.remove("kept")
		c.kept("203.0.113.101", "default/kept")
		c.served("share-1", "203.0.113.102", from("going"), key, ports("TCP/1"))
		c.service("share-2", from("going"), key, ports("TCP/2"))
		c.shares("203.0.113.102", "default/share-1", "default/share-2")
		c.reserve("203.0.113.109")
		c.must(c.herald.Pools.Delete(c.ctx, "going", metav1.DeleteOptions{}))
		in := func(holders ...string) {
			t.Helper()
			c.condition("going", herald.PoolReady, metav1.ConditionFalse,
				"the pool is deleted when its last address is free; in use: "+strings.Join(holders, ", "))
		}
		in("203.0.113.101 (default/kept)", "203.0.113.102 (default/share-1 default/share-2)", "203.0.113.109 (a reservation)")
		c.remove("share-1")
		in("203.0.113.101 (default/kept)", "203.0.113.102 (default/share-2)", "203.0.113.109 (a reservation)")
		c.free("share-2", "203.0.113.102")
		c.must(c.herald.Allocations.Delete(c.ctx, "203.0.113.101", metav1.DeleteOptions{}))
		in("203.0.113.109 (a reservation)")
		c.must(c.herald.Allocations.Delete(c.ctx, "203.0.113.109", metav1.DeleteOptions{}))
		c.eventually("the pool is gone", func(ctx context.Context) error {
			_, err := c.herald.Pools.Get(ctx, "going", metav1.GetOptions{})
			return missing(err)
		})
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
		c.refused("d", `pool "younger" gives no new addresses, it is disabled or being deleted`)
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
		c.refused("f", "no pool auto-assigns addresses: name a pool, or let one auto-assign")
		c.served("g", "198.51.100.7", ips("198.51.100.7"))
		c.holds("a", "198.51.100.1")
		c.editPool("younger", func(s *herald.IPPoolSpec) { yes := true; s.AutoAssign = &yes })
		c.holds("f", "203.0.113.4")
	})
}

// with is several edits of a pool.
func with(edits ...func(*herald.IPPoolSpec)) func(*herald.IPPoolSpec) {
	return func(s *herald.IPPoolSpec) {
		for _, edit := range edits {
			edit(s)
		}
	}
}

// named has a pool serve only Services that name it.
func named(s *herald.IPPoolSpec) { no := false; s.AutoAssign = &no }

// acrossNamespaces lets namespaces share a pool's addresses.
func acrossNamespaces(s *herald.IPPoolSpec) { s.ShareAcrossNamespaces = true }

// ports are those of a Service, as TCP/80.
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

// refused waits for the event of a Service that cannot be served, with the text.
func (c *cluster) refused(name, text string) {
	c.t.Helper()
	c.event("Service", name, "SyncLoadBalancerFailed", text)
}

// free deletes a Service and waits until its address can be had.
func (c *cluster) free(name, address string) {
	c.t.Helper()
	c.remove(name)
	c.unrecorded(address)
}

// addressOf creates a Service and returns the address that it is given.
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

// shares waits until exactly these Services have the address, by their status and by its record.
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

// kept waits until an address is kept for these names, and for no Service that there is.
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
		if !slices.Equal(names, owners) || rec.Status.ReleasedAt != nil {
			err = fmt.Errorf("its owners are %v, released %v", names, rec.Status.ReleasedAt)
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

// editPool changes an IPPool, again if somebody else did at the same time.
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

// capacity waits until a pool says how many IPv4 addresses it has, and how many are in use, by its newest edit.
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

// marked waits for an IPAllocation to say whether its pool still has the address.
func (c *cluster) marked(address string, status metav1.ConditionStatus, text string) {
	c.t.Helper()
	what := fmt.Sprintf("condition OutOfRange=%s of IPAllocation %s with %q", status, address, text)
	c.eventually(what, func(ctx context.Context) error {
		rec, err := c.herald.Allocations.Get(ctx, address, metav1.GetOptions{})
		if err != nil {
			return err
		}
		is := meta.FindStatusCondition(rec.Status.Conditions, herald.AllocationOutOfRange)
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

// quota annotates the namespace with one.
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
