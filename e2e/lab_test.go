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

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	herald "github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/e2e/lab"
	"github.com/heraldlb/herald/e2e/lab/router"
)

func (f *field) within(t testing.TB) *field {
	o := *f
	o.cluster = f.cluster.within(t)
	return &o
}

// announce announces every pool on the segment and to every router.
func (f *field) announce() {
	f.t.Helper()
	for _, r := range f.site.Routers {
		_, err := f.herald.BGPPeers.Create(f.ctx, peerOf(r), metav1.CreateOptions{})
		f.must(err)
	}
	_, err := f.herald.L2Advertisements.Create(f.ctx, &herald.L2Advertisement{ObjectMeta: metav1.ObjectMeta{Name: "all"}}, metav1.CreateOptions{})
	f.must(err)
	if len(f.site.Routers) == 0 {
		return
	}
	_, err = f.herald.BGPAdvertisements.Create(f.ctx, &herald.BGPAdvertisement{ObjectMeta: metav1.ObjectMeta{Name: "all"}}, metav1.CreateOptions{})
	f.must(err)
}

// gracefully makes every router keep its routes while a speaker is replaced.
func (f *field) gracefully() {
	f.t.Helper()
	for _, r := range f.site.Routers {
		_, err := f.access.Kubectl(f.ctx, "patch", "bgppeer", r.Name, "--type=merge", "-p", `{"spec":{"gracefulRestart":{}}}`)
		f.must(err)
	}
}

// peerOf returns the BGPPeer for a router of the lab.
func peerOf(r *lab.Router) *herald.BGPPeer {
	return &herald.BGPPeer{
		ObjectMeta: metav1.ObjectMeta{Name: r.Name, Labels: map[string]string{"kind": strings.ToLower(string(r.Kind))}},
		Spec: herald.BGPPeerSpec{
			LocalASN: lab.NodeASN, PeerASN: int64(r.ASN), Address: r.IPv4.String(),
			HoldTime: &metav1.Duration{Duration: 3 * time.Second}, KeepaliveTime: &metav1.Duration{Duration: time.Second},
		},
	}
}

// pod runs the app on a node, with the label app: pod, and waits until it is ready.
func (f *field) pod(name, node string) {
	f.t.Helper()
	from := func(name, path string) corev1.EnvVar {
		return corev1.EnvVar{Name: name, ValueFrom: &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: path}}}
	}
	_, err := f.kube.CoreV1().Pods("default").Create(f.ctx, &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"app": "pod"}},
		Spec: corev1.PodSpec{
			NodeSelector:   map[string]string{corev1.LabelHostname: node},
			ReadinessGates: []corev1.PodReadinessGate{{ConditionType: lab.ReadyGate}},
			Containers: []corev1.Container{{
				Name: "container", Image: "test/app", ImagePullPolicy: corev1.PullIfNotPresent,
				Ports: []corev1.ContainerPort{{ContainerPort: 8080}},
				Env:   []corev1.EnvVar{from("POD_NAME", "metadata.name"), from("NODE_NAME", "spec.nodeName")},
			}},
		},
	}, metav1.CreateOptions{})
	f.must(err)
	f.must(f.access.SetReady(f.ctx, "default", name, true))
}

func to8080(svc *corev1.Service) { svc.Spec.Ports[0].TargetPort.IntVal = 8080 }

// answeredBy waits until exactly one of the nodes answers ARP for an address, and returns it. Without nodes it waits
// until no node answers.
func (f *field) answeredBy(address string, nodes ...string) (node string) {
	f.t.Helper()
	twice := 0
	f.eventually(fmt.Sprintf("%s answered by one of %v", address, nodes), func(ctx context.Context) error {
		answers, err := f.site.Segment.ARP(ctx, netip.MustParseAddr(address))
		if err != nil {
			return err
		}
		if len(answers) > 1 {
			// A referee sends requests, too: one window may have the old owner's answer to one request and the new
			// owner's answer to the next one. This cannot happen three times in a row, and the referee judges the
			// order. Without a referee, two answers mean two owners.
			if twice++; twice == 3 || f.referees.Load() == 0 {
				f.t.Errorf("two answers for %s: %v", address, answers)
			}
			return fmt.Errorf("two answers: %v", answers)
		}
		twice = 0
		if len(answers) == 0 {
			if len(nodes) == 0 {
				return nil
			}
			return errors.New("nobody answers")
		}
		n := f.site.NodeByMAC(answers[0])
		if n == nil {
			return fmt.Errorf("a stranger answers: %v", answers[0])
		}
		node = n.Name
		if !slices.Contains(nodes, node) {
			return fmt.Errorf("%s answers", node)
		}
		return nil
	})
	return node
}

