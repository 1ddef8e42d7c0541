package provider

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"
	corelisters "k8s.io/client-go/listers/core/v1"
	kubetesting "k8s.io/client-go/testing"
	servicecontroller "k8s.io/cloud-provider/controllers/service"
	fakecloud "k8s.io/cloud-provider/fake"
	servicehelper "k8s.io/cloud-provider/service/helpers"
	controllersmetrics "k8s.io/component-base/metrics/prometheus/controllers"
)

// controllerWorld is the real service controller between a projection and a fake cloud.
type controllerWorld struct {
	t     *testing.T
	kube  *fake.Clientset
	cloud *fakecloud.Cloud
}

// withController runs a story in its own synctest bubble.
func withController(t *testing.T, story func(w *controllerWorld)) {
	t.Helper()
	// The handler that limits the rate of errors remembers times from outside the bubble.
	defer func(before []utilruntime.ErrorHandler) { utilruntime.ErrorHandlers = before }(utilruntime.ErrorHandlers)
	utilruntime.ErrorHandlers = nil
	synctest.Test(t, func(t *testing.T) {
		w := &controllerWorld{t: t, kube: fake.NewClientset(), cloud: &fakecloud.Cloud{ExternalIP: net.ParseIP("198.51.100.1")}}
		factory := informers.NewSharedInformerFactory(w.kube, 0)
		p := newProjection(factory.Core().V1().Services(), "example.com/class", true, newLedger("example.com/class"))
		p.holds = func(*corev1.Service) bool { return w.cloud.Exists }
		p.gone, p.relabelled = func(*corev1.Service) {}, func() {}
		services := &services{cached: factory.Core().V1().Services().Lister()}
		retries := newRetries(func(name types.NamespacedName) {
			if svc := services.named(name.Namespace, name.Name); svc != nil {
				p.OnAdd(svc, false)
			}
		})
		controller, err := servicecontroller.New(w.cloud, controllerClient{w.kube, retries, p.uid}, p, OneNode(), "", nil)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		factory.StartWithContext(ctx)
		factory.WaitForCacheSyncWithContext(ctx)
		p.open()
		running.Go(func() { controller.Run(ctx, 1, controllersmetrics.NewControllerManagerMetrics("test")) })
		running.Go(func() { _ = retries.run(ctx) })
		synctest.Wait()
		w.kube.ClearActions()
		story(w)
		cancel()
		running.Wait()
		factory.Shutdown()
	})
}

// update changes the Service in the API server, and returns the controller's writes to Services that follow.
func (w *controllerWorld) update(change func(*corev1.Service)) []string {
	w.t.Helper()
	svc := w.get()
	change(svc)
	svc.ResourceVersion += "+" // The fake client does not change it.
	if _, err := w.kube.CoreV1().Services("default").Update(w.t.Context(), svc, metav1.UpdateOptions{}); err != nil {
		w.t.Fatal(err)
	}
	return w.patches()
}

func (w *controllerWorld) create(finalizers ...string) []string {
	w.t.Helper()
	svc := service("web", wish{families: []corev1.IPFamily{v4}})
	svc.Finalizers, svc.ResourceVersion = finalizers, "1"
	if _, err := w.kube.CoreV1().Services("default").Create(w.t.Context(), svc, metav1.CreateOptions{}); err != nil {
		w.t.Fatal(err)
	}
	return w.patches()
}

func (w *controllerWorld) get() *corev1.Service {
	w.t.Helper()
	svc, err := w.kube.CoreV1().Services("default").Get(w.t.Context(), "web", metav1.GetOptions{})
	if err != nil {
		w.t.Fatal(err)
	}
	return svc
}

// patches waits until the controller is idle, and returns its writes to Services.
func (w *controllerWorld) patches() (all []string) {
	synctest.Wait()
	for _, a := range w.kube.Actions() {
		if patch, ok := a.(kubetesting.PatchAction); ok && a.GetResource().Resource == "services" {
			all = append(all, string(patch.GetPatch()))
		}
	}
	w.kube.ClearActions()
	return all
}

func (w *controllerWorld) want(what string, got []string, want ...string) {
	w.t.Helper()
	if diff := gocmp.Diff(want, got); diff != "" {
		w.t.Errorf("%s: patches of the Service (-want +got):\n%s", what, diff)
	}
}

const (
	addressed   = `{"metadata":{"finalizers":["service.kubernetes.io/load-balancer-cleanup"],"uid":"web"},"status":{"loadBalancer":{"ingress":[{"ip":"198.51.100.1"}]}}}`
	unaddressed = `{"metadata":{"uid":"web"},"status":{"loadBalancer":{"ingress":null}}}`
	finalized   = `{"metadata":{"finalizers":["service.kubernetes.io/load-balancer-cleanup"],"uid":"web"}}`
	unfinalized = `{"metadata":{"finalizers":null,"uid":"web"}}`
	foreign     = "example.com/foreign"
)

