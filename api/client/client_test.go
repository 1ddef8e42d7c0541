package client_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"

	"github.com/heraldlb/herald/api/client"
	herald "github.com/heraldlb/herald/api/v1alpha1"
)

func pool(name, version, priority string) string {
	return fmt.Sprintf(`{"apiVersion":"herald.dev/v1alpha1","kind":"IPPool","metadata":{"name":%q,"uid":%q,"resourceVersion":%q,"finalizers":["herald.dev/in-use"]},"spec":{"addresses":["198.51.100.7"],"priority":%s}}`,
		name, name, version, priority)
}

const spoiled = `"high"`

// server starts an API server with two pools, one of which cannot be decoded. It sends the given events to watches.
func server(t *testing.T) (set *client.Set, events chan<- string, faults func() []string) {
	t.Helper()
	stream := make(chan string)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		switch {
		case r.URL.Query().Get("sendInitialEvents") == "true": // This makes the informer list.
			w.WriteHeader(http.StatusUnprocessableEntity)
			fmt.Fprint(w, `{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"Invalid","code":422}`)
		case r.URL.Query().Get("watch") != "":
			w.WriteHeader(http.StatusOK)
			w.(http.Flusher).Flush()
			for {
				select {
				case <-r.Context().Done():
					return
				case e := <-stream:
					fmt.Fprintln(w, e)
					w.(http.Flusher).Flush()
				}
			}
		case strings.HasSuffix(r.URL.Path, "/ippools"):
			more := map[bool]string{true: "next"}[r.URL.Query().Get("limit") == "2"]
			fmt.Fprintf(w, `{"apiVersion":"herald.dev/v1alpha1","kind":"IPPoolList","metadata":{"resourceVersion":"10","continue":%q},"items":[%s,%s]}`,
				more, pool("good", "1", "1"), pool("bad", "2", spoiled))
		case strings.HasSuffix(r.URL.Path, "/bad"):
			fmt.Fprint(w, pool("bad", "2", spoiled))
		default:
			w.WriteHeader(http.StatusNotFound)
			fmt.Fprint(w, `{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"NotFound","code":404,"message":"there is none"}`)
		}
	}))
	t.Cleanup(s.CloseClientConnections)
	t.Cleanup(s.Close)
	set, err := client.New(&rest.Config{Host: s.URL})
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var reported []string
	set.OnDecodeError(func(e *client.DecodeError) {
		mu.Lock()
		defer mu.Unlock()
		reported = append(reported, e.Resource+"/"+e.Name)
	})
	return set, stream, func() []string {
		mu.Lock()
		defer mu.Unlock()
		return slices.Clone(reported)
	}
}

func TestAListLeavesOutWhatItCannotDecode(t *testing.T) {
	set, _, faults := server(t)
	for range 2 {
		list, err := set.Pools.List(t.Context(), metav1.ListOptions{Limit: 2})
		if err != nil {
			t.Fatal(err)
		}
		if len(list.Items) != 1 || list.Items[0].Name != "good" || list.Items[0].Spec.Priority != 1 || list.ResourceVersion != "10" || list.Continue != "next" {
			t.Errorf("%+v", list)
		}
	}
	if got := faults(); !slices.Equal(got, []string{"ippools/bad"}) {
		t.Errorf("reported: %q; want it once", got)
	}
}

// TestEachReporterIsTold checks that a new report function hears of an object that was reported before.
func TestEachReporterIsTold(t *testing.T) {
	set, _, _ := server(t)
	for range 2 {
		var told []string
		set.OnDecodeError(func(e *client.DecodeError) { told = append(told, e.Resource+"/"+e.Name) })
		for range 2 {
			if _, err := set.Pools.List(t.Context(), metav1.ListOptions{}); err != nil {
				t.Fatal(err)
			}
		}
		if !slices.Equal(told, []string{"ippools/bad"}) {
			t.Errorf("reported: %q; want it once", told)
		}
	}
}

