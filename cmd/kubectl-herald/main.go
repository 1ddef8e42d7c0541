// Command kubectl-herald is Herald's plugin for kubectl. What it says is computed in internal/report; here are its commands,
// its flags and what they read of the cluster.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
	"k8s.io/cli-runtime/pkg/genericclioptions"

	"github.com/heraldlb/herald/cmd/internal/version"
)

func main() { os.Exit(run()) }

// errAttention ends a command that has found something that needs attention, and has printed it.
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
	a := access{genericclioptions.NewConfigFlags(true)}
	cmd := &cobra.Command{
		Use:           "kubectl-herald",
		Annotations:   map[string]string{cobra.CommandDisplayNameAnnotation: "kubectl herald"},
		Short:         "Show what Herald does with addresses, and what a change would do.",
		Version:       version.String(),
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	a.AddFlags(cmd.PersistentFlags())
	cmd.AddCommand(poolsCommand(&a), planCommand(&a), renumberCommand(&a), explainCommand(&a), statusCommand(&a), verifyCommand(&a))
	a.completeFlags(cmd)
	return cmd
}
