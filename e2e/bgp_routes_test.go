package e2e

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	herald "github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/e2e/lab"
	"github.com/heraldlb/herald/e2e/lab/enclave"
	"github.com/heraldlb/herald/e2e/lab/router"
)

// fabric returns a cluster that announces to FRR and to BIRD, but not on the segment.
func fabric(t *testing.T, nodes int) *field {
	t.Helper()
	f := withHerald(t, lab.Options{Nodes: nodes, Routers: []router.Kind{lab.FRR, lab.BIRD}})
	for _, r := range f.site.Routers {
		_, err := f.herald.BGPPeers.Create(f.ctx, peerOf(r), metav1.CreateOptions{})
		f.must(err)
	}
	return f
}

// advertises creates or changes a BGPAdvertisement. It retries on a conflict with herald-ccm, which writes the status.
func (f *field) advertises(name string, edit func(*herald.BGPAdvertisementSpec)) {
	f.t.Helper()
	f.eventually("edit of BGPAdvertisement "+name, func(ctx context.Context) error {
		o, err := f.herald.BGPAdvertisements.Get(ctx, name, metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			o = &herald.BGPAdvertisement{ObjectMeta: metav1.ObjectMeta{Name: name}}
			edit(&o.Spec)
			_, err = f.herald.BGPAdvertisements.Create(ctx, o, metav1.CreateOptions{})
			return err
		}
		if err != nil {
			return err
		}
		edit(&o.Spec)
		_, err = f.herald.BGPAdvertisements.Update(ctx, o, metav1.UpdateOptions{})
		return err
	})
}

// learns waits until every router has exactly these routes, each in the form "198.51.100.1/32 from k8s-node1 64512:100",
// with the communities of all kinds and, if present, "med 10" and "path 64512 64512".
func (f *field) learns(want ...string) {
	f.t.Helper()
	slices.Sort(want)
	for _, r := range f.site.Routers {
		f.eventually(r.Name+" learns", func(ctx context.Context) error {
			routes, err := r.Routes(ctx)
			if err != nil {
				return err
			}
			var got []string
			for _, o := range routes {
				text := o.Prefix.String()
				for _, n := range f.site.Nodes {
					if slices.Contains(o.NextHops, n.IPv4) || slices.Contains(o.NextHops, n.IPv6) {
						text += " from " + n.Name
					}
				}
				for _, c := range slices.Concat(o.Communities, o.LargeCommunities, o.ExtendedCommunities) {
					text += " " + c
				}
				if o.MED != nil && *o.MED != 0 {
					text += fmt.Sprint(" med ", *o.MED)
				}
				if len(o.ASPath) > 1 {
					text += " path" + strings.ReplaceAll(strings.Trim(fmt.Sprint(o.ASPath), "[]"), "64512", " 64512")
				}
				got = append(got, strings.ReplaceAll(text, "  ", " "))
			}
			slices.Sort(got)
			if diff := cmp.Diff(want, got); diff != "" {
				return fmt.Errorf("(-want +got):\n%s", diff)
			}
			return nil
		})
	}
}

// fromAll returns the routes to a prefix from every node.
func (f *field) fromAll(prefix string, more ...string) (all []string) {
	for _, n := range f.site.Nodes {
		all = append(all, strings.Join(append([]string{prefix, "from", n.Name}, more...), " "))
	}
	return all
}

// expired returns the number of packets that the router and the nodes dropped because their TTL expired.
func (f *field) expired(r *lab.Router) (sum int) {
	f.t.Helper()
	hosts := []enclave.Host{r.Host}
	for _, n := range f.site.Nodes {
		hosts = append(hosts, n.Host)
	}
	for _, h := range hosts {
		out, err := h.Command(f.ctx, "cat", "/proc/net/snmp").Output()
		f.must(err)
		var names []string // The first line has the names of the counters, the second their values.
		for line := range strings.Lines(string(out)) {
			fields := strings.Fields(line)
			if fields[0] != "Icmp:" {
				continue
			}
			if i := slices.Index(names, "OutTimeExcds"); i > 0 {
				n, err := strconv.Atoi(fields[i])
				f.must(err)
				sum += n
			}
			names = fields
		}
	}
	return sum
}

func asks(address string) func(*corev1.Service) { return annotated(herald.AnnotationIPs, address) }

