package e2e

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/endpoints/request"

	herald "github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/e2e/lab"
)

// withProxy starts an API server, a proxy in front of it, and a herald-ccm that uses the proxy. There is no leader
// election, because the successor of a killed leader would wait 15 s for the Lease to expire.
func withProxy(t *testing.T) (*cluster, *lab.ControlPlane, *proxy, *lab.Process) {
	t.Helper()
	ctx, plane := startControlPlane(t, false)
	c, p := clusterOf(t, ctx, &plane.Access), startProxy(t, plane)
	return c, plane, p, startAlone(t, plane, "--kubeconfig", p.kubeconfig)
}

// startAlone starts a herald-ccm without leader election.
func startAlone(t *testing.T, plane *lab.ControlPlane, args ...string) *lab.Process {
	t.Helper()
	ccm, err := plane.StartCCM(append([]string{"--leader-elect=false", "--secure-port=0"}, args...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(tail(ccm.Log()))
		}
	})
	return ccm
}

// TestACrashAtAnyWrite repeats a short story. Each time herald-ccm is killed just before one of its writes reaches the API
// server, starts again, and is killed again just after its next write, which is usually the same one. For the API server,
// a crash after a write is the same as a crash before the next one. The test therefore covers every other write.
func TestACrashAtAnyWrite(t *testing.T) {
	c, _, p, ccm := withProxy(t)
	history := c.record(laws{oneLeader: true, rest: time.Second})
	var dying sync.Mutex // A process may have several concurrent writes.
	crash := func() {
		dying.Lock()
		defer dying.Unlock()
		if err := errors.Join(ccm.Kill(), ccm.Start()); err != nil {
			t.Error(err)
		}
	}
	total := 0
	for crashed := true; crashed; total += 2 {
		var mu sync.Mutex
		lives, count := 1, 0
		p.inflict(func(r *request.RequestInfo) fault {
			if !writes(r) {
				return nil
			}
			mu.Lock()
			defer mu.Unlock()
			count++
			switch {
			case lives == 1 && count == total+1:
				lives, count = 2, 0
				t.Logf("a crash before write %d, %s", total+1, described(r))
				return lost(crash)
			case lives == 2 && count == 1:
				lives = 3
				t.Logf("a crash after %s", described(r))
				return answerLost(crash)
			}
			return nil
		})
		c.shortStory()
		mu.Lock()
		crashed = lives > 1
		mu.Unlock()
	}
	if total < 20 {
		t.Errorf("the story took %d writes or so: does herald-ccm come by the proxy at all?", total)
	}
	history.judge()
}

func described(r *request.RequestInfo) string {
	return fmt.Sprintf("%s %s %s/%s", r.Verb, r.Resource, r.Name, r.Subresource)
}

// shortStory creates a pool and three Services, and deletes them.
func (c *cluster) shortStory() {
	c.t.Helper()
	// The order is lowest first. With another order a Service might get the address that picky asks for after a crash.
	c.pool("public", func(s *herald.IPPoolSpec) { s.AddressOrder = herald.OrderLowest; delay(time.Second)(s) }, "198.51.100.0/28", "2001:db8:51::/124")
	names := []string{"plain", "dual", "picky"}
	c.service("plain")
	c.service("dual", dualStack)
	c.service("picky", annotated(herald.AnnotationIPs, "198.51.100.7"))
	c.holds("picky", "198.51.100.7")
	c.edit("picky", annotated(herald.AnnotationIPs, "198.51.100.9"))
	c.holds("picky", "198.51.100.9")
	c.eventually("all have addresses", func(context.Context) error {
		if has := c.allAddresses(); len(has) != len(names) {
			return fmt.Errorf("there are %v", has)
		}
		return nil
	})
	for _, name := range names {
		c.remove(name)
	}
	c.must(c.herald.Pools.Delete(c.ctx, "public", metav1.DeleteOptions{}))
	c.poolGone("public")
	c.atRest()
}

