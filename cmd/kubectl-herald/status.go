package main

import (
	"time"

	"github.com/spf13/cobra"

	"github.com/heraldlb/herald/cmd/kubectl-herald/internal/report"
)

func statusCommand(a *access) *cobra.Command {
	var out output
	var ccm ccm
	var own string
	var list bool
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show what needs attention, the nodes with their segments, and who owns which address.",
		Long: `Show what needs attention, the nodes with their segments, and which node owns which address on them.

This is what the speakers report of themselves and of each other, which Services wait, what the conditions of Herald's
objects say, and whether herald-ccm runs. kubectl herald verify has the speakers ask the segments.

The exit code is 0 if nothing needs attention, 2 if something does, and 1 if the cluster cannot be read.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.connect()
			if err != nil {
				return err
			}
			o, err := c.network(cmd.Context(), own)
			if err != nil {
				return err
			}
			now := time.Now()
			r := report.Status(o, ccm.get(), now)
			return out.conclude(cmd.OutOrStdout(), r, func(s report.Style) string { return r.Text(s, list, now) }, len(r.Problems) == 0)
		},
	}
	cmd.Flags().BoolVar(&list, "addresses", false, "List the addresses with their owners. With -o they are always listed.")
	ccm.bindServices(cmd)
	bindOwn(cmd, &own)
	out.bind(cmd)
	return cmd
}
