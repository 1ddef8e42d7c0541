package kind

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"

	"golang.org/x/sync/errgroup"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/heraldlb/herald/e2e/lab"
	"github.com/heraldlb/herald/e2e/lab/enclave"
)

// The network is the lab's segment, with the lab's ranges for pods and ClusterIPs; see e2e/lab/plan.go. The
// wrapper bin/docker gives nodes their addresses.
const (
	network  = "kind" // kind uses the network with this name.
	bridge   = lab.Bridge
	segment4 = "198.18.0.0/24"
	segment6 = "2001:db8:18::/64"
	gateway4 = "198.18.0.1"
	gateway6 = "2001:db8:18::1"

	pods4     = "10.244.0.0/16"
	pods6     = "fd00:10:244::/48"
	services4 = "10.96.0.0/16"
	services6 = "fd00:10:96::/112"
)

// createNetwork makes the segment, a plain switch. Multicast snooping is off: without a querier the switch would
// forget the members of multicast groups. The firewall must not filter bridged frames, if the kernel has that hook.
func (c *Cluster) createNetwork(ctx context.Context) error {
	_, err := c.docker.run(ctx, nil, "network", "create", network, "--driver", "bridge", "--ipv6",
		"--subnet", segment4, "--gateway", gateway4, "--subnet", segment6, "--gateway", gateway6,
		"--opt", "com.docker.network.bridge.name="+bridge)
	if err != nil {
		return err
	}
	return enclave.Host{}.Script(`
		ip link set %s type bridge mcast_snooping 0
		for hook in /proc/sys/net/bridge/bridge-nf-call-*; do
			[ ! -e "$hook" ] || echo 0 >"$hook"
		done
	`, bridge)
}

// connectPods acts as the CNI, because no image of one can be pulled: each pod has a cable to its node, and nodes have routes to each
// other's pods.
func (c *Cluster) connectPods(ctx context.Context) error {
	ranges := map[string][]netip.Prefix{}
	err := lab.Eventually(ctx, func(ctx context.Context) error {
		nodes, err := c.Client.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
		if err != nil {
			return err
		}
		for _, n := range nodes.Items {
			if len(n.Spec.PodCIDRs) == 0 {
				return fmt.Errorf("node %s has no range for its pods", n.Name)
			}
			ranges[n.Name] = nil
			for _, r := range n.Spec.PodCIDRs {
				prefix, err := netip.ParsePrefix(r)
				if err != nil {
					return err
				}
				ranges[n.Name] = append(ranges[n.Name], prefix)
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	var all errgroup.Group
	for _, n := range c.all() {
		all.Go(func() error { return c.connectPodsOf(ctx, n, ranges) })
	}
	return all.Wait()
}

const connectPodsUnit = `[Unit]
Description=routes to the pods of other nodes
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/sh -eu /etc/connect-pods
[Install]
WantedBy=multi-user.target`

func (c *Cluster) connectPodsOf(ctx context.Context, n *Node, ranges map[string][]netip.Prefix) error {
	var script strings.Builder
	// The CNI plugin enables forwarding only on nodes with pods, but every node must forward.
	script.WriteString("sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1\n")
	for _, other := range c.all() {
		for _, r := range ranges[other.Name] {
			via := other.IPv4
			if r.Addr().Is6() {
				via = other.IPv6
			}
			if other != n {
				fmt.Fprintf(&script, "ip route replace %s via %s\n", r, via)
			}
		}
	}
	// A unit runs the script, now and whenever docker starts the node again.
	_, err := c.docker.run(ctx, strings.NewReader(script.String()), "exec", "--interactive", n.Container, "sh", "-euc", fmt.Sprintf(`
		cat >/etc/connect-pods
		echo '%s' >/etc/systemd/system/connect-pods.service
		systemctl enable --quiet --now connect-pods
	`, connectPodsUnit))
	if err != nil {
		return err
	}
	conf, err := conflist(ranges[n.Name])
	if err != nil {
		return err
	}
	// Move the file into place in one step, because the container runtime watches the folder.
	_, err = c.docker.run(ctx, strings.NewReader(conf), "exec", "--interactive", n.Container,
		"sh", "-euc", "cat >/run/conflist; mv /run/conflist /etc/cni/net.d/10-ptp.conflist")
	return err
}

// conflist returns a CNI configuration: each pod gets a cable, with addresses from the node's ranges.
func conflist(pods []netip.Prefix) (string, error) {
	type object = map[string]any
	var ranges [][]object
	var routes []object
	for _, p := range pods {
		everywhere := "0.0.0.0/0"
		if p.Addr().Is6() {
			everywhere = "::/0"
		}
		ranges = append(ranges, []object{{"subnet": p.String()}})
		routes = append(routes, object{"dst": everywhere})
	}
	conf, err := json.MarshalIndent(object{
		"cniVersion": "0.4.0", "name": "pods", "plugins": []object{
			{"type": "ptp", "ipam": object{"type": "host-local", "dataDir": "/run/cni-addresses", "ranges": ranges, "routes": routes}},
			{"type": "portmap", "capabilities": object{"portMappings": true}},
		},
	}, "", "  ")
	return string(conf), err
}
