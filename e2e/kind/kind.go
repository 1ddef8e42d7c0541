// Package kind runs a real Kubernetes cluster for the stories. kind creates it, with kubelets, containers and
// pods. The machine needs neither a running Docker nor a registry to pull from.
//
// The cluster runs inside an enclave (package enclave): the Docker daemon, its network and the nodes end with
// the program, however it ends. Only a cache of images in build/kind stays. The nodes are on a bridge with the
// name and the addresses of the lab's segment (e2e/lab/plan.go). The lab's clients and routers can therefore
// be used with this cluster, too.
//
// The node image is given, or built from Debian packages and Kubernetes' Go modules (folder node).
package kind

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"text/template"
	"time"

	"golang.org/x/sys/unix"

	"github.com/heraldlb/herald/e2e/lab"
)

const (
	name = "herald"
	// closing bounds Close. logging bounds the collection of logs of a cluster that failed to start.
	closing = time.Minute
	logging = time.Minute
)

// workers are the names of the worker nodes, the same as in users' manifests.
var workers = []string{"k8s-node1", "k8s-node2", "k8s-node3"}

// Families says which address families Kubernetes uses for nodes, pods and Services, in kind's words. The
// segment always has addresses of both families.
type Families string

// A cluster has one family or both, IPv4 first.
const (
	IPv4      Families = "ipv4"
	IPv6      Families = "ipv6"
	DualStack Families = "dual"
)

// of returns those of v4 and v6 that belong to the families, as a comma-separated list.
func (f Families) of(v4, v6 string) string {
	switch f {
	case IPv4:
		return v4
	case IPv6:
		return v6
	default:
		return v4 + "," + v6
	}
}

// Options of a [Cluster]. Only Families is required.
type Options struct {
	Families Families
	// NodeImage is a file that docker save wrote from a kindest/node image of Kubernetes 1.36 or later, for users
	// who can pull one. If it is empty, an image is built from the contents of build, or an earlier build is used.
	NodeImage string
	// Root is the folder of Herald's go.mod. If it is empty, [lab.FindRoot] finds it.
	Root string
	// Progress is called at each step with a few words about it.
	Progress func(step string)
}

// Cluster is a running cluster.
type Cluster struct {
	lab.Access
	// Nodes are the workers, k8s-node1 first.
	Nodes []*Node
	// ControlPlane is the node that runs only the pods of the control plane.
	ControlPlane *Node

	options Options
	docker  *docker
	lock    *os.File
}

// Start starts a cluster and returns when its nodes and its system pods are ready. It must be called
// inside an enclave. A source tree can run one cluster at a time.
func Start(ctx context.Context, o Options) (*Cluster, error) {
	if os.Getpid() != 1 {
		return nil, errors.New("kind: call enclave.Enter first: this would be the machine's own network")
	}
	if o.Progress == nil {
		o.Progress = func(string) {}
	}
	c := &Cluster{options: o}
	if o.Root == "" {
		var err error
		if c.options.Root, err = lab.FindRoot(); err != nil {
			return nil, err
		}
	}
	if err := c.start(ctx); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

func (c *Cluster) start(ctx context.Context) (err error) {
	if err := c.prepared(); err != nil {
		return err
	}
	if c.lock, err = lock(c.cache("lock")); err != nil {
		return err
	}
	if err := watchable(); err != nil {
		return err
	}
	c.options.Progress("starting Docker")
	if c.docker, err = startDocker(ctx, c.options.Root, c.cache("docker")); err != nil {
		return err
	}
	image, err := c.nodeImage(ctx)
	if err != nil {
		return err
	}
	err = c.create(ctx, image)
	if err == nil {
		err = c.furnish(ctx)
	}
	if err != nil {
		logs, cancel := context.WithTimeout(context.WithoutCancel(ctx), logging)
		defer cancel()
		err = errors.Join(fmt.Errorf("%w: see %s", err, c.cache("logs")), c.Logs(logs, c.cache("logs")))
	}
	return err
}

// prepared checks for the files that must be built before, because an enclave has no network.
func (c *Cluster) prepared() error {
	needs := []string{c.binary("kind"), c.binary("kubernetes")}
	if c.options.NodeImage == "" {
		needs = append(needs, c.binary("coredns"), c.binary("pause"), c.cache("debian.tar"), c.cache("base"))
	}
	for _, path := range needs {
		if _, err := os.Stat(path); err != nil {
			return fmt.Errorf("kind: %w: run `make kind`", err)
		}
	}
	return nil
}

// lock ensures that this is the only cluster of the source tree. The kernel releases the lock when the program ends.
func lock(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, errors.Join(fmt.Errorf("lock %s: %w: another cluster of this source tree is up: wait for it, or run `make e2e-down`", path, err), f.Close())
	}
	return f, nil
}

