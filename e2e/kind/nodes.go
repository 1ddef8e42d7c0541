package kind

import (
	"context"
	"fmt"
	"slices"

	"github.com/vishvananda/netlink"

	"github.com/heraldlb/herald/e2e/lab"
	"github.com/heraldlb/herald/e2e/lab/enclave"
)

// Node is a machine of the cluster.
type Node struct {
	*lab.Node
	// Container is the node's name in docker and kind.
	Container string
	// Port is the bridge's end of the node's cable.
	Port string
}

// findNodes gives the nodes' network namespaces names.
func (c *Cluster) findNodes(ctx context.Context) (err error) {
	if c.ControlPlane, err = c.findNode(ctx, controlPlane, controlPlane); err != nil {
		return err
	}
	for i, w := range workers {
		n, err := c.findNode(ctx, w, containerOf(i))
		if err != nil {
			return err
		}
		c.Nodes = append(c.Nodes, n)
	}
	return nil
}

func (c *Cluster) findNode(ctx context.Context, name, container string) (*Node, error) {
	pid, err := c.docker.run(ctx, nil, "inspect", "--format", "{{.State.Pid}}", container)
	if err != nil {
		return nil, err
	}
	if err := (enclave.Host{}).Script("ip netns attach %s %s", name, pid); err != nil {
		return nil, err
	}
	host, port := enclave.Host{Name: name}, 0
	if err := host.Do(func() error {
		link, err := netlink.LinkByName("eth0")
		if err == nil {
			port = link.Attrs().ParentIndex
		}
		return err
	}); err != nil {
		return nil, fmt.Errorf("eth0 of node %s: %w", name, err)
	}
	link, err := netlink.LinkByIndex(port)
	if err != nil {
		return nil, fmt.Errorf("the other end of node %s's eth0: %w", name, err)
	}
	n := &Node{Container: container, Port: link.Attrs().Name}
	n.Node, err = lab.NewNode(name, slices.Index(workers, name)+1, host, n.Port)
	return n, err
}

// all returns all nodes that findNodes found.
func (c *Cluster) all() (nodes []*Node) {
	if c.ControlPlane != nil {
		nodes = append(nodes, c.ControlPlane)
	}
	return append(nodes, c.Nodes...)
}
