package report

import (
	"fmt"
	"strings"
)

// Text writes the report for people.
func (r *ServiceReport) Text(s Style) string {
	var l lines
	l.add(s.bold.Render(r.Service), " ", r.Class)
	var rows [][]string
	section := func(title string, lines ...[]string) {
		for _, line := range lines {
			rows = append(rows, append([]string{s.faint.Render(title)}, line...))
			title = ""
		}
	}
	mark := func(good bool) string {
		if good {
			return s.good.Render("✓")
		}
		return s.bad.Render("✗")
	}
	var asks, ignored, verdicts [][]string
	for _, a := range r.Asks {
		asks = append(asks, []string{"", a})
	}
	for _, i := range r.Ignored {
		ignored = append(ignored, []string{mark(false), i})
	}
	for _, v := range r.Pools {
		sign := mark(v.Fits)
		if !v.Fits && r.served && !v.invalid {
			sign = s.faint.Render("-")
		}
		verdicts = append(verdicts, []string{sign, v.Pool + " " + v.Family + ": " + v.Text})
	}
	about := func(facts []fact) (lines [][]string) {
		for _, f := range facts {
			lines = append(lines, []string{mark(!f.Wrong), f.Address + " " + f.Text})
		}
		return lines
	}
	section("asks for", asks...)
	section("ignored", ignored...)
	section("pools", verdicts...)
	section("has", about(r.Addresses)...)
	if r.Endpoints != nil {
		endpoints := [][]string{{"", r.Endpoints.text()}}
		for _, text := range r.Endpoints.Unserved {
			endpoints = append(endpoints, []string{mark(false), text})
		}
		section("endpoints", endpoints...)
	}
	section("announced", about(r.Announced)...)
	l.table("  ", rows)
	l.add()
	switch unseen := "you may not list " + strings.Join(r.Unseen, ", "); {
	case r.Next != "":
		l.add(s.warn.Render("Next: " + r.Next))
		for _, text := range r.Unread {
			if text != r.Next {
				l.add(s.bad.Render("✗ "), text)
			}
		}
		if len(r.Unseen) > 0 {
			l.add("Not everything can be seen: ", unseen, ".")
		}
	case len(r.Unseen) > 0:
		l.add(s.warn.Render("Nothing has to be done in Herald, as far as can be seen: " + unseen + "."))
	default:
		l.add(s.good.Render("Nothing has to be done in Herald: it announces the Service."))
	}
	if r.Check != "" {
		l.add(r.Check)
	}
	return l.String()
}

func (r *endpointsReport) text() string {
	text := fmt.Sprintf("%d ready", r.Ready)
	if r.IPv6 > 0 {
		text += fmt.Sprintf(" (%d with IPv4, %d with IPv6)", r.IPv4, r.IPv6)
	}
	if len(r.Nodes) > 0 {
		text += ", on " + some(r.Nodes)
	}
	if r.Local {
		text += "; only their nodes announce (externalTrafficPolicy: Local)"
	}
	return text
}
