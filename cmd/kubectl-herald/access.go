package main

import (
	"fmt"
	"strings"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/heraldlb/herald/api/client"
)

// access is how the cluster is reached, as kubectl's own flags say it.
type access struct{ kubeconfig, context, namespace string }

// cluster is the API server.
type cluster struct {
	kube      kubernetes.Interface
	herald    *client.Set
	namespace string // Of what is named without one.
}

func (a *access) connect() (*cluster, error) {
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	rules.ExplicitPath = a.kubeconfig
	overrides := &clientcmd.ConfigOverrides{CurrentContext: a.context}
	overrides.Context.Namespace = a.namespace
	loader := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, overrides)
	config, err := loader.ClientConfig()
	if err != nil {
		return nil, err
	}
	config.UserAgent = "kubectl-herald"
	config.QPS, config.Burst = 50, 300 // As kubectl has it.
	var c cluster
	if c.namespace, _, err = loader.Namespace(); err != nil {
		return nil, err
	}
	if c.kube, err = kubernetes.NewForConfig(config); err != nil {
		return nil, err
	}
	c.herald, err = client.New(config)
	return &c, err
}

// connectFor connects, for a Service that is named on the command line.
func (a *access) connectFor(service string) (*cluster, types.NamespacedName, error) {
	c, err := a.connect()
	if err != nil {
		return nil, types.NamespacedName{}, err
	}
	name, err := c.named(service)
	return c, name, err
}

// named reads what a Service is called on the command line: NAMESPACE/NAME, or NAME.
func (c *cluster) named(text string) (types.NamespacedName, error) {
	namespace, name, both := strings.Cut(text, "/")
	if !both {
		namespace, name = c.namespace, text
	}
	if namespace == "" || name == "" || strings.Contains(name, "/") {
		return types.NamespacedName{}, fmt.Errorf("%q is no Service: write NAMESPACE/NAME, or NAME with -n NAMESPACE", text)
	}
	return types.NamespacedName{Namespace: namespace, Name: name}, nil
}
