package e2e

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	herald "github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/e2e/lab"
	"github.com/heraldlb/herald/e2e/lab/router"
)

// TestPathsToRoutersAreWatched is about BFD for BGP sessions: BFD ends a session when its path is dead, and delays none.
func TestPathsToRoutersAreWatched(t *testing.T) {
	f := withHerald(t, lab.Options{Nodes: 1, Routers: []router.Kind{lab.FRR, lab.BIRD}, BFD: 100 * time.Millisecond})
	const address = "198.18.0.200"
	f.pool("segment", delay(0), "198.18.0.200-198.18.0.250")
	for _, r := range f.site.Routers {
		p := peerOf(r)
		p.Spec.HoldTime, p.Spec.KeepaliveTime = nil, nil // The defaults are long, so only BFD can detect the fault.
		_, err := f.herald.BGPPeers.Create(f.ctx, p, metav1.CreateOptions{})
		f.must(err)
	}
	_, err := f.herald.BGPAdvertisements.Create(f.ctx, &herald.BGPAdvertisement{ObjectMeta: metav1.ObjectMeta{Name: "all"}}, metav1.CreateOptions{})
	f.must(err)
	f.service("web", to8080)
	f.pod("pod-1", "k8s-node1")
	f.holds("web", address)
	began := map[*lab.Router]time.Time{}
	for _, r := range f.site.Routers {
		f.routed(r, address, names(f.site)...)
		began[r] = f.since("k8s-node1", r.Name)
	}
	undisturbed := func(f *field) {
		f.t.Helper()
		for r, before := range began {
			if now := f.since("k8s-node1", r.Name); !now.Equal(before) {
				f.t.Errorf("the session with %s was reset: up since %v, before since %v", r.Name, now, before)
			}
		}
	}
	// bfd waits until a router reports its session in this state and with this detection time.
	bfd := func(f *field, r *lab.Router, state string, detection time.Duration) {
		f.t.Helper()
		f.eventually(fmt.Sprintf("%s says that BFD is %s, with %v", r.Name, state, detection), func(ctx context.Context) error {
			all, err := r.BFD(ctx)
			if err == nil && (len(all) != 1 || all[0].State != state || detection > 0 && all[0].Detection != detection) {
				err = fmt.Errorf("it has %+v", all)
			}
			return err
		})
	}

	t.Run("BFD begins and changes without a word to BGP", func(t *testing.T) {
		f := f.within(t)
		for _, r := range f.site.Routers {
			f.must(f.patchPeer(r.Name, `{"spec":{"bfd":{"detectMultiplier":20,"transmitInterval":"100ms","receiveInterval":"100ms"}}}`))
			f.told("bgppeers "+r.Name, herald.ConditionPathsAlive, "Alive")
			bfd(f, r, "up", 20*100*time.Millisecond)
			f.must(f.patchPeer(r.Name, `{"spec":{"bfd":{"detectMultiplier":15,"transmitInterval":"200ms"}}}`))
			bfd(f, r, "up", 15*200*time.Millisecond)
		}
		undisturbed(f)
	})
	t.Run("a dead path ends the session, which does not wait for BFD to come back", func(t *testing.T) {
		f := f.within(t)
		for _, r := range f.site.Routers {
			f.must(r.Host.Script("nft add table inet cut; nft add chain inet cut out '{ type filter hook output priority 0; }'; nft add rule inet cut out udp dport 3784 drop"))
			// The router still receives this node's packets, which say that BFD is down here. Either end may be the first to
			// send its Cease.
			f.event("BGPPeer", r.Name, "SessionDown", "ended the session: Cease")
			f.told("bgppeers "+r.Name, herald.ConditionPathsAlive, "BFDDown", "node k8s-node1: the router has fallen silent", "does not wait for BFD")
			f.routed(r, address, names(f.site)...)
			f.told("bgppeers "+r.Name, herald.ConditionEstablished, "Established")
			f.eventually("the status has the session that followed", func(context.Context) error {
				now := f.since("k8s-node1", r.Name)
				if now.Equal(began[r]) {
					return fmt.Errorf("it has the one that is up since %v", now)
				}
				began[r] = now
				return nil
			})
			f.must(r.Host.Script("nft delete table inet cut"))
			f.told("bgppeers "+r.Name, herald.ConditionPathsAlive, "Alive")
			bfd(f, r, "up", 0)
		}
		undisturbed(f)
	})
	// FRR 8.4 and BIRD 2.0 treat AdminDown as a failure, contrary to RFC 5882 section 4.2: they end the session, and accept it
	// again.
	t.Run("BFD ends", func(t *testing.T) {
		f := f.within(t)
		for _, r := range f.site.Routers {
			f.must(f.patchPeer(r.Name, `{"spec":{"bfd":null}}`))
			bfd(f, r, "down", 0)
			f.eventually("the condition of BFD goes", func(ctx context.Context) error {
				conditions, err := f.conditionsOf(ctx, "bgppeers", r.Name)
				if err == nil && meta.FindStatusCondition(conditions, herald.ConditionPathsAlive) != nil {
					err = fmt.Errorf("there are %+v", conditions)
				}
				return err
			})
		}
		for _, r := range f.site.Routers {
			f.told("bgppeers "+r.Name, herald.ConditionEstablished, "Established")
			f.routed(r, address, names(f.site)...)
		}
	})
}

