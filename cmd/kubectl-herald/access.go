package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"

	"github.com/heraldlb/herald/api/client"
	herald "github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/cmd/internal/version"
	"github.com/heraldlb/herald/cmd/kubectl-herald/internal/report"
	"github.com/heraldlb/herald/provider"
)

// access connects to the cluster with kubectl's own flags.
type access struct{ *genericclioptions.ConfigFlags }

// cluster has the clients for the API server.
type cluster struct {
	kube      kubernetes.Interface
	herald    *client.Set
	dynamic   dynamic.Interface // for kinds without a Go type
	namespace string            // of Services that are named without a namespace
}

// noServer is the server that kubectl's flags choose if no configuration names one.
const noServer = "http://localhost:8080"

func (a *access) connect() (*cluster, error) {
	config, err := a.ToRESTConfig()
	if err != nil {
		return nil, err
	}
	if config.Host == noServer && *a.APIServer == "" {
		return nil, errors.New("no cluster is configured: no kubeconfig with a current context was found: set KUBECONFIG, or give --kubeconfig, --context or --server")
	}
	config.UserAgent = "kubectl-herald/" + version.String()
	config.QPS, config.Burst = 50, 300 // as in kubectl
	var c cluster
	if c.namespace, _, err = a.ToRawKubeConfigLoader().Namespace(); err != nil {
		return nil, err
	}
	if c.kube, err = kubernetes.NewForConfig(config); err != nil {
		return nil, err
	}
	if c.dynamic, err = dynamic.NewForConfig(config); err != nil {
		return nil, err
	}
	c.herald, err = client.New(config)
	return &c, err
}

// connectFor connects, and parses the name of a Service on the command line.
func (a *access) connectFor(service string) (*cluster, types.NamespacedName, error) {
	c, err := a.connect()
	if err != nil {
		return nil, types.NamespacedName{}, err
	}
	name, err := c.named(service)
	return c, name, err
}

// named parses the name of a Service on the command line: NAMESPACE/NAME, or NAME.
func (c *cluster) named(text string) (types.NamespacedName, error) {
	namespace, name, both := strings.Cut(text, "/")
	if !both {
		namespace, name = c.namespace, text
	}
	if namespace == "" || name == "" || strings.Contains(name, "/") {
		return types.NamespacedName{}, fmt.Errorf("%q is not the name of a Service: write NAMESPACE/NAME, or NAME with -n NAMESPACE", text)
	}
	return types.NamespacedName{Namespace: namespace, Name: name}, nil
}

// lister reads one resource into Objects.
type lister func(ctx context.Context, c *cluster, o *report.Objects) error

