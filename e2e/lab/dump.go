package lab

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/heraldlb/herald/e2e/lab/enclave"
)

const (
	dumpTime  = 30 * time.Second
	dumpLines = 40 // Of each log.
)

// test is what a testing.TB has and the lab needs; the lab also serves programs that are no tests.
type test interface {
	Cleanup(func())
	Failed() bool
	Output() io.Writer
}

// DumpOnFailure makes the test print the state of the lab at its end if it failed.
func (l *Lab) DumpOnFailure(t test) {
	t.Cleanup(func() {
		if t.Failed() {
			l.Dump(t.Output())
		}
	})
}

// Dump writes what one would look at when something is wrong: objects, events, the ends of all logs,
// and the addresses, routes, neighbours and Service rules of the hosts.
func (l *Lab) Dump(w io.Writer) {
	ctx, cancel := context.WithTimeout(context.Background(), dumpTime)
	defer cancel()
	for _, args := range [][]string{
		{"get", "nodes,pods,services,endpointslices", "-A", "-o", "wide"},
		{"get", "ippools,ipallocations,l2advertisements,bgppeers,bgpadvertisements,speakerstatuses", "-o", "yaml"},
		{"get", "leases", "-n", HeraldNamespace, "-o", "wide"},
		{"get", "events", "-A", "--sort-by=.lastTimestamp"},
	} {
		out, err := l.Kubectl(ctx, args...)
		section(w, "kubectl "+strings.Join(args, " "), out, err)
	}
	logs, err := filepath.Glob(l.path("logs", "*.log"))
	if err != nil {
		section(w, "logs", "", err)
	}
	for _, path := range logs {
		content, err := os.ReadFile(path)
		section(w, filepath.Base(path), tail(string(content), dumpLines), err)
	}
	for _, r := range l.Routers {
		routes, err := r.Routes(ctx)
		section(w, "BGP routes of "+r.Name, fmt.Sprintf("%+v\n", routes), err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, h := range l.hosts {
		out, err := state(ctx, h)
		section(w, h.Name, out, err)
	}
}

// state is the network of a host as the kernel has it.
func state(ctx context.Context, h enclave.Host) (string, error) {
	out, err := h.Command(ctx, "sh", "-c", `
		ip -brief addr; ip route; ip -6 route; ip neigh
		nft list map ip kube-proxy service-ips 2>/dev/null
		nft list map ip6 kube-proxy service-ips 2>/dev/null
		true
	`).CombinedOutput()
	return string(out), err
}

func section(w io.Writer, title, content string, err error) {
	fmt.Fprintf(w, "\n== %s\n%s", title, content)
	if err != nil {
		fmt.Fprintln(w, err)
	}
}

// tail is the last n lines.
func tail(s string, n int) string {
	lines := strings.SplitAfter(s, "\n")
	return strings.Join(lines[max(0, len(lines)-n-1):], "")
}
