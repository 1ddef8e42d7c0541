package report

import (
	"cmp"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"

	herald "github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/speaker/inspect"
)

// Asked is what the speakers have told of their sessions and routes.
type Asked struct {
	Answers map[string]*inspect.Routing // by node
	// Unasked are the nodes whose speaker could not be asked.
	Unasked []Unasked
}

// answers are the nodes that have answered, in order, with control characters taken out of what they have written.
func (a *Asked) answers() (all []*inspect.Routing) {
	for node, r := range a.Answers {
		cleanAll(r)
		r.Node = node // Its key has shown which it is.
		all = append(all, r)
	}
	slices.SortFunc(all, func(x, y *inspect.Routing) int { return strings.Compare(x.Node, y.Node) })
	slices.SortStableFunc(a.Unasked, func(x, y Unasked) int { return strings.Compare(x.Node, y.Node) })
	return all
}

// maxText is how many bytes of a text of a node are told.
const maxText = 1024

// cleanAll applies Clean to every string that x, a pointer to what a node has written, leads to, and cuts those that are
// too long. A node that is broken into writes what it likes.
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
	case reflect.Map: // Of a number by a name.
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

// States of a session, and of BFD beside it, that are as they should be.
const (
	established = "Established"
	bfdUp       = "Up"
)

// unusable are the states of a BGPPeer with which there is no session on a node.
func unusable(state string) bool { return state == "Invalid" || state == "Unresolved" }

// ordered puts the gravest problems first.
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

// marked writes problems after a mark. Those of one kind are together.
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

// span is how long ago a time was, both by one clock; empty if one of them cannot be read.
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

// statusOf is the SpeakerStatus of a node, or nil.
func statusOf(o *Objects, node string) *herald.SpeakerStatus {
	i := slices.IndexFunc(o.Speakers, func(s *herald.SpeakerStatus) bool { return s.Name == node })
	if i < 0 {
		return nil
	}
	return o.Speakers[i]
}

// among reports whether a name is wanted: no names want all.
func among(names []string, name string) bool { return len(names) == 0 || slices.Contains(names, name) }
