package main

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"github.com/spf13/cobra"

	"github.com/heraldlb/herald/cmd/kubectl-herald/internal/report"
	"github.com/heraldlb/herald/speaker/inspect"
)

func bgpCommand(a *access) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "bgp",
		Short: "Show the BGP sessions with routers, and what is announced to them.",
		Args:  cobra.NoArgs,
	}
	cmd.AddCommand(bgpPeersCommand(a), bgpRoutesCommand(a))
	return cmd
}

const asksSpeakers = `The command connects to the speakers at the InternalIP of each node, as kubectl herald verify does. You need the right to
create serviceaccounts/token for the ServiceAccount herald-viewer.`

// routing asks speakers about their sessions and routes.
type routing struct {
	speakers
	nodes []string
}

func (f *routing) bind(cmd *cobra.Command) {
	cmd.Flags().StringSliceVar(&f.nodes, "node", nil, "Nodes whose speakers are asked (default all).")
	f.speakers.bind(cmd)
}

// ask asks the speakers, and notes those that cannot be asked.
func (f *routing) ask(ctx context.Context, o *report.Objects, q inspect.RoutingQuery) (*report.Asked, error) {
	all, unasked, err := report.NewNetwork(o).Askable(f.nodes)
	if err != nil {
		return nil, err
	}
	if n := len(q.Peers); n > inspect.MaxPeers {
		return nil, fmt.Errorf("these are %d BGPPeers: name %d at most", n, inspect.MaxPeers)
	}
	query := url.Values{"limit": {fmt.Sprint(q.Limit)}, "peer": q.Peers}
	for _, p := range q.Prefixes {
		query.Add("prefix", p.String())
	}
	answers := make([]inspect.Routing, len(all))
	errs := make([]error, len(all))
	err = f.each(ctx, all, errs, func(ctx context.Context, i int) error {
		return f.speaker(all[i]).Exchange(ctx, http.MethodGet, "/bgp?"+query.Encode(), nil, &answers[i])
	})
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if err != nil { // Without a token, only the SpeakerStatuses are available.
		for i := range errs {
			errs[i] = err
		}
	}
	asked := &report.Asked{Answers: map[string]*inspect.Routing{}, Unasked: append(unasked, unaskedBy(all, errs)...)}
	for i, s := range all {
		if errs[i] == nil {
			asked.Answers[s.Node] = &answers[i]
		}
	}
	return asked, nil
}

func bgpPeersCommand(a *access) *cobra.Command {
	var out output
	var from routing
	cmd := &cobra.Command{
		Use:     "peers [NAME]...",
		Aliases: []string{"peer"},
		Short:   "Show the BGP sessions of the nodes, as their speakers have them, and what is wrong with them.",
		Long: `Show the BGP sessions of the nodes, as their speakers have them, and what is wrong with them: sessions that are down, with
the reason, paths that BFD has found dead, and routes that cannot be sent to a router. For BGPPeers that are named it shows
all that is known: the last error, timers, families and capabilities of both ends, and the measured intervals of BFD.

` + asksSpeakers + ` For a speaker that cannot be asked,
its SpeakerStatus is shown.

The exit code is 0 if nothing is wrong, 2 if something is, a speaker could not be asked or it has more sessions than it tells
of at once, and 1 if the cluster cannot be read.`,
		Example: `  kubectl herald bgp peers
  kubectl herald bgp peers tor-a --node node-3`,
		ValidArgsFunction: a.peers(),
		RunE: func(cmd *cobra.Command, args []string) error {
			var err error
			if from.cluster, err = a.connect(); err != nil {
				return err
			}
			o, err := from.readAll(cmd.Context(), "speakerstatuses.herald.dev", "nodes")
			if err != nil {
				return err
			}
			asked, err := from.ask(cmd.Context(), o, inspect.RoutingQuery{Peers: args})
			if err != nil {
				return err
			}
			r, err := report.Peers(o, asked, args, time.Now())
			if err != nil {
				return err
			}
			return out.conclude(cmd.OutOrStdout(), r, r.Text, len(r.Problems)+len(r.Unasked)+r.More == 0)
		},
	}
	from.bind(cmd)
	out.bind(cmd)
	return cmd
}

func bgpRoutesCommand(a *access) *cobra.Command {
	var out output
	var from routing
	var peers []string
	cmd := &cobra.Command{
		Use:     "routes [ADDRESS | PREFIX | NAMESPACE/NAME]...",
		Aliases: []string{"route"},
		Short:   "Show which routes are announced to which routers by which nodes, what is not announced, and why.",
		Long: `Show which routes are announced to which routers by which nodes, what is not announced, and why: of the addresses, the
prefixes or the Services that are named, or of all. The command computes the routes that each node should announce with the
code of the speakers, and compares them with the actual routes, and the nodes with each other. For what is named it also
says which nodes do not announce it and should not.

` + asksSpeakers + `

The exit code is 0 if nothing is wrong, 2 if something is, a speaker could not be asked or it has more routes than it reports
at once, and 1 if the cluster cannot be read.`,
		Example: `  kubectl herald bgp routes
  kubectl herald bgp routes 198.51.100.7 --peer tor-a
  kubectl herald bgp routes default/web -o json`,
		ValidArgsFunction: a.completion(0, serviceNames),
		RunE: func(cmd *cobra.Command, args []string) error {
			var err error
			if from.cluster, err = a.connect(); err != nil {
				return err
			}
			o, err := from.read(cmd.Context(), "ippools.herald.dev", "ipallocations.herald.dev", "bgpadvertisements.herald.dev", "l2advertisements.herald.dev",
				"bgppeers.herald.dev", "speakerstatuses.herald.dev", "nodes", "namespaces", "services", "endpointslices.discovery.k8s.io")
			if err != nil {
				return err
			}
			if err := mayList(o, "speakerstatuses.herald.dev", "nodes"); err != nil {
				return err
			}
			prefixes, err := report.PrefixesOf(o, args, from.named)
			if err != nil {
				return err
			}
			asked, err := from.ask(cmd.Context(), o, inspect.RoutingQuery{Prefixes: prefixes, Peers: peers, Limit: inspect.MaxRoutes})
			if err != nil {
				return err
			}
			r, err := report.Routes(o, asked, &report.RoutesQuery{Prefixes: prefixes, Peers: peers, Nodes: from.nodes}, time.Now())
			if err != nil {
				return err
			}
			return out.conclude(cmd.OutOrStdout(), r, r.Text, len(r.Problems)+len(r.Unasked)+r.More == 0)
		},
	}
	cmd.Flags().StringSliceVar(&peers, "peer", nil, "BGPPeers that the routes are for (default all).")
	from.bind(cmd)
	out.bind(cmd)
	return cmd
}
