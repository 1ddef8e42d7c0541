package kind

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/heraldlb/herald/e2e/lab"
	"github.com/heraldlb/herald/e2e/lab/enclave"
)

const (
	// cgroup is the parent of all containers. Cgroups are not namespaced here: what is left of them is
	// the only thing that outlives an enclave, so they are where they can be found.
	cgroup = "/herald-e2e"

	socket = "/run/docker.sock"
)

// engine is a dockerd in the enclave.
type engine struct {
	root    string // of Herald's tree
	process *lab.Process
}

func startEngine(ctx context.Context, root, dir string) (*engine, error) {
	if err := removeCgroups(); err != nil {
		return nil, err
	}
	e := &engine{root: root, process: &lab.Process{
		Name: "dockerd", Path: "/usr/sbin/dockerd", LogPath: filepath.Join(dir, "dockerd.log"),
		Args: []string{
			"--data-root", filepath.Join(root, "build/kind/docker"), "--exec-root", "/run/docker", "--pidfile", "/run/docker.pid",
			"-H", "unix://" + socket, "--cgroup-parent", cgroup,
			// The same program stands before runc in the nodes, and says why.
			"--add-runtime", "capable=" + filepath.Join(root, "e2e/kind/node/files/usr/local/sbin/runc"), "--default-runtime", "capable",
		},
	}}
	if err := e.process.Start(); err != nil {
		return nil, err
	}
	if err := lab.Eventually(ctx, func(ctx context.Context) error {
		if !e.process.Running() {
			return fmt.Errorf("dockerd has ended:\n%s", e.process.Log())
		}
		_, err := e.run(ctx, "docker", "version")
		return err
	}); err != nil {
		return nil, errors.Join(err, e.close())
	}
	// Those of a run that was interrupted.
	left, err := e.run(ctx, "docker", "ps", "-aq")
	if err == nil && left != "" {
		_, err = e.run(ctx, "docker", append([]string{"rm", "-fv"}, strings.Fields(left)...)...)
	}
	if err == nil {
		_, err = e.run(ctx, "docker", "network", "prune", "-f")
	}
	if err != nil {
		return nil, errors.Join(err, e.close())
	}
	return e, nil
}

// run runs a program in Herald's tree that talks to this dockerd, and returns its standard output.
func (e *engine) run(ctx context.Context, program string, args ...string) (string, error) {
	return e.runWith(ctx, nil, program, args...)
}

func (e *engine) runWith(ctx context.Context, stdin io.Reader, program string, args ...string) (string, error) {
	if strings.Contains(program, "/") {
		program = filepath.Join(e.root, program)
	}
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Dir = e.root
	cmd.Env = append(os.Environ(), "DOCKER_HOST=unix://"+socket, "KIND_EXPERIMENTAL_DOCKER_NETWORK="+lab.Bridge)
	var stdout, stderr strings.Builder
	cmd.Stdin, cmd.Stdout, cmd.Stderr = stdin, &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return stdout.String(), fmt.Errorf("%s %s: %w: %s", filepath.Base(program), strings.Join(args, " "), err, strings.TrimSpace(stderr.String()))
	}
	return stdout.String(), nil
}

// layNetwork makes the segment of the lab's address plan (see package lab); nodes get the first addresses
// from .8 on, which nobody else has.
func (e *engine) layNetwork(ctx context.Context) error {
	if _, err := e.run(ctx, "docker", "network", "create", lab.Bridge,
		"--subnet", "198.18.0.0/24", "--gateway", "198.18.0.1", "--ip-range", "198.18.0.8/29",
		"--ipv6", "--subnet", "2001:db8:18::/64", "--gateway", "2001:db8:18::1", "--ip-range", "2001:db8:18::8/125",
		"-o", "com.docker.network.bridge.name="+lab.Bridge, "-o", "com.docker.network.bridge.enable_ip_masquerade=false"); err != nil {
		return err
	}
	// A switch looks at no packet; this one would have them all go through dockerd's rules.
	return enclave.Host{}.Script("sysctl -qw net.bridge.bridge-nf-call-iptables=0 net.bridge.bridge-nf-call-ip6tables=0 net.bridge.bridge-nf-call-arptables=0")
}

