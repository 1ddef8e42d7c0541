package migrate

import (
	"regexp"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	herald "github.com/heraldlb/herald/api/v1alpha1"
)

type ciliumL2 struct {
	NodeSelector    *metav1.LabelSelector `json:"nodeSelector"`
	ServiceSelector *metav1.LabelSelector `json:"serviceSelector"`
	LoadBalancerIPs bool                  `json:"loadBalancerIPs"`
	ExternalIPs     bool                  `json:"externalIPs"`
	Interfaces      []string              `json:"interfaces"`
}

func (c *cilium) l2(i *item) {
	var spec ciliumL2
	if !decode(i, &spec) {
		return
	}
	if spec.ExternalIPs {
		i.cannot("spec.externalIPs: Herald announces addresses of status.loadBalancer only: make the Services of type LoadBalancer, with %s", herald.AnnotationIPs)
	}
	if !spec.LoadBalancerIPs {
		i.cannot("spec.loadBalancerIPs is not true, so there is nothing that Herald announces: leave it")
		return
	}
	a := newL2Advertisement(i.u.GetName())
	a.Spec.NodeSelector = spec.NodeSelector
	var ok bool
	if a.Spec.ServiceSelector, a.Spec.NamespaceSelector, ok = ciliumServices(spec.ServiceSelector); !ok {
		i.cannot("spec.serviceSelector: %s, and import again", byName)
		return
	}
	for n, expression := range spec.Interfaces {
		switch m := interfacePattern.FindStringSubmatch(strings.ReplaceAll(expression, `\.`, ".")); {
		case m == nil || strings.Contains(expression, ".") && !strings.Contains(expression, `\.`):
			i.cannot("spec.interfaces[%d]: Herald names interfaces, and has no regular expressions: name those that %q means in spec.interfaces, or leave it out for every interface with a subnet that holds the address", n, expression)
		case !slices.Contains(a.Spec.Interfaces, m[1]):
			a.Spec.Interfaces = append(a.Spec.Interfaces, m[1])
			if expression != "^"+regexp.QuoteMeta(m[1])+"$" {
				i.approximated("spec.interfaces[%d]: the regular expression %q matches other names, too; the interface %s is written", n, expression, m[1])
			}
		}
	}
	if len(spec.Interfaces) == 0 {
		i.approximated("spec.interfaces: Cilium answers on all its devices, Herald on interfaces with a subnet that holds the address: name them where clients reach addresses that are outside the nodes' subnets")
	}
	i.becomes(a)
}
