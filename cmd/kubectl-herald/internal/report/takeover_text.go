package report

// takeoverMarks are the marks of the states.
var takeoverMarks = map[StepState]string{StepDone: "✓", StepNext: "→", StepLater: "·"}

// Text returns the plan for people.
func (p *TakeoverPlan) Text(s Style) string {
	var l lines
	for _, text := range p.Unread {
		l.add(s.bad.Render("✗ "), Clean(text))
	}
	for _, text := range p.Obstacles {
		l.add(s.bad.Render("✗ "), Clean(text))
	}
	if len(p.Steps) == 0 {
		l.add("There is no Deployment or DaemonSet of MetalLB, no node with the label herald.dev/moved, and no BGPPeer whose nodeSelector has it: there is nothing to take over.")
		return l.String()
	}
	width := 0
	for i := range p.Steps {
		width = max(width, len(p.Steps[i].Name))
	}
	for i := range p.Steps {
		step := &p.Steps[i]
		style := map[StepState]interface{ Render(...string) string }{StepDone: s.good, StepNext: s.bold, StepLater: s.faint}[step.State]
		l.add(style.Render(takeoverMarks[step.State]), " ", pad(string(step.State), 5), "  ", pad(step.Name, width), "  ", Clean(step.Text))
		if step.Begun || step.State == StepNext && len(step.Do) == 0 { // The others wait for their changes.
			for _, w := range step.Waits {
				l.add("  waits: ", Clean(w))
			}
		}
	}
	l.add()
	l.add(p.Conclusion())
	return l.String()
}

// Conclusion says what to do next.
func (p *TakeoverPlan) Conclusion() string {
	next, last := p.Next(), p.Last()
	text := "Herald has taken over from MetalLB: there is nothing left to do."
	switch {
	case len(p.Unread) > 0:
		text = "Correct what cannot be read first."
	case len(p.Obstacles) > 0:
		text = "Remove what is marked with ✗ first."
	case next != nil && next.Name == stepUninstall:
		text = "Next: uninstall MetalLB. After that, kubectl herald takeover metallb --next goes on."
	case next != nil:
		text = "Next: " + next.Name + ", by kubectl herald takeover metallb --next."
	}
	if last != nil && !p.Uninstalled() {
		text += " Back: kubectl herald takeover metallb --back takes back " + last.Name + "."
	}
	return text
}

func pad(text string, width int) string {
	for len(text) < width {
		text += " "
	}
	return text
}
