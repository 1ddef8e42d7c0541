package e2e

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	herald "github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/e2e/lab"
	"github.com/heraldlb/herald/e2e/lab/router"
)

// referee sends requests for an address continuously, and checks that it moves between nodes cleanly: once
// another node has claimed it, the previous node sends no more claims.
type referee struct {
	f       *field
	address netip.Addr
	watch   *lab.Watch
	cancel  context.CancelFunc
	asking  sync.WaitGroup
}

func (f *field) referee(address string) *referee {
	f.t.Helper()
	w, err := f.site.Segment.Watch()
	f.must(err)
	ctx, cancel := context.WithCancel(f.ctx)
	r := &referee{f: f, address: netip.MustParseAddr(address), watch: w, cancel: cancel}
	f.referees.Add(1)
	r.asking.Go(func() {
		defer f.referees.Add(-1)
		for ctx.Err() == nil {
			_, _ = f.site.Segment.ARP(ctx, r.address) // The answers are judged at the end.
		}
	})
	f.eventually("the referee hears somebody", func(context.Context) error {
		if len(w.Claims(r.address, time.Time{})) == 0 {
			return errors.New("nobody")
		}
		return nil
	})
	return r
}

// judge fails the story unless exactly these nodes held the address, in this order.
func (r *referee) judge(nodes ...string) {
	r.f.t.Helper()
	r.cancel()
	r.asking.Wait()
	var runs []string
	for _, p := range r.watch.Claims(r.address, time.Time{}) {
		name := p.MAC.String()
		if n := r.f.site.NodeByMAC(p.MAC); n != nil {
			name = n.Name
		}
		if len(runs) == 0 || runs[len(runs)-1] != name {
			runs = append(runs, name)
		}
	}
	r.f.must(r.watch.Close())
	if !slices.Equal(runs, nodes) {
		r.f.t.Errorf("%s was held by %v, want %v", r.address, runs, nodes)
	}
}

func without(all []string, one string) []string {
	return slices.DeleteFunc(slices.Clone(all), func(n string) bool { return n == one })
}

