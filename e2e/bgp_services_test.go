package e2e

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	herald "github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/e2e/lab"
)

// TestServicesDecideForThemselves is about Services that set BGP attributes, where the advertisement permits it.
func TestServicesDecideForThemselves(t *testing.T) {
	f := fabric(t, 2)
	const web, mail = "198.51.100.0/32", "198.51.100.1/32"
	f.pool("routed", delay(0), "198.51.100.0/26")
	f.advertises("all", func(s *herald.BGPAdvertisementSpec) { s.Communities = []herald.Community{"64512:1"} })
	f.pod("pod-1", f.site.Nodes[0].Name)
	f.service("web", to8080, annotated(herald.AnnotationBGPMED, "10"), annotated(herald.AnnotationBGPCommunities, "64512:2, 64512:1:2, rt:64512:2"))
	f.holds("web", "198.51.100.0")
	f.service("mail", to8080)
	f.holds("mail", "198.51.100.1")
	plain := f.fromAll(mail, "64512:1")
	f.learns(append(f.fromAll(web, "64512:1"), plain...)...)
	f.eventually("the plugin says why they have no effect", func(ctx context.Context) error {
		said, err := f.access.Kubectl(ctx, "herald", "explain", "service", "default/web")
		if !strings.Contains(said, "annotation herald.dev/bgp-med has no effect: no BGPAdvertisement of the address permits it") {
			return fmt.Errorf("%w: %s", err, said)
		}
		return nil
	})
	f.advertises("all", func(s *herald.BGPAdvertisementSpec) {
		s.ServiceOverrides = []herald.ServiceOverride{herald.OverrideMED, herald.OverrideCommunities, herald.OverrideAnnounce, herald.OverridePrepend}
	})
	f.learns(append(f.fromAll(web, "64512:2", "64512:1:2", "rt:64512:2", "med 10"), plain...)...)
	f.edit("web", annotated(herald.AnnotationBGPPrepend, "1"), annotated(herald.AnnotationBGPCommunities, ""))
	f.learns(append(f.fromAll(web, "med 10", "path 64512 64512"), plain...)...)

	// An invalid annotation is reported, and the advertisement decides.
	f.edit("web", annotated(herald.AnnotationBGPMED, "cheap"))
	f.event("Service", "web", "AnnotationWithoutEffect", `herald.dev/bgp-med: "cheap" is not a number from 0 to 4294967295`)
	f.learns(append(f.fromAll(web, "path 64512 64512"), plain...)...)

	// A network covers the other Services, but not the one with its own attributes.
	f.advertises("all", func(s *herald.BGPAdvertisementSpec) { s.AggregationLength = &herald.AggregationLength{IPv4: 27} })
	network := f.fromAll("198.51.100.0/27", "64512:1")
	f.learns(append(f.fromAll(web, "path 64512 64512"), network...)...)

	f.edit("web", annotated(herald.AnnotationBGPAnnounce, "false"))
	f.learns(network...)
	f.edit("web", func(svc *corev1.Service) { svc.Annotations = nil })
	f.advertises("all", func(s *herald.BGPAdvertisementSpec) { s.AggregationLength = nil })
	f.learns(append(f.fromAll(web, "64512:1"), plain...)...)
}

// TestClientsStayWithTheirPod is about clients behind routers that balance: a Service with session affinity has one next
// hop, and another one when that node leaves.
func TestClientsStayWithTheirPod(t *testing.T) {
	f := fabric(t, 3)
	const address, target = "198.51.100.0", "198.51.100.0:9000"
	f.pool("routed", delay(0), "198.51.100.0/26")
	// Two advertisements from different nodes do not result in two next hops.
	f.label(f.site.Nodes[0].Name, "rack", "a")
	f.advertises("a", func(s *herald.BGPAdvertisementSpec) {
		s.NodeSelector = &metav1.LabelSelector{MatchLabels: map[string]string{"rack": "a"}}
	})
	f.advertises("b", func(*herald.BGPAdvertisementSpec) {})
	for i, n := range f.site.Nodes {
		f.pod(fmt.Sprint("pod-", i), n.Name)
	}
	f.service("web", to8080)
	f.holds("web", address)
	f.served("web")
	f.learns(f.fromAll(address + "/32")...)

	f.edit("web", func(svc *corev1.Service) { svc.Spec.SessionAffinity = corev1.ServiceAffinityClientIP })
	one := func(not string) (name string) {
		f.eventually("both routers have one next hop, the same", func(ctx context.Context) error {
			seen := map[string]bool{}
			for _, r := range f.site.Routers {
				routes, err := r.Routes(ctx)
				if err != nil {
					return err
				}
				for _, o := range routes {
					for _, n := range f.site.Nodes {
						if o.NextHops[0] == n.IPv4 {
							name = n.Name
						}
					}
					seen[name] = true
				}
				if len(routes) != 1 {
					return fmt.Errorf("%s has %d routes", r.Name, len(routes))
				}
			}
			if len(seen) != 1 || name == not {
				return fmt.Errorf("next hops %v", seen)
			}
			return nil
		})
		return name
	}
	first := one("")
	f.eventually("the plugin says who", func(ctx context.Context) error {
		said, err := f.access.Kubectl(ctx, "herald", "explain", "service", "default/web")
		if want := "by BGP: " + first + " to router1 (one node only, since spec.sessionAffinity is ClientIP)"; !strings.Contains(said, want) {
			return fmt.Errorf("no %q, %w: %s", want, err, said)
		}
		return nil
	})
	for _, r := range f.site.Routers {
		f.eventually("requests stay with a pod", func(ctx context.Context) error { return onePod(ctx, r.Outside, target) })
	}
	opener := f.site.Routers[0].Outside.Open(f.ctx, target, 20*time.Millisecond)
	f.label(first, corev1.LabelNodeExcludeBalancers, "")
	second := one(first)
	for _, r := range f.site.Routers {
		f.eventually("requests stay with a pod", func(ctx context.Context) error { return onePod(ctx, r.Outside, target) })
	}
	t.Logf("the next hop moves from %s to %s: %v", first, second, opener.Stop())
	f.unlabel(first, corev1.LabelNodeExcludeBalancers)
	if again := one(second); again != first {
		t.Errorf("with all nodes back, %s announces it and not %s", again, first)
	}
}

// onePod sends thirty requests and checks that the same pod answers all.
func onePod(ctx context.Context, from *lab.Client, target string) error {
	var pods []string
	for range 30 {
		reply, err := from.Get(ctx, target)
		if err != nil {
			return err
		}
		if len(pods) == 0 || pods[len(pods)-1] != reply.Pod {
			pods = append(pods, reply.Pod)
		}
	}
	if len(pods) != 1 {
		return errors.New("answered by " + strings.Join(pods, ", "))
	}
	return nil
}
