package lab

import (
	"context"
	"net/netip"
	"os"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"

	"github.com/heraldlb/herald/e2e/lab/enclave"
)

// TestAPodThatIsBeingDeletedDoesNotBegin runs a pod with an object that the API server has already marked for deletion.
func TestAPodThatIsBeingDeletedDoesNotBegin(t *testing.T) {
	now := metav1.Now()
	object := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "late", UID: "0123456789", DeletionTimestamp: &now, Finalizers: []string{"made.up/one"}},
		Spec:       corev1.PodSpec{NodeName: "k8s-node1", Containers: []corev1.Container{{Image: "app"}}},
	}
	client := fake.NewClientset(object)
	k := newKubelet(&Node{}, client, map[string]string{"app": "/bin/true"}, t.TempDir())
	p := k.newPod(object)
	p.run(context.Background())
	if p.process.Ended() != nil {
		t.Error("its process was started")
	}
	if _, err := os.Stat("/run/netns/" + podHost(object.UID).Name); !os.IsNotExist(err) {
		t.Errorf("it has a network namespace: %v", err)
	}
	if pods, err := client.CoreV1().Pods("default").List(context.Background(), metav1.ListOptions{}); err != nil || len(pods.Items) > 0 {
		t.Errorf("the object is still there: %v, %v", pods.Items, err)
	}
}

// TestAPodHasTheNetworkOfItsNode is about a pod with hostNetwork: its process runs on the node's host, and its environment
// has the node's addresses.
func TestAPodHasTheNetworkOfItsNode(t *testing.T) {
	from := func(name, path string) corev1.EnvVar {
		return corev1.EnvVar{Name: name, ValueFrom: &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: path}}}
	}
	node := &Node{Name: "k8s-node1", Client: Client{Host: enclave.Host{Name: "k8s-node1"}, IPv4: netip.MustParseAddr("198.18.0.11")}}
	p := newKubelet(node, fake.NewClientset(), nil, t.TempDir()).newPod(&corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "speaker", UID: "0123456789"},
		Spec: corev1.PodSpec{HostNetwork: true, Containers: []corev1.Container{{Env: []corev1.EnvVar{
			from("NAME", "metadata.name"), from("NODE", "spec.nodeName"), from("ADDRESS", "status.podIP"), {Name: "MODE", Value: "native"},
		}}}},
	})
	if p.process.Host != node.Host {
		t.Errorf("it runs on %v", p.process.Host)
	}
	for _, want := range []string{"NAME=speaker", "NODE=k8s-node1", "ADDRESS=198.18.0.11", "MODE=native"} {
		if !slices.Contains(p.process.Env, want) {
			t.Errorf("its environment has no %s: %v", want, p.process.Env)
		}
	}
}
