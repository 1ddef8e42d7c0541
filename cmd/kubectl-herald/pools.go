package main

import (
	"github.com/spf13/cobra"

	"github.com/heraldlb/herald/cmd/kubectl-herald/internal/report"
)

func poolsCommand(a *access) *cobra.Command {
	var out output
	cmd := &cobra.Command{
		Use:               "pools [NAME]",
		Short:             "Show the capacity and the use of pools, and what needs attention.",
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: a.pools(),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.connect()
			if err != nil {
				return err
			}
			o, err := c.readAll(cmd.Context(), "ippools.herald.dev", "ipallocations.herald.dev")
			if err != nil {
				return err
			}
			r := report.Pools(o)
			if len(args) > 0 {
				if r, err = r.Only(args[0]); err != nil {
					return err
				}
			}
			return out.write(cmd.OutOrStdout(), r, r.Text)
		},
	}
	out.bind(cmd)
	return cmd
}
