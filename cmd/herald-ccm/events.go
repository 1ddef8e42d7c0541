package main

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/kubernetes"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
)

// terse is a client that leaves out the events by which the service controller says what it is about to do. What came
// of it follows at once, and an event costs the API server as much as an address: these would be every fifth write of
// a new Service, and push out others, of which no more than a thousand can wait to be written.
type terse struct{ kubernetes.Interface }

func (t terse) CoreV1() typedcorev1.CoreV1Interface { return terseCore{t.Interface.CoreV1()} }

type terseCore struct{ typedcorev1.CoreV1Interface }

func (t terseCore) Events(namespace string) typedcorev1.EventInterface {
	return terseEvents{t.CoreV1Interface.Events(namespace)}
}

// terseEvents is the two methods that an event recorder calls.
type terseEvents struct{ typedcorev1.EventInterface }

func (t terseEvents) CreateWithEventNamespace(e *corev1.Event) (*corev1.Event, error) {
	if announces(e) {
		return e, nil
	}
	return t.CreateWithEventNamespaceWithContext(context.Background(), e)
}

// PatchWithEventNamespace counts an event that comes again.
func (t terseEvents) PatchWithEventNamespace(e *corev1.Event, data []byte) (*corev1.Event, error) {
	if announces(e) {
		return e, nil
	}
	return t.PatchWithEventNamespaceWithContext(context.Background(), e, data)
}

func announces(e *corev1.Event) bool {
	return e.Reason == "EnsuringLoadBalancer" || e.Reason == "DeletingLoadBalancer"
}
