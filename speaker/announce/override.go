package announce

import (
	"cmp"
	"slices"

	herald "github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/speaker/bgp/route"
)

// permits reports whether Services may decide something for themselves.
func (ad *BGPAdvertisement) permits(what herald.ServiceOverride) bool {
	return slices.Contains(ad.Permits, what)
}

// silent reports whether a Service is not announced by an advertisement because it says so itself.
func (svc *Service) silent(ad *BGPAdvertisement) bool {
	return svc.Overrides != nil && svc.Overrides.Silent && ad.permits(herald.OverrideAnnounce)
}

// overridden are the attributes of an advertisement with what the Services decide for themselves in their place; own
// reports whether they decide anything. Of several Services the first by name that decides something does so for all.
func overridden(ad *BGPAdvertisement, services []*Service) (a route.Attributes, own bool) {
	a = ad.Attributes
	if len(ad.Permits) == 0 || !slices.ContainsFunc(services, func(svc *Service) bool { return svc.Overrides != nil }) {
		return a, false
	}
	byName := slices.SortedFunc(slices.Values(services), func(x, y *Service) int {
		return cmp.Or(cmp.Compare(y.Name.Namespace, x.Name.Namespace), cmp.Compare(y.Name.Name, x.Name.Name))
	})
	for _, svc := range byName { // The first by name is the last, and its word stays.
		o := svc.Overrides
		if o == nil {
			continue
		}
		if o.Communities != nil && ad.permits(herald.OverrideCommunities) {
			own = true
			a.Communities, a.LargeCommunities, a.ExtendedCommunities = nil, nil, nil
			texts := make([]string, len(*o.Communities))
			for i, c := range *o.Communities {
				texts[i] = string(c)
			}
			_ = a.AddCommunities(texts...) // Those of Overrides are valid.
		}
		if o.LocalPreference != nil && ad.permits(herald.OverrideLocalPreference) {
			a.LocalPref, own = o.LocalPreference, true
		}
		if o.MED != nil && ad.permits(herald.OverrideMED) {
			a.MED, own = o.MED, true
		}
		if o.Prepend != nil && ad.permits(herald.OverridePrepend) {
			a.Prepend, own = *o.Prepend, true
		}
	}
	return a, own
}
