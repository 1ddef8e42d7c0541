package speaker

import (
	"testing"
	"time"

	"pgregory.net/rapid"

	herald "github.com/heraldlb/herald/api/v1alpha1"
)

// sayer is a speaker as far as one address goes: what it has seen, decided and written.
type sayer struct {
	name  string
	ready [][]string // by Service that shares the address, where it believes that there are ready endpoints
	seen  int        // how many writes it has seen
	wrote int        // its own last, counted from 1; 0: none

	since time.Time // when it began to answer; zero: it does not
	asks  bool
}

// written is a line of the API server's log: what a node says from then on.
type written struct {
	node   string
	claims bool
	Claim
}

// segmentOf are speakers that hear of each other through one log, each as late as it likes.
type segmentOf struct {
	shared *Shared
	now    time.Time
	log    []written
	all    []*sayer
}

// said is what one speaker has seen another say last, within the first writes.
func (s *segmentOf) said(node string, writes int) (Claim, bool) {
	for i := writes - 1; i >= 0; i-- {
		if s.log[i].node == node {
			return s.log[i].Claim, s.log[i].claims
		}
	}
	return Claim{}, false
}

func (s *segmentOf) decide(o *sayer) {
	address := Address{Addr: vip, Pool: "public"}
	for _, other := range s.all {
		c, claims := s.said(other.name, o.seen)
		if other == o {
			// Its own it knows; what it only wrote counts once it has read it.
			c, claims = Claim{Node: o.name, Since: o.since}, true
			if o.since.IsZero() && o.seen < o.wrote {
				claims = false
			} else if o.since.IsZero() {
				c, claims = s.said(o.name, o.seen)
			}
		}
		if claims {
			address.Claims = append(address.Claims, c)
		}
	}
	for _, ready := range o.ready {
		address.Services = append(address.Services, &Service{Name: web, Local: true, Ready: ready})
	}
	d := Decide(on(o.name, s.shared), &address)
	own, _ := address.claim(o.name)
	o.asks = d.Ask
	switch {
	case len(d.Interfaces) == 0:
		o.since = time.Time{}
	case own.Since.IsZero():
		o.since = s.now
		if !o.since.After(d.After) {
			o.since = d.After.Add(time.Microsecond)
		}
	default:
		o.since = own.Since
	}
}

// write says what the speaker decided, if it has not said so.
func (s *segmentOf) write(o *sayer) {
	w := written{node: o.name, claims: o.asks || !o.since.IsZero(), Claim: Claim{Node: o.name, Since: o.since}}
	if c, claims := s.said(o.name, len(s.log)); claims == w.claims && (!claims || c == w.Claim) {
		return
	}
	s.log = append(s.log, w)
	o.wrote = len(s.log)
}

// Speakers hear late, and each its own: of the Services that share the address, of their endpoints and of
// one another. Whatever happens in which order, no two answer for one address at the same time; and once all have heard everything, one does.
func TestNeverTwoAnswer(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		shared, _ := cluster()
		selector, err := (&herald.Selection{}).Compile()
		if err != nil {
			t.Fatal(err)
		}
		shared.L2 = []L2Advertisement{{Name: "all", Selector: selector}}
		s := &segmentOf{shared: shared, now: noon}
		nodes := []string{first, second, third}
		for _, name := range nodes {
			s.all = append(s.all, &sayer{name: name})
		}
		step := func(o *sayer, what string) {
			s.now = s.now.Add(time.Millisecond)
			switch what {
			case "hear":
				o.seen = min(o.seen+1, len(s.log))
			case "hear all":
				o.seen = len(s.log)
			case "decide":
				s.decide(o)
			case "write":
				s.write(o)
			}
			answering := 0
			for _, o := range s.all {
				if !o.since.IsZero() {
					answering++
				}
			}
			if answering > 1 {
				t.Fatalf("after %s of %s: %+v %+v %+v; log %+v", what, o.name, *s.all[0], *s.all[1], *s.all[2], s.log)
			}
		}
		for range rapid.IntRange(0, 80).Draw(t, "steps") {
			o := rapid.SampledFrom(s.all).Draw(t, "node")
			what := rapid.SampledFrom([]string{"hear", "hear all", "decide", "decide", "write", "write", "endpoints"}).Draw(t, "what")
			if what == "endpoints" {
				o.ready = nil
				for range rapid.IntRange(1, 2).Draw(t, "Services") {
					o.ready = append(o.ready, drawSome(t, nodes, "ready"))
				}
			}
			step(o, what)
		}
		for range 6 {
			for _, o := range s.all {
				o.ready = [][]string{nodes, nodes}
				for _, what := range []string{"hear all", "decide", "write"} {
					step(o, what)
				}
			}
		}
		answering := 0
		for _, o := range s.all {
			if !o.since.IsZero() {
				answering++
			}
		}
		if answering != 1 {
			t.Fatalf("%d answer at the end; log %+v", answering, s.log)
		}
	})
}