// TestNodesComeAndGo subjects one cluster to one failure after the other.
func TestNodesComeAndGo(t *testing.T) {
	f := withHerald(t, lab.Options{Nodes: 4, Routers: []router.Kind{lab.BIRD}})
	const address, target = "198.18.0.200", "198.18.0.200:9000"
	f.announce()
	f.pool("segment", delay(0), "198.18.0.200-198.18.0.250")
	router, all := f.site.Routers[0], names(f.site)
	f.service("web", to8080)
	f.holds("web", address)
	// The pod is on a node that announces nothing and gets no fault. Faults affect only the path to it.
	f.pod("pod-1", all[0])
	f.label(all[0], corev1.LabelNodeExcludeBalancers, "")
	all = all[1:]
	f.served("web")
	f.routed(router, address, all...)
	first := f.answeredBy(address, all...)

	t.Run("a speaker that is killed and comes back soon loses nothing", func(t *testing.T) {
		f := f.within(t)
		r := f.referee(address)
		f.must(f.speakers[first].Kill())
		f.routed(router, address, without(all, first)...) // At once: the kernel closes the speaker's sessions.
		f.must(f.speakers[first].Start())
		f.routed(router, address, all...)
		f.answeredBy(address, first)
		r.judge(first)
	})
	t.Run("a speaker that stops hands over, and does not take back", func(t *testing.T) {
		f := f.within(t)
		r := f.referee(address)
		opener := f.site.Segment.Open(f.ctx, target, 20*time.Millisecond)
		f.must(f.speakers[first].Stop(f.ctx))
		second := f.answeredBy(address, without(all, first)...)
		f.routed(router, address, without(all, first)...)
		attempts := opener.Stop()
		t.Logf("planned stop: %v", attempts)
		f.must(f.speakers[first].Start())
		f.routed(router, address, all...)
		f.answeredBy(address, second)
		r.judge(first, second)
		first = second
	})
	t.Run("others answer for a frozen speaker, take over after the grace, and it yields when it wakes", func(t *testing.T) {
		f := f.within(t)
		r := f.referee(address)
		f.must(f.speakers[first].Freeze())
		f.deputised(address, first)
		second := f.answeredBy(address, without(all, first)...)
		f.routed(router, address, without(all, first)...) // After the hold time.
		f.must(f.speakers[first].Resume())
		f.routed(router, address, all...)
		f.answeredBy(address, second)
		f.eventually("the status of the one that woke", func(ctx context.Context) error {
			s, err := f.herald.SpeakerStatuses.Get(ctx, first, metav1.GetOptions{})
			if err == nil && len(s.Status.Claims) > 0 {
				err = fmt.Errorf("it still claims %v", s.Status.Claims)
			}
			return err
		})
		r.judge(first, second)
		first = second
	})
	t.Run("a node that is cut off", func(t *testing.T) {
		f := f.within(t)
		r := f.referee(address)
		opener := f.site.Segment.Open(f.ctx, target, 20*time.Millisecond)
		outside := f.site.Outside.Open(f.ctx, target, 20*time.Millisecond)
		f.must(f.site.Node(first).Cut())
		second := f.answeredBy(address, without(all, first)...)
		f.routed(router, address, without(all, first)...)
		f.reached(f.site.Segment, target)
		f.reached(f.site.Outside, target)
		t.Logf("node cut off, hold time of 3s: from the segment %v; from outside %v", opener.Stop(), outside.Stop())
		f.must(f.site.Node(first).Heal())
		f.routed(router, address, all...)
		f.answeredBy(address, second)
		r.judge(first, second)
		first = second
	})
	t.Run("a node whose kube-proxy died announces nothing", func(t *testing.T) {
		f := f.within(t)
		r := f.referee(address)
		f.must(f.proxies[first].Freeze())
		second := f.answeredBy(address, without(all, first)...)
		f.routed(router, address, without(all, first)...)
		f.eventually("it says so", func(ctx context.Context) error {
			s, err := f.herald.SpeakerStatuses.Get(ctx, first, metav1.GetOptions{})
			if err == nil && !strings.Contains(s.Status.Problem, "kube-proxy") {
				err = fmt.Errorf("problem: %q", s.Status.Problem)
			}
			return err
		})
		f.must(f.proxies[first].Resume())
		f.routed(router, address, all...)
		r.judge(first, second)
		first = second
	})
	t.Run("Herald's controller away: everything goes on", func(t *testing.T) {
		f := f.within(t)
		f.must(f.ccm.Kill())
		f.must(f.speakers[first].Stop(f.ctx))
		second := f.answeredBy(address, without(all, first)...)
		f.reached(f.site.Segment, target)
		f.must(f.speakers[first].Start())
		f.routed(router, address, all...)
		f.answeredBy(address, second)
		f.must(f.ccm.Start())
		first = second
	})
	t.Run("the API server away: everything goes on", func(t *testing.T) {
		f := f.within(t)
		r := f.referee(address)
		opener, outside := f.opens(f.site.Segment, target), f.opens(f.site.Outside, target)
		f.must(f.apiServer.Freeze())
		f.pass(9 * time.Second)
		f.routed(router, address, all...)
		f.must(f.apiServer.Resume())
		f.pass(3 * time.Second) // Time for any effects.
		f.answeredBy(address, first)
		for from, o := range map[string]*lab.Opener{"the segment": opener, "outside": outside} {
			if attempts := o.Stop(); attempts.Failed() > 0 || len(attempts) == 0 {
				t.Errorf("from %s: %v: %v", from, attempts, attempts.Errors())
			}
		}
		r.judge(first)
	})
	t.Run("another advertisement adds and takes away", func(t *testing.T) {
		f := f.within(t)
		f.must(f.herald.L2Advertisements.Delete(f.ctx, "all", metav1.DeleteOptions{}))
		f.answeredBy(address)
		f.routed(router, address, all...)
		f.must(f.herald.BGPAdvertisements.Delete(f.ctx, "all", metav1.DeleteOptions{}))
		f.routed(router, address)
		f.condition("segment", herald.ConditionAnnounced, metav1.ConditionFalse, "")
	})
	t.Run("a status that is deleted by hand is written again", func(t *testing.T) {
		f := f.within(t)
		f.must(f.herald.SpeakerStatuses.Delete(f.ctx, first, metav1.DeleteOptions{}))
		f.eventually("the status is back", func(ctx context.Context) error {
			s, err := f.herald.SpeakerStatuses.Get(ctx, first, metav1.GetOptions{})
			if err == nil && len(s.Status.Interfaces) == 0 {
				err = fmt.Errorf("%+v", s.Status)
			}
			return err
		})
	})
}

