package provider

import (
	"fmt"
	"strings"

	herald "github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/ipam"
)

// use is what the ledger knows about one pool.
type use struct {
	families map[ipam.Family]ipam.Usage
	cooling  map[ipam.Family]int64
	overlaps []string // "198.51.100.0-198.51.100.9 (pool public)"
	holders  []string // if the pool is being deleted, every address recorded for it: "198.51.100.7 (default/web)"
	outside  []string // addresses that are recorded for the pool and that it no longer has, in the format of holders
}

// assigned reports whether any address of the pool is held.
func (u use) assigned() bool {
	return u.families[ipam.IPv4].Assigned > 0 || u.families[ipam.IPv6].Assigned > 0
}

func (u use) family(f ipam.Family) *herald.PoolUsage {
	c, ok := u.families[f]
	if !ok {
		return nil
	}
	return &herald.PoolUsage{
		Capacity:  saturate(c.Capacity),
		Assigned:  saturate(c.Assigned) - u.cooling[f],
		Cooling:   u.cooling[f],
		Available: saturate(c.Available),
	}
}

func (u use) exhausted() []string {
	var families []string
	for _, f := range []ipam.Family{ipam.IPv4, ipam.IPv6} {
		if c, ok := u.families[f]; ok && c.Available == 0 {
			families = append(families, f.String())
		}
	}
	return families
}

// none returns a message that no address of these families is available. families is empty, or a text
// with their names that ends with a space.
func (u use) none(families string) string {
	if u.families[ipam.IPv4].Skipped > 0 || u.families[ipam.IPv6].Skipped > 0 {
		return "every " + families + "address is in use or, as the condition Accepted tells, never given out"
	}
	return "every " + families + "address is in use"
}

func saturate(n uint64) int64 { return int64(min(n, herald.MaxCount)) }

// someOf joins the elements of a list, or the first of many, for a message.
func someOf(list []string) string {
	const most = 5
	text := strings.Join(list[:min(most, len(list))], ", ")
	if len(list) > most {
		text += fmt.Sprintf(" and %d more", len(list)-most)
	}
	return text
}

// namesOf joins the names of holders.
func namesOf(tenants []ipam.Tenant) string {
	var names []string
	for _, t := range tenants {
		names = append(names, t.Owner.String())
	}
	return strings.Join(names, " ")
}
