package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	"k8s.io/cli-runtime/pkg/resource"

	herald "github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/cmd/kubectl-herald/internal/migrate"
	"github.com/heraldlb/herald/cmd/kubectl-herald/internal/report"
)

func takeoverCommand(a *access) *cobra.Command {
	t := takeover{access: a, given: &resource.FilenameOptions{}}
	var next, back bool
	var kustomize string
	files := genericclioptions.FileNameFlags{
		Usage: "Files, directories or URLs with Herald's objects, in YAML or JSON, in place of the translation; - is standard input.", Filenames: &[]string{}, Kustomize: &kustomize, Recursive: new(bool),
	}
	cmd := &cobra.Command{
		Use:   "takeover metallb [--next | --back] [-f FILE]... [-k DIRECTORY]",
		Short: "Move a cluster from MetalLB to Herald, step by step.",
		Long: `Move a cluster from MetalLB to Herald, one checked step at a time. Nodes move one after another, and the addresses stay in
service. Without --next and --back nothing is changed: the plan is printed, with the state of each step, what it changes, and
what a step that was begun waits for. The states are derived from the cluster.

--next does the next step, and waits until its check passes. --back takes back the last step that was done.

MetalLB's configuration is translated as import does. If not all of it can be translated, correct the objects that import writes,
and give them with -f to every call.

The exit code is 0 if all is well, 2 if something prevents the takeover, a check does not pass in time or the next step is yours,
and 1 if the cluster or a file cannot be read, or a change is refused. docs/moving.md has the steps.`,
		Example: `  kubectl herald takeover metallb
  kubectl herald takeover metallb --next
  kubectl herald takeover metallb --next -f herald.yaml
  kubectl herald takeover metallb --back`,
		Args:      one("a load balancer"),
		ValidArgs: []string{"metallb"},
		RunE: func(cmd *cobra.Command, _ []string) error {
			if next && back {
				return errors.New("--next does a step, and --back takes one back: give one of them")
			}
			*t.given = files.ToOptions()
			if err := t.start(cmd.OutOrStdout()); err != nil {
				return err
			}
			plan, err := t.plan(cmd.Context())
			if err != nil {
				return err
			}
			switch {
			case next:
				return t.next(cmd.Context(), plan)
			case back:
				return t.back(cmd.Context(), plan)
			}
			_, err = io.WriteString(t.out, plan.Text(report.StyleOf(t.out)))
			return errors.Join(err, t.attention(plan))
		},
	}
	files.AddFlags(cmd.Flags())
	cmd.Flags().BoolVar(&next, "next", false, "Do the next step, and wait until its check passes.")
	cmd.Flags().BoolVar(&back, "back", false, "Take back the last step that was done.")
	cmd.Flags().DurationVar(&t.timeout, "timeout", 2*time.Minute, "How long to wait until the check of a step passes.")
	t.ccm.bind(cmd)
	bindOwn(cmd, &t.own)
	return cmd
}

// takeover is a call of the command.
type takeover struct {
	*access
	ccm     ccm
	own     string // Herald's own namespace.
	given   *resource.FilenameOptions
	timeout time.Duration

	*cluster
	out    io.Writer
	wanted []runtime.Object // From the files; empty: the translation.
	// before and last are what the first and the last plan were made from.
	before, last *report.Objects
}

func (t *takeover) start(out io.Writer) (err error) {
	t.out = out
	if len(t.given.Filenames) > 0 || t.given.Kustomize != "" {
		if t.wanted, err = readHerald(t.given); err != nil {
			return err
		}
	}
	t.cluster, err = t.connect()
	return err
}

