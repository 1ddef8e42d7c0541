package report

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/charmbracelet/lipgloss"
	corev1 "k8s.io/api/core/v1"

	herald "github.com/heraldlb/herald/api/v1alpha1"
)

// maxTold is the most problems of one kind in the text for people.
const maxTold = 10

// Text writes the report for people. If list is true, it includes a list of all addresses.
func (r *StatusReport) Text(s Style, list bool, now time.Time) string {
	var l lines
	switch unseen := "you may not list " + strings.Join(r.Unseen, ", "); {
	case len(r.Problems) == 0 && len(r.Unseen) > 0:
		l.add(s.warn.Render("Nothing needs attention, as far as can be seen: " + unseen + "."))
	case len(r.Problems) == 0:
		l.add(s.good.Render("Nothing needs attention."))
	case len(r.Unseen) > 0:
		l.add(s.warn.Render("! "), "Not everything can be seen: ", unseen, ".")
	}
	told(&l, s, r.Problems, nil)
	l.add()
	r.nodes(&l, s, now)
	l.add()
	l.add(r.summary())
	if r.noPool {
		l.add(noPools)
	}
	if list {
		r.addresses(&l, s, now)
	}
	return l.String()
}

func (r *StatusReport) nodes(l *lines, s Style, now time.Time) {
	if len(r.Nodes) == 0 {
		l.add("There are no nodes.")
		return
	}
	var excluded []string
	rows := [][]string{titles(s, "NODE", "INTERFACE", "STATE", "NEIGHBOURS", "ADDRESSES", "SESSIONS")}
	for _, n := range r.Nodes {
		name := n.Node
		if n.Excluded {
			excluded = append(excluded, n.Node)
			name += s.faint.Render(" (excluded)")
		}
		if !n.Ready {
			name += s.bad.Render(" (not Ready)")
		}
		if n.Stale != "" {
			rows = append(rows, []string{name, "-", s.bad.Render(n.silence(now)), "-", "-", "-"})
			continue
		}
		if len(n.Interfaces) == 0 {
			state := "-"
			switch {
			case n.os != "":
				state = "no speaker on " + quoted(n.os)
			case !n.Speaker:
				state = s.bad.Render("no SpeakerStatus")
			}
			rows = append(rows, []string{name, "-", state, "-", strconv.Itoa(n.L2Addresses), n.sessions()})
			continue
		}
		listed := 0
		for _, i := range n.Interfaces {
			listed += i.Addresses
		}
		sessions := n.sessions()
		for k, i := range n.Interfaces {
			look := s.warn
			switch i.State {
			case herald.SegmentMember, herald.SegmentAlone:
				look = s.good
			case herald.SegmentDegraded:
				look = s.bad
			}
			owned := strconv.Itoa(i.Addresses)
			switch {
			case listed >= n.L2Addresses:
			case len(n.Interfaces) == 1:
				owned = strconv.Itoa(n.L2Addresses)
			case k == 0: // It owns more than it lists, so the interfaces of the others are not known.
				owned = strconv.Itoa(n.L2Addresses) + " on all"
			default:
				owned = ""
			}
			state := orDash(i.State)
			if i.Unheard {
				state, look, owned = timed("not heard", " for %s", i.UnheardSince, now), s.bad, "-"
			} else if n.SilentSince != "" { // Other speakers hear it, and it does not reach the API server.
				state, look = timed(state, ", reported %s ago", n.SilentSince, now), s.warn
			}
			rows = append(rows, []string{name, i.Name, look.Render(state), strconv.Itoa(i.Neighbours), owned, sessions})
			name, sessions = "", ""
		}
	}
	l.table("", rows)
	if len(excluded) > 0 {
		l.add()
		l.add("Excluded by the label ", corev1.LabelNodeExcludeBalancers, ", so that nothing is announced from there: ", some(excluded), ".")
	}
}

// silence says since when the report of a node has been out of date.
func (r *nodeReport) silence(now time.Time) string {
	switch r.sign {
	case signDeath:
		return timed("dead", " for %s", r.SilentSince, now)
	case signEnd:
		return timed("ended", " %s ago", r.SilentSince, now)
	}
	return timed("silent", " for %s", r.SilentSince, now)
}

// timed adds the age of a time to a text, if the time can be parsed.
func timed(text, format, since string, now time.Time) string {
	if at, err := time.Parse(time.RFC3339, since); err == nil {
		text += fmt.Sprintf(format, age(at, now))
	}
	return text
}

// sessions counts the established sessions, and those whose BFD is up.
func (r *nodeReport) sessions() string {
	if r.BFD == "" {
		return orDash(r.Sessions)
	}
	return r.Sessions + ", BFD " + r.BFD
}

func titles(s Style, all ...string) (row []string) {
	for _, t := range all {
		row = append(row, s.faint.Render(t))
	}
	return row
}

func orDash(text string) string {
	if text == "" {
		return "-"
	}
	return text
}

// summary counts the addresses.
func (r *StatusReport) summary() string {
	if len(r.Addresses) == 0 {
		return "No address is announced on a segment."
	}
	counts := map[addressState]int{}
	for _, a := range r.Addresses {
		counts[a.State]++
	}
	parts := []string{count(len(r.Addresses), "address", "addresses") + " on segments: " + strconv.Itoa(counts[stateOwned]) + " owned"}
	for _, x := range []struct {
		state addressState
		text  string
	}{
		{stateDeputy, "answered for by another node"}, {stateNone, "without an owner"}, {stateNew, "too new to be reported"}, {stateNoEndpoint, "without a ready endpoint"},
		{stateUnknown, "not known, as SpeakerStatuses list 500 each at most"},
	} {
		if n := counts[x.state]; n > 0 {
			parts = append(parts, strconv.Itoa(n)+" "+x.text)
		}
	}
	return strings.Join(parts, ", ") + "."
}

func (r *StatusReport) addresses(l *lines, s Style, now time.Time) {
	if len(r.Addresses) == 0 {
		return
	}
	rows := [][]string{titles(s, "ADDRESS", "SERVICE", "INTERFACE", "OWNER", "FOR", "WHY")}
	for _, a := range r.Addresses {
		service := "-"
		if len(a.Services) > 0 {
			service = a.Services[0]
		}
		if n := len(a.Services); n > 1 {
			service += fmt.Sprintf(" and %d more", n-1)
		}
		address := a.Address
		if len(a.Owners) == 0 {
			state := map[addressState]lipgloss.Style{stateNone: s.bad}[a.State]
			rows = append(rows, []string{address, service, "-", state.Render(map[addressState]string{
				stateNone: "nobody", stateNew: "not reported yet", stateNoEndpoint: "nobody: no ready endpoint", stateUnknown: "not known",
			}[a.State]), "", ""})
		}
		for _, o := range a.Owners {
			who := o.Node
			if o.DeputyFor != "" {
				who += s.warn.Render(" for " + o.DeputyFor)
			}
			since := "-"
			if at, err := time.Parse(time.RFC3339, o.Since); err == nil {
				since = age(at, now)
			}
			rows = append(rows, []string{address, service, o.Interface, who, since, o.Reason})
			address, service = "", ""
		}
	}
	l.add()
	l.table("", rows)
}
