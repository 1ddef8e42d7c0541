package report

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"reflect"
	"slices"

	herald "github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/ipam"
	"github.com/heraldlb/herald/provider"
)

// PlanReport is the output of plan for programs.
type PlanReport struct {
	// Loses is true if an address in use would get out of range or be released, or if a pool would be invalid. The exit code
	// is 2 then.
	Loses bool         `json:"loses"`
	Pools []poolChange `json:"pools"` // All, oldest first.
	// Kept counts the addresses in use that stay as they are, and their Services.
	Kept keptReport `json:"kept"`
	// OutOfRange are the addresses in use that their pool would no longer have, StillOutOfRange those that it does not have
	// now either, and BackInRange those that it would have again.
	OutOfRange      []placeReport `json:"outOfRange"`
	StillOutOfRange []placeReport `json:"stillOutOfRange"`
	BackInRange     []placeReport `json:"backInRange"`
	// Released are the addresses that another controller gave a Service and that would no longer be announced.
	Released []releasedReport `json:"released"`
	// Served are the Services that wait, or lack a family, and would get addresses.
	Served []servedReport `json:"served"`
	// Waiting are the Services that would wait, and why.
	Waiting []waitingReport `json:"waiting"`
	// Unread are the objects of the cluster that could not be decoded, and why. The effect on them is not known, and the
	// exit code is 2.
	Unread []string `json:"unread"`
}

type poolChange struct {
	Name string `json:"name"`
	// Change is unchanged, changed, added, deleted, or deleting. A pool that is deleting is deleted when its last address
	// is free.
	Change   string         `json:"change"`
	Fields   []fieldChange  `json:"fields"`   // Of spec, with the entries added to and removed from lists.
	Families []familyChange `json:"families"` // IPv4 first.
	// Overlaps are the addresses that the pool would lose to older pools and has now.
	Overlaps []overlapReport `json:"overlaps"`
	// Invalid says what would be wrong with the spec. The last valid spec then stays in force; a new pool has none.
	Invalid string `json:"invalid,omitempty"`
	// OffSubnet says which addresses L2Advertisements would announce, although no node has a subnet with them.
	OffSubnet string `json:"offSubnet,omitempty"`
}

// breaks reports whether an edited or added pool would be invalid.
func (p poolChange) breaks() bool {
	return p.Invalid != "" && (p.Change == "added" || p.Change == "changed")
}

type fieldChange struct {
	Field   string `json:"field"`
	Removed []any  `json:"removed,omitempty"`
	Added   []any  `json:"added,omitempty"`
}

// familyChange counts addresses, before and after. 9007199254740991 stands for this number or more.
type familyChange struct {
	Family         string `json:"family"`
	CapacityBefore int64  `json:"capacityBefore"`
	CapacityAfter  int64  `json:"capacityAfter"`
	FreeBefore     int64  `json:"freeBefore"`
	FreeAfter      int64  `json:"freeAfter"`
}

type overlapReport struct {
	Pool      string   `json:"pool"` // The older one.
	Addresses []string `json:"addresses"`
}

type keptReport struct {
	Services  int `json:"services"`
	Addresses int `json:"addresses"`
}

type placeReport struct {
	Address  string   `json:"address"`
	Services []string `json:"services"`           // Those that have it, as NAMESPACE/NAME.
	Reserved []string `json:"reserved,omitempty"` // The names that it is kept for.
	Pool     string   `json:"pool"`               // As its record says.
	Home     string   `json:"home,omitempty"`     // The pool that would hold it; empty: none.
}

type servedReport struct {
	Service   string          `json:"service"`
	Addresses []addressReport `json:"addresses"`
	// Carries is true if the Service has the addresses in its status without a record, from another load balancer or a
	// backup.
	Carries bool `json:"carries,omitempty"`
	// ByAnother is true if another controller gave the Service these addresses. They would be recorded and announced.
	ByAnother bool `json:"byAnother,omitempty"`
	// Leaves are the addresses that the Service has and asked to move off.
	Leaves []addressReport `json:"leaves,omitempty"`
}

