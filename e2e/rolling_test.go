package e2e

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/heraldlb/herald/e2e/lab"
	"github.com/heraldlb/herald/e2e/lab/router"
)

// TestAnAddressIsAnnouncedOnceItIsForwarded suspends the kube-proxies for a while. A new address is not announced before
// they have written their rules, but it does not wait forever. Announced addresses are forwarded: the first request of
// every client succeeds, even if kube-proxy was about to write when the address was assigned.
func TestAnAddressIsAnnouncedOnceItIsForwarded(t *testing.T) {
	f := withLab(t, lab.Options{Nodes: 2, Routers: []router.Kind{lab.BIRD}}).field
	all, router := names(f.site), f.site.Routers[0]
	f.announce()
	f.pool("segment", delay(0), "198.18.0.200-198.18.0.250")
	f.pod("pod-1", all[0])
	f.service("before", to8080)
	f.holds("before", "198.18.0.200")
	f.served("before")
	f.routed(router, "198.18.0.200", all...)

	const address = "198.18.0.201"
	for _, n := range all {
		f.must(f.proxies[n].Freeze())
	}
	f.service("web", to8080)
	f.holds("web", address)
	w, err := f.site.Segment.Watch()
	f.must(err)
	f.pass(500 * time.Millisecond)
	if answers, err := f.site.Segment.ARP(f.ctx, netip.MustParseAddr(address)); err != nil || len(answers) > 0 {
		t.Errorf("%v answer for an address that no kube-proxy knows: %v", answers, err)
	}
	if claims := w.Claims(netip.MustParseAddr(address), time.Time{}); len(claims) > 0 {
		t.Errorf("an address that no kube-proxy knows is announced: %v", claims)
	}
	f.routed(router, address)
	for _, n := range all {
		f.must(f.proxies[n].Resume())
	}
	first := func(address string) {
		t.Helper()
		f.answeredBy(address, all...)
		f.routed(router, address, all...)
		for _, from := range []*lab.Client{f.site.Segment, f.site.Outside} {
			if _, err := from.Patient().Get(f.ctx, net.JoinHostPort(address, "9000")); err != nil {
				t.Errorf("the first request to %s fails: %v", address, err)
			}
		}
	}
	first(address)
	f.routed(router, "198.18.0.200", all...) // This address existed before and waited for nothing.
	for i := range 5 {
		name, address := fmt.Sprintf("web-%d", i), fmt.Sprintf("198.18.0.%d", 202+i)
		f.service(name, to8080)
		f.holds(name, address)
		first(address)
	}
}

