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
// goes to a file, which goes on when it is restarted. All methods may be called from any goroutine.
type Process struct {
	// Name is unique in a lab; the log is named by it.
	Name string
	// Host is where it runs.
	Host enclave.Host
	// Path and Args of the program.
	Path string
	Args []string
	// Env is added to the lab's own environment.
	Env []string
	// LogPath is the file that has the program's output.
	LogPath string

	mu  sync.Mutex
	now *running // The last one started, or nil.
}

// running is one life of a process.
type running struct {
	cmd   *exec.Cmd
	ended chan struct{} // Closed once the program has ended and err is set.
	err   error
}

// Start starts the program and does not wait for anything more.
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
	defer log.Close() // The program has a descriptor of its own.
	r := &running{ended: make(chan struct{})}
	r.cmd = p.Host.Command(context.Background(), p.Path, p.Args...)
	r.cmd.Env = append(os.Environ(), p.Env...)
	r.cmd.Stdout, r.cmd.Stderr = log, log
	// A group of its own: Ctrl-C at a terminal is for the lab, which then stops things in order.
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

// Stop asks the program to end (SIGTERM), waits, and returns how it ended: nil for exit code 0. A
// program that is frozen is resumed first. After StopGrace, or when ctx ends, it is killed, and
// that is an error. It is none if the program is not running.
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

// Kill ends the program at once (SIGKILL), as a crash does, and waits until it is gone.
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

// Freeze stops the program in its tracks (SIGSTOP), and returns when it stands: its connections stay, it does nothing.
func (p *Process) Freeze() error {
	if err := p.mustSignal("freeze", syscall.SIGSTOP); err != nil {
		return err
	}
	return stands(p.PID())
}

// Resume lets a frozen program go on.
func (p *Process) Resume() error { return p.mustSignal("resume", syscall.SIGCONT) }

// Restart is Stop, then Start.
func (p *Process) Restart(ctx context.Context) error {
	if err := p.Stop(ctx); err != nil {
		return err
	}
	return p.Start()
}

// Running tells whether the program has been started and has not ended; frozen counts as running.
func (p *Process) Running() bool {
	r := p.life()
	return r != nil && !r.over()
}

// PID is the id of the program, or 0 if it is not running.
func (p *Process) PID() int {
	if r := p.life(); r != nil && !r.over() {
		return r.cmd.Process.Pid
	}
	return 0
}

// Ended is closed once the program that was started last has ended; nil if it never was started.
func (p *Process) Ended() <-chan struct{} {
	if r := p.life(); r != nil {
		return r.ended
	}
	return nil
}

// Err is how the program ended the last time: nil for exit code 0, and as long as it has not ended.
func (p *Process) Err() error {
	if r := p.life(); r != nil && r.over() {
		return r.err
	}
	return nil
}

// Log returns all that the program has written, in all its lives.
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

// signal ignores that the program may have ended meanwhile.
func (r *running) signal(s syscall.Signal) error {
	if err := r.cmd.Process.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	return nil
}
