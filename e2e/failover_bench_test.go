package e2e

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	herald "github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/e2e/lab"
	"github.com/heraldlb/herald/e2e/lab/vrrp"
)

const (
	// sampled is the largest number of addresses that the client opens connections to. The worst gap counts.
	sampled = 20
	// settling is the least time for which the client continues after a fault.
	settling = time.Second
	// held is the number of connections that a client keeps open.
	held = 20
)

// rounds returns how often each fault is caused: HERALD_ROUNDS, or 20 times.
func rounds(b *testing.B) int {
	text := os.Getenv("HERALD_ROUNDS")
	if text == "" {
		return 20
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		b.Fatalf("HERALD_ROUNDS is %q: write how often each fault is to be brought about, such as 20", text)
	}
	return n
}

// BenchmarkOutage measures how long a client on the segment cannot open a connection when the node that owns an address
// dies or is drained, or when its speaker is killed or replaced. For comparison it measures keepalived (VRRPv3, an
// advertisement every 100 ms) on the same kind of segment. The gap is the worst of up to 20 addresses; the client opens
// a connection to each every 10 to 40 ms.
func BenchmarkOutage(b *testing.B) {
	for _, n := range []int{1, 100, 1000} {
		b.Run(fmt.Sprintf("addresses=%d", n), func(b *testing.B) {
			for b.Loop() {
				// They run one after the other, because the names and addresses of a site are fixed.
				b.Run("Herald", func(b *testing.B) { heraldOutages(b, n) })
				b.Run("keepalived", func(b *testing.B) { keepalivedOutages(b, n) })
			}
		})
	}
}

func heraldOutages(b *testing.B, n int) {
	f := withLab(b, lab.Options{Nodes: 4}).field
	_, err := f.herald.L2Advertisements.Create(f.ctx, &herald.L2Advertisement{
		ObjectMeta: metav1.ObjectMeta{Name: "all"}, Spec: herald.L2AdvertisementSpec{Interfaces: []string{"eth0"}},
	}, metav1.CreateOptions{})
	f.must(err)
	f.pool("many", delay(0), "198.18.4.0/22", "2001:db8:18::1:0/112")
	// The pod is on a node that announces nothing and gets no fault. Faults affect only the path to it.
	f.pod("pod-1", f.site.Nodes[0].Name)
	f.label(f.site.Nodes[0].Name, corev1.LabelNodeExcludeBalancers, "")
	f.createMany(n, to8080, dualStack)
	f.awaitAddresses(n)
	targets := map[string][]string{}
	list, err := f.services().List(f.ctx, metav1.ListOptions{})
	f.must(err)
	byFamily := map[string][]netip.Addr{}
	for _, svc := range list.Items {
		for _, text := range addresses(&svc) {
			a := netip.MustParseAddr(text)
			family := map[bool]string{true: "IPv4", false: "IPv6"}[a.Is4()]
			byFamily[family] = append(byFamily[family], a)
		}
	}
	for family, all := range byFamily {
		slices.SortFunc(all, netip.Addr.Compare)
		for _, a := range lab.Sample(all, sampled) {
			targets[family] = append(targets[family], netip.AddrPortFrom(a, 9000).String())
		}
	}
	for _, what := range []string{"node death", "drain", "speaker killed", "speaker upgraded"} {
		for _, family := range []string{"IPv4", "IPv6"} {
			var gaps lab.Durations
			failed, broken := 0, 0
			for range rounds(b) {
				gap, lost, hurt := f.outage(what, targets[family])
				gaps, failed, broken = append(gaps, gap), failed+lost, broken+hurt
			}
			b.Logf("Herald, %d addresses, %s, %s: %v; %d requests failed, %d of %d held connections broke", n, what, family, gaps, failed, broken, len(gaps)*held)
		}
	}
}

// outage causes a fault on the owner of the first target, measures, and waits until everything has recovered.
func (f *field) outage(what string, targets []string) (gap time.Duration, failed, broken int) {
	f.t.Helper()
	for _, t := range targets {
		f.reached(f.site.Segment, t)
	}
	owner := f.ownerOf(netip.MustParseAddrPort(targets[0]).Addr())
	node, speaker := f.site.Node(owner), f.speakers[owner]
	var fault, mend func() error
	switch what {
	case "node death":
		fault, mend = node.Cut, node.Heal
	case "drain":
		fault, mend = func() error { return speaker.Stop(f.ctx) }, speaker.Start
	case "speaker killed":
		fault, mend = speaker.Kill, speaker.Start
	case "speaker upgraded":
		f.podBeingDeleted(lab.SpeakerPod(node))
		fault, mend = func() error { return errors.Join(speaker.Stop(f.ctx), speaker.Start()) }, func() error { return nil }
	}
	holder, err := f.site.Segment.Hold(f.ctx, targets[0], held)
	f.must(err)
	gap, failed, err = lab.Outage(f.ctx, f.site.Segment, targets, fault, settling)
	f.must(err)
	report := holder.Stop()
	f.must(mend())
	f.eventually("the speaker of "+owner+" is a member again", func(ctx context.Context) error {
		s, err := f.herald.SpeakerStatuses.Get(ctx, owner, metav1.GetOptions{})
		if err != nil {
			return err
		}
		for _, i := range s.Status.Interfaces {
			if i.Name == "eth0" && i.State == herald.SegmentMember && int(i.Neighbours) == len(f.site.Nodes)-1 {
				return nil
			}
		}
		return fmt.Errorf("%+v", s.Status.Interfaces)
	})
	return gap, failed, report.Broken
}

// ownerOf returns the node that answers for an address on the segment.
func (f *field) ownerOf(address netip.Addr) (owner string) {
	f.t.Helper()
	f.eventually(fmt.Sprintf("one node answers for %v", address), func(ctx context.Context) error {
		macs, err := f.site.Segment.Ask(ctx, address)
		if err != nil {
			return err
		}
		if len(macs) != 1 || f.site.NodeByMAC(macs[0]) == nil {
			return fmt.Errorf("answered by %v", macs)
		}
		owner = f.site.NodeByMAC(macs[0]).Name
		return nil
	})
	return owner
}

// podBeingDeleted creates a pod that is being deleted but is not gone, unless it exists.
func (f *field) podBeingDeleted(name string) {
	f.t.Helper()
	if _, err := f.kube.CoreV1().Pods(lab.HeraldNamespace).Get(f.ctx, name, metav1.GetOptions{}); err != nil {
		f.podDeleted(name)
	}
}

func keepalivedOutages(b *testing.B, n int) {
	for _, family := range []string{"IPv4", "IPv6"} {
		prefix := map[string]netip.Prefix{"IPv4": lab.Many4, "IPv6": lab.Many6}[family]
		for what, fault := range map[string]vrrp.Fault{"node death": vrrp.Cut, "drain": vrrp.Stop} {
			site, err := lab.NewSite(3)
			if err != nil {
				b.Fatal(err)
			}
			ctx := storyContext(b)
			dir := filepath.Join(b.TempDir(), family+string(fault))
			if err := os.MkdirAll(dir, 0o750); err != nil {
				b.Fatal(err)
			}
			router, err := vrrp.Start(ctx, site, dir, lab.Addresses(prefix, n))
			if err != nil {
				b.Fatal(errors.Join(err, site.Close()))
			}
			gaps, err := router.Measure(ctx, fault, rounds(b))
			if err := errors.Join(err, router.Close(), site.Close()); err != nil {
				b.Error(err)
			}
			b.Logf("keepalived, %d addresses, %s, %s: %v", n, what, family, gaps)
		}
	}
}
