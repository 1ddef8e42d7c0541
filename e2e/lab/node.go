package lab

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"runtime"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/heraldlb/herald/e2e/lab/enclave"
)

// Node is a machine of the cluster: a host on the segment with kube-proxy and a kubelet.
type Node struct {
	Client
	// Name of the Node object, and of the host.
	Name string
	// Number in the address plan, counted from 1.
	Number int
	// Proxy is the node's kube-proxy if the lab started it, or nil.
	Proxy *Process
	// Second is the node's interface on the second segment, or nil.
	Second *SecondInterface
}

// NewNode returns a node of a cluster that no lab started. host is the node's host, and port is the switch's end of
// its cable.
func NewNode(name string, number int, host enclave.Host, port string) (*Node, error) {
	c, err := ClientOn(host)
	if err != nil {
		return nil, err
	}
	c.Cable = Cable{port: port, bridge: Bridge}
	return &Node{Client: *c, Name: name, Number: number}, nil
}

// newNode makes the host of a node. Its default route leads to the enclave's own namespace, which forwards
// nothing.
func newNode(number int) (*Node, error) {
	name := fmt.Sprintf("k8s-node%d", number)
	c, err := attach(name, nodeHosts+number)
	n := &Node{Client: c, Name: name, Number: number}
	if err != nil {
		return n, err
	}
	gateway4, gateway6 := onSegment(apiServerHost)
	return n, n.Host.Script(`
		sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1
		ip route add default via %s
		ip route add default via %s
	`, gateway4.Addr(), gateway6.Addr())
}

// meet gives two nodes routes to each other's pods, as a CNI would.
func meet(a, b *Node) error {
	if err := a.routeToPodsOf(b); err != nil {
		return err
	}
	return b.routeToPodsOf(a)
}

func (n *Node) routeToPodsOf(other *Node) error {
	pods4, pods6 := podAddress(other.Number, 0)
	return n.Host.Script("%s", routes(other.IPv4, other.IPv6, pods4, pods6))
}

// object returns the Node that a healthy kubelet would register.
func (n *Node) object() *corev1.Node {
	pods4, pods6 := podAddress(n.Number, 0)
	resources := corev1.ResourceList{
		corev1.ResourceCPU:    resource.MustParse("16"),
		corev1.ResourceMemory: resource.MustParse("32Gi"),
		corev1.ResourcePods:   resource.MustParse("200"),
	}
	now := metav1.Now()
	return &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: n.Name, Labels: map[string]string{
			corev1.LabelHostname: n.Name, corev1.LabelOSStable: runtime.GOOS, corev1.LabelArchStable: runtime.GOARCH,
		}},
		Spec: corev1.NodeSpec{PodCIDR: pods4.String(), PodCIDRs: []string{pods4.String(), pods6.String()}},
		Status: corev1.NodeStatus{
			Capacity: resources, Allocatable: resources,
			Addresses: []corev1.NodeAddress{
				{Type: corev1.NodeInternalIP, Address: n.IPv4.String()},
				{Type: corev1.NodeInternalIP, Address: n.IPv6.String()},
				{Type: corev1.NodeHostName, Address: n.Name},
			},
			Conditions: []corev1.NodeCondition{{
				Type: corev1.NodeReady, Status: corev1.ConditionTrue, Reason: "KubeletReady",
				LastHeartbeatTime: now, LastTransitionTime: now,
			}},
		},
	}
}

// register creates the Node object.
func (n *Node) register(ctx context.Context, c kubernetes.Interface) error {
	object := n.object()
	created, err := c.CoreV1().Nodes().Create(ctx, object, metav1.CreateOptions{})
	if err != nil {
		return err
	}
	created.Status = object.Status
	_, err = c.CoreV1().Nodes().UpdateStatus(ctx, created, metav1.UpdateOptions{})
	return err
}

// startProxy starts kube-proxy and waits until it has written its rules.
func (n *Node) startProxy(ctx context.Context, c *ControlPlane) error {
	n.Proxy = c.process(n.Host, "kube-proxy-"+n.Name, c.path("bin", "kube-proxy"),
		"--kubeconfig", c.Kubeconfig, "--hostname-override", n.Name, "--cluster-cidr", podCIDRs,
		"--proxy-mode", "nftables",
		"--conntrack-max-per-core", "0", // The limit belongs to the machine, not to the namespace.
		"--healthz-bind-address", "0.0.0.0:10256",
	)
	if err := n.Proxy.Start(); err != nil {
		return err
	}
	if err := Eventually(ctx, n.proxyHealthy); err != nil {
		return fmt.Errorf("%s does not become healthy: %w: see %s", n.Proxy.Name, err, n.Proxy.LogPath)
	}
	return nil
}

// proxyHealthy requests /healthz of kube-proxy, as a load balancer's health check does.
func (n *Node) proxyHealthy(ctx context.Context) error {
	if !n.Proxy.Running() {
		return errors.New("it has ended")
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("http://%s:10256/healthz", n.IPv4), nil)
	if err != nil {
		return err
	}
	response, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return errors.New(response.Status)
	}
	return nil
}

// AppPort is the port of the app that [Node.StartApp] starts.
const AppPort = 8080

// StartApp starts the app of the tests' pods directly on the node, for a site without Kubernetes. The app listens on
// all addresses of the node and runs until Stop or Kill. Its log is in the folder dir.
func (n *Node) StartApp(ctx context.Context, dir string) (*Process, error) {
	root, err := FindRoot()
	if err != nil {
		return nil, err
	}
	name := "app-" + n.Name
	app := &Process{
		Name: name, Host: n.Host, Path: (&ControlPlaneOptions{Root: root}).binary("app"),
		Env:     []string{"POD_NAME=" + name, "NODE_NAME=" + n.Name},
		LogPath: filepath.Join(dir, name+".log"),
	}
	if err := app.Start(); err != nil {
		return nil, err
	}
	if _, err := n.Eventually(ctx, fmt.Sprintf("127.0.0.1:%d", AppPort), nil); err != nil {
		return nil, errors.Join(err, app.Kill())
	}
	return app, nil
}
