// Package enclave gives a program a network of its own, and takes it away again whatever happens.
//
// Enter runs the calling program once more as process 1 of new process, mount and network
// namespaces. Inside, interfaces, routes, sysctls and firewall are private, named network
// namespaces are invisible from outside, and when process 1 ends, be it by return, panic, Ctrl-C
// or kill -9, the kernel ends every process and removes every interface that it made. Nothing has
// to be cleaned up, so nothing can be left behind.
//
// A [Host] is a network namespace inside the enclave: a machine, as far as the network can tell.
package enclave

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"slices"
	"syscall"

	"golang.org/x/sys/unix"
)

// marker is set in the environment of the process that runs inside.
const marker = "HERALD_ENCLAVE"

// The first thread is what /proc/self shows; inside it stays where it is, whatever Host.Do does with
// others. Only an init function is sure to run on it.
func init() {
	if os.Getenv(marker) != "" {
		runtime.LockOSThread()
	}
}

// ErrNotRoot says that namespaces cannot be made by this user.
var ErrNotRoot = errors.New("network namespaces need root: run it again with sudo")

// Enter returns inside the enclave. Outside, it runs the program again within and exits with its
// code; it returns there only with an error, having done nothing.
func Enter() error {
	if os.Getenv(marker) != "" {
		if err := os.Unsetenv(marker); err != nil {
			return err
		}
		return furnish()
	}
	if os.Geteuid() != 0 {
		return ErrNotRoot
	}
	// Pdeathsig follows the thread that started the child, so this one must stay.
	runtime.LockOSThread()
	inner := exec.Command("/proc/self/exe")
	inner.Args = os.Args
	inner.Env = append(os.Environ(), marker+"=1")
	inner.Stdin, inner.Stdout, inner.Stderr = os.Stdin, os.Stdout, os.Stderr
	inner.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWPID | unix.CLONE_NEWNS | unix.CLONE_NEWNET | unix.CLONE_NEWIPC,
		Pdeathsig:  unix.SIGKILL,
	}
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	if err := inner.Start(); err != nil {
		return fmt.Errorf("start in new namespaces: %w", err)
	}
	ended := make(chan error, 1)
	go func() { ended <- inner.Wait() }()
	asked := false
	for {
		select {
		case s := <-signals:
			// The first signal asks the program to stop, a second one makes it.
			if asked {
				s = syscall.SIGKILL
			}
			asked = true
			_ = inner.Process.Signal(s)
		case err := <-ended:
			var exit *exec.ExitError
			if err != nil && !errors.As(err, &exit) {
				return err
			}
			if code := inner.ProcessState.ExitCode(); code >= 0 {
				os.Exit(code)
			}
			os.Exit(1)
		}
	}
}

// RunTests is for a package's TestMain: it runs the tests inside the enclave and exits with their
// code. Without root it skips them all and says why, unless HERALD_REQUIRE_ROOT is set.
func RunTests(m interface{ Run() int }) {
	// A fuzz worker is started by a test program that is inside already, and inherits pipes from it.
	if slices.Contains(os.Args, "-test.fuzzworker") {
		os.Exit(m.Run())
	}
	if err := Enter(); err != nil {
		if errors.Is(err, ErrNotRoot) && os.Getenv("HERALD_REQUIRE_ROOT") == "" {
			fmt.Println("skipped:", err)
			os.Exit(0)
		}
		fmt.Fprintln(os.Stderr, "enclave:", err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// furnish makes the fresh namespaces livable: a /proc that shows them, a /run for daemons' sockets
// and named network namespaces, and a loopback.
func furnish() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	for _, m := range []struct{ kind, at string }{{"proc", "/proc"}, {"tmpfs", "/run"}} {
		if err := unix.Mount(m.kind, m.at, m.kind, 0, ""); err != nil {
			return fmt.Errorf("mount %s: %w", m.at, err)
		}
	}
	if err := os.MkdirAll("/run/netns", 0o755); err != nil {
		return err
	}
	return run("ip", "link", "set", "lo", "up")
}
