package lab

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/heraldlb/herald/e2e/lab/enclave"
)

const (
	dumpTime  = 30 * time.Second
	dumpLines = 40 // Number of lines of each log.
	lastLines = 12 // Number of lines of each of Herald's logs.
)

// test has the methods of testing.TB that the lab needs. The lab does not import package testing, because it also
// serves programs that are not tests.
type test interface {
	Cleanup(func())
	Failed() bool
	Name() string
	Output() io.Writer
}

// DumpOnFailure makes a failed test print the last log lines of Herald's programs. The test also writes the state of
// the lab to a file in build/failures, in a folder with the test's name.
func (l *Lab) DumpOnFailure(t test) {
	t.Cleanup(func() {
		if !t.Failed() {
			return
		}
		l.dumpLogs(t.Output(), "herald-*.log", lastLines)
		path := filepath.Join(l.options.Root, "build", "failures", strings.ReplaceAll(t.Name(), "/", "_"), "lab.txt")
		var state bytes.Buffer
		l.Dump(&state)
		err := os.MkdirAll(filepath.Dir(path), 0o755)
		if err == nil {
			err = os.WriteFile(path, state.Bytes(), 0o644)
		}
		section(t.Output(), "the state of the lab is in "+path, "", err)
	})
}

// Dump writes the state that is useful for debugging: objects, events, the ends of all logs, and the
// addresses, routes, neighbours and Service rules of the hosts.
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
	l.dumpLogs(w, "*.log", dumpLines)
	for _, r := range l.Routers {
		routes, err := r.Routes(ctx)
		section(w, "BGP routes of "+r.Name, fmt.Sprintf("%+v\n", routes), err)
	}
	l.Site.mu.Lock()
	hosts := slices.Clone(l.hosts)
	l.Site.mu.Unlock()
	for _, h := range hosts {
		out, err := state(ctx, h)
		section(w, h.Name, out, err)
	}
}

// state returns the network state of a host's kernel.
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

func (l *Lab) dumpLogs(w io.Writer, pattern string, lines int) {
	logs, err := filepath.Glob(l.path("logs", pattern))
	if err != nil {
		section(w, "logs", "", err)
	}
	for _, path := range logs {
		content, err := os.ReadFile(path)
		section(w, filepath.Base(path), Tail(string(content), lines), err)
	}
}

// Tail returns the last lines of a log. If the race detector reported a race, it returns twice as many lines, from
// the report on.
func Tail(log string, lines int) string {
	all := strings.SplitAfter(log, "\n")
	if i := slices.IndexFunc(all, func(line string) bool { return strings.Contains(line, "DATA RACE") }); i >= 0 {
		return strings.Join(all[i:min(i+2*lines, len(all))], "")
	}
	return strings.Join(all[max(0, len(all)-lines-1):], "")
}
