package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"

	herald "github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/cmd/kubectl-herald/internal/report"
	"github.com/heraldlb/herald/provider"
)

func renumberCommand(a *access) *cobra.Command {
	var timeout time.Duration
	var dry bool
	var ccm ccm
	var own string
	cmd := &cobra.Command{
		Use:   "renumber NAMESPACE/NAME",
		Short: "Give a Service other addresses.",
		Long: `Give a Service other addresses, for example because its addresses are out of range of their pool or on a blocklist.
The old addresses cool down, and then are free.

Clients notice: connections to the old addresses break off when the status of the Service changes, and clients that do not
know the new addresses, for example from DNS, cannot connect. --dry-run says which addresses the Service would get, and
changes nothing.

If no other addresses are free, the Service keeps those that it has. If another system grants the addresses of the pool, it has to
do so before the timeout; after that nothing is asked for any more.`,
		Args:              one("a Service"),
		ValidArgsFunction: a.services(),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, name, err := a.connectFor(args[0])
			if err != nil {
				return err
			}
			if _, err := c.read(cmd.Context(), "ippools.herald.dev"); err != nil { // Herald is not installed.
				return err
			}
			if dry {
				text, err := c.renumbered(cmd.Context(), name, own, ccm.get())
				if err != nil {
					return err
				}
				_, err = io.WriteString(cmd.OutOrStdout(), text)
				return err
			}
			before, after, err := c.renumber(cmd.Context(), name, &ccm.Foreign, timeout)
			if err != nil {
				return err
			}
			old, now := strings.Join(before, ", "), strings.Join(after, ", ")
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s: %s → %s\nConnections to %[2]s break off. Point clients to %[3]s, for example in DNS.\n", name, old, now)
			return err
		},
	}
	ccm.bind(cmd)
	bindOwn(cmd, &own)
	cmd.Flags().BoolVar(&dry, "dry-run", false, "Say which addresses the Service would get, and change nothing.")
	cmd.Flags().DurationVar(&timeout, "timeout", 30*time.Second, "How long to wait for other addresses.")
	return cmd
}

// renumbered says which other addresses a Service would get.
func (c *cluster) renumbered(ctx context.Context, name types.NamespacedName, own string, ccm *report.CCM) (string, error) {
	svc, err := c.kube.CoreV1().Services(name.Namespace).Get(ctx, name.Name, metav1.GetOptions{})
	if err != nil {
		return "", err
	}
	if err := movable(ccm.Foreign.Read(svc)); err != nil {
		return "", fmt.Errorf("%s: %w", name, err)
	}
	o, err := c.readAll(ctx, "ippools.herald.dev", "ipallocations.herald.dev", "namespaces", "nodes", "bgppeers.herald.dev", "speakerstatuses.herald.dev")
	if err != nil {
		return "", err
	}
	if err := c.grants(ctx, own, o); err != nil {
		return "", err
	}
	text, err := report.Renumbered(o, svc, ccm)
	if err != nil {
		return "", fmt.Errorf("%s would keep %s: %w", name, strings.Join(report.Addresses(svc), ", "), err)
	}
	return text, nil
}

// renumber asks for other addresses with an annotation, and removes the annotation at the end, whatever
// the result.
func (c *cluster) renumber(ctx context.Context, name types.NamespacedName, foreign *provider.Foreign, timeout time.Duration) (old, now []string, err error) {
	svc, err := c.kube.CoreV1().Services(name.Namespace).Get(ctx, name.Name, metav1.GetOptions{})
	if err != nil {
		return nil, nil, err
	}
	if err := movable(foreign.Read(svc)); err != nil {
		return nil, nil, fmt.Errorf("%s: %w", name, err)
	}
	old, asked := report.Addresses(svc), time.Now()
	if err = c.ask(ctx, name, strings.Join(old, ",")); err != nil && ctx.Err() == nil {
		return nil, nil, err
	}
	defer func() {
		// This also runs when the user interrupts the command: if the request stayed, a later change of
		// the address would be a surprise.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
		defer cancel()
		if e := c.ask(ctx, name, ""); e != nil && !apierrors.IsNotFound(e) {
			err = errors.Join(err, fmt.Errorf("annotation %s is still on Service %s, remove it: %w", herald.AnnotationRenumber, name, e))
		}
	}()
	if err == nil {
		now, err = c.awaitOthers(ctx, name, old, timeout)
	}
	switch {
	case ctx.Err() != nil:
		err = fmt.Errorf("%s: interrupted; %s", name, c.outcome(ctx, name, old))
	case errors.Is(err, context.DeadlineExceeded):
		err = fmt.Errorf("%s: no other address within %s; %s%s", name, timeout, c.outcome(ctx, name, old), c.complaint(ctx, name, asked))
	}
	return old, now, err
}

