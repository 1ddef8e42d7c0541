package e2e

import (
	"context"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	herald "github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/e2e/lab"
)

// TestASpeakerIsAwayWhileItsNodeLives is about speakers that crash, hang, are updated or end while their nodes run. The
// nodes forward, so clients must notice nothing.
func TestASpeakerIsAwayWhileItsNodeLives(t *testing.T) {
	f := withSegment(t, 3)
	all := observing{open: true, keep: kept}

	t.Run("it crashes, and comes back", func(t *testing.T) {
		f := f.within(t)
		owner := f.gather()
		o := f.observe(all)
		f.must(f.speakers[owner].Kill())
		f.silent(owner)
		f.start(owner)
		s := o.end()
		s.stayed(owner)
		s.unharmed()
		s.answeredByDeputies()
	})
	t.Run("it hangs for three seconds", func(t *testing.T) {
		f := f.within(t)
		owner := f.gather()
		o := f.observe(all)
		f.must(f.speakers[owner].Freeze())
		frozen := time.Now()
		f.silent(owner)
		f.pass(time.Until(frozen.Add(3 * time.Second))) // The sooner the speaker is heard again, the more of the grace period is left.
		f.must(f.speakers[owner].Resume())
		f.noDeputies()
		s := o.end()
		s.stayed(owner)
		s.unharmed()
		s.answeredByDeputies()
	})
	t.Run("it hangs for longer than the grace, and yields when it wakes", func(t *testing.T) {
		f := f.within(t)
		owner := f.gather()
		o := f.observe(observing{open: true})
		f.must(f.speakers[owner].Freeze())
		f.silent(owner)
		o.settled(without(f.nodes, owner)...)
		f.must(f.speakers[owner].Resume())
		f.members()
		f.reported(owner, "that it owns nothing", func(s *herald.SpeakerStatusStatus) bool { return len(s.Claims) == 0 })
		s := o.end()
		s.failedOver(owner, atOnce)
		s.answeredByDeputies()
	})
	t.Run("it is stopped, as when its node shuts down", func(t *testing.T) {
		f := f.within(t)
		owner := f.gather()
		o := f.observe(observing{open: true})
		soon := time.Now().Add(atOnce)
		f.must(f.speakers[owner].Stop(f.ctx))
		o.settled(without(f.nodes, owner)...)
		f.start(owner)
		s := o.end()
		s.before(soon)
		s.failedOver(owner, atOnce)
	})
	t.Run("its node is excluded", func(t *testing.T) {
		f := f.within(t)
		owner := f.gather()
		o := f.observe(observing{open: true})
		soon := f.exclude(true, owner).Add(atOnce)
		o.settled(without(f.nodes, owner)...)
		f.exclude(false, owner)
		f.pass(time.Second) // The node must not take the addresses back.
		s := o.end()
		s.before(soon)
		s.failedOver(owner, atOnce)
	})
	t.Run("all are updated, one after the other", func(t *testing.T) {
		f := f.within(t)
		owner := f.gather()
		o := f.observe(all)
		for _, n := range f.nodes {
			f.podDeleted(lab.SpeakerPod(f.site.Node(n)))
			f.must(f.speakers[n].Stop(f.ctx))
			f.start(n)
		}
		s := o.end()
		s.stayed(owner)
		s.unharmed()
	})
}

// silent waits until the others report that they do not hear the speaker of a living node.
func (f *segmentField) silent(node string) {
	f.t.Helper()
	for _, a := range f.addresses {
		f.deputised(a.String(), node)
	}
}

// start starts a node's speaker again and waits until it is a member as before.
func (f *segmentField) start(node string) {
	f.t.Helper()
	before := f.boot(node)
	f.must(f.speakers[node].Start())
	f.rebooted(node, before)
	f.noDeputies()
}

// boot returns the identifier of the present run of a node's speaker, as the speaker reports it.
func (f *field) boot(node string) string {
	f.t.Helper()
	s, err := f.herald.SpeakerStatuses.Get(f.ctx, node, metav1.GetOptions{})
	f.must(err)
	if s.Status.Identity == nil {
		f.t.Fatalf("%s reports no identity", node)
	}
	return s.Status.Identity.Boot
}

// rebooted waits until a node's speaker reports another run than before.
func (f *segmentField) rebooted(node, before string) {
	f.t.Helper()
	f.reported(node, "a new boot", func(s *herald.SpeakerStatusStatus) bool {
		return s.Identity != nil && s.Identity.Boot != before
	})
}

// noDeputies waits until all speakers hear each other and none answers for another node.
func (f *segmentField) noDeputies() {
	f.t.Helper()
	f.members()
	for _, n := range f.nodes {
		f.reported(n, "that it answers for nobody else", func(s *herald.SpeakerStatusStatus) bool {
			return !slices.ContainsFunc(s.Claims, func(c herald.SpeakerClaim) bool { return c.DeputyFor != "" })
		})
	}
}

// answeredByDeputies fails the part unless other nodes answered for each address with its owner's MAC.
func (s *seen) answeredByDeputies() {
	s.f.t.Helper()
	for _, a := range s.f.addresses {
		if s.deputised[a] == 0 {
			s.f.t.Errorf("nobody else answered for %s with its owner's MAC", a)
		}
	}
}

// TestBusyProcessorsCauseNoDeath deprives the speakers of CPU time for 30 seconds, or for HERALD_SOAK, such as 10m.
func TestBusyProcessorsCauseNoDeath(t *testing.T) {
	d := 30 * time.Second
	if text := os.Getenv("HERALD_SOAK"); text != "" {
		var err error
		if d, err = time.ParseDuration(text); err != nil {
			t.Fatalf("HERALD_SOAK: %v", err)
		}
	}
	f := withSegment(t, 3)
	ctx, cancel := context.WithTimeout(t.Context(), d+patience)
	defer cancel()
	f.ctx = ctx
	owner := f.gather()
	o := f.observe(observing{open: true})
	end := busy(t, 2*runtime.NumCPU())
	o.stays(d, owner)
	end()
	s := o.end()
	s.stayed(owner)
	f.members() // This checks that no death is reported.
	for n, p := range f.labField.speakers {
		if deaths := strings.Count(p.Log(), "a neighbour is dead"); deaths > 0 {
			t.Errorf("the speaker of %s took a neighbour for dead %d times", n, deaths)
		}
	}
}

// busy starts n processes that each use all the time of a CPU. They end with the test or when end is called.
func busy(t testing.TB, n int) (end func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var loops []*exec.Cmd
	end = func() {
		cancel()
		for _, l := range loops {
			_ = l.Wait() // It was killed.
		}
		loops = nil
	}
	t.Cleanup(end)
	for range n {
		l := exec.CommandContext(ctx, "sh", "-c", "while :; do :; done")
		if err := l.Start(); err != nil {
			t.Fatal(err)
		}
		loops = append(loops, l)
	}
	return end
}