func TestWhatCannotBeDecodedCanBeOverwritten(t *testing.T) {
	set, _, _ := server(t)
	o, err := set.Pools.Get(t.Context(), "bad", metav1.GetOptions{})
	if bad := (*client.DecodeError)(nil); !errors.As(err, &bad) || bad.Name != "bad" || !strings.Contains(err.Error(), "kubectl edit ippools.herald.dev bad") {
		t.Errorf("%v", err)
	}
	if o.Name != "bad" || o.ResourceVersion != "2" || len(o.Finalizers) != 1 {
		t.Errorf("%+v", o)
	}
	if _, err := set.Pools.Get(t.Context(), "none", metav1.GetOptions{}); err == nil || err.Error() != "there is none" {
		t.Errorf("%v", err)
	}
}

func TestAnInformerGoesOn(t *testing.T) {
	set, events, faults := server(t)
	informer := set.Pools.Informer()
	type change struct {
		kind, name string
		priority   int32
	}
	changes := make(chan change, 8)
	if _, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(o any) { p := o.(*herald.IPPool); changes <- change{"add", p.Name, p.Spec.Priority} },
		UpdateFunc: func(_, o any) { p := o.(*herald.IPPool); changes <- change{"update", p.Name, p.Spec.Priority} },
		DeleteFunc: func(o any) {
			if missed, ok := o.(cache.DeletedFinalStateUnknown); ok {
				o = missed.Obj
			}
			p := o.(*herald.IPPool)
			changes <- change{"delete", p.Name, p.Spec.Priority}
		},
	}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { informer.RunWithContext(ctx) })
	defer running.Wait()
	defer cancel()
	expect := func(want change) {
		t.Helper()
		select {
		case got := <-changes:
			if got != want {
				t.Errorf("%+v, want %+v", got, want)
			}
		case <-ctx.Done():
			t.Fatal("the test ended")
		}
	}
	event := func(kind, object string) { events <- fmt.Sprintf(`{"type":%q,"object":%s}`, kind, object) }

	expect(change{"add", "good", 1})
	event("ADDED", pool("later", "11", "2"))
	expect(change{"add", "later", 2})
	event("MODIFIED", pool("later", "12", spoiled)) // Its last spec stays.
	expect(change{"update", "later", 2})
	event("ADDED", pool("third", "13", "3")) // The watch goes on.
	expect(change{"add", "third", 3})
	if got := faults(); !slices.Equal(got, []string{"ippools/bad", "ippools/later"}) {
		t.Errorf("reported: %q", got)
	}
	unreadable := func(want int) {
		t.Helper()
		if got := set.Unreadable(); got["ippools"] != want || got["bgppeers"] != 0 || len(got) != 6 {
			t.Errorf("unreadable are %v; want %d IPPools", got, want)
		}
	}
	unreadable(2)
	event("DELETED", pool("later", "14", spoiled)) // The handlers get the last version that could be decoded.
	expect(change{"delete", "later", 2})
	event("MODIFIED", pool("bad", "15", "4")) // Somebody corrected it.
	expect(change{"add", "bad", 4})
	unreadable(0)
	// The informer lists again, and the list again has the pool that cannot be decoded.
	event("ERROR", `{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"Expired","code":410}`)
	seen := map[change]bool{}
	for gone := (change{"delete", "third", 3}); !seen[gone]; {
		select {
		case c := <-changes:
			seen[c] = true
		case <-ctx.Done():
			t.Fatal("the test ended")
		}
	}
	o, exists, err := informer.GetStore().GetByKey("bad")
	if err != nil || !exists || o.(*herald.IPPool).Spec.Priority != 4 || seen[change{"delete", "bad", 4}] {
		t.Errorf("what cannot be decoded any more is %v, %v, %v; the handlers were told %v", o, exists, err, seen)
	}
}