// TestNetworksInPlaceOfAddresses also tests what happens to packets for addresses that no Service has.
func TestNetworksInPlaceOfAddresses(t *testing.T) {
	f := fabric(t, 2)
	f.pool("routed", delay(0), "198.51.100.0-198.51.100.149", "2001:db8:51::/112")
	length := &herald.AggregationLength{IPv4: 26, IPv6: 120}
	f.advertises("all", func(s *herald.BGPAdvertisementSpec) {
		s.AggregationLength, s.Communities = length, []herald.Community{"64512:26", "rt:64512:26"}
	})
	f.pod("pod-1", f.site.Nodes[0].Name)
	const four, six, unused = "198.51.100.7", "2001:db8:51::7", "198.51.100.9"
	f.service("web", to8080, dualStack, asks(four+","+six))
	f.holds("web", four, six)
	f.served("web")
	four26, six120 := f.fromAll("198.51.100.0/26", "64512:26", "rt:64512:26"), f.fromAll("2001:db8:51::/120", "64512:26", "rt:64512:26")
	f.learns(slices.Concat(four26, six120)...)
	for _, r := range f.site.Routers {
		f.reached(r.Outside, four+":9000")
		f.reached(r.Outside, "["+six+"]:9000")
	}
	f.told("bgpadvertisements all", herald.ConditionAnnounced, "Announced", "since they fill no /26: 198.51.100.128/28, 198.51.100.144/30, 198.51.100.148/31")

	t.Run("a network stays while an address in it does", func(t *testing.T) {
		f := f.within(t)
		f.service("more", to8080, asks("198.51.100.8"))
		f.holds("more", "198.51.100.8")
		f.service("edge", to8080, asks("198.51.100.140"))
		f.holds("edge", "198.51.100.140")
		f.service("local", to8080, local, asks("198.51.100.10"))
		f.holds("local", "198.51.100.10")
		alone := append(f.fromAll("198.51.100.140/32", "64512:26", "rt:64512:26"), "198.51.100.10/32 from "+f.site.Nodes[0].Name+" 64512:26 rt:64512:26")
		f.learns(slices.Concat(four26, six120, alone)...)
		for _, name := range []string{"more", "edge", "local"} {
			f.remove(name)
		}
		f.learns(slices.Concat(four26, six120)...)
	})
	t.Run("what is for an address that nobody has goes round, until the node discards it", func(t *testing.T) {
		f := f.within(t)
		r := f.site.Routers[0]
		onNodes := func(script string, args ...any) {
			for _, n := range f.site.Nodes {
				f.must(n.Host.Script(script, args...))
			}
		}
		// circles reports whether a packet for the address loops until its TTL expires. The machine that drops it tells the
		// sender.
		circles := func() bool {
			before := f.expired(r)
			if reply, err := r.Outside.Get(f.ctx, unused+":9000"); err == nil {
				t.Errorf("%s is answered: %+v", unused, reply)
			}
			return f.expired(r) > before
		}
		// Simulate the default route, which leads to the router on most nodes.
		onNodes("ip route add 198.51.100.0/24 via %s", r.IPv4)
		if !circles() {
			t.Error("no packet has gone round")
		}
		// A rule for packets from the segment discards them, and nothing that a Service or the node itself needs.
		onNodes("ip rule add iif eth0 to 198.51.100.0/26 blackhole")
		if circles() {
			t.Error("packets go round in spite of the rule")
		}
		f.reached(r.Outside, four+":9000")
		f.reached(&f.site.Nodes[1].Client, four+":9000")
		// A route also discards them, but cuts off the node's own programs.
		onNodes("ip rule del iif eth0 to 198.51.100.0/26 blackhole; ip route add blackhole 198.51.100.0/26")
		if circles() {
			t.Error("packets go round in spite of the route")
		}
		f.reached(r.Outside, four+":9000")
		if reply, err := f.site.Nodes[1].Get(f.ctx, four+":9000"); err == nil {
			t.Errorf("with a blackhole route, a program on the node is answered: %+v", reply)
		}
		onNodes("ip route del blackhole 198.51.100.0/26; ip route del 198.51.100.0/24 via %s", r.IPv4)
	})
	t.Run("the last address takes the network with it", func(t *testing.T) {
		f := f.within(t)
		f.remove("web")
		f.learns()
	})
}

