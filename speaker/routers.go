package speaker

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/heraldlb/herald/api/client"
	herald "github.com/heraldlb/herald/api/v1alpha1"
)

// maxNamed bounds the number of addresses that an error names: any machine on a link can add some.
const maxNamed = 8

// address returns the address of the router as seen from this node. A link-local address has a zone. If the address is not in
// spec.address, it is recorded in the findings.
func (s *site) address(f *findings, o *herald.BGPPeer) (netip.Addr, error) {
	if o.Spec.AddressFrom == nil {
		f.router = netip.Addr{}
		a, err := netip.ParseAddr(o.Spec.Address)
		if err != nil {
			return a, fmt.Errorf("spec.address: %w", err)
		}
		return zoned(a, o.Spec.Interface), nil
	}
	if source := (routerSource{*o.Spec.AddressFrom, o.Spec.Interface}); f.source != source {
		f.router, f.source = netip.Addr{}, source
	}
	a, err := s.addressFrom(f, o)
	f.router = a
	return a, err
}

func (s *site) addressFrom(f *findings, o *herald.BGPPeer) (netip.Addr, error) {
	from := o.Spec.AddressFrom
	var found []netip.Addr
	switch {
	case from.Interface != "":
		return s.onLink(f, o.Name, from.Interface)
	case from.DefaultGateway != "":
		for _, i := range s.interfaces {
			for _, a := range i.Gateways {
				if (o.Spec.Interface == "" || o.Spec.Interface == i.Name) && a.Is4() == (from.DefaultGateway == herald.IPv4) {
					found = append(found, zoned(a, i.Name))
				}
			}
		}
		return one(found, f.router, f.proved, "spec.addressFrom.defaultGateway", "the node has no default route of "+string(from.DefaultGateway)+
			" with a gateway: leave the node out with spec.nodeSelector, or give the address in another way", "gateways of default routes of "+
			string(from.DefaultGateway)+": name the interface of one in spec.interface")
	}
	v := nodeValue{"spec.addressFrom", herald.NodeValueSource{NodeLabel: from.NodeLabel, NodeAnnotation: from.NodeAnnotation}}
	return valueOf(s.node, f, v, func(text string) (netip.Addr, error) {
		a, err := netip.ParseAddr(text)
		if err != nil || a.Zone() != "" || a.Is4In6() || a.IsUnspecified() || a.IsMulticast() {
			return netip.Addr{}, errors.New("is not the IP address of a router: correct it")
		}
		if a = zoned(a, o.Spec.Interface); a.Is6() && a.IsLinkLocalUnicast() && a.Zone() == "" {
			return netip.Addr{}, errors.New("is a link-local address: name the interface that it is on in spec.interface")
		}
		return a, nil
	})
}

// onLink returns the router on the link of an interface.
func (s *site) onLink(f *findings, peer, iface string) (netip.Addr, error) {
	there := func(a netip.Addr) netip.Addr {
		if a.Zone() != iface {
			return netip.Addr{}
		}
		return a
	}
	before := there(f.router)
	l, exists := s.links[iface]
	if !exists && !before.IsValid() {
		return netip.Addr{}, missing("spec.addressFrom.interface", "the node has no interface %s on which it has neighbours: leave the node out with spec.nodeSelector, or name another interface", iface)
	}
	return l.router(there(s.established[peer]), before, f.proved, s.now)
}

// unnumbered returns the interface of an unnumbered peer; empty for other peers.
func unnumbered(o *herald.BGPPeer) string {
	if o.Spec.AddressFrom == nil {
		return ""
	}
	return o.Spec.AddressFrom.Interface
}

// zoned adds the zone of an interface to a link-local IPv6 address without one.
func zoned(a netip.Addr, iface string) netip.Addr {
	if a.Is6() && a.IsLinkLocalUnicast() && a.Zone() == "" {
		return a.WithZone(iface)
	}
	return a
}

// one returns the only address that was found. If none was found, it keeps the address from before. If several were found, it
// chooses the router with which there was a session, and fails otherwise: the order in which they were found is chance.
func one(found []netip.Addr, before, proved netip.Addr, field, none, several string) (netip.Addr, error) {
	slices.SortFunc(found, netip.Addr.Compare)
	found = slices.Compact(found)
	switch {
	case len(found) == 0 && before.IsValid():
		return before, nil
	case len(found) == 0:
		return netip.Addr{}, missing(field, "%s", none)
	case len(found) == 1:
		return found[0], nil
	case slices.Contains(found, proved):
		return proved, nil
	}
	var texts []string
	for _, a := range found[:min(len(found), maxNamed)] {
		texts = append(texts, a.String())
	}
	if len(found) > maxNamed {
		texts = append(texts, "others")
	}
	return netip.Addr{}, missing(field, "%s are %s", strings.Join(texts, " and "), several)
}

// unnumbered returns the interfaces on whose links BGPPeers of this node look for routers.
func (in *inputs) unnumbered() map[string]bool {
	all := map[string]bool{}
	node := in.self()
	if node == nil {
		return all
	}
	for _, o := range client.Items[*herald.BGPPeer](in.peers.GetStore()) {
		selected, _ := selects(o, node)
		if name := unnumbered(o); name != "" && selected {
			all[name] = true
		}
	}
	return all
}
