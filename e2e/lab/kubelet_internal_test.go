package lab

import (
	"context"
	"os"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"
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