// TestTheFirstAdvertisementByNameDecides also tests that the next advertisement takes over at once when the first is
// deleted.
func TestTheFirstAdvertisementByNameDecides(t *testing.T) {
	f := fabric(t, 2)
	f.pool("routed", delay(0), "198.51.100.0/26")
	f.advertises("b", func(s *herald.BGPAdvertisementSpec) { s.MED = new(int64(20)) })
	f.pod("pod-1", f.site.Nodes[0].Name)
	f.service("web", to8080)
	f.holds("web", "198.51.100.0")
	f.served("web")
	f.learns(f.fromAll("198.51.100.0/32", "med 20")...)
	f.told("bgpadvertisements b", herald.ConditionExclusive, "NoOverlap")

	opener := f.opens(f.site.Routers[0].Outside, "198.51.100.0:9000")
	f.advertises("a", func(s *herald.BGPAdvertisementSpec) {
		s.MED, s.Communities = new(int64(10)), []herald.Community{"64512:1"}
	})
	f.learns(f.fromAll("198.51.100.0/32", "64512:1", "med 10")...)
	f.told("bgpadvertisements a", herald.ConditionExclusive, "NoOverlap")
	message, _, _ := strings.Cut(strings.Join(strings.Fields(blockOf(t, "docs/bgp-routes.md", "Exclusive=False: Overridden: ")), " "), " ...")
	f.told("bgpadvertisements b", herald.ConditionExclusive, "Overridden",
		strings.NewReplacer("Exclusive=False: Overridden: ", "", "IPPool public", "IPPool routed", "BGPPeer tor-a", "BGPPeer router1, router2", "BGPAdvertisement all", "BGPAdvertisement a").Replace(message))
	f.must(f.herald.BGPAdvertisements.Delete(f.ctx, "a", metav1.DeleteOptions{}))
	f.learns(f.fromAll("198.51.100.0/32", "med 20")...)
	f.told("bgpadvertisements b", herald.ConditionExclusive, "NoOverlap")
	if all := opener.Stop(); all.Failed() > 0 || len(all) == 0 {
		t.Errorf("while attributes changed: %v: %v", all, all.Errors())
	}
}

// TestNodesGetTheirSharesByEndpoints runs three pods on one node and one on another.
func TestNodesGetTheirSharesByEndpoints(t *testing.T) {
	f := fabric(t, 2)
	const prefix, target = "198.51.100.0/32", "198.51.100.0:9000"
	f.pool("routed", delay(0), "198.51.100.0/26")
	f.advertises("all", func(s *herald.BGPAdvertisementSpec) { s.LinkBandwidth = herald.LinkBandwidthReadyEndpoints })
	many, few := f.site.Nodes[0], f.site.Nodes[1]
	for i, n := range []*lab.Node{many, many, many, few} {
		f.pod(fmt.Sprint("pod-", i), n.Name)
	}
	f.service("web", to8080, local)
	f.holds("web", "198.51.100.0")
	f.learns(prefix+" from "+many.Name+" lb:64512:375000", prefix+" from "+few.Name+" lb:64512:125000")
	outside := f.site.Routers[0].Outside // Behind FRR.
	f.eventually("FRR's kernel weighs the next hops", func(ctx context.Context) error {
		out, err := f.site.Routers[0].Host.Command(ctx, "ip", "route", "show", prefix).CombinedOutput()
		for _, want := range []string{fmt.Sprintf("via %v dev eth0 weight 75", many.IPv4), fmt.Sprintf("via %v dev eth0 weight 25", few.IPv4)} {
			if err == nil && !strings.Contains(string(out), want) {
				err = fmt.Errorf("no %q in %q", want, out)
			}
		}
		return err
	})
	f.served("web") // By both nodes: a route does not show that kube-proxy has written its rules.
	f.reached(outside, target)
	by, all := map[string]int{}, 200
	for range all {
		reply, err := outside.Patient().Get(f.ctx, target)
		f.must(err)
		by[reply.Node]++
	}
	t.Logf("of %d requests %v were served", all, by)
	if share := by[many.Name] * 100 / all; share < 60 || share > 90 {
		t.Errorf("%d %% were for the node with three of four pods", share)
	}
	f.must(f.kube.CoreV1().Pods("default").Delete(f.ctx, "pod-0", metav1.DeleteOptions{GracePeriodSeconds: new(int64(0))}))
	f.learns(prefix+" from "+many.Name+" lb:64512:250000", prefix+" from "+few.Name+" lb:64512:125000")
}
