package report

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	herald "github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/speaker/inspect"
)

// PeersReport is the output of bgp peers for programs.
type PeersReport struct {
	Problems []problem       `json:"problems"` // The gravest first. If empty, Unasked is empty and More is 0, the exit code is 0.
	Sessions []sessionReport `json:"sessions"` // By peer and node.
	Unasked  []Unasked       `json:"unasked"`
	More     int             `json:"more"` // How many more sessions the speakers have.

	details bool
}

// sessionReport is a BGPPeer on one node.
type sessionReport struct {
	Node string `json:"node"`
	inspect.RoutingPeer
	Routes int `json:"routes"` // sent, of both families
	// Told is true if the speaker itself responded. Otherwise the report is from its SpeakerStatus, which
	// has less detail.
	Told bool `json:"told"`
	// At is the time of the report, by the clock of its author.
	At string `json:"at"`
}

// The kinds of problems of sessions.
const (
	routesWithheld problemKind = "RoutesWithheld" // Routes cannot be sent to a router.
	notSent        problemKind = "NotSent"        // An address must be announced, and is not.
	routesDiffer   problemKind = "RoutesDiffer"   // Nodes announce routes differently that must be equal.
)

// Peers reports on the sessions of the named peers, or of all. It needs Nodes and Speakers.
func Peers(o *Objects, asked *Asked, names []string, now time.Time) (*PeersReport, error) {
	o.sort()
	r := &PeersReport{Problems: o.unreadable(), Sessions: []sessionReport{}, Unasked: []Unasked{}, details: len(names) > 0}
	known := map[string]bool{}
	add := func(x sessionReport) {
		known[x.Peer] = true
		if among(names, x.Peer) {
			r.Sessions = append(r.Sessions, x)
		}
	}
	for _, a := range asked.answers() {
		r.More += a.MorePeers
		for _, p := range a.Peers {
			add(sessionReport{a.Node, p, p.IPv4.Sent + p.IPv6.Sent, true, a.At})
		}
	}
	for _, u := range asked.Unasked {
		r.Unasked = append(r.Unasked, u)
		if st := statusOf(o, u.Node); st != nil {
			for _, x := range st.Status.Sessions {
				add(sessionReport{u.Node, reportedPeer(&x), int(x.Routes), false, now.UTC().Format(time.RFC3339)})
			}
		}
	}
	for _, name := range names {
		if !known[name] {
			return nil, fmt.Errorf("no node that was asked has a BGPPeer %q: kubectl get bgppeers.herald.dev lists them, and spec.nodeSelector says which nodes have it", name)
		}
	}
	slices.SortFunc(r.Sessions, func(x, y sessionReport) int { return cmp.Or(cmp.Compare(x.Peer, y.Peer), cmp.Compare(x.Node, y.Node)) })
	g := grouped{add: func(kind problemKind, address string, nodes []string, format string, args ...any) {
		r.Problems = append(r.Problems, problem{kind, address, nodes, fmt.Sprintf(format, args...)})
	}}
	for i := range r.Sessions {
		r.Sessions[i].problems(&g)
	}
	g.done()
	ordered(r.Problems)
	return r, nil
}

// reportedPeer converts a session in a SpeakerStatus.
func reportedPeer(x *herald.SpeakerSession) inspect.RoutingPeer {
	p := inspect.RoutingPeer{Peer: x.Peer, State: x.State, Since: x.Since, Router: inspect.RoutingEnd{Address: x.Address}}
	switch {
	case x.State != established:
		p.Reason = x.Reason
	case len(x.Withheld) > 0:
		p.WithheldReason = whyWithheld(x.Reason)
	}
	if x.BFD != "" {
		p.BFD = &inspect.RoutingBFD{State: x.BFD, Reason: x.BFDReason}
	}
	return p
}

