package provider

import (
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"

	herald "github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/ipam"
)

func TestPoolMetrics(t *testing.T) {
	l := newLedger(herald.LoadBalancerClass)
	four, err := ipam.ParseAddresses([]string{"198.51.100.0/29"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	both, err := ipam.ParseAddresses([]string{"203.0.113.0/31", "2001:db8::/126"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	l.setPools([]ipam.Pool{{Name: "four", Addresses: four, Quota: ipam.Limits{ipam.IPv4: 5}}, {Name: "both", Addresses: both}}, nil)
	for address, released := range map[string]bool{"198.51.100.1": false, "198.51.100.2": false, "198.51.100.3": true} {
		note(l, ipam.Allocation{Address: addresses(address)[0], Pool: "four", Owner: ipam.Owner{Namespace: "default", Name: address, UID: address}}, released)
	}
	// A pool that was just created may not be in the ledger yet.
	c := poolCollector{pools: func() []string { return []string{"four", "both", "new"} }, ledger: l,
		quota: func(string) ipam.Limits { return ipam.Limits{ipam.IPv4: 9, ipam.IPv6: 7} }}
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
# HELP herald_quota_limit Addresses that the namespace may hold of the pool or, without a pool, of all.
# TYPE herald_quota_limit gauge
herald_quota_limit{family="IPv4",namespace="default",pool=""} 9
herald_quota_limit{family="IPv4",namespace="default",pool="four"} 5
herald_quota_limit{family="IPv6",namespace="default",pool=""} 7
# HELP herald_quota_used Addresses that the namespace holds, for every namespace that has a quota and holds any.
# TYPE herald_quota_used gauge
herald_quota_used{family="IPv4",namespace="default",pool=""} 3
herald_quota_used{family="IPv4",namespace="default",pool="four"} 3
herald_quota_used{family="IPv6",namespace="default",pool=""} 0
`)); err != nil {
		t.Error(err)
	}
	problems, err := testutil.CollectAndLint(c)
	if err != nil || len(problems) > 0 {
		t.Error(err, problems)
	}
}

func TestAllocationMetrics(t *testing.T) {
	m := newAllocationMetrics()
	l := storyLedger()
	refuse := func(svc *corev1.Service) {
		t.Helper()
		_, err := ask(t, l, svc)
		if err == nil {
			t.Fatal("not refused")
		}
		m.failed(&unservedError{err, err})
	}
	four := []corev1.IPFamily{v4}
	refuse(service("web", wish{families: four, pool: "none"}))
	refuse(service("web", wish{families: four, pool: "none"}))
	refuse(service("web", wish{families: four, ips: "198.18.0.9"}))
	refuse(carrying("web", wish{families: four}, "198.18.0.9"))
	m.failed(&unservedError{errors.New("herald.dev/ips: no address"), ipam.ErrInvalid})
	m.failed(errors.New("connection refused"))
	if err := testutil.CollectAndCompare(m.failures, strings.NewReader(`
# HELP herald_allocation_failures_total Services that were refused an address, by reason; each once in ten minutes at most while nothing changes.
# TYPE herald_allocation_failures_total counter
herald_allocation_failures_total{reason="api"} 1
herald_allocation_failures_total{reason="exhausted"} 0
herald_allocation_failures_total{reason="invalid"} 1
herald_allocation_failures_total{reason="no_pool"} 2
herald_allocation_failures_total{reason="not_granted"} 0
herald_allocation_failures_total{reason="not_in_pool"} 2
herald_allocation_failures_total{reason="quota"} 0
herald_allocation_failures_total{reason="skipped"} 0
herald_allocation_failures_total{reason="taken"} 0
`)); err != nil {
		t.Error(err)
	}
	if problems, err := testutil.CollectAndLint(m.duration); err != nil || len(problems) > 0 {
		t.Error(err, problems)
	}
}

// TestStateMetrics counts two Services without an address, and one address at which two nodes report a stranger. The
// report about another address is too old.
func TestStateMetrics(t *testing.T) {
	all := cache.NewIndexer(cache.MetaNamespaceKeyFunc, cache.Indexers{cache.NamespaceIndex: cache.MetaNamespaceIndexFunc})
	foreign, deleted := service("foreign", wish{}), service("deleted", wish{})
	class := "example.com/other"
	foreign.Spec.LoadBalancerClass = &class
	deleted.DeletionTimestamp = &metav1.Time{Time: moment}
	for _, svc := range []*corev1.Service{
		service("one", wish{}), service("two", wish{}), carrying("three", wish{}, "198.51.100.7"), foreign, deleted,
		{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "internal"}},
	} {
		if err := all.Add(svc); err != nil {
			t.Fatal(err)
		}
	}
	c := newConflicts(everyAddress, func(netip.Addr) {})
	now := time.Now()
	c.report(now, nil, sees("a", now, "198.51.100.7 02:00:00:00:00:01 0s"))
	c.report(now, nil, sees("b", now, "198.51.100.7 02:00:00:00:00:01 0s"))
	past := now.Add(-conflictFresh - time.Minute)
	c.report(past, nil, sees("c", past, "198.51.100.8 02:00:00:00:00:01 0s"))
	s := &services{cached: corelisters.NewServiceLister(all), class: herald.LoadBalancerClass, classless: true}
	if err := testutil.CollectAndCompare(stateCollector{s, c}, strings.NewReader(`
# HELP herald_address_conflicts Addresses that are also used by machines that are not speakers.
# TYPE herald_address_conflicts gauge
herald_address_conflicts 1
# HELP herald_services_pending Services that want an address of this herald-ccm and have none.
# TYPE herald_services_pending gauge
herald_services_pending 2
`)); err != nil {
		t.Error(err)
	}
	if problems, err := testutil.CollectAndLint(stateCollector{s, c}); err != nil || len(problems) > 0 {
		t.Error(err, problems)
	}
}
