package report

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"
	"unicode"

	herald "github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/speaker/announce"
)

// place is an interface of a node.
type place struct {
	Node      string `json:"node"`
	Interface string `json:"interface"`
}

func (p place) String() string { return p.Interface + " of " + p.Node }

// owner is a claim: a node that answers for an address on one interface.
type owner struct {
	place
	// Since is when the node became the owner, or began to answer for another node, as the speaker wrote it.
	Since  string `json:"since,omitempty"`
	Reason string `json:"reason,omitempty"`
	// DeputyFor is the node that owns the address. Its speaker is silent, and this one answers for it.
	DeputyFor string `json:"deputyFor,omitempty"`
	// Stale says why the claim is out of date; empty if it is not.
	Stale string `json:"stale,omitempty"`
}

// age returns for how long the node has been the owner, in words; empty if the time is invalid.
func (o *owner) age(now time.Time) string {
	since, err := time.Parse(time.RFC3339, o.Since)
	if err != nil {
		return ""
	}
	return ", for " + age(since, now)
}

// why returns the reason in brackets.
func (o *owner) why() string {
	if o.Reason == "" {
		return ""
	}
	return " (" + o.Reason + ")"
}

// segments combines the SpeakerStatuses: which segments there are, and who owns which address on them.
type segments struct {
	speakers   []*herald.SpeakerStatus // By name.
	interfaces map[place]*herald.SpeakerInterface
	// segment maps each interface to the interface that represents its segment.
	segment map[place]place
	// stale says why the SpeakerStatus of a node is out of date.
	stale map[string]string
	dead  map[string]bool // According to the neighbours.
	// apart are pairs of interfaces whose nodes have witnessed each other's death while both are alive: the segment is
	// split.
	apart [][2]place
	// unheard are interfaces that no other speaker hears although there are others on the segment.
	unheard map[place]bool
	// deaf are pairs of interfaces of which the first does not hear the second, but the second hears the first.
	deaf   [][2]place
	owners map[string][]owner // By address, including deputies.
}

// segmentsOf evaluates the SpeakerStatuses. gone has, for each node whose SpeakerStatus is known to be out of date, the
// reason.
func segmentsOf(speakers []*herald.SpeakerStatus, gone map[string]string) *segments {
	s := &segments{
		speakers:   slices.SortedFunc(slices.Values(speakers), func(x, y *herald.SpeakerStatus) int { return strings.Compare(x.Name, y.Name) }),
		interfaces: map[place]*herald.SpeakerInterface{}, segment: map[place]place{}, stale: map[string]string{}, dead: map[string]bool{},
		unheard: map[place]bool{}, owners: map[string][]owner{},
	}
	for _, o := range s.speakers {
		for i := range o.Status.Interfaces {
			at := place{o.Name, o.Status.Interfaces[i].Name}
			s.interfaces[at], s.segment[at] = &o.Status.Interfaces[i], at
		}
	}
	for _, o := range s.speakers {
		if gone[o.Name] != "" {
			continue // The deaths that it witnessed are out of date.
		}
		for _, d := range o.Status.Deaths {
			if back := s.reverse(o.Name, d, gone); back != nil {
				s.apart = append(s.apart, [2]place{{o.Name, d.Interface}, {d.Node, back.Interface}})
				continue
			}
			s.dead[d.Node], s.stale[d.Node] = true, "it is dead, as "+o.Name+" has witnessed"
		}
	}
	maps.Copy(s.stale, gone)
	for node := range s.join() {
		// The speaker does not reach the API server, but the other speakers hear it: it continues with what it has.
		if !s.dead[node] {
			delete(s.stale, node)
		}
	}
	for _, o := range s.speakers {
		for _, c := range o.Status.Claims {
			at := place{o.Name, c.Interface}
			claim := owner{at, c.Since, c.Reason, c.DeputyFor, s.stale[o.Name]}
			if claim.Stale == "" && s.unheard[at] {
				claim.Stale = "no other speaker hears that of " + o.Name
			}
			s.owners[c.Address] = append(s.owners[c.Address], claim)
		}
	}
	for address, all := range s.owners {
		s.deputise(all)
		slices.SortFunc(all, func(x, y owner) int {
			return cmp.Or(cmp.Compare(x.Node, y.Node), cmp.Compare(x.Interface, y.Interface))
		})
		s.owners[address] = all
	}
	return s
}