// TestRequestsFail creates and deletes Services while one request in eight fails in some way.
func TestRequestsFail(t *testing.T) {
	c, _, p, _ := withProxy(t)
	history := c.record(laws{oneLeader: true})
	c.pool("public", delay(0), trafficPool, "2001:db8:51::/124")

	t.Run("an address is nobody else's before its Service's status says so", func(t *testing.T) {
		c := c.within(t)
		const wanted, other = "198.51.100.20", "198.51.100.21"
		c.service("leaving", annotated(herald.AnnotationIPs, wanted))
		c.holds("leaving", wanted)
		p.inflict(func(r *request.RequestInfo) fault {
			if r.Verb != "patch" || r.Name != "leaving" {
				return nil
			}
			return lost(func() {})
		})
		c.edit("leaving", annotated(herald.AnnotationIPs, other))
		c.event("Service", "leaving", "SyncLoadBalancerFailed", "failed to update load balancer status")
		c.service("coming", annotated(herald.AnnotationIPs, wanted))
		c.event("Service", "coming", "SyncLoadBalancerFailed", wanted+" is held by default/leaving")
		p.inflict(nil)
		c.holds("leaving", other)
		c.holds("coming", wanted)
	})

	t.Run("a move ends although the Service meanwhile asks for an address that another one holds", func(t *testing.T) {
		c := c.within(t)
		const from, to, taken = "198.51.100.22", "198.51.100.23", "198.51.100.24"
		c.service("holder", annotated(herald.AnnotationIPs, taken))
		c.holds("holder", taken)
		c.service("mover", annotated(herald.AnnotationIPs, from))
		c.holds("mover", from)
		// herald-ccm cannot read the Service's status once it must change to the new address.
		var asked atomic.Int32
		p.inflict(func(r *request.RequestInfo) fault {
			if r.Verb != "get" || r.Name != "mover" || asked.Add(1) == 1 {
				return nil
			}
			return lost(func() {})
		})
		c.edit("mover", annotated(herald.AnnotationIPs, to))
		c.eventually("the status says the new address", func(context.Context) error {
			if has := addresses(c.get("mover")); !slices.Equal(has, []string{to}) {
				return fmt.Errorf("it has %v", has)
			}
			return nil
		})
		c.edit("mover", annotated(herald.AnnotationIPs, taken))
		p.inflict(nil)
		c.event("Service", "mover", "SyncLoadBalancerFailed", taken+" is held by default/holder")
		c.unrecorded(from)
		c.holds("mover", to)
		for _, name := range []string{"mover", "holder"} {
			c.remove(name)
			c.gone(name)
		}
	})

	rng := chance(t)
	users := traffic{cluster: c, rng: rng}
	dice := newDice(rng)
	p.inflict(func(r *request.RequestInfo) fault {
		if r.Verb == "watch" || r.Resource == "events" || dice.roll(8) > 0 {
			return nil
		}
		kind := schema.GroupResource{Group: r.APIGroup, Resource: r.Resource}
		return []fault{
			refused(apierrors.NewInternalError(errors.New("made up"))),
			refused(apierrors.NewTooManyRequests("made up", 1)),
			refused(apierrors.NewConflict(kind, r.Name, errors.New("made up"))),
			lost(func() {}),
			answerLost(func() {}),
			slow(time.Second),
			answerSlow(2 * time.Second),
		}[dice.roll(7)]
	})
	for range 60 {
		users.step()
		pause(c.ctx, 100*time.Millisecond)
	}
	p.inflict(nil)
	c.atRest()
	history.judge()
}

// dice is a random number generator for concurrent use.
type dice struct {
	mu  sync.Mutex
	rng *rand.Rand
}

func newDice(rng *rand.Rand) *dice { return &dice{rng: rand.New(rand.NewPCG(rng.Uint64(), 0))} }

func (d *dice) roll(n int) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.rng.IntN(n)
}

// TestWatchesAreLate is about a herald-ccm that acts on outdated state.
func TestWatchesAreLate(t *testing.T) {
	c, _, p, _ := withProxy(t)
	history := c.record(laws{oneLeader: true})
	c.pool("public", delay(0), trafficPool, "2001:db8:51::/124")
	c.service("first")
	c.holds("first", "198.51.100.0")

	t.Run("an address that was reserved unseen is not given out", func(t *testing.T) {
		c := c.within(t)
		p.holdWatches("ipallocations")
		c.reserve("198.51.100.1")
		c.service("second")
		c.holds("second", "198.51.100.2")
		p.holdWatches()
		c.must(c.herald.Allocations.Delete(c.ctx, "198.51.100.1", metav1.DeleteOptions{}))
	})
	t.Run("what is recorded for a Service that was not seen yet is not taken for an orphan's", func(t *testing.T) {
		c := c.within(t)
		p.holdWatches("services")
		svc := c.service("unseen")
		c.reserve("198.51.100.20", herald.AllocationOwner{Namespace: svc.Namespace, Name: svc.Name, UID: svc.UID})
		c.reserve("198.51.100.21", herald.AllocationOwner{Namespace: svc.Namespace, Name: svc.Name, UID: "another"})
		c.unrecorded("198.51.100.21") // herald-ccm checks this record after the one of 198.51.100.20.
		p.holdWatches()
		c.holds("unseen", "198.51.100.20")
		c.atRest()
	})
	t.Run("Services come and go", func(t *testing.T) {
		c := c.within(t)
		rng := chance(t)
		users := traffic{cluster: c, rng: rng, live: []string{"first", "second", "unseen"}}
		for range 15 {
			resources := []string{"services", "ipallocations", "ippools", "namespaces"}
			p.holdWatches(slices.DeleteFunc(resources, func(string) bool { return rng.IntN(2) == 0 })...)
			for range 4 {
				users.step()
				pause(c.ctx, time.Duration(rng.IntN(200))*time.Millisecond)
			}
		}
		p.holdWatches()
		c.atRest()
	})
	history.judge()
}

