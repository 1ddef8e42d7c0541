package report

import (
	"fmt"
	"io"
	"strings"

	"github.com/charmbracelet/lipgloss"
)

// Style is the style of text. It is plain if the output is not a terminal, or if NO_COLOR is set.
type Style struct{ bold, faint, good, warn, bad lipgloss.Style }

// StyleOf returns the style that the terminal supports.
func StyleOf(out io.Writer) Style { return styled(lipgloss.NewRenderer(out)) }

func styled(r *lipgloss.Renderer) Style {
	base := r.NewStyle
	colour := func(c string) lipgloss.Style { return base().Foreground(lipgloss.Color(c)) }
	return Style{bold: base().Bold(true), faint: base().Faint(true), good: colour("2"), warn: colour("3"), bad: colour("1")}
}

// lines is text that is being written.
type lines struct{ strings.Builder }

func (l *lines) add(parts ...string) {
	l.WriteString(strings.TrimRight(strings.Join(parts, ""), " "))
	l.WriteByte('\n')
}

// table adds rows with aligned columns, two spaces apart. It leaves out columns that are empty in all rows.
func (l *lines) table(indent string, rows [][]string) {
	var widths []int
	for _, row := range rows {
		for i, cell := range row {
			if i == len(widths) {
				widths = append(widths, 0)
			}
			widths[i] = max(widths[i], lipgloss.Width(cell))
		}
	}
	for _, row := range rows {
		parts := []string{indent}
		for i, cell := range row {
			if widths[i] > 0 {
				parts = append(parts, cell, strings.Repeat(" ", widths[i]-lipgloss.Width(cell)+2))
			}
		}
		l.add(parts...)
	}
}

// right aligns numbers to the right.
func right(cells []string) []string {
	width := 0
	for _, c := range cells {
		width = max(width, len(c))
	}
	aligned := make([]string, len(cells))
	for i, c := range cells {
		aligned[i] = strings.Repeat(" ", width-len(c)) + c
	}
	return aligned
}

// count returns a number with its noun: one Service, 2 Services.
func count(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return number(int64(n)) + " " + many
}

// join joins the texts of values.
func join[T any](all []T, separator string) string {
	texts := make([]string, len(all))
	for i, x := range all {
		texts[i] = fmt.Sprint(x)
	}
	return strings.Join(texts, separator)
}
