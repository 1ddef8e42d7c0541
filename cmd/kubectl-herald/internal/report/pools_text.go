package report

import (
	"math"
	"strconv"
	"strings"

	"github.com/charmbracelet/lipgloss"

	herald "github.com/heraldlb/herald/api/v1alpha1"
)

// noPools says what to do first in a cluster.
const noPools = "There are no IPPools, so no Service is given an address: create one. docs/quick-start.md shows how."

// Text writes the report for people.
func (r *PoolsReport) Text(s Style) string {
	var l lines
	for _, text := range r.Unread {
		l.add(s.bad.Render("✗ "), text)
	}
	if len(r.Unread) > 0 {
		l.add()
	}
	if len(r.Pools) == 0 && len(r.Unread) == 0 {
		l.add(noPools)
	}
	columns := r.columns()
	row := 0
	for i, p := range r.Pools {
		if i > 0 {
			l.add()
		}
		l.add(s.bold.Render(p.Name), "  ", s.faint.Render(join(p.Addresses, ", ")))
		if p.GrantedBy != nil {
			l.add("  granted by ", p.GrantedBy.Kind, " ", strconv.Quote(p.GrantedBy.Name))
		}
		var rows [][]string
		for _, f := range p.Families {
			rows = append(rows, []string{
				f.Family, f.bar(s), columns.used[row] + " used", columns.cooling[row] + " cooling", columns.free[row] + " free",
				s.faint.Render("of " + number(f.Capacity)),
			})
			row++
		}
		l.table("  ", rows)
		if users := p.users(); users != "" {
			l.add("  used by ", users)
		}
		if len(p.OutOfRange) > 0 {
			l.add("  out of range, and still in use by ", strings.Join(texts(p.OutOfRange), ", "))
		}
		for _, a := range p.Attention {
			mark := s.warn
			if a.Type == herald.PoolReady {
				mark = s.bad
			}
			l.add("  ", mark.Render("! "+a.Type), ": ", strings.TrimPrefix(a.Reason+": "+a.Message, "None: "))
		}
	}
	return l.String()
}

// columns returns the numbers of all pools, aligned across the pools.
func (r *PoolsReport) columns() (c struct{ used, cooling, free []string }) {
	for _, p := range r.Pools {
		for _, f := range p.Families {
			c.used, c.cooling, c.free = append(c.used, number(f.Used)), append(c.cooling, number(f.Cooling)), append(c.free, number(f.Free))
		}
	}
	c.used, c.cooling, c.free = right(c.used), right(c.cooling), right(c.free)
	return c
}

func (p poolReport) users() string {
	users := texts(p.Namespaces)
	if p.Reserved > 0 {
		users = append(users, "none yet (reserved) "+strconv.Itoa(p.Reserved))
	}
	return strings.Join(users, ", ")
}

// texts says how many addresses each namespace has.
func texts(all []namespaceReport) (texts []string) {
	for _, n := range all {
		texts = append(texts, n.Namespace+" "+strconv.Itoa(n.Addresses))
	}
	return texts
}

const barWidth = 24

// bar shows the addresses that are used, that cool down and that are free. Each of these gets at least one cell
// if there are any.
func (f familyReport) bar(s Style) string {
	capacity := max(float64(f.Capacity), 1)
	cells := func(n int64) int {
		if n == 0 {
			return 0
		}
		return max(1, int(math.Round(barWidth*float64(n)/capacity)))
	}
	used, cooling := cells(f.Used), cells(f.Cooling)
	room := barWidth
	if f.Free > 0 {
		room--
	}
	used = min(used, room-min(cooling, 1))
	cooling = min(cooling, room-used)
	return f.colour(s).Render(strings.Repeat("█", used)) + s.faint.Render(strings.Repeat("▒", cooling)+strings.Repeat("░", barWidth-used-cooling))
}

// colour returns a worse colour the fewer addresses are free.
func (f familyReport) colour(s Style) lipgloss.Style {
	switch {
	case f.Free == 0:
		return s.bad
	case f.Free < f.Capacity/5:
		return s.warn
	}
	return s.good
}

// number returns a number as text. A /64 has more addresses than can be counted.
func number(n int64) string {
	if n >= herald.MaxCount {
		return "2^53+"
	}
	return strconv.FormatInt(n, 10)
}
