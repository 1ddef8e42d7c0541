package report

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	herald "github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/ipam"
	"github.com/heraldlb/herald/provider"
)

// PoolsReport is the output of pools for programs.
type PoolsReport struct {
	Pools []poolReport `json:"pools"` // Oldest first.
	// Unread are the IPPools and IPAllocations that could not be decoded, and why.
	Unread []string `json:"unread"`
}

type poolReport struct {
	Name      string                `json:"name"`
	Addresses []herald.AddressRange `json:"addresses"`
	// GrantedBy is the pool of another system that grants the addresses; nil if there is none.
	GrantedBy *herald.ExternalPoolReference `json:"grantedBy,omitempty"`
	// Families are those of which the pool has addresses, IPv4 first.
	Families []familyReport `json:"families"`
	// Namespaces are those whose Services have addresses of the pool, sorted by the number of addresses, most first.
	Namespaces []namespaceReport `json:"namespaces"`
	// Reserved counts the addresses that are reserved for a Service that does not exist yet, or for nobody.
	Reserved int `json:"reserved"`
	// OutOfRange are the namespaces whose Services have addresses that are recorded for the pool and that the pool does not have
	// any more, in the same order. They do not count in Families and Namespaces.
	OutOfRange []namespaceReport `json:"outOfRange"`
	Attention  []attention       `json:"attention"`
}

// familyReport counts addresses. 9007199254740991 stands for this number or more.
type familyReport struct {
	Family   string `json:"family"`
	Capacity int64  `json:"capacity"`
	Used     int64  `json:"used"`
	Cooling  int64  `json:"cooling"`
	Free     int64  `json:"free"`
}

type namespaceReport struct {
	Namespace string `json:"namespace"`
	Addresses int    `json:"addresses"`
}

// attention is a condition that needs attention.
type attention struct {
	Type    string `json:"type"`
	Reason  string `json:"reason"`
	Message string `json:"message"`
}

// Pools reports on all pools. It needs Pools and Allocations.
func Pools(o *Objects) *PoolsReport {
	o.sort()
	held := o.held()
	return &PoolsReport{poolReports(o.Pools, o.Allocations, held, len(o.Unread) == 0), list(o.Unread)}
}

// Only returns the report of one pool.
func (r *PoolsReport) Only(name string) (*PoolsReport, error) {
	i := slices.IndexFunc(r.Pools, func(p poolReport) bool { return p.Name == name })
	if i < 0 {
		return nil, fmt.Errorf("there is no IPPool %q: kubectl herald pools shows all", name)
	}
	return &PoolsReport{r.Pools[i : i+1], r.Unread}, nil
}

// poolReports reports on pools. held has the content of the records. If not all records could be read, only herald-ccm can count the
// addresses.
func poolReports(pools []*herald.IPPool, records []*herald.IPAllocation, held []ipam.Record, all bool) []poolReport {
	uses := usesOf(pools, records, held)
	reports := make([]poolReport, 0, len(pools))
	for _, o := range pools {
		use := uses[o.Name]
		r := poolReport{
			Name: o.Name, Addresses: o.Spec.Addresses, GrantedBy: o.Spec.ExternalPoolRef, Families: []familyReport{},
			Namespaces: byAddresses(use.namespaces), Reserved: use.reserved, OutOfRange: byAddresses(use.outside), Attention: attentionOf(o.Status.Conditions),
		}
		for _, u := range []struct {
			family ipam.Family
			*herald.PoolUsage
		}{{ipam.IPv4, o.Status.IPv4}, {ipam.IPv6, o.Status.IPv6}} {
			if u.PoolUsage == nil {
				continue
			}
			f := familyReport{u.family.String(), u.Capacity, u.Assigned, u.Cooling, u.Available}
			if all {
				f.count(use.used[u.family], use.cooling[u.family])
			}
			r.Families = append(r.Families, f)
		}
		reports = append(reports, r)
	}
	return reports
}

// count sets how many addresses are used and cool down, according to the records. herald-ccm writes the status of a pool somewhat
// later than the records.
func (f *familyReport) count(used, cooling int64) {
	if f.Free < herald.MaxCount {
		f.Free = max(0, f.Free+f.Used+f.Cooling-used-cooling)
	}
	f.Used, f.Cooling = used, cooling
}

// byAddresses sorts namespaces by the number of their addresses, most first.
func byAddresses(count map[string]int) []namespaceReport {
	all := []namespaceReport{}
	for namespace, n := range count {
		all = append(all, namespaceReport{namespace, n})
	}
	slices.SortFunc(all, func(x, y namespaceReport) int {
		return cmp.Or(cmp.Compare(y.Addresses, x.Addresses), cmp.Compare(x.Namespace, y.Namespace))
	})
	return all
}

