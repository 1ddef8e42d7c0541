package provider

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	utilnet "k8s.io/apimachinery/pkg/util/net"
)

const (
	// retryPeriod is the time between two rounds of retries.
	retryPeriod = 5 * time.Second
	// longestRetry is the most time before a Service is retried that keeps failing.
	longestRetry = time.Minute
	// forgetAfter is the time after which the failures of a Service no longer count. It is longer than the longest pause between
	// two attempts, which the service controller makes.
	forgetAfter = 10 * time.Minute
)

// retries has the Services whose sync failed because the API server was not available. The service controller tries each
// of them again after a delay that grows to five minutes, so some would wait for minutes after the end of an outage.
//
// In each round retries has the Service synced that has waited longest. If no sync fails until the next round, the API
// server may be well again, and the next round has ten times as many Services. An outage thus costs one attempt in each
// round, and an API server that has just come back is not asked for everything at once.
//
// A Service that fails again and again waits ever longer, up to longestRetry: it may be the only one that fails, for example
// because a webhook fails for it. It comes after those that wait since an outage, so it does not hold them up.
type retries struct {
	// retry has a Service synced if it needs that.
	retry func(types.NamespacedName)

	mu sync.Mutex
	// services are those that failed lately.
	services map[types.NamespacedName]failure
	// failures is true if a sync failed since the last round.
	failures bool
}

// failure is what is known of a Service whose sync failed.
type failure struct {
	// times counts the failures. last is when the last one was, and due when the Service is to be retried. waits is false if it
	// was retried and has not failed since.
	times     int
	last, due time.Time
	waits     bool
}

func newRetries(retry func(types.NamespacedName)) *retries {
	return &retries{services: map[types.NamespacedName]failure{}, retry: retry}
}

// failed notes the Service if the error means that the API server was not available.
func (r *retries) failed(svc types.NamespacedName, err error) {
	if !unavailable(err) {
		return
	}
	now := time.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.failures = true
	f := r.services[svc]
	if !f.waits { // Otherwise the service controller has tried it in between.
		f.due = now.Add(min(longestRetry, retryPeriod<<min(f.times, 10)) - retryPeriod)
		f.times++
	}
	f.last, f.waits = now, true
	r.services[svc] = f
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

// round retries up to most Services, due or not. If a sync has failed since the last round, or if most is 1, as at the start and after a
// round without Services, it retries at most one, and only one that is due. It returns how many the next round may retry.
func (r *retries) round(most int) int {
	next := r.next(most, time.Now())
	for _, svc := range next {
		r.retry(svc)
	}
	if len(next) == 0 {
		return 1
	}
	return 10 * len(next)
}

// next returns the Services that the next round retries, those that are due first.
func (r *retries) next(most int, now time.Time) (next []types.NamespacedName) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.failures {
		most = 1
	}
	r.failures = false
	maps.DeleteFunc(r.services, func(_ types.NamespacedName, f failure) bool { return !f.waits && now.Sub(f.last) > forgetAfter })
	for svc, f := range r.services {
		if f.waits && (most > 1 || !f.due.After(now)) {
			next = append(next, svc)
		}
	}
	slices.SortFunc(next, func(x, y types.NamespacedName) int {
		return cmp.Or(r.services[x].due.Compare(r.services[y].due), strings.Compare(x.String(), y.String()))
	})
	next = next[:min(most, len(next))]
	for _, svc := range next {
		f := r.services[svc]
		f.waits = false
		r.services[svc] = f
	}
	return next
}