type releasedReport struct {
	Address string `json:"address"`
	Service string `json:"service"`
	Reason  string `json:"reason"`
}

type addressReport struct {
	Address string `json:"address"`
	Pool    string `json:"pool"`
}

type waitingReport struct {
	Service string `json:"service"`
	Reason  string `json:"reason"`
}

// report turns an effect into a report. It leaves out addresses that cool down, because nobody uses them.
func (s *state) report(then []*herald.IPPool, invalid map[string]error, e *ipam.Effect) *PlanReport {
	cooling := map[string]bool{}
	for _, rec := range s.records {
		if rec.Spec.ReleasedAt != nil {
			cooling[rec.Spec.Address] = true
		}
	}
	released := map[ipam.Allocation]bool{}
	for _, lost := range e.Released {
		released[ipam.Allocation{Address: lost.Address, Owner: lost.Owner}] = true
	}
	places := func(list []ipam.Placed) []placeReport {
		reports := []placeReport{}
		for _, p := range list {
			stay := slices.DeleteFunc(slices.Clone(p.Tenants), func(t ipam.Tenant) bool {
				return released[ipam.Allocation{Address: p.Address, Owner: t.Owner}]
			})
			if !cooling[p.Address.String()] && (len(stay) > 0 || len(p.Tenants) == 0) {
				r := placeReport{Address: p.Address.String(), Services: []string{}, Pool: p.Pool, Home: p.Home}
				for _, t := range stay {
					if t.Owner.UID != "" {
						r.Services = append(r.Services, t.Owner.String())
					} else if t.Owner.Name != "" {
						r.Reserved = append(r.Reserved, t.Owner.String())
					}
				}
				reports = append(reports, r)
			}
		}
		slices.SortFunc(reports, func(x, y placeReport) int {
			return netip.MustParseAddr(x.Address).Compare(netip.MustParseAddr(y.Address))
		})
		return reports
	}
	r := &PlanReport{
		Pools: s.poolChanges(then, invalid, e), OutOfRange: places(e.Displaced), StillOutOfRange: places(e.Outside), BackInRange: places(e.Returned),
		Released: []releasedReport{}, Served: []servedReport{}, Waiting: slices.Clone(s.misread), Unread: list(s.unread),
	}
	r.Kept = keptOf(places(e.Kept))
	for _, lost := range e.Released {
		r.Released = append(r.Released, releasedReport{lost.Address.String(), lost.Owner.String(), provider.Words(lost.Err)})
	}
	for _, served := range e.Served {
		left := slices.DeleteFunc(served.Left, func(a ipam.Allocation) bool { return cooling[a.Address.String()] })
		ask := s.askOf(served.Owner)
		r.Served = append(r.Served, servedReport{
			Service: served.Owner.String(), Addresses: addressesOf(served.Given), Leaves: addressesOf(left),
			Carries: carries(ask, served), ByAnother: ask.Class != "",
		})
	}
	for _, refused := range e.Refused {
		r.Waiting = append(r.Waiting, waitingReport{refused.Owner.String(), provider.Words(refused.Err)})
	}
	r.Loses = len(r.OutOfRange)+len(r.Released) > 0 || slices.ContainsFunc(r.Pools, poolChange.breaks)
	return r
}

// askOf returns what an owner asks for.
func (s *state) askOf(o ipam.Owner) ipam.Ask {
	return s.asks[slices.IndexFunc(s.asks, func(a ipam.Ask) bool { return a.Owner == o })]
}

// carries reports whether a Service already carries all addresses that it would get.
func carries(ask ipam.Ask, served ipam.Served) bool {
	return !slices.ContainsFunc(served.Given, func(al ipam.Allocation) bool { return !slices.Contains(ask.Carried, al.Address) })
}

func keptOf(kept []placeReport) keptReport {
	services := map[string]bool{}
	for _, p := range kept {
		for _, s := range p.Services {
			services[s] = true
		}
	}
	return keptReport{Services: len(services), Addresses: len(kept)}
}

