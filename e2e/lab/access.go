package lab

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/heraldlb/herald/api/client"
)

// Access has clients for a cluster's API server, with administrator rights and without rate limits.
type Access struct {
	Config *rest.Config
	// Kubeconfig is a file with the same credentials.
	Kubeconfig string
	Client     kubernetes.Interface
	Herald     *client.Set

	kubectl string // Path of the program.
	cache   string // Discovery cache folder. It is separate because other clusters' API servers have the same address.
	plugins string // Folder with kubectl plugins.
}

// NewAccess returns an Access from a kubeconfig. kubectl is the path of the real kubectl, which caches API
// discovery in the folder cache.
func NewAccess(kubeconfig, kubectl, cache string) (Access, error) {
	a := Access{Kubeconfig: kubeconfig, kubectl: kubectl, cache: cache}
	return a, a.connect()
}

func (a *Access) connect() (err error) {
	if a.Config, err = clientcmd.BuildConfigFromFlags("", a.Kubeconfig); err != nil {
		return err
	}
	a.Config.QPS = -1
	if a.Client, err = kubernetes.NewForConfig(a.Config); err != nil {
		return err
	}
	a.Herald, err = client.New(a.Config)
	return err
}

// Kubectl runs the real kubectl and returns its standard output. kubectl finds plugins (kubectl-herald) in
// build/bin.
func (a *Access) Kubectl(ctx context.Context, args ...string) (string, error) {
	return a.run(ctx, "", args...)
}

// Apply runs kubectl apply, server-side, with one or more YAML documents.
func (a *Access) Apply(ctx context.Context, yaml string) error {
	_, err := a.run(ctx, yaml, "apply", "--server-side", "--force-conflicts", "-f", "-")
	return err
}

func (a *Access) run(ctx context.Context, stdin string, args ...string) (string, error) {
	out, err := a.output(exec.CommandContext(ctx, a.kubectl, args...), stdin)
	if err != nil {
		err = fmt.Errorf("kubectl %s: %w", strings.Join(args, " "), err)
	}
	return out, err
}

// Shell runs bash commands and returns their standard output. In them, kubectl is the real kubectl and reaches the
// cluster. Shell stops at the first command that fails.
func (a *Access) Shell(ctx context.Context, commands string) (string, error) {
	// The binary contains all Kubernetes programs and chooses one by its name.
	kubectl := fmt.Sprintf("kubectl() { %q \"$@\"; }\n", a.kubectl)
	return a.output(exec.CommandContext(ctx, "bash", "-euo", "pipefail"), kubectl+commands)
}

func (a *Access) output(cmd *exec.Cmd, stdin string) (string, error) {
	cmd.WaitDelay = time.Second // What a shell has started may outlive it, and keeps its output open.
	cmd.Env = append(os.Environ(), "KUBECONFIG="+a.Kubeconfig, "KUBECACHEDIR="+a.cache, "PATH="+a.plugins+":"+os.Getenv("PATH"))
	var stdout, stderr bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return stdout.String(), fmt.Errorf("%w: %s", err, strings.TrimSpace(stderr.String()))
	}
	return stdout.String(), nil
}

// ReadyGate is the pod condition that SetReady sets. Pods must list it in their readiness gates. In a lab the
// condition also applies to pods that do not list it, once it is set.
const ReadyGate corev1.PodConditionType = "e2e.herald.dev/ready"

// SetReady makes a pod ready or not ready, as its readiness probe would, and waits until its status
// shows that.
func (a *Access) SetReady(ctx context.Context, namespace, name string, ready bool) error {
	status := map[bool]corev1.ConditionStatus{true: corev1.ConditionTrue, false: corev1.ConditionFalse}[ready]
	patch := fmt.Sprintf(`{"status":{"conditions":[{"type":%q,"status":%q}]}}`, ReadyGate, status)
	if _, err := a.Client.CoreV1().Pods(namespace).Patch(ctx, name, types.StrategicMergePatchType, []byte(patch), metav1.PatchOptions{}, "status"); err != nil {
		return err
	}
	return a.AwaitPod(ctx, namespace, name, ready)
}

// AwaitPod waits until the pod is ready, or, if ready is false, until it is not ready.
func (a *Access) AwaitPod(ctx context.Context, namespace, name string, ready bool) error {
	return Eventually(ctx, func(ctx context.Context) error {
		p, err := a.Client.CoreV1().Pods(namespace).Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		if is := podReady(p); is != ready {
			return fmt.Errorf("pod %s/%s in phase %s: ready is %t, want %t", namespace, name, p.Status.Phase, is, ready)
		}
		return nil
	})
}

func podReady(p *corev1.Pod) bool {
	for _, c := range p.Status.Conditions {
		if c.Type == corev1.PodReady {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}
