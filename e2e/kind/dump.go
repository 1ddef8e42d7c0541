package kind

import (
	"context"
	"os"
	"path/filepath"
	"time"

	"github.com/heraldlb/herald/e2e/lab"
)

// Dump writes what one would look at when something is wrong into a folder, a file for each thing.
func (c *Cluster) Dump(dir string) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	write := func(name, content string, err error) error {
		if err != nil {
			content += "\n" + err.Error()
		}
		return os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644)
	}
	for name, args := range map[string][]string{
		"objects.txt":     {"get", "nodes,pods,services,endpointslices,leases", "-A", "-o", "wide"},
		"events.txt":      {"get", "events", "-A", "--sort-by=.lastTimestamp"},
		"herald.yaml":     {"get", "ippools,ipallocations,l2advertisements,bgppeers,bgpadvertisements,speakerstatuses", "-o", "yaml"},
		"pods.txt":        {"describe", "pods", "-A"},
		"herald-ccm.log":  {"logs", "-n", lab.HeraldNamespace, "-l", "app.kubernetes.io/name=herald-ccm", "--prefix", "--tail=-1"},
		"speakers.log":    {"logs", "-n", lab.HeraldNamespace, "-l", "app.kubernetes.io/name=herald-speaker", "--prefix", "--tail=-1"},
		"kube-proxy.log":  {"logs", "-n", "kube-system", "-l", "k8s-app=kube-proxy", "--prefix", "--tail=200"},
		"controllers.log": {"logs", "-n", "kube-system", "-l", "tier=control-plane", "--prefix", "--tail=200"},
	} {
		out, err := c.Kubectl(ctx, args...)
		if err := write(name, out, err); err != nil {
			return err
		}
	}
	for _, n := range c.Nodes {
		network, err := n.Host.Command(ctx, "sh", "-c", "ip addr; ip route; ip -6 route; ip neigh; nft list ruleset").CombinedOutput()
		if err := write(n.Name+"-network.txt", string(network), err); err != nil {
			return err
		}
	}
	for container, name := range map[string]string{ControlPlane: ControlPlane, clusterName + "-worker": "k8s-node1", clusterName + "-worker2": "k8s-node2", clusterName + "-worker3": "k8s-node3"} {
		journal, err := c.engine.run(ctx, "docker", "exec", container, "journalctl", "--no-pager", "-n", "400", "-u", "kubelet", "-u", "containerd")
		if err := write(name+"-journal.txt", journal, err); err != nil {
			return err
		}
	}
	return write("dockerd.log", c.engine.process.Log(), nil)
}
