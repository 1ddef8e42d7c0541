package provider

import (
	"context"
	"errors"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	utilnet "k8s.io/apimachinery/pkg/util/net"
	"k8s.io/client-go/util/workqueue"
)

// retryPeriod is the time between two rounds of retries.
const retryPeriod = 5 * time.Second

// retries has the Services whose sync failed because the API server was not available. The service controller tries each
// of them again after a delay that grows to five minutes, so some would wait for minutes after the end of an outage.
//
// In each round retries has the Service synced that has waited longest. If no sync fails until the next round, the API
// server may be well again, and the next round has ten times as many Services. An outage thus costs one attempt in each
// round, and an API server that has just come back is not asked for everything at once.
type retries struct {
	// services has each Service once, in the order in which they failed.
	services workqueue.TypedInterface[types.NamespacedName]
	// failures is true if a sync failed since the last round.
	failures atomic.Bool
	// retry has a Service synced if it needs that.
	retry func(types.NamespacedName)
}

func newRetries(retry func(types.NamespacedName)) *retries {
	return &retries{services: workqueue.NewTyped[types.NamespacedName](), retry: retry}
}

// failed notes the Service if the error means that the API server was not available.
func (r *retries) failed(svc types.NamespacedName, err error) {
	if unavailable(err) {
		r.failures.Store(true)
		r.services.Add(svc)
	}
}

// unavailable reports whether a request failed because the API server could not be reached or could not do its work. What
// it refuses for another reason, it would refuse again.
func unavailable(err error) bool {
	if status, answered := errors.AsType[*apierrors.StatusError](err); answered {
		return status.ErrStatus.Code >= http.StatusInternalServerError || status.ErrStatus.Code == http.StatusTooManyRequests
	}
	_, unreachable := errors.AsType[net.Error](err)
	return unreachable || err != nil && utilnet.IsProbableEOF(err)
}

func (r *retries) run(ctx context.Context) error {
	rounds := time.NewTicker(retryPeriod)
	defer rounds.Stop()
	for most := 1; ; {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-rounds.C:
			most = r.round(most)
		}
	}
}

// round retries Services: one if a sync failed since the last round or if that had no Services, or this many. It returns
// how many the next round may retry.
func (r *retries) round(most int) int {
	if r.failures.Swap(false) {
		most = 1
	}
	n := min(most, r.services.Len())
	for range n {
		svc, _ := r.services.Get()
		r.services.Done(svc)
		r.retry(svc)
	}
	if n == 0 {
		return 1
	}
	return 10 * n
}
