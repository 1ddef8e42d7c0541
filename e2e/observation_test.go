package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/heraldlb/herald/e2e/lab"
)

// observing says what an observation includes.
type observing struct {
	from *lab.Client // The observing client; f.client if nil.
	keep int         // Number of connections to keep open to both addresses together.
	open bool        // Open new connections continuously.
	by   string      // The host that answers first; any node if empty.
}

// observation records how a client on the segment sees the addresses during one part of a story.
type observation struct {
	f       *segmentField
	began   time.Time
	from    *lab.Client
	watch   *lab.Watch
	askers  []*lab.Asker
	openers []*lab.Opener
	holders []*lab.Holder
}

// observe starts an observation: the client sends requests for the addresses, and records which hosts answer.
func (f *segmentField) observe(o observing) *observation {
	f.t.Helper()
	v := &observation{f: f, began: time.Now(), from: o.from}
	if v.from == nil {
		v.from = f.client
	}
	var err error
	v.watch, err = v.from.Watch()
	f.must(err)
	for _, a := range f.addresses {
		asker, err := v.from.AskEvery(f.ctx, a, askEvery)
		f.must(err)
		v.askers = append(v.askers, asker)
	}
	if o.by != "" {
		v.settled(o.by)
	} else {
		v.settled(f.nodes...)
	}
	for _, a := range f.addresses {
		if o.keep > 0 {
			v.known(a)
			h, err := v.from.Patient().Hold(f.ctx, target(a), o.keep/len(f.addresses))
			f.must(err)
			v.holders = append(v.holders, h)
		}
		if o.open {
			v.openers = append(v.openers, v.from.Patient().Open(f.ctx, target(a), openEvery))
		}
	}
	return v
}

// settled waits until only one of the nodes has answered for each address for a while. It returns these nodes in the order
// of the addresses.
func (o *observation) settled(nodes ...string) (owners []string) {
	o.f.t.Helper()
	const while = 300 * time.Millisecond
	for _, a := range o.f.addresses {
		o.f.eventually(fmt.Sprintf("%s is answered by one of %v", a, nodes), func(context.Context) error {
			runs := o.watch.Answerers(a, time.Now().Add(-while))
			switch {
			case len(runs) == 0:
				return errors.New("nobody answers")
			case len(runs) > 1:
				return fmt.Errorf("several answer: %v", o.f.named(runs))
			case runs[0].Last.Sub(runs[0].First) < while/2:
				return errors.New("hardly anybody answers")
			}
			owner := o.f.named(runs)[0]
			if !slices.Contains(nodes, owner) {
				return fmt.Errorf("%s answers", owner)
			}
			owners = append(owners, owner)
			return nil
		})
	}
	return owners
}

// known waits until the client's kernel sends to the node that answers. Until the kernel has learned that an address has
// moved, it opens connections to the previous node.
func (o *observation) known(a netip.Addr) {
	o.f.t.Helper()
	o.f.eventually(fmt.Sprintf("the client sends to the node that answers for %s", a), func(context.Context) error {
		runs := o.watch.Answerers(a, o.began)
		if len(runs) == 0 {
			return errors.New("nobody answers")
		}
		mac, err := o.from.Neighbour(a)
		if answered := runs[len(runs)-1].MAC; err == nil && !bytes.Equal(mac, answered) {
			return fmt.Errorf("it sends to %v, and %v answers", mac, answered)
		} else if errors.Is(err, lab.ErrNoNeighbour) {
			return nil // The kernel will send a request.
		}
		return err
	})
}

// stays fails the part if another host than owner answers for one of the addresses within d.
func (o *observation) stays(d time.Duration, owner string) {
	o.f.t.Helper()
	since := time.Now()
	o.f.pass(d)
	for _, a := range o.f.addresses {
		if by := o.f.named(o.watch.Answerers(a, since)); !slices.Equal(by, []string{owner}) {
			o.f.t.Errorf("for %v %s was answered by %v, want %s alone", d, a, by, owner)
		}
	}
}

// named returns the nodes of runs of answers.
func (f *segmentField) named(runs []lab.Run) (nodes []string) {
	for _, r := range runs {
		name := r.MAC.String()
		if n := f.site.NodeByMAC(r.MAC); n != nil {
			name = n.Name
		}
		nodes = append(nodes, name)
	}
	return nodes
}

// seen has the observations in a part of a story.
type seen struct {
	f     *segmentField
	began time.Time
	runs  map[netip.Addr][]lab.Run
	opens map[netip.Addr]lab.Attempts
	holds map[netip.Addr]lab.HoldReport
	// deputised is the number of answers whose MAC is not that of their sender.
	deputised map[netip.Addr]int
}

