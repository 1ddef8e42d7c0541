package v1alpha1

import (
	"fmt"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
)

// Selection says what an advertisement applies to. Each field limits it further. An empty Selection selects everything.
type Selection struct {
	// The names of the IPPools whose addresses are announced. If neither this nor poolSelector is set, addresses of all
	// IPPools are.
	// +optional
	// +kubebuilder:validation:MaxItems=64
	// +kubebuilder:validation:items:MaxLength=253
	// +listType=set
	Pools []string `json:"pools,omitempty"`

	// Selects IPPools whose addresses are announced, in addition to those in pools.
	// +optional
	PoolSelector *metav1.LabelSelector `json:"poolSelector,omitempty"`

	// Selects the Services whose addresses are announced. If not set, those of all Services are.
	// +optional
	ServiceSelector *metav1.LabelSelector `json:"serviceSelector,omitempty"`

	// Selects the namespaces whose Services are announced. If not set, those of all namespaces are.
	// +optional
	NamespaceSelector *metav1.LabelSelector `json:"namespaceSelector,omitempty"`

	// Selects the nodes that announce. If not set, all nodes do.
	// +optional
	NodeSelector *metav1.LabelSelector `json:"nodeSelector,omitempty"`
}

// Selector is a Selection whose label selectors are parsed.
//
// +kubebuilder:object:generate=false
type Selector struct {
	pool                     choice
	service, namespace, node labels.Selector
}

// Compile parses the label selectors. An error names the field.
func (s *Selection) Compile() (*Selector, error) {
	c := &Selector{}
	var err error
	if c.service, err = CompileSelector("serviceSelector", s.ServiceSelector); err != nil {
		return nil, err
	}
	if c.namespace, err = CompileSelector("namespaceSelector", s.NamespaceSelector); err != nil {
		return nil, err
	}
	if c.node, err = CompileSelector("nodeSelector", s.NodeSelector); err != nil {
		return nil, err
	}
	c.pool, err = choose(s.Pools, "poolSelector", s.PoolSelector)
	return c, err
}

// Pool reports whether addresses of the pool are announced.
func (c *Selector) Pool(name string, l map[string]string) bool {
	return c.pool.has(name, l)
}

// Service reports whether a Service with these labels, in a namespace with these, is announced.
func (c *Selector) Service(service, namespace map[string]string) bool {
	return c.service.Matches(labels.Set(service)) && c.namespace.Matches(labels.Set(namespace))
}

// Node reports whether a node with these labels announces.
func (c *Selector) Node(l map[string]string) bool { return c.node.Matches(labels.Set(l)) }

// SelectPeers returns the names of those peers that get the routes, sorted. An error names the field.
func (s *BGPAdvertisementSpec) SelectPeers(peers []*BGPPeer) ([]string, error) {
	c, err := choose(s.Peers, "peerSelector", s.PeerSelector)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, p := range peers {
		if c.has(p.Name, p.Labels) {
			names = append(names, p.Name)
		}
	}
	slices.Sort(names)
	return names, nil
}

// choice selects objects by name and, in addition, by labels. Without names and without a label selector it selects all.
//
// +kubebuilder:object:generate=false
type choice struct {
	names    []string
	selector labels.Selector
}

func choose(names []string, field string, s *metav1.LabelSelector) (choice, error) {
	if s == nil && len(names) > 0 {
		return choice{names, labels.Nothing()}, nil
	}
	selector, err := CompileSelector(field, s)
	return choice{names, selector}, err
}

func (c choice) has(name string, l map[string]string) bool {
	return slices.Contains(c.names, name) || c.selector.Matches(labels.Set(l))
}

// CompileSelector parses the label selector of one field; nil selects all. An error names the field.
func CompileSelector(field string, s *metav1.LabelSelector) (labels.Selector, error) {
	if s == nil {
		return labels.Everything(), nil
	}
	c, err := metav1.LabelSelectorAsSelector(s)
	if err != nil {
		return nil, fmt.Errorf("spec.%s: %w", field, err)
	}
	return c, nil
}

// EndpointsPolicy says what happens to the address of a Service that has no ready endpoint.
//
// +kubebuilder:validation:Enum=Withdraw;Announce
type EndpointsPolicy string

// The endpoints policies.
const (
	EndpointsWithdraw EndpointsPolicy = "Withdraw"
	EndpointsAnnounce EndpointsPolicy = "Announce"
)