// The witness reports that a node is dead. reverse returns the report of that node that the witness is dead; nil if there is
// none. A dead node witnesses nothing, so in this case the two merely do not hear each other. gone has the nodes whose
// SpeakerStatus is out of date.
func (s *segments) reverse(witness string, d herald.SpeakerDeath, gone map[string]string) *herald.SpeakerDeath {
	if gone[d.Node] != "" {
		return nil
	}
	for _, o := range s.speakers {
		if o.Name != d.Node {
			continue
		}
		for i := range o.Status.Deaths {
			if back := &o.Status.Deaths[i]; back.Node == witness {
				return back
			}
		}
	}
	return nil
}

// join finds the interfaces of each segment: those whose speakers hear each other, directly or through others. It returns
// the nodes that are heard, according to the speakers whose SpeakerStatus is up to date.
func (s *segments) join() (nodes map[string]bool) {
	nodes = map[string]bool{}
	heard, unheardBy := map[place]bool{}, map[place]bool{}
	for _, o := range s.speakers {
		if s.stale[o.Name] != "" {
			continue
		}
		for _, i := range o.Status.Interfaces {
			from := place{o.Name, i.Name}
			for _, node := range i.Hears {
				nodes[node] = true
				to, ok := s.counterpart(from, node)
				if !ok {
					continue
				}
				heard[to] = true
				s.unite(from, to)
				if s.stale[node] == "" && s.interfaces[to].State != herald.SegmentListening && surelyDeaf(s.interfaces[to], o.Name) {
					unheardBy[from] = true
					s.deaf = append(s.deaf, [2]place{to, from})
				}
			}
		}
	}
	for _, pair := range s.apart {
		if s.interfaces[pair[0]] != nil && s.interfaces[pair[1]] != nil {
			s.unite(pair[0], pair[1])
		}
	}
	for at := range unheardBy {
		s.unheard[at] = !heard[at]
	}
	// If nobody hears an interface, this is one problem, not one for each pair.
	s.deaf = slices.DeleteFunc(s.deaf, func(pair [2]place) bool { return s.unheard[pair[1]] })
	for at := range s.segment {
		s.segment[at] = s.root(at)
	}
	return nodes
}

// counterpart returns the interface of a node on the segment of another interface: it prefers those that hear the other
// node, among them those with a common subnet, and among these the one of the same name.
func (s *segments) counterpart(of place, node string) (place, bool) {
	i, found := slices.BinarySearchFunc(s.speakers, node, func(o *herald.SpeakerStatus, name string) int { return strings.Compare(o.Name, name) })
	if !found || node == of.Node {
		return place{}, false
	}
	all := s.speakers[i].Status.Interfaces
	matched := false
	for _, fits := range []func(*herald.SpeakerInterface) bool{
		func(i *herald.SpeakerInterface) bool { return slices.Contains(i.Hears, of.Node) },
		func(i *herald.SpeakerInterface) bool { return shareSubnet(i, s.interfaces[of]) },
		func(i *herald.SpeakerInterface) bool { return i.Name == of.Interface },
	} {
		var some []herald.SpeakerInterface
		for i := range all {
			if fits(&all[i]) {
				some = append(some, all[i])
			}
		}
		if len(some) > 0 {
			all, matched = some, true
		}
	}
	if !matched {
		return place{}, false
	}
	return place{node, all[0].Name}, true
}

// surelyDeaf reports whether an interface certainly does not hear a node. The list Hears is sorted, and may be cut.
func surelyDeaf(i *herald.SpeakerInterface, node string) bool {
	n := len(i.Hears)
	return !slices.Contains(i.Hears, node) && (int(i.Neighbours) <= n || n > 0 && node < i.Hears[n-1])
}

func shareSubnet(x, y *herald.SpeakerInterface) bool {
	for _, a := range subnets(x) {
		if slices.Contains(subnets(y), a) {
			return true
		}
	}
	return false
}

// subnets returns the subnets of an interface, without its host bits.
func subnets(i *herald.SpeakerInterface) (all []netip.Prefix) {
	for _, text := range i.Subnets {
		if p, err := netip.ParsePrefix(text); err == nil {
			all = append(all, p.Masked())
		}
	}
	return all
}

func (s *segments) root(at place) place {
	for s.segment[at] != at {
		at = s.segment[at]
	}
	return at
}

func (s *segments) unite(x, y place) {
	if x, y = s.root(x), s.root(y); x != y {
		s.segment[y] = x
	}
}

// same reports whether two interfaces are on one segment.
func (s *segments) same(x, y place) bool {
	segment, ok := s.segment[x]
	other, also := s.segment[y]
	return ok && also && segment == other
}

// deputise marks the claims of nodes for which a deputy answers.
func (s *segments) deputise(claims []owner) {
	for i := range claims {
		for _, d := range claims {
			if c := &claims[i]; c.Stale == "" && d.Stale == "" && d.DeputyFor == c.Node && s.same(d.place, c.place) {
				c.Stale = "its speaker is silent, and " + d.Node + " answers for it"
			}
		}
	}
}

