// Command kubectl-herald is Herald's plugin for kubectl. Package internal/report computes its output; this package has its
// commands and flags, and reads the cluster.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"k8s.io/cli-runtime/pkg/genericclioptions"

	"github.com/heraldlb/herald/cmd/internal/version"
)

func main() { os.Exit(run()) }

// errAttention is returned by a command that has found, and printed, something that needs attention.
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
	cmd.AddCommand(poolsCommand(&a), planCommand(&a), renumberCommand(&a), explainCommand(&a), statusCommand(&a), bgpCommand(&a), verifyCommand(&a))
	cmd.AddCommand(uiCommand(&a), preflightCommand(&a), importCommand(&a), takeoverCommand(&a), bundleCommand(&a))
	for _, c := range cmd.Commands() {
		if c.HasSubCommands() {
			wantsSubcommand(c)
		}
	}
	a.completeFlags(cmd)
	cmd.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return fmt.Errorf("%w: %s --help lists the flags", err, cmd.CommandPath())
	})
	return cmd
}

// one accepts exactly one argument, what. If there are valid arguments, it must be one of them.
func one(what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		valid := strings.Join(cmd.ValidArgs, ", ")
		switch {
		case len(args) == 0 && valid != "":
			return fmt.Errorf("name %s: %s", what, valid)
		case len(args) == 0:
			return fmt.Errorf("name %s: %s", what, cmd.UseLine())
		case len(args) > 1:
			return fmt.Errorf("%q is one argument too many: %s", args[1], cmd.UseLine())
		case valid != "" && !slices.Contains(cmd.ValidArgs, args[0]):
			return fmt.Errorf("%q is not %s that %s knows: write one of %s", args[0], what, cmd.CommandPath(), valid)
		}
		return nil
	}
}

// wantsSubcommand makes a command without an action of its own fail if it is called without a subcommand. Otherwise cobra
// would print help and return no error.
func wantsSubcommand(cmd *cobra.Command) {
	cmd.Args = cobra.ArbitraryArgs
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		what := "does nothing by itself"
		if len(args) > 0 {
			what = fmt.Sprintf("has no subcommand %q", args[0])
		}
		var known []string
		for _, c := range cmd.Commands() {
			known = append(known, cmd.CommandPath()+" "+c.Use)
		}
		return fmt.Errorf("%s %s: write %s", cmd.CommandPath(), what, strings.Join(known, ", or "))
	}
}
