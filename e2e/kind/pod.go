package kind

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/heraldlb/herald/e2e/lab"
	"github.com/heraldlb/herald/e2e/lab/enclave"
)

// InPod returns a client in the network namespace of a running pod. It gives the namespace a name in the enclave.
func (c *Cluster) InPod(ctx context.Context, namespace, name string) (*lab.Client, error) {
	pod, err := c.Client.CoreV1().Pods(namespace).Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return nil, err
	}
	// The kubelet names a pod's control group by its UID.
	group := []byte("pod" + strings.ReplaceAll(string(pod.UID), "-", "_"))
	processes, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return nil, err
	}
	for _, p := range processes {
		groups, err := os.ReadFile(filepath.Join(p, "cgroup"))
		if err != nil || !bytes.Contains(groups, group) {
			continue // An error means that the process has ended.
		}
		host := enclave.Host{Name: "pod-" + string(pod.UID[:8])}
		if err := (enclave.Host{}).Script("ip netns attach %s %s", host.Name, filepath.Base(p)); err != nil {
			return nil, err
		}
		return lab.ClientOn(host)
	}
	return nil, fmt.Errorf("pod %s/%s has no process", namespace, name)
}
