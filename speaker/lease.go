package speaker

import (
	"context"
	"math"
	"strings"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	typedcoordinationv1 "k8s.io/client-go/kubernetes/typed/coordination/v1"

	herald "github.com/heraldlb/herald/api/v1alpha1"
)

const (
	leaseDuration = 30 * time.Second
	leaseRenewal  = 10 * time.Second
)

// lease maintains the Lease that shows that this speaker runs. Leases are listed and not watched: a speaker that hears no
// other on its segment lists them to find out whether there are others, and herald-ccm lists them for its metrics and to know
// which speakers do not work. A successful renewal also shows that this node reaches the API server.
type lease struct {
	leases  typedcoordinationv1.LeaseInterface
	node    string
	owner   func() []metav1.OwnerReference
	log     *zap.Logger
	changed func(reached bool)
	reached atomic.Bool
}

// run renews the Lease until ctx ends, and then gives it up. After a failure it tries again at the next period: on this node
// only reached depends on the Lease.
func (l *lease) run(ctx context.Context) {
	defer l.release()
	ticker := time.NewTicker(leaseRenewal)
	defer ticker.Stop()
	for {
		err := l.write(ctx, l.node)
		if err != nil && ctx.Err() == nil {
			l.log.Warn("failed to renew the Lease, trying again", zap.Error(err))
		}
		if reached := err == nil; l.reached.Swap(reached) != reached {
			l.changed(reached)
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// release gives up the Lease at the end.
func (l *lease) release() {
	// The context of the process has ended by now, so this write needs a context of its own.
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	if err := l.write(ctx, ""); err != nil {
		l.log.Warn("failed to release the Lease: it stays until it expires", zap.Error(err))
	}
}

func (l *lease) write(ctx context.Context, holder string) error {
	ctx, cancel := context.WithTimeout(ctx, leaseRenewal/2)
	defer cancel()
	now, seconds := metav1.NowMicro(), int32(math.Ceil(leaseDuration.Seconds()))
	spec := coordinationv1.LeaseSpec{HolderIdentity: &holder, RenewTime: &now, LeaseDurationSeconds: &seconds}
	owner := l.owner()
	o, err := l.leases.Get(ctx, herald.SpeakerLeasePrefix+l.node, metav1.GetOptions{})
	if len(owner) == 0 && (err == nil || apierrors.IsNotFound(err)) {
		return nil // The Node was deleted: a Lease without an owner would stay for good.
	}
	if apierrors.IsNotFound(err) {
		_, err = l.leases.Create(ctx, &coordinationv1.Lease{
			ObjectMeta: metav1.ObjectMeta{
				Name: herald.SpeakerLeasePrefix + l.node, OwnerReferences: owner, Labels: map[string]string{herald.SpeakerLeaseLabel: herald.SpeakerLeaseLabelValue},
			},
			Spec: spec,
		}, metav1.CreateOptions{})
		return err
	}
	if err != nil {
		return err
	}
	o.Spec, o.OwnerReferences = spec, owner
	if o.Labels == nil {
		o.Labels = map[string]string{}
	}
	o.Labels[herald.SpeakerLeaseLabel] = herald.SpeakerLeaseLabelValue
	_, err = l.leases.Update(ctx, o, metav1.UpdateOptions{})
	return err
}

// renewed returns the nodes whose Leases have been renewed in time. The clocks of nodes may differ by a few seconds. A renewal
// that is further in the future does not count, like one that is too long ago.
func (l *lease) renewed(ctx context.Context) (map[string]bool, error) {
	list, err := l.leases.List(ctx, metav1.ListOptions{LabelSelector: herald.SpeakerLeaseLabel + "=" + herald.SpeakerLeaseLabelValue, ResourceVersion: "0"})
	if err != nil {
		return nil, err
	}
	nodes := map[string]bool{}
	for i := range list.Items {
		spec := &list.Items[i].Spec
		node, ok := strings.CutPrefix(list.Items[i].Name, herald.SpeakerLeasePrefix)
		if ok && spec.HolderIdentity != nil && *spec.HolderIdentity != "" && spec.RenewTime != nil && time.Since(spec.RenewTime.Time).Abs() < leaseDuration {
			nodes[node] = true
		}
	}
	return nodes, nil
}
