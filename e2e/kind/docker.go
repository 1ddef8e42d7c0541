package kind

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/heraldlb/herald/e2e/lab"
)

const socket = "/run/docker.sock"

// docker is the enclave's own Docker: its interfaces, rules, mounts and containers end with the enclave.
// Images outlive the enclave in a folder. The records of containers and the control groups would outlive it
// too, and are removed explicitly.
type docker struct {
	// bin is the folder with the program docker that kind calls.
	bin    string
	daemon *lab.Process
	cgroup cgroup
}

// startDocker starts a daemon that keeps its images in the folder dir. No other daemon may use dir.
func startDocker(ctx context.Context, root, dir string) (*docker, error) {
	path, err := exec.LookPath("dockerd")
	if err != nil {
		return nil, fmt.Errorf("%w: install the package docker.io", err)
	}
	if err := shade(); err != nil {
		return nil, err
	}
	runc := filepath.Join(root, "e2e/kind/node/files/usr/local/sbin/runc")
	d := &docker{bin: filepath.Join(root, "e2e/kind/bin"), cgroup: newCgroup(dir)}
	d.daemon = &lab.Process{
		Name: "dockerd", Path: path, LogPath: filepath.Join(filepath.Dir(dir), "dockerd.log"),
		Args: []string{
			"--data-root", dir, "--exec-root", "/run/docker", "--pidfile", "/run/docker.pid", "--host", "unix://" + socket,
			"--cgroup-parent", d.cgroup.name, "--add-runtime", "herald=" + runc, "--default-runtime", "herald",
			// There is one network, without connection to others.
			"--bridge", "none", "--iptables=false", "--ip-masq=false",
		},
	}
	if err := os.Remove(d.daemon.LogPath); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	if err := d.cgroup.remove(ctx); err != nil {
		return nil, err
	}
	if err := d.daemon.Start(); err != nil {
		return nil, err
	}
	return d, errors.Join(d.await(ctx), d.clear(ctx))
}

// shade protects the machine's folders from the daemon: files that the daemon creates in /etc and its
// containerd in /opt are in memory only. The daemon takes no settings from the machine's /etc/docker, which
// need not exist. One call per enclave is enough.
var shade = sync.OnceValue(func() error {
	for _, folder := range []string{"/etc", "/opt"} {
		upper, work := filepath.Join("/run/shade", folder, "upper"), filepath.Join("/run/shade", folder, "work")
		if err := errors.Join(os.MkdirAll(upper, 0o755), os.MkdirAll(work, 0o755)); err != nil {
			return err
		}
		if err := unix.Mount("overlay", folder, "overlay", 0, "lowerdir="+folder+",upperdir="+upper+",workdir="+work); err != nil {
			return fmt.Errorf("mount %s: %w", folder, err)
		}
	}
	if err := os.MkdirAll("/etc/docker", 0o755); err != nil {
		return err
	}
	if err := unix.Mount("tmpfs", "/etc/docker", "tmpfs", 0, ""); err != nil {
		return fmt.Errorf("mount /etc/docker: %w", err)
	}
	return nil
})

// await waits until the daemon answers.
func (d *docker) await(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	err := lab.Eventually(ctx, func(ctx context.Context) error {
		_, err := d.run(ctx, nil, "version")
		if !d.daemon.Running() {
			cancel()
			return errors.New("it has ended")
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("dockerd does not answer: %w: see %s", err, d.daemon.LogPath)
	}
	return nil
}

// clear removes containers, networks and volumes, including those of a run that failed. Only images stay.
func (d *docker) clear(ctx context.Context) error {
	containers, err := d.run(ctx, nil, "ps", "--all", "--quiet")
	if err != nil {
		return err
	}
	if ids := strings.Fields(containers); len(ids) > 0 {
		if _, err := d.run(ctx, nil, append([]string{"rm", "--force", "--volumes"}, ids...)...); err != nil {
			return err
		}
	}
	for _, kind := range []string{"network", "volume"} {
		if _, err := d.run(ctx, nil, kind, "prune", "--force"); err != nil {
			return err
		}
	}
	return nil
}

// stop ends all containers and the daemon. Only images stay.
func (d *docker) stop(ctx context.Context) error {
	return errors.Join(d.clear(ctx), d.daemon.Stop(ctx), d.cgroup.remove(ctx))
}

// env returns the environment for programs that call docker.
func (d *docker) env() (env []string) {
	for _, e := range os.Environ() {
		// The enclave cannot reach a proxy.
		if name, _, _ := strings.Cut(e, "="); !strings.HasSuffix(strings.ToLower(name), "_proxy") {
			env = append(env, e)
		}
	}
	// Later values override earlier ones.
	return append(env, "PATH="+d.bin+":"+os.Getenv("PATH"), "DOCKER_HOST=unix://"+socket, "DOCKER_BUILDKIT=0")
}

// run calls docker and returns its standard output.
func (d *docker) run(ctx context.Context, stdin io.Reader, args ...string) (string, error) {
	return d.call(ctx, stdin, "docker", args...)
}

// call runs docker, or a program that calls docker, and returns its standard output.
func (d *docker) call(ctx context.Context, stdin io.Reader, program string, args ...string) (string, error) {
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Env, cmd.Stdin, cmd.Stdout, cmd.Stderr = d.env(), stdin, &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return stdout.String(), fmt.Errorf("%s %s: %w: %s", filepath.Base(program), strings.Join(args, " "), err, strings.TrimSpace(stderr.String()))
	}
	return strings.TrimSpace(stdout.String()), nil
}
