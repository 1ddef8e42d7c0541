// Package router runs real routers on hosts of the enclave, FRR (zebra and bgpd) and BIRD 2, so that
// tests use the implementations that users have in their racks.
//
// Several routers may run in one enclave. Each keeps its files (sockets, PID files, configuration)
// in its own directory.
package router

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/heraldlb/herald/e2e/lab/enclave"
)

// Router is a running router.
type Router interface {
	// Routes lists all paths learned by BGP, including those that are not selected.
	Routes(context.Context) ([]Route, error)
	// Prefixes lists the prefixes learned by BGP, sorted. With many routes it is much faster than Routes.
	Prefixes(context.Context) ([]netip.Prefix, error)
	// Count returns the number of paths learned by BGP. It costs the router almost nothing.
	Count(context.Context) (int, error)
	// BFD lists the BFD sessions.
	BFD(context.Context) ([]BFDSession, error)
	// Stop lets the router close its sessions, and returns when it has ended.
	Stop() error
	// Kill kills the router, like a crash.
	Kill() error
}

// Route is a path learned by BGP.
type Route struct {
	Prefix   netip.Prefix
	NextHops []netip.Addr // One address, or for IPv6 a global and a link-local one.
	Best     bool         // The path is the best one, or one of several equally good ones in use.
	// Communities are sorted, and numeric ("65535:65281") even if the router prints a name.
	Communities      []string
	LargeCommunities []string // "64512:1:2". Sorted.
	// ExtendedCommunities are sorted: "rt:64512:100", "soo:64512:100", and "lb:64512:125000", a link bandwidth in
	// bytes per second.
	ExtendedCommunities []string
	MED                 *uint32 // nil: none
	LocalPreference     *uint32 // nil: none, or the router does not report it for eBGP
	ASPath              []uint32
	// Learned is the time at which BIRD received the route, in BIRD's format. It does not change until the route is
	// withdrawn or replaced. It is empty for FRR, which recomputes the time for each answer and sometimes errs by a
	// second.
	Learned string
}

// startTime bounds the time until a daemon answers.
const startTime = 15 * time.Second

// daemon is one process of a router.
type daemon struct {
	name   string
	cmd    *exec.Cmd
	output *output
	ended  chan struct{} // closed when the process has ended
	err    error         // the result of the process; read it after ended is closed
}

func startDaemon(ctx context.Context, host enclave.Host, program string, args ...string) (*daemon, error) {
	d := &daemon{name: filepath.Base(program), output: &output{}, ended: make(chan struct{})}
	d.cmd = host.Command(ctx, program, args...)
	d.cmd.Stdout, d.cmd.Stderr = d.output, d.output
	if err := d.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", d.name, err)
	}
	// end waits for this goroutine.
	go func() {
		defer close(d.ended)
		d.err = d.cmd.Wait()
	}()
	return d, nil
}

// await calls answers until it returns nil, which means that the daemon answers.
func (d *daemon) await(ctx context.Context, answers func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	again := time.NewTicker(20 * time.Millisecond)
	defer again.Stop()
	for {
		err := answers(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-again.C:
		case <-d.ended:
			return fmt.Errorf("%s ended: %w: %s", d.name, errors.Join(d.err, err), d.output)
		case <-ctx.Done():
			return fmt.Errorf("%s does not answer: %w", d.name, err)
		}
	}
}

// end sends a signal and waits. It kills a daemon that ignores SIGTERM.
func (d *daemon) end(signal syscall.Signal) error {
	if err := d.cmd.Process.Signal(signal); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("signal %s: %w", d.name, err)
	}
	patience := time.NewTimer(5 * time.Second)
	defer patience.Stop()
	select {
	case <-d.ended:
		return nil
	case <-patience.C:
	}
	err := d.cmd.Process.Kill()
	<-d.ended
	return errors.Join(fmt.Errorf("%s ignores %v", d.name, signal), err)
}

// output collects a daemon's output. It can be read while the daemon writes.
type output struct {
	mu     sync.Mutex
	buffer bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buffer.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buffer.String()
}

// newDirectory makes the directory of a router and writes its configuration there.
func newDirectory(dir, file, config string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, file), []byte(config), 0o644)
}
