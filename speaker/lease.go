package speaker

import (
	"context"
	"math"
	"strings"
	"time"

	"go.uber.org/zap"
	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	typedcoordinationv1 "k8s.io/client-go/kubernetes/typed/coordination/v1"
)

// leasePrefix and the node's name make the name of a speaker's Lease.
const leasePrefix = "speaker-"

func nodeOfLease(name string) (string, bool) { return strings.CutPrefix(name, leasePrefix) }

// lease tells the other speakers that they can count on this node: its speaker runs and its kube-proxy
// serves. It is renewed in a third of its duration, and given up, with an empty holder, as soon as that
// is no longer so.
type lease struct {
	leases   typedcoordinationv1.LeaseInterface
	node     string
	owner    func() []metav1.OwnerReference
	duration time.Duration
	log      *zap.Logger
}

// run renews until ctx ends. A failure is tried again at the next turn: nothing else depends on it here.
func (l *lease) run(ctx context.Context, healthy func() bool) error {
	// A change of health is acted on at a tick, not at the next renewal.
	tick := max(l.duration/12, 50*time.Millisecond)
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	var renewed time.Time
	given := false
	for {
		var err error
		switch now := healthy(); {
		case now && (given || time.Since(renewed) > l.duration/3-tick/2):
			if err = l.write(ctx, l.node, l.duration); err == nil {
				renewed, given = time.Now(), false
			}
		case !now && !given:
			if err = l.write(ctx, "", l.duration); err == nil {
				given = true
			}
		}
		if err != nil && ctx.Err() == nil {
			l.log.Warn("Lease not written, trying again", zap.Error(err))
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-ticker.C:
		}
	}
}

// release gives the Lease up at the end, so that the others take over at once.
func (l *lease) release() { l.last("", l.duration) }

// leave makes the Lease good for as long as a successor may take to come.
func (l *lease) leave() { l.last(l.node, successorTime) }

func (l *lease) last(holder string, good time.Duration) {
	// The process was told to end: what it was given is over, this is what it does on its own time.
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	if err := l.write(ctx, holder, good); err != nil {
		l.log.Warn("last word not written: the other speakers wait for the Lease to expire", zap.Error(err))
	}
}

// write sets the holder, the time, and how long the Lease is good from now.
func (l *lease) write(ctx context.Context, holder string, good time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, max(l.duration/3, time.Second))
	defer cancel()
	now, seconds := metav1.NowMicro(), int32(math.Ceil(good.Seconds()))
	spec := coordinationv1.LeaseSpec{HolderIdentity: &holder, RenewTime: &now, LeaseDurationSeconds: &seconds}
	o, err := l.leases.Get(ctx, leasePrefix+l.node, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		_, err = l.leases.Create(ctx, &coordinationv1.Lease{
			ObjectMeta: metav1.ObjectMeta{
				Name: leasePrefix + l.node, OwnerReferences: l.owner(), Labels: map[string]string{leaseLabel: leaseLabelValue},
			},
			Spec: spec,
		}, metav1.CreateOptions{})
		return err
	}
	if err != nil {
		return err
	}
	o.Spec = spec
	if o.Labels == nil {
		o.Labels = map[string]string{}
	}
	o.Labels[leaseLabel] = leaseLabelValue
	_, err = l.leases.Update(ctx, o, metav1.UpdateOptions{})
	return err
}
