// Command recording makes a picture of the demo. `make recording` runs the demo in a terminal of script(1). This command
// converts the files of script to an asciicast (docs/pictures/demo.cast), and the asciicast to an SVG
// (docs/pictures/demo.svg).
//
//	recording LOG TIMING CAST SVG
package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"html"
	"io"
	"math"
	"os"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

const (
	columns, rows = 96, 34
	// pause is the longest time without a change in the picture. rest is how long the last frame is shown.
	pause, rest = 1200 * time.Millisecond, 12 * time.Second
	title       = "make demo: a cluster gets Herald, a Service gets an address, and clients are served while a node is lost."
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "recording:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) != 4 {
		return errors.New("write recording LOG TIMING CAST SVG; make recording does")
	}
	log, err := os.ReadFile(args[0])
	if err != nil {
		return err
	}
	timing, err := os.ReadFile(args[1])
	if err != nil {
		return err
	}
	cast, err := asciicast(log, timing)
	if err != nil {
		return err
	}
	svg, err := picture(cast)
	if err != nil {
		return err
	}
	return errors.Join(os.WriteFile(args[2], cast, 0o644), os.WriteFile(args[3], svg, 0o644)) //nolint:gosec // They are documents.
}

// asciicast converts a recording of script to an asciicast of version 2. Each line of the timing has a delay in seconds
// since the line before, and the number of bytes written then. The log begins with a line of script itself.
func asciicast(log, timing []byte) ([]byte, error) {
	_, log, _ = bytes.Cut(log, []byte("\n"))
	var cast bytes.Buffer
	encoder := json.NewEncoder(&cast)
	encoder.SetEscapeHTML(false)
	err := encoder.Encode(map[string]any{"version": 2, "width": columns, "height": rows, "title": title})
	at, half := 0.0, []byte{}
	for line := range strings.Lines(string(timing)) {
		var after float64
		var size int
		if _, e := fmt.Sscan(line, &after, &size); e != nil || size < 0 || size > len(log) {
			return nil, fmt.Errorf("the timing has the line %q, and the log %d bytes left: record both again", line, len(log))
		}
		at += after
		// The bytes of a character may be split over two writes.
		text := slices.Concat(half, log[:size])
		whole := len(text)
		for whole > 0 && !utf8.Valid(text[:whole]) && len(text)-whole < utf8.UTFMax {
			whole--
		}
		log, half = log[size:], bytes.Clone(text[whole:])
		err = errors.Join(err, encoder.Encode([]any{float64(int(at*1000)) / 1000, "o", string(text[:whole])}))
	}
	return cast.Bytes(), err
}

// shown is the number of complete lines from a time on.
type shown struct {
	at    time.Duration
	lines int
}

// picture converts an asciicast to an SVG. Text appears at the lower edge and moves up, so a single animation of the whole
// text is enough. Only complete lines are drawn. This leaves out a spinner, which the line that follows it wipes.
func picture(cast []byte) ([]byte, error) {
	var t screen
	steps, at, before := []shown{}, time.Duration(0), 0.0
	for n, event := range events(cast) {
		if n == 0 {
			continue // The header.
		}
		var seconds float64
		var kind, text string
		if err := json.Unmarshal(event, &[]any{&seconds, &kind, &text}); err != nil || kind != "o" {
			return nil, fmt.Errorf("event %d is not an output event: %q: %w", n, event, err)
		}
		if err := t.write(text); err != nil {
			return nil, fmt.Errorf("event %d: %w", n, err)
		}
		if complete := len(t.lines); len(steps) == 0 || complete > steps[len(steps)-1].lines {
			at += min(time.Duration((seconds-before)*float64(time.Second)), pause)
			before = seconds
			steps = append(steps, shown{at, complete})
		}
	}
	if len(t.lines) == 0 {
		return nil, errors.New("there is no line to show")
	}
	return draw(t.lines, steps), nil
}

// events returns the lines of an asciicast.
func events(cast []byte) (all [][]byte) {
	lines := bufio.NewScanner(bytes.NewReader(cast))
	lines.Buffer(nil, len(cast)+1)
	for lines.Scan() {
		all = append(all, bytes.Clone(lines.Bytes()))
	}
	return all
}

const lineHeight, margin = 18, 16

// charWidth is the character width of the widest of the fonts.
const charWidth = 8.43

