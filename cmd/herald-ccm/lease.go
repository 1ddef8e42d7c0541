package main

import (
	"context"
	"os"
	"strings"
	"sync/atomic"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	coordinationv1 "k8s.io/client-go/kubernetes/typed/coordination/v1"
)

// lease releases the leader's lease at the end, so that the next leader need not wait 15 s until it
// expires. The stock app does not release it: it renews the lease until the process ends.
type lease struct {
	leases coordinationv1.LeaseInterface
	name   string
	// led is true once this process has been the leader.
	led atomic.Bool
}

// release clears the holder of the lease if it is this process. The app's identity is "host_uuid".
func (l *lease) release(ctx context.Context) error {
	if !l.led.Load() {
		return nil
	}
	host, err := os.Hostname()
	if err != nil {
		return err
	}
	for {
		o, err := l.leases.Get(ctx, l.name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		if o.Spec.HolderIdentity == nil || !strings.HasPrefix(*o.Spec.HolderIdentity, host+"_") {
			return nil
		}
		nobody, second := "", int32(1)
		o.Spec.HolderIdentity, o.Spec.LeaseDurationSeconds = &nobody, &second
		// A conflict comes from the app's own renewal: try again.
		if _, err := l.leases.Update(ctx, o, metav1.UpdateOptions{}); !apierrors.IsConflict(err) {
			return err
		}
	}
}