func addressesOf(all []ipam.Allocation) []addressReport {
	var reports []addressReport
	for _, a := range all {
		reports = append(reports, addressReport{a.Address.String(), a.Pool})
	}
	return reports
}

// poolChanges returns the pools as they would be, oldest first, and then those that would be gone.
func (s *state) poolChanges(then []*herald.IPPool, invalid map[string]error, e *ipam.Effect) []poolChange {
	effects := map[string]ipam.PoolEffect{}
	for _, p := range e.Pools {
		effects[p.Name] = p
	}
	now := map[string]*herald.IPPool{}
	for _, o := range s.pools {
		now[o.Name] = o
	}
	changes := []poolChange{}
	add := func(name, change string, was, is herald.IPPoolSpec) {
		c := poolChange{Name: name, Change: change, Fields: fieldChanges(was, is), Families: familyChanges(effects[name]), Overlaps: []overlapReport{}}
		for _, o := range effects[name].Lost {
			lost := overlapReport{Pool: o.Pool}
			for _, r := range o.Ranges {
				lost.Addresses = append(lost.Addresses, r.String())
			}
			c.Overlaps = append(c.Overlaps, lost)
		}
		if err := invalid[name]; err != nil && change != "deleted" {
			c.Invalid = err.Error()
		}
		changes = append(changes, c)
	}
	for _, o := range then {
		was := now[o.Name]
		delete(now, o.Name)
		switch {
		case was == nil:
			add(o.Name, "added", WithDefaults(herald.IPPoolSpec{}), o.Spec)
		case was.DeletionTimestamp == nil && o.DeletionTimestamp != nil:
			add(o.Name, "deleting", o.Spec, o.Spec)
		case len(fieldChanges(was.Spec, o.Spec)) > 0:
			add(o.Name, "changed", was.Spec, o.Spec)
		default:
			add(o.Name, "unchanged", o.Spec, o.Spec)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(now)) {
		add(name, "deleted", now[name].Spec, now[name].Spec)
	}
	return changes
}

func familyChanges(p ipam.PoolEffect) []familyChange {
	changes := []familyChange{}
	for _, f := range []ipam.Family{ipam.IPv4, ipam.IPv6} {
		before, was := p.Before[f]
		after, is := p.After[f]
		if was || is {
			changes = append(changes, familyChange{
				f.String(), saturate(before.Capacity), saturate(after.Capacity), saturate(before.Available), saturate(after.Available),
			})
		}
	}
	return changes
}

func saturate(n uint64) int64 { return int64(min(n, herald.MaxCount)) }

// fieldChanges compares two specs, field by field in their JSON form. For lists it returns the entries that differ.
func fieldChanges(was, is herald.IPPoolSpec) []fieldChange {
	changes := []fieldChange{}
	before, after := fields(was), fields(is)
	names := maps.Clone(before)
	maps.Copy(names, after)
	for _, name := range slices.Sorted(maps.Keys(names)) {
		if c := (fieldChange{name, without(before[name], after[name]), without(after[name], before[name])}); len(c.Removed)+len(c.Added) > 0 {
			changes = append(changes, c)
		}
	}
	return changes
}

// fields returns the fields of a spec in their JSON form, each as a list of values.
func fields(spec herald.IPPoolSpec) map[string][]any {
	var written map[string]any
	text, err := json.Marshal(spec)
	if err == nil {
		err = json.Unmarshal(text, &written)
	}
	if err != nil {
		panic(fmt.Sprintf("a spec cannot be written: %v", err)) // The spec was decoded from JSON.
	}
	lists := map[string][]any{}
	for name, value := range written {
		if list, ok := value.([]any); ok {
			lists[name] = list
		} else if value != nil {
			lists[name] = []any{value}
		}
	}
	return lists
}

// without returns the elements of all that are not in others.
func without(all, others []any) []any {
	return slices.DeleteFunc(slices.Clone(all), func(x any) bool {
		return slices.ContainsFunc(others, func(y any) bool { return reflect.DeepEqual(x, y) })
	})
}