// awaitOthers waits until a Service has addresses, and none of the old ones.
func (c *cluster) awaitOthers(ctx context.Context, name types.NamespacedName, old []string, timeout time.Duration) (now []string, err error) {
	err = wait.PollUntilContextTimeout(ctx, 200*time.Millisecond, timeout, true, func(context.Context) (bool, error) {
		svc, err := c.kube.CoreV1().Services(name.Namespace).Get(ctx, name.Name, metav1.GetOptions{})
		if err != nil {
			return false, err
		}
		now = report.Addresses(svc)
		return len(now) > 0 && !slices.ContainsFunc(now, func(a string) bool { return slices.Contains(old, a) }), nil
	})
	return now, err
}

// outcome says whether a Service has kept its addresses. It works even after the user has interrupted
// the command.
func (c *cluster) outcome(ctx context.Context, name types.NamespacedName, old []string) string {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	svc, err := c.kube.CoreV1().Services(name.Namespace).Get(ctx, name.Name, metav1.GetOptions{})
	if err != nil {
		return "which addresses it has is not known: " + err.Error()
	}
	now := report.Addresses(svc)
	if slices.Equal(now, old) {
		return "it keeps " + strings.Join(old, ", ")
	}
	return fmt.Sprintf("it had %s, and has %s now", strings.Join(old, ", "), strings.Join(now, ", "))
}

// movable returns an error for a Service that cannot move.
func movable(svc *corev1.Service) error {
	has := report.Addresses(svc)
	switch {
	case svc.Spec.Type != corev1.ServiceTypeLoadBalancer:
		return fmt.Errorf("is of type %s: only those of type LoadBalancer have addresses to leave", svc.Spec.Type)
	case svc.Annotations[herald.AnnotationRenumber] != "":
		return fmt.Errorf("annotation %s is there already (%q): another renumber is under way, or was cut short; remove the annotation if none is", herald.AnnotationRenumber, svc.Annotations[herald.AnnotationRenumber])
	case len(has) == 0:
		return errors.New("has no address to leave: kubectl describe service says why it waits")
	}
	for _, pin := range []struct{ field, value string }{
		{"annotation " + provider.Written(svc, herald.AnnotationIPs), svc.Annotations[herald.AnnotationIPs]}, {"spec.loadBalancerIP", svc.Spec.LoadBalancerIP},
	} {
		for text := range strings.SplitSeq(pin.value, ",") {
			address, err := netip.ParseAddr(strings.TrimSpace(text))
			if err == nil && slices.Contains(has, address.String()) {
				return fmt.Errorf("%s asks for %s: change that or remove it, and the Service gets another address", pin.field, address)
			}
		}
	}
	return nil
}

// ask sets the annotation with the addresses to leave. If leave is empty, ask removes the annotation.
func (c *cluster) ask(ctx context.Context, name types.NamespacedName, leave string) error {
	value := "null"
	if leave != "" {
		value = fmt.Sprintf("%q", leave)
	}
	patch := fmt.Sprintf(`{"metadata":{"annotations":{%q:%s}}}`, herald.AnnotationRenumber, value)
	_, err := c.kube.CoreV1().Services(name.Namespace).Patch(ctx, name.Name, types.MergePatchType, []byte(patch), metav1.PatchOptions{FieldManager: "kubectl-herald"})
	return err
}

// complaint returns the text of the Service's last warning since that time, if there is one that can be
// read.
func (c *cluster) complaint(ctx context.Context, name types.NamespacedName, since time.Time) string {
	last := ""
	for _, e := range c.warnings(ctx, name) {
		// The times of events have whole seconds.
		if !e.LastTimestamp.Time.Before(since.Truncate(time.Second)) {
			since, last = e.LastTimestamp.Time, ": "+e.Message
		}
	}
	return last
}