// readHerald reads Herald's objects from files.
func readHerald(from *resource.FilenameOptions) (all []runtime.Object, err error) {
	objects, err := readObjects(from)
	if err != nil {
		return nil, err
	}
	known := map[string]bool{}
	for _, u := range objects {
		ref := u.GetKind() + " " + u.GetName()
		if u.GroupVersionKind().Group != herald.GroupVersion.Group {
			return nil, fmt.Errorf("%s is not an object of Herald: give the objects that import writes, corrected", ref)
		}
		text, err := json.Marshal(u)
		if err != nil {
			return nil, err
		}
		o, _, err := strict.Decode(text, nil, nil)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", ref, err)
		}
		switch o.(type) {
		case *herald.IPPool, *herald.L2Advertisement, *herald.BGPPeer, *herald.BGPAdvertisement:
		default:
			return nil, fmt.Errorf("%s: a takeover applies IPPools, L2Advertisements, BGPPeers and BGPAdvertisements: leave it out", ref)
		}
		if u.GetName() == "" || known[ref] {
			return nil, fmt.Errorf("%s has no name, or is there twice: correct it", ref)
		}
		known[ref] = true
		all = append(all, o)
	}
	if len(all) == 0 {
		return nil, errors.New("there is no object in the files: give those that import writes, corrected")
	}
	return all, nil
}

// plan reads the cluster, and plans.
func (t *takeover) plan(ctx context.Context) (*report.TakeoverPlan, error) {
	o, err := t.readAll(ctx, "ippools.herald.dev", "ipallocations.herald.dev", "l2advertisements.herald.dev", "bgpadvertisements.herald.dev",
		"bgppeers.herald.dev", "speakerstatuses.herald.dev", "nodes", "namespaces", "services", "endpointslices.discovery.k8s.io",
		"deployments.apps", "daemonsets.apps")
	if err != nil {
		return nil, err
	}
	if err := t.leases(ctx, t.own, o); err != nil {
		return nil, err
	}
	for _, namespace := range report.NamespacesOf(o) {
		pods, err := t.kube.CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{})
		if err != nil {
			return nil, fmt.Errorf("list pods of MetalLB: %w", err)
		}
		o.Pods = append(o.Pods, pointers(pods.Items)...)
	}
	in := &report.Takeover{Objects: o, CCM: t.ccm.get()}
	if err := t.translate(ctx, in); err != nil {
		return nil, err
	}
	if in.Secrets, err = t.secrets(ctx, in.Wanted); err != nil {
		return nil, err
	}
	if t.last = o; t.before == nil {
		t.before = o
	}
	return in.Plan(time.Now())
}

// translate translates the configuration of MetalLB, or takes the objects of the user in place of the translation.
func (t *takeover) translate(ctx context.Context, in *report.Takeover) error {
	i := slices.IndexFunc(migrate.Sources, func(s *migrate.Source) bool { return s.Name == "metallb" })
	source := migrate.Sources[i]
	objects, err := t.configurationOf(ctx, source)
	if err != nil {
		return err
	}
	concerned := map[types.NamespacedName]*corev1.Service{}
	for _, svc := range in.Services {
		if report.MetalLBServes(in.Objects, svc) || in.CCM.Serves(svc) {
			concerned[types.NamespacedName{Namespace: svc.Namespace, Name: svc.Name}] = svc
		}
	}
	objects = slices.DeleteFunc(objects, func(u *unstructured.Unstructured) bool {
		if u.GroupVersionKind() != corev1.SchemeGroupVersion.WithKind("Service") {
			return false
		}
		svc := concerned[types.NamespacedName{Namespace: u.GetNamespace(), Name: u.GetName()}]
		if svc != nil && in.CCM.Serves(svc) {
			unstructured.RemoveNestedField(u.Object, "spec", "loadBalancerClass") // herald-ccm serves it as it is.
		}
		return svc == nil
	})
	var r *migrate.Result
	if len(t.wanted) > 0 {
		r = source.Replace(objects, t.wanted)
	} else {
		r = source.Translate(objects)
	}
	in.Wanted, in.Annotations = r.Objects, r.Wanted
	for _, outcome := range []migrate.Outcome{migrate.Loses, migrate.NotTranslatable} {
		for _, n := range r.Notes {
			if n.Outcome == outcome {
				in.Obstacles = append(in.Obstacles, n.Object+": "+n.Text)
			}
		}
	}
	return nil
}

