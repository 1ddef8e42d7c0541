package speaker

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/heraldlb/herald/api/client"
	herald "github.com/heraldlb/herald/api/v1alpha1"
)

// address is where the router is, as seen from this node. A link-local address has its zone.
func (s *site) address(o *herald.BGPPeer) (netip.Addr, error) {
	from := o.Spec.AddressFrom
	if from == nil {
		a, err := netip.ParseAddr(o.Spec.Address)
		if err != nil {
			return a, fmt.Errorf("spec.address: %w", err)
		}
		return zoned(a, o.Spec.Interface), nil
	}
	var found []netip.Addr
	before := s.before[o.Name]
	switch {
	case from.Interface != "":
		for _, a := range s.routers[from.Interface] {
			found = append(found, a.WithZone(from.Interface))
		}
		if before.Zone() != from.Interface {
			before = netip.Addr{}
		}
		return one(found, before, "spec.addressFrom.interface", "no router has advertised itself on the link of "+from.Interface+
			" yet: see to it that it sends Router Advertisements there", "routers advertise themselves on the link of "+from.Interface+
			": leave one there, or give its address in spec.address")
	case from.DefaultGateway != "":
		for _, i := range s.interfaces {
			for _, a := range i.Gateways {
				if (o.Spec.Interface == "" || o.Spec.Interface == i.Name) && a.Is4() == (from.DefaultGateway == herald.IPv4) {
					found = append(found, zoned(a, i.Name))
				}
			}
		}
		if before.Is4() != (from.DefaultGateway == herald.IPv4) {
			before = netip.Addr{}
		}
		return one(found, before, "spec.addressFrom.defaultGateway", "the node has no default route of "+string(from.DefaultGateway)+
			" with a gateway: leave the node out with spec.nodeSelector, or give the address in another way", "gateways of default routes of "+
			string(from.DefaultGateway)+": name the interface of one in spec.interface")
	}
	field := "spec.addressFrom"
	text, err := s.value(field, &herald.NodeValueSource{NodeLabel: from.NodeLabel, NodeAnnotation: from.NodeAnnotation})
	if err != nil {
		return netip.Addr{}, err
	}
	a, err := netip.ParseAddr(text)
	if err != nil || a.Zone() != "" || a.Is4In6() || a.IsUnspecified() || a.IsMulticast() {
		return a, missing(field, "the node has the value %q, which is not the IP address of a router: correct it", text)
	}
	if a = zoned(a, o.Spec.Interface); a.Is6() && a.IsLinkLocalUnicast() && a.Zone() == "" {
		return a, missing(field, "the node has the link-local address %v: name the interface that it is on in spec.interface", a)
	}
	return a, nil
}

// unnumbered is the interface of an unnumbered peer; empty for others.
func unnumbered(o *herald.BGPPeer) string {
	if o.Spec.AddressFrom == nil {
		return ""
	}
	return o.Spec.AddressFrom.Interface
}

// zoned gives a link-local IPv6 address the zone of an interface.
func zoned(a netip.Addr, iface string) netip.Addr {
	if a.Is6() && a.IsLinkLocalUnicast() && a.Zone() == "" {
		return a.WithZone(iface)
	}
	return a
}

// one chooses the one address that was found. The one that was found before is kept.
func one(found []netip.Addr, before netip.Addr, field, none, several string) (netip.Addr, error) {
	slices.SortFunc(found, netip.Addr.Compare)
	found = slices.Compact(found)
	switch {
	case before.IsValid() && (len(found) == 0 || slices.Contains(found, before)):
		return before, nil
	case len(found) == 1:
		return found[0], nil
	case len(found) > 1:
		return netip.Addr{}, missing(field, "%v and %v are %s", found[0], found[1], several)
	}
	return netip.Addr{}, missing(field, "%s", none)
}

// unnumbered are the interfaces on whose links BGPPeers look for routers.
func (in *inputs) unnumbered() map[string]bool {
	all := map[string]bool{}
	for _, o := range client.Items[*herald.BGPPeer](in.peers.GetStore()) {
		if name := unnumbered(o); name != "" {
			all[name] = true
		}
	}
	return all
}
