package speaker

import (
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	herald "github.com/heraldlb/herald/api/v1alpha1"
)

// writing is a statusWriter that runs in a synctest bubble and gets a status every second, as from the loop.
type writing struct {
	*apiServer
	t      *testing.T
	writer *statusWriter
	owner  []metav1.OwnerReference
	mu     sync.Mutex
	status herald.SpeakerStatusStatus
}

func startWriting(t *testing.T) *writing {
	w := &writing{apiServer: newAPIServer(), t: t, owner: []metav1.OwnerReference{{Kind: "Node", Name: "n1", UID: "node-uid"}}}
	_, set := w.clients(t)
	w.writer = newStatusWriter(set.SpeakerStatuses, "n1", func() []metav1.OwnerReference {
		w.mu.Lock()
		defer w.mu.Unlock()
		return w.owner
	}, zap.NewNop())
	w.status = herald.SpeakerStatusStatus{L2Addresses: 1, Problem: "none"}
	if err := w.writer.first(t.Context(), herald.SpeakerStatusStatus{Identity: &herald.SpeakerIdentity{Boot: "1"}}); err != nil {
		t.Fatal(err)
	}
	go func() { _ = w.writer.run(t.Context()) }()
	go func() {
		for t.Context().Err() == nil {
			w.mu.Lock()
			w.writer.set(*w.status.DeepCopy())
			w.mu.Unlock()
			select {
			case <-t.Context().Done():
			case <-time.After(reportPeriod):
			}
		}
	}()
	w.after(0)
	w.requests()
	return w
}

// after lets time pass, and returns the writes of that time.
func (w *writing) after(d time.Duration) (writes []string) {
	time.Sleep(d)
	synctest.Wait()
	for _, r := range w.requests() {
		if !strings.HasPrefix(r, "GET ") {
			writes = append(writes, r)
		}
	}
	return writes
}

func (w *writing) set(addresses int32) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.status.L2Addresses = addresses
}

// written returns the status that the API server has, or nil.
func (w *writing) written() *herald.SpeakerStatus {
	var o herald.SpeakerStatus
	if !w.read(w.t, statuses+"/n1", &o) {
		return nil
	}
	return &o
}

func TestTheFirstStatusIsTheIdentity(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := newAPIServer()
		_, set := server.clients(t)
		owner := []metav1.OwnerReference{{Kind: "Node", Name: "n1", UID: "node-uid"}}
		w := newStatusWriter(set.SpeakerStatuses, "n1", func() []metav1.OwnerReference { return owner }, zap.NewNop())
		server.setDown(true)
		go func() {
			time.Sleep(3500 * time.Millisecond)
			server.setDown(false)
		}()
		began := time.Now()
		if err := w.first(t.Context(), herald.SpeakerStatusStatus{Identity: &herald.SpeakerIdentity{Boot: "1", PublicKey: "2"}}); err != nil || time.Since(began) < 3*time.Second {
			t.Fatalf("%v after %v", err, time.Since(began))
		}
		var o herald.SpeakerStatus
		if !server.read(t, statuses+"/n1", &o) || *o.Status.Identity != (herald.SpeakerIdentity{Boot: "1", PublicKey: "2"}) || o.OwnerReferences[0].UID != "node-uid" {
			t.Errorf("%+v", o)
		}
		// The next speaker of the node finds this status and replaces it with its own.
		next := newStatusWriter(set.SpeakerStatuses, "n1", func() []metav1.OwnerReference { return owner }, zap.NewNop())
		if err := next.first(t.Context(), herald.SpeakerStatusStatus{Identity: &herald.SpeakerIdentity{Boot: "3"}}); err != nil {
			t.Fatal(err)
		}
		if server.read(t, statuses+"/n1", &o); o.Status.Identity.Boot != "3" {
			t.Errorf("%+v", o.Status.Identity)
		}
	})
}

func TestAStatusIsWrittenWhenItDiffers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := startWriting(t)
		if got := w.after(time.Minute); len(got) > 0 {
			t.Errorf("nothing has changed, and it is written: %v", got)
		}
		w.set(2)
		if got := w.after(2 * time.Second); !slices.Equal(got, []string{"PUT " + statuses + "/n1"}) || w.written().Status.L2Addresses != 2 {
			t.Errorf("it has changed, and is written: %v", got)
		}
		// The status is written at most once a second, however many changes there are.
		for i := range 100 {
			w.set(int32(i))
			time.Sleep(50 * time.Millisecond)
		}
		if got := w.after(2 * time.Second); len(got) > 7 || w.written().Status.L2Addresses != 99 {
			t.Errorf("in 5 seconds it is written %d times, and says %d", len(got), w.written().Status.L2Addresses)
		}
	})
}