// listers has a lister for each resource that reports need, by its qualified name.
var listers = map[string]lister{
	"ippools.herald.dev": func(ctx context.Context, c *cluster, o *report.Objects) error {
		list, err := c.herald.Pools.List(ctx, metav1.ListOptions{})
		if err == nil {
			o.Pools = pointers(list.Items)
		}
		return err
	},
	"ipallocations.herald.dev": func(ctx context.Context, c *cluster, o *report.Objects) error {
		list, err := c.herald.Allocations.List(ctx, metav1.ListOptions{})
		if err == nil {
			o.Allocations = pointers(list.Items)
		}
		return err
	},
	"l2advertisements.herald.dev": func(ctx context.Context, c *cluster, o *report.Objects) error {
		list, err := c.herald.L2Advertisements.List(ctx, metav1.ListOptions{})
		if err == nil {
			o.L2Advertisements = pointers(list.Items)
		}
		return err
	},
	"bgpadvertisements.herald.dev": func(ctx context.Context, c *cluster, o *report.Objects) error {
		list, err := c.herald.BGPAdvertisements.List(ctx, metav1.ListOptions{})
		if err == nil {
			o.BGPAdvertisements = pointers(list.Items)
		}
		return err
	},
	"bgppeers.herald.dev": func(ctx context.Context, c *cluster, o *report.Objects) error {
		list, err := c.herald.BGPPeers.List(ctx, metav1.ListOptions{})
		if err == nil {
			o.BGPPeers = pointers(list.Items)
		}
		return err
	},
	"speakerstatuses.herald.dev": func(ctx context.Context, c *cluster, o *report.Objects) error {
		list, err := c.herald.SpeakerStatuses.List(ctx, metav1.ListOptions{})
		if err == nil {
			o.Speakers = pointers(list.Items)
		}
		return err
	},
	"nodes": func(ctx context.Context, c *cluster, o *report.Objects) error {
		list, err := c.kube.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
		if err == nil {
			o.Nodes = pointers(list.Items)
		}
		return err
	},
	"namespaces": func(ctx context.Context, c *cluster, o *report.Objects) error {
		list, err := c.kube.CoreV1().Namespaces().List(ctx, metav1.ListOptions{})
		if err == nil {
			o.Namespaces = pointers(list.Items)
		}
		return err
	},
	"services": func(ctx context.Context, c *cluster, o *report.Objects) error {
		list, err := c.kube.CoreV1().Services(metav1.NamespaceAll).List(ctx, metav1.ListOptions{})
		if err == nil {
			o.Services = pointers(list.Items)
		}
		return err
	},
	"endpointslices.discovery.k8s.io": func(ctx context.Context, c *cluster, o *report.Objects) error {
		list, err := c.kube.DiscoveryV1().EndpointSlices(metav1.NamespaceAll).List(ctx, metav1.ListOptions{})
		if err == nil {
			o.Endpoints = pointers(list.Items)
		}
		return err
	},
	"servicecidrs.networking.k8s.io": func(ctx context.Context, c *cluster, o *report.Objects) error {
		list, err := c.kube.NetworkingV1().ServiceCIDRs().List(ctx, metav1.ListOptions{})
		if err == nil {
			o.ServiceCIDRs = pointers(list.Items)
		}
		return err
	},
	"customresourcedefinitions.apiextensions.k8s.io": func(ctx context.Context, c *cluster, o *report.Objects) error {
		list, err := c.dynamic.Resource(apiextensionsv1.SchemeGroupVersion.WithResource("customresourcedefinitions")).List(ctx, metav1.ListOptions{})
		if err != nil {
			return err
		}
		for i := range list.Items {
			var d apiextensionsv1.CustomResourceDefinition
			if !strings.HasSuffix(list.Items[i].GetName(), "."+herald.GroupVersion.Group) {
				continue
			}
			if err := runtime.DefaultUnstructuredConverter.FromUnstructured(list.Items[i].Object, &d); err != nil {
				return fmt.Errorf("%s: %w", list.Items[i].GetName(), err)
			}
			o.Definitions = append(o.Definitions, &d)
		}
		return nil
	},
	"configmaps in kube-system": func(ctx context.Context, c *cluster, o *report.Objects) error {
		for _, name := range []string{"kube-proxy", "cilium-config"} {
			switch m, err := c.kube.CoreV1().ConfigMaps(metav1.NamespaceSystem).Get(ctx, name, metav1.GetOptions{}); {
			case err == nil:
				o.ProxyConfigs = append(o.ProxyConfigs, m)
			case !apierrors.IsNotFound(err):
				return err
			}
		}
		return nil
	},
	"daemonsets.apps": func(ctx context.Context, c *cluster, o *report.Objects) error {
		list, err := c.kube.AppsV1().DaemonSets(metav1.NamespaceAll).List(ctx, metav1.ListOptions{})
		if err == nil {
			o.DaemonSets = pointers(list.Items)
		}
		return err
	},
	"deployments.apps": func(ctx context.Context, c *cluster, o *report.Objects) error {
		list, err := c.kube.AppsV1().Deployments(metav1.NamespaceAll).List(ctx, metav1.ListOptions{})
		if err == nil {
			o.Deployments = pointers(list.Items)
		}
		return err
	},
	"pods": func(ctx context.Context, c *cluster, o *report.Objects) error {
		list, err := c.kube.CoreV1().Pods(metav1.NamespaceAll).List(ctx, metav1.ListOptions{})
		if err == nil {
			o.Pods = pointers(list.Items)
		}
		return err
	},
	"ciliumloadbalancerippools.cilium.io": func(ctx context.Context, c *cluster, o *report.Objects) error {
		for _, version := range []string{"v2", "v2alpha1"} {
			list, err := c.dynamic.Resource(schema.GroupVersionResource{Group: "cilium.io", Version: version, Resource: "ciliumloadbalancerippools"}).List(ctx, metav1.ListOptions{})
			if apierrors.IsNotFound(err) {
				continue
			}
			if err != nil {
				return err
			}
			for i := range list.Items {
				o.CiliumPools = append(o.CiliumPools, list.Items[i].GetName())
			}
			return nil
		}
		return nil
	},
	"validatingadmissionpolicies.admissionregistration.k8s.io": func(ctx context.Context, c *cluster, o *report.Objects) error {
		list, err := c.kube.AdmissionregistrationV1().ValidatingAdmissionPolicies().List(ctx, metav1.ListOptions{})
		if err == nil {
			o.Policies = pointers(list.Items)
		}
		return err
	},
	"validatingadmissionpolicybindings.admissionregistration.k8s.io": func(ctx context.Context, c *cluster, o *report.Objects) error {
		list, err := c.kube.AdmissionregistrationV1().ValidatingAdmissionPolicyBindings().List(ctx, metav1.ListOptions{})
		if err == nil {
			o.Bindings = pointers(list.Items)
		}
		return err
	},
}

