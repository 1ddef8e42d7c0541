package main

import (
	"bytes"
	"errors"
	"os"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/charmbracelet/lipgloss"
)

var errBroken = errors.New("broken")

// tellOn writes one of each element.
func tellOn(t *terminal) error {
	t.heading("1  Heading")
	t.block("kind: IPPool\n---\n")
	err := t.step("starting", func() (string, error) {
		t.progress("half way")
		return "done\n" + t.table([]string{"address", "owner"}, []string{"198.18.0.200", "k8s-node3"}), nil
	})
	return errors.Join(err, t.step("failing", func() (string, error) { return "ignored", errBroken }))
}

// atOnce is tellOn with fake time: its steps take no time, however busy the machine is.
func atOnce(t *testing.T, to *terminal) (err error) {
	synctest.Test(t, func(*testing.T) { err = tellOn(to) })
	return err
}

func TestWithoutAWatcherLinesArePlain(t *testing.T) {
	var out bytes.Buffer
	if err := atOnce(t, styled(&out)); !errors.Is(err, errBroken) {
		t.Errorf("error %v, want that of the step", err)
	}
	if strings.ContainsAny(out.String(), "\r\x1b") {
		t.Errorf("escape codes in %q", out.String())
	}
	for _, want := range []string{"│ kind: IPPool\n", "· half way\n", "✓   0.0 s  starting: done\n", "│ 198.18.0.200 │ k8s-node3 │\n", "✗   0.0 s  failing\n"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%s", want, out.String())
		}
	}
}

// TestASpinnerLeavesNothingBehind interprets the one escape code in use, as a terminal does. The remaining text
// must be the output to a pipe, except for the progress, which the spinner shows.
func TestASpinnerLeavesNothingBehind(t *testing.T) {
	var plain, live bytes.Buffer
	_ = atOnce(t, styled(&plain))
	watched := styled(&live)
	watched.width = func() int { return 40 }
	_ = atOnce(t, watched)
	if !strings.Contains(live.String(), wipe) {
		t.Fatal("there is no spinner")
	}
	var seen []string
	for line := range strings.Lines(live.String()) {
		frames := strings.Split(line, wipe)
		for _, frame := range frames[1:max(1, len(frames)-1)] {
			if w := lipgloss.Width(frame); w >= 40 {
				t.Errorf("a frame of %d columns wraps: %q", w, frame)
			}
		}
		seen = append(seen, frames[len(frames)-1])
	}
	want := strings.Replace(plain.String(), indent+"· half way\n", "", 1)
	if got := strings.Join(seen, ""); got != want {
		t.Errorf("a watcher is left with\n%s\nwant\n%s", got, want)
	}
}

func TestAPodsCopyDiffersInNameLabelAndNode(t *testing.T) {
	got, err := copyOf("pod-2", "other", "k8s-node3")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"name: pod-2\n", "app: other\n", "kubernetes.io/hostname: k8s-node3\n", "image: test/app\n"} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
	if strings.Contains(got, "Service") {
		t.Errorf("the Service came along:\n%s", got)
	}
}

// TestWhatComesNextExists checks the documents and the targets of make that the demo names at its end.
func TestWhatComesNextExists(t *testing.T) {
	makefile, err := os.ReadFile("../../Makefile")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(next) {
		what, _, _ := strings.Cut(line, "  ")
		if target, is := strings.CutPrefix(what, "make "); is {
			if !strings.Contains(string(makefile), "\n"+target+":") {
				t.Errorf("make has no target %s", target)
			}
		} else if _, err := os.Stat("../../" + what); err != nil {
			t.Errorf("%q: %v", line, err)
		}
	}
}
