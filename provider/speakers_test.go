package provider

import (
	"context"
	"errors"
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
)

// renewed is a Lease of 30 s.
func renewed(name, holder string, at time.Time) *coordinationv1.Lease {
	return &coordinationv1.Lease{
		ObjectMeta: metav1.ObjectMeta{Namespace: "herald-system", Name: name},
		Spec:       coordinationv1.LeaseSpec{HolderIdentity: &holder, RenewTime: new(metav1.NewMicroTime(at)), LeaseDurationSeconds: new(int32(30))},
	}
}

func TestLapsed(t *testing.T) {
	now := time.Now()
	for name, c := range map[string]struct {
		lease *coordinationv1.Lease
		want  bool
	}{
		"just renewed":                     {renewed("speaker-n", "n", now), false},
		"renewed by a clock that is late":  {renewed("speaker-n", "n", now.Add(-time.Minute)), false},
		"renewed by a clock that is early": {renewed("speaker-n", "n", now.Add(time.Hour)), false},
		"not renewed":                      {renewed("speaker-n", "n", now.Add(-time.Minute-time.Second)), true},
		"given up":                         {renewed("speaker-n", "", now), true},
		"without a holder":                 {&coordinationv1.Lease{Spec: coordinationv1.LeaseSpec{RenewTime: new(metav1.NewMicroTime(now)), LeaseDurationSeconds: new(int32(30))}}, true},
		"without a time":                   {&coordinationv1.Lease{Spec: coordinationv1.LeaseSpec{HolderIdentity: new("n")}}, false},
	} {
		if got := Lapsed(c.lease, now); got != c.want {
			t.Errorf("a Lease that is %s: lapsed: %v", name, got)
		}
	}
}

// TestNodesWithoutSpeaker has nodes whose speakers work, ended, hang or never ran. Speakers of nodes that are to announce
// nothing do not count. While the Leases cannot be listed, nothing is said of the speakers that was not known before.
func TestNodesWithoutSpeaker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		now := time.Now()
		elsewhere := renewed("speaker-never", "never", now)
		elsewhere.Namespace = "default"
		kube := fake.NewClientset(
			renewed("speaker-works", "works", now.Add(time.Hour)), renewed("speaker-ended", "", now), renewed("speaker-hangs", "hangs", now.Add(-time.Hour)),
			renewed("speaker-excluded", "", now), renewed("herald-ccm", "never", now), elsewhere,
		)
		var away atomic.Bool
		away.Store(true)
		kube.PrependReactor("list", "leases", func(clienttesting.Action) (bool, runtime.Object, error) {
			return away.Load(), nil, errors.New("the API server is away")
		})
		s := &speakers{
			leases: kube.CoordinationV1().Leases("herald-system"), log: zap.NewNop(),
			announcers: func() []string { return []string{"ended", "hangs", "never", "works"} },
		}
		compare := func(want string) {
			t.Helper()
			if want != "" {
				want = `
# HELP herald_node_speaker_up 1 if the speaker runs and reaches the API server, for each node that is expected to announce addresses.
# TYPE herald_node_speaker_up gauge
` + want
			}
			if err := testutil.CollectAndCompare(s, strings.NewReader(want)); err != nil {
				t.Error(err)
			}
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- s.run(ctx) }()
		period := func() {
			time.Sleep(leasesPeriod)
			synctest.Wait()
		}
		synctest.Wait()
		compare("")
		const some = `herald_node_speaker_up{speaker="ended"} 0
herald_node_speaker_up{speaker="hangs"} 0
herald_node_speaker_up{speaker="never"} 0
herald_node_speaker_up{speaker="works"} 1
`
		away.Store(false)
		period()
		compare(some)
		if problems, err := testutil.CollectAndLint(s); err != nil || len(problems) > 0 {
			t.Error(err, problems)
		}
		if _, err := kube.CoordinationV1().Leases("herald-system").Create(ctx, renewed("speaker-never", "never", time.Now()), metav1.CreateOptions{}); err != nil {
			t.Error(err)
		}
		away.Store(true)
		period()
		compare(some)
		away.Store(false)
		period()
		compare(strings.Replace(some, `"never"} 0`, `"never"} 1`, 1))
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
}
