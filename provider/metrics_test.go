package provider

import (
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/heraldlb/herald/ipam"
)

func TestPoolMetrics(t *testing.T) {
	l := newLedger()
	four, err := ipam.ParseAddresses([]string{"198.51.100.0/29"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	both, err := ipam.ParseAddresses([]string{"203.0.113.0/31", "2001:db8::/126"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	l.setPools([]ipam.Pool{{Name: "four", Addresses: four}, {Name: "both", Addresses: both}}, nil)
	for address, released := range map[string]bool{"198.51.100.1": false, "198.51.100.2": false, "198.51.100.3": true} {
		note(l, ipam.Allocation{Address: addresses(address)[0], Pool: "four", Owner: ipam.Owner{Namespace: "default", Name: address, UID: address}}, released)
	}
	// A pool that is being looked at for the first time may not be in the ledger yet.
	c := poolCollector{pools: func() []string { return []string{"four", "both", "new"} }, ledger: l}
	if err := testutil.CollectAndCompare(c, strings.NewReader(`
# HELP herald_pool_assigned Addresses in use by Services, or reserved.
# TYPE herald_pool_assigned gauge
herald_pool_assigned{family="IPv4",pool="both"} 0
herald_pool_assigned{family="IPv4",pool="four"} 2
herald_pool_assigned{family="IPv6",pool="both"} 0
# HELP herald_pool_available Addresses that can be given out now.
# TYPE herald_pool_available gauge
herald_pool_available{family="IPv4",pool="both"} 2
herald_pool_available{family="IPv4",pool="four"} 5
herald_pool_available{family="IPv6",pool="both"} 4
# HELP herald_pool_capacity Addresses that the pool holds, without those that an older pool has.
# TYPE herald_pool_capacity gauge
herald_pool_capacity{family="IPv4",pool="both"} 2
herald_pool_capacity{family="IPv4",pool="four"} 8
herald_pool_capacity{family="IPv6",pool="both"} 4
# HELP herald_pool_cooling Addresses whose Service is gone and that wait for the pool's reuseDelay to pass.
# TYPE herald_pool_cooling gauge
herald_pool_cooling{family="IPv4",pool="both"} 0
herald_pool_cooling{family="IPv4",pool="four"} 1
herald_pool_cooling{family="IPv6",pool="both"} 0
`)); err != nil {
		t.Error(err)
	}
	problems, err := testutil.CollectAndLint(c)
	if err != nil || len(problems) > 0 {
		t.Error(err, problems)
	}
}
