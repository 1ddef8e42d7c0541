package e2e

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	corev1 "k8s.io/api/core/v1"

	herald "github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/e2e/lab"
	"github.com/heraldlb/herald/e2e/lab/router"
)

// told waits for a condition of a configuration object with this reason, whose message contains the texts. The object
// is given by resource and name, as in "bgppeers tor".
func (f *field) told(object, condition, reason string, texts ...string) {
	f.t.Helper()
	kind, name, _ := strings.Cut(object, " ")
	f.eventually(fmt.Sprintf("%s: %s, %s, %q", object, condition, reason, texts), func(ctx context.Context) error {
		conditions, err := f.conditionsOf(ctx, kind, name)
		if err != nil {
			return err
		}
		c := meta.FindStatusCondition(conditions, condition)
		if c == nil || c.Reason != reason || slices.ContainsFunc(texts, func(text string) bool { return !strings.Contains(c.Message, text) }) {
			return fmt.Errorf("there are %+v", conditions)
		}
		return nil
	})
}

func (f *field) conditionsOf(ctx context.Context, kind, name string) ([]metav1.Condition, error) {
	switch kind {
	case "ippools":
		o, err := f.herald.Pools.Get(ctx, name, metav1.GetOptions{})
		return o.Status.Conditions, err
	case "l2advertisements":
		o, err := f.herald.L2Advertisements.Get(ctx, name, metav1.GetOptions{})
		return o.Status.Conditions, err
	case "bgpadvertisements":
		o, err := f.herald.BGPAdvertisements.Get(ctx, name, metav1.GetOptions{})
		return o.Status.Conditions, err
	case "bgppeers":
		o, err := f.herald.BGPPeers.Get(ctx, name, metav1.GetOptions{})
		return o.Status.Conditions, err
	}
	return nil, fmt.Errorf("no kind %q", kind)
}

// table waits until kubectl get shows these rows of cells. A cell "*" matches anything. The first row is the header.
func (f *field) table(resource string, rows ...string) {
	f.t.Helper()
	f.eventually("kubectl get "+resource, func(ctx context.Context) error {
		out, err := f.access.Kubectl(ctx, "get", resource)
		if err != nil {
			return err
		}
		lines := strings.Split(strings.TrimSpace(out), "\n")
		if len(lines) != len(rows) {
			return fmt.Errorf("%d rows, want %d:\n%s", len(lines), len(rows), out)
		}
		for i, row := range rows {
			want, got := strings.Fields(row), strings.Fields(lines[i])
			if !slices.EqualFunc(want, got, func(w, g string) bool { return w == "*" || w == g }) {
				return fmt.Errorf("row %d is not %q:\n%s", i, row, out)
			}
		}
		return nil
	})
}

