// Package lab runs a Kubernetes cluster in network namespaces. The cluster starts within seconds.
//
// The programs that decide about a Service are real: etcd, kube-apiserver, kube-controller-manager,
// kube-scheduler, one kube-proxy per node, FRR or BIRD on the routers, the kernel's own ARP, routing and
// connection tracking, and Herald's programs. Nodes and pods are simulated: a node is a namespace
// instead of a machine, and a pod is a process in a namespace, started by the lab's own small kubelet.
// Users' Pods and Services work unchanged if the pods run an image that the lab knows.
//
// A Lab runs in an enclave (package enclave). Only one Lab runs at a time, because its names and
// addresses are fixed; plan.go lists them. However the program ends, nothing is left on the machine.
package lab

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"golang.org/x/sync/errgroup"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/heraldlb/herald/e2e/lab/enclave"
)

// Lab is a running cluster with the hosts around it.
type Lab struct {
	*ControlPlane
	Site

	options Options
	ctx     context.Context // Close cancels it; the kubelets and routers derive from it.
	cancel  context.CancelFunc
	work    sync.WaitGroup // The kubelets.

	mu   sync.Mutex
	errs []error // Errors of the kubelets.
}

// Start starts a lab and returns when kube-proxy has written its rules on every node. ctx bounds the
// start only; a lab that has started runs until Close.
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
	cluster.Go(func() error { return l.startRouters(l.Dir()) })
	return cluster.Wait()
}

// layHosts creates the clients, routers and nodes and the routes between them.
func (l *Lab) layHosts() error {
	l.options.Progress("laying cables")
	if err := l.surround(l.ctx, l.options.Routers, l.options.Password); err != nil {
		return err
	}
	for _, r := range l.Routers {
		r.bfd, r.bfdKeeps = l.options.BFD, l.options.BFDKeeps
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

// AddNode adds a node and returns when it is ready. It must not be called concurrently.
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

// InPod returns a client within a running pod.
func (l *Lab) InPod(ctx context.Context, namespace, name string) (*Client, error) {
	p, err := l.Client.CoreV1().Pods(namespace).Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return nil, err
	}
	return ClientOn(podHost(p.UID))
}

// Close ends every process and removes the network. Only tests of the lab need its error, because the
// end of the enclave cleans up in any case.
func (l *Lab) Close() error {
	l.options.Progress("taking it down")
	l.cancel()
	l.work.Wait()
	errs := slices.Clone(l.errs)
	if l.ControlPlane != nil {
		errs = append(errs, l.ControlPlane.Close())
	}
	return errors.Join(append(errs, l.Site.Close(), removeBridge())...)
}
