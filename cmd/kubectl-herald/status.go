package main

import (
	"time"

	"github.com/spf13/cobra"
)

func statusCommand(a *access) *cobra.Command {
	var output format
	var own string
	var list bool
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show what needs attention, the nodes with their segments, and who owns which address.",
		Long: `Show what needs attention, the nodes with their segments, and who owns which address on them.

It is what the speakers report of themselves and of each other. kubectl herald verify has them ask the segments.

The exit code is 0 if nothing needs attention, 2 if something does, and 1 if the cluster cannot be read.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.connect()
			if err != nil {
				return err
			}
			n, err := c.network(cmd.Context(), own)
			if err != nil {
				return err
			}
			now := time.Now()
			report := n.status(now)
			if err := output.write(cmd.OutOrStdout(), report, func() string { return report.text(styleOf(cmd.OutOrStdout()), list, now) }); err != nil {
				return err
			}
			if len(report.Problems) > 0 {
				return errAttention
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&list, "addresses", false, "List the addresses with their owners. With -o they are always listed.")
	bindOwn(cmd, &own)
	output.bind(cmd)
	return cmd
}

// bindOwn adds the flag that names Herald's own namespace.
func bindOwn(cmd *cobra.Command, own *string) {
	cmd.Flags().StringVar(own, "herald-namespace", "herald-system", "The namespace in which Herald runs.")
}
