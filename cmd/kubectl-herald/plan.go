package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
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
		Usage: "Files, directories or URLs with IPPools, in YAML or JSON; - is standard input.", Filenames: &[]string{}, Kustomize: &kustomize, Recursive: new(bool),
	}
	var ccm ccm
	cmd := &cobra.Command{
		Use:   "plan [-f FILE]... [-k DIRECTORY] [--delete NAME]...",
		Short: "Say what a change of pools would do, before it is made.",
		Long: `Say what a change of pools would do, before it is made: which Services keep their addresses, which addresses
would be out of range of their pool, which Services that wait now would be served and with which address, and what
becomes of each pool. Nothing is written.

The cluster's pools are the base. Each IPPool in the files takes the place of the one of its name, or is added.

The exit code is 0 if nothing is lost; 2 if an address in use would newly be out of range or would no longer be announced, if
a pool in the files would be invalid, or if an object of the cluster cannot be read; and 1 if the plan cannot be made.`,
		Example: `  kubectl herald plan -f pools.yaml
  kubectl herald plan --delete old-pool -o json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			from := files.ToOptions()
			if len(from.Filenames) == 0 && from.Kustomize == "" && len(deletions) == 0 {
				return errors.New("there is nothing to plan: give IPPools with -f or -k, or --delete NAME")
			}
			wanted, others, err := readPools(&from)
			if err != nil {
				return err
			}
			c, err := a.connect()
			if err != nil {
				return err
			}
			o, err := c.readAll(cmd.Context(), "ippools.herald.dev", "ipallocations.herald.dev", "services", "namespaces",
				"nodes", "bgppeers.herald.dev", "speakerstatuses.herald.dev")
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
				fmt.Fprintln(cmd.ErrOrStderr(), "Objects of other kinds than IPPool are not looked at:", others)
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

// readPools reads IPPools from files as kubectl does, and counts the objects of other kinds.
func readPools(from *resource.FilenameOptions) (pools []*herald.IPPool, others int, err error) {
	if len(from.Filenames) == 0 && from.Kustomize == "" {
		return nil, 0, nil
	}
	read := resource.NewLocalBuilder().Unstructured().FilenameParam(false, from).Flatten().Do()
	err = read.Visit(func(info *resource.Info, err error) error {
		if err != nil {
			return err
		}
		p, err := poolFrom(info.Object.(*unstructured.Unstructured))
		switch {
		case err != nil:
			return fmt.Errorf("%s: %w", info.Source, err)
		case p == nil:
			others++
		case slices.ContainsFunc(pools, func(o *herald.IPPool) bool { return o.Name == p.Name }):
			return fmt.Errorf("%s: IPPool %s is there twice: leave one out", info.Source, p.Name)
		default:
			pools = append(pools, p)
		}
		return nil
	})
	return pools, others, err
}

// poolFrom decodes an IPPool, and sets the defaults of the API server. It returns nil if the object is of another
// kind.
func poolFrom(u *unstructured.Unstructured) (*herald.IPPool, error) {
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
	p, ok := object.(*herald.IPPool)
	if !ok {
		return nil, nil
	}
	if p.Name == "" {
		return nil, errors.New("metadata.name is empty: name the IPPool")
	}
	p.Spec = report.WithDefaults(p.Spec)
	return p, nil
}
