package main

func (e *explanation) text(s style) string {
	var l lines
	l.add(s.bold.Render(e.service), " ", e.class)
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
	for _, a := range e.asks {
		asks = append(asks, []string{"", a})
	}
	for _, v := range e.verdicts {
		verdicts = append(verdicts, []string{mark(v.Fits), v.Pool + " " + v.Family.String() + ": " + v.Text})
	}
	about := func(facts []fact) (lines [][]string) {
		for _, f := range facts {
			lines = append(lines, []string{mark(!f.wrong), f.address + " " + f.text})
		}
		return lines
	}
	section("asks for", asks...)
	section("pools", verdicts...)
	section("has", about(e.has)...)
	if e.ready != "" {
		section("endpoints", []string{"", e.ready})
	}
	section("announced", about(e.announce)...)
	l.table("  ", rows)
	l.add()
	next, look := "Nothing is to be done.", s.good
	if e.next != "" {
		next, look = "Next: "+e.next, s.warn
	}
	l.add(look.Render(next))
	return l.String()
}
