package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/charmbracelet/lipgloss"
	"github.com/charmbracelet/lipgloss/table"
	"golang.org/x/term"
)

const (
	margin = "  "
	// indent aligns the result of a step with the step's text.
	indent = "             "
	frames = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
	// frameTime is the time between two frames of the spinner.
	frameTime = 100 * time.Millisecond
	// wipe moves to the start of the line and clears the line (ECMA-48, EL).
	wipe = "\r\x1b[K"
)

// terminal shows a story's steps. If the output is not a terminal (a pipe, a file, CI), it writes one plain line
// for each event and no escape codes. NO_COLOR removes only the colours.
type terminal struct {
	out io.Writer
	// width returns the width of the window. It is called for each frame, because the window may be resized. It is
	// nil if the output is not a terminal.
	width func() int

	plain, bold, faint, good, bad lipgloss.Style

	mu     sync.Mutex
	detail string // The current detail of the running step.
}

func newTerminal(f *os.File) *terminal {
	t := styled(f)
	if fd := int(f.Fd()); term.IsTerminal(fd) && os.Getenv("TERM") != "dumb" {
		t.width = func() int {
			if w, _, err := term.GetSize(fd); err == nil && w > 0 {
				return w
			}
			return 80
		}
	}
	return t
}

// styled returns a terminal without a spinner. The renderer detects whether to use colours.
func styled(out io.Writer) *terminal {
	style := lipgloss.NewRenderer(out).NewStyle
	return &terminal{
		out: out, plain: style(), bold: style().Bold(true), faint: style().Faint(true),
		good: style().Foreground(lipgloss.Color("2")), bad: style().Foreground(lipgloss.Color("1")),
	}
}

func (t *terminal) heading(text string) { t.print("\n" + t.bold.Render(text)) }

// block shows a file.
func (t *terminal) block(text string) {
	for line := range strings.Lines(strings.TrimSpace(text)) {
		t.print(t.faint.Render(indent + "│ " + strings.TrimRight(line, "\n")))
	}
}

// note shows an explanation of the steps before it.
func (t *terminal) note(text string) { t.indented(margin, text) }

func (t *terminal) indented(by, text string) {
	for line := range strings.Lines(text) {
		t.print(by + strings.TrimRight(line, "\n"))
	}
}

// step shows that a step is running, and then its result: the first line that do returns on the step's own
// line, the others below.
func (t *terminal) step(what string, do func() (string, error)) error {
	began := time.Now()
	stop := t.spin(what, began)
	said, err := do()
	stop()
	mark := t.good.Render("✓")
	if err != nil {
		mark, said = t.bad.Render("✗"), ""
	}
	said, below, _ := strings.Cut(said, "\n")
	if said != "" {
		what += ": " + said
	}
	t.print(fmt.Sprintf("  %s %s  %s", mark, t.faint.Render(elapsed(began)), what))
	if below != "" {
		t.indented(indent, below)
	}
	return err
}

// progress shows the current detail of the running step. It is safe for concurrent use.
func (t *terminal) progress(detail string) {
	if t.width == nil {
		t.print(indent + "· " + detail)
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.detail = detail
}

// spin shows that a step is running until stop is called.
func (t *terminal) spin(what string, began time.Time) (stop func()) {
	if t.width == nil {
		return func() {}
	}
	t.mu.Lock()
	t.detail = ""
	t.mu.Unlock()
	done := make(chan struct{})
	var work sync.WaitGroup
	work.Go(func() {
		ticker := time.NewTicker(frameTime)
		defer ticker.Stop()
		for frame := 0; ; frame++ {
			t.draw([]rune(frames)[frame%len([]rune(frames))], what, began)
			select {
			case <-ticker.C:
			case <-done:
				fmt.Fprint(t.out, wipe)
				return
			}
		}
	})
	return func() { close(done); work.Wait() }
}

func (t *terminal) draw(frame rune, what string, began time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.detail != "" {
		what += t.faint.Render(" · " + t.detail)
	}
	line := fmt.Sprintf("  %c %s  %s", frame, t.faint.Render(elapsed(began)), what)
	// A line that wraps cannot be wiped.
	fmt.Fprint(t.out, wipe+t.plain.MaxWidth(t.width()-1).Render(line))
}

func (t *terminal) print(line string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	fmt.Fprintln(t.out, line)
}

// table draws rows under a header, in a box.
func (t *terminal) table(header []string, rows ...[]string) string {
	cell := t.plain.Padding(0, 1)
	return table.New().Border(lipgloss.RoundedBorder()).BorderStyle(t.faint).
		StyleFunc(func(row, _ int) lipgloss.Style {
			if row == table.HeaderRow {
				return cell.Bold(true)
			}
			return cell
		}).Headers(header...).Rows(rows...).String()
}

// elapsed formats the time since a step began, with a fixed width for its own column.
func elapsed(since time.Time) string { return fmt.Sprintf("%5.1f s", time.Since(since).Seconds()) }
