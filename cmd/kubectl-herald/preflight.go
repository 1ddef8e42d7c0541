package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/cli-runtime/pkg/genericclioptions"

	herald "github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/cmd/kubectl-herald/internal/report"
)

func preflightCommand(a *access) *cobra.Command {
	var out output
	var ccm ccm
	var own, kustomize string
	files := genericclioptions.FileNameFlags{
		Usage: "Files, directories or URLs with the IPPools and advertisements that are to be applied, in YAML or JSON; - is standard input.", Filenames: &[]string{}, Kustomize: &kustomize, Recursive: new(bool),
	}
	cmd := &cobra.Command{
		Use:   "preflight [-f FILE]... [-k DIRECTORY]",
		Short: "Say what would go wrong with Herald on this cluster, before it is installed.",
		Long: `Say what would go wrong with Herald on this cluster, all at once, before it is installed or after: the version of Kubernetes,
kube-proxy, nodes, CustomResourceDefinitions, admission policies, Pod Security, other load balancers, Services that have
addresses already, the ranges of pools and whether nodes can announce them, ports of the nodes, and whether the nodes hear each other.

It reads with your own rights, and writes nothing. What could not be checked is marked with a question mark.

The exit code is 0 if there is no problem, 2 if there is one or Nodes or Services may not be read, and 1 if the cluster or a file cannot be read.`,
		Example: `  kubectl herald preflight
  kubectl herald preflight -f pools.yaml`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			from := files.ToOptions()
			wanted, _, err := readFiles(&from)
			if err != nil {
				return err
			}
			c, err := a.connect()
			if err != nil {
				return err
			}
			in, err := c.surroundings(cmd.Context(), own)
			if err != nil {
				return err
			}
			in.Wanted = wanted
			r, err := report.Preflight(in, ccm.get(), time.Now())
			if err != nil {
				return err
			}
			return out.conclude(cmd.OutOrStdout(), r, r.Text, r.Good())
		},
	}
	files.AddFlags(cmd.Flags())
	ccm.bind(cmd)
	bindOwn(cmd, &own)
	out.bind(cmd)
	return cmd
}

// surroundings reads the objects that preflight checks, with the Leases in Herald's own namespace. If
// the API server does not serve a resource in the version that a lister asks for, there are no objects
// of it.
func (c *cluster) surroundings(ctx context.Context, own string) (*report.Surroundings, error) {
	in := &report.Surroundings{Own: own}
	v, err := c.kube.Discovery().ServerVersion()
	if err != nil {
		return nil, fmt.Errorf("the version of the API server: %w", err)
	}
	in.Version = v.GitVersion
	// If an aggregated API does not respond, the result still has the others.
	if _, in.Served, err = c.kube.Discovery().ServerGroupsAndResources(); err != nil {
		if len(in.Served) == 0 {
			return nil, fmt.Errorf("the resources of the API server: %w", err)
		}
		in.NotServed = strings.ReplaceAll(err.Error(), "\n", "; ")
	}
	resources := sets.New("configmaps in kube-system")
	for version, names := range map[schema.GroupVersion][]string{
		{Version: "v1"}:                                        {"nodes", "namespaces", "services", "pods"},
		{Group: "apps", Version: "v1"}:                         {"daemonsets", "deployments"},
		{Group: "networking.k8s.io", Version: "v1"}:            {"servicecidrs"},
		{Group: "apiextensions.k8s.io", Version: "v1"}:         {"customresourcedefinitions"},
		{Group: "admissionregistration.k8s.io", Version: "v1"}: {"validatingadmissionpolicies", "validatingadmissionpolicybindings"},
		herald.GroupVersion:                                    {"ippools", "ipallocations", "l2advertisements", "bgpadvertisements", "bgppeers", "speakerstatuses"},
		{Group: "cilium.io", Version: "v2"}:                    {"ciliumloadbalancerippools"},
		{Group: "cilium.io", Version: "v2alpha1"}:              {"ciliumloadbalancerippools"},
	} {
		for _, name := range names {
			if in.Serves(version.String(), name) {
				resources.Insert(version.WithResource(name).GroupResource().String())
			}
		}
	}
	if in.Objects, err = c.read(ctx, resources.UnsortedList()...); err != nil {
		return nil, err
	}
	return in, c.leases(ctx, own, in.Objects)
}
