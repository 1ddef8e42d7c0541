package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/spf13/cobra"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	jsonserializer "k8s.io/apimachinery/pkg/runtime/serializer/json"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	"k8s.io/cli-runtime/pkg/resource"

	"github.com/heraldlb/herald/api/client"
	herald "github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/cmd/kubectl-herald/internal/report"
)

func planCommand(a *access) *cobra.Command {
	var out output
	var deletions []string
	var kustomize, own string
	files := genericclioptions.FileNameFlags{
		Usage: "Files, directories or URLs with IPPools and advertisements, in YAML or JSON; - is standard input.", Filenames: &[]string{}, Kustomize: &kustomize, Recursive: new(bool),
	}
	var ccm ccm
	cmd := &cobra.Command{
		Use:   "plan [-f FILE]... [-k DIRECTORY] [--delete NAME]...",
		Short: "Say what a change of pools would do, before it is made.",
		Long: `Say what a change of pools would do, before it is made: which Services keep their addresses, which addresses
would be out of range of their pool, which Services that wait now would be served and with which address, and what
becomes of each pool. A warning says if L2Advertisements would announce addresses that are in no subnet of the nodes;
whether an edited advertisement would still announce the addresses in use is not planned. Nothing is written.

The cluster's pools and advertisements are the base. Each IPPool, L2Advertisement and BGPAdvertisement in the files takes the
place of the one of its name, or is added.

The exit code is 0 if nothing is lost; 2 if an address in use would newly be out of range, if one that another controller gave
would no longer be announced, if a pool in the files would be invalid, or if an object of the cluster cannot be read; and 1 if
the plan cannot be made.`,
		Example: `  kubectl herald plan -f pools.yaml
  kubectl herald plan --delete old-pool -o json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			from := files.ToOptions()
			if len(from.Filenames) == 0 && from.Kustomize == "" && len(deletions) == 0 {
				return errors.New("there is nothing to plan: give IPPools with -f or -k, or --delete NAME")
			}
			wanted, others, err := readFiles(&from)
			if err != nil {
				return err
			}
			c, err := a.connect()
			if err != nil {
				return err
			}
			o, err := c.readAll(cmd.Context(), "ippools.herald.dev", "ipallocations.herald.dev", "services", "namespaces",
				"nodes", "l2advertisements.herald.dev", "bgpadvertisements.herald.dev", "bgppeers.herald.dev", "speakerstatuses.herald.dev")
			if err != nil {
				return err
			}
			if err := c.grants(cmd.Context(), own, o); err != nil {
				return err
			}
			r, err := report.Plan(o, ccm.get(), wanted, deletions)
			if err != nil {
				return err
			}
			if others > 0 {
				fmt.Fprintln(cmd.ErrOrStderr(), "Objects of other kinds than IPPool, L2Advertisement and BGPAdvertisement are not looked at:", others)
			}
			if len(wanted.L2Advertisements)+len(wanted.BGPAdvertisements) > 0 {
				fmt.Fprintln(cmd.ErrOrStderr(), "Advertisements are only compared with the subnets of the nodes: addresses that would no longer be announced are not named.")
			}
			if err := out.write(cmd.OutOrStdout(), r, r.Text); err != nil {
				return err
			}
			if r.Loses || len(r.Unread) > 0 {
				return errAttention
			}
			return nil
		},
	}
	files.AddFlags(cmd.Flags())
	cmd.Flags().StringArrayVar(&deletions, "delete", nil, "An IPPool that would be deleted.")
	ccm.bind(cmd)
	bindOwn(cmd, &own)
	out.bind(cmd)
	return cmd
}

// strict is a decoder that refuses unknown fields, which are typing errors.
var strict = jsonserializer.NewSerializerWithOptions(jsonserializer.DefaultMetaFactory, client.Scheme, client.Scheme, jsonserializer.SerializerOptions{Strict: true})

// readFiles reads IPPools and advertisements from files as kubectl does, and counts the objects of other kinds.
func readFiles(from *resource.FilenameOptions) (wanted report.Wanted, others int, err error) {
	if len(from.Filenames) == 0 && from.Kustomize == "" {
		return wanted, 0, nil
	}
	read := resource.NewLocalBuilder().Unstructured().FilenameParam(false, from).Flatten().Do()
	err = read.Visit(func(info *resource.Info, err error) error {
		if err != nil {
			return err
		}
		o, err := objectFrom(info.Object.(*unstructured.Unstructured))
		switch o := o.(type) {
		case *herald.IPPool:
			o.Spec = report.WithDefaults(o.Spec)
			wanted.Pools, err = added(wanted.Pools, o, "IPPool")
		case *herald.L2Advertisement:
			wanted.L2Advertisements, err = added(wanted.L2Advertisements, o, "L2Advertisement")
		case *herald.BGPAdvertisement:
			wanted.BGPAdvertisements, err = added(wanted.BGPAdvertisements, o, "BGPAdvertisement")
		default:
			others++
		}
		if err != nil {
			return fmt.Errorf("%s: %w", info.Source, err)
		}
		return nil
	})
	return wanted, others, err
}

// added appends an object that must have a name, and one that no object of the list has.
func added[T metav1.Object](all []T, o T, kind string) ([]T, error) {
	if o.GetName() == "" {
		return all, fmt.Errorf("metadata.name is empty: name the %s", kind)
	}
	if slices.ContainsFunc(all, func(x T) bool { return x.GetName() == o.GetName() }) {
		return all, fmt.Errorf("%s %s is there twice: leave one out", kind, o.GetName())
	}
	return append(all, o), nil
}

// objectFrom decodes an object of Herald. It returns nil if the object is not Herald's.
func objectFrom(u *unstructured.Unstructured) (runtime.Object, error) {
	if u.GroupVersionKind().Group != herald.GroupVersion.Group {
		return nil, nil
	}
	text, err := json.Marshal(u)
	if err != nil {
		return nil, err
	}
	object, _, err := strict.Decode(text, nil, nil)
	if err != nil {
		return nil, err
	}
	return object, nil
}
