// Command cluster runs a kind cluster with Herald for development. The cluster runs in the background, in an
// enclave, until it is stopped.
//
//	cluster up              start the cluster and return
//	cluster shell [command] run a shell or a command in the cluster's enclave, with kubectl, docker and kind
//	cluster down            stop and remove the cluster
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/heraldlb/herald/e2e/kind"
	"github.com/heraldlb/herald/e2e/lab"
	"github.com/heraldlb/herald/e2e/lab/enclave"
)

const (
	// upright is the last line that a cluster writes, once it has started.
	upright = "the cluster is up"
	// leaving bounds the removal of a cluster.
	leaving = 2 * time.Minute
)

func main() { os.Exit(run()) }

func run() int {
	root, err := lab.FindRoot()
	if err == nil {
		err = do(keeper{dir: filepath.Join(root, "build", "kind"), bin: filepath.Join(root, "build", "bin")}, os.Args[1:])
	}
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		return exit.ExitCode()
	case err != nil:
		fmt.Fprintln(os.Stderr, "cluster:", err)
		return 1
	}
	return 0
}

func do(k keeper, args []string) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	switch strings.Join(args[:min(1, len(args))], "") {
	case "up":
		return k.up(ctx)
	case "stay": // Used by up.
		return k.stay(ctx)
	case "shell":
		return k.shell(args[1:])
	case "down":
		return k.down()
	}
	return errors.New("say up, shell or down")
}

// keeper knows where the cluster's files are.
type keeper struct{ dir, bin string }

func (k keeper) log() string { return filepath.Join(k.dir, "cluster.log") }

// up starts this program again in the background with the argument stay. It prints the progress until the cluster
// has started.
func (k keeper) up(ctx context.Context) error {
	if pid, err := k.pid(); err == nil {
		return fmt.Errorf("a cluster is up already, as process %d", pid)
	}
	log, err := os.Create(k.log())
	if err != nil {
		return err
	}
	defer log.Close()
	program, err := os.Executable()
	if err != nil {
		return err
	}
	staying := exec.Command(program, "stay")
	staying.Stdout, staying.Stderr = log, log
	staying.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := staying.Start(); err != nil {
		return err
	}
	ended := make(chan string, 1)
	go func() { ended <- fmt.Sprint("ended with ", staying.Wait()) }()
	giveUp := func(why error) error {
		err := staying.Process.Signal(syscall.SIGTERM)
		<-ended // The result does not matter.
		return errors.Join(why, err)
	}
	if err := os.WriteFile(k.pidFile(), []byte(strconv.Itoa(staying.Process.Pid)), 0o644); err != nil {
		return giveUp(err)
	}
	watch, told := time.NewTicker(100*time.Millisecond), 0
	defer watch.Stop()
	tell := func() (done bool, err error) {
		said, err := os.ReadFile(k.log())
		if err != nil {
			return false, err
		}
		fmt.Print(string(said[told:]))
		told = len(said)
		return strings.HasSuffix(string(said), upright+"\n"), nil
	}
	for {
		select {
		case <-ctx.Done():
			return giveUp(errors.New("interrupted; nothing is left behind"))
		case how := <-ended:
			_, err := tell()
			return errors.Join(fmt.Errorf("the cluster did not come up: %s", how), err)
		case <-watch.C:
			if done, err := tell(); done || err != nil {
				fmt.Print(kind.Guide())
				fmt.Println("make e2e-shell opens a shell beside it, make e2e-down takes it away.")
				return err
			}
		}
	}
}

// stay starts a cluster with Herald and runs it until ctx ends.
func (k keeper) stay(ctx context.Context) error {
	if err := enclave.Enter(); err != nil {
		return err
	}
	if err := os.Mkdir("/run/bin", 0o755); err != nil {
		return err
	}
	if err := os.Symlink(filepath.Join(k.bin, "kubernetes"), "/run/bin/kubectl"); err != nil {
		return err
	}
	c, err := kind.Start(ctx, kind.Options{
		Families: kind.DualStack, NodeImage: os.Getenv("HERALD_NODE_IMAGE"),
		Progress: func(step string) { fmt.Println(step) },
	})
	if err != nil {
		return err
	}
	fmt.Println("installing Herald: kubectl apply -k " + kind.Overlay)
	if err := c.Install(ctx); err != nil {
		return errors.Join(err, c.Close())
	}
	fmt.Println(upright)
	<-ctx.Done()
	return c.Close()
}

// shell runs a command, or bash, in the cluster's enclave.
func (k keeper) shell(command []string) error {
	outer, err := k.pid()
	if err != nil {
		return err
	}
	inner, err := child(outer)
	if err != nil {
		return err
	}
	if len(command) == 0 {
		fmt.Println("The cluster's own network; kubectl, docker and kind are those of the cluster.")
		fmt.Print(kind.Guide())
		command = []string{"bash"}
	}
	args := []string{"--target", inner, "--mount", "--net", "--pid", "--ipc", "--wd=" + filepath.Dir(filepath.Dir(k.dir))}
	cmd := exec.Command("nsenter", append(args, command...)...)
	cmd.Env = append(os.Environ(), "PATH=/run/bin:"+k.bin+":"+os.Getenv("PATH"),
		"KUBECONFIG="+filepath.Join(k.dir, "kubeconfig"), "KUBECACHEDIR=/run/kubectl", "DOCKER_HOST=unix:///run/docker.sock")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	return cmd.Run()
}

// child returns the process ID of the only child of a process outside of an enclave. It is the first process inside.
func child(pid int) (string, error) {
	lists, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	if err != nil {
		return "", err
	}
	for _, l := range lists {
		children, err := os.ReadFile(l)
		if err != nil {
			return "", err
		}
		if len(children) > 0 {
			return strings.TrimSpace(string(children)), nil
		}
	}
	return "", fmt.Errorf("process %d has no child yet: wait a moment", pid)
}

// down ends the cluster and waits until it has ended.
func (k keeper) down() error {
	pid, err := k.pid()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), leaving)
	defer cancel()
	if err := syscall.Kill(pid, syscall.SIGTERM); err != nil {
		return fmt.Errorf("end process %d: %w", pid, err)
	}
	err = lab.Eventually(ctx, func(context.Context) error {
		if _, err := k.pid(); err == nil {
			return fmt.Errorf("process %d is still there", pid)
		}
		return nil
	})
	return errors.Join(err, os.Remove(k.pidFile()))
}

func (k keeper) pidFile() string { return filepath.Join(k.dir, "cluster.pid") }

// pid returns the process ID of the running cluster. It checks the command line, because another process may have
// reused the ID.
func (k keeper) pid() (int, error) {
	none := errors.New("no cluster is up; make e2e-up makes one")
	content, err := os.ReadFile(k.pidFile())
	if err != nil {
		return 0, none
	}
	pid, err := strconv.Atoi(string(content))
	if err != nil {
		return 0, none
	}
	line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if err != nil || string(line) != filepath.Join(k.bin, "cluster")+"\x00stay\x00" {
		return 0, none
	}
	return pid, nil
}
