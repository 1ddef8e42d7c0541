package provider

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	kubetesting "k8s.io/client-go/testing"

	herald "github.com/heraldlb/herald/api/v1alpha1"
)

// TestServicesAreServedSoonAfterAnOutage has an API server that writes no Service for more than an hour.
func TestServicesAreServedSoonAfterAnOutage(t *testing.T) {
	const many = 50
	withController(t, func(w *controllerWorld) {
		var out atomic.Bool
		var attempts atomic.Int64
		w.kube.PrependReactor("patch", "services", func(kubetesting.Action) (bool, runtime.Object, error) {
			attempts.Add(1)
			return out.Load(), nil, apierrors.NewInternalError(errors.New("etcdserver: no leader"))
		})
		// lack counts the Services without an address.
		lack := func() (n int) {
			list, err := w.kube.CoreV1().Services("default").List(t.Context(), metav1.ListOptions{})
			if err != nil {
				t.Fatal(err)
			}
			for _, svc := range list.Items {
				if len(svc.Status.LoadBalancer.Ingress) == 0 {
					n++
				}
			}
			return n
		}
		out.Store(true)
		for i := range many {
			svc := service(fmt.Sprintf("web-%d", i), wish{families: []corev1.IPFamily{v4}})
			svc.ResourceVersion = "1"
			if _, err := w.kube.CoreV1().Services("default").Create(t.Context(), svc, metav1.CreateOptions{}); err != nil {
				t.Fatal(err)
			}
		}
		// The service controller tries each Service 18 times at most in this time.
		const outage = time.Hour + 9*retryPeriod/2
		time.Sleep(outage)
		if n, most := attempts.Load(), int64(many*18+outage/retryPeriod); lack() != many || n > most {
			t.Errorf("%d of %d Services have no address, after %d attempts, want %d attempts at most", lack(), many, n, most)
		}
		out.Store(false)
		time.Sleep(retryPeriod)
		synctest.Wait()
		if n := many - lack(); n != 1 {
			t.Errorf("in the first round, %d Services were given an address, want 1", n)
		}
		time.Sleep(4 * retryPeriod)
		synctest.Wait()
		if n := lack(); n > 0 {
			t.Errorf("%d Services have no address yet", n)
		}
		attempts.Store(0)
		w.create()
		if n := attempts.Load(); n != 1 {
			t.Errorf("a new Service took %d attempts", n)
		}
	})
}

// TestAServiceThatAlwaysFailsIsTriedOnceAMinute has a webhook that fails for one Service, and an outage in which others fail, too.
func TestAServiceThatAlwaysFailsIsTriedOnceAMinute(t *testing.T) {
	const many = 50
	withController(t, func(w *controllerWorld) {
		var out atomic.Bool
		var attempts atomic.Int64
		w.kube.PrependReactor("patch", "services", func(a kubetesting.Action) (bool, runtime.Object, error) {
			bad := a.(kubetesting.PatchAction).GetName() == "bad"
			if bad {
				attempts.Add(1)
			}
			return bad || out.Load(), nil, apierrors.NewInternalError(errors.New("failed calling webhook"))
		})
		create := func(name string) {
			svc := service(name, wish{families: []corev1.IPFamily{v4}})
			svc.ResourceVersion = "1"
			if _, err := w.kube.CoreV1().Services("default").Create(t.Context(), svc, metav1.CreateOptions{}); err != nil {
				t.Fatal(err)
			}
		}
		create("bad")
		time.Sleep(retryPeriod + time.Second)
		if n := attempts.Load(); n < 2 {
			t.Errorf("%d attempts, want that the Service is tried again soon", n)
		}
		time.Sleep(time.Hour)
		// The service controller tries it 18 times in this time.
		if n, most := attempts.Load(), int64(time.Hour/longestRetry+18+5); n > most || n < most/2 {
			t.Errorf("%d attempts in an hour, want about %d", n, most)
		}
		out.Store(true)
		for i := range many {
			create(fmt.Sprintf("web-%d", i))
		}
		time.Sleep(20*time.Minute + retryPeriod/2)
		out.Store(false)
		time.Sleep(6 * retryPeriod)
		synctest.Wait()
		list, err := w.kube.CoreV1().Services("default").List(t.Context(), metav1.ListOptions{})
		if err != nil {
			t.Fatal(err)
		}
		for _, svc := range list.Items {
			if svc.Name != "bad" && len(svc.Status.LoadBalancer.Ingress) == 0 {
				t.Errorf("%s has no address after six rounds", svc.Name)
			}
		}
	})
}

// TestWhatIsRetriedAfterAnOutage has errors of the API server that end a sync.
func TestWhatIsRetriedAfterAnOutage(t *testing.T) {
	services := corev1.Resource("services")
	for _, c := range []struct {
		err  error
		want bool
	}{
		{nil, false},
		{&url.Error{Op: "Post", Err: errors.New("connection refused")}, true},
		{apierrors.NewInternalError(errors.New("failed calling webhook")), true},
		{apierrors.NewTimeoutError("", 1), true},
		{apierrors.NewTooManyRequests("", 1), true},
		{apierrors.NewForbidden(services, "web", nil), false},
		{&unservedError{errors.New("no address"), errors.New("no address")}, false},
		{errHeldByAnother, false},
	} {
		w := newWorld(t)
		w.pool("public", public())
		svc := service("web", four)
		if _, err := w.serve(svc); err != nil {
			t.Fatal(err)
		}
		w.queued.names = nil
		w.records.api = broken{w.recordsAPI, c.err}
		deleted(svc)
		w.put(svc)
		err := w.loadBalancers.EnsureLoadBalancerDeleted(t.Context(), "", svc)
		if !errors.Is(err, c.err) {
			t.Errorf("%v, want %v", err, c.err)
		}
		w.retries.round(1)
		if got := len(w.queued.names) > 0; got != c.want {
			t.Errorf("after %v the Service is retried: %t", c.err, got)
		}
	}
}

// TestAServiceWhoseAddressIsNotRecordedIsRetried has an API server that cannot be reached.
func TestAServiceWhoseAddressIsNotRecordedIsRetried(t *testing.T) {
	w := newWorld(t)
	w.pool("public", public())
	w.records.api = broken{w.recordsAPI, &url.Error{Op: "Post", Err: errors.New("connection refused")}}
	if _, err := w.serve(service("web", four)); err == nil {
		t.Error("no error")
	}
	w.retries.round(1)
	if !slices.Equal(w.queued.names, []string{"web"}) {
		t.Errorf("%v are retried, want web", w.queued.names)
	}
}

// broken is an API server that writes no record.
type broken struct {
	recordsAPI
	err error
}

func (b broken) Create(context.Context, *herald.IPAllocation, metav1.CreateOptions) (*herald.IPAllocation, error) {
	return nil, b.err
}

func (b broken) Update(ctx context.Context, rec *herald.IPAllocation, opts metav1.UpdateOptions) (*herald.IPAllocation, error) {
	if b.err != nil {
		return nil, b.err
	}
	return b.recordsAPI.Update(ctx, rec, opts)
}
