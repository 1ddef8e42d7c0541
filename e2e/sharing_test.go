package e2e

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	herald "github.com/heraldlb/herald/api/v1alpha1"
)

func TestWhoSharesAnAddress(t *testing.T) {
	c, plane, ccm := withCCM(t)
	c.advertise()
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
		c.quietRestart(ccm, "canary") // An event for a Service that is not satisfied would be written now.
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
		c.gone("quic")
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
			c.event("Service", name, "NotShared", "which has another externalTrafficPolicy or selector (Local in default: app=pod; this one: ")
		}
		if got := c.addressOf("other-key", key("T"), ports("TCP/4"), local); got == first {
			t.Errorf("another key shares %s", got)
		}
		c.edit("local-2", selects("another"))
		c.refused("local-2", "which has another externalTrafficPolicy or selector (Local in default: app=pod; this one: Local in default: app=another)")
		c.edit("local-2", selects("pod"))
		c.shares(first, "default/local-1", "default/local-2")
	})
	t.Run("across namespaces where the pool lets them", func(t *testing.T) {
		c, other := c.within(t), other.within(t)
		first := c.addressOf("n", key("n"), ports("TCP/80"))
		if got := other.addressOf("n", key("n"), ports("TCP/443")); got == first {
			t.Errorf("%s is shared across namespaces", got)
		}
		for _, k := range []string{"n", "m"} { // The event must not reveal whether this is the others' key.
			other.service("asks-"+k, key(k), ports("TCP/443"), annotated(herald.AnnotationIPs, first))
			other.refused("asks-"+k, first+" is shared by a Service of another namespace, and the pool does not let namespaces share (shareAcrossNamespaces)")
			other.remove("asks-" + k)
		}
		wide := annotated(herald.AnnotationPool, "wide")
		c.served("w", "198.51.100.101", key("w"), ports("TCP/80"), wide)
		other.service("w", key("w"), ports("TCP/443"), wide)
		c.shares("198.51.100.101", "default/w", "other/w")
	})
	t.Run("who takes a port of another namespace's Service loses the address", func(t *testing.T) {
		c, other := c.within(t), other.within(t)
		other.service("thief", key("w"), ports("TCP/8443"), annotated(herald.AnnotationPool, "wide"))
		c.shares("198.51.100.101", "default/w", "other/thief", "other/w")
		other.edit("thief", ports("TCP/80"))
		other.event("Service", "thief", "NotShared", "a Service of another namespace shares 198.51.100.101 and has one of the ports of this Service, which therefore loses the address")
		c.shares("198.51.100.101", "default/w", "other/w")
		other.holds("thief", "198.51.100.102")
		other.remove("thief")
		other.gone("thief")
	})
	t.Run("the others stay when one goes, and when the last goes it cools down", func(t *testing.T) {
		c, other := c.within(t), other.within(t)
		c.remove("w")
		c.gone("w")
		c.shares("198.51.100.101", "other/w")
		other.remove("w")
		other.gone("w")
		if rec := c.recordOf("198.51.100.101"); rec.Spec.ReleasedAt == nil {
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
		// This also holds while herald-ccm is stopped.
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
		create := func(from, to int) {
			for i := from; i < to; i++ {
				c.service(name(i), key("m"), ports(fmt.Sprintf("TCP/%d", 1000+i)))
			}
		}
		before := c.settled()
		create(0, 32)
		for i := range 32 { // The controller may pause for longer than the time that counts as settled.
			c.event("Service", name(i), "EnsuredLoadBalancer", "")
		}
		d := since(before, c.settled())
		delete(d, "PUT ippools/status")
		// There is one successful write for each Service. Of concurrent writes of the same version of the record, one succeeds.
		delete(d, "POST ipallocations")
		delete(d, "PUT ipallocations")
		// The status of the record names the Services that share the address, so it is written after changes of the record. A
		// Service may be synced again when its record has changed, and then gets its event a second time.
		for write, most := range map[string]int{"PUT ipallocations/status": 32 + 1, "PATCH events": 1} {
			if d[write] > most {
				t.Errorf("%s: %d times for 32 at once, want %d at most", write, d[write], most)
			}
			if d[write] > 0 && write == "PATCH events" {
				events, err := c.kube.CoreV1().Events("").List(c.ctx, metav1.ListOptions{})
				c.must(err)
				for _, e := range events.Items {
					if e.Count > 1 || e.Series != nil {
						t.Logf("told %d times: %s of %s: %s", e.Count, e.Reason, e.InvolvedObject.Name, e.Message)
					}
				}
			}
			delete(d, write)
		}
		want := map[string]int{"POST services": 32, "PATCH services/status": 32, "POST events": 32}
		if diff := cmp.Diff(want, d); diff != "" {
			t.Errorf("writes for 32 at once (-want +got):\n%s", diff)
		}
		all := c.allAddresses()
		for i := range 32 {
			if all[name(i)] == "" || all[name(i)] != all[name(0)] {
				t.Errorf("%s has %q, and %s %q", name(i), all[name(i)], name(0), all[name(0)])
			}
		}
		create(32, many)
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
				c.event("Service", strings.TrimPrefix(owners[0], "default/"), "NotShared", "is shared by 64 Services already, and no more can share it")
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
