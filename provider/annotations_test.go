package provider

import (
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"

	herald "github.com/heraldlb/herald/api/v1alpha1"
)

func TestAnnotationsWithoutEffect(t *testing.T) {
	for key, want := range map[string]string{
		"herald.dev/pol":                        "herald.dev/pol is not known: write herald.dev/pool, or remove it",
		"herald.dev/ip":                         "herald.dev/ip is not known: write herald.dev/ips, or remove it",
		"herald.dev/sharing_key":                "write herald.dev/sharing-key",
		"herald.dev/address":                    "write herald.dev/addresses",
		"herald.dev/Reclaim":                    "write herald.dev/reclaim",
		"herald.dev/quota":                      "belongs on the Namespace",
		herald.AnnotationBGPMED:                 `herald.dev/bgp-med: "x" is not a number from 0 to 4294967295`,
		"herald.dev/bgp-comunities":             "write herald.dev/bgp-communities",
		"metallb.io/loadBalancerIPs":            "metallb.io/loadBalancerIPs is of another load balancer: write herald.dev/ips",
		"metallb.universe.tf/address-pool":      "write herald.dev/pool",
		"metallb.universe.tf/allow-shared-ip":   "write herald.dev/sharing-key",
		"purelb.io/service-group":               "write herald.dev/pool",
		"purelb.io/addresses":                   "write herald.dev/ips",
		"kube-vip.io/loadbalancerIPs":           "write herald.dev/ips",
		"kube-vip.io/egress":                    "has no counterpart: remove it",
		"lbipam.cilium.io/ips":                  "write herald.dev/ips",
		"lbipam.cilium.io/sharing-key":          "write herald.dev/sharing-key",
		"io.cilium/lb-ipam-ips":                 "write herald.dev/ips",
		"io.cilium/global-service":              "",
		"metallb.io/ip-allocated-from-pool":     "",
		"example.com/pool":                      "",
		herald.AnnotationPool:                   "",
		herald.AnnotationAddresses:              "",
		"herald.dev/" + strings.Repeat("x", 63): "...",
	} {
		svc := service("web", wish{})
		svc.Annotations[key] = "x"
		if got := strings.Join(AnnotationWarnings(svc), "; "); !strings.Contains(got, want) || (want == "") != (got == "") {
			t.Errorf("%s: %q, want %q", key, got, want)
		}
	}
}

// TestOnlyTheFirstUnknownAnnotationsHaveASuggestion has a Service with many unknown annotations. A
// Service may have thousands, so suggestions are computed only for the first ones.
func TestOnlyTheFirstUnknownAnnotationsHaveASuggestion(t *testing.T) {
	svc := service("web", wish{})
	for i := range 1000 {
		svc.Annotations[fmt.Sprintf("herald.dev/unknown-%03d", i)] = ""
	}
	all := AnnotationWarnings(svc)
	if len(all) != 1000 {
		t.Errorf("%d warnings, want one for each annotation", len(all))
	}
	for i, text := range all {
		if strings.Contains(text, "write") != (i < maxSuggestions) || !strings.Contains(text, "remove it") {
			t.Errorf("warning %d is %q", i, text)
		}
	}
}

func TestAnnotationsWithoutEffectAreToldOnce(t *testing.T) {
	w := newWorld(t)
	h := annotationHandler(w.Provider.services, w.recorder)
	web := service("web", four)
	web.Annotations["herald.dev/pol"] = "public"
	h.OnAdd(web, false)
	w.eventsSay("Warning AnnotationWithoutEffect herald.dev/pol is not known: write herald.dev/pool")

	was := web.DeepCopy()
	web.Labels = map[string]string{"app": "web"}
	h.OnUpdate(was, web)
	w.eventsSay()

	was = web.DeepCopy()
	web.Annotations["metallb.io/address-pool"] = "public"
	h.OnUpdate(was, web)
	w.eventsSay("metallb.io/address-pool")

	served := web.DeepCopy()
	served.Status.LoadBalancer.Ingress = []corev1.LoadBalancerIngress{{IP: "198.51.100.0"}}
	h.OnAdd(served, true) // after a restart
	w.eventsSay()

	class := "example.com/other"
	foreign := web.DeepCopy()
	foreign.Spec.LoadBalancerClass = &class
	h.OnAdd(foreign, false)
	w.eventsSay()
}
