package main

import (
	"context"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/heraldlb/herald/cmd/kubectl-herald/internal/report"
	"github.com/heraldlb/herald/speaker/inspect"
)

// secondLook is how long after the first questions the addresses with findings are asked for again. By then the
// SpeakerStatuses, which are written once a second, show addresses that have moved in the meantime.
const secondLook = 2 * time.Second

func verifyCommand(a *access) *cobra.Command {
	var out output
	var v verifier
	var from []string
	cmd := &cobra.Command{
		Use:   "verify [ADDRESS]...",
		Short: "Have the speakers ask their segments who answers for addresses.",
		Long: `Have the speakers ask their segments, by ARP and NDP, who answers for addresses: for those that are given, or all that
L2Advertisements announce. Only the owner of an address should answer. If something is wrong, the speakers ask again
two seconds later, and a problem is reported if it is still there: two nodes that answer for one address, one that answers
and is not the owner, a machine that is not a speaker, and silence. If a speaker cannot be asked a second time, its first
result is reported.

The command connects to the speakers at the InternalIP of each node, and verifies each by the key in its SpeakerStatus. It
authenticates with a token of the ServiceAccount herald-viewer that only speakers accept. You need the right to create
serviceaccounts/token for this ServiceAccount.

The exit code is 0 if nothing is wrong, 2 if something is, a speaker could not be asked or nobody asked for an address, and
1 if the cluster cannot be read.`,
		Example: `  kubectl herald verify
  kubectl herald verify 198.51.100.7 --from node-3`,
		RunE: func(cmd *cobra.Command, args []string) error {
			var err error
			if v.cluster, err = a.connect(); err != nil {
				return err
			}
			r, err := v.verify(cmd.Context(), args, from)
			if err != nil {
				return err
			}
			return out.conclude(cmd.OutOrStdout(), r, r.Text, r.Good())
		},
	}
	cmd.Flags().StringSliceVar(&from, "from", nil, "Nodes whose speakers are to ask (default all).")
	v.bind(cmd)
	out.bind(cmd)
	return cmd
}

// verifier verifies announcements with the help of the speakers.
type verifier struct{ speakers }

// verify asks for the given addresses, or for all if none is given, and a second time for those with findings.
func (v *verifier) verify(ctx context.Context, addresses, from []string) (*report.VerifyReport, error) {
	n, at, err := v.view(ctx)
	if err != nil {
		return nil, err
	}
	wanted, err := n.Wanted(addresses)
	if err != nil {
		return nil, err
	}
	speakers, unasked, err := n.Askable(from)
	if err != nil {
		return nil, err
	}
	answers, failed, err := v.ask(ctx, speakers, wanted)
	if err != nil {
		return nil, err
	}
	r := n.Verify(wanted, answers, at)
	r.AddUnasked(unasked)
	r.AddUnasked(failed)
	r.Speakers, r.Addresses = len(speakers)-len(failed), len(wanted)
	if len(r.Findings) == 0 {
		return r, nil
	}
	speakers = slices.DeleteFunc(speakers, func(x report.Askee) bool {
		return len(answers[x.Node]) == 0 && slices.ContainsFunc(failed, func(u report.Unasked) bool { return u.Node == x.Node })
	})
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-time.After(secondLook):
	}
	if n, at, err = v.view(ctx); err != nil {
		return nil, err
	}
	wanted = n.Again(addresses, r)
	if answers, failed, err = v.ask(ctx, speakers, wanted); err != nil {
		return nil, err
	}
	r.Confirm(n.Verify(wanted, answers, at), failed)
	return r, nil
}

// view reads the cluster. The time is that of the reading: to ask takes long in a large cluster, and Leases are renewed
// meanwhile.
func (v *verifier) view(ctx context.Context) (n *report.Network, at time.Time, err error) {
	o, err := v.network(ctx, v.own)
	if err != nil {
		return nil, at, err
	}
	return report.NewNetwork(o), time.Now(), nil
}

// ask makes the speakers ask for addresses. It returns what each of them has heard, by node, and which speakers could not
// be asked.
func (v *verifier) ask(ctx context.Context, speakers []report.Askee, wanted []report.Announcement) (map[string][]inspect.Answer, []report.Unasked, error) {
	var questions []inspect.Question
	for _, a := range wanted {
		if q, ok := a.Question(); ok {
			questions = append(questions, q)
		}
	}
	answers := make([][]inspect.Answer, len(speakers))
	errs := make([]error, len(speakers))
	for batch := range slices.Chunk(questions, inspect.MaxQuestions) {
		err := v.each(ctx, speakers, errs, func(ctx context.Context, i int) error {
			heard, err := v.speaker(speakers[i]).Verify(ctx, batch)
			answers[i] = append(answers[i], heard...)
			return err
		})
		if err != nil {
			return nil, nil, err
		}
	}
	by := map[string][]inspect.Answer{}
	for i, s := range speakers {
		by[s.Node] = answers[i]
	}
	return by, unaskedBy(speakers, errs), nil
}