// opens opens connections continuously, of which none may fail. The client's kernel counts resent SYNs: a lost SYN is a
// failure, but a delay by a busy machine is not.
func (f *field) opens(from *lab.Client, target string) *lab.Opener {
	return from.Patient().Open(f.ctx, target, 20*time.Millisecond)
}

// pass waits for a time in which something must not happen.
func (f *field) pass(d time.Duration) {
	select {
	case <-f.ctx.Done():
	case <-time.After(d):
	}
}

// deputised waits until another node reports that it answers for an address in place of the given node.
func (f *field) deputised(address, node string) {
	f.t.Helper()
	f.eventually(address+" is answered by a deputy", func(ctx context.Context) error {
		list, err := f.herald.SpeakerStatuses.List(ctx, metav1.ListOptions{})
		if err != nil {
			return err
		}
		for _, o := range list.Items {
			for _, c := range o.Status.Claims {
				if c.Address == address && c.DeputyFor == node && o.Name != node {
					return nil
				}
			}
		}
		return errors.New("no speaker says so")
	})
}

// TestPeersThatCannotWork checks that a bad peer is reported and does not disturb the others.
func TestPeersThatCannotWork(t *testing.T) {
	f := withHerald(t, lab.Options{Nodes: 2, Routers: []router.Kind{lab.FRR, lab.BIRD}, Password: "correct", BFD: 100 * time.Millisecond})
	const address = "198.18.0.200"
	good, other := f.site.Routers[0], f.site.Routers[1]
	f.pool("segment", delay(0), "198.18.0.200-198.18.0.250")
	f.secret("good", "correct")
	f.secret("bad", "wrong")
	withSecret := func(r *lab.Router, secret string) {
		p := peerOf(r)
		p.Spec.PasswordSecret = &herald.SecretReference{Name: secret}
		_, err := f.herald.BGPPeers.Create(f.ctx, p, metav1.CreateOptions{})
		f.must(err)
	}
	withSecret(good, "good")
	_, err := f.herald.BGPAdvertisements.Create(f.ctx, &herald.BGPAdvertisement{ObjectMeta: metav1.ObjectMeta{Name: "all"}}, metav1.CreateOptions{})
	f.must(err)
	f.service("web", to8080)
	f.pod("pod-1", "k8s-node1")
	f.holds("web", address)
	f.routed(good, address, names(f.site)...)
	up := f.since("k8s-node1", good.Name)

	t.Run("a wrong password", func(t *testing.T) {
		f := f.within(t)
		withSecret(other, "bad")
		f.event("BGPPeer", other.Name, "SessionDown", "password")
		f.routed(other, address)
	})
	t.Run("a password that is put right", func(t *testing.T) {
		f := f.within(t)
		f.must(f.patchPeer(other.Name, `{"spec":{"passwordSecret":{"name":"good"}}}`))
		f.routed(other, address, names(f.site)...)
		f.event("BGPPeer", other.Name, "SessionUp", "established")
	})
	t.Run("a Secret that is missing, and comes: the last password stays in force", func(t *testing.T) {
		f := f.within(t)
		up := f.since("k8s-node1", other.Name)
		f.must(f.patchPeer(other.Name, `{"spec":{"passwordSecret":{"name":"later"}}}`))
		f.told("bgppeers "+other.Name, herald.ConditionEstablished, "Established", "there is no Secret herald-system-peers/later", "the last password is in force until herald-speaker restarts there")
		f.eventually("the speaker's status says so", func(ctx context.Context) error {
			s, err := f.herald.SpeakerStatuses.Get(ctx, "k8s-node1", metav1.GetOptions{})
			if err != nil {
				return err
			}
			for _, o := range s.Status.Sessions {
				if o.Peer == other.Name && o.State == "Established" && strings.Contains(o.Reason, "later of type") && strings.Contains(o.Reason, "the last password is in force") {
					return nil
				}
			}
			return fmt.Errorf("sessions: %+v", s.Status.Sessions)
		})
		f.secret("later", "correct")
		f.eventually("the speaker's status no longer says so", func(ctx context.Context) error {
			s, err := f.herald.SpeakerStatuses.Get(ctx, "k8s-node1", metav1.GetOptions{})
			if err == nil && slices.ContainsFunc(s.Status.Sessions, func(o herald.SpeakerSession) bool { return o.Peer == other.Name && o.Reason != "" }) {
				err = fmt.Errorf("sessions: %+v", s.Status.Sessions)
			}
			return err
		})
		f.routed(other, address, names(f.site)...)
		if now := f.since("k8s-node1", other.Name); now != up {
			t.Errorf("the session was up since %v, and now since %v", up, now)
		}
	})
	t.Run("peers get what is meant for them", func(t *testing.T) {
		f := f.within(t)
		f.must(f.herald.BGPAdvertisements.Delete(f.ctx, "all", metav1.DeleteOptions{}))
		f.routed(other, address)
		preference := int64(50)
		for _, ad := range []*herald.BGPAdvertisement{
			{ObjectMeta: metav1.ObjectMeta{Name: "to-one"}, Spec: herald.BGPAdvertisementSpec{Peers: []string{good.Name}, Communities: []herald.Community{"64512:100", "no-export", "64512:1:2"}, LocalPreference: &preference}},
			{ObjectMeta: metav1.ObjectMeta{Name: "to-other"}, Spec: herald.BGPAdvertisementSpec{PeerSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"kind": "bird"}}, Prepend: 2}},
		} {
			_, err := f.herald.BGPAdvertisements.Create(f.ctx, ad, metav1.CreateOptions{})
			f.must(err)
		}
		f.routed(good, address, names(f.site)...)
		f.routed(other, address, names(f.site)...)
		f.eventually("communities at the one", func(ctx context.Context) error { return f.attribute(ctx, good, "communities", "64512:100") })
		f.eventually("a longer path at the other", func(ctx context.Context) error { return f.attribute(ctx, other, "path", "64512 64512 64512") })
		if err := f.attribute(f.ctx, other, "communities", "64512:100"); err == nil {
			t.Error("the other router got the communities too")
		}
	})
	if now := f.since("k8s-node1", good.Name); !now.Equal(up) {
		t.Errorf("the session with the good peer was reset: up since %v, before since %v", now, up)
	}
	if !onKind() { // In the lab, this program can reach the speakers' ports.
		f.bgpIsShown(t, good, other)
	}
}

