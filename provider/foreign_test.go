package provider

import (
	"fmt"
	"maps"
	"net/netip"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	herald "github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/ipam"
)

func balancers(t *testing.T, names string) Foreign {
	t.Helper()
	var f Foreign
	if err := f.Set(names); err != nil {
		t.Fatal(err)
	}
	return f
}

const allBalancers = "metallb,purelb,kube-vip,cilium"

// TestForeignAnnotations reads every annotation of another load balancer that has a counterpart, and those that cannot be
// translated.
func TestForeignAnnotations(t *testing.T) {
	type annotations = map[string]string
	for _, story := range []struct {
		name  string
		flag  string
		given annotations
		want  annotations // Herald's annotations after the translation
		says  string      // the warnings
	}{
		{"none by default", "", annotations{"metallb.io/address-pool": "gold"}, annotations{}, "metallb.io/address-pool is of another load balancer: write herald.dev/pool"},
		{"those of the others are not read", "cilium", annotations{"metallb.io/address-pool": "gold", "lbipam.cilium.io/ips": "198.51.100.7"},
			annotations{herald.AnnotationIPs: "198.51.100.7"}, "metallb.io/address-pool is of another load balancer: write herald.dev/pool"},

		{"a pool of MetalLB", "metallb", annotations{"metallb.io/address-pool": "gold"}, annotations{herald.AnnotationPool: "gold"}, ""},
		{"addresses of MetalLB", "metallb", annotations{"metallb.io/loadBalancerIPs": "198.51.100.7, 2001:DB8::7"}, annotations{herald.AnnotationIPs: "198.51.100.7,2001:db8::7"}, ""},
		{"a key of MetalLB", "metallb", annotations{"metallb.io/allow-shared-ip": "it's shared"}, annotations{herald.AnnotationSharingKey: "it's shared"}, ""},
		{"a pool of MetalLB before", "metallb", annotations{"metallb.universe.tf/address-pool": "gold"}, annotations{herald.AnnotationPool: "gold"}, ""},
		{"addresses of MetalLB before", "metallb", annotations{"metallb.universe.tf/loadBalancerIPs": "198.51.100.7"}, annotations{herald.AnnotationIPs: "198.51.100.7"}, ""},
		{"a key of MetalLB before", "metallb", annotations{"metallb.universe.tf/allow-shared-ip": "k"}, annotations{herald.AnnotationSharingKey: "k"}, ""},
		{"addresses of Cilium", "cilium", annotations{"lbipam.cilium.io/ips": "198.51.100.7"}, annotations{herald.AnnotationIPs: "198.51.100.7"}, ""},
		{"a key of Cilium", "cilium", annotations{"lbipam.cilium.io/sharing-key": "k"}, annotations{herald.AnnotationSharingKey: "k"}, ""},
		{"addresses of Cilium before", "cilium", annotations{"io.cilium/lb-ipam-ips": "198.51.100.7"}, annotations{herald.AnnotationIPs: "198.51.100.7"}, ""},
		{"a key of Cilium before", "cilium", annotations{"io.cilium/lb-ipam-sharing-key": "k"}, annotations{herald.AnnotationSharingKey: "k"}, ""},
		{"addresses of kube-vip", "kube-vip", annotations{"kube-vip.io/loadbalancerIPs": "198.51.100.7"}, annotations{herald.AnnotationIPs: "198.51.100.7"}, ""},
		{"a pool of PureLB", "purelb", annotations{"purelb.io/service-group": "gold"}, annotations{herald.AnnotationPool: "gold"}, ""},
		{"addresses of PureLB", "purelb", annotations{"purelb.io/addresses": "198.51.100.7"}, annotations{herald.AnnotationIPs: "198.51.100.7"}, ""},
		{"a key of PureLB", "purelb", annotations{"purelb.io/allow-shared-ip": "k"}, annotations{herald.AnnotationSharingKey: "k"}, ""},

		{"several addresses of one family", "cilium", annotations{"lbipam.cilium.io/ips": "198.51.100.7,198.51.100.8,198.51.100.7"},
			annotations{herald.AnnotationIPs: "198.51.100.7,198.51.100.8", herald.AnnotationAddresses: "2"}, ""},
		{"several, and a number of our own", "cilium", annotations{"lbipam.cilium.io/ips": "198.51.100.7,198.51.100.8", herald.AnnotationAddresses: "3"},
			annotations{herald.AnnotationIPs: "198.51.100.7,198.51.100.8", herald.AnnotationAddresses: "3"}, ""},
		{"more of one family than of the other", "cilium", annotations{"lbipam.cilium.io/ips": "198.51.100.7,198.51.100.8,2001:db8::7"},
			annotations{}, "lbipam.cilium.io/ips is of another load balancer: write herald.dev/ips"},
		{"IPv4 written as IPv6", "metallb", annotations{"metallb.io/loadBalancerIPs": "::ffff:198.51.100.7"}, annotations{herald.AnnotationIPs: "198.51.100.7"}, ""},
		{"what is malformed", "metallb", annotations{"metallb.io/loadBalancerIPs": "first"}, annotations{herald.AnnotationIPs: "first"}, ""},
		{"nothing", "metallb", annotations{"metallb.io/loadBalancerIPs": ""}, annotations{}, "write herald.dev/ips"},
		{"DHCP", "kube-vip", annotations{"kube-vip.io/loadbalancerIPs": "0.0.0.0"}, annotations{}, "kube-vip.io/loadbalancerIPs is of another load balancer: write herald.dev/ips"},
		{"DHCP for one of two families", "kube-vip", annotations{"kube-vip.io/loadbalancerIPs": "198.51.100.7, ::"}, annotations{}, "write herald.dev/ips"},
		{"DHCP by name", "kube-vip", annotations{"kube-vip.io/loadbalancerIPs": "dhcp"}, annotations{}, "write herald.dev/ips"},
		{"a key of Cilium for all namespaces", "cilium", annotations{"lbipam.cilium.io/sharing-key": "k", "lbipam.cilium.io/sharing-cross-namespace": "*"},
			annotations{herald.AnnotationSharingKey: "k"}, "lbipam.cilium.io/sharing-cross-namespace is of another load balancer: write spec.shareAcrossNamespaces of the IPPool"},
		{"a key of Cilium for some namespaces", "cilium", annotations{"lbipam.cilium.io/sharing-key": "k", "io.cilium/lb-ipam-sharing-cross-namespace": "red,blue"}, annotations{},
			"io.cilium/lb-ipam-sharing-cross-namespace is of another load balancer: write spec.shareAcrossNamespaces of the IPPool; " +
				"lbipam.cilium.io/sharing-key is of another load balancer: write herald.dev/sharing-key"},
		{"addresses beside such a key", "cilium", annotations{"lbipam.cilium.io/ips": "198.51.100.7", "lbipam.cilium.io/sharing-cross-namespace": "red"},
			annotations{herald.AnnotationIPs: "198.51.100.7"}, "write spec.shareAcrossNamespaces of the IPPool"},
		{"what has no counterpart", allBalancers, annotations{"kube-vip.io/egress": "true"}, annotations{}, "kube-vip.io/egress is of another load balancer and has no counterpart: remove it"},
		{"another one's name for it", allBalancers, annotations{"metallb.io/service-group": "gold"}, annotations{}, "metallb.io/service-group is of another load balancer and has no counterpart: remove it"},

		{"ours wins", "metallb", annotations{herald.AnnotationPool: "silver", "metallb.io/address-pool": "gold"},
			annotations{herald.AnnotationPool: "silver"}, "metallb.io/address-pool has no effect beside herald.dev/pool: remove it"},
		{"ours wins though it is empty", "metallb", annotations{herald.AnnotationPool: "", "metallb.io/address-pool": "gold"},
			annotations{herald.AnnotationPool: ""}, "metallb.io/address-pool has no effect beside herald.dev/pool: remove it"},
		{"ours says the same", "metallb", annotations{herald.AnnotationPool: "gold", "metallb.io/address-pool": "gold"}, annotations{herald.AnnotationPool: "gold"}, ""},
		{"ours wins without the flag", "", annotations{herald.AnnotationPool: "silver", "metallb.io/address-pool": "gold"},
			annotations{herald.AnnotationPool: "silver"}, "metallb.io/address-pool has no effect beside herald.dev/pool: remove it"},
		{"ours wins for each annotation by itself", "metallb", annotations{herald.AnnotationPool: "silver", "metallb.io/address-pool": "gold", "metallb.io/allow-shared-ip": "k"},
			annotations{herald.AnnotationPool: "silver", herald.AnnotationSharingKey: "k"}, "metallb.io/address-pool has no effect beside herald.dev/pool: remove it"},
		{"MetalLB's new name wins", "metallb", annotations{"metallb.io/address-pool": "gold", "metallb.universe.tf/address-pool": "silver"},
			annotations{herald.AnnotationPool: "gold"}, "metallb.universe.tf/address-pool has no effect beside metallb.io/address-pool: remove it"},
		{"Cilium's new name wins", "cilium", annotations{"lbipam.cilium.io/ips": "198.51.100.7", "io.cilium/lb-ipam-ips": "198.51.100.8"},
			annotations{herald.AnnotationIPs: "198.51.100.7"}, "io.cilium/lb-ipam-ips has no effect beside lbipam.cilium.io/ips: remove it"},
		{"Cilium's new name wins though it is empty", "cilium", annotations{"lbipam.cilium.io/ips": "", "io.cilium/lb-ipam-ips": "198.51.100.8"},
			annotations{}, "write herald.dev/ips"},
		{"Cilium's new name wins though it is not read", "cilium", annotations{"lbipam.cilium.io/ips": "198.51.100.7,198.51.100.8,2001:db8::7", "io.cilium/lb-ipam-ips": "198.51.100.9"},
			annotations{}, "write herald.dev/ips"},
		{"a list that is too long for a search for DHCP", "kube-vip", annotations{"kube-vip.io/loadbalancerIPs": strings.Repeat(",", 32) + "dhcp"},
			annotations{herald.AnnotationIPs: strings.Repeat(",", 32) + "dhcp"}, ""},
		{"the first one of the flag wins", "kube-vip,metallb", annotations{"metallb.io/loadBalancerIPs": "198.51.100.7", "kube-vip.io/loadbalancerIPs": "198.51.100.8"},
			annotations{herald.AnnotationIPs: "198.51.100.8"}, "metallb.io/loadBalancerIPs has no effect beside kube-vip.io/loadbalancerIPs: remove it"},
		{"two say the same", "kube-vip,metallb", annotations{"metallb.io/loadBalancerIPs": "198.51.100.7", "kube-vip.io/loadbalancerIPs": "198.51.100.7"},
			annotations{herald.AnnotationIPs: "198.51.100.7"}, ""},
	} {
		t.Run(story.name, func(t *testing.T) {
			f := balancers(t, story.flag)
			svc := service("web", wish{})
			maps.Copy(svc.Annotations, story.given)
			before := svc.DeepCopy()
			read := f.Read(svc)
			if diff := gocmp.Diff(before, svc); diff != "" {
				t.Errorf("the Service itself is changed (-before +after):\n%s", diff)
			}
			got := annotations{}
			for _, key := range serviceAnnotations {
				if value, there := read.Annotations[key]; there {
					got[key] = value
				}
			}
			if diff := gocmp.Diff(story.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if says := strings.Join(AnnotationWarnings(read), "; "); !strings.Contains(says, story.says) || (story.says == "") != (says == "") {
				t.Errorf("it says %q, want %q", says, story.says)
			}
			// An informer may return a Service that was already read.
			if diff := gocmp.Diff(read, f.Read(read)); diff != "" {
				t.Errorf("a second reading differs (-first +second):\n%s", diff)
			}
		})
	}
}

// TestForeignAnnotationsAreNamed checks that messages name what the user wrote, and are otherwise the same as for Herald's
// annotations.
func TestForeignAnnotationsAreNamed(t *testing.T) {
	f := balancers(t, allBalancers)
	for _, story := range []struct{ key, ours, value, says string }{
		{"metallb.io/loadBalancerIPs", herald.AnnotationIPs, "first", `"first" is not an IP address: write addresses separated by commas`},
		{"metallb.universe.tf/loadBalancerIPs", herald.AnnotationIPs, "fe80::1%eth0", "is not an IP address"},
		{"lbipam.cilium.io/ips", herald.AnnotationIPs, "2001:db8::7", "2001:db8::7 is IPv6, but spec.ipFamilies is [IPv4]"},
		{"io.cilium/lb-ipam-ips", herald.AnnotationIPs, "198.51.100.7,", `"" is not an IP address`},
		{"kube-vip.io/loadbalancerIPs", herald.AnnotationIPs, "198.51.100.0/24", "is not an IP address"},
		{"purelb.io/addresses", herald.AnnotationIPs, strings.Repeat("198.51.100.7,", 17) + "198.51.100.7", "lists more than 16 IPv4 addresses"},
		{"metallb.io/address-pool", herald.AnnotationPool, strings.Repeat("x", 254), "is too long for the name of an IPPool"},
		{"purelb.io/service-group", herald.AnnotationPool, strings.Repeat("x", 254), "is too long for the name of an IPPool"},
		{"metallb.io/allow-shared-ip", herald.AnnotationSharingKey, "a\nb", "has control characters"},
		{"purelb.io/allow-shared-ip", herald.AnnotationSharingKey, strings.Repeat("k", 254), "write a key of 253 at most"},
		{"lbipam.cilium.io/sharing-key", herald.AnnotationSharingKey, "\x00", "has control characters"},
	} {
		refusal := func(key string) string {
			svc := service("web", wish{families: []corev1.IPFamily{v4}})
			svc.Annotations[key] = story.value
			_, err := translate(f.Read(svc))
			if err == nil {
				t.Fatalf("%s: %q is accepted", key, story.value)
			}
			return err.Error()
		}
		got, ours := refusal(story.key), refusal(story.ours)
		if !strings.HasPrefix(got, "annotation "+story.key+": ") && !strings.HasPrefix(got, "annotation "+story.key+" lists") || !strings.Contains(got, story.says) {
			t.Errorf("%s: %s, want %s", story.key, got, story.says)
		}
		if want := strings.Replace(ours, story.ours, story.key, 1); got != want {
			t.Errorf("of ours it says %q, and of this one %q", want, got)
		}
	}
}

// TestTooManyForeignAddresses has 9 IPv4 addresses, and 9 that are written as IPv6.
func TestTooManyForeignAddresses(t *testing.T) {
	var all []string
	for i := range 9 {
		all = append(all, fmt.Sprint("198.51.100.", i), fmt.Sprint("::ffff:203.0.113.", i))
	}
	f, svc := balancers(t, "metallb"), service("web", wish{families: []corev1.IPFamily{v4}})
	svc.Annotations["metallb.io/loadBalancerIPs"] = strings.Join(all, ",")
	_, err := translate(f.Read(svc))
	if want := "annotation metallb.io/loadBalancerIPs lists more than 16 IPv4 addresses: list 16 at most"; fmt.Sprint(err) != want {
		t.Errorf("%v, want %s", err, want)
	}
}

func TestForeignNames(t *testing.T) {
	for _, c := range [][2]string{{"", ""}, {"metallb", "metallb"}, {" cilium , metallb,", "cilium,metallb"}, {allBalancers, allBalancers}} {
		text, want := c[0], c[1]
		f := balancers(t, "purelb")
		if err := f.Set(text); err != nil || f.String() != want {
			t.Errorf("%q is read as %q (%v), want %q", text, f.String(), err, want)
		}
	}
	f := balancers(t, "purelb")
	if err := f.Set("metallb,openelb"); err == nil || !strings.Contains(err.Error(), `"openelb" is not a load balancer whose annotations are known: write some of metallb,purelb,kube-vip,cilium`) {
		t.Errorf("%v", err)
	}
}

// TestForeignAnnotationsAreReadAtOnce checks that the cache has Services with translated annotations, and also what the
// user wrote.
func TestForeignAnnotationsAreReadAtOnce(t *testing.T) {
	svc := service("web", wish{families: []corev1.IPFamily{v4}})
	svc.Annotations["metallb.io/address-pool"] = "gold"
	svc.ManagedFields = []metav1.ManagedFieldsEntry{{Manager: "kubectl"}}
	o, err := leanService(balancers(t, "metallb"))(svc)
	if err != nil {
		t.Fatal(err)
	}
	cached := o.(*corev1.Service)
	if cached.ManagedFields != nil || cached.Annotations["metallb.io/address-pool"] != "gold" {
		t.Errorf("%v", cached.ObjectMeta)
	}
	if req, err := translate(cached); err != nil || req.Pool != "gold" {
		t.Errorf("it asks for pool %q (%v)", req.Pool, err)
	}
}

// TestAServiceInTheCacheAsksForTheSame checks that the cache keeps everything of a Service that herald-ccm reads, and little
// else.
func TestAServiceInTheCacheAsksForTheSame(t *testing.T) {
	svc := carrying("web", wish{families: []corev1.IPFamily{v4, v6}, policy: corev1.IPFamilyPolicyPreferDualStack, pool: "gold", ip: "198.51.100.1"}, "198.51.100.1")
	svc.Labels = map[string]string{"tier": "web"}
	svc.Annotations[herald.AnnotationSharingKey] = "k"
	svc.Annotations["herald.dev/pol"] = "silver"
	svc.Annotations[corev1.LastAppliedConfigAnnotation] = "{}"
	svc.Finalizers = []string{foreign}
	svc.CreationTimestamp = metav1.Unix(1, 0)
	svc.Spec.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyLocal
	svc.Spec.Selector = map[string]string{"app": "web"}
	svc.Spec.ClusterIPs = []string{"192.0.2.1"}
	svc.Spec.Ports = []corev1.ServicePort{{Name: "dns", Protocol: corev1.ProtocolUDP, Port: 53, NodePort: 30000}, {Protocol: corev1.ProtocolTCP, Port: 80}}
	o, err := leanService(balancers(t, "metallb"))(svc.DeepCopy())
	if err != nil {
		t.Fatal(err)
	}
	cached := o.(*corev1.Service)
	read := func(svc *corev1.Service) []any {
		req, err := translate(svc)
		return []any{req, err, ownerEntry(svc), portsOf(svc), AnnotationWarnings(svc), Carried(svc), svc.Finalizers, svc.CreationTimestamp}
	}
	if diff := gocmp.Diff(read(svc), read(cached), gocmp.Comparer(func(x, y netip.Addr) bool { return x == y })); diff != "" {
		t.Errorf("in the cache it asks for something else (-Service +cached):\n%s", diff)
	}
	if _, has := cached.Annotations[corev1.LastAppliedConfigAnnotation]; has || cached.Spec.ClusterIPs != nil || cached.Spec.Ports[0].NodePort != 0 {
		t.Errorf("the cache has more than is used: %v", cached)
	}
}

// TestForeignKeysShare checks that a Service of Herald shares an address with one of MetalLB and one of Cilium.
func TestForeignKeysShare(t *testing.T) {
	f := balancers(t, allBalancers)
	var shared []ipam.Sharing
	for _, key := range []string{herald.AnnotationSharingKey, "metallb.universe.tf/allow-shared-ip", "lbipam.cilium.io/sharing-key"} {
		svc := service("web", wish{})
		svc.Annotations[key] = "k"
		if entry := ownerEntry(f.Read(svc)); entry.Sharing == nil || entry.Sharing.Key != "k" {
			t.Errorf("%s is recorded as %v", key, entry.Sharing)
		}
		shared = append(shared, sharing(f.Read(svc)))
	}
	if !shared[0].Equal(shared[1]) || !shared[0].Equal(shared[2]) {
		t.Errorf("the terms differ: %v", shared)
	}
}
