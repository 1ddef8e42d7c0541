package kind

import (
	"context"
	"errors"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// ready returns an error for each node and each system pod that is not ready, and if users' pods are not admitted.
func (c *Cluster) ready(ctx context.Context) error {
	nodes, err := c.Client.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	var waiting []error
	for _, n := range nodes.Items {
		for _, condition := range n.Status.Conditions {
			if condition.Type == corev1.NodeReady && condition.Status != corev1.ConditionTrue {
				waiting = append(waiting, fmt.Errorf("node %s: %s", n.Name, condition.Message))
			}
		}
	}
	pods, err := c.Client.CoreV1().Pods(metav1.NamespaceSystem).List(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	for _, p := range pods.Items {
		if !podReady(&p) {
			waiting = append(waiting, fmt.Errorf("pod %s in phase %s is not ready", p.Name, p.Status.Phase))
		}
	}
	return errors.Join(append(waiting, c.admits(ctx))...)
}

func podReady(p *corev1.Pod) bool {
	for _, condition := range p.Status.Conditions {
		if condition.Type == corev1.PodReady {
			return condition.Status == corev1.ConditionTrue
		}
	}
	return false
}

// admits checks that the API server admits a pod and applies images.yaml to it. A policy takes effect some time
// after it is created.
func (c *Cluster) admits(ctx context.Context) error {
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "probe"},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "probe", Image: "probe"}}},
	}
	pod, err := c.Client.CoreV1().Pods(metav1.NamespaceDefault).Create(ctx, pod, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
	if err == nil && pod.Spec.Containers[0].ImagePullPolicy != corev1.PullIfNotPresent {
		err = errors.New("images would be pulled though they are there")
	}
	return err
}
