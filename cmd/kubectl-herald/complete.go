package main

import (
	"strings"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
)

// services completes NAME in the current namespace. It completes NAMESPACE/NAME after a slash, or if all Services may be
// listed.
func (a *access) services() cobra.CompletionFunc { return a.completion(1, serviceNames) }

func serviceNames(cmd *cobra.Command, c *cluster, toComplete string) (names []string) {
	options := metav1.ListOptions{FieldSelector: fields.OneTermEqualSelector("spec.type", string(corev1.ServiceTypeLoadBalancer)).String()}
	namespace, _, qualified := strings.Cut(toComplete, "/")
	if !qualified {
		if list, err := c.kube.CoreV1().Services(c.namespace).List(cmd.Context(), options); err == nil {
			for _, svc := range list.Items {
				names = append(names, svc.Name)
			}
		}
		namespace = metav1.NamespaceAll
	}
	if list, err := c.kube.CoreV1().Services(namespace).List(cmd.Context(), options); err == nil {
		for _, svc := range list.Items {
			names = append(names, svc.Namespace+"/"+svc.Name)
		}
	}
	return names
}

// pools completes the name of an IPPool.
func (a *access) pools() cobra.CompletionFunc {
	return a.completion(1, func(cmd *cobra.Command, c *cluster, _ string) (names []string) {
		if list, err := c.herald.Pools.List(cmd.Context(), metav1.ListOptions{}); err == nil {
			for _, o := range list.Items {
				names = append(names, o.Name)
			}
		}
		return names
	})
}

// nodes completes the name of a node.
func (a *access) nodes() cobra.CompletionFunc {
	return a.completion(0, func(cmd *cobra.Command, c *cluster, _ string) (names []string) {
		if list, err := c.kube.CoreV1().Nodes().List(cmd.Context(), metav1.ListOptions{}); err == nil {
			for _, o := range list.Items {
				names = append(names, o.Name)
			}
		}
		return names
	})
}

// namespaces completes the name of a namespace.
func (a *access) namespaces() cobra.CompletionFunc {
	return a.completion(0, func(cmd *cobra.Command, c *cluster, _ string) (names []string) {
		if list, err := c.kube.CoreV1().Namespaces().List(cmd.Context(), metav1.ListOptions{}); err == nil {
			for _, o := range list.Items {
				names = append(names, o.Name)
			}
		}
		return names
	})
}

// peers completes the name of a BGPPeer.
func (a *access) peers() cobra.CompletionFunc {
	return a.completion(0, func(cmd *cobra.Command, c *cluster, _ string) (names []string) {
		if list, err := c.herald.BGPPeers.List(cmd.Context(), metav1.ListOptions{}); err == nil {
			for _, o := range list.Items {
				names = append(names, o.Name)
			}
		}
		return names
	})
}

// completeFlags completes the flags that all or several commands have.
func (a *access) completeFlags(root *cobra.Command) {
	_ = root.RegisterFlagCompletionFunc("namespace", a.namespaces())
	for _, cmd := range root.Commands() {
		a.completeFlagsOf(cmd)
	}
}

func (a *access) completeFlagsOf(cmd *cobra.Command) {
	for flag, complete := range map[string]cobra.CompletionFunc{
		"herald-namespace": a.namespaces(), "from": a.nodes(), "node": a.nodes(), "peer": a.peers(), "delete": a.pools(),
	} {
		if cmd.Flags().Lookup(flag) != nil {
			_ = cmd.RegisterFlagCompletionFunc(flag, complete)
		}
	}
	for _, below := range cmd.Commands() {
		a.completeFlagsOf(below)
	}
}
