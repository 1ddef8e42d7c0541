package lab_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/heraldlb/herald/e2e/lab"
)

// shell returns a process that prints "ready" and then waits for a signal.
func shell(t *testing.T, script string) *lab.Process {
	t.Helper()
	p := &lab.Process{Name: "shell", Path: "/bin/sh", Args: []string{"-c", script}, LogPath: filepath.Join(t.TempDir(), "log")}
	t.Cleanup(func() {
		if err := p.Kill(); err != nil {
			t.Error(err)
		}
	})
	launch(t, p, 1)
	return p
}

// launch starts the process and waits until its log has the nth "ready".
func launch(t *testing.T, p *lab.Process, nth int) {
	t.Helper()
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	for strings.Count(p.Log(), "ready") < nth {
		select {
		case <-p.Ended():
			t.Fatal("it has ended: ", p.Log())
		case <-t.Context().Done():
			t.Fatal(t.Context().Err())
		default:
		}
	}
}

const polite = `trap 'echo bye; exit 0' TERM; echo ready; while :; do sleep 0.05; done`

func TestAProcessIsStoppedAndStartedAgain(t *testing.T) {
	p := shell(t, polite)
	if err := p.Start(); err == nil {
		t.Error("it was started twice")
	}
	first := p.PID()
	if err := p.Stop(t.Context()); err != nil || p.Running() || p.PID() != 0 {
		t.Errorf("stop: %v, running %t, process %d", err, p.Running(), p.PID())
	}
	launch(t, p, 2)
	if p.PID() == first || !p.Running() {
		t.Errorf("running %t as process %d, want another than %d", p.Running(), p.PID(), first)
	}
	if got := p.Log(); !strings.HasPrefix(got, "ready\nbye\nready\n") {
		t.Errorf("the log does not go on: %q", got)
	}
}

func TestAFrozenProcessDoesNothingUntilItIsResumed(t *testing.T) {
	p := shell(t, polite)
	if err := p.Freeze(); err != nil {
		t.Fatal(err)
	}
	if err := inState(p, "T"); err != nil {
		t.Fatal(err)
	}
	if !p.Running() {
		t.Error("a frozen process does not count as running")
	}
	if err := p.Resume(); err != nil {
		t.Fatal(err)
	}
	if err := lab.Eventually(t.Context(), func(context.Context) error { return inState(p, "S") }); err != nil {
		t.Fatal(err)
	}
	if err := p.Freeze(); err != nil {
		t.Fatal(err)
	}
	if err := p.Stop(t.Context()); err != nil {
		t.Errorf("a frozen process did not stop in good order: %v", err)
	}
	if err := p.Freeze(); err == nil {
		t.Error("what is not running was frozen")
	}
}

// inState checks the state of the process in /proc (proc_pid_stat(5)).
func inState(p *lab.Process, want string) error {
	stat, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(p.PID()), "stat"))
	if err != nil {
		return err
	}
	_, rest, _ := strings.Cut(string(stat), ") ")
	if got := rest[:1]; got != want {
		return fmt.Errorf("process %d is in state %s, want %s", p.PID(), got, want)
	}
	return nil
}

func TestWhatWillNotEndIsKilled(t *testing.T) {
	p := shell(t, `trap '' TERM; echo ready; while :; do sleep 0.05; done`)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := p.Stop(ctx); err == nil || p.Running() {
		t.Errorf("stop: %v, running %t, want an error and not running", err, p.Running())
	}
	if err := p.Kill(); err != nil {
		t.Errorf("killing what has ended: %v", err)
	}
}

func TestAFailureAtTheEndIsToldByStop(t *testing.T) {
	p := shell(t, `trap 'exit 3' TERM; echo ready; while :; do sleep 0.05; done`)
	if err := p.Stop(t.Context()); err == nil || !strings.Contains(err.Error(), "exit status 3") {
		t.Errorf("got %v, want exit status 3", err)
	}
}
