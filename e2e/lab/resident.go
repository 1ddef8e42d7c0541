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

// Resident is a program that somebody else looks after: envtest, or a kubelet, which starts it again.
// It is found among the processes of the enclave by its name and its network.
type Resident struct {
	// Program is the name it was called by.
	Program string
	Host    enclave.Host
}

// Kill ends it as a crash does.
func (r Resident) Kill() error { return r.signal(unix.SIGKILL) }

// Freeze stops it in its tracks, and returns when it stands: its connections stay, and hang.
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

// Resume undoes Freeze.
func (r Resident) Resume() error { return r.signal(unix.SIGCONT) }

// PID is the id of its process.
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
			continue // Or it has ended meanwhile.
		}
		var there unix.Stat_t
		if err := unix.Stat(filepath.Join(p, "ns", "net"), &there); err != nil || there.Ino != here.Ino {
			continue
		}
		return strconv.Atoi(filepath.Base(p))
	}
	return 0, fmt.Errorf("%s on host %q: %w", r.Program, r.Host.Name, ErrNotRunning)
}

// ErrNotRunning says that the program has no process now.
var ErrNotRunning = errors.New("it is not running")

func (r Resident) signal(s unix.Signal) error {
	pid, err := r.PID()
	if err != nil {
		return err
	}
	return unix.Kill(pid, s)
}
