package bgp

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/osrg/gobgp/v4/pkg/packet/bgp"
	"go.uber.org/zap"

	"github.com/heraldlb/herald/speaker/bgp/route"
)

// TestARouterOfManyFamilies has a router that speaks more families than are listed. Its prefixes are counted and shown
// according to the families that it speaks.
func TestARouterOfManyFamilies(t *testing.T) {
	s := newStatus(Peer{Name: "tor", Address: netip.MustParseAddr("192.0.2.1"), NextHop6: netip.MustParseAddr("2001:db8::11")}, zap.NewNop(), func() {})
	with := agreed{asn: 64500, remote: []bgp.ParameterCapabilityInterface{bgp.NewCapMultiProtocol(bgp.RF_IPv4_UC)}}
	for safi := range uint8(maxCapabilities) {
		with.remote = append(with.remote, bgp.NewCapMultiProtocol(bgp.NewFamily(bgp.AFI_IP, 200+safi)))
	}
	s.enter(Established, time.Now(), "", reason{}, with)
	s.count(counts{v4: 1, v6: 1}, counts{})
	d := s.detail(t.Context())
	if len(d.Remote.Families) != maxCapabilities || d.RouterASN != 64500 || d.Advertised4 != 1 || d.Withheld6 != 1 {
		t.Errorf("%+v", d)
	}
	if r := d.route(netip.MustParsePrefix("198.51.100.1/32"), route.Attributes{}); r.Withheld != "" {
		t.Errorf("IPv4: %s", r.Withheld)
	}
	if r := d.route(netip.MustParsePrefix("2001:db8::7/128"), route.Attributes{}); !strings.HasPrefix(r.Withheld, "the router does not speak IPv6 unicast") {
		t.Errorf("IPv6: %q", r.Withheld)
	}
}
