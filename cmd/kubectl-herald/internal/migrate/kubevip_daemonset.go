package migrate

import (
	"cmp"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	herald "github.com/heraldlb/herald/api/v1alpha1"
)

// kubeVIPDaemonSet has the fields of a DaemonSet that are used.
type kubeVIPDaemonSet struct {
	Template struct {
		Spec kubeVIPPod `json:"spec"`
	} `json:"template"`
}

type kubeVIPPod struct {
	Containers   []kubeVIPContainer `json:"containers"`
	NodeSelector map[string]string  `json:"nodeSelector"`
	Affinity     struct {
		NodeAffinity *corev1.NodeAffinity `json:"nodeAffinity"`
	} `json:"affinity"`
}

type kubeVIPContainer struct {
	Image   string            `json:"image"`
	Args    []string          `json:"args"`
	Env     []kubeVIPVariable `json:"env"`
	EnvFrom []any             `json:"envFrom"`
}

type kubeVIPVariable struct {
	Name      string `json:"name"`
	Value     string `json:"value"`
	ValueFrom *struct {
		FieldRef     *corev1.ObjectFieldSelector `json:"fieldRef"`
		SecretKeyRef *corev1.SecretKeySelector   `json:"secretKeyRef"`
	} `json:"valueFrom"`
}

// ours reports whether the container is kube-vip.
func (c kubeVIPContainer) ours() bool {
	return strings.Contains(c.Image, "kube-vip") && !strings.Contains(c.Image, "cloud-provider")
}

// daemonSet translates the environment of kube-vip, as far as it is about announcements.
func (k *kubevip) daemonSet(i *item) {
	var spec kubeVIPDaemonSet
	_, err := unmarshal("spec", i.u.Object["spec"], &spec)
	if !slices.ContainsFunc(spec.Template.Spec.Containers, kubeVIPContainer.ours) { // After an error, spec has what could be decoded.
		k.Others++ // It may not be kube-vip's.
		return
	}
	if err != nil {
		i.cannot("%v, and import again", err)
		return
	}
	env := k.environment(i, spec.Template.Spec.Containers)
	env.report(i)
	if !env.yes("svc_enable") {
		i.translated("nothing, for svc_enable is not true, and it announces no Services")
		return
	}
	if env.text["lb_class_name"] != "" || env.yes("lb_class_only") {
		i.approximated("lb_class_only, lb_class_name: kube-vip serves the Services of one class: start herald-ccm with --serve-classless=false, and with --load-balancer-class for another class than %s", herald.LoadBalancerClass)
	}
	nodes, ok := nodesOf(&spec.Template.Spec)
	if !ok {
		i.cannot("spec.template.spec.affinity: Herald's objects select nodes by labels: select them by spec.template.spec.nodeSelector, and import again")
		return
	}
	var services *metav1.LabelSelector
	if namespace := env.text["svc_namespace"]; namespace != "" {
		services = &metav1.LabelSelector{MatchLabels: map[string]string{corev1.LabelMetadataName: namespace}}
		i.approximated("svc_namespace: kube-vip announces Services of this namespace only, and so do the advertisements; herald-ccm gives addresses to those of others, too, if an IPPool serves them")
	}
	var objects []runtime.Object
	if env.yes("vip_arp") {
		objects = append(objects, k.arp(i, env, nodes, services)...)
	}
	if env.yes("bgp_enable") {
		objects = append(objects, k.bgp(i, env, nodes, services)...)
	}
	i.becomes(objects...)
}

// arp returns an L2Advertisement for each selector of nodes.
func (k *kubevip) arp(i *item, env *kubeVIPEnvironment, nodes []*metav1.LabelSelector, services *metav1.LabelSelector) (objects []runtime.Object) {
	var interfaces []string
	switch device := cmp.Or(env.text["vip_servicesinterface"], env.text["vip_interface"]); {
	case device == "":
		i.onDefaultRoute("vip_interface")
	case !isInterface(device):
		i.cannot("vip_interface: %q is not the name of an interface: name one in spec.interfaces of the L2Advertisement", device)
	case device != "lo":
		interfaces = []string{device}
	}
	for n, selector := range nodes {
		a := newL2Advertisement(numbered("kube-vip", n))
		a.Spec.NodeSelector, a.Spec.NamespaceSelector, a.Spec.Interfaces = selector, services, interfaces
		objects = append(objects, a)
	}
	return objects
}

// nodesOf returns selectors of the nodes on which a pod may run. A node must match one of them. It returns false if
// labels cannot express this.
func nodesOf(pod *kubeVIPPod) ([]*metav1.LabelSelector, bool) {
	all := []metav1.LabelSelector{{MatchLabels: pod.NodeSelector}}
	if a := pod.Affinity; a.NodeAffinity != nil && a.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution != nil {
		all = nil
		for _, term := range a.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms {
			s := metav1.LabelSelector{MatchLabels: pod.NodeSelector}
			for _, e := range term.MatchExpressions {
				s.MatchExpressions = append(s.MatchExpressions, metav1.LabelSelectorRequirement{Key: e.Key, Operator: metav1.LabelSelectorOperator(e.Operator), Values: e.Values})
			}
			if _, err := metav1.LabelSelectorAsSelector(&s); err != nil || len(term.MatchFields) > 0 {
				return nil, false
			}
			if len(term.MatchExpressions) > 0 { // An empty term matches no node.
				all = append(all, s)
			}
		}
		if len(all) == 0 {
			return nil, false
		}
	}
	return anyOf(all), true
}
