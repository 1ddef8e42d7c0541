package enclave

import (
	"context"
	"fmt"
	"os/exec"
	"runtime"
	"strings"

	"github.com/vishvananda/netns"
)

// Host is a network namespace with a name. The zero Host is the enclave's own namespace.
type Host struct{ Name string }

// NewHost creates a namespace with its loopback up. Duplicate address detection is off: on private
// links it would only cost a second for every address.
func NewHost(name string) (Host, error) {
	h := Host{Name: name}
	if err := run("ip", "netns", "add", name); err != nil {
		return h, err
	}
	return h, h.Script(`
		ip link set lo up
		sysctl -qw net.ipv6.conf.all.accept_dad=0 net.ipv6.conf.default.accept_dad=0
	`)
}

// Remove deletes the namespace and with it every interface inside. Its processes must have ended.
func (h Host) Remove() error { return run("ip", "netns", "delete", h.Name) }

// Command is exec.CommandContext on the host. The process ID is that of the program itself.
func (h Host) Command(ctx context.Context, program string, args ...string) *exec.Cmd {
	if h.Name == "" {
		return exec.CommandContext(ctx, program, args...)
	}
	return exec.CommandContext(ctx, "ip", append([]string{"netns", "exec", h.Name, program}, args...)...)
}

// Script runs shell commands on the host and stops at the first one that fails.
func (h Host) Script(format string, args ...any) error {
	script := fmt.Sprintf(format, args...)
	out, err := h.Command(context.Background(), "sh", "-euc", script).CombinedOutput()
	if err != nil {
		return fmt.Errorf("on %q: %w: %s", h.Name, err, strings.TrimSpace(string(out)))
	}
	return nil
}

// Do calls f on a thread in the host's namespace. Sockets that f opens stay in that namespace. Goroutines
// that f starts do not inherit it.
func (h Host) Do(f func() error) error {
	if h.Name == "" {
		return f()
	}
	result := make(chan error)
	go func() {
		// The thread is never unlocked, so it ends with the goroutine and no other goroutine runs in the namespace.
		runtime.LockOSThread()
		result <- func() error {
			ns, err := netns.GetFromName(h.Name)
			if err != nil {
				return fmt.Errorf("network namespace %q: %w", h.Name, err)
			}
			defer ns.Close()
			if err := netns.Set(ns); err != nil {
				return fmt.Errorf("enter network namespace %q: %w", h.Name, err)
			}
			return f()
		}()
	}()
	return <-result
}

// Connect joins two hosts with a cable (a veth pair), both ends up.
func Connect(a Host, ifA string, b Host, ifB string) error {
	args := []string{"link", "add", ifA}
	if a.Name != "" {
		args = append(args, "netns", a.Name)
	}
	args = append(args, "type", "veth", "peer", "name", ifB)
	if b.Name != "" {
		args = append(args, "netns", b.Name)
	}
	if err := run("ip", args...); err != nil {
		return err
	}
	if err := a.Script("ip link set %s up", ifA); err != nil {
		return err
	}
	return b.Script("ip link set %s up", ifB)
}

func run(program string, args ...string) error {
	out, err := exec.Command(program, args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s %s: %w: %s", program, strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}
