package migrate

import (
	appsv1 "k8s.io/api/apps/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// kubeVIP is kube-vip, as of 1.2, with its cloud provider.
var kubeVIP = Source{
	Name: "kube-vip", Title: "kube-vip",
	Resources: []Resource{
		{GroupResource: schema.GroupResource{Resource: "configmaps"}, Namespace: metav1.NamespaceSystem, Name: "kubevip"},
		{GroupResource: schema.GroupResource{Group: appsv1.GroupName, Resource: "daemonsets"}},
		{GroupResource: schema.GroupResource{Group: "config.kube-vip.io", Resource: "bgppeers"}}, // only to report them
	},
	translate: func(t *translation) { (&kubevip{translation: t}).translate() },
}

// kubevip is an import from kube-vip in progress.
type kubevip struct {
	*translation
}

func (k *kubevip) translate() {
	for _, i := range k.of("", "ConfigMap") {
		if i.u.GetName() == "kubevip" {
			k.configMap(i)
		} else {
			k.Others++
		}
	}
	for _, i := range k.of(appsv1.GroupName, "DaemonSet") {
		k.daemonSet(i)
	}
	k.annotations(kubeVIPAnnotations, kubeVIPAnnotation)
}
