package migrate

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"

	herald "github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/provider"
)

// TestImportAgreesWithForeignAnnotations compares the annotations that an import sets on a Service with those that
// herald-ccm reads with --foreign-annotations. If the import says that they differ, herald-ccm reads none.
func TestImportAgreesWithForeignAnnotations(t *testing.T) {
	for _, c := range []struct {
		source, key, value string
		same               bool
		also               map[string]string
	}{
		{"metallb", "metallb.io/loadBalancerIPs", "198.51.100.7, 2001:DB8::7", true, nil},
		{"metallb", "metallb.io/loadBalancerIPs", "::ffff:198.51.100.7", true, nil},
		{"metallb", "metallb.io/address-pool", "gold", true, nil},
		{"metallb", "metallb.io/allow-shared-ip", "it's shared", true, nil},
		{"metallb", "metallb.universe.tf/loadBalancerIPs", "198.51.100.7", true, map[string]string{"metallb.universe.tf/allow-shared-ip": "k"}},
		{"metallb", "metallb.universe.tf/address-pool", "silver", true, map[string]string{"metallb.io/address-pool": "gold"}},
		{"metallb", "metallb.io/ip-allocated-from-pool", "gold", true, nil},
		{"cilium", "lbipam.cilium.io/ips", "198.51.100.7,198.51.100.8,198.51.100.7", true, nil},
		{"cilium", "lbipam.cilium.io/ips", "198.51.100.7,198.51.100.8,2001:db8::7", false, nil},
		{"cilium", "io.cilium/lb-ipam-ips", "198.51.100.8", true, map[string]string{"lbipam.cilium.io/ips": "198.51.100.7"}},
		{"cilium", "lbipam.cilium.io/sharing-key", "k", true, nil},
		{"cilium", "io.cilium/lb-ipam-sharing-key", "k", true, nil},
		{"cilium", "lbipam.cilium.io/sharing-key", "k", true, map[string]string{"lbipam.cilium.io/sharing-cross-namespace": "*"}},
		{"cilium", "lbipam.cilium.io/sharing-key", "k", false, map[string]string{"lbipam.cilium.io/sharing-cross-namespace": "red"}},
		{"kube-vip", "kube-vip.io/loadbalancerIPs", "198.51.100.7", true, nil},
		{"kube-vip", "kube-vip.io/loadbalancerIPs", "0.0.0.0", true, nil},
		{"kube-vip", "kube-vip.io/loadbalancerIPs", "198.51.100.7,::", true, nil},
		{"kube-vip", "kube-vip.io/loadbalancerIPs", "dhcp", true, nil},
		{"purelb", "purelb.io/addresses", "198.51.100.7,2001:db8::7", true, nil},
		{"purelb", "purelb.io/service-group", "gold", true, nil},
		{"purelb", "purelb.io/allow-shared-ip", "k", true, nil},
	} {
		svc := &corev1.Service{
			TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Service"},
			ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web", Annotations: map[string]string{c.key: c.value}},
			Spec:       corev1.ServiceSpec{Type: corev1.ServiceTypeLoadBalancer},
		}
		maps.Copy(svc.Annotations, c.also)
		var f provider.Foreign
		if err := f.Set(c.source); err != nil {
			t.Fatal(err)
		}
		command := ""
		for key, value := range f.Read(svc).Annotations {
			if strings.HasPrefix(key, herald.GroupVersion.Group+"/") {
				command += " " + quoted(key+"="+value)
			}
		}
		content, err := runtime.DefaultUnstructuredConverter.ToUnstructured(svc)
		if err != nil {
			t.Fatal(err)
		}
		source := Sources[slices.IndexFunc(Sources, func(s *Source) bool { return s.Name == c.source })]
		r := source.Translate([]*unstructured.Unstructured{{Object: content}})
		imported := strings.TrimPrefix(strings.Join(r.Annotations, "\n"), "kubectl annotate service -n default web")
		if c.same && sorted(imported) != sorted(command) {
			t.Errorf("%s %q: an import gives%s, and herald-ccm reads%s", c.key, c.value, imported, command)
		}
		differs := slices.ContainsFunc(r.Notes, func(n Note) bool { return n.Outcome == Approximated })
		if !c.same && (imported == "" || !differs || command != "") {
			t.Errorf("%s %q: an import gives%s and says %v, and herald-ccm reads%s", c.key, c.value, imported, r.Notes, command)
		}
	}
}

func sorted(command string) string {
	return fmt.Sprint(slices.Sorted(strings.FieldsSeq(command)))
}