// TestPodsRollUnderPolicyLocalByHand moves the only ready endpoint of a Service from node to node, like the replacement of
// a pod: the new endpoint becomes ready, and the old one terminates but still serves. No attempt to open a connection may
// fail.
func TestPodsRollUnderPolicyLocalByHand(t *testing.T) {
	f := withLab(t, lab.Options{Nodes: 3, Routers: []router.Kind{lab.BIRD}}).field
	const address, target = "198.18.0.200", "198.18.0.200:9000"
	all, router := names(f.site), f.site.Routers[0]
	f.announce()
	f.pool("segment", delay(0), "198.18.0.200-198.18.0.250")
	var pods []string
	for i, node := range all[:2] {
		name := fmt.Sprintf("pod-%d", i)
		f.pod(name, node)
		p, err := f.kube.CoreV1().Pods("default").Get(f.ctx, name, metav1.GetOptions{})
		f.must(err)
		pods = append(pods, p.Status.PodIP)
	}
	f.service("web", local, func(svc *corev1.Service) { svc.Spec.Selector = nil })
	const ready, leaving, gone = "ready", "leaving", "gone"
	endpoints := func(states ...string) {
		t.Helper()
		port, name, protocol := int32(8080), f.get("web").Spec.Ports[0].Name, corev1.ProtocolTCP
		s := &discoveryv1.EndpointSlice{
			ObjectMeta:  metav1.ObjectMeta{Name: "web-by-hand", Labels: map[string]string{discoveryv1.LabelServiceName: "web"}},
			AddressType: discoveryv1.AddressTypeIPv4, Ports: []discoveryv1.EndpointPort{{Port: &port, Name: &name, Protocol: &protocol}},
		}
		for i, state := range states {
			if state != gone {
				is, serves, terminates := state == ready, true, state == leaving
				s.Endpoints = append(s.Endpoints, discoveryv1.Endpoint{
					Addresses: []string{pods[i]}, NodeName: &all[i],
					Conditions: discoveryv1.EndpointConditions{Ready: &is, Serving: &serves, Terminating: &terminates},
				})
			}
		}
		slices := f.kube.DiscoveryV1().EndpointSlices("default")
		_, err := slices.Update(f.ctx, s, metav1.UpdateOptions{})
		if err != nil {
			_, err = slices.Create(f.ctx, s, metav1.CreateOptions{})
		}
		f.must(err)
	}
	endpoints(ready, gone)
	f.holds("web", address)
	f.routed(router, address, all[0])
	f.reached(f.site.Segment, target)
	f.reached(f.site.Outside, target)
	openers := f.openers(target)
	states := [][2]string{{ready, ready}, {leaving, ready}, {gone, ready}, {ready, ready}, {ready, leaving}, {ready, gone}}
	for range 3 {
		for _, s := range states {
			endpoints(s[:]...)
			switch s {
			case [2]string{ready, ready}:
				f.pass(50 * time.Millisecond) // The Deployment controller is fast.
			default:
				f.pass(2500 * time.Millisecond) // The time in which a pod ends.
			}
		}
	}
	openers.judge(t, 2*3)
	f.routed(router, address, all[0])
}

// openers are openers on the segment and behind a router.
type openers map[string]*lab.Opener

// openers starts to open connections. No SYN may be lost. There is no tight timeout, because the time to an answer depends
// more on the machine than on Herald.
func (f *field) openers(target string) openers {
	return openers{"the segment": f.opens(f.site.Segment, target), "behind the router": f.opens(f.site.Outside, target)}
}

// judge fails the story if a connection could not be opened. A connection that is open when the address moves, or when a
// router gets one next hop more or less, may break: the other node does not know it.
func (all openers) judge(t *testing.T, moves int) (refused lab.Attempts) {
	t.Helper()
	for from, o := range all {
		attempts := o.Stop()
		var broken lab.Attempts
		before := len(refused)
		for _, a := range attempts {
			switch {
			case a.Err == nil:
			case broke(a):
				broken = append(broken, a)
			default:
				refused = append(refused, a)
			}
		}
		t.Logf("from %s: %v, %d of them broken at one of %d moves", from, attempts, len(broken), moves)
		if len(attempts) == 0 || len(refused) > before || len(broken) > 2*moves {
			t.Errorf("from %s: %d connections were refused, and %d broke in %d moves:\n%s", from, len(refused)-before, len(broken), moves, strings.Join(attempts.Errors(), "\n"))
		}
	}
	return refused
}

// broke reports whether an attempt failed because its open connection broke.
func broke(a lab.Attempt) bool {
	// A refused SYN is ECONNREFUSED. A reset ends an open connection, but if it arrives at once Go reports it as an error of the
	// dial.
	var op *net.OpError
	return errors.Is(a.Err, unix.ECONNRESET) || errors.As(a.Err, &op) && (op.Op == "read" || op.Op == "write")
}