func draw(lines []string, steps []shown) []byte {
	var b bytes.Buffer
	width, height := int(math.Ceil(columns*charWidth))+2*margin, rows*lineHeight+2*margin
	length := steps[len(steps)-1].at + rest
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%[1]d" height="%d" role="img" aria-labelledby="title">
<title id="title">%s</title>
<style>
text { font: 14px ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace; white-space: pre; fill: #1d2329; }
.window { fill: #f5f7f9; stroke: #d0d7de; } .bold { font-weight: 600; } .faint { fill: #57606a; } .good { fill: #1a7f37; } .bad { fill: #b3470b; }
@media (prefers-color-scheme: dark) {
  text { fill: #dfe4ea; } .window { fill: #1c2229; stroke: #3d444d; } .faint { fill: #98a2ad; } .good { fill: #3fb950; } .bad { fill: #f0995d; }
}
.text { transform: translateY(%dpx); }
@media not (prefers-reduced-motion: reduce) { .text { animation: scroll %.2fs step-end infinite; } }
@keyframes scroll {
`, width, height, html.EscapeString(title), (rows-len(lines))*lineHeight, length.Seconds())
	fmt.Fprintf(&b, "0%% { transform: translateY(%dpx); }\n", rows*lineHeight)
	for _, s := range steps {
		fmt.Fprintf(&b, "%.3f%% { transform: translateY(%dpx); }\n", 100*s.at.Seconds()/length.Seconds(), (rows-s.lines)*lineHeight)
	}
	fmt.Fprintf(&b, `}
</style>
<rect class="window" x="1" y="1" width="%d" height="%d" rx="8"/>
<svg x="%d" y="%[3]d" width="%d" height="%d"><g class="text" xml:space="preserve">
`, width-2, height-2, margin, width-2*margin, rows*lineHeight)
	for n, line := range lines {
		if line != "" {
			fmt.Fprintf(&b, "<text y=\"%d\">%s</text>\n", n*lineHeight+lineHeight-5, line)
		}
	}
	b.WriteString("</g></svg>\n</svg>\n")
	return b.Bytes()
}

// screen interprets the output that the demo uses: text, carriage returns, wiping a line, and the ECMA-48 styles in
// classes.
type screen struct {
	lines []string // Complete lines, in SVG.

	line  []cell
	at    int
	style string
}

type cell struct {
	text  rune
	style string
}

// classes maps the numbers of styles to CSS classes. 0 and the empty number end all styles.
var classes = map[string]string{"": "", "0": "", "1": "bold", "2": "faint", "31": "bad", "32": "good"}

func (s *screen) write(text string) error {
	for r := strings.NewReader(text); r.Len() > 0; {
		c, _, err := r.ReadRune()
		if err != nil {
			return err
		}
		switch c {
		case '\n':
			s.feed()
		case '\r':
			s.at = 0
		case '\x1b':
			if err := s.control(r); err != nil {
				return err
			}
		default:
			if s.at == columns {
				s.feed()
			}
			if s.at < len(s.line) {
				s.line[s.at] = cell{c, s.style}
			} else {
				s.line = append(s.line, cell{c, s.style})
			}
			s.at++
		}
	}
	return nil
}

// feed completes the line.
func (s *screen) feed() {
	s.lines = append(s.lines, drawn(s.line))
	s.line, s.at = nil, 0
}

// control reads a control sequence after its escape character and applies it.
func (s *screen) control(r io.RuneReader) error {
	sequence := ""
	for {
		c, _, err := r.ReadRune()
		if err != nil {
			return fmt.Errorf("the control sequence %q has no end", sequence)
		}
		sequence += string(c)
		if sequence != "[" && c >= '@' && c <= '~' {
			break
		}
	}
	if sequence == "[K" {
		s.line = s.line[:s.at]
		return nil
	}
	style, ok := strings.CutSuffix(strings.TrimPrefix(sequence, "["), "m")
	class, known := classes[style]
	if !ok || !known {
		return fmt.Errorf("the control sequence %q is not known: see type screen", sequence)
	}
	s.style = class
	return nil
}

// drawn returns a line in SVG.
func drawn(line []cell) string {
	for len(line) > 0 && line[len(line)-1].text == ' ' {
		line = line[:len(line)-1]
	}
	var b strings.Builder
	for n := 0; n < len(line); {
		var run strings.Builder
		style := line[n].style
		for ; n < len(line) && line[n].style == style; n++ {
			run.WriteRune(line[n].text)
		}
		text := html.EscapeString(run.String())
		if style != "" {
			text = `<tspan class="` + style + `">` + text + `</tspan>`
		}
		b.WriteString(text)
	}
	return b.String()
}
