// Package lab is a Kubernetes cluster in a box of network namespaces, in seconds.
//
// What decides about a Service is real: etcd, kube-apiserver, kube-controller-manager,
// kube-scheduler, one kube-proxy per node, FRR or BIRD as routers, the kernel's own ARP, routing and
// connection tracking, and Herald's programs. What is played: a node is a namespace and not a
// machine, and a pod is a process in a namespace, started by a small kubelet of the lab's own. So
// users' own Pods and Services work unchanged, as long as the pods run an image that the lab knows.
//
// A Lab lives in an enclave (package enclave), one at a time, because names and addresses are fixed;
// plan.go has them. Whatever happens to the program, nothing of it stays behind.
package lab

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/heraldlb/herald/e2e/lab/enclave"
)

// Lab is a running cluster with the hosts around it.
type Lab struct {
	*ControlPlane
	// Nodes, k8s-node1 first.
	Nodes []*Node
	// Routers, router1 first.
	Routers []*Router
	// Segment is a client in the nodes' own subnet, without a default route.
	Segment *Client
	// Outside is the client behind router1, or nil if there is no router.
	Outside *Client

	options Options
	ctx     context.Context // Ends with Close; the kubelets and routers are under it.
	cancel  context.CancelFunc
	work    sync.WaitGroup // The kubelets.

	mu    sync.Mutex
	hosts []enclave.Host // All but those of pods.
	errs  []error        // Of the kubelets.
}

// Start stands up a lab and returns when kube-proxy has written its rules on every node. ctx is for
// the start only; a lab that is up stays so until Close.
func Start(ctx context.Context, o Options) (*Lab, error) {
	if err := o.complete(); err != nil {
		return nil, err
	}
	o.Controllers = true
	l := &Lab{options: o}
	l.ctx, l.cancel = context.WithCancel(context.WithoutCancel(ctx))
	if err := l.start(ctx); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

func (l *Lab) start(ctx context.Context) error {
	if err := layBridge(); err != nil {
		return err
	}
	var ground errgroup.Group
	ground.Go(func() (err error) {
		v4, _ := onSegment(apiServerHost)
		l.ControlPlane, err = startServer(l.options.ControlPlaneOptions, v4.Addr().String())
		return err
	})
	ground.Go(l.layHosts)
	if err := ground.Wait(); err != nil {
		return err
	}
	cluster, ctx := errgroup.WithContext(ctx)
	cluster.Go(func() error { return l.install(ctx) })
	l.options.Progress("starting kube-scheduler, kube-proxy and the routers")
	cluster.Go(l.process(enclave.Host{}, "kube-scheduler", l.path("bin", "kube-scheduler"),
		"--kubeconfig", l.Kubeconfig, "--leader-elect=false", "--secure-port=0").Start)
	for _, n := range l.Nodes {
		cluster.Go(func() error { return l.startNode(ctx, n) })
	}
	for _, r := range l.Routers {
		r.dir = l.path(r.Name)
		cluster.Go(r.Start)
	}
	return cluster.Wait()
}

// layHosts makes clients, routers and nodes and lays the routes among them.
func (l *Lab) layHosts() error {
	l.options.Progress("laying cables")
	client, err := attach("client", clientHost)
	l.own(client.Host)
	if err != nil {
		return err
	}
	l.Segment = &client
	for i, kind := range l.options.Routers {
		r, err := newRouter(l.ctx, i+1, kind, l.options.Password)
		l.own(r.Host, r.Outside.Host)
		if err != nil {
			return err
		}
		l.Routers = append(l.Routers, r)
	}
	if len(l.Routers) > 0 {
		l.Outside = l.Routers[0].Outside
	}
	for i := range l.options.Nodes {
		if _, err := l.layNode(i + 1); err != nil {
			return err
		}
	}
	return nil
}

func (l *Lab) layNode(number int) (*Node, error) {
	n, err := newNode(number)
	l.own(n.Host)
	if err != nil {
		return nil, err
	}
	for _, other := range l.Nodes {
		if err := meet(n, other); err != nil {
			return nil, err
		}
	}
	for _, r := range l.Routers {
		if err := n.routeTo(r); err != nil {
			return nil, err
		}
	}
	l.Nodes = append(l.Nodes, n)
	return n, nil
}

func (l *Lab) startNode(ctx context.Context, n *Node) error {
	if err := n.register(ctx, l.Client); err != nil {
		return err
	}
	k := newKubelet(n, l.Client, l.options.Images, l.path("logs"))
	l.work.Go(func() {
		if err := k.run(l.ctx); err != nil {
			l.mu.Lock()
			defer l.mu.Unlock()
			l.errs = append(l.errs, err)
		}
	})
	return n.startProxy(ctx, l.ControlPlane)
}

// AddNode makes one more node, as ready as the others. Not to be called from two goroutines.
func (l *Lab) AddNode(ctx context.Context) (*Node, error) {
	number := len(l.Nodes) + 1
	if number > MaxNodes {
		return nil, fmt.Errorf("the address plan has room for %d nodes", MaxNodes)
	}
	n, err := l.layNode(number)
	if err != nil {
		return nil, err
	}
	return n, l.startNode(ctx, n)
}

// Node returns the node of that name, or nil.
func (l *Lab) Node(name string) *Node {
	return l.node(func(n *Node) bool { return n.Name == name })
}

// NodeByMAC returns the node whose interface on the segment has the MAC, or nil.
func (l *Lab) NodeByMAC(mac net.HardwareAddr) *Node {
	return l.node(func(n *Node) bool { return n.MAC.String() == mac.String() })
}

func (l *Lab) node(is func(*Node) bool) *Node {
	for _, n := range l.Nodes {
		if is(n) {
			return n
		}
	}
	return nil
}

// InPod returns a client within a running pod.
func (l *Lab) InPod(ctx context.Context, namespace, name string) (*Client, error) {
	p, err := l.Client.CoreV1().Pods(namespace).Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return nil, err
	}
	return describe(podHost(p.UID))
}

// SetReady makes a pod ready or not ready, as its readiness probe would, and waits until its status
// says so.
func (l *Lab) SetReady(ctx context.Context, namespace, name string, ready bool) error {
	patch := fmt.Sprintf(`{"metadata":{"annotations":{%q:"%t"}}}`, ReadyAnnotation, ready)
	if _, err := l.Client.CoreV1().Pods(namespace).Patch(ctx, name, types.MergePatchType, []byte(patch), metav1.PatchOptions{}); err != nil {
		return err
	}
	return l.AwaitPod(ctx, namespace, name, ready)
}

// AwaitPod waits until the pod's status says that it is ready, or that it is not.
func (l *Lab) AwaitPod(ctx context.Context, namespace, name string, ready bool) error {
	return Eventually(ctx, func(ctx context.Context) error {
		p, err := l.Client.CoreV1().Pods(namespace).Get(ctx, name, metav1.GetOptions{})
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

func (l *Lab) own(hosts ...enclave.Host) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.hosts = append(l.hosts, hosts...)
}

// Close ends every process and takes the network away. What it returns is only of interest to tests
// of the lab: the enclave's end would have done it all.
func (l *Lab) Close() error {
	l.options.Progress("taking it down")
	l.cancel()
	l.work.Wait()
	var all errgroup.Group
	for _, r := range l.Routers {
		all.Go(r.Kill)
	}
	if l.ControlPlane != nil {
		all.Go(l.ControlPlane.Close)
	}
	errs := append(slices.Clone(l.errs), all.Wait())
	for _, h := range l.hosts {
		errs = append(errs, detach(h))
	}
	return errors.Join(append(errs, removeBridge())...)
}