func TestWhatSomebodyElseDidIsWrittenAgain(t *testing.T) {
	for name, change := range map[string]func(w *writing){
		"deleted": func(w *writing) { w.edit(statuses+"/n1", nil) },
		"changed": func(w *writing) {
			w.edit(statuses+"/n1", func(o map[string]any) { o["status"] = map[string]any{"l2Addresses": 7} })
		},
		"without its owner": func(w *writing) {
			w.edit(statuses+"/n1", func(o map[string]any) { delete(metadata(o), "ownerReferences") })
		},
		"replaced": func(w *writing) {
			w.edit(statuses+"/n1", func(o map[string]any) {
				metadata(o)["uid"], o["status"] = "another", map[string]any{"l2Addresses": 8}
			})
		},
	} {
		for _, meanwhile := range []bool{false, true} {
			t.Run(name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					w := startWriting(t)
					change(w)
					if meanwhile { // The status changes before the writer has noticed.
						w.set(3)
					}
					w.after(rewriteAfter + 3*time.Second)
					o := w.written()
					if o == nil || o.Status.Problem != "none" || len(o.OwnerReferences) != 1 || o.Status.L2Addresses == 7 || o.Status.L2Addresses == 8 {
						t.Fatalf("%+v", o)
					}
					if got := w.after(time.Minute); len(got) > 0 {
						t.Errorf("it is as it should be, and is written again: %v", got)
					}
				})
			})
		}
	}
}

// The writer notices that somebody changed the status, and the API server does not take its own status for a while.
func TestWhatSomebodyElseDidIsWrittenAgainAfterAFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := startWriting(t)
		w.edit(statuses+"/n1", func(o map[string]any) { o["status"] = map[string]any{"l2Addresses": 7} })
		w.refuse(http.MethodPut)
		w.after(rewriteAfter + 3*time.Second)
		w.refuse("")
		w.after(time.Minute)
		if o := w.written(); o.Status.L2Addresses != 1 {
			t.Errorf("%+v", o.Status)
		}
	})
}

func TestAnotherFieldOfTheObjectIsNobodysBusiness(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := startWriting(t)
		w.edit(statuses+"/n1", func(o map[string]any) { metadata(o)["labels"] = map[string]any{"mine": "yes"} })
		if got := w.after(time.Minute); len(got) > 0 {
			t.Errorf("it is written: %v", got)
		}
		w.set(2)
		w.after(3 * time.Second)
		if o := w.written(); o.Status.L2Addresses != 2 || !maps.Equal(o.Labels, map[string]string{"mine": "yes"}) {
			t.Errorf("%+v", o)
		}
	})
}

func TestWithoutTheAPIServerAStatusIsWrittenLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := startWriting(t)
		w.setDown(true)
		w.set(2)
		if got := w.after(time.Minute); len(got) < 10 || len(got) > 61 {
			t.Errorf("it is tried %d times in a minute", len(got))
		}
		w.setDown(false)
		if w.after(2 * time.Second); w.written().Status.L2Addresses != 2 {
			t.Errorf("%+v", w.written().Status)
		}
	})
}

// During an update of Herald the API server may have an older schema for a while.
func TestWhatTheSchemaDropsIsNotWrittenAgainEverySecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := startWriting(t)
		w.prune = func(o map[string]any) {
			if st, ok := o["status"].(map[string]any); ok {
				delete(st, "problem")
			}
		}
		w.set(2)
		if got := w.after(time.Minute); len(got) != 1 {
			t.Errorf("it is written %d times", len(got))
		}
	})
}

// An admission webhook may change the owner.
func TestAnOwnerThatTheAPIServerChangesIsNotWrittenAgainEverySecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := startWriting(t)
		w.prune = func(o map[string]any) {
			for _, owner := range metadata(o)["ownerReferences"].([]any) {
				owner.(map[string]any)["blockOwnerDeletion"] = false
			}
		}
		w.set(2)
		if got := w.after(time.Minute); len(got) != 1 {
			t.Errorf("it is written %d times", len(got))
		}
	})
}

func TestAStatusGoesWithTheNodeThatIsThereNow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := startWriting(t)
		w.owner = []metav1.OwnerReference{{Kind: "Node", Name: "n1", UID: "node-uid-2"}}
		w.set(2)
		w.after(2 * time.Second)
		if got := w.written().OwnerReferences[0].UID; got != types.UID("node-uid-2") {
			t.Errorf("it belongs to %s", got)
		}
	})
}

// A node that is deleted and registers again may have the same status. A status that belongs to the old Node would be deleted.
func TestAStatusPassesToTheNodeThatRegistersAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := startWriting(t)
		w.mu.Lock()
		w.owner = []metav1.OwnerReference{{Kind: "Node", Name: "n1", UID: "node-uid-2"}}
		w.mu.Unlock()
		if writes := w.after(time.Minute); len(writes) != 1 || w.written().OwnerReferences[0].UID != "node-uid-2" {
			t.Errorf("%q, and it belongs to %v", writes, w.written().OwnerReferences)
		}
	})
}

// After kubectl delete node the garbage collector deletes the status. Nothing creates it again.
func TestAStatusGoesWithItsNode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := startWriting(t)
		w.mu.Lock()
		w.owner = nil
		w.mu.Unlock()
		w.edit(statuses+"/n1", nil)
		w.set(7)
		if w.after(time.Minute); w.written() != nil {
			t.Error("the node is gone, and its status is there")
		}
		w.mu.Lock()
		w.owner = []metav1.OwnerReference{{Kind: "Node", Name: "n1", UID: "another"}}
		w.mu.Unlock()
		if w.after(rewriteAfter + 2*time.Second); w.written() == nil || w.written().OwnerReferences[0].UID != "another" {
			t.Errorf("the node is back, and its status is %+v", w.written())
		}
	})
}
