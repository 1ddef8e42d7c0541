// Package router runs real routers on hosts of the enclave: FRR (zebra and bgpd) and BIRD 2, so that
// tests meet the implementations that users have in their racks.
//
// Several may run in one enclave. Everything that a router keeps (sockets, process ids, its
// configuration) is in the directory that it is given.
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
	// Routes lists all paths learned by BGP, those not chosen included.
	Routes(context.Context) ([]Route, error)
	// Prefixes lists what is learned by BGP, sorted; with many routes it is a good deal quicker.
	Prefixes(context.Context) ([]netip.Prefix, error)
	// Count is how many paths are learned by BGP. It costs the router next to nothing.
	Count(context.Context) (int, error)
	// BFD lists the sessions of BFD.
	BFD(context.Context) ([]BFDSession, error)
	// Stop lets the router close its sessions, and returns when it has ended.
	Stop() error
	// Kill ends it at once, as a crash would.
	Kill() error
}

// Route is a path learned by BGP.
type Route struct {
	Prefix   netip.Prefix
	NextHops []netip.Addr // one, or for IPv6 a global and a link-local one
	Best     bool         // in use: the best path, or one of several that are equally good
	// Communities are in numbers, "65535:65281", also where the router prints a name. Sorted.
	Communities      []string
	LargeCommunities []string // "64512:1:2". Sorted.
	// ExtendedCommunities are "rt:64512:100" and "soo:64512:100", and "lb:64512:125000", a link bandwidth in bytes per
	// second. Sorted.
	ExtendedCommunities []string
	MED                 *uint32 // nil: none
	LocalPref           *uint32 // nil: none, or not told by the router for eBGP
	ASPath              []uint32
	// Learned is when BIRD took it in, in its own words; it stays the same until the route is withdrawn or
	// replaced. FRR reckons it anew for each answer, and is off by a second now and then: it is left empty.
	Learned string
}

// startTime bounds how long a daemon may take until it answers.
const startTime = 15 * time.Second

// daemon is one process of a router.
type daemon struct {
	name   string
	cmd    *exec.Cmd
	output *output
	ended  chan struct{} // closed when the process has ended
	err    error         // what it ended with; read after ended
}

func startDaemon(ctx context.Context, host enclave.Host, program string, args ...string) (*daemon, error) {
	d := &daemon{name: filepath.Base(program), output: &output{}, ended: make(chan struct{})}
	d.cmd = host.Command(ctx, program, args...)
	d.cmd.Stdout, d.cmd.Stderr = d.output, d.output
	if err := d.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", d.name, err)
	}
	// Joined by end, which waits for ended.
	go func() {
		defer close(d.ended)
		d.err = d.cmd.Wait()
	}()
	return d, nil
}

// await asks the daemon again and again until it answers.
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

// end sends a signal and waits; a daemon that ignores SIGTERM is killed.
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

// output keeps what a daemon prints, and can be read meanwhile.
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
