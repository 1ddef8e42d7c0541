package lab

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/heraldlb/herald/e2e/lab/enclave"
)

// Resident is a program that the lab did not start itself: envtest did, or a kubelet, which restarts it.
// A Resident is found among the processes of the enclave by its name and its network namespace.
type Resident struct {
	// Program is the base name of the executable in the command line.
	Program string
	Host    enclave.Host
}

// Kill kills the program, like a crash.
func (r Resident) Kill() error { return r.signal(unix.SIGKILL) }

// Freeze suspends the program and returns when it is suspended. Its connections stay open, but hang.
func (r Resident) Freeze() error {
	pid, err := r.PID()
	if err != nil {
		return err
	}
	if err := unix.Kill(pid, unix.SIGSTOP); err != nil {
		return err
	}
	return stands(pid)
}

// Resume lets a frozen program continue.
func (r Resident) Resume() error { return r.signal(unix.SIGCONT) }

// PID returns the program's process ID.
func (r Resident) PID() (int, error) {
	processes, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return 0, err
	}
	network := "/proc/thread-self/ns/net"
	if r.Host.Name != "" {
		network = filepath.Join("/run/netns", r.Host.Name)
	}
	var here unix.Stat_t
	if err := unix.Stat(network, &here); err != nil {
		return 0, fmt.Errorf("network of host %q: %w", r.Host.Name, err)
	}
	for _, p := range processes {
		line, err := os.ReadFile(filepath.Join(p, "cmdline"))
		program, _, _ := bytes.Cut(line, []byte{0})
		if err != nil || filepath.Base(string(program)) != r.Program {
			continue // An error means that the process has ended.
		}
		var there unix.Stat_t
		if err := unix.Stat(filepath.Join(p, "ns", "net"), &there); err != nil || there.Ino != here.Ino {
			continue
		}
		return strconv.Atoi(filepath.Base(p))
	}
	return 0, fmt.Errorf("%s on host %q: %w", r.Program, r.Host.Name, ErrNotRunning)
}

// ErrNotRunning means that the program has no process.
var ErrNotRunning = errors.New("it is not running")

func (r Resident) signal(s unix.Signal) error {
	pid, err := r.PID()
	if err != nil {
		return err
	}
	return unix.Kill(pid, s)
}
