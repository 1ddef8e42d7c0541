package e2e

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	herald "github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/e2e/lab"
)

const (
	// gatewayClass is the class that NGINX Gateway Fabric 2.7 sets.
	gatewayClass = "gateway.nginx.org/nginx-gateway-controller"
	// gatewayAddresses is the annotation with the addresses of a Service's Gateway.
	gatewayAddresses = "example.com/gateway-addresses"
)

// gateways runs a controller that does with Services what NGINX Gateway Fabric 2.7 does: it writes the addresses of the
// Gateway into the status of the Service, and writes them again when somebody else changes the status.
func (c *cluster) gateways() {
	c.t.Helper()
	ctx, cancel := context.WithCancel(c.ctx)
	watch, err := c.services().Watch(ctx, metav1.ListOptions{})
	c.must(err)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for event := range watch.ResultChan() {
			svc, ok := asService(event.Object)
			if !ok || svc.Spec.LoadBalancerClass == nil || *svc.Spec.LoadBalancerClass != gatewayClass || svc.DeletionTimestamp != nil {
				continue
			}
			want := strings.FieldsFunc(svc.Annotations[gatewayAddresses], func(r rune) bool { return r == ',' })
			if slices.Equal(addresses(svc), want) {
				continue
			}
			svc = svc.DeepCopy()
			svc.Status.LoadBalancer.Ingress = nil
			for _, a := range want {
				svc.Status.LoadBalancer.Ingress = append(svc.Status.LoadBalancer.Ingress, corev1.LoadBalancerIngress{IP: a})
			}
			_, err := c.services().UpdateStatus(ctx, svc, metav1.UpdateOptions{})
			if err != nil && ctx.Err() == nil && !apierrors.IsConflict(err) && !apierrors.IsNotFound(err) { // The next event has the newer version.
				c.t.Errorf("the controller of the gateways: %v", err)
			}
		}
	}()
	c.t.Cleanup(func() { cancel(); watch.Stop(); <-ended })
}

// gateway returns an edit that makes a Service one of a Gateway with these addresses.
func gateway(addresses string) func(*corev1.Service) {
	return func(svc *corev1.Service) {
		classed(gatewayClass)(svc)
		annotated(gatewayAddresses, addresses)(svc)
	}
}

func announcing(s *herald.IPPoolSpec) { s.AnnounceClasses = []string{gatewayClass} }

// TestAddressesOfGateways is one story about Services to which another controller gives addresses.
func TestAddressesOfGateways(t *testing.T) {
	c, _, ccm := withCCM(t)
	c.advertise()
	c.gateways()
	c.pool("own", delay(0), "198.51.100.1-198.51.100.9")
	c.pool("gateways", with(delay(0), named, announcing), "203.0.113.1-203.0.113.9", "2001:db8:113::1-2001:db8:113::9")
	explained := func(c *cluster, name, text string) {
		c.t.Helper()
		said, _ := c.ask("explain", "service", "default/"+name)
		c.says(said, text)
	}
	refused := func(c *cluster, name, text string) {
		c.t.Helper()
		c.event("Service", name, herald.EventNotAnnounced, text)
		explained(c, name, text)
	}

	t.Run("are recorded, and the Service is not written", func(t *testing.T) {
		c := c.within(t)
		c.service("gw", gateway("203.0.113.5,2001:db8:113::5"), dualStack)
		svc := c.holds("gw", "203.0.113.5", "2001:db8:113::5")
		if len(svc.Finalizers) > 0 {
			t.Errorf("the Service has finalizers %v, want none", svc.Finalizers)
		}
		for _, f := range svc.ManagedFields {
			if strings.Contains(f.Manager, "herald-ccm") {
				t.Errorf("%s wrote the Service: %s", f.Manager, f.FieldsV1)
			}
		}
		explained(c, "gw", "203.0.113.5 from pool gateways")
	})
	t.Run("are refused if somebody else has them, or no pool admits the class", func(t *testing.T) {
		c := c.within(t)
		c.served("web", "198.51.100.1")
		c.service("taken", gateway("203.0.113.5"))
		refused(c, "taken", "203.0.113.5 is held by default/gw")
		c.service("elsewhere", gateway("198.51.100.1"))
		refused(c, "elsewhere", `pool "own", which has the address, does not list class "`+gatewayClass+`" in spec.announceClasses`)
		c.service("outside", gateway("192.0.2.1"))
		refused(c, "outside", "192.0.2.1 is in no pool")
		c.reserve("203.0.113.7")
		c.service("reserved", gateway("203.0.113.7"))
		refused(c, "reserved", "203.0.113.7 is reserved")
		said, _ := c.ask("status")
		c.says(said, "default/reserved has addresses from its controller that Herald does not announce")
		c.holds("gw", "203.0.113.5", "2001:db8:113::5")
		c.holds("web", "198.51.100.1")
	})
	t.Run("are not given to other Services, also after a restart", func(t *testing.T) {
		c := c.within(t)
		c.must(ccm.Restart(c.ctx))
		c.service("asks", annotated(herald.AnnotationIPs, "203.0.113.5"))
		c.refused("asks", "203.0.113.5 is held by default/gw")
	})
	t.Run("are recorded once they are free", func(t *testing.T) {
		c := c.within(t)
		c.remove("asks")
		c.edit("gw", annotated(gatewayAddresses, "203.0.113.6"))
		c.holds("gw", "203.0.113.6")
		c.holds("taken", "203.0.113.5")
		c.unrecorded("2001:db8:113::5")
	})
	t.Run("are released when the Service is deleted or created again", func(t *testing.T) {
		c := c.within(t)
		c.remove("taken")
		c.gone("taken")
		c.unrecorded("203.0.113.5")
		c.remove("gw")
		c.service("gw", gateway("203.0.113.6"))
		c.holds("gw", "203.0.113.6")
	})
	t.Run("are released when the pool stops admitting the class, and not given to others while the Service has them", func(t *testing.T) {
		c := c.within(t)
		c.editPool("gateways", func(s *herald.IPPoolSpec) { s.AnnounceClasses = nil })
		c.eventually("203.0.113.6 is released", func(ctx context.Context) error {
			rec, err := c.herald.Allocations.Get(ctx, "203.0.113.6", metav1.GetOptions{})
			if err == nil && rec.Spec.ReleasedAt == nil {
				err = errors.New("it is in use")
			}
			return err
		})
		c.service("asks", annotated(herald.AnnotationIPs, "203.0.113.6"))
		c.refused("asks", "203.0.113.6 was released by default/gw and is not given out")
		c.remove("asks")
		c.event("Service", "gw", herald.EventNotAnnounced, "203.0.113.6, which is not announced")
		explained(c, "gw", "list the class in spec.announceClasses")
		c.editPool("gateways", announcing)
		c.holds("gw", "203.0.113.6")
	})
}

// TestAClientReachesAGateway has a client of an address that another controller gave.
func TestAClientReachesAGateway(t *testing.T) {
	f := withHerald(t, lab.Options{})
	f.announce()
	f.gateways()
	f.pool("gateways", with(delay(0), named, announcing), "198.18.0.200-198.18.0.201")
	all := names(f.site)
	f.pod("pod-1", all[0])
	f.service("gw", to8080, gateway("198.18.0.201"))
	f.holds("gw", "198.18.0.201")
	f.answeredBy("198.18.0.201", all...)
	f.reached(f.site.Segment, "198.18.0.201:9000")
	f.editPool("gateways", func(s *herald.IPPoolSpec) { s.AnnounceClasses = nil })
	f.answeredBy("198.18.0.201")
}