// secrets says, for each Secret of a BGPPeer that cannot be used, why.
func (t *takeover) secrets(ctx context.Context, wanted []runtime.Object) (map[string]string, error) {
	why := map[string]string{}
	for _, o := range wanted {
		peer, ok := o.(*herald.BGPPeer)
		if !ok || peer.Spec.PasswordSecret == nil {
			continue
		}
		namespace, name := t.own+"-peers", peer.Spec.PasswordSecret.Name
		switch s, err := t.kube.CoreV1().Secrets(namespace).Get(ctx, name, metav1.GetOptions{}); {
		case apierrors.IsNotFound(err):
			why[name] = report.SecretObstacle(namespace, name, nil)
		case err != nil:
			return nil, fmt.Errorf("secret of BGPPeer %s: %w", peer.Name, err)
		default:
			why[name] = report.SecretObstacle(namespace, name, s)
		}
	}
	return why, nil
}

// attention returns errAttention if something prevents the takeover.
func (t *takeover) attention(plan *report.TakeoverPlan) error {
	if len(plan.Obstacles)+len(plan.Unread) > 0 {
		return errAttention
	}
	return nil
}

// next does the next step.
func (t *takeover) next(ctx context.Context, plan *report.TakeoverPlan) error {
	step := plan.Next()
	if t.attention(plan) != nil || step == nil || len(step.Do) == 0 && len(step.Waits) > 0 && !step.Begun {
		_, err := io.WriteString(t.out, plan.Text(report.StyleOf(t.out)))
		if err == nil && step == nil {
			err = t.attention(plan)
		} else if err == nil {
			err = errAttention
		}
		return err
	}
	fmt.Fprintf(t.out, "%s: %s\n", step.Name, step.Text)
	if err := t.apply(ctx, step.Do); err != nil {
		return fmt.Errorf("%s: %w", step.Name, err)
	}
	return t.await(ctx, step, "done", (*report.Step).Lacks)
}

// back takes back the last step that was done.
func (t *takeover) back(ctx context.Context, plan *report.TakeoverPlan) error {
	step := plan.Last()
	switch {
	case plan.Uninstalled():
		fmt.Fprintln(t.out, "MetalLB is not installed, so there is nothing to go back to: go on with --next, or install MetalLB again.")
		return errAttention
	case step == nil:
		fmt.Fprintln(t.out, "No step was done that could be taken back.")
		return errAttention
	}
	fmt.Fprintf(t.out, "%s, back: %s\n", step.Name, step.Back)
	if err := t.apply(ctx, step.Undo); err != nil {
		return fmt.Errorf("%s: %w", step.Name, err)
	}
	return t.await(ctx, step, "taken back", (*report.Step).Remains)
}

// authorized fails if the user lacks a right that the changes need. It asks once for each verb, resource and namespace.
func (t *takeover) authorized(ctx context.Context, edits []report.Edit) error {
	var lacks []string
	asked := map[authorizationv1.ResourceAttributes]bool{}
	for _, e := range edits {
		verbs := []string{"patch"}
		if e.Body == nil {
			verbs = []string{"delete"}
		} else if e.Patch == types.ApplyPatchType && e.Group == herald.GroupVersion.Group { // Other objects are there.
			verbs = append(verbs, "create")
		}
		for _, verb := range verbs {
			right := authorizationv1.ResourceAttributes{Verb: verb, Group: e.Group, Resource: e.Resource, Namespace: e.Namespace}
			if asked[right] {
				continue
			}
			asked[right] = true
			named := right
			named.Name = e.Name
			review := &authorizationv1.SelfSubjectAccessReview{Spec: authorizationv1.SelfSubjectAccessReviewSpec{ResourceAttributes: &named}}
			review, err := t.kube.AuthorizationV1().SelfSubjectAccessReviews().Create(ctx, review, metav1.CreateOptions{})
			if err != nil {
				return fmt.Errorf("find out whether you may %s %s: %w", verb, e.GroupResource(), err)
			}
			if !review.Status.Allowed {
				lack := verb + " " + e.GroupResource().String()
				if e.Namespace != "" {
					lack += " in namespace " + e.Namespace
				}
				lacks = append(lacks, lack)
			}
		}
	}
	if len(lacks) > 0 {
		return fmt.Errorf("you may not %s: call the command with an account that may; nothing was changed", strings.Join(lacks, ", "))
	}
	return nil
}