func TestServiceControllerWritesOnce(t *testing.T) {
	t.Run("address and finalizer, and takes off the finalizer", func(t *testing.T) {
		withController(t, func(w *controllerWorld) {
			w.want("created", w.create(), addressed)
			if svc := w.get(); !servicehelper.HasLBFinalizer(svc) || len(svc.Status.LoadBalancer.Ingress) != 1 {
				t.Errorf("finalizers %v, status %v", svc.Finalizers, svc.Status.LoadBalancer)
			}
			w.cloud.Exists = true
			w.want("deleted", w.update(deleted), unfinalized)
		})
	})
	t.Run("all over again when both are gone", func(t *testing.T) {
		withController(t, func(w *controllerWorld) {
			w.create()
			w.want("wiped", w.update(func(svc *corev1.Service) { svc.Finalizers, svc.Status = nil, corev1.ServiceStatus{} }), addressed)
		})
	})
	t.Run("the finalizer that is missing on a Service with an address", func(t *testing.T) {
		withController(t, func(w *controllerWorld) {
			w.create()
			w.want("finalizer removed", w.update(func(svc *corev1.Service) { svc.Finalizers = nil }), finalized)
		})
	})
	t.Run("and clears the status of a Service that stays", func(t *testing.T) {
		withController(t, func(w *controllerWorld) {
			w.create(foreign)
			if got := w.get().Finalizers; !slices.Contains(got, foreign) || len(got) != 2 {
				t.Errorf("finalizers %v", got)
			}
			w.cloud.Exists = true
			got := w.update(deleted)
			if len(got) != 2 || !strings.Contains(got[0], "$deleteFromPrimitiveList") || !strings.Contains(got[1], `"ingress":null`) {
				t.Errorf("patches %q, want one that removes the finalizer and one that removes the address", got)
			}
		})
	})
}

