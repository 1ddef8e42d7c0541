package provider

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/record"

	herald "github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/provider/configuration"
)

// TestManyServicesAreToldOneAfterTheOther has a pool with many Services that nothing announces any more. client-go drops events if more
// than a thousand wait to be written.
func TestManyServicesAreToldOneAfterTheOther(t *testing.T) {
	const many = untoldAtOnce + 10*untoldRate
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		told := record.NewFakeRecorder(2 * many)
		w.untold.events = told
		w.pool("public", public(func(o *herald.IPPool) { o.Spec.Addresses = []herald.AddressRange{"198.18.0.0/16"} }))
		advertisement := &herald.L2Advertisement{ObjectMeta: metav1.ObjectMeta{Name: "all"}}
		if err := w.l2.Add(advertisement); err != nil {
			t.Fatal(err)
		}
		w.publish("public")
		for i := range many {
			if _, err := w.serve(service(fmt.Sprint("web-", i), four)); err != nil {
				t.Fatal(err)
			}
		}
		_ = w.l2.Delete(advertisement) // Delete fails only for an object without a name.
		begin := time.Now()
		w.publish("public")
		if n := len(told.Events); n != untoldAtOnce {
			t.Errorf("%d Services are told at once, want %d", n, untoldAtOnce)
		}
		if _, err := w.serve(service("late", four)); err != nil {
			t.Fatal(err)
		}
		ctx, end := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- w.untold.run(ctx) }()
		for range many + 1 {
			event := <-told.Events
			if !strings.Contains(event, "NotAnnounced IPPool public is not announced: no L2Advertisement or BGPAdvertisement selects") {
				t.Errorf("event %q", event)
			}
		}
		if took := time.Since(begin); took < 9*time.Second || took > 12*time.Second {
			t.Errorf("it took %v", took)
		}
		w.eventsSay() // No other event waits behind these.

		// Who is not told before the pool is announced again is not told.
		_ = w.l2.Add(advertisement)
		w.publish("public")
		_ = w.l2.Delete(advertisement)
		w.publish("public")
		_ = w.l2.Add(advertisement)
		w.publish("public")
		synctest.Wait()
		rest := len(told.Events)
		if rest >= many {
			t.Errorf("%d Services are told at once", rest)
		}
		end()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		if w.untold.tell(time.Now().Add(time.Hour)) || len(told.Events) != rest || len(w.untold.in) > 0 {
			t.Errorf("%d Services are told of a pool that is announced", len(told.Events)-rest)
		}
	})
}

// laggingPools writes the status of pools as an API server does whose watch is late: the cache does not have it yet.
type laggingPools struct {
	poolsAPI
	writes func()
}

func (l *laggingPools) UpdateStatus(_ context.Context, o *herald.IPPool, _ metav1.UpdateOptions) (*herald.IPPool, error) {
	l.writes()
	return o, nil
}

// TestAServiceThatIsRecordedWhileThePoolIsFoundToBeUnannouncedIsTold has Services that are served before, while and after the condition
// Announced is written. The caches have neither the records nor the condition yet.
func TestAServiceThatIsRecordedWhileThePoolIsFoundToBeUnannouncedIsTold(t *testing.T) {
	w := newWorld(t)
	w.pool("public", public())
	w.pools.assessed = func(string) *configuration.PoolAssessment { return nil }
	w.publish("public")
	w.pools.assessed = w.assess
	serve := func(name string) {
		t.Helper()
		got, err := w.serve(service(name, four))
		if err != nil {
			t.Fatal(err)
		}
		rec, _ := w.recordsAPI.get(got[0])
		_ = w.recordsAPI.cache.Delete(rec) // The record is written, and its event is not here yet.
	}
	w.pools.api = &laggingPools{w.poolsAPI, func() { serve("meanwhile") }}
	serve("before")
	w.publish("public")
	if o, _ := w.poolsAPI.get("public"); meta.FindStatusCondition(o.Status.Conditions, herald.ConditionAnnounced) != nil {
		t.Fatal("the cache has the condition")
	}
	serve("after")
	var events []string
	for len(w.recorder.Events) > 0 {
		events = append(events, <-w.recorder.Events)
	}
	if n := len(slices.DeleteFunc(slices.Clone(events), func(e string) bool { return !strings.Contains(e, "NotAnnounced") })); n != 3 {
		t.Errorf("%d Services are told, want three: %q", n, events)
	}
}

// unansweredPools writes the status of pools, and its answers are lost.
type unansweredPools struct{ poolsAPI }

func (u unansweredPools) UpdateStatus(ctx context.Context, o *herald.IPPool, opts metav1.UpdateOptions) (*herald.IPPool, error) {
	if _, err := u.poolsAPI.UpdateStatus(ctx, o, opts); err != nil {
		return nil, err
	}
	return nil, errLost
}

// TestAServiceIsToldThoughTheAnswerOfTheAPIServerIsLost has a pool that nothing announces any more.
func TestAServiceIsToldThoughTheAnswerOfTheAPIServerIsLost(t *testing.T) {
	w := newWorld(t)
	w.pool("public", public())
	advertisement := &herald.L2Advertisement{ObjectMeta: metav1.ObjectMeta{Name: "all"}}
	if err := w.l2.Add(advertisement); err != nil {
		t.Fatal(err)
	}
	w.publish("public")
	if _, err := w.serve(service("web", four)); err != nil {
		t.Fatal(err)
	}
	_ = w.l2.Delete(advertisement) // Delete fails only for an object without a name.
	api := w.pools.api
	w.pools.api = unansweredPools{api}
	if err := w.pools.publish(t.Context()); !errors.Is(err, errLost) {
		t.Fatalf("%v, want that the answer is lost", err)
	}
	w.pools.api = api
	for range 2 {
		w.publish("public")
	}
	w.eventsSay("Warning NotAnnounced IPPool public is not announced")
}