// TestPodsRollUnderPolicyLocal restarts a Deployment's pods five times, and in make soak twenty times. The pods have a
// readiness probe, and continue to serve for some seconds after SIGTERM. No attempt to open a connection may fail, from the
// segment and from behind a router.
func TestPodsRollUnderPolicyLocal(t *testing.T) {
	if !onKind() {
		t.Skip("it takes real kubelets and the controllers of Deployments and EndpointSlices")
	}
	f := withHerald(t, lab.Options{Routers: []router.Kind{lab.BIRD}})
	const address, target = "198.18.0.200", "198.18.0.200:9000"
	f.announce()
	f.pool("segment", delay(0), "198.18.0.200-198.18.0.250")
	f.service("web", to8080, local)
	f.holds("web", address)
	f.must(f.access.Apply(f.ctx, deployment))
	f.rolled("default", "deployment/web")
	f.reached(f.site.Segment, target)
	f.reached(f.site.Outside, target)
	openers := f.openers(target)
	moves := f.moves("web", address)
	times := 5
	if os.Getenv("HERALD_SOAK") != "" {
		times = 20
	}
	for range times {
		f.kubectl("rollout", "restart", "deployment/web")
		f.rolled("default", "deployment/web")
	}
	refused := openers.judge(t, 2*times) // Each restart replaces two pods.
	if t.Failed() {
		t.Logf("the endpoints, the routes and the claims of the address around the first failures:\n%s", moves(refused))
	}
}

// moves records the changes of a Service's endpoints, of the router's routes and of the claims of the address on the
// segment. The returned function lists, in chronological order, what happened around the first three failures, and then
// what losses tells.
func (f *field) moves(service, address string) (tell func(lab.Attempts) string) {
	f.t.Helper()
	type line struct {
		at   time.Time
		text string
	}
	var mu sync.Mutex
	var lines []line
	add := func(at time.Time, format string, args ...any) {
		mu.Lock()
		defer mu.Unlock()
		lines = append(lines, line{at, fmt.Sprintf(format, args...)})
	}
	ctx, cancel := context.WithCancel(f.ctx)
	var work sync.WaitGroup
	f.t.Cleanup(func() {
		cancel()
		work.Wait()
	})
	endpoints, err := f.kube.DiscoveryV1().EndpointSlices("default").Watch(ctx, metav1.ListOptions{LabelSelector: discoveryv1.LabelServiceName + "=" + service})
	f.must(err)
	work.Go(func() {
		for e := range endpoints.ResultChan() {
			s, ok := e.Object.(*discoveryv1.EndpointSlice)
			if !ok || s.AddressType != discoveryv1.AddressTypeIPv4 {
				continue
			}
			var all []string
			for _, ep := range s.Endpoints {
				all = append(all, fmt.Sprintf("%s@%s ready=%t serving=%t terminating=%t", ep.Addresses[0], *ep.NodeName, *ep.Conditions.Ready, *ep.Conditions.Serving, *ep.Conditions.Terminating))
			}
			add(time.Now(), "endpoints %s", strings.Join(all, ", "))
		}
	})
	for _, r := range f.site.Routers {
		cmd := r.Host.Command(ctx, "ip", "-o", "monitor", "route")
		out, err := cmd.StdoutPipe()
		f.must(err)
		f.must(cmd.Start())
		work.Go(func() {
			for sc := bufio.NewScanner(out); sc.Scan(); {
				add(time.Now(), "%s %s", r.Name, sc.Text())
			}
			_ = cmd.Wait()
		})
	}
	w, err := f.site.Segment.Watch()
	f.must(err)
	f.t.Cleanup(func() {
		if err := w.Close(); err != nil {
			f.t.Error(err)
		}
	})
	return func(failed lab.Attempts) string {
		cancel()
		work.Wait()
		var last lab.Claim
		for _, c := range w.Claims(netip.MustParseAddr(address), time.Time{}) {
			if !bytes.Equal(c.MAC, last.MAC) || c.Kind != last.Kind {
				add(c.At, "%s: it is at %v", c.Kind, c.MAC)
			}
			last = c
		}
		slices.SortFunc(lines, func(x, y line) int { return x.at.Compare(y.at) })
		var b strings.Builder
		for _, l := range lines {
			if slices.ContainsFunc(failed[:min(len(failed), 3)], func(a lab.Attempt) bool {
				return l.at.After(a.Start.Add(-12*time.Second)) && l.at.Before(a.End.Add(3*time.Second))
			}) {
				fmt.Fprintf(&b, "%s %s\n", l.at.Format("15:04:05.000"), l.text)
			}
		}
		b.WriteString(f.losses(failed))
		return b.String()
	}
}
