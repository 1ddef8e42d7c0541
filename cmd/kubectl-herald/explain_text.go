package main

import (
	"fmt"
	"strings"
)

func (r *serviceReport) text(s style) string {
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
	var asks, verdicts [][]string
	for _, a := range r.Asks {
		asks = append(asks, []string{"", a})
	}
	for _, v := range r.Pools {
		verdicts = append(verdicts, []string{mark(v.Fits), v.Pool + " " + v.Family + ": " + v.Text})
	}
	about := func(facts []fact) (lines [][]string) {
		for _, f := range facts {
			lines = append(lines, []string{mark(!f.Wrong), f.Address + " " + f.Text})
		}
		return lines
	}
	section("asks for", asks...)
	section("pools", verdicts...)
	section("has", about(r.Addresses)...)
	if r.Endpoints != nil {
		section("endpoints", []string{"", r.Endpoints.text()})
	}
	section("announced", about(r.Announced)...)
	l.table("  ", rows)
	l.add()
	next, look := "Nothing is to be done.", s.good
	if r.Next != "" {
		next, look = "Next: "+r.Next, s.warn
	}
	l.add(look.Render(next))
	return l.String()
}

func (r *endpointsReport) text() string {
	text := fmt.Sprintf("%d ready", r.Ready)
	if len(r.Nodes) > 0 {
		text += ", on " + strings.Join(r.Nodes, ", ")
	}
	if r.Local {
		text += "; only their nodes announce (externalTrafficPolicy: Local)"
	}
	return text
}
