package announce

import (
	"cmp"
	"slices"

	herald "github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/speaker/bgp/route"
)

// permits reports whether the advertisement lets Services override an attribute.
func (ad *BGPAdvertisement) permits(what herald.ServiceOverride) bool {
	return slices.Contains(ad.Permits, what)
}

// silent reports whether a Service opts out of an advertisement that permits this.
func (svc *Service) silent(ad *BGPAdvertisement) bool {
	return svc.Overrides != nil && svc.Overrides.Silent && ad.permits(herald.OverrideAnnounce)
}

// overridden returns the attributes of an advertisement with the overrides of the Services. own reports whether there are any.
// If several Services override the same attribute, the first by name decides for all.
func overridden(ad *BGPAdvertisement, services []*Service) (a route.Attributes, own bool) {
	a = ad.Attributes
	if len(ad.Permits) == 0 || !slices.ContainsFunc(services, func(svc *Service) bool { return svc.Overrides != nil }) {
		return a, false
	}
	byName := slices.SortedFunc(slices.Values(services), func(x, y *Service) int {
		return cmp.Or(cmp.Compare(y.Name.Namespace, x.Name.Namespace), cmp.Compare(y.Name.Name, x.Name.Name))
	})
	for _, svc := range byName { // The first by name comes last, so its overrides stay.
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
			_ = a.AddCommunities(texts...) // The communities of Overrides are valid.
		}
		if o.LocalPreference != nil && ad.permits(herald.OverrideLocalPreference) {
			a.LocalPreference, own = o.LocalPreference, true
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
