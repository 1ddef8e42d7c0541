package migrate

import (
	"fmt"
	"slices"
	"strconv"

	herald "github.com/heraldlb/herald/api/v1alpha1"
)

type ciliumAttributes struct {
	Communities     ciliumCommunities `json:"communities"`
	LocalPreference *int64            `json:"localPreference"`
}

type ciliumCommunities struct {
	Standard  []string `json:"standard"`
	WellKnown []string `json:"wellKnown"`
	Large     []string `json:"large"`
}

// ciliumWellKnown are communities that Herald writes as numbers or under another name.
var ciliumWellKnown = map[string]herald.Community{
	"internet": "0:0", "planned-shut": "graceful-shutdown", "accept-own": "accept-own", "route-filter-translated-v4": "65535:2", "route-filter-v4": "65535:3",
	"route-filter-translated-v6": "65535:4", "route-filter-v6": "65535:5", "llgr-stale": "65535:6", "no-llgr": "no-llgr", "blackhole": "blackhole",
	"no-export": "no-export", "no-advertise": "no-advertise", "no-export-subconfed": "no-export-subconfed", "no-peer": "no-peer",
}

// apply sets the attributes of routes.
func (t *ciliumAttributes) apply(i *item, field string, s *herald.BGPAdvertisementSpec) {
	if p := t.LocalPreference; p != nil && *p >= 0 && *p <= 1<<32-1 {
		s.LocalPreference = p
	} else if p != nil {
		i.cannot("%s.localPreference: %d is not from 0 to 4294967295: it is left out", field, *p)
	}
	s.Communities = t.Communities.read(i, field+".communities")
}

func (c *ciliumCommunities) read(i *item, field string) (all []herald.Community) {
	for _, text := range c.Standard {
		if n, err := strconv.ParseUint(text, 10, 32); err == nil {
			text = fmt.Sprintf("%d:%d", n>>16, n&0xffff)
		}
		all = i.addCommunity(all, field, text)
	}
	for _, text := range c.Large {
		all = i.addCommunity(all, field, text)
	}
	for _, text := range c.WellKnown {
		switch known, ok := ciliumWellKnown[text]; {
		case !ok:
			i.cannot("%s: %q is not a well-known community: it is left out", field, text)
		case !slices.Contains(all, known):
			all = append(all, known)
		}
	}
	return all
}
