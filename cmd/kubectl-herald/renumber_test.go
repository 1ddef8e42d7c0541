package main

import (
	"context"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"

	herald "github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/provider"
)

// TestRenumberInterrupted interrupts renumber after it has set the annotation: before the Service has moved, and after.
func TestRenumberInterrupted(t *testing.T) {
	for _, c := range []struct {
		name, has, want string
	}{
		{"before it has moved", "198.51.100.1", "red/web: interrupted; it keeps 198.51.100.1"},
		{"after it has moved", "198.51.100.2", "red/web: interrupted; it had 198.51.100.1, and has 198.51.100.2 now"},
	} {
		t.Run(c.name, func(t *testing.T) {
			svc := web.DeepCopy()
			kube := fake.NewClientset(svc)
			ctx, interrupt := context.WithCancel(t.Context())
			kube.PrependReactor("patch", "services", func(clienttesting.Action) (bool, runtime.Object, error) {
				if ctx.Err() != nil {
					return false, nil, nil
				}
				moved := svc.DeepCopy()
				moved.Status.LoadBalancer.Ingress = []corev1.LoadBalancerIngress{{IP: c.has}}
				err := kube.Tracker().Update(corev1.SchemeGroupVersion.WithResource("services"), moved, svc.Namespace)
				interrupt()
				return true, moved, err
			})
			_, _, err := (&cluster{kube: kube}).renumber(ctx, types.NamespacedName{Namespace: "red", Name: "web"}, &provider.Foreign{}, time.Minute)
			if err == nil || err.Error() != c.want {
				t.Errorf("error %v, want %s", err, c.want)
			}
		})
	}
}

// TestRenumberDryRun checks what renumber says without writing anything: the server knows no request that writes.
func TestRenumberDryRun(t *testing.T) {
	content := map[string]any{
		"/api/v1/namespaces/red/services/web": web,
		"/apis/herald.dev/v1alpha1/ippools": herald.IPPoolList{
			TypeMeta: metav1.TypeMeta{Kind: "IPPoolList", APIVersion: "herald.dev/v1alpha1"},
			Items:    []herald.IPPool{{ObjectMeta: metav1.ObjectMeta{Name: "public"}, Spec: herald.IPPoolSpec{Addresses: []herald.AddressRange{"198.51.100.1-198.51.100.2"}, AddressOrder: herald.OrderLowest}}},
		},
		"/apis/herald.dev/v1alpha1/ipallocations": herald.IPAllocationList{
			TypeMeta: metav1.TypeMeta{Kind: "IPAllocationList", APIVersion: "herald.dev/v1alpha1"},
			Items: []herald.IPAllocation{{ObjectMeta: metav1.ObjectMeta{Name: "198.51.100.1"}, Spec: herald.IPAllocationSpec{
				Address: "198.51.100.1", Pool: "public", Owners: []herald.AllocationOwner{{Namespace: "red", Name: "web", UID: "web"}},
			}}},
		},
	}
	flags := server(t, content, func(string) bool { return true })
	const want = "red/web would leave 198.51.100.1, and get 198.51.100.2 of pool public.\nConnections to 198.51.100.1 would break off. Nothing was changed.\n"
	if said, err := ran(t, append(flags, "renumber", "red/web", "--dry-run")...); err != nil || said != want {
		t.Errorf("%v: %s", err, said)
	}
}

func TestRenumberLeavesAnotherAlone(t *testing.T) {
	svc := web.DeepCopy()
	svc.Annotations = map[string]string{herald.AnnotationRenumber: "198.51.100.9"}
	kube := fake.NewClientset(svc)
	_, _, err := (&cluster{kube: kube}).renumber(t.Context(), types.NamespacedName{Namespace: "red", Name: "web"}, &provider.Foreign{}, time.Minute)
	if err == nil || !strings.Contains(err.Error(), "another renumber is under way") {
		t.Errorf("error %v", err)
	}
	if now, err := kube.CoreV1().Services("red").Get(t.Context(), "web", metav1.GetOptions{}); err != nil || now.Annotations[herald.AnnotationRenumber] != "198.51.100.9" {
		t.Errorf("%v, %v", now, err)
	}
}

// TestRenumberSeesWhatAForeignAnnotationAsksFor checks that a Service is refused if, with the annotation that herald-ccm
// reads, it would not move.
func TestRenumberSeesWhatAForeignAnnotationAsksFor(t *testing.T) {
	svc := web.DeepCopy()
	svc.Annotations = map[string]string{"metallb.io/loadBalancerIPs": "198.51.100.1"}
	var foreign provider.Foreign
	if err := movable(foreign.Read(svc)); err != nil {
		t.Errorf("without the flag: %v", err)
	}
	if err := foreign.Set("metallb"); err != nil {
		t.Fatal(err)
	}
	if err := movable(foreign.Read(svc)); err == nil || !strings.HasPrefix(err.Error(), "annotation metallb.io/loadBalancerIPs asks for 198.51.100.1") {
		t.Errorf("error %v", err)
	}
}
