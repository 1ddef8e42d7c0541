package main

import (
	"time"

	"github.com/spf13/cobra"

	"github.com/heraldlb/herald/cmd/kubectl-herald/internal/report"
)

func explainCommand(a *access) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "explain",
		Short: "Say why something is as it is, and what to do about it.",
	}
	var out output
	var ccm ccm
	var own string
	service := &cobra.Command{
		Use:     "service NAMESPACE/NAME",
		Aliases: []string{"svc"},
		Short:   "Say why a Service has its addresses or has none, who announces them, and what to do next.",
		Long: `Say why a Service has its addresses or has none, who announces them, and what to do next.

What is announced is decided by the same code as in the speakers, and compared with what the speakers report. What you may
not read is left out, and named.`,
		Args:              one("a Service"),
		ValidArgsFunction: a.services(),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, name, err := a.connectFor(args[0])
			if err != nil {
				return err
			}
			o, svc, err := c.service(cmd.Context(), name, own)
			if err != nil {
				return err
			}
			r, err := report.Explain(o, svc, ccm.get(), time.Now())
			if err != nil {
				return err
			}
			return out.write(cmd.OutOrStdout(), r, r.Text)
		},
	}
	ccm.bind(service)
	bindOwn(service, &own)
	out.bind(service)
	cmd.AddCommand(service)
	return cmd
}
