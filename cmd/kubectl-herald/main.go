// Command kubectl-herald is Herald's plugin for kubectl: kubectl herald shows what becomes of addresses, says
// beforehand what a change of pools would do, and has Services move off their addresses.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/heraldlb/herald/cmd/internal/version"
)

func main() { os.Exit(run()) }

// errAttention ends a command that has found what needs attention. It is no failure, and has been told already.
var errAttention = errors.New("something needs attention")

func run() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := command().ExecuteContext(ctx)
	switch {
	case errors.Is(err, errAttention):
		return 2
	case err != nil:
		fmt.Fprintln(os.Stderr, "error:", err)
		return 1
	}
	return 0
}

func command() *cobra.Command {
	var a access
	cmd := &cobra.Command{
		Use:           "kubectl-herald",
		Annotations:   map[string]string{cobra.CommandDisplayNameAnnotation: "kubectl herald"},
		Short:         "See what Herald does with addresses, and what it would do.",
		Version:       version.String(),
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	cmd.CompletionOptions.DisableDefaultCmd = true
	flags := cmd.PersistentFlags()
	flags.StringVar(&a.kubeconfig, "kubeconfig", "", "The kubeconfig to use (default $KUBECONFIG, or ~/.kube/config).")
	flags.StringVar(&a.context, "context", "", "The kubeconfig's context to use.")
	flags.StringVarP(&a.namespace, "namespace", "n", "", "The namespace of a Service that is named without one.")
	cmd.AddCommand(poolsCommand(&a), planCommand(&a), renumberCommand(&a), explainCommand(&a), statusCommand(&a), verifyCommand(&a))
	return cmd
}
