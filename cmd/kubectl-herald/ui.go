package main

import (
	"context"
	"crypto/rand"
	"fmt"
	"net"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/heraldlb/herald/cmd/kubectl-herald/internal/report"
	"github.com/heraldlb/herald/cmd/kubectl-herald/internal/ui"
)

func uiCommand(a *access) *cobra.Command {
	var ccm ccm
	var own string
	var port uint16
	cmd := &cobra.Command{
		Use:   "ui",
		Short: "Show nodes, addresses, pools and BGP sessions in the browser, as they change.",
		Long: `Serve a page on this machine that shows what needs attention, how nodes, routers and segments are connected, who owns and
who announces which address, the pools, the BGP sessions, and failovers as they happen. For each Service it says what
kubectl herald explain service says.

The page shows what you may read by your own account. It is served on the loopback interface, until the command is
interrupted, to those who know the address that the command prints. The cluster is read once for all pages, and only
while one is visible.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.connect()
			if err != nil {
				return err
			}
			read := func(ctx context.Context) (*report.Objects, error) { return c.network(ctx, own) }
			if _, err := read(cmd.Context()); err != nil {
				return err
			}
			var listen net.ListenConfig
			l, err := listen.Listen(cmd.Context(), "tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(int(port))))
			if err != nil {
				return fmt.Errorf("--port: %w: choose another one, or 0 for any that is free", err)
			}
			token := rand.Text()
			fmt.Fprintf(cmd.OutOrStdout(), "Open http://%s/%s/ in a browser on this machine. Press Ctrl-C to end.\n", l.Addr(), token)
			return ui.Serve(cmd.Context(), l, token, ui.Source{Cluster: a.clusterName(), Read: read, Warnings: c.warnings, CCM: ccm.get()})
		},
	}
	cmd.Flags().Uint16Var(&port, "port", 0, "The port to listen on, on 127.0.0.1 (default any that is free).")
	ccm.bind(cmd)
	bindOwn(cmd, &own)
	return cmd
}

// clusterName returns the user's name for the cluster: the context of the kubeconfig or, without one,
// the server.
func (a *access) clusterName() string {
	loader := a.ToRawKubeConfigLoader()
	if a.Context != nil && *a.Context != "" {
		return *a.Context
	}
	if raw, err := loader.RawConfig(); err == nil && raw.CurrentContext != "" {
		return raw.CurrentContext
	}
	if config, err := loader.ClientConfig(); err == nil {
		return config.Host
	}
	return ""
}
