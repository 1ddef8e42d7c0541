package ui

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	herald "github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/cmd/kubectl-herald/internal/report"
)

// cluster has four nodes on one segment, and sessions with two routers.
type cluster struct {
	services int
	owner    func(i int) string // of the address of a Service
	edit     func(o *report.Objects)
}

var nodes = []string{"rack1-n1", "rack1-n2", "rack2-n1", "rack2-n2"}

func (c *cluster) source() Source {
	return Source{
		Cluster: "production",
		Read:    func(context.Context) (*report.Objects, error) { return c.objects(), nil },
		Warnings: func(_ context.Context, name types.NamespacedName) []*corev1.Event {
			return []*corev1.Event{{Reason: "SyncLoadBalancerFailed", Message: "made up for " + name.String(), LastTimestamp: metav1.Now()}}
		},
		CCM: &report.CCM{Class: herald.LoadBalancerClass, Classless: true},
	}
}

// address returns the address of a Service.
func address(i int) string {
	return netip.AddrFrom4([4]byte{198, 51, byte(100 + i>>8), byte(i)}).String()
}

func (c *cluster) objects() *report.Objects {
	now := time.Now()
	ago := func(d time.Duration) string { return now.Add(-d).UTC().Truncate(time.Hour).Format(time.RFC3339) }
	accepted := []metav1.Condition{{Type: herald.ConditionAccepted, Status: metav1.ConditionTrue}}
	o := &report.Objects{
		Pools: []*herald.IPPool{{
			ObjectMeta: metav1.ObjectMeta{Name: "public"},
			Spec:       report.WithDefaults(herald.IPPoolSpec{Addresses: []herald.AddressRange{"198.51.100.0/22", "2001:db8:51::/64"}}),
			Status: herald.IPPoolStatus{
				IPv4:       &herald.PoolUsage{Capacity: 1024, Assigned: int64(c.services), Cooling: 16, Available: int64(1008 - c.services)},
				IPv6:       &herald.PoolUsage{Capacity: 9007199254740991, Available: 9007199254740991},
				Conditions: accepted,
			},
		}},
		L2Advertisements:  []*herald.L2Advertisement{{ObjectMeta: metav1.ObjectMeta{Name: "all"}, Status: herald.AdvertisementStatus{Conditions: accepted}}},
		BGPAdvertisements: []*herald.BGPAdvertisement{{ObjectMeta: metav1.ObjectMeta{Name: "all"}, Status: herald.AdvertisementStatus{Conditions: accepted}}},
	}
	for i, name := range []string{"tor-a", "tor-b"} {
		o.BGPPeers = append(o.BGPPeers, &herald.BGPPeer{
			ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: herald.BGPPeerSpec{LocalASN: 64512, PeerASN: 64500, Address: fmt.Sprintf("198.51.103.%d", 250+i)},
			Status: herald.BGPPeerStatus{Conditions: accepted},
		})
	}
	for _, name := range []string{"default", "shop", "team-blue"} {
		o.Namespaces = append(o.Namespaces, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}})
	}
	holder, duration, renewed := "x", int32(30), metav1.NewMicroTime(now)
	lease := func(name string) *coordinationv1.Lease {
		return &coordinationv1.Lease{
			ObjectMeta: metav1.ObjectMeta{Name: name},
			Spec:       coordinationv1.LeaseSpec{HolderIdentity: &holder, LeaseDurationSeconds: &duration, RenewTime: &renewed},
		}
	}
	o.Leases = append(o.Leases, lease("herald-ccm"))
	speakers := map[string]*herald.SpeakerStatus{}
	for i, name := range nodes {
		o.Nodes = append(o.Nodes, &corev1.Node{
			ObjectMeta: metav1.ObjectMeta{Name: name},
			Status:     corev1.NodeStatus{Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}}},
		})
		o.Leases = append(o.Leases, lease("speaker-"+name))
		st := &herald.SpeakerStatus{ObjectMeta: metav1.ObjectMeta{Name: name}, Status: herald.SpeakerStatusStatus{
			Interfaces: []herald.SpeakerInterface{{
				Name: "eth0", State: herald.SegmentMember, Subnets: []string{fmt.Sprintf("198.51.103.%d/22", 240+i)}, Neighbours: int32(len(nodes) - 1),
			}},
			Established: "2/2",
		}}
		for _, other := range nodes {
			if other != name {
				st.Status.Interfaces[0].Hears = append(st.Status.Interfaces[0].Hears, other)
			}
		}
		for j, peer := range []string{"tor-a", "tor-b"} {
			st.Status.Sessions = append(st.Status.Sessions, herald.SpeakerSession{
				Peer: peer, Address: fmt.Sprintf("198.51.103.%d", 250+j), State: "Established", Since: ago(50 * time.Hour), Routes: int32(c.services), BFD: "Up",
			})
		}
		speakers[name] = st
		o.Speakers = append(o.Speakers, st)
	}
	for i := range c.services {
		c.service(o, speakers, i, ago(time.Duration(i)*time.Hour))
	}
	for i := range 16 { // They cool down.
		released := metav1.NewTime(now)
		o.Allocations = append(o.Allocations, &herald.IPAllocation{
			ObjectMeta: metav1.ObjectMeta{Name: address(800 + i)},
			Spec: herald.IPAllocationSpec{
				Address: address(800 + i), Pool: "public", Owners: []herald.AllocationOwner{{Namespace: "shop", Name: "gone", UID: "gone"}}, ReleasedAt: &released,
			},
		})
	}
	if c.edit != nil {
		c.edit(o)
	}
	return o
}

// service adds a Service with an address and an endpoint.
func (c *cluster) service(o *report.Objects, speakers map[string]*herald.SpeakerStatus, i int, since string) {
	namespace, name := []string{"default", "shop", "team-blue"}[i%3], fmt.Sprintf("service-%03d", i)
	uid := types.UID(name)
	o.Services = append(o.Services, &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, UID: uid},
		Spec:       corev1.ServiceSpec{Type: corev1.ServiceTypeLoadBalancer, IPFamilies: []corev1.IPFamily{corev1.IPv4Protocol}},
		Status:     corev1.ServiceStatus{LoadBalancer: corev1.LoadBalancerStatus{Ingress: []corev1.LoadBalancerIngress{{IP: address(i)}}}},
	})
	o.Allocations = append(o.Allocations, &herald.IPAllocation{
		ObjectMeta: metav1.ObjectMeta{Name: address(i), CreationTimestamp: metav1.NewTime(time.Now().Add(-time.Hour))},
		Spec: herald.IPAllocationSpec{
			Address: address(i), Pool: "public", Owners: []herald.AllocationOwner{{Namespace: namespace, Name: name, UID: uid}},
		},
	})
	node := "rack1-n1"
	o.Endpoints = append(o.Endpoints, &discoveryv1.EndpointSlice{
		ObjectMeta:  metav1.ObjectMeta{Namespace: namespace, Name: name, Labels: map[string]string{discoveryv1.LabelServiceName: name}},
		AddressType: discoveryv1.AddressTypeIPv4, Endpoints: []discoveryv1.Endpoint{{NodeName: &node, Addresses: []string{"10.0.0.1"}}},
	})
	owner := nodes[i%len(nodes)]
	if c.owner != nil {
		owner = c.owner(i)
	}
	if st := speakers[owner]; st != nil {
		st.Status.Claims = append(st.Status.Claims, herald.SpeakerClaim{Address: address(i), Interface: "eth0", Since: since, Reason: "highest rank"})
		st.Status.L2Addresses++
	}
}