func TestServiceControllerDoesNotWriteToAServiceThatWaits(t *testing.T) {
	withController(t, func(w *controllerWorld) {
		w.cloud.Err = errors.New("no address")
		w.want("created", w.create())
		w.cloud.Err, w.cloud.Calls = nil, nil
		if err := w.kube.CoreV1().Services("default").Delete(t.Context(), "web", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		w.want("deleted", w.patches())
		// The controller drops its copy at this call.
		if want := []string{"delete"}; !slices.Equal(w.cloud.Calls, want) {
			t.Errorf("the cloud was asked to %v, want %v", w.cloud.Calls, want)
		}
	})
	t.Run("also if another finalizer keeps it", func(t *testing.T) {
		withController(t, func(w *controllerWorld) {
			w.cloud.Err = errors.New("no address")
			w.create(foreign)
			w.cloud.Err, w.cloud.Calls = nil, nil
			w.want("deleted", w.update(deleted))
			w.want("edited", w.update(func(svc *corev1.Service) { svc.Annotations["a"] = "b" }))
			if want := []string{"delete"}; !slices.Equal(w.cloud.Calls, want) {
				t.Errorf("the cloud was asked to %v, want %v", w.cloud.Calls, want)
			}
		})
	})
}

func TestServiceControllerLeavesAServiceOfAnotherClass(t *testing.T) {
	// given makes the Service one of another class, whose controller gave it an address and has the same finalizer.
	given := func(svc *corev1.Service) {
		class := "example.com/another"
		svc.Spec.LoadBalancerClass = &class
		svc.Finalizers = []string{servicehelper.LoadBalancerCleanupFinalizer}
		svc.Status.LoadBalancer.Ingress = []corev1.LoadBalancerIngress{{IP: "203.0.113.1"}}
	}
	t.Run("while an earlier one of its name is in the queue", func(t *testing.T) {
		withController(t, func(w *controllerWorld) {
			w.cloud.Err = errors.New("no address")
			w.create()
			w.cloud.Err, w.cloud.Exists, w.cloud.Calls = nil, true, nil
			services := w.kube.CoreV1().Services("default")
			younger := w.get()
			given(younger)
			younger.UID, younger.ResourceVersion = "younger", "2"
			if err := services.Delete(t.Context(), "web", metav1.DeleteOptions{}); err != nil {
				t.Fatal(err)
			}
			if _, err := services.Create(t.Context(), younger, metav1.CreateOptions{}); err != nil {
				t.Fatal(err)
			}
			time.Sleep(2 * unservedRetry)
			w.want("the queue was processed", w.patches())
			if want := []string{"delete"}; !slices.Equal(w.cloud.Calls, want) {
				t.Errorf("the cloud was asked to %v, want %v", w.cloud.Calls, want)
			}
		})
	})
	t.Run("which was ours one change ago", func(t *testing.T) {
		withController(t, func(w *controllerWorld) {
			w.create()
			w.cloud.Exists, w.cloud.Calls = true, nil
			w.want("edited", w.update(given))
			if want := []string{"delete"}; !slices.Equal(w.cloud.Calls, want) {
				t.Errorf("the cloud was asked to %v, want %v", w.cloud.Calls, want)
			}
		})
	})
}

func TestServiceControllerEvents(t *testing.T) {
	withController(t, func(w *controllerWorld) {
		w.create()
		w.cloud.Exists = true
		time.Sleep(time.Second) // The names of a Service's events depend on the time.
		w.update(deleted)
		events, err := w.kube.CoreV1().Events("default").List(t.Context(), metav1.ListOptions{})
		if err != nil {
			t.Fatal(err)
		}
		var reasons []string
		for _, e := range events.Items {
			reasons = append(reasons, e.Reason)
		}
		slices.Sort(reasons)
		if want := []string{"DeletedLoadBalancer", "EnsuredLoadBalancer"}; !slices.Equal(reasons, want) {
			t.Errorf("events %v, want %v", reasons, want)
		}
	})
}

func deleted(svc *corev1.Service) {
	now := metav1.Now()
	svc.DeletionTimestamp = &now
}

func TestCompletePatch(t *testing.T) {
	for _, c := range []struct{ name, patch, want string }{
		{"addresses", `{"status":{"loadBalancer":{"ingress":[{"ip":"198.51.100.1"}]}}}`, addressed},
		{"no addresses", `{"status":{"loadBalancer":{"ingress":null}}}`, unaddressed},
		{"metadata", `{"metadata":{"finalizers":null}}`, unfinalized},
		{"the finalizer", `{"metadata":{"finalizers":["service.kubernetes.io/load-balancer-cleanup"]}}`, finalized},
	} {
		got, err := complete([]byte(c.patch), "web")
		if err != nil || string(got) != c.want {
			t.Errorf("%s: %s, %v, want %s", c.name, got, err, c.want)
		}
	}
	if _, err := complete([]byte(`{"status":`), "web"); err == nil {
		t.Error("half a patch was taken")
	}
}

// TestServiceControllerWritesOnlyTheServiceThatItRead has a Service that another one of its name replaces just before the
// controller writes its address.
func TestServiceControllerWritesOnlyTheServiceThatItRead(t *testing.T) {
	for _, seen := range []bool{false, true} {
		t.Run(fmt.Sprintf("the cache knows the other one: %t", seen), func(t *testing.T) {
			withController(t, func(w *controllerWorld) {
				tracker, kind := w.kube.Tracker(), corev1.SchemeGroupVersion.WithResource("services")
				younger := service("web", wish{families: []corev1.IPFamily{v4}})
				younger.UID, younger.ResourceVersion = "younger", "2"
				replace := func() {
					if err := errors.Join(tracker.Delete(kind, "default", "web"), tracker.Create(kind, younger, "default")); err != nil {
						t.Error(err)
					}
				}
				var written []string // the UIDs in the patches that reach the API server
				w.kube.PrependReactor("patch", "services", func(a kubetesting.Action) (bool, runtime.Object, error) {
					var patch corev1.Service
					if err := json.Unmarshal(a.(kubetesting.PatchAction).GetPatch(), &patch); err != nil {
						t.Error(err)
					}
					if written = append(written, string(patch.UID)); len(written) == 1 && !seen {
						replace()
					}
					is, err := tracker.Get(kind, "default", "web")
					if err != nil {
						t.Error(err)
					}
					refused := patch.UID != "" && patch.UID != is.(*corev1.Service).UID // As the API server does.
					return refused, nil, apierrors.NewInvalid(corev1.SchemeGroupVersion.WithKind("Service").GroupKind(), "web", nil)
				})
				want := []string{"web", "younger"}
				if seen {
					want = want[1:]
					w.cloud.RequestDelay = time.Second // The informer sees the other Service while the cloud is asked.
				}
				w.create()
				if seen {
					time.Sleep(time.Second / 2)
					replace()
				}
				time.Sleep(10 * time.Second)
				synctest.Wait()
				// A sync that starts before the cache has a patch writes it again.
				if got := slices.Compact(written); !slices.Equal(got, want) {
					t.Errorf("patches for %v reached the API server, want %v", got, want)
				}
			})
		})
	}
}

// reading is a lister of Services in which something else happens after a Service was read.
type reading struct {
	corelisters.ServiceNamespaceLister
	then func(*corev1.Service)
}

func (r reading) Get(name string) (*corev1.Service, error) {
	svc, err := r.ServiceNamespaceLister.Get(name)
	if err == nil {
		r.then(svc)
	}
	return svc, err
}

// TestAServiceThatIsDeletedWhileItIsReadIsNotWritten has a Service that is deleted while the service controller reads it.
func TestAServiceThatIsDeletedWhileItIsReadIsNotWritten(t *testing.T) {
	w := newWorld(t)
	web := service("web", four)
	w.put(web)
	lister := reading{w.projection.real.Lister().Services("default"), func(svc *corev1.Service) {
		_ = w.services.Delete(svc)
		w.projection.OnDelete(svc)
	}}
	if _, err := (projectedNamespace{lister, projectedLister{p: w.projection}}).Get("web"); err != nil {
		t.Fatal(err)
	}
	client := controllerClient{w.kube, w.retries, w.projection.uid}
	_, err := client.CoreV1().Services("default").Patch(t.Context(), "web", types.StrategicMergePatchType, []byte(`{"status":{}}`), metav1.PatchOptions{}, "status")
	if got := w.written(); !apierrors.IsNotFound(err) || len(got) > 0 {
		t.Errorf("%v after the writes %q, want none", err, got)
	}
}