// read reads resources concurrently. Resources that the user may not read are noted in Unseen.
func (c *cluster) read(ctx context.Context, resources ...string) (*report.Objects, error) {
	o := &report.Objects{}
	var mu sync.Mutex
	missing := "" // A resource of Herald that the API server does not know, the first by name.
	c.herald.OnDecodeError(func(err *client.DecodeError) { o.Unread = append(o.Unread, report.Clean(err.Error())) })
	g, ctx := errgroup.WithContext(ctx)
	for _, r := range resources {
		g.Go(func() error {
			err := listers[r](ctx, c, o) // Each lister writes a different field.
			if apierrors.IsForbidden(err) {
				mu.Lock()
				defer mu.Unlock()
				o.Unseen = append(o.Unseen, r)
				return nil
			}
			if apierrors.IsNotFound(err) && strings.HasSuffix(r, "."+herald.GroupVersion.Group) {
				mu.Lock()
				defer mu.Unlock()
				if missing == "" || r < missing {
					missing = r
				}
				return nil // An error would end the other requests, and client-go would log that.
			}
			if err != nil {
				return fmt.Errorf("list %s: %w", r, err)
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	if missing != "" {
		return nil, c.missing(missing)
	}
	slices.Sort(o.Unseen)
	slices.Sort(o.Unread)
	return o, nil
}

// missing returns why the API server does not know a resource of Herald.
func (c *cluster) missing(resource string) error {
	if _, err := c.kube.Discovery().ServerResourcesForGroupVersion(herald.GroupVersion.String()); apierrors.IsNotFound(err) {
		return errors.New("the CustomResourceDefinitions of herald.dev are missing, so Herald is not installed in this cluster: docs/install.md says how to install it; kubectl config current-context says which cluster this is")
	}
	return fmt.Errorf("the CustomResourceDefinition %s is missing: apply the manifests of this version, manifests/herald.yaml or the chart", resource)
}

// readAll is like read, and fails if the user may not read one of the resources.
func (c *cluster) readAll(ctx context.Context, resources ...string) (*report.Objects, error) {
	o, err := c.read(ctx, resources...)
	if err == nil {
		err = mayList(o, resources...)
	}
	return o, err
}

// mayList returns an error if some of these resources are unseen.
func mayList(o *report.Objects, resources ...string) error {
	unseen := slices.DeleteFunc(slices.Clone(o.Unseen), func(r string) bool { return !slices.Contains(resources, r) })
	if len(unseen) > 0 {
		return fmt.Errorf("you may not list %s: bind yourself to the ClusterRole herald-view, or to one that allows it", strings.Join(unseen, ", "))
	}
	return nil
}

// network reads what reports about announcements on the nodes' segments need, and the Leases in Herald's namespace.
func (c *cluster) network(ctx context.Context, own string) (*report.Objects, error) {
	o, err := c.readAll(ctx, "ippools.herald.dev", "ipallocations.herald.dev", "l2advertisements.herald.dev", "bgpadvertisements.herald.dev",
		"bgppeers.herald.dev", "speakerstatuses.herald.dev", "nodes", "namespaces", "services", "endpointslices.discovery.k8s.io")
	if err != nil {
		return nil, err
	}
	if err := c.grants(ctx, own, o); err != nil {
		return nil, err
	}
	return o, c.leases(ctx, own, o)
}

// grants reads the IPAddressClaims and IPAddresses in Herald's namespace if a pool needs them, or notes in Unseen that the user
// may not read them. If the API server does not know them, a condition of the pool says so.
func (c *cluster) grants(ctx context.Context, own string, o *report.Objects) error {
	if !slices.ContainsFunc(o.Pools, func(p *herald.IPPool) bool { return p.Spec.ExternalPoolRef != nil }) {
		return nil
	}
	for _, version := range provider.IPAMVersions {
		var lists [2][]*unstructured.Unstructured
		var err error
		for i, resource := range []string{"ipaddressclaims", "ipaddresses"} {
			var list *unstructured.UnstructuredList
			list, err = c.dynamic.Resource(schema.GroupVersionResource{Group: provider.IPAMGroup, Version: version, Resource: resource}).Namespace(own).List(ctx, metav1.ListOptions{})
			if apierrors.IsForbidden(err) {
				o.Unseen = append(o.Unseen, resource+"."+provider.IPAMGroup)
				slices.Sort(o.Unseen)
				return nil
			}
			if err != nil {
				break
			}
			lists[i] = pointers(list.Items)
		}
		switch {
		case err == nil:
			o.Grants = provider.GrantsOf(own, lists[0], lists[1], o.Pools, o.Allocations)
			return nil
		case !apierrors.IsNotFound(err):
			return fmt.Errorf("list objects of %s in %s: %w", provider.IPAMGroup, own, err)
		}
	}
	return nil
}

// leases reads the Leases of the speakers and of herald-ccm, or notes in Unseen that the user may not read them. Without them
// a report does not know which speakers run.
func (c *cluster) leases(ctx context.Context, own string, o *report.Objects) error {
	list, err := c.kube.CoordinationV1().Leases(own).List(ctx, metav1.ListOptions{})
	if apierrors.IsForbidden(err) {
		o.Unseen = append(o.Unseen, "leases.coordination.k8s.io")
		slices.Sort(o.Unseen)
		return nil
	}
	if err != nil {
		return fmt.Errorf("list leases.coordination.k8s.io in %s: %w", own, err)
	}
	o.Leases = pointers(list.Items)
	return nil
}

// service reads the objects that concern one Service. The administrator of a namespace may not read all of them.
func (c *cluster) service(ctx context.Context, name types.NamespacedName, own string) (*report.Objects, *corev1.Service, error) {
	svc, err := c.kube.CoreV1().Services(name.Namespace).Get(ctx, name.Name, metav1.GetOptions{})
	if err != nil {
		return nil, nil, err
	}
	o, err := c.read(ctx, "ippools.herald.dev", "ipallocations.herald.dev", "l2advertisements.herald.dev", "bgpadvertisements.herald.dev",
		"bgppeers.herald.dev", "speakerstatuses.herald.dev", "nodes", "namespaces", "services")
	if err != nil {
		return nil, nil, err
	}
	if err := c.leases(ctx, own, o); err != nil {
		return nil, nil, err
	}
	if err := c.grants(ctx, own, o); err != nil {
		return nil, nil, err
	}
	if slices.Contains(o.Unseen, "namespaces") {
		namespace, err := c.kube.CoreV1().Namespaces().Get(ctx, name.Namespace, metav1.GetOptions{})
		switch {
		case err == nil:
			o.Namespaces = append(o.Namespaces, namespace)
			o.Unseen = slices.DeleteFunc(o.Unseen, func(r string) bool { return r == "namespaces" })
		case !apierrors.IsForbidden(err):
			return nil, nil, err
		}
	}
	if slices.Contains(o.Unseen, "services") {
		o.Services = append(o.Services, svc)
	}
	// The Service, and those that share an address with it.
	owners := []types.NamespacedName{name}
	for _, rec := range o.Allocations {
		var with []types.NamespacedName
		for _, owner := range rec.Spec.Owners {
			with = append(with, types.NamespacedName{Namespace: owner.Namespace, Name: owner.Name})
		}
		if slices.Contains(with, name) {
			owners = append(owners, with...)
		}
	}
	slices.SortFunc(owners, func(x, y types.NamespacedName) int { return strings.Compare(x.String(), y.String()) })
	for _, owner := range slices.Compact(owners) {
		list, err := c.kube.DiscoveryV1().EndpointSlices(owner.Namespace).List(ctx, metav1.ListOptions{LabelSelector: discoveryv1.LabelServiceName + "=" + owner.Name})
		switch {
		case err == nil:
			o.Endpoints = append(o.Endpoints, pointers(list.Items)...)
		case !apierrors.IsForbidden(err):
			return nil, nil, err
		case owner == name:
			o.Unseen = append(o.Unseen, "endpointslices.discovery.k8s.io")
		}
	}
	o.Warnings = c.warnings(ctx, name)
	return o, svc, nil
}

// warnings returns the warning events of a Service, if they can be read.
func (c *cluster) warnings(ctx context.Context, name types.NamespacedName) []*corev1.Event {
	list, err := c.kube.CoreV1().Events(name.Namespace).List(ctx, metav1.ListOptions{
		FieldSelector: "type=Warning,involvedObject.kind=Service,involvedObject.name=" + name.Name,
	})
	if err != nil {
		return nil
	}
	return pointers(list.Items)
}

func pointers[T any](items []T) []*T {
	all := make([]*T, len(items))
	for i := range items {
		all[i] = &items[i]
	}
	return all
}