// TestConditionsReportMistakes makes the mistakes of beginners, checks that the objects report them, and corrects
// them.
func TestConditionsReportMistakes(t *testing.T) {
	f := withHerald(t, lab.Options{Nodes: 2, Routers: []router.Kind{lab.FRR}})
	router := f.site.Routers[0]
	const announced, accepted, established = herald.ConditionAnnounced, herald.ConditionAccepted, herald.ConditionEstablished

	t.Run("pools that nothing announces", func(t *testing.T) {
		f := f.within(t)
		f.pool("segment", delay(0), "198.18.0.0/24")
		f.pool("elsewhere", delay(0), "198.51.100.0/26", "2001:db8:1::/112", "198.51.100.128/26", "198.51.100.224/28")
		f.pool("pods", with(delay(0), named), "10.96.7.0/24", "10.244.0.0/16")
		f.told("ippools segment", announced, "NoAdvertisement", "create one with spec.pools: [segment]")
		f.told("ippools pods", herald.PoolExclusive, "InClusterNetwork", "10.96.0.0/16, the range of ClusterIPs", "on node k8s-node1")
		f.told("ippools segment", herald.PoolExclusive, "NoOverlap")
	})
	t.Run("an advertisement on the segment", func(t *testing.T) {
		f := f.within(t)
		_, err := f.herald.L2Advertisements.Create(f.ctx, &herald.L2Advertisement{
			ObjectMeta: metav1.ObjectMeta{Name: "all"}, Spec: herald.L2AdvertisementSpec{Selection: herald.Selection{Pools: []string{"segment", "elsewhere"}}},
		}, metav1.CreateOptions{})
		f.must(err)
		f.told("ippools segment", announced, "Announced")
		f.told("ippools elsewhere", announced, "OffSubnet", "198.51.100.0/26", "198.18.0.0/24 on ", "2001:db8:18::/64 on ", "BGPAdvertisement")
		f.table("l2advertisements.herald.dev", "NAME POOLS NODES ACCEPTED ANNOUNCED AGE", "all 2 2 True True *")
	})
	t.Run("an address that was taken out of its pool, which is off every subnet now", func(t *testing.T) {
		f := f.within(t)
		f.pool("moved", with(delay(0), named), "2001:db8:18::100/126")
		_, err := f.herald.L2Advertisements.Create(f.ctx, &herald.L2Advertisement{
			ObjectMeta: metav1.ObjectMeta{Name: "moved"}, Spec: herald.L2AdvertisementSpec{Selection: herald.Selection{Pools: []string{"moved"}}},
		}, metav1.CreateOptions{})
		f.must(err)
		f.service("web", families(corev1.IPv6Protocol), annotated(herald.AnnotationPool, "moved"))
		f.holds("web", "2001:db8:18::100")
		f.told("l2advertisements moved", announced, "Announced")
		_, err = f.access.Kubectl(f.ctx, "patch", "ippools.herald.dev", "moved", "--type=merge", "-p", `{"spec":{"addresses":["2001:db8:77::/126"]}}`)
		f.must(err)
		f.told("ippools moved", herald.PoolInRange, "InUse", "2001:db8:18::100 (default/web)")
		f.told("l2advertisements moved", announced, "OffSubnet", "no selected node has an interface in a subnet", "taken out of IPPool moved are announced as before")
		f.remove("web")
		f.gone("web")
		f.told("ippools moved", herald.PoolInRange, "InRange")
		f.eventually("the advertisement does not say it any more", func(ctx context.Context) error {
			conditions, err := f.conditionsOf(ctx, "l2advertisements", "moved")
			if c := meta.FindStatusCondition(conditions, announced); err == nil && (c.Reason != "OffSubnet" || strings.Contains(c.Message, "announced as before")) {
				err = fmt.Errorf("it says %+v", c)
			}
			return err
		})
		f.must(f.herald.L2Advertisements.Delete(f.ctx, "moved", metav1.DeleteOptions{}))
		f.must(f.herald.Pools.Delete(f.ctx, "moved", metav1.DeleteOptions{}))
		f.poolGone("moved")
	})
	t.Run("names and selectors that are misspelt", func(t *testing.T) {
		f := f.within(t)
		for name, spec := range map[string]herald.L2AdvertisementSpec{
			"no-pool":      {Selection: herald.Selection{Pools: []string{"segmnet"}}},
			"no-interface": {Selection: herald.Selection{Pools: []string{"segment"}}, Interfaces: []string{"eht0"}},
			"no-node":      {Selection: herald.Selection{NodeSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"rack": "9"}}}},
		} {
			_, err := f.herald.L2Advertisements.Create(f.ctx, &herald.L2Advertisement{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: spec}, metav1.CreateOptions{})
			f.must(err)
		}
		f.told("l2advertisements no-pool", accepted, "PoolNotFound", `spec.pools: there is no IPPool "segmnet"`)
		f.told("l2advertisements no-pool", announced, "NoPoolSelected")
		f.told("l2advertisements no-interface", announced, "InterfaceNotFound", `"eht0"`)
		f.told("l2advertisements no-node", announced, "NoNodeSelected", "spec.nodeSelector")
		f.table("l2advertisements.herald.dev", "NAME POOLS NODES ACCEPTED ANNOUNCED AGE",
			"all 2 2 True True *", "no-interface 1 2 True False *", "no-node 3 0 True False *", "no-pool 0 2 False False *")
	})
	t.Run("a router that expects another AS number", func(t *testing.T) {
		f := f.within(t)
		peer := peerOf(router)
		peer.Spec.PeerASN++
		_, err := f.herald.BGPPeers.Create(f.ctx, peer, metav1.CreateOptions{})
		f.must(err)
		_, err = f.herald.BGPAdvertisements.Create(f.ctx, &herald.BGPAdvertisement{
			ObjectMeta: metav1.ObjectMeta{Name: "routed"}, Spec: herald.BGPAdvertisementSpec{Peers: []string{router.Name, "torr"}},
		}, metav1.CreateOptions{})
		f.must(err)
		f.told("bgppeers "+router.Name, established, "NoSession", "node k8s-node1: ", "; and 1 more node")
		f.told("bgpadvertisements routed", accepted, "PeerNotFound", `spec.peers: there is no BGPPeer "torr"`)
		f.told("bgpadvertisements routed", announced, "NoSession", "BGPPeer "+router.Name)
		f.table("bgppeers.herald.dev", "NAME ADDRESS PEER-ASN LOCAL-ASN SESSIONS ESTABLISHED AGE",
			fmt.Sprintf("%s %s %d %d 0/2 False *", router.Name, peer.Spec.Address, peer.Spec.PeerASN, peer.Spec.LocalASN))

		f.must(f.patchPeer(router.Name, fmt.Sprintf(`{"spec":{"peerASN":%d}}`, peer.Spec.PeerASN-1)))
		f.told("bgppeers "+router.Name, established, "Established")
		f.table("bgppeers.herald.dev", "NAME ADDRESS PEER-ASN LOCAL-ASN SESSIONS ESTABLISHED AGE",
			fmt.Sprintf("%s %s %d %d 2/2 True *", router.Name, peer.Spec.Address, peer.Spec.PeerASN-1, peer.Spec.LocalASN))
		f.told("bgpadvertisements routed", announced, "Announced")
		f.told("ippools elsewhere", announced, "Announced")
	})
	t.Run("a password that nobody wrote", func(t *testing.T) {
		f := f.within(t)
		f.must(f.patchPeer(router.Name, `{"spec":{"passwordSecret":{"name":"later"}}}`))
		f.told("bgppeers "+router.Name, accepted, "SecretMissing", "node k8s-node1: spec.passwordSecret: there is no Secret "+lab.PeersNamespace+"/later")
		_, err := f.kube.CoreV1().Secrets(lab.PeersNamespace).Create(f.ctx, &corev1.Secret{
			ObjectMeta: metav1.ObjectMeta{Name: "later"}, Type: corev1.SecretTypeBasicAuth, StringData: map[string]string{corev1.BasicAuthPasswordKey: "the router has none"},
		}, metav1.CreateOptions{})
		f.must(err)
		f.told("bgppeers "+router.Name, accepted, "Valid")
		f.told("bgppeers "+router.Name, established, "NoSession", "with a password that is set on one side only, or differs")
		f.must(f.patchPeer(router.Name, `{"spec":{"passwordSecret":null}}`))
		f.told("bgppeers "+router.Name, accepted, "Valid")
	})
	t.Run("two BGPPeers for one router", func(t *testing.T) {
		f := f.within(t)
		twin := peerOf(router)
		twin.Name = "a-twin"
		_, err := f.herald.BGPPeers.Create(f.ctx, twin, metav1.CreateOptions{})
		f.must(err)
		f.told("bgppeers a-twin", accepted, "Invalid", "node k8s-node1: spec.address: the session with "+twin.Spec.Address+" is that of the older BGPPeer "+router.Name)
		f.told("bgppeers "+router.Name, established, "Established")
		f.must(f.herald.BGPPeers.Delete(f.ctx, "a-twin", metav1.DeleteOptions{}))
	})
	t.Run("a router that each node finds by itself", func(t *testing.T) {
		f := f.within(t)
		annotate := func(node, value string) {
			_, err := f.kube.CoreV1().Nodes().Patch(f.ctx, node, types.MergePatchType, fmt.Appendf(nil, `{"metadata":{"annotations":{"example.com/tor":%q}}}`, value), metav1.PatchOptions{})
			f.must(err)
		}
		annotate("k8s-node1", router.IPv6.String())
		f.must(f.patchPeer(router.Name, `{"spec":{"address":null,"addressFrom":{"nodeAnnotation":"example.com/tor"},"peerASN":null,"peerType":"External"}}`))
		f.told("bgppeers "+router.Name, accepted, "Valid")
		f.told("bgppeers "+router.Name, established, "SessionsDown", "node k8s-node2: spec.addressFrom: the node has no annotation example.com/tor: give it one")
		annotate("k8s-node2", "tor-a")
		f.told("bgppeers "+router.Name, established, "SessionsDown", `node k8s-node2: spec.addressFrom: the node's annotation example.com/tor has the value "tor-a", which is not the IP address of a router`)
		annotate("k8s-node2", router.IPv4.String())
		f.told("bgppeers "+router.Name, established, "Established")
		f.table("bgppeers.herald.dev", "NAME ADDRESS PEER-ASN LOCAL-ASN SESSIONS ESTABLISHED AGE", router.Name+" 64512 2/2 True *")
		annotate("k8s-node2", "tor-a")
		f.told("bgppeers "+router.Name, established, "Established", "node k8s-node2: spec.addressFrom: the node's annotation example.com/tor",
			fmt.Sprintf("its last value, %q, is in force until herald-speaker restarts there", router.IPv4))
		for node, want := range map[string]string{"k8s-node1": router.IPv6.String(), "k8s-node2": router.IPv4.String()} {
			o, err := f.herald.SpeakerStatuses.Get(f.ctx, node, metav1.GetOptions{})
			f.must(err)
			if s := o.Status.Sessions; len(s) != 1 || s[0].Address != want {
				t.Errorf("sessions of %s: %+v, want one with %s", node, s, want)
			}
		}
		f.must(f.patchPeer(router.Name, fmt.Sprintf(`{"spec":{"address":%q,"addressFrom":null,"peerASN":%d,"peerType":null}}`, router.IPv4, router.ASN)))
		f.told("bgppeers "+router.Name, established, "Established")
	})
	t.Run("addresses of the network are never given out", func(t *testing.T) {
		f := f.within(t)
		f.told("ippools segment", accepted, "Valid", "never given out: 198.18.0.0 (the network address of 198.18.0.0/24)")
		const web = "198.18.0.3" // Host 1 is the gateway of the nodes, host 2 the router.
		f.service("web", annotated(herald.AnnotationPool, "segment"), to8080)
		f.eventually("an address that nobody has", func(ctx context.Context) error {
			svc, err := f.services().Get(ctx, "web", metav1.GetOptions{})
			if err == nil && !slices.Equal(addresses(svc), []string{web}) {
				err = fmt.Errorf("it has %v, want %s", addresses(svc), web)
			}
			return err
		})
		f.service("greedy", annotated(herald.AnnotationIPs, f.site.Nodes[0].IPv4.String()), to8080)
		f.event("Service", "greedy", "SyncLoadBalancerFailed", "the address of node k8s-node1")
	})
	t.Run("what kubectl get answers first", func(t *testing.T) {
		f := f.within(t)
		f.table("ippools.herald.dev", "NAME RANGES READY ANNOUNCED USED-IPV4 FREE-IPV4 USED-IPV6 FREE-IPV6 AGE",
			"elsewhere 198.51.100.0/26, 2001:db8:1::/112, +2 True True 0 * 0 * *",
			"pods 10.96.7.0/24, 10.244.0.0/16 True True 0 * *",
			"segment 198.18.0.0/24 True True 1 * *")
		for _, name := range []string{"dns-tcp", "dns-udp"} {
			f.service(name, annotated(herald.AnnotationSharingKey, "dns"), annotated(herald.AnnotationIPs, "198.51.100.7"), func(svc *corev1.Service) {
				if svc.Spec.Ports[0].Port = 53; name == "dns-udp" {
					svc.Spec.Ports[0].Protocol = corev1.ProtocolUDP
				}
			})
		}
		_, err := f.herald.Allocations.Create(f.ctx, &herald.IPAllocation{
			ObjectMeta: metav1.ObjectMeta{Name: "198.51.100.8"}, Spec: herald.IPAllocationSpec{Address: "198.51.100.8", Owners: []herald.AllocationOwner{{Namespace: "shop", Name: "old"}}},
		}, metav1.CreateOptions{})
		f.must(err)
		_, err = f.herald.Allocations.Create(f.ctx, &herald.IPAllocation{
			ObjectMeta: metav1.ObjectMeta{Name: "198.51.100.9"}, Spec: herald.IPAllocationSpec{Address: "198.51.100.9"},
		}, metav1.CreateOptions{})
		f.must(err)
		f.eventually("who has which address", func(ctx context.Context) error {
			out, err := f.access.Kubectl(ctx, "get", "ipallocations.herald.dev", "-o", "custom-columns=N:.metadata.name,S:.status.sharedWith,T:.status.state", "--no-headers")
			if err != nil {
				return err
			}
			seen := strings.Join(strings.Fields(out), " ")
			for _, want := range []string{"198.51.100.7 default/dns-", "198.51.100.8 <none> Kept", "198.51.100.9 <none> Reserved"} {
				if !strings.Contains(seen, want) {
					return fmt.Errorf("%q is not in %s", want, seen)
				}
			}
			return nil
		})
		out, err := f.access.Kubectl(f.ctx, "get", "ipallocations.herald.dev")
		f.must(err)
		f.says(out, "NAME POOL NAMESPACE SERVICE SHARED-WITH STATE RELEASED AGE", "198.51.100.8 shop old Kept", "198.51.100.9 Reserved")
	})
}
