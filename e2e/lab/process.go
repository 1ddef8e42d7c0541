package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"

	"github.com/heraldlb/herald/e2e/lab/enclave"
)

// StopGrace is how long a program may take to end after SIGTERM before it is killed.
const StopGrace = 10 * time.Second

// Process is a program on a host that can be stopped, killed, frozen and started again. Its output
// goes to a file, to which each start appends. All methods are safe for concurrent use.
type Process struct {
	// Name is unique in a lab. The log file has this name.
	Name string
	// Host is the host that the program runs on.
	Host enclave.Host
	// Path and Args of the program.
	Path string
	Args []string
	// Env is added to the lab's environment.
	Env []string
	// LogPath is the file that has the program's output.
	LogPath string

	mu  sync.Mutex
	now *running // The run that was started last, or nil.
}

// running is one run of a process.
type running struct {
	cmd   *exec.Cmd
	ended chan struct{} // Closed once the program has ended and err is set.
	err   error
}

// Start starts the program. It does not wait until the program is ready.
func (p *Process) Start() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.now != nil && !p.now.over() {
		return fmt.Errorf("start %s: it is running already as process %d", p.Name, p.now.cmd.Process.Pid)
	}
	if _, err := os.Stat(p.Path); err != nil {
		return fmt.Errorf("start %s: %w: build it first", p.Name, err)
	}
	log, err := os.OpenFile(p.LogPath, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return fmt.Errorf("start %s: %w", p.Name, err)
	}
	defer log.Close() // The program has its own descriptor.
	r := &running{ended: make(chan struct{})}
	r.cmd = p.Host.Command(context.Background(), p.Path, p.Args...)
	r.cmd.Env = append(os.Environ(), p.Env...)
	r.cmd.Stdout, r.cmd.Stderr = log, log
	// With its own process group the program does not receive Ctrl-C from a terminal. Only the lab does, and stops
	// its processes in order.
	r.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := r.cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", p.Name, err)
	}
	p.now = r
	go r.reap()
	return nil
}

func (r *running) reap() {
	r.err = r.cmd.Wait()
	close(r.ended)
}

func (r *running) over() bool {
	select {
	case <-r.ended:
		return true
	default:
		return false
	}
}

// Stop asks the program to end (SIGTERM), waits, and returns nil if the exit code is 0. A frozen
// program is resumed. After StopGrace, or when ctx ends, Stop kills the program and returns an error.
// It returns nil if the program is not running.
func (p *Process) Stop(ctx context.Context) error {
	r := p.life()
	if r == nil || r.over() {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, StopGrace)
	defer cancel()
	for _, s := range []syscall.Signal{syscall.SIGTERM, syscall.SIGCONT} {
		if err := r.signal(s); err != nil {
			return fmt.Errorf("stop %s: %w", p.Name, err)
		}
	}
	select {
	case <-r.ended:
		if r.err != nil {
			return fmt.Errorf("%s ended badly: %w", p.Name, r.err)
		}
		return nil
	case <-ctx.Done():
		return errors.Join(fmt.Errorf("%s had to be killed: %w", p.Name, ctx.Err()), p.Kill())
	}
}

// Kill kills the program (SIGKILL), like a crash, and waits until it has ended.
func (p *Process) Kill() error {
	r := p.life()
	if r == nil {
		return nil
	}
	if err := r.signal(syscall.SIGKILL); err != nil {
		return fmt.Errorf("kill %s: %w", p.Name, err)
	}
	<-r.ended
	return nil
}

// Freeze suspends the program (SIGSTOP) and returns when it is suspended. Its connections stay open.
func (p *Process) Freeze() error {
	if err := p.mustSignal("freeze", syscall.SIGSTOP); err != nil {
		return err
	}
	return stands(p.PID())
}

// Resume lets a frozen program continue.
func (p *Process) Resume() error { return p.mustSignal("resume", syscall.SIGCONT) }

// Restart is Stop, then Start.
func (p *Process) Restart(ctx context.Context) error {
	if err := p.Stop(ctx); err != nil {
		return err
	}
	return p.Start()
}

// Running reports whether the program has been started and has not ended. A frozen program is running.
func (p *Process) Running() bool {
	r := p.life()
	return r != nil && !r.over()
}

// PID returns the process ID of the program, or 0 if it is not running.
func (p *Process) PID() int {
	if r := p.life(); r != nil && !r.over() {
		return r.cmd.Process.Pid
	}
	return 0
}

// Ended returns a channel that is closed once the last run has ended, or nil if the program was never started.
func (p *Process) Ended() <-chan struct{} {
	if r := p.life(); r != nil {
		return r.ended
	}
	return nil
}

// Err returns how the last run ended: nil for exit code 0, and nil while it has not ended.
func (p *Process) Err() error {
	if r := p.life(); r != nil && r.over() {
		return r.err
	}
	return nil
}

// Log returns all output of the program, in all its runs.
func (p *Process) Log() string {
	b, err := os.ReadFile(p.LogPath)
	if err != nil {
		return err.Error()
	}
	return string(b)
}

func (p *Process) life() *running {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.now
}

func (p *Process) mustSignal(verb string, s syscall.Signal) error {
	r := p.life()
	if r == nil || r.over() {
		return fmt.Errorf("%s %s: it is not running", verb, p.Name)
	}
	if err := r.signal(s); err != nil {
		return fmt.Errorf("%s %s: %w", verb, p.Name, err)
	}
	return nil
}

// signal sends a signal. It is not an error if the program has ended.
func (r *running) signal(s syscall.Signal) error {
	if err := r.cmd.Process.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	return nil
}