// problems reports what is wrong with a session.
func (x *sessionReport) problems(g *grouped) {
	report := func(kind problemKind, what, format string, args ...any) {
		g.report(kind, x.Peer+"\n"+what, x.Node, func(nodes []string) (string, []string) {
			return fmt.Sprintf("%s on %s: ", x.Peer, some(nodes)) + fmt.Sprintf(format, args...), nodes
		})
	}
	switch {
	case unusable(x.State):
		report(sessionDown, x.Reason, "there is no session: %s", x.Reason)
	case x.State != established:
		why := cmp.Or(x.Reason, "no attempt has failed yet")
		report(sessionDown, why, "the session is down: %s", why)
	}
	if b := x.BFD; b != nil && b.State != bfdUp {
		report(bfdDown, b.Reason, "BFD is %s: %s", b.State, cmp.Or(b.Reason, "its SpeakerStatus does not say why"))
	}
	if x.WithheldReason != "" {
		what := "routes are"
		if n := x.IPv4.Withheld + x.IPv6.Withheld; n > 0 {
			what = count(n, "route is", "routes are")
		}
		report(routesWithheld, x.WithheldReason, "%s withheld: %s", what, x.WithheldReason)
	}
}

// flaps returns how many times the session has left Established.
func (x *sessionReport) flaps() (n uint64) {
	for _, of := range x.Flaps {
		n += of
	}
	return n
}

// Text writes the report for people.
func (r *PeersReport) Text(s Style) string {
	var l lines
	told(&l, s, r.Problems, r.Unasked)
	if r.More > 0 {
		l.add(s.warn.Render("! "), fmt.Sprintf("There are %d more sessions, of which nothing is said here: name their BGPPeers", r.More))
	}
	if len(r.Sessions) == 0 {
		l.add("There are no BGP sessions: no BGPPeer selects a node that was asked.")
		return l.String()
	}
	if len(r.Problems)+len(r.Unasked)+r.More == 0 {
		l.add(s.good.Render("All sessions are established, and all routes are sent."))
	}
	l.add()
	if r.details {
		for i := range r.Sessions {
			if i > 0 {
				l.add()
			}
			r.Sessions[i].text(&l, s)
		}
		return l.String()
	}
	footnote := ""
	rows := [][]string{titles(s, "PEER", "NODE", "ROUTER", "AS", "STATE", "FOR", "BFD", "SENT", "WITHHELD", "FLAPS")}
	for i := range r.Sessions {
		x := &r.Sessions[i]
		row := []string{x.Peer, x.Node, orDash(x.Router.Address), orDash(asn(x.Router.ASN)), x.state(s), orDash(span(x.Since, x.At)), x.bfd(s), strconv.Itoa(x.Routes), "?", "?"}
		if x.Told {
			row[8] = strconv.Itoa(x.IPv4.Withheld + x.IPv6.Withheld)
			row[9] = strconv.FormatUint(x.flaps(), 10)
		} else {
			row[1] += s.warn.Render(" *")
			footnote = "* as its SpeakerStatus has it, which may be out of date"
		}
		rows = append(rows, row)
	}
	l.table("", rows)
	if footnote != "" {
		l.add(s.warn.Render(footnote))
	}
	return l.String()
}

func (x *sessionReport) state(s Style) string {
	if x.State == established {
		return s.good.Render(x.State)
	}
	return s.bad.Render(x.State)
}

func (x *sessionReport) bfd(s Style) string {
	switch {
	case x.BFD == nil:
		return "-"
	case x.BFD.State == bfdUp:
		return s.good.Render("Up")
	}
	return s.bad.Render(x.BFD.State)
}

