package report

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/charmbracelet/lipgloss"
)

// Text writes the report for people.
func (r *PlanReport) Text(s Style) string {
	var l lines
	for _, p := range r.Pools {
		p.text(&l, s)
	}
	if l.Len() == 0 {
		l.add("No pool would change.")
	}
	for _, text := range r.Unread {
		l.add(s.bad.Render("✗ "), text)
	}
	l.add()
	if r.Kept.Addresses > 0 {
		kept := count(r.Kept.Services, "Service keeps", "Services keep")
		l.add("= ", kept, " what they have: ", count(r.Kept.Addresses, "address", "addresses"))
	}
	var rows [][]string
	add := func(mark lipgloss.Style, sign, address, service, what string) {
		rows = append(rows, []string{mark.Render(sign), address, service, what})
	}
	for _, p := range r.OutOfRange {
		add(s.bad, "-", p.Address, p.holders(), p.where("would be out of range of"))
	}
	for _, released := range r.Released {
		add(s.bad, "-", released.Address, released.Service, "would no longer be announced: "+released.Reason)
	}
	for _, p := range r.StillOutOfRange {
		add(s.warn, "~", p.Address, p.holders(), p.where("is out of range already, of"))
	}
	for _, p := range r.BackInRange {
		add(s.good, "+", p.Address, p.holders(), "would be in range of "+p.Pool+" again")
	}
	for _, served := range r.Served {
		what := "would be given, from "
		switch {
		case served.ByAnother:
			what = "would be announced (another controller gave it), from "
		case served.Carries:
			what = "is in its status already, and would be recorded, from "
		case len(served.Leaves) > 0:
			what = "would take the place of " + spelled(served.Leaves) + ", from "
		}
		for _, a := range served.Addresses {
			add(s.good, "+", a.Address, served.Service, what+a.Pool)
		}
	}
	for _, w := range r.Waiting {
		add(s.warn, "?", "", w.Service, "would wait: "+w.Reason)
	}
	l.table("", rows)
	l.add()
	l.add(r.verdict(s))
	return l.String()
}

func (r *PlanReport) verdict(s Style) string {
	var verdicts []string
	if n := len(r.OutOfRange); n > 0 {
		verdicts = append(verdicts, count(n, "address in use", "addresses in use")+" would be out of range; their Services keep them.")
	}
	if n := len(r.Released); n > 0 {
		verdicts = append(verdicts, count(n, "address", "addresses")+" from another controller would no longer be announced.")
	}
	for _, p := range r.Pools {
		switch {
		case !p.breaks():
		case p.Change == "added":
			verdicts = append(verdicts, "IPPool "+p.Name+" would be invalid and give out nothing.")
		default:
			verdicts = append(verdicts, "IPPool "+p.Name+" would be invalid: its last valid spec stays in force until herald-ccm restarts, and then it gives out nothing new.")
		}
	}
	if len(r.Unread) > 0 {
		verdicts = append(verdicts, "The effect on objects that cannot be read is not known.")
	}
	text := s.bad.Render(strings.Join(verdicts, " "))
	if len(verdicts) == 0 {
		text = s.good.Render("Nothing would be lost.")
	}
	var off []string
	for _, p := range r.Pools {
		if p.OffSubnet != "" {
			off = append(off, p.Name)
		}
	}
	if len(off) > 0 {
		text += " " + s.warn.Render("Correct spec.addresses or the advertisement of IPPool "+some(off)+": see off subnet above.")
	}
	return text
}

func (p placeReport) where(what string) string {
	if p.Home != "" {
		return what + " " + p.Pool + " (" + p.Home + " has it)"
	}
	return what + " " + p.Pool
}

func (p placeReport) holders() string {
	switch {
	case len(p.Services) > 0:
		return strings.Join(p.Services, ", ")
	case len(p.Reserved) > 0:
		return "(reserved for " + strings.Join(p.Reserved, ", ") + ")"
	}
	return "(reserved)"
}

func spelled(all []addressReport) string {
	var texts []string
	for _, a := range all {
		texts = append(texts, a.Address)
	}
	return strings.Join(texts, " and ")
}

// text writes the changes of a pool, and nothing if there are none.
func (p poolChange) text(l *lines, s Style) {
	mark := map[string]string{"added": s.good.Render("+"), "deleted": s.bad.Render("-"), "deleting": s.bad.Render("-"), "changed": s.warn.Render("~")}[p.Change]
	var rows [][]string
	for _, f := range p.Fields {
		name := f.Field
		for _, v := range f.Removed {
			rows, name = append(rows, []string{name, s.bad.Render("- " + written(v))}), ""
		}
		for _, v := range f.Added {
			rows, name = append(rows, []string{name, s.good.Render("+ " + written(v))}), ""
		}
	}
	for _, f := range p.Families {
		if f.CapacityBefore != f.CapacityAfter || f.FreeBefore != f.FreeAfter {
			rows = append(rows, []string{f.Family, step(f.CapacityBefore, f.CapacityAfter) + " addresses, " + step(f.FreeBefore, f.FreeAfter) + " free"})
		}
	}
	for _, o := range p.Overlaps {
		rows = append(rows, []string{"overlaps", s.warn.Render(strings.Join(o.Addresses, ", ") + " stays with the older pool " + o.Pool)})
	}
	if p.Invalid != "" {
		rows = append(rows, []string{"invalid", s.bad.Render(p.Invalid)})
	}
	if p.OffSubnet != "" {
		rows = append(rows, []string{"off subnet", s.warn.Render(p.OffSubnet)})
	}
	if mark == "" && len(rows) == 0 {
		return
	}
	if mark == "" {
		mark = " "
	}
	title := mark + " " + s.bold.Render(p.Name)
	if p.Change == "deleting" {
		title += "  gives out nothing more, and goes when its last address is free"
	}
	l.add(title)
	l.table("    ", rows)
}

func step(before, after int64) string {
	if before == after {
		return number(after)
	}
	return number(before) + " → " + number(after)
}

// written returns a value as it would be in a file, on one line.
func written(v any) string {
	if text, ok := v.(string); ok {
		return text
	}
	text, err := json.Marshal(v)
	if err != nil {
		return fmt.Sprint(v)
	}
	return string(text)
}