//go:embed cluster.yaml
var configuration string

// create makes the network and lets kind create the cluster. Its nodes are not ready because there is no CNI yet.
func (c *Cluster) create(ctx context.Context, image string) error {
	if err := c.createNetwork(ctx); err != nil {
		return err
	}
	f := c.options.Families
	values := map[string]any{"Families": f, "Pods": f.of(pods4, pods6), "Services": f.of(services4, services6), "Workers": workers}
	var config strings.Builder
	if err := template.Must(template.New("cluster.yaml").Parse(configuration)).Execute(&config, values); err != nil {
		return err
	}
	c.options.Progress("creating a cluster of four nodes")
	_, err := c.kind(ctx, config.String(), "create", "cluster", "--config", "-", "--image", image, "--kubeconfig", c.cache("kubeconfig"), "--retain")
	if err != nil {
		return err
	}
	kubectl := filepath.Join("/run", "kubectl")
	if err := os.Symlink(c.binary("kubernetes"), kubectl); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	c.Access, err = lab.NewAccess(c.cache("kubeconfig"), kubectl, "/run/kubectl-cache")
	return err
}

//go:embed images.yaml
var images string

// furnish sets up the pods' network and the image policy, and waits until the cluster is ready.
func (c *Cluster) furnish(ctx context.Context) error {
	c.options.Progress("laying the pods' network")
	if err := c.findNodes(ctx); err != nil {
		return err
	}
	if err := c.connectPods(ctx); err != nil {
		return err
	}
	if err := c.Apply(ctx, images); err != nil {
		return err
	}
	c.options.Progress("waiting until all is ready")
	return lab.Eventually(ctx, c.ready)
}

// Families returns the Families of the cluster's Options.
func (c *Cluster) Families() Families { return c.options.Families }

// LoadImage copies images from Docker to the nodes.
func (c *Cluster) LoadImage(ctx context.Context, images ...string) error {
	_, err := c.kind(ctx, "", append([]string{"load", "docker-image"}, images...)...)
	return err
}

// BuildImage runs docker build with the text of a Dockerfile and a folder to copy from. It cannot pull images.
func (c *Cluster) BuildImage(ctx context.Context, image, dockerfile, dir string) error {
	_, err := c.docker.run(ctx, strings.NewReader(dockerfile), "build", "--tag", image, "--file", "-", dir)
	return err
}

// Shell runs commands as [lab.Access.Shell] does, with docker, kind and the programs in build/bin in the PATH.
func (c *Cluster) Shell(ctx context.Context, commands string) (string, error) {
	return c.Access.Shell(ctx, fmt.Sprintf("export DOCKER_HOST=unix://%s KIND_CLUSTER_NAME=%s PATH=%q:%q:$PATH\n%s", socket, name, c.docker.bin, c.binary(""), commands))
}

func (c *Cluster) kind(ctx context.Context, stdin string, args ...string) (string, error) {
	args = append(args, "--name", name)
	return c.docker.call(ctx, strings.NewReader(stdin), c.binary("kind"), args...)
}

func (c *Cluster) binary(name string) string {
	return filepath.Join(c.options.Root, "build", "bin", name)
}

// cache returns a path in the folder that outlives the cluster.
func (c *Cluster) cache(name string) string {
	return filepath.Join(c.options.Root, "build", "kind", name)
}

// Close removes the cluster and ends Docker. Only the cache stays.
func (c *Cluster) Close() error {
	c.options.Progress("taking it down")
	ctx, cancel := context.WithTimeout(context.Background(), closing)
	defer cancel()
	var errs []error
	for _, n := range c.all() {
		errs = append(errs, n.Host.Remove())
	}
	if c.docker != nil {
		errs = append(errs, c.docker.stop(ctx))
	}
	if c.lock != nil {
		errs = append(errs, c.lock.Close())
	}
	return errors.Join(errs...)
}