// deputisedSince returns since when the first deputy has answered for an address of a node on the segment of this interface; empty
// if there is no deputy.
func (s *segments) deputisedSince(at place) (since string) {
	for _, claims := range s.owners {
		for _, d := range claims {
			if d.DeputyFor == at.Node && d.Stale == "" && s.same(d.place, at) && (since == "" || d.Since < since) {
				since = d.Since
			}
		}
	}
	return since
}

// current returns the owners of an address whose claims are up to date, including deputies.
func (s *segments) current(address string) (all []owner) {
	for _, o := range s.owners[address] {
		if o.Stale == "" {
			all = append(all, o)
		}
	}
	return all
}

// rivals returns the owners of an address on a segment with several owners; nil if there is no such segment.
func (s *segments) rivals(address string) []owner {
	owners := slices.DeleteFunc(s.current(address), func(o owner) bool { return o.DeputyFor != "" })
	for _, o := range owners {
		var here []owner
		for _, other := range owners {
			if other.place == o.place || other.Node != o.Node && s.same(other.place, o.place) {
				here = append(here, other)
			}
		}
		if len(here) > 1 {
			return here
		}
	}
	return nil
}

// cut lists the nodes that own more addresses than their SpeakerStatus lists.
func (s *segments) cut() (nodes []string) {
	for _, o := range s.speakers {
		if isCut(o) && s.stale[o.Name] == "" {
			nodes = append(nodes, o.Name)
		}
	}
	return nodes
}

// hides reports whether a node may own an address that is in no list: the lists are sorted by the text of the addresses,
// and only their ends are cut.
func (s *segments) hides(address string) bool {
	return slices.ContainsFunc(s.speakers, func(o *herald.SpeakerStatus) bool {
		all := o.Status.Claims
		return s.stale[o.Name] == "" && isCut(o) && (len(all) == 0 || address > all[len(all)-1].Address)
	})
}

func isCut(o *herald.SpeakerStatus) bool {
	owned := 0
	for _, c := range o.Status.Claims {
		if c.DeputyFor == "" {
			owned++
		}
	}
	return int(o.Status.L2Addresses) > owned
}

// conflict is the use of an address by a machine that is not a speaker.
type conflict struct {
	place
	mac string
	at  string
}

func (c *conflict) text(now time.Time) string {
	seen := ""
	if at, err := time.Parse(time.RFC3339, c.at); err == nil {
		seen = ", seen in the last " + age(at, now) // A speaker rounds the time down.
	}
	return fmt.Sprintf("a machine that is not a speaker uses it: %s on %s%s", c.mac, c.place, seen)
}

// conflicts returns the conflicts, by address.
func (s *segments) conflicts() map[string][]conflict {
	all := map[string][]conflict{}
	for _, o := range s.speakers {
		for _, c := range o.Status.Conflicts {
			if s.stale[o.Name] == "" {
				all[c.Address] = append(all[c.Address], conflict{place{o.Name, c.Interface}, c.MAC, c.At})
			}
		}
	}
	return all
}

// Clean replaces characters that control the terminal.
func Clean(text string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return unicode.ReplacementChar
	}, text)
}

// some lists at most the first five names.
func some(names []string) string {
	const most = 5
	if len(names) <= most+1 {
		return strings.Join(names, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ", "), len(names)-most)
}

// joined returns the segments with their nodes, in the form that decisions use: each segment has one interface of each
// node. The name of a segment is that of the interface that represents it, with its node.
func (s *segments) joined() (all []announce.Segment) {
	by := map[place][]announce.Neighbour{}
	for _, at := range slices.SortedFunc(maps.Keys(s.interfaces), comparePlaces) {
		i := s.interfaces[at]
		if i.State == "" || i.State == herald.SegmentDuplicate || s.stale[at.Node] != "" || s.unheard[at] {
			continue
		}
		n := announce.Neighbour{Node: at.Node, Interface: at.Interface}
		for _, text := range i.Subnets {
			if p, err := netip.ParsePrefix(text); err == nil {
				n.Subnets = append(n.Subnets, p)
			}
		}
		root := s.segment[at]
		if on := by[root]; len(on) == 0 || on[len(on)-1].Node != at.Node {
			by[root] = append(on, n)
		}
	}
	for _, root := range slices.SortedFunc(maps.Keys(by), comparePlaces) {
		all = append(all, announce.Segment{Interface: root.String(), Nodes: by[root]})
	}
	return all
}

// segmentName returns the name that joined gives to the segment of an interface.
func (s *segments) segmentName(at place) string { return s.segment[at].String() }