// TestASpeakerIsReplacedWhilePathsAreWatched uses graceful restart together with BFD. What a client behind a router loses
// depends on how the router treats the end of BFD.
func TestASpeakerIsReplacedWhilePathsAreWatched(t *testing.T) {
	for name, keeps := range map[string]bool{"as routers are": false, "configured to keep routes": true} {
		t.Run(name, func(t *testing.T) {
			f := withHerald(t, lab.Options{Nodes: 1, Routers: []router.Kind{lab.FRR, lab.BIRD}, BFD: 100 * time.Millisecond, BFDKeeps: keeps})
			const node, address, target = "k8s-node1", "198.51.100.0", "198.51.100.0:9000"
			f.pool("routed", delay(0), "198.51.100.0/26")
			for _, r := range f.site.Routers {
				p := peerOf(r)
				p.Spec.HoldTime, p.Spec.KeepaliveTime = nil, nil
				p.Spec.GracefulRestart = &herald.GracefulRestart{}
				p.Spec.BFD = &herald.BFD{DetectMultiplier: 5, TransmitInterval: &metav1.Duration{Duration: 100 * time.Millisecond}}
				_, err := f.herald.BGPPeers.Create(f.ctx, p, metav1.CreateOptions{})
				f.must(err)
			}
			f.advertises("all", func(*herald.BGPAdvertisementSpec) {})
			f.pod("pod-1", node)
			f.service("web", to8080)
			f.holds("web", address)
			f.podBeingDeleted(lab.SpeakerPod(f.site.Node(node))) // This tells the speaker that a successor follows.
			speaker := f.speakers[node]
			before := map[*lab.Router]time.Time{} // When the sessions came up. The status has whole seconds.
			for _, end := range []struct {
				what string
				do   func() error
			}{
				{"replaced", func() error { return speaker.Stop(f.ctx) }},
				{"killed", speaker.Kill},
			} {
				for _, r := range f.site.Routers {
					f.routed(r, address, node)
					f.eventually("the session and BFD are up with "+r.Name, func(ctx context.Context) error {
						all, err := r.BFD(ctx)
						if err == nil && (len(all) != 1 || all[0].State != "up" || !f.since(node, r.Name).After(before[r])) {
							err = fmt.Errorf("BFD is %+v, and the session up since %v", all, f.since(node, r.Name))
						}
						return err
					})
					for _, all := range f.site.Routers {
						before[all] = f.since(node, all.Name)
					}
					gap, failed, err := lab.Outage(f.ctx, r.Outside.Patient(), []string{target}, func() error { return errors.Join(end.do(), speaker.Start()) }, settling)
					f.must(err)
					t.Logf("speaker %s, %s %s: %d requests failed, gap %v", end.what, r.Kind, name, failed, gap.Round(time.Millisecond))
					if kept := keeps || r.Kind == lab.FRR; kept && failed > 0 {
						t.Errorf("%d requests failed while the speaker was %s, for %v", failed, end.what, gap)
					} else if !kept && failed == 0 && end.what == "replaced" {
						t.Error("BIRD keeps the routes: docs/bfd.md says that it has to be told to")
					}
				}
			}
		})
	}
}
