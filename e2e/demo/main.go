// Command demo shows Herald at work: a cluster of network namespaces with a router and two clients, the
// three kinds of Service that reach a pod, and what clients notice when a node is lost.
//
// The demo needs root to create namespaces. It does not change the machine: the cluster is in an enclave,
// which the kernel removes when the program ends, however it ends. The last line of output is for scripts:
// "demo: ok" with figures, or "demo: failed" with the reason.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/heraldlb/herald/e2e/lab/enclave"
)

// Exit codes.
const (
	failed      = 1
	interrupted = 128 + int(syscall.SIGINT) // The convention of shells.
)

func main() { os.Exit(run()) }

func run() int {
	if err := enclave.Enter(); err != nil {
		if errors.Is(err, enclave.ErrNotRoot) {
			err = errors.New("each node, router and client is a network namespace, and only root can make those: " +
				"run sudo make demo; this machine's own network is not touched")
		}
		fmt.Fprintln(os.Stderr, "demo: failed:", err)
		return failed
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	s := newStory(newTerminal(os.Stdout))
	err := s.tell(ctx)
	if err != nil && ctx.Err() == nil {
		s.explain()
	}
	if closing := s.close(); err == nil {
		err = closing
	}
	switch {
	case ctx.Err() != nil:
		fmt.Fprintln(os.Stderr, "demo: interrupted; nothing is left behind")
		return interrupted
	case err != nil:
		// Joined errors have several lines. Write one.
		fmt.Fprintf(os.Stderr, "demo: failed: %s; the ends of the logs are above\n", strings.ReplaceAll(err.Error(), "\n", "; "))
		return failed
	}
	s.terminal.heading("Next")
	s.terminal.note(next)
	fmt.Println("demo: ok", s.figures)
	return 0
}

// next says what to try after the demo.
const next = `docs/quick-start.md  Herald on a cluster of kind, step by step
make e2e-up          a kind cluster with Herald that stays, to try things; as root
docs/install.md      Herald on your own cluster
`

// explain writes debugging information after a failed step. The logs are removed with the enclave, so only
// their last lines, printed here, remain.
func (s *story) explain() {
	if s.lab != nil {
		s.lab.Dump(os.Stderr)
		return
	}
	// The cluster did not start. Only its folder is left.
	logs, err := filepath.Glob(filepath.Join(labDir, "logs", "*.log"))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	for _, path := range logs {
		content, err := os.ReadFile(path)
		lines := strings.Split(strings.TrimSpace(string(content)), "\n")
		fmt.Fprintf(os.Stderr, "\n== %s\n%s\n", filepath.Base(path), strings.Join(lines[max(0, len(lines)-20):], "\n"))
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
	}
}
