package main

import (
	"context"
	"slices"
	"time"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	herald "github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/ipam"
)

func explainCommand(a *access) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "explain",
		Short: "Say why something is as it is, and what to do about it.",
		Args:  cobra.NoArgs,
	}
	var output format
	var ccm ccm
	service := &cobra.Command{
		Use:     "service NAMESPACE/NAME",
		Aliases: []string{"svc"},
		Short:   "Say why a Service has what it has, or has nothing, and what to do about it.",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, name, err := a.connectFor(args[0])
			if err != nil {
				return err
			}
			s, err := c.situation(cmd.Context(), name)
			if err != nil {
				return err
			}
			report, err := s.explain(&ccm, time.Now())
			if err != nil {
				return err
			}
			return output.write(cmd.OutOrStdout(), report, func() string { return report.text(styleOf(cmd.OutOrStdout())) })
		},
	}
	ccm.bind(service)
	output.bind(service)
	cmd.AddCommand(service)
	return cmd
}

// situation is all that bears on a Service.
type situation struct {
	service   *corev1.Service
	namespace *corev1.Namespace
	endpoints []*discoveryv1.EndpointSlice

	pools   []*herald.IPPool       // Oldest first.
	records []*herald.IPAllocation // Oldest first.
	held    []ipam.Record

	l2       []*herald.L2Advertisement
	bgp      []*herald.BGPAdvertisement
	peers    []*herald.BGPPeer
	speakers []*herald.SpeakerStatus
	nodes    []*corev1.Node
}

func (c *cluster) situation(ctx context.Context, name types.NamespacedName) (*situation, error) {
	var s situation
	var err error
	core := c.kube.CoreV1()
	if s.service, err = core.Services(name.Namespace).Get(ctx, name.Name, metav1.GetOptions{}); err != nil {
		return nil, err
	}
	if s.namespace, err = core.Namespaces().Get(ctx, name.Namespace, metav1.GetOptions{}); err != nil {
		return nil, err
	}
	if s.pools, s.records, err = c.pools(ctx); err != nil {
		return nil, err
	}
	if s.held, err = recordsOf(s.records); err != nil {
		return nil, err
	}
	endpoints, err := c.kube.DiscoveryV1().EndpointSlices(name.Namespace).List(ctx, metav1.ListOptions{LabelSelector: discoveryv1.LabelServiceName + "=" + name.Name})
	if err != nil {
		return nil, err
	}
	nodes, err := core.Nodes().List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, err
	}
	l2, err := c.herald.L2Advertisements.List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, err
	}
	bgp, err := c.herald.BGPAdvertisements.List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, err
	}
	peers, err := c.herald.BGPPeers.List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, err
	}
	if s.speakers, err = c.speakers(ctx); err != nil {
		return nil, err
	}
	s.endpoints, s.nodes, s.l2 = pointers(endpoints.Items), pointers(nodes.Items), pointers(l2.Items)
	s.bgp, s.peers = pointers(bgp.Items), pointers(peers.Items)
	return &s, nil
}

// speakers reads the SpeakerStatuses.
func (c *cluster) speakers(ctx context.Context) ([]*herald.SpeakerStatus, error) {
	list, err := c.herald.SpeakerStatuses.List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, err
	}
	all := pointers(list.Items)
	for _, o := range all {
		printable(o)
	}
	return all, nil
}

// ready are the endpoints that are, and their nodes.
func (s *situation) ready() *endpointsReport {
	r := &endpointsReport{Nodes: []string{}, Local: s.service.Spec.ExternalTrafficPolicy == corev1.ServiceExternalTrafficPolicyLocal}
	for _, slice := range s.endpoints {
		for _, e := range slice.Endpoints {
			if e.Conditions.Ready != nil && !*e.Conditions.Ready {
				continue
			}
			r.Ready++
			if e.NodeName != nil && !slices.Contains(r.Nodes, *e.NodeName) {
				r.Nodes = append(r.Nodes, *e.NodeName)
			}
		}
	}
	slices.Sort(r.Nodes)
	return r
}