// routed waits until a router's next hops for an address are exactly the given nodes.
func (f *field) routed(r *lab.Router, address string, nodes ...string) {
	f.t.Helper()
	addr := netip.MustParseAddr(address)
	prefix := netip.PrefixFrom(addr, addr.BitLen())
	slices.Sort(nodes)
	f.eventually(fmt.Sprintf("%s routes %s to %v", r.Name, address, nodes), func(ctx context.Context) error {
		hops, err := r.NextHops(ctx, prefix)
		if err != nil {
			return err
		}
		var via []string
		for _, h := range hops {
			name := h.String()
			for _, n := range f.site.Nodes {
				if n.IPv4 == h || n.IPv6 == h {
					name = n.Name
				}
			}
			via = append(via, name)
		}
		slices.Sort(via)
		if !slices.Equal(via, nodes) {
			return fmt.Errorf("it routes to %v", via)
		}
		return nil
	})
}

// reached sends requests from a client to a target until one is answered.
func (f *field) reached(from *lab.Client, target string) lab.Reply {
	f.t.Helper()
	ctx, cancel := context.WithTimeout(f.ctx, 30*time.Second)
	defer cancel()
	reply, err := from.Eventually(ctx, target, nil)
	if err != nil {
		f.explain(from, target)
		f.t.Fatal(err)
	}
	return reply
}

// served waits until every node forwards packets for a Service: to its node port, which shows that it has endpoints, and
// to its addresses, which kube-proxy learns later. Stories about moving addresses must not depend on this delay.
func (f *field) served(service string) {
	f.t.Helper()
	svc := f.get(service)
	for _, n := range f.site.Nodes {
		address := n.IPv4
		if svc.Spec.IPFamilies[0] == corev1.IPv6Protocol {
			address = n.IPv6
		}
		f.reached(f.site.Segment, netip.AddrPortFrom(address, uint16(svc.Spec.Ports[0].NodePort)).String()) //nolint:gosec // A port.
		f.eventually("the rules of "+n.Name+" have the addresses of "+service, func(ctx context.Context) error {
			return forwards(ctx, n, f.get(service))
		})
	}
}

// forwards checks that kube-proxy's rules in a node's kernel have all addresses and ports of a Service. A request to the
// address would not show this, because another node may forward it.
func forwards(ctx context.Context, n *lab.Node, svc *corev1.Service) error {
	if len(svc.Status.LoadBalancer.Ingress) == 0 {
		return errors.New("it has no address")
	}
	for _, ingress := range svc.Status.LoadBalancer.Ingress {
		family := "ip"
		if netip.MustParseAddr(ingress.IP).Is6() {
			family = "ip6"
		}
		out, err := n.Host.Command(ctx, "nft", "list", "map", family, "kube-proxy", "service-ips").CombinedOutput()
		if err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		for _, port := range svc.Spec.Ports {
			element := fmt.Sprintf("%s . %s . %d :", ingress.IP, strings.ToLower(string(port.Protocol)), port.Port)
			if !strings.Contains(string(out), element) {
				return fmt.Errorf("there is no %q", element)
			}
		}
	}
	return nil
}

// explain logs on which part of the path to a target requests are lost.
func (f *field) explain(from *lab.Client, target string) {
	f.t.Helper()
	if mac, err := from.Neighbour(netip.MustParseAddrPort(target).Addr()); err != nil {
		f.t.Log(err)
	} else if n := f.site.NodeByMAC(mac); n != nil {
		f.t.Logf("%s sends to %s", from.Host.Name, n.Name)
	} else {
		f.t.Logf("%s sends to the stranger %v", from.Host.Name, mac)
	}
	for _, n := range f.site.Nodes {
		reply, err := n.Get(f.ctx, target)
		f.t.Logf("%s itself: answered by %q, %v", n.Name, reply.Pod, err)
	}
}

func names(l *lab.Site) (all []string) {
	for _, n := range l.Nodes {
		all = append(all, n.Name)
	}
	return all
}