// attribute checks that an attribute of every route of a router has a value.
func (f *field) attribute(ctx context.Context, r *lab.Router, what, value string) error {
	routes, err := r.Routes(ctx)
	if err != nil {
		return err
	}
	if len(routes) == 0 {
		return errors.New("no routes")
	}
	for _, route := range routes {
		text := map[string]string{
			"communities": fmt.Sprint(route.Communities, route.LargeCommunities),
			"path":        strings.Trim(fmt.Sprint(route.ASPath), "[]"),
		}[what]
		if !strings.Contains(text, value) {
			return fmt.Errorf("%s of %v: %s", what, route.Prefix, text)
		}
	}
	return nil
}

func (f *field) secret(name, password string) {
	f.t.Helper()
	_, err := f.kube.CoreV1().Secrets(lab.PeersNamespace).Create(f.ctx, &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: name}, Type: corev1.SecretTypeBasicAuth, StringData: map[string]string{corev1.BasicAuthPasswordKey: password},
	}, metav1.CreateOptions{})
	f.must(err)
}

func (f *field) patchPeer(name, patch string) error {
	_, err := f.access.Kubectl(f.ctx, "patch", "bgppeer", name, "--type", "merge", "-p", patch)
	return err
}

// since returns when a node's session with a peer came up.
func (f *field) since(node, peer string) (since time.Time) {
	f.t.Helper()
	f.eventually("the session's age in the SpeakerStatus", func(ctx context.Context) error {
		s, err := f.herald.SpeakerStatuses.Get(ctx, node, metav1.GetOptions{})
		if err != nil {
			return err
		}
		for _, o := range s.Status.Sessions {
			if o.Peer == peer && o.State == "Established" && o.Since != "" {
				since, err = time.Parse(time.RFC3339, o.Since)
				return err
			}
		}
		return fmt.Errorf("sessions: %+v", s.Status.Sessions)
	})
	return since
}
