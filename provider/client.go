package provider

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
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
// It also notes the Services that it cannot write (see retries), and writes only to the Service that the controller has read,
// and not to another one that has its name by now.
type controllerClient struct {
	kubernetes.Interface
	retries *retries
	// read returns the UID of the Service that the controller has read last under a name; empty if it is gone.
	read func(types.NamespacedName) types.UID
}

func (c controllerClient) CoreV1() typedcorev1.CoreV1Interface {
	return controllerCore{c.Interface.CoreV1(), c}
}

type controllerCore struct {
	typedcorev1.CoreV1Interface
	client controllerClient
}

func (c controllerCore) Services(namespace string) typedcorev1.ServiceInterface {
	return controllerServices{c.CoreV1Interface.Services(namespace), namespace, c.client}
}

func (c controllerCore) Events(namespace string) typedcorev1.EventInterface {
	return controllerEvents{c.CoreV1Interface.Events(namespace)}
}

type controllerServices struct {
	typedcorev1.ServiceInterface
	namespace string
	client    controllerClient
}

// Patch is the only method by which the controller writes Services.
func (s controllerServices) Patch(ctx context.Context, name string, kind types.PatchType, patch []byte, opts metav1.PatchOptions, subresources ...string) (*corev1.Service, error) {
	key := types.NamespacedName{Namespace: s.namespace, Name: name}
	uid := s.client.read(key)
	if uid == "" {
		return nil, apierrors.NewNotFound(corev1.Resource("services"), name)
	}
	patch, err := complete(patch, uid)
	if err != nil {
		return nil, fmt.Errorf("patch of Service %s: %w", key, err)
	}
	opts.FieldManager = fieldManager
	svc, err := s.ServiceInterface.Patch(ctx, name, kind, patch, opts, subresources...)
	s.client.retries.failed(key, err)
	return svc, err
}

// complete adds the UID to a patch of a Service: the API server refuses the patch if the Service of that name has another one.
// If the patch sets addresses, complete adds the finalizer as well. The API server merges lists of finalizers: others stay,
// and a finalizer that is already there is not added again.
func complete(patch []byte, uid types.UID) ([]byte, error) {
	var fields map[string]any
	if err := json.Unmarshal(patch, &fields); err != nil {
		return nil, err
	}
	if err := unstructured.SetNestedField(fields, string(uid), "metadata", "uid"); err != nil {
		return nil, err
	}
	value, _, err := unstructured.NestedFieldNoCopy(fields, "status", "loadBalancer", "ingress")
	if err != nil {
		return nil, err
	}
	if ingress, _ := value.([]any); len(ingress) > 0 { // It is null in a patch that removes addresses.
		if err := unstructured.SetNestedStringSlice(fields, []string{servicehelper.LoadBalancerCleanupFinalizer}, "metadata", "finalizers"); err != nil {
			return nil, err
		}
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