// apply makes changes, in order.
func (t *takeover) apply(ctx context.Context, edits []report.Edit) error {
	if err := t.authorized(ctx, edits); err != nil {
		return err
	}
	for _, e := range edits {
		resource := t.dynamic.Resource(e.GroupVersionResource).Namespace(e.Namespace)
		var err error
		if e.Body == nil {
			err = resource.Delete(ctx, e.Name, metav1.DeleteOptions{})
			if apierrors.IsNotFound(err) {
				continue
			}
		} else {
			var body []byte
			if body, err = json.Marshal(e.Body); err != nil {
				return err
			}
			_, err = resource.Patch(ctx, e.Name, e.Patch, body, metav1.PatchOptions{FieldManager: report.TakeoverManager})
		}
		switch {
		case apierrors.IsConflict(err) && e.Patch == types.ApplyPatchType:
			return fmt.Errorf("%s %s is there and differs: %w: give your objects with -f, or edit it there", e.Resource, e.Name, err)
		case apierrors.IsConflict(err):
			return fmt.Errorf("%s %s was changed meanwhile: call the command again: %w", e.Resource, e.Name, err)
		case err != nil:
			return err
		}
		fmt.Fprintln(t.out, "  "+e.Text)
	}
	return nil
}

// await waits until nothing is missing for a step to be in a state, until a Service has other addresses, or until the
// timeout is over. It says what is missing. A request that fails does not end the wait, unless the user lacks a right: nodes
// and API servers may be restarted meanwhile.
func (t *takeover) await(ctx context.Context, step *report.Step, state string, missing func(*report.Step) []string) error {
	var plan *report.TakeoverPlan
	var failed error // the last request, if it failed
	var lacks, readdressed []string
	start := time.Now()
	err := wait.PollUntilContextTimeout(ctx, time.Second, t.timeout, true, func(context.Context) (done bool, err error) {
		var now *report.TakeoverPlan
		if now, failed = t.plan(ctx); failed != nil { // The timeout does not end this, so that the last plan is a whole one.
			if apierrors.IsForbidden(failed) || apierrors.IsUnauthorized(failed) {
				return false, failed
			}
			return false, nil
		}
		plan = now
		lacks, readdressed = missing(plan.Named(step.Name)), report.Readdressed(t.before, t.last)
		return len(lacks) == 0 || len(readdressed) > 0, nil
	})
	switch {
	case ctx.Err() != nil:
		return fmt.Errorf("%s: interrupted: kubectl herald takeover metallb shows what it waits for", step.Name)
	case failed != nil && (plan == nil || apierrors.IsForbidden(failed) || apierrors.IsUnauthorized(failed)):
		return fmt.Errorf("%s: %w", step.Name, failed)
	case failed != nil:
		lacks = append(lacks, "the last request failed: "+failed.Error())
	case err != nil && !errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("%s: %w", step.Name, err)
	}
	switch {
	case len(lacks)+len(readdressed) == 0:
		_, err := fmt.Fprintf(t.out, "%s: %s\n%s\n", step.Name, state, plan.Conclusion())
		return err
	case len(lacks) == 0:
		fmt.Fprintf(t.out, "%s: %s, but addresses changed:\n", step.Name, state)
	default:
		fmt.Fprintf(t.out, "%s: not %s after %s:\n", step.Name, state, time.Since(start).Round(time.Second))
	}
	for _, text := range append(lacks, readdressed...) {
		fmt.Fprintln(t.out, "  "+report.Clean(text))
	}
	fmt.Fprintln(t.out, plan.Conclusion())
	return errAttention
}
