package speaker

import (
	"context"
	"time"

	"go.uber.org/zap"
	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/heraldlb/herald/speaker/bgp"
)

const (
	// successorTime is how long a speaker that is replaced keeps its place: a new pod starts within it,
	// with an image that the node has. Nobody answers new questions for its addresses meanwhile, so it is
	// no longer than that; whoever has asked before sends on, and kube-proxy serves.
	successorTime = 10 * time.Second
	// settling is how long it takes the other speakers to act on what was written and be heard.
	settling = time.Second
	// podTimeout bounds the question whether the own pod was deleted.
	podTimeout = time.Second
)

// farewell is the cause for which this speaker ends: ErrRestart if its pod was deleted, which is what an
// update of Herald does; nil if only the process was told to end, as the shutdown of a node does. Other
// ways to delete the pod, such as another selector for Herald's nodes, cost new clients successorTime.
func (s *Speaker) farewell() error {
	if s.config.Pod == "" {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), podTimeout)
	defer cancel()
	pod, err := s.config.Kube.CoreV1().Pods(s.config.Namespace).Get(ctx, s.config.Pod, metav1.GetOptions{})
	if err != nil {
		s.log.Warn("not known whether a successor follows: everything is given up", zap.String("pod", s.config.Pod), zap.Error(err))
		return nil
	}
	if pod.DeletionTimestamp == nil {
		return nil
	}
	return bgp.ErrRestart
}

// terms are what a speaker's Lease says.
type terms struct {
	holder  string
	renewed time.Time
	good    time.Duration // from renewed on
}

// termsOf reads a Lease; one that does not say how long it is good is as good as ours.
func termsOf(o *coordinationv1.Lease, usual time.Duration) terms {
	t := terms{good: usual}
	if o.Spec.HolderIdentity != nil {
		t.holder = *o.Spec.HolderIdentity
	}
	if o.Spec.RenewTime != nil {
		t.renewed = o.Spec.RenewTime.Time
	}
	if s := o.Spec.LeaseDurationSeconds; s != nil && *s > 0 {
		t.good = time.Duration(*s) * time.Second
	}
	return t
}

// takeOver is for the start: it looks at the Lease of whoever spoke for this node before, if anybody did.
// One that is soon over, or was over lately, may be making others take this node's addresses right now: it
// is renewed, and what they did meanwhile is waited for. The Lease was written by this node's own clock.
func (l *lease) takeOver(ctx context.Context, before *coordinationv1.Lease) error {
	if before == nil {
		return nil
	}
	t := termsOf(before, l.duration)
	if age := time.Since(t.renewed); t.holder == "" || age < t.good/2 {
		return nil
	}
	if err := l.write(ctx, l.node, l.duration); err != nil {
		l.log.Warn("Lease not written, trying again", zap.Error(err)) // By run.
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(settling):
		return nil
	}
}