// reserve creates a record by hand.
func (c *cluster) reserve(address string, owners ...herald.AllocationOwner) {
	c.t.Helper()
	_, err := c.herald.Allocations.Create(c.ctx, &herald.IPAllocation{
		ObjectMeta: metav1.ObjectMeta{Name: address}, Spec: herald.IPAllocationSpec{Address: address, Owners: owners},
	}, metav1.CreateOptions{})
	c.must(err)
}

// TestTwoLeaders runs two herald-ccms that both act as the only leader. One of them receives all events late. Then one
// ends, and the other one corrects its effects.
func TestTwoLeaders(t *testing.T) {
	c, plane, p, second := withProxy(t)
	first := startAlone(t, plane)
	history := c.record(laws{})
	c.pool("public", delay(0), trafficPool, "2001:db8:51::/124")
	rng := chance(t)
	users, dice := traffic{cluster: c, rng: rng}, newDice(rng)
	p.delayWatches(func() time.Duration { return time.Duration(dice.roll(1500)) * time.Millisecond })
	for range 100 {
		users.step()
		pause(c.ctx, time.Duration(rng.IntN(200))*time.Millisecond)
	}
	left, gone := first, second
	if rng.IntN(2) == 0 {
		left, gone = second, first
	}
	c.must(gone.Kill())
	p.delayWatches(nil)
	c.atRest()

	// The cases that occur by chance above, one by one.
	const has, more = "203.0.113.1", "203.0.113.2"
	c.pool("quiet", func(s *herald.IPPoolSpec) { no := false; s.AutoAssign = &no; delay(0)(s) }, "203.0.113.0/29")
	svc := c.service("web", annotated(herald.AnnotationIPs, has))
	c.holds("web", has)
	c.edit("web", func(svc *corev1.Service) { svc.Annotations = nil })
	owner := herald.AllocationOwner{Namespace: svc.Namespace, Name: svc.Name, UID: svc.UID}
	t.Run("a second address for a Service", func(t *testing.T) {
		c := c.within(t)
		c.reserve(more, owner)
		c.unrecorded(more)
		c.holds("web", has)
	})
	t.Run("a second address for a Service, found at start", func(t *testing.T) {
		c := c.within(t)
		c.must(left.Kill())
		c.reserve(more, owner)
		c.must(left.Start())
		c.unrecorded(more)
		c.holds("web", has)
	})
	t.Run("a Service moved on, and its status does not say so", func(t *testing.T) {
		c := c.within(t)
		c.reserve(more, owner)
		c.eventually("what it had is released", func(ctx context.Context) error {
			rec, err := c.herald.Allocations.Get(ctx, has, metav1.GetOptions{})
			if err != nil {
				return err
			}
			now := metav1.Now()
			rec.Spec.ReleasedAt = &now
			_, err = c.herald.Allocations.Update(ctx, rec, metav1.UpdateOptions{})
			return err
		})
		c.atRest() // With either address.
		c.edit("web", annotated(herald.AnnotationIPs, has))
		c.holds("web", has)
		c.unrecorded(more)
	})
	t.Run("a Service cleaned up after that is still there", func(t *testing.T) {
		c := c.within(t)
		c.edit("web", func(svc *corev1.Service) { svc.Finalizers = nil })
		c.must(setStatus(c, "web"))
		c.holds("web", has)
		c.eventually("the finalizer is back", func(context.Context) error {
			if len(c.get("web").Finalizers) != 1 {
				return errors.New("it is not")
			}
			return nil
		})
	})
	c.atRest()
	history.judge()
}