// TestAClientReachesAService tests Herald's main job: clients reach a Service from the segment by ARP and from behind a
// router by BGP.
func TestAClientReachesAService(t *testing.T) {
	for _, kind := range []router.Kind{lab.FRR, lab.BIRD} {
		t.Run(string(kind), func(t *testing.T) {
			f := withHerald(t, lab.Options{Routers: []router.Kind{kind}})
			f.announce()
			f.pool("segment", delay(0), "198.18.0.200-198.18.0.250", "2001:db8:18::200-2001:db8:18::250")
			f.pool("routed", func(s *herald.IPPoolSpec) { no := false; s.AutoAssign = &no }, "198.51.100.0/24", "2001:db8:51::/112")
			router, all := f.site.Routers[0], names(f.site)
			f.pod("pod-1", all[0])
			f.pod("pod-2", all[1])

			t.Run("on the segment and from outside", func(t *testing.T) {
				f := f.within(t)
				f.service("web", to8080)
				f.holds("web", "198.18.0.200")
				f.answeredBy("198.18.0.200", all...)
				f.routed(router, "198.18.0.200", all...)
				f.reached(f.site.Segment, "198.18.0.200:9000")
				f.reached(f.site.Outside, "198.18.0.200:9000")
			})
			t.Run("an address that is on no segment, by BGP alone, in both families", func(t *testing.T) {
				f := f.within(t)
				f.service("dual", to8080, dualStack, annotated(herald.AnnotationPool, "routed"))
				f.holds("dual", "198.51.100.0", "2001:db8:51::")
				f.routed(router, "198.51.100.0", all...)
				f.routed(router, "2001:db8:51::", all...)
				f.reached(f.site.Outside, "198.51.100.0:9000")
				f.reached(f.site.Outside, "[2001:db8:51::]:9000")
				f.answeredBy("198.51.100.0")
			})
			t.Run("with policy Local only where the pods are, and they see who asks", func(t *testing.T) {
				f := f.within(t)
				f.service("local", to8080, local)
				f.holds("local", "198.18.0.201")
				owner := f.answeredBy("198.18.0.201", all[0], all[1])
				f.routed(router, "198.18.0.201", all[0], all[1])
				if r := f.reached(f.site.Segment, "198.18.0.201:9000"); r.Client != f.site.Segment.IPv4 || r.Node != owner {
					t.Errorf("%+v; want the client %s as seen on %s", r, f.site.Segment.IPv4, owner)
				}
				if r := f.reached(f.site.Outside, "198.18.0.201:9000"); r.Client != f.site.Outside.IPv4 {
					t.Errorf("%+v; want the client %s", r, f.site.Outside.IPv4)
				}
				pods := map[string]string{all[0]: "pod-1", all[1]: "pod-2"}
				other := map[string]string{all[0]: all[1], all[1]: all[0]}[owner]
				f.must(f.access.SetReady(f.ctx, "default", pods[owner], false))
				f.answeredBy("198.18.0.201", other)
				f.routed(router, "198.18.0.201", other)
				f.must(f.access.SetReady(f.ctx, "default", pods[other], false))
				// The last ready endpoint is gone: nothing is announced, under either policy.
				f.answeredBy("198.18.0.201")
				f.answeredBy("198.18.0.200")
				f.routed(router, "198.18.0.201")
				f.routed(router, "198.18.0.200")
				for _, p := range pods {
					f.must(f.access.SetReady(f.ctx, "default", p, true))
				}
				f.answeredBy("198.18.0.201", all[0], all[1])
				f.routed(router, "198.18.0.201", all[0], all[1])
				f.reached(f.site.Outside, "198.18.0.201:9000")
			})
			t.Run("not from a node that is excluded", func(t *testing.T) {
				f := f.within(t)
				owner := f.answeredBy("198.18.0.200", all...)
				rest := slices.DeleteFunc(slices.Clone(all), func(n string) bool { return n == owner })
				f.label(owner, corev1.LabelNodeExcludeBalancers, "")
				f.routed(router, "198.18.0.200", rest...)
				now := f.answeredBy("198.18.0.200", rest...)
				f.unlabel(owner, corev1.LabelNodeExcludeBalancers)
				f.routed(router, "198.18.0.200", all...)
				f.answeredBy("198.18.0.200", now) // The address does not move.
			})
			t.Run("on the segment, though its pool has addresses of another network only", func(t *testing.T) {
				f := f.within(t)
				f.editPool("segment", func(s *herald.IPPoolSpec) { s.Addresses = []herald.AddressRange{"203.0.113.0/24"} })
				f.marked("198.18.0.200", metav1.ConditionFalse, "it stays in use")
				f.service("later", to8080)
				f.holds("later", "203.0.113.0")
				f.routed(router, "203.0.113.0", all...)
				owner := f.answeredBy("198.18.0.200", all...)
				rest := slices.DeleteFunc(slices.Clone(all), func(n string) bool { return n == owner })
				f.label(owner, corev1.LabelNodeExcludeBalancers, "")
				f.routed(router, "203.0.113.0", rest...)
				f.answeredBy("198.18.0.200", rest...)
				f.reached(f.site.Segment, "198.18.0.200:9000")
				f.unlabel(owner, corev1.LabelNodeExcludeBalancers)
				f.routed(router, "203.0.113.0", all...)
				f.remove("later")
				f.gone("later")
			})
			t.Run("until the Service is deleted", func(t *testing.T) {
				f := f.within(t)
				for _, name := range []string{"web", "dual", "local"} {
					f.remove(name)
					f.gone(name)
				}
				for _, a := range []string{"198.18.0.200", "198.51.100.0", "2001:db8:51::", "198.18.0.201"} {
					f.routed(router, a)
				}
				f.answeredBy("198.18.0.200")
				f.answeredBy("198.18.0.201")
			})
		})
	}
}

func (f *field) label(node, key, value string) {
	f.t.Helper()
	f.patchLabel(node, key, fmt.Sprintf("%q", value))
}

func (f *field) unlabel(node, key string) {
	f.t.Helper()
	f.patchLabel(node, key, "null")
}

// patchLabel sets a label without kubectl, whose start takes too long if the next step is timed.
func (f *field) patchLabel(node, key, value string) {
	f.t.Helper()
	patch := fmt.Sprintf(`{"metadata":{"labels":{%q:%s}}}`, key, value)
	_, err := f.kube.CoreV1().Nodes().Patch(f.ctx, node, types.MergePatchType, []byte(patch), metav1.PatchOptions{})
	f.must(err)
}
