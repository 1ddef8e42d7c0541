package provider

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/json"
	"k8s.io/client-go/kubernetes"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	servicehelper "k8s.io/cloud-provider/service/helpers"
)

// controllerClient is the client of the service controller. It saves requests:
//
//   - The patch that writes the addresses into a Service's status also writes the finalizer. The controller itself does
//     not write the finalizer, because the projection shows it on a Service that has no address yet.
//   - The events EnsuringLoadBalancer and DeletingLoadBalancer are dropped. They say what the controller is about to
//     do, and the next event has the result. Writing an event costs the API server as much as writing an address, and
//     the recorder drops events when a thousand are waiting.
//
// It also notes the Services that it cannot write: see retries.
type controllerClient struct {
	kubernetes.Interface
	retries *retries
}

func (c controllerClient) CoreV1() typedcorev1.CoreV1Interface {
	return controllerCore{c.Interface.CoreV1(), c.retries}
}

type controllerCore struct {
	typedcorev1.CoreV1Interface
	retries *retries
}

func (c controllerCore) Services(namespace string) typedcorev1.ServiceInterface {
	return controllerServices{c.CoreV1Interface.Services(namespace), namespace, c.retries}
}

func (c controllerCore) Events(namespace string) typedcorev1.EventInterface {
	return controllerEvents{c.CoreV1Interface.Events(namespace)}
}

type controllerServices struct {
	typedcorev1.ServiceInterface
	namespace string
	retries   *retries
}

// Patch is the only method by which the controller writes Services.
func (s controllerServices) Patch(ctx context.Context, name string, kind types.PatchType, patch []byte, opts metav1.PatchOptions, subresources ...string) (*corev1.Service, error) {
	if kind == types.StrategicMergePatchType {
		var err error
		if patch, err = withFinalizer(patch); err != nil {
			return nil, fmt.Errorf("patch of Service %s: %w", name, err)
		}
	}
	opts.FieldManager = fieldManager
	svc, err := s.ServiceInterface.Patch(ctx, name, kind, patch, opts, subresources...)
	s.retries.failed(types.NamespacedName{Namespace: s.namespace, Name: name}, err)
	return svc, err
}

// withFinalizer adds the finalizer to a strategic merge patch of a Service if the patch sets addresses. The API server
// merges lists of finalizers: others stay, and a finalizer that is already there is not added again.
func withFinalizer(patch []byte) ([]byte, error) {
	var fields map[string]any
	if err := json.Unmarshal(patch, &fields); err != nil {
		return nil, err
	}
	value, _, err := unstructured.NestedFieldNoCopy(fields, "status", "loadBalancer", "ingress")
	if ingress, _ := value.([]any); err != nil || len(ingress) == 0 { // It is null in a patch that removes addresses.
		return patch, err
	}
	if err := unstructured.SetNestedStringSlice(fields, []string{servicehelper.LoadBalancerCleanupFinalizer}, "metadata", "finalizers"); err != nil {
		return nil, err
	}
	return json.Marshal(fields)
}

// controllerEvents drops some of the controller's events. It has the two methods that an event recorder calls.
type controllerEvents struct{ typedcorev1.EventInterface }

func (e controllerEvents) CreateWithEventNamespace(event *corev1.Event) (*corev1.Event, error) {
	if isAnnouncement(event) {
		return event, nil
	}
	return e.CreateWithEventNamespaceWithContext(context.Background(), event)
}

// PatchWithEventNamespace updates the count of a repeated event.
func (e controllerEvents) PatchWithEventNamespace(event *corev1.Event, patch []byte) (*corev1.Event, error) {
	if isAnnouncement(event) {
		return event, nil
	}
	return e.PatchWithEventNamespaceWithContext(context.Background(), event, patch)
}

// isAnnouncement reports whether an event says what the controller is about to do.
func isAnnouncement(e *corev1.Event) bool {
	return e.Reason == "EnsuringLoadBalancer" || e.Reason == "DeletingLoadBalancer"
}
