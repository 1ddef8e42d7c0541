package kind

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
)

// Logs collects debugging information into the folder dir, which it empties first: objects and events, and the
// network state, the journal and the pods' logs of each node. If something is not available, because the
// cluster did not get that far, its file has the error.
func (c *Cluster) Logs(ctx context.Context, dir string) error {
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	var errs []error
	keep := func(file, content string, err error) {
		if err != nil {
			content += "\n" + err.Error() + "\n"
		}
		path := filepath.Join(dir, file)
		errs = append(errs, os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(content), 0o644))
	}
	for file, args := range map[string]string{
		"objects.txt": "get nodes,pods,services,endpointslices,deployments,daemonsets,leases -A -o wide",
		"events.txt":  "get events -A --sort-by=.metadata.creationTimestamp",
		"pods.txt":    "describe pods -A",
		"herald.yaml": "get ippools,ipallocations,l2advertisements,bgppeers,bgpadvertisements,speakerstatuses -o yaml",
	} {
		out, err := c.Kubectl(ctx, strings.Fields(args)...)
		keep(file, out, err)
	}
	for _, n := range c.all() {
		out, err := n.Host.Command(ctx, "sh", "-c", "set -x; ip addr; ip route; ip -6 route; ip neigh; nft list ruleset").CombinedOutput()
		keep(filepath.Join(n.Container, "network.txt"), string(out), err)
	}
	containers, err := c.docker.run(ctx, nil, "ps", "--all", "--format", "{{.Names}}")
	errs = append(errs, err)
	for container := range strings.FieldsSeq(containers) {
		boot, err := c.docker.run(ctx, nil, "logs", container)
		keep(filepath.Join(container, "boot.log"), boot, err)
		journal, err := c.docker.run(ctx, nil, "exec", container, "journalctl", "--no-pager", "--unit", "kubelet", "--unit", "containerd")
		keep(filepath.Join(container, "journal.log"), journal, err)
		_, err = c.docker.run(ctx, nil, "cp", container+":/var/log/pods", filepath.Join(dir, container))
		errs = append(errs, err)
	}
	keep("dockerd.log", c.docker.daemon.Log(), nil)
	return errors.Join(errs...)
}
