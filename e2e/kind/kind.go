// Package kind is a Kubernetes cluster of kind inside an enclave, without a registry to pull from.
//
// dockerd runs in the enclave as any other process of a story does, so its bridge, its rules, its
// containers and all that runs in them are gone when the enclave is. What is kept between runs, under
// build/kind, is its store of images. The bridge is the [lab.Bridge] of the lab, with the lab's address
// plan, so clients and routers stand around these nodes as they do around the lab's.
package kind

import (
	"context"
	_ "embed" // The cluster's configuration.
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/heraldlb/herald/e2e/lab"
	"github.com/heraldlb/herald/e2e/lab/enclave"
)

const (
	clusterName = "herald"
	// ControlPlane is the name of the node, and of the host, that runs it. It is excluded from load
	// balancing, as kubeadm does by default.
	ControlPlane = clusterName + "-control-plane"

	// image is Herald's, as the manifests name it.
	image = "ghcr.io/heraldlb/herald:dev"
)

//go:embed cluster.yaml
var config string

// Options of a cluster.
type Options struct {
	// Root is the folder of Herald's go.mod, where build/bin is.
	Root string
	// NodeImage is one that the docker in use can find; empty: it is made here.
	NodeImage string
	// Progress is told what is being done now, in a few words.
	Progress func(step string)
}

// Cluster is one that runs.
type Cluster struct {
	lab.Access
	// Nodes are the workers, k8s-node1 first.
	Nodes []*lab.Node

	options Options
	dir     string // Temporary: logs and the kubeconfig.
	engine  *engine
}

// Start makes the cluster and returns when its nodes are ready. It is to be called inside an enclave, once.
func Start(ctx context.Context, o Options) (*Cluster, error) {
	dir, err := os.MkdirTemp("/run", "kind-")
	if err != nil {
		return nil, err
	}
	// Routers run as users of their own.
	if err := os.Chmod(dir, 0o755); err != nil {
		return nil, err
	}
	c := &Cluster{options: o, dir: dir}
	if err := c.start(ctx); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

func (c *Cluster) start(ctx context.Context) (err error) {
	c.options.Progress("starting dockerd")
	if c.engine, err = startEngine(ctx, c.options.Root, c.dir); err != nil {
		return err
	}
	node := c.options.NodeImage
	if node == "" {
		c.options.Progress("making the node image, unless it is there")
		if node, err = c.engine.nodeImage(ctx); err != nil {
			return err
		}
	}
	c.options.Progress("creating the cluster")
	if err := c.engine.layNetwork(ctx); err != nil {
		return err
	}
	file := filepath.Join(c.dir, "cluster.yaml")
	if err := os.WriteFile(file, []byte(config), 0o644); err != nil {
		return err
	}
	kubeconfig := filepath.Join(c.dir, "kubeconfig")
	if _, err := c.engine.run(ctx, "build/bin/kind", "create", "cluster", "--name", clusterName, "--image", node,
		"--config", file, "--kubeconfig", kubeconfig, "--retain"); err != nil {
		return err
	}
	kubectl := filepath.Join(c.dir, "kubectl")
	if err := os.Symlink(filepath.Join(c.options.Root, "build/bin/kubernetes"), kubectl); err != nil {
		return err
	}
	if c.Access, err = lab.NewAccess(kubeconfig, kubectl, filepath.Join(c.dir, "kubectl-cache")); err != nil {
		return err
	}
	if err := c.adopt(ctx); err != nil {
		return err
	}
	c.options.Progress("waiting for the nodes")
	return c.awaitNodes(ctx)
}

// adopt gives the nodes' networks their names in the enclave, and does the work of a CNI: the
// configuration of kind's own plugins on each node, and routes to the pods of the others.
func (c *Cluster) adopt(ctx context.Context) error {
	objects, err := c.podRanges(ctx)
	if err != nil {
		return err
	}
	containers := map[string]string{ControlPlane: ControlPlane}
	for i := range len(objects) - 1 {
		name := clusterName + "-worker"
		if i > 0 {
			name += fmt.Sprint(i + 1)
		}
		containers[fmt.Sprintf("k8s-node%d", i+1)] = name
	}
	nodes := map[string]*lab.Node{}
	for name, container := range containers {
		number := 0
		_, _ = fmt.Sscanf(name, "k8s-node%d", &number) // 0 is the control plane's.
		if nodes[name], err = c.adoptNode(ctx, name, container, number); err != nil {
			return fmt.Errorf("node %s: %w", name, err)
		}
	}
	for name, object := range objects {
		for other, from := range nodes {
			for _, pods := range object.Spec.PodCIDRs {
				via := nodes[name].IPv4
				if strings.Contains(pods, ":") {
					via = nodes[name].IPv6
				}
				if other == name {
					continue
				}
				if err := from.Host.Script("ip route replace %s via %s", pods, via); err != nil {
					return err
				}
			}
		}
		if err := c.engine.configureCNI(ctx, containers[name], object.Spec.PodCIDRs); err != nil {
			return err
		}
	}
	for i := range len(objects) - 1 {
		c.Nodes = append(c.Nodes, nodes[fmt.Sprintf("k8s-node%d", i+1)])
	}
	return nil
}

// podRanges are the Nodes, once each has its range of pod addresses.
func (c *Cluster) podRanges(ctx context.Context) (map[string]*corev1.Node, error) {
	nodes := map[string]*corev1.Node{}
	return nodes, lab.Eventually(ctx, func(ctx context.Context) error {
		list, err := c.Client.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
		if err != nil {
			return err
		}
		for _, n := range list.Items {
			if len(n.Spec.PodCIDRs) == 0 {
				return fmt.Errorf("node %s has no pod range", n.Name)
			}
			nodes[n.Name] = &n
		}
		return nil
	})
}

func (c *Cluster) adoptNode(ctx context.Context, name, container string, number int) (*lab.Node, error) {
	pid, err := c.engine.run(ctx, "docker", "inspect", "-f", "{{.State.Pid}}", container)
	if err != nil {
		return nil, err
	}
	if err := (enclave.Host{}).Script("ip netns attach %s %s", name, strings.TrimSpace(pid)); err != nil {
		return nil, err
	}
	host := enclave.Host{Name: name}
	var far int
	if err := host.Do(func() error {
		l, err := netlink.LinkByName("eth0")
		if err == nil {
			far = l.Attrs().ParentIndex
		}
		return err
	}); err != nil {
		return nil, err
	}
	port, err := net.InterfaceByIndex(far)
	if err != nil {
		return nil, err
	}
	return lab.NewNode(name, number, host, port.Name)
}

func (c *Cluster) awaitNodes(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	_, err := c.Kubectl(ctx, "wait", "nodes", "--all", "--for=condition=Ready", "--timeout=2m")
	return err
}

// LoadImages builds Herald's image and that of the stories' pods and puts them on every node.
func (c *Cluster) LoadImages(ctx context.Context) error {
	if _, err := c.engine.run(ctx, "e2e/kind/images.sh", image); err != nil {
		return err
	}
	_, err := c.engine.run(ctx, "build/bin/kind", "load", "docker-image", "--name", clusterName, image, "test/app:latest")
	return err
}

// Dir is a folder that ends with the cluster.
func (c *Cluster) Dir() string { return c.dir }

// Close ends everything that the cluster consists of.
func (c *Cluster) Close() error {
	var err error
	if c.engine != nil {
		err = c.engine.close()
	}
	return errors.Join(err, os.RemoveAll(c.dir))
}
