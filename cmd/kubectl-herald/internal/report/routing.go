package report

import (
	"cmp"
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"time"

	herald "github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/speaker/inspect"
)

// Asked has the speakers' responses about their sessions and routes.
type Asked struct {
	Answers map[string]*inspect.Routing // by node
	// Unasked are the nodes whose speaker could not be asked.
	Unasked []Unasked
}

// answers returns the responses, sorted by node and without control characters.
func (a *Asked) answers() (all []*inspect.Routing) {
	for node, r := range a.Answers {
		cleanAll(r)
		r.Node = node // The node's key has proved which node it is.
		all = append(all, r)
	}
	slices.SortFunc(all, func(x, y *inspect.Routing) int { return strings.Compare(x.Node, y.Node) })
	slices.SortStableFunc(a.Unasked, func(x, y Unasked) int { return strings.Compare(x.Node, y.Node) })
	return all
}

// withholds reports whether the family of an address is among those whose routes are withheld.
func withholds(withheld []herald.IPFamily, address netip.Addr) bool {
	family := herald.IPv6
	if address.Is4() {
		family = herald.IPv4
	}
	return slices.Contains(withheld, family)
}

// whyWithheld returns the reason for withheld routes. A SpeakerStatus that would get too large has no reasons.
func whyWithheld(reason string) string { return cmp.Or(reason, "its SpeakerStatus does not say why") }

// families joins the names of families.
func families(all []herald.IPFamily) string {
	var names []string
	for _, f := range all {
		names = append(names, string(f))
	}
	return strings.Join(names, " and ")
}

// maxText is the most bytes of a node's text that a report repeats.
const maxText = 1024

// cleanAll applies Clean to every string that can be reached from the pointer x, and cuts strings that are too long. A
// node that was broken into may have written anything.
func cleanAll(x any) { cleanValue(reflect.ValueOf(x)) }

func cleanValue(v reflect.Value) {
	switch v.Kind() {
	case reflect.String:
		v.SetString(cleanText(v.String()))
	case reflect.Pointer:
		if !v.IsNil() {
			cleanValue(v.Elem())
		}
	case reflect.Struct:
		for _, field := range v.Fields() {
			cleanValue(field)
		}
	case reflect.Slice:
		for i := range v.Len() {
			cleanValue(v.Index(i))
		}
	case reflect.Map: // Its keys are names and its values numbers.
		for _, key := range v.MapKeys() {
			value := v.MapIndex(key)
			v.SetMapIndex(key, reflect.Value{})
			v.SetMapIndex(reflect.ValueOf(cleanText(key.String())).Convert(key.Type()), value)
		}
	}
}

func cleanText(text string) string {
	if len(text) > maxText {
		text = text[:maxText] + "…"
	}
	return Clean(text)
}

// The good states of a session, and of its BFD.
const (
	established = "Established"
	bfdUp       = "Up"
)

// unusable reports whether a node has no session with a BGPPeer in this state.
func unusable(state string) bool { return state == "Invalid" || state == inspect.RoutingUnresolved }

// ordered sorts problems, the gravest first.
func ordered(problems []problem) {
	slices.SortStableFunc(problems, func(x, y problem) int {
		return cmp.Compare(slices.Index(gravity, x.Kind), slices.Index(gravity, y.Kind))
	})
}

// told writes problems for people, and the speakers that could not be asked.
func told(l *lines, s Style, problems []problem, unasked []Unasked) {
	marked(l, s.bad.Render("✗ "), problems)
	by, order := map[string][]string{}, []string{}
	for _, u := range unasked {
		if by[u.Reason] == nil {
			order = append(order, u.Reason)
		}
		by[u.Reason] = append(by[u.Reason], u.Node)
	}
	for _, reason := range order {
		l.add(s.bad.Render("✗ "), subject(by[reason], "could not be asked: ", "could not be asked: ")+reason)
	}
}

// marked writes problems after a mark. It groups problems of one kind.
func marked(l *lines, mark string, problems []problem) {
	counts := map[problemKind]int{}
	for i, p := range problems {
		if counts[p.Kind]++; counts[p.Kind] <= maxTold {
			l.add(mark, p.Text)
		}
		last := i+1 == len(problems) || problems[i+1].Kind != p.Kind
		if rest := counts[p.Kind] - maxTold; last && rest > 0 {
			l.add(mark, fmt.Sprintf("and %d more of this kind (%s): -o json lists all", rest, p.Kind))
		}
	}
}

// span returns the time between two times of the same clock; empty if one of them is invalid.
func span(since, now string) string {
	from, err := time.Parse(time.RFC3339, since)
	if err != nil {
		return ""
	}
	to, err := time.Parse(time.RFC3339, now)
	if err != nil {
		return ""
	}
	return age(from, to)
}

// statusOf returns the SpeakerStatus of a node, or nil.
func statusOf(o *Objects, node string) *herald.SpeakerStatus {
	i := slices.IndexFunc(o.Speakers, func(s *herald.SpeakerStatus) bool { return s.Name == node })
	if i < 0 {
		return nil
	}
	return o.Speakers[i]
}

// among reports whether a name is wanted. An empty list means that all are.
func among(names []string, name string) bool { return len(names) == 0 || slices.Contains(names, name) }
