// Package enclave gives a program its own network, which is removed however the program ends.
//
// Enter runs the calling program again as process 1 of new process, mount and network namespaces.
// Inside, interfaces, routes, sysctls and firewall rules are private, and named network namespaces
// are invisible from outside. When process 1 ends by return, panic, Ctrl-C or kill -9, the kernel
// ends every process and removes every interface in the enclave. The program needs no cleanup and
// leaves nothing behind.
//
// A [Host] is a network namespace inside the enclave. On the network it looks like a machine.
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

// /proc/self shows the main thread. Inside the enclave, the main thread must stay in its namespace, while
// Host.Do moves other threads. Only an init function certainly runs on the main thread.
func init() {
	if os.Getenv(marker) != "" {
		runtime.LockOSThread()
	}
}

// ErrNotRoot means that this user cannot create namespaces.
var ErrNotRoot = errors.New("network namespaces need root: run it again with sudo")

// Enter returns nil inside the enclave. Outside, it runs the program again inside the enclave and exits with its exit code.
// An error outside means that the program was not started, or that its end could not be awaited.
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
	// Pdeathsig takes effect when the thread that started the child ends, so this thread must stay alive.
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
			// The first signal asks the program to stop. The second one kills it.
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

// RunTests runs the tests of a package inside the enclave and exits with their exit code. A TestMain
// calls it. Without root it skips all tests and prints why, unless HERALD_REQUIRE_ROOT is set.
func RunTests(m interface{ Run() int }) {
	// The test program that starts a fuzz worker is already inside, and the worker inherits pipes from it.
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

// furnish sets up the new namespaces: it mounts a /proc of the process namespace and a /run for daemons'
// sockets and named network namespaces, and brings up the loopback interface.
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
