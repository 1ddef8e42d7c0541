package router

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var compare = cmp.Options{
	cmp.Comparer(func(a, b netip.Addr) bool { return a == b }),
	cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }),
}

func TestParseBIRD(t *testing.T) {
	const out = `BIRD 2.0.12 ready.
Table master4:
198.51.100.1/32      unicast [neighbor0 15:19:54.477] * (100) [AS64512i]
	via 198.18.0.1 on eth0
	Type: BGP univ
	BGP.origin: IGP
	BGP.as_path: 64512 64512
	BGP.next_hop: 198.18.0.1
	BGP.med: 50
	BGP.local_pref: 250
	BGP.community: (64512,100) (65535,65281)
	BGP.large_community: (4200000000, 1, 2) (64512, 1, 2)
	BGP.ext_community: (ro, 4200000000, 7) (rt, 64512, 100) (unknown 0x4004, 64512, 1249125376)
                     unicast [neighbor1 15:19:55.001] (100) [AS64512i]
	via 198.18.0.9 on eth0
	Type: BGP univ
	BGP.as_path: 
	BGP.next_hop: 198.18.0.9

Table master6:
2001:db8:1::1/128    unicast [neighbor0 15:19:54.477] * (100) [AS64512i]
	via 2001:db8::1 on eth0
	BGP.next_hop: 2001:db8::1 fe80::1
`
	got, err := parseBIRD(out)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]Route{{
		Prefix: netip.MustParsePrefix("198.51.100.1/32"), NextHops: []netip.Addr{netip.MustParseAddr("198.18.0.1")}, Best: true,
		Communities: []string{"64512:100", "65535:65281"}, LargeCommunities: []string{"4200000000:1:2", "64512:1:2"},
		ExtendedCommunities: []string{"lb:64512:4000000", "rt:64512:100", "soo:4200000000:7"},
		MED:                 new(uint32(50)), LocalPreference: new(uint32(250)), ASPath: []uint32{64512, 64512},
		Learned: "15:19:54.477",
	}, {
		Prefix: netip.MustParsePrefix("198.51.100.1/32"), NextHops: []netip.Addr{netip.MustParseAddr("198.18.0.9")},
		Learned: "15:19:55.001",
	}, {
		Prefix: netip.MustParsePrefix("2001:db8:1::1/128"), Best: true, Learned: "15:19:54.477",
		NextHops: []netip.Addr{netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("fe80::1")},
	}}, got, compare); diff != "" {
		t.Error(diff)
	}
	for _, bad := range []string{"\tBGP.med: 1\n", "198.51.100.1/32 unicast [x] * (100)\n\tBGP.med: many\n", "198.51.100.1/32 unicast [x] *\n\tBGP.next_hop: there\n",
		"198.51.100.1/32 unicast [x] *\n\tBGP.ext_community: (unknown 0x4004, 64512, much)\n"} {
		if got, err := parseBIRD(bad); err == nil {
			t.Errorf("%q was read as %v", bad, got)
		}
	}
}

func TestParseFRR(t *testing.T) {
	const out = `{
  "prefix":"198.51.100.1/32",
  "paths":[
    {"aspath":{"string":"64512 64512","segments":[{"type":"as-sequence","list":[64512,64512]}],"length":2},
     "metric":50,"locPrf":250,"valid":true,"bestpath":{"overall":true},
     "community":{"string":"64512:100 no-export","list":["64512:100","noExport"]},
     "largeCommunity":{"string":"64512:1:2","list":["64512:1:2"]},
     "extendedCommunity":{"string":"RT:64512:100 SoO:4200000000:7 LB:64512:4000000 (32.000 Mbps)"},
     "nexthops":[{"ip":"198.18.0.1","afi":"ipv4","used":true}]},
    {"aspath":{"string":"Local","segments":[],"length":0},"multipath":true,
     "nexthops":[{"ip":"198.18.0.9","afi":"ipv4","used":true}]},
    {"nexthops":[{"ip":"198.18.0.10","afi":"ipv4"}]}
  ]
}
{"prefix":"2001:db8:1::1/128","paths":[{"bestpath":{"overall":true},
  "nexthops":[{"ip":"2001:db8::1","scope":"global"},{"ip":"fe80::1","scope":"link-local"}]}]}
`
	got, err := parseFRR([]byte(out))
	if err != nil {
		t.Fatal(err)
	}
	vip := netip.MustParsePrefix("198.51.100.1/32")
	if diff := cmp.Diff([]Route{{
		Prefix: vip, NextHops: []netip.Addr{netip.MustParseAddr("198.18.0.1")}, Best: true,
		Communities: []string{"64512:100", "65535:65281"}, LargeCommunities: []string{"64512:1:2"},
		ExtendedCommunities: []string{"lb:64512:4000000", "rt:64512:100", "soo:4200000000:7"},
		MED:                 new(uint32(50)), LocalPreference: new(uint32(250)), ASPath: []uint32{64512, 64512},
	}, {
		Prefix: vip, NextHops: []netip.Addr{netip.MustParseAddr("198.18.0.9")}, Best: true,
	}, {
		Prefix: vip, NextHops: []netip.Addr{netip.MustParseAddr("198.18.0.10")},
	}, {
		Prefix: netip.MustParsePrefix("2001:db8:1::1/128"), Best: true,
		NextHops: []netip.Addr{netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("fe80::1")},
	}}, got, compare); diff != "" {
		t.Error(diff)
	}
	if got, err := parseFRR([]byte(`{"prefix":`)); err == nil {
		t.Errorf("half an answer was read as %v", got)
	}
}

func TestCounts(t *testing.T) {
	frr, err := countFRR([]byte(`{"ipv4Unicast":{"routerId":"198.18.0.2","peers":{"198.18.0.1":{"pfxRcd":3},"198.18.0.9":{"pfxRcd":1}}},"ipv6Unicast":{"peers":{"198.18.0.1":{"pfxRcd":2}}}}`))
	if err != nil || frr != 6 {
		t.Errorf("FRR: %d, %v", frr, err)
	}
	bird, err := countBIRD("BIRD 2.0.12 ready.\n3 of 4 routes for 4 networks in table master4\n2 of 2 routes for 2 networks in table master6\nTotal: 5 of 6 routes for 6 networks in 2 tables\n")
	if err != nil || bird != 5 {
		t.Errorf("BIRD: %d, %v", bird, err)
	}
}
