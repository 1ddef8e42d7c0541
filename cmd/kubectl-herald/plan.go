package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	herald "github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/ipam"
	"github.com/heraldlb/herald/provider"
)

func planCommand(a *access) *cobra.Command {
	var output format
	var files, deletions []string
	var ccm ccm
	cmd := &cobra.Command{
		Use:   "plan [-f FILE]... [--delete NAME]...",
		Short: "Say what a change of pools would do, before it is made.",
		Long: `Say what a change of pools would do, before it is made: which Services keep their addresses, which addresses
would be out of range of their pool, which Services that wait now would be served and with which address, and what
becomes of each pool. Nothing is written.

The cluster's pools are the base. Each IPPool in the files takes the place of the one of its name, or is added.

The exit code is 0 if nothing is lost, 2 if an address in use would be out of range or a pool invalid, and 1 if the
plan cannot be made.`,
		Example: `  kubectl herald plan -f pools.yaml
  kubectl herald plan --delete old-pool -o json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if len(files)+len(deletions) == 0 {
				return errors.New("there is nothing to plan: give IPPools with -f, or --delete NAME")
			}
			wanted, err := readFiles(files, cmd.InOrStdin())
			if err != nil {
				return err
			}
			c, err := a.connect()
			if err != nil {
				return err
			}
			now, err := c.state(cmd.Context(), &ccm)
			if err != nil {
				return err
			}
			report, err := now.plan(wanted.pools, deletions)
			if err != nil {
				return err
			}
			if wanted.others > 0 {
				fmt.Fprintln(cmd.ErrOrStderr(), count(wanted.others, "document", "documents"), "of other kinds not looked at: a plan is about IPPools.")
			}
			if err := output.write(cmd.OutOrStdout(), report, func() string { return report.text(styleOf(cmd.OutOrStdout())) }); err != nil {
				return err
			}
			if report.Loses {
				return errAttention
			}
			return nil
		},
	}
	cmd.Flags().StringArrayVarP(&files, "filename", "f", nil, "A file with IPPools, in YAML or JSON; - is standard input.")
	cmd.Flags().StringArrayVar(&deletions, "delete", nil, "An IPPool that would be deleted.")
	ccm.bind(cmd)
	output.bind(cmd)
	return cmd
}

// state is what a plan starts from.
type state struct {
	pools   []*herald.IPPool       // Oldest first.
	records []*herald.IPAllocation // Oldest first.
	held    []ipam.Record          // What the records say.
	asks    []ipam.Ask             // Oldest first.
	// misread are the Services whose wishes cannot be read, and why.
	misread []waitingReport
}

func (c *cluster) state(ctx context.Context, ccm *ccm) (*state, error) {
	var s state
	var err error
	if s.pools, s.records, err = c.pools(ctx); err != nil {
		return nil, err
	}
	if s.held, err = recordsOf(s.records); err != nil {
		return nil, err
	}
	services, err := c.kube.CoreV1().Services(metav1.NamespaceAll).List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, err
	}
	list, err := c.kube.CoreV1().Namespaces().List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, err
	}
	namespaces := map[string]*corev1.Namespace{}
	for _, n := range pointers(list.Items) {
		namespaces[n.Name] = n
	}
	ours := slices.DeleteFunc(pointers(services.Items), func(svc *corev1.Service) bool {
		return svc.DeletionTimestamp != nil || !ccm.serves(svc)
	})
	slices.SortFunc(ours, func(x, y *corev1.Service) int { return provider.Older(x, y) })
	for _, svc := range ours {
		req, err := provider.RequestOf(svc, namespaces[svc.Namespace], ccm.quota.Limits)
		if err != nil {
			s.misread = append(s.misread, waitingReport{svc.Namespace + "/" + svc.Name, err.Error()})
			continue
		}
		s.asks = append(s.asks, ipam.Ask{Request: req, Carried: provider.Carried(svc)})
	}
	return &s, nil
}

// recordsOf is what records say is held.
func recordsOf(records []*herald.IPAllocation) ([]ipam.Record, error) {
	held := make([]ipam.Record, 0, len(records))
	for _, rec := range records {
		address, tenants, err := provider.TenantsOf(rec)
		if err != nil {
			return nil, fmt.Errorf("IPAllocation %s: %w", rec.Name, err)
		}
		held = append(held, ipam.Record{Address: address, Pool: rec.Spec.Pool, Tenants: tenants})
	}
	return held, nil
}

// plan says what it would do to apply and delete these pools.
func (s *state) plan(wanted []*herald.IPPool, deletions []string) (*planReport, error) {
	then, err := s.edited(wanted, deletions)
	if err != nil {
		return nil, err
	}
	before, _ := usablePools(s.pools)
	after, invalid := usablePools(then)
	effect, err := ipam.Plan(before, after, s.held, s.asks)
	if err != nil {
		return nil, err
	}
	return s.report(then, invalid, effect), nil
}

// edited are the pools as they would be, oldest first. New ones are made within one second, and so are ordered by name.
func (s *state) edited(wanted []*herald.IPPool, deletions []string) ([]*herald.IPPool, error) {
	then := slices.Clone(s.pools)
	at := func(name string) int {
		return slices.IndexFunc(then, func(o *herald.IPPool) bool { return o.Name == name })
	}
	for _, w := range slices.SortedFunc(slices.Values(wanted), func(x, y *herald.IPPool) int { return strings.Compare(x.Name, y.Name) }) {
		i := at(w.Name)
		if i < 0 {
			then = append(then, &herald.IPPool{ObjectMeta: metav1.ObjectMeta{Name: w.Name}, Spec: w.Spec})
			continue
		}
		o := *then[i]
		o.Spec = w.Spec
		then[i] = &o
	}
	for _, name := range deletions {
		i := at(name)
		switch {
		case i < 0:
			return nil, fmt.Errorf("--delete: there is no IPPool %q: kubectl herald pools shows all", name)
		case slices.ContainsFunc(wanted, func(w *herald.IPPool) bool { return w.Name == name }):
			return nil, fmt.Errorf("--delete: IPPool %q is in a file, too: leave it out in one of them", name)
		}
		if !s.inUse(then[i]) {
			then = slices.Delete(then, i, i+1)
			continue
		}
		o, now := *then[i], metav1.Now()
		o.DeletionTimestamp = &now // Its finalizer keeps it, closed, until its last address is free.
		then[i] = &o
	}
	return then, nil
}

// inUse reports whether an address of the pool is held, or one is recorded for it.
func (s *state) inUse(o *herald.IPPool) bool {
	homes := homesOf(s.pools)
	return slices.ContainsFunc(s.held, func(r ipam.Record) bool {
		in, _ := homes.PoolOf(r.Address)
		return r.Pool == o.Name || in == o.Name
	})
}
