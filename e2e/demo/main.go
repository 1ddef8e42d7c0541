// Command demo shows Herald at work: a cluster of network namespaces with a router and two clients, the
// three kinds of Service that reach a pod, and what clients notice when a node is lost.
//
// It needs root for the namespaces and nothing else of the machine: the cluster is in an enclave, which
// the kernel takes away with the program, however that ends. The last line that it writes is for
// scripts: "demo: ok" with figures, or "demo: failed" and why.
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
	interrupted = 128 + int(syscall.SIGINT) // As shells have it.
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
		// In one line, whatever was joined in it.
		fmt.Fprintf(os.Stderr, "demo: failed: %s; the ends of the logs are above\n", strings.ReplaceAll(err.Error(), "\n", "; "))
		return failed
	}
	fmt.Println("demo: ok", s.figures)
	return 0
}

// explain writes what one would look at when a step has failed. The logs end with the enclave, so
// their last lines are all that one can have.
func (s *story) explain() {
	if s.lab != nil {
		s.lab.Dump(os.Stderr)
		return
	}
	// The cluster did not start, and is gone but for its folder.
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
