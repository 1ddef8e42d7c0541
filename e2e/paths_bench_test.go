package e2e

import (
	"fmt"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	herald "github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/e2e/lab"
)

// BenchmarkPathDeath measures how long a client behind a router cannot open a connection when the node that gets all of the
// router's traffic dies, until the router uses the next node. The cases are BFD, BFD with graceful restart on both ends, the
// same with a router that keeps routes then, and only a hold time of 3 s. The client opens a connection every 10 ms. An
// attempt fails after 250 ms.
func BenchmarkPathDeath(b *testing.B) {
	const ms = time.Millisecond
	for _, kind := range []lab.RouterKind{lab.FRR, lab.BIRD} {
		for _, c := range []pathCase{
			{name: "bfd=100msx3", bfd: 100 * ms}, {name: "bfd=50msx3", bfd: 50 * ms}, {name: "hold-time=3s"},
			{name: "bfd=100msx3,graceful-restart", bfd: 100 * ms, restart: 10 * time.Second},
			{name: "bfd=100msx3,graceful-restart,kept", bfd: 100 * ms, restart: 10 * time.Second, keeps: true},
		} {
			b.Run(string(kind)+"/"+c.name, func(b *testing.B) {
				for b.Loop() {
					pathDeaths(b, kind, c)
				}
			})
		}
	}
}

// pathCase says how the death of a path is detected.
type pathCase struct {
	name    string
	bfd     time.Duration // BFD packet interval; 0: no BFD, but a hold time of 3 s
	restart time.Duration // restart time of graceful restart; 0: none
	keeps   bool          // lab.Options.BFDKeeps
}

func pathDeaths(b *testing.B, kind lab.RouterKind, c pathCase) {
	f := withLab(b, lab.Options{Nodes: 3, Routers: []lab.RouterKind{kind}, BFD: c.bfd, BFDKeeps: c.keeps}).field
	router, all := f.site.Routers[0], names(f.site)
	p := peerOf(router)
	if c.bfd > 0 {
		p.Spec.HoldTime, p.Spec.KeepaliveTime = nil, nil
		p.Spec.BFD = &herald.BFD{DetectMultiplier: 3, TransmitInterval: &metav1.Duration{Duration: c.bfd}, ReceiveInterval: &metav1.Duration{Duration: c.bfd}}
	}
	if c.restart > 0 {
		p.Spec.GracefulRestart = &herald.GracefulRestart{RestartTime: metav1.Duration{Duration: c.restart}}
	}
	_, err := f.herald.BGPPeers.Create(f.ctx, p, metav1.CreateOptions{})
	f.must(err)
	// The router prefers the first node, the second one takes over, and the third one has the pod and gets no fault.
	for i, med := range []int64{0, 100} {
		f.label(all[i], "turn", fmt.Sprint(i))
		_, err := f.herald.BGPAdvertisements.Create(f.ctx, &herald.BGPAdvertisement{
			ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("turn-%d", i)},
			Spec: herald.BGPAdvertisementSpec{
				Selection: herald.Selection{NodeSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"turn": fmt.Sprint(i)}}}, MED: &med,
			},
		}, metav1.CreateOptions{})
		f.must(err)
	}
	const address, target = "198.18.0.200", "198.18.0.200:9000"
	f.pool("segment", delay(0), "198.18.0.200-198.18.0.250")
	f.pod("pod-1", all[2])
	f.service("web", to8080)
	f.holds("web", address)
	client := *f.site.Outside
	client.Timeout = 250 * time.Millisecond
	var gaps lab.Durations
	failed := 0
	settle := settling
	if c.bfd == 0 {
		settle += 5 * time.Second
	}
	for range rounds(b) {
		f.routed(router, address, all[0])
		if c.bfd > 0 {
			f.told("bgppeers "+router.Name, herald.ConditionPathsAlive, "Alive")
		}
		f.told("bgppeers "+router.Name, herald.ConditionEstablished, "Established")
		gap, lost, err := lab.Outage(f.ctx, &client, []string{target}, f.site.Node(all[0]).Cut, settle)
		f.must(err)
		gaps, failed = append(gaps, gap), failed+lost
		f.must(f.site.Node(all[0]).Heal())
	}
	b.Logf("%s, %s: %v; %d requests failed", kind, c.name, gaps, failed)
}
