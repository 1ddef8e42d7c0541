package kind

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/heraldlb/herald/e2e/lab"
)

// image is the name of Herald's image in the manifests.
const image = "ghcr.io/heraldlb/herald:dev"

// Install installs Herald by [Overlay], and waits until it runs.
func (c *Cluster) Install(ctx context.Context) error {
	if _, err := c.docker.call(ctx, nil, filepath.Join(c.options.Root, "e2e/kind/images.sh"), image); err != nil {
		return err
	}
	if err := c.LoadImage(ctx, image, app); err != nil {
		return err
	}
	if err := c.Manifests(ctx, "apply", "--server-side", "--force-conflicts"); err != nil {
		return err
	}
	return c.AwaitHerald(ctx)
}

// Manifests runs a kubectl command on Herald's manifests.
func (c *Cluster) Manifests(ctx context.Context, command string, args ...string) error {
	_, err := c.Kubectl(ctx, append([]string{command, "-k", filepath.Join(c.options.Root, Overlay)}, args...)...)
	return err
}

// AwaitHerald waits until herald-ccm and herald-speaker have rolled out.
func (c *Cluster) AwaitHerald(ctx context.Context) error {
	for _, what := range []string{"deployment/herald-ccm", "daemonset/herald-speaker"} {
		if _, err := c.Kubectl(ctx, "rollout", "status", "-n", lab.HeraldNamespace, what, "--timeout=2m"); err != nil {
			return err
		}
	}
	return nil
}

// APIServer returns the cluster's only API server.
func (c *Cluster) APIServer() lab.Resident {
	return lab.Resident{Program: "kube-apiserver", Host: c.ControlPlane.Host}
}

// Speaker is herald-speaker on one node. Stop and Start act like draining the node's speaker. If the speaker is
// killed, its kubelet restarts it.
type Speaker struct {
	lab.Resident
	cluster *Cluster
	node    string
}

// Speaker returns the speaker of a node.
func (c *Cluster) Speaker(n *Node) *Speaker {
	return &Speaker{Resident: lab.Resident{Program: "herald-speaker", Host: n.Host}, cluster: c, node: n.Name}
}

// Stop removes the speaker from its node and waits until it has ended.
func (s *Speaker) Stop(ctx context.Context) error {
	if _, err := s.cluster.Kubectl(ctx, "label", "--overwrite", "node", s.node, "e2e.herald.dev/speaker=stopped"); err != nil {
		return err
	}
	return lab.Eventually(ctx, func(context.Context) error {
		if pid, err := s.PID(); err == nil {
			return fmt.Errorf("the speaker of %s still runs as process %d", s.node, pid)
		}
		return nil
	})
}

// Start brings the speaker back and waits until it runs.
func (s *Speaker) Start() error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if _, err := s.cluster.Kubectl(ctx, "label", "node", s.node, "e2e.herald.dev/speaker-"); err != nil {
		return err
	}
	return lab.Eventually(ctx, func(context.Context) error {
		_, err := s.PID()
		return err
	})
}

// CCM is herald-ccm with all its replicas.
type CCM struct{ cluster *Cluster }

// CCM returns the cluster's herald-ccm.
func (c *Cluster) CCM() CCM { return CCM{c} }

// Kill ends every replica, like the loss of their nodes. No replica returns before Start.
func (c CCM) Kill() error {
	return c.within(func(ctx context.Context) error {
		if _, err := c.cluster.Kubectl(ctx, "scale", "-n", lab.HeraldNamespace, "deployment/herald-ccm", "--replicas=0"); err != nil {
			return err
		}
		_, err := c.cluster.Kubectl(ctx, "delete", "pods", "-n", lab.HeraldNamespace, "-l", "app.kubernetes.io/name=herald-ccm", "--grace-period=0", "--force")
		return err
	})
}

// Start brings the replicas back and waits until they run.
func (c CCM) Start() error {
	return c.within(func(ctx context.Context) error {
		if _, err := c.cluster.Kubectl(ctx, "scale", "-n", lab.HeraldNamespace, "deployment/herald-ccm", "--replicas=2"); err != nil {
			return err
		}
		return c.cluster.AwaitHerald(ctx)
	})
}

func (c CCM) within(f func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	return f(ctx)
}

// Reset undoes a story, even one that failed half-way: it deletes the story's Services and pods and Herald's
// configuration, and undoes changes to nodes and programs. It returns when no address is in use.
func (c *Cluster) Reset(ctx context.Context) error {
	for _, n := range c.Nodes {
		if err := n.Heal(); err != nil {
			return err
		}
		if err := n.ForgetConnections(); err != nil {
			return err
		}
		for _, program := range []string{"kube-proxy", "herald-speaker"} {
			// A program that does not run is not frozen. Its kubelet restarts it.
			if err := (lab.Resident{Program: program, Host: n.Host}).Resume(); err != nil && !errors.Is(err, lab.ErrNotRunning) {
				return err
			}
		}
	}
	if err := c.APIServer().Resume(); err != nil {
		return err
	}
	if _, err := c.Kubectl(ctx, "label", "nodes", "--all", "e2e.herald.dev/speaker-"); err != nil {
		return err
	}
	if err := c.CCM().Start(); err != nil { // Only herald-ccm releases addresses.
		return err
	}
	for _, args := range [][]string{
		{"delete", "services", "-n", "default", "--field-selector=metadata.name!=kubernetes"},
		{"delete", "pods,deployments", "-n", "default", "--all", "--grace-period=1"},
		{"delete", "secrets", "-n", lab.PeersNamespace, "--field-selector=type=kubernetes.io/basic-auth"},
		{"delete", "bgpadvertisements,l2advertisements,bgppeers", "--all"},
		{"delete", "ippools.herald.dev,ipallocations.herald.dev", "--all"},
		{"label", "nodes", "-l", "!node-role.kubernetes.io/control-plane", "node.kubernetes.io/exclude-from-external-load-balancers-"},
	} {
		if _, err := c.Kubectl(ctx, args...); err != nil {
			return err
		}
	}
	return lab.Eventually(ctx, func(ctx context.Context) error {
		list, err := c.Herald.Allocations.List(ctx, metav1.ListOptions{})
		if err == nil && len(list.Items) > 0 {
			err = errors.New("there are still addresses in use")
		}
		return err
	})
}
