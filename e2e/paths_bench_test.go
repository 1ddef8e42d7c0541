package e2e

import (
	"context"
	"fmt"
	"path/filepath"
	"sync"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	herald "github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/e2e/lab"
	"github.com/heraldlb/herald/e2e/lab/router"
)

// BenchmarkPathDeath measures how long a client behind a router cannot open a connection when the node that gets all of the
// router's traffic dies, until the router uses the next node. The cases are BFD, BFD with graceful restart on both ends, the
// same with a router that keeps routes then, and only a hold time of 3 s. For comparison, gobgp announces the address in place of
// Herald's speaker and uses its own BFD, to BIRD only: BFD between gobgp v4.8.0 and FRR 8.4 did not come up. The client opens a
// connection every 10 ms. An attempt fails after 250 ms.
func BenchmarkPathDeath(b *testing.B) {
	const ms = time.Millisecond
	for _, kind := range []router.Kind{lab.FRR, lab.BIRD} {
		for _, c := range []pathCase{
			{name: "bfd=100msx3", bfd: 100 * ms}, {name: "bfd=50msx3", bfd: 50 * ms}, {name: "hold-time=3s"},
			{name: "bfd=100msx3,gobgp", bfd: 100 * ms, gobgp: true}, {name: "bfd=50msx3,gobgp", bfd: 50 * ms, gobgp: true},
			{name: "bfd=100msx3,graceful-restart", bfd: 100 * ms, restart: 10 * time.Second},
			{name: "bfd=100msx3,graceful-restart,kept", bfd: 100 * ms, restart: 10 * time.Second, keeps: true},
		} {
			if c.gobgp && kind == lab.FRR {
				continue
			}
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
	gobgp   bool          // gobgp announces, with its own BFD
}

func pathDeaths(b *testing.B, kind router.Kind, c pathCase) {
	f := withLab(b, lab.Options{Nodes: 3, Routers: []router.Kind{kind}, BFD: c.bfd, BFDKeeps: c.keeps}).field
	router, all := f.site.Routers[0], names(f.site)
	const address, target = "198.18.0.200", "198.18.0.200:9000"
	if !c.gobgp {
		f.speakersAnnounce(router, c, all[:2])
	}
	f.pool("segment", delay(0), "198.18.0.200-198.18.0.250")
	f.pod("pod-1", all[2]) // The third node gets no fault.
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
		stop := func() {}
		if c.gobgp {
			stop = f.gobgpAnnounces(router, address, c.bfd, all[:2])
		}
		f.routed(router, address, all[0])
		if c.bfd > 0 {
			f.eventually("BFD is up with the nodes that announce", func(ctx context.Context) error {
				sessions, err := router.BFD(ctx)
				up := 0
				for _, s := range sessions {
					if s.State == "up" {
						up++
					}
				}
				if err == nil && up < 2 {
					err = fmt.Errorf("the router has %+v", sessions)
				}
				return err
			})
		}
		if !c.gobgp {
			f.told("bgppeers "+router.Name, herald.ConditionEstablished, "Established")
		}
		gap, lost, err := lab.Outage(f.ctx, &client, []string{target}, f.site.Node(all[0]).Cut, settle)
		f.must(err)
		gaps, failed = append(gaps, gap), failed+lost
		f.must(f.site.Node(all[0]).Heal())
		stop()
	}
	b.Logf("%s, %s: %v; %d requests failed", kind, c.name, gaps, failed)
}

// speakersAnnounce makes the nodes' speakers announce every address to a router, with a higher MED for each further node.
func (f *field) speakersAnnounce(router *lab.Router, c pathCase, nodes []string) {
	f.t.Helper()
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
	for i, node := range nodes {
		med := int64(100 * i)
		f.label(node, "turn", fmt.Sprint(i))
		_, err := f.herald.BGPAdvertisements.Create(f.ctx, &herald.BGPAdvertisement{
			ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("turn-%d", i)},
			Spec: herald.BGPAdvertisementSpec{
				Selection: herald.Selection{NodeSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"turn": fmt.Sprint(i)}}}, MED: &med,
			},
		}, metav1.CreateOptions{})
		f.must(err)
	}
}

// gobgpAnnounces makes gobgp announce an address to a router from the nodes, with a higher MED for each further node, until stop is
// called. After a failure its session does not stay up again: BFD also expires while BGP is down, and gobgp v4.8.0 then ends the next
// session.
func (f *field) gobgpAnnounces(router *lab.Router, address string, interval time.Duration, nodes []string) (stop func()) {
	f.t.Helper()
	var started []*lab.Process
	for i, name := range nodes {
		n := f.site.Node(name)
		p := &lab.Process{
			Name: "gobgp-" + name, Host: n.Host, Path: filepath.Join(root(f.t), "build", "bin", "gobgp"),
			LogPath: filepath.Join(f.t.TempDir(), "gobgp.log"),
			Args: []string{
				"-asn", fmt.Sprint(lab.NodeASN), "-address", n.IPv4.String(), "-router", router.IPv4.String(), "-router-asn", fmt.Sprint(router.ASN),
				"-interval", interval.String(), "-announce", address, "-med", fmt.Sprint(100 * i),
			},
		}
		f.must(p.Start())
		started = append(started, p)
	}
	stop = sync.OnceFunc(func() {
		for _, p := range started {
			if err := p.Stop(context.Background()); err != nil {
				f.t.Error(err)
			}
		}
	})
	f.t.Cleanup(stop)
	return stop
}
