package inspect

import (
	"bytes"
	"encoding/json"
	"fmt"
)

// UnmarshalJSON reads a Routing. The node that sent it may be compromised. A list that is longer than any speaker sends is
// therefore an error, before it takes memory.
func (r *Routing) UnmarshalJSON(text []byte) error {
	type fields Routing // without UnmarshalJSON
	read := struct {
		*fields
		Peers  json.RawMessage `json:"peers"`
		Routes json.RawMessage `json:"routes"`
		Held   json.RawMessage `json:"held"`
	}{fields: (*fields)(r)}
	err := json.Unmarshal(text, &read)
	if err == nil {
		r.Peers, err = readList[RoutingPeer](read.Peers, "peers", MaxRoutingPeers)
	}
	if err == nil {
		r.Routes, err = readList[RoutingRoute](read.Routes, "routes", MaxRoutes)
	}
	if err == nil {
		r.Held, err = readList[RoutingHeldBy](read.Held, "held", MaxHeld)
	}
	for name, n := range map[string]int{"more": r.More, "morePeers": r.MorePeers, "moreHeld": r.MoreHeld} {
		if err == nil && n < 0 {
			err = fmt.Errorf("%s: %d is less than none", name, n)
		}
	}
	return err
}

// UnmarshalJSON reads a Response, as that of Routing does.
func (r *Response) UnmarshalJSON(text []byte) error {
	type fields Response // without UnmarshalJSON
	read := struct {
		*fields
		Answers json.RawMessage `json:"answers"`
	}{fields: (*fields)(r)}
	err := json.Unmarshal(text, &read)
	if err == nil {
		r.Answers, err = readList[Answer](read.Answers, "answers", maxAnswers)
	}
	return err
}

// maxAnswers is the most answers to one request: each address on every interface.
const maxAnswers = MaxQuestions * 64

// readList reads a list of at most the given number of elements.
func readList[T any](text json.RawMessage, name string, most int) (all []T, err error) {
	if len(text) == 0 || string(text) == "null" {
		return nil, nil
	}
	d := json.NewDecoder(bytes.NewReader(text))
	if begin, err := d.Token(); err != nil || begin != json.Delim('[') {
		return nil, fmt.Errorf("%s: it is not a list", name)
	}
	for d.More() {
		if len(all) == most {
			return nil, fmt.Errorf("%s: there are more than %d: update kubectl-herald, or see whether the node is to be trusted", name, most)
		}
		var one T
		if err := d.Decode(&one); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		all = append(all, one)
	}
	return all, nil
}