// end ends the observation and returns its results.
func (o *observation) end() *seen {
	o.f.t.Helper()
	s := &seen{
		f: o.f, began: o.began, runs: map[netip.Addr][]lab.Run{}, opens: map[netip.Addr]lab.Attempts{},
		holds: map[netip.Addr]lab.HoldReport{}, deputised: map[netip.Addr]int{},
	}
	for i, opener := range o.openers {
		s.opens[o.f.addresses[i]] = opener.Stop()
	}
	for i, h := range o.holders {
		s.holds[o.f.addresses[i]] = h.Stop()
	}
	for _, a := range o.askers {
		o.f.must(a.Stop())
	}
	for _, a := range o.f.addresses {
		s.runs[a] = o.watch.Answerers(a, time.Time{})
		for _, c := range o.watch.Claims(a, time.Time{}) {
			if c.Kind == lab.Answer && c.MAC.String() != c.Source.String() {
				s.deputised[a]++
			}
		}
	}
	o.f.must(o.watch.Close())
	for a := range s.opens {
		o.f.t.Logf("%s: %v, answered by %s", a, s.opens[a], s.answerers(a))
	}
	return s
}

// answerers returns text about the nodes that answered for an address, and when in this part they did.
func (s *seen) answerers(a netip.Addr) string {
	var text []string
	for i, node := range s.f.named(s.runs[a]) {
		text = append(text, fmt.Sprintf("%s after %v", node, s.runs[a][i].First.Sub(s.began).Round(time.Millisecond)))
	}
	return strings.Join(text, ", ")
}

// stayed fails the part if any other node answered for an address.
func (s *seen) stayed(owner string) {
	s.f.t.Helper()
	for a, runs := range s.runs {
		if by := s.f.named(runs); !slices.Equal(by, []string{owner}) {
			s.f.t.Errorf("%s was answered by %v, want %s alone", a, by, owner)
		}
	}
}

// moved fails the part unless each address moved cleanly from this node to another one.
func (s *seen) moved(owner string) {
	s.f.t.Helper()
	for a, runs := range s.runs {
		if by := s.f.named(runs); len(by) != 2 || by[0] != owner {
			s.f.t.Errorf("%s was answered by %s, want %s and then one other", a, s.answerers(a), owner)
		}
	}
}

// failedOver fails the part unless each address moved cleanly from this node to another one, without two nodes that
// answered at the same time. It also fails if no connection could be opened for longer than the given time.
func (s *seen) failedOver(owner string, longest time.Duration) {
	s.f.t.Helper()
	s.moved(owner)
	s.neverTwo(0)
	s.gap(longest)
}

// before fails the part if an address moved after the given time.
func (s *seen) before(end time.Time) {
	s.f.t.Helper()
	for a, runs := range s.runs {
		if late := runs[len(runs)-1].First.Sub(end); late > 0 {
			s.f.t.Errorf("%s was answered by %s, the last of them %v too late", a, s.answerers(a), late)
		}
	}
}

// neverTwo fails the part if two nodes answered for one address for longer than the given time. If an address moves
// cleanly, this time is zero.
func (s *seen) neverTwo(longest time.Duration) {
	s.f.t.Helper()
	for a, runs := range s.runs {
		if d := disputed(runs); d > longest {
			s.f.t.Errorf("two nodes answered for %s for %v: %v", a, d, s.f.named(runs))
		}
	}
}

// disputed returns the longest time in which the MAC in the answers changed more than once, each time within the window
// twoAnswers.
func disputed(runs []lab.Run) (longest time.Duration) {
	for i := 1; i < len(runs); i++ {
		first := i
		for i+1 < len(runs) && runs[i+1].First.Sub(runs[i].First) <= twoAnswers {
			i++
		}
		longest = max(longest, runs[i].First.Sub(runs[first].First))
	}
	return longest
}

// unharmed fails the part if a connection could not be opened or an open one broke.
func (s *seen) unharmed() {
	s.f.t.Helper()
	for a, opens := range s.opens {
		if opens.Failed() > 0 || len(opens) == 0 {
			s.f.t.Errorf("%s: %v: %v\n%s", a, opens, opens.Errors(), s.f.losses(opens))
		}
	}
	for a, held := range s.holds {
		if held.Broken > 0 || held.Exchanges == 0 {
			s.f.t.Errorf("%s: %v: %v", a, held, held.Errors)
		}
	}
}

// gap fails the part if no connection could be opened for longer than the given time.
func (s *seen) gap(longest time.Duration) {
	s.f.t.Helper()
	for a, opens := range s.opens {
		if opens.Gap() > longest || len(opens) == 0 {
			s.f.t.Errorf("%s: %v, want a gap below %v:\n%s", a, opens, longest, strings.Join(opens.Errors(), "\n"))
		}
	}
}