// text writes everything that is known about a session.
func (x *sessionReport) text(l *lines, s Style) {
	l.add(s.bold.Render(x.Peer + " on " + x.Node))
	var rows [][]string
	add := func(title string, parts ...string) {
		if text := strings.Join(slices.DeleteFunc(parts, func(p string) bool { return p == "" }), ", "); text != "" {
			rows = append(rows, []string{s.faint.Render(title), text})
		}
	}
	both := func(title string, local, router string) {
		if local != "" || router != "" {
			add(title, orDash(local)+" here", orDash(router)+" at the router")
		}
	}
	add("session", x.state(s)+x.sinceAndWhy(x.Since, x.Reason))
	if !x.Told {
		add("", s.warn.Render("as its SpeakerStatus has it, which may be out of date"))
	}
	if e := x.LastError; e != nil && e.Text != x.Reason {
		by := ""
		if e.By != "" {
			by = " (by the " + e.By + ")"
		}
		add("last error", span(e.At, x.At)+" ago"+by+": "+e.Text)
	}
	if len(x.Flaps) > 0 {
		var causes []string
		for _, cause := range slices.Sorted(maps.Keys(x.Flaps)) {
			causes = append(causes, fmt.Sprintf("%d by %s", x.Flaps[cause], strings.ReplaceAll(cause, "_", " ")))
		}
		add("flaps", strings.Join(causes, ", "))
	}
	both("address", withPort(x.Local), withPort(x.Router))
	both("AS", asn(x.Local.ASN), asn(x.Router.ASN))
	both("router ID", x.Local.RouterID, x.Router.RouterID)
	if x.HoldTime != "" {
		add("timers", "hold time "+x.HoldTime, "keepalive time "+x.KeepaliveTime)
	}
	x.capabilities("families", x.Local.Families, x.Router.Families, add)
	x.capabilities("capabilities", x.Local.Capabilities, x.Router.Capabilities, add)
	if x.Told && !unusable(x.State) {
		add("IPv4 routes", fmt.Sprintf("%d sent", x.IPv4.Sent), withheld(x.IPv4.Withheld))
		add("IPv6 routes", fmt.Sprintf("%d sent", x.IPv6.Sent), withheld(x.IPv6.Withheld))
		add("", x.WithheldReason)
		add("UPDATEs", fmt.Sprintf("%d sent", x.UpdatesSent), fmt.Sprintf("%d received", x.UpdatesReceived))
	}
	if b := x.BFD; b != nil {
		add("BFD", x.bfd(s)+x.sinceAndWhy(b.Since, b.Reason))
		if quiet := "No Diagnostic"; b.Diagnostic != "" && (b.Diagnostic != quiet || b.RouterDiagnostic != quiet) {
			add("", "diagnostic here "+strconv.Quote(b.Diagnostic), "at the router "+strconv.Quote(b.RouterDiagnostic))
		}
		if b.DetectionTime != "" {
			add("", "detection time "+b.DetectionTime+" here", b.RouterDetectionTime+" at the router", "sends every "+b.TransmitInterval, "receives every "+b.ReceiveInterval)
		}
		if m := b.Measured; m != nil && b.State == bfdUp {
			add("", fmt.Sprintf("measured %s to %s between packets, %s on average of %d", m.Min, m.Max, m.Mean, m.Packets))
		}
		if x.Told {
			add("", "the path was found dead "+count(int(b.Failures), "time", "times"), fmt.Sprintf("%d packets sent", b.PacketsSent), fmt.Sprintf("%d received", b.PacketsReceived))
		}
	}
	l.table("  ", rows)
}

// sinceAndWhy returns the duration of a state, and its reason.
func (x *sessionReport) sinceAndWhy(since, reason string) (text string) {
	if of := span(since, x.At); of != "" {
		text = " for " + of
	}
	if reason != "" {
		text += ": " + reason
	}
	return text
}

// capabilities lists the capabilities of both ends, and then those of only one of them.
func (x *sessionReport) capabilities(title string, local, router []string, add func(string, ...string)) {
	var both, here, there []string
	for _, c := range local {
		if slices.Contains(router, c) {
			both = append(both, c)
		} else {
			here = append(here, c)
		}
	}
	for _, c := range router {
		if !slices.Contains(local, c) {
			there = append(there, c)
		}
	}
	for _, part := range []struct {
		who  string
		list []string
	}{{"both: ", both}, {"here: ", here}, {"at the router: ", there}} {
		if len(part.list) > 0 {
			add(title, part.who+strings.Join(part.list, "; "))
			title = ""
		}
	}
}

func withPort(e inspect.RoutingEnd) string {
	switch {
	case e.Port == 0:
		return e.Address
	case e.Address == "":
		return "port " + strconv.Itoa(int(e.Port))
	}
	return e.Address + " port " + strconv.Itoa(int(e.Port))
}

func asn(n uint32) string {
	if n == 0 {
		return ""
	}
	return strconv.FormatUint(uint64(n), 10)
}

func withheld(n int) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprintf("%d withheld", n)
}