// configureCNI writes a node's configuration: a cable for each pod, and addresses out of the node's ranges.
func (e *engine) configureCNI(ctx context.Context, container string, pods []string) error {
	type object = map[string]any
	var ranges [][]object
	routes := []object{{"dst": "0.0.0.0/0"}}
	for _, p := range pods {
		ranges = append(ranges, []object{{"subnet": p}})
		if strings.Contains(p, ":") {
			routes = append(routes, object{"dst": "::/0"})
		}
	}
	list, err := json.Marshal(object{"cniVersion": "0.4.0", "name": "pods", "plugins": []object{
		{"type": "ptp", "ipam": object{"type": "host-local", "ranges": ranges, "routes": routes}},
		{"type": "portmap", "capabilities": object{"portMappings": true}},
	}})
	if err != nil {
		return err
	}
	_, err = e.runWith(ctx, strings.NewReader(string(list)), "docker", "exec", "-i", container, "cp", "/dev/stdin", "/etc/cni/net.d/10-pods.conflist")
	return err
}

// nodeImage returns the name of the node image, which is made if there is none of this content.
func (e *engine) nodeImage(ctx context.Context) (string, error) {
	sum := sha256.New()
	for _, part := range []string{"e2e/kind/node", "build/bin/kubernetes", "build/bin/pause", "build/bin/kind", "build/kind/debian.list", "build/kind/images.txt"} {
		if err := hash(sum, filepath.Join(e.root, part)); err != nil {
			return "", fmt.Errorf("node image: %w: make it by make node", err)
		}
	}
	image := fmt.Sprintf("herald-e2e/node:%x", sum.Sum(nil)[:6])
	if _, err := e.run(ctx, "docker", "image", "inspect", image); err == nil {
		return image, nil
	}
	files, err := os.ReadFile(filepath.Join(e.root, "build/kind/module"))
	if err != nil {
		return "", err
	}
	_, err = e.run(ctx, "e2e/kind/node/build.sh", image, filepath.Join(e.root, "build/kind"), strings.TrimSpace(string(files)), filepath.Join(e.root, "build/bin"))
	if err != nil {
		return "", err
	}
	// Those of other content are of no more use.
	_, err = e.run(ctx, "sh", "-c", "docker images -q --filter reference=herald-e2e/node --filter before="+image+" | xargs -r docker rmi -f")
	return image, err
}

// hash adds a file's content, or all of a folder's with their names.
func hash(sum io.Writer, path string) error {
	return filepath.WalkDir(path, func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		f, err := os.Open(name)
		if err != nil {
			return err
		}
		defer f.Close()
		fmt.Fprintln(sum, strings.TrimPrefix(name, path))
		_, err = io.Copy(sum, f)
		return err
	})
}

// close ends the containers first: what runs in them would outlive dockerd.
func (e *engine) close() error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	_, err := e.run(ctx, "sh", "-c", "docker ps -aq | xargs -r docker rm -fv")
	return errors.Join(err, e.process.Stop(ctx), removeCgroups())
}

// removeCgroups removes those that nothing is in any more.
func removeCgroups() error {
	roots, err := filepath.Glob("/sys/fs/cgroup/*" + cgroup)
	if err != nil {
		return err
	}
	roots = append(roots, "/sys/fs/cgroup"+cgroup)
	for _, root := range roots {
		var all []string
		if err := filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
			if err == nil && d.IsDir() {
				all = append(all, name)
			}
			return nil // It may be gone already.
		}); err != nil {
			return err
		}
		for i := len(all) - 1; i >= 0; i-- {
			if err := os.Remove(all[i]); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
	}
	return nil
}
