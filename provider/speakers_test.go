package provider

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/zap"
	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"

	herald "github.com/heraldlb/herald/api/v1alpha1"
)

// leaseOf returns a speaker's Lease of 30 s that was renewed at a time of its node's clock.
func leaseOf(node, holder string, at time.Time) *coordinationv1.Lease {
	return &coordinationv1.Lease{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: "herald-system", Name: herald.SpeakerLeasePrefix + node,
			Labels: map[string]string{herald.SpeakerLeaseLabel: herald.SpeakerLeaseLabelValue},
		},
		Spec: coordinationv1.LeaseSpec{HolderIdentity: &holder, RenewTime: new(metav1.NewMicroTime(at)), LeaseDurationSeconds: new(int32(30))},
	}
}

// TestNodesWithoutSpeaker has nodes whose speakers work, ended, hang or never ran, and clocks that are an hour off.
// Speakers on nodes that need not announce anything do not count. While the Leases cannot be listed, the last list stays
// valid for five minutes.
func TestNodesWithoutSpeaker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		now, ctx := time.Now(), t.Context()
		elsewhere, another, timeless := leaseOf("never", "never", now), leaseOf("never", "never", now), leaseOf("timeless", "timeless", now)
		elsewhere.Namespace = "default"
		another.Name, another.Labels = "speaker-other", nil
		timeless.Spec.RenewTime = nil
		kube := fake.NewClientset(
			leaseOf("early", "early", now.Add(time.Hour)), leaseOf("ended", "", now), leaseOf("hangs", "hangs", now), leaseOf("late", "late", now.Add(-time.Hour)),
			leaseOf("excluded", "", now), timeless, another, elsewhere,
		)
		leases := kube.CoordinationV1().Leases("herald-system")
		renew := func(node string, at time.Time) {
			t.Helper()
			if _, err := leases.Update(ctx, leaseOf(node, node, at), metav1.UpdateOptions{}); err != nil {
				t.Error(err)
			}
		}
		var away atomic.Bool
		away.Store(true)
		kube.PrependReactor("list", "leases", func(clienttesting.Action) (bool, runtime.Object, error) {
			return away.Load(), nil, errors.New("the API server is away")
		})
		changes := 0
		s := &speakers{leases: leases, log: zap.NewNop(), changed: func() { changes++ }, announcers: func() []string {
			return []string{"early", "ended", "hangs", "late", "never", "other", "timeless"}
		}}
		compare := func(when string, up ...string) {
			t.Helper()
			var want strings.Builder
			if len(up) > 0 {
				want.WriteString("# HELP herald_node_speaker_up 1 if the speaker runs and reaches the API server, for each node that is expected to announce addresses.\n" +
					"# TYPE herald_node_speaker_up gauge\n")
				for _, node := range s.announcers() {
					value := 0
					if slices.Contains(up, node) {
						value = 1
					}
					fmt.Fprintf(&want, "herald_node_speaker_up{speaker=%q} %d\n", node, value)
				}
			}
			if err := testutil.CollectAndCompare(s, strings.NewReader(want.String())); err != nil {
				t.Errorf("%s: %v", when, err)
			}
		}
		silent := func(want ...string) {
			t.Helper()
			if nodes := slices.Sorted(maps.Keys(s.silent())); !slices.Equal(nodes, want) {
				t.Errorf("silent: %v, want %v", nodes, want)
			}
		}
		running, cancel := context.WithCancel(ctx)
		ended := make(chan error, 1)
		go func() { ended <- s.run(running) }()
		periods := func(n int) {
			time.Sleep(time.Duration(n) * leasesPeriod)
			synctest.Wait()
		}
		synctest.Wait()
		compare("before the first list")
		away.Store(false)
		periods(1)
		compare("of the first list clocks are all that is known", "hangs")
		silent()
		renew("early", now.Add(time.Hour+leasesPeriod))
		renew("late", now.Add(-time.Hour+leasesPeriod))
		periods(1)
		compare("what has changed was renewed", "early", "hangs", "late")
		silent("ended", "excluded", "timeless")
		if problems, err := testutil.CollectAndLint(s); err != nil || len(problems) > 0 {
			t.Error(err, problems)
		}
		if _, err := leases.Create(ctx, leaseOf("never", "never", now), metav1.CreateOptions{}); err != nil {
			t.Error(err)
		}
		periods(1)
		compare("what is new was renewed", "early", "hangs", "late", "never")
		renew("never", now.Add(time.Second))
		periods(1)
		compare("what has not changed for a minute may be late", "early", "late", "never")
		silent("ended", "excluded", "timeless")
		before := changes
		renew("early", now.Add(time.Hour+2*leasesPeriod))
		renew("late", now.Add(-time.Hour+2*leasesPeriod))
		renew("never", now.Add(2*time.Second))
		periods(1)
		silent("ended", "excluded", "hangs", "timeless")
		changed := func(want int) {
			t.Helper()
			if changes != before+want {
				t.Errorf("%d changes were told, want %d", changes-before, want)
			}
		}
		changed(1)
		away.Store(true)
		periods(10)
		compare("nothing is known for five minutes", "early", "late", "never")
		periods(1)
		compare("nothing is known for longer")
		silent()
		changed(2)
		away.Store(false)
		renew("late", now)
		periods(1)
		compare("the Leases are known again", "late")
		changed(3)
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
}