// poolUse is the use of one pool, according to the records.
type poolUse struct {
	used, cooling map[ipam.Family]int64
	// namespaces has the number of addresses that the Services of each namespace have, and outside the number of those that the pool
	// does not have any more. Addresses that cool down are not counted, because nobody uses them.
	namespaces, outside map[string]int
	reserved            int
}

// usesOf returns the use of each pool. An address counts for the pool that has it. If no pool or another one has it, it is outside of
// the pool that it is recorded for.
func usesOf(pools []*herald.IPPool, records []*herald.IPAllocation, held []ipam.Record) map[string]*poolUse {
	homes := homesOf(pools, held)
	uses := map[string]*poolUse{}
	for _, o := range pools {
		uses[o.Name] = &poolUse{used: map[ipam.Family]int64{}, cooling: map[ipam.Family]int64{}, namespaces: map[string]int{}, outside: map[string]int{}}
	}
	for i, rec := range records {
		namespaces := map[string]bool{}
		for _, o := range rec.Spec.Owners {
			if o.UID != "" {
				namespaces[o.Namespace] = true
			}
		}
		home, _ := homes.PoolOf(held[i].Address)
		if use := uses[home]; use != nil {
			if family := ipam.FamilyOf(held[i].Address); rec.Spec.ReleasedAt != nil {
				use.cooling[family]++
			} else {
				use.used[family]++
			}
		}
		if rec.Spec.ReleasedAt != nil {
			continue
		}
		if use := uses[home]; use != nil {
			if len(namespaces) == 0 {
				use.reserved++
			}
			for n := range namespaces {
				use.namespaces[n]++
			}
		}
		if use := uses[rec.Spec.Pool]; use != nil && rec.Spec.Pool != home {
			for n := range namespaces {
				use.outside[n]++
			}
		}
	}
	return uses
}

// poolsInForce converts the pools to pools of package ipam, and returns the errors of those whose spec is invalid. For an
// invalid pool the last valid spec stays in force, which is that of the pool of this name in earlier. If that is invalid as
// well, only herald-ccm may know the last valid spec. The pool is then treated as after a restart of herald-ccm: it has the
// addresses that can be parsed and those that are held, and gives out no further ones.
func poolsInForce(pools, earlier []*herald.IPPool, held []ipam.Record) (inForce []ipam.Pool, invalid map[string]error) {
	invalid = map[string]error{}
	for _, o := range pools {
		p, err := provider.PoolOf(o)
		if err != nil {
			invalid[o.Name] = err
			p = lastValid(o, earlier, held)
		}
		inForce = append(inForce, p)
	}
	return inForce, invalid
}

// lastValid returns the pool that is in force if the spec is invalid: see poolsInForce.
func lastValid(o *herald.IPPool, earlier []*herald.IPPool, held []ipam.Record) ipam.Pool {
	for _, e := range earlier {
		if p, err := provider.PoolOf(e); e.Name == o.Name && err == nil {
			p.Closed = p.Closed || o.DeletionTimestamp != nil
			return p
		}
	}
	var inUse []netip.Addr
	for _, r := range held {
		if r.Pool == o.Name {
			inUse = append(inUse, r.Address)
		}
	}
	return provider.ClosedPool(o, inUse)
}

// invalidWords says what is wrong with the spec of a pool and, if herald-ccm has seen the spec, what is in force instead.
func invalidWords(o *herald.IPPool, err error) string {
	text := err.Error()
	c := meta.FindStatusCondition(o.Status.Conditions, herald.ConditionAccepted)
	if c != nil && c.Status == metav1.ConditionFalse && c.ObservedGeneration == o.Generation {
		text = c.Message
	}
	return fmt.Sprintf("IPPool %s is invalid: %s", o.Name, text)
}

// homesOf returns an Allocator that knows which of the pools has an address. held has the addresses in use.
func homesOf(pools []*herald.IPPool, held []ipam.Record) *ipam.Allocator {
	inForce, _ := poolsInForce(pools, nil, held)
	a := ipam.New()
	a.SetPools(inForce)
	return a
}

// attentionOf returns the conditions that are not True.
func attentionOf(conditions []metav1.Condition) []attention {
	all := []attention{}
	if len(conditions) == 0 {
		return append(all, attention{herald.ConditionAccepted, "NoStatus", "herald-ccm has not seen it yet: see whether it runs"})
	}
	for _, c := range conditions {
		if c.Status != metav1.ConditionTrue {
			all = append(all, attention{c.Type, c.Reason, c.Message})
		}
	}
	return all
}
