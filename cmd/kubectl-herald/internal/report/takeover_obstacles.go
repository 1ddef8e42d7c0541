package report

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	herald "github.com/heraldlb/herald/api/v1alpha1"
)

// obstacles says what prevents the takeover.
func (p *planner) obstacles() ([]string, error) {
	all := slices.Clone(p.Obstacles)
	add := func(format string, args ...any) { all = append(all, fmt.Sprintf(format, args...)) }
	pools := wantedOf[*herald.IPPool](p.Takeover)
	if len(pools) == 0 {
		add("there is no IPPool that would take the place of an IPAddressPool: give Herald's objects with -f")
	}
	for _, o := range pools {
		if o.Spec.Disabled {
			add("IPPool %s has spec.disabled: kubectl herald import metallb says what it lacks: correct it, remove the field, and give your objects with -f", o.Name)
		}
	}
	if err := p.losses(pools, add); err != nil {
		return nil, err
	}
	if p.Leases == nil {
		add("whether herald-ccm and the speakers run is not known, since you may not list leases.coordination.k8s.io in the namespace of Herald (--herald-namespace)")
	}
	p.network.controllerProblem(p.at.now, func(_ problemKind, _ string, _ []string, format string, args ...any) { add(format, args...) })
	p.withoutSpeaker(add)
	p.excluded(add)
	for _, name := range p.Takeover.secrets() {
		add("%s", p.Secrets[name])
	}
	p.managed(add)
	return all, nil
}

// losses adds the Services that would not keep their addresses with the wanted IPPools. It calls the code of herald-ccm. It
// leaves out those that the translation has found already.
func (p *planner) losses(pools []*herald.IPPool, add func(string, ...any)) error {
	then := *p.Objects
	then.Services = nil
	for _, is := range p.Services {
		svc := p.CCM.Foreign.Read(is).DeepCopy()
		for key, text := range p.Annotations[types.NamespacedName{Namespace: svc.Namespace, Name: svc.Name}] {
			if _, own := is.Annotations[key]; !own {
				metav1.SetMetaDataAnnotation(&svc.ObjectMeta, key, text)
			}
		}
		then.Services = append(then.Services, svc)
	}
	enabled := slices.DeleteFunc(slices.Clone(pools), func(o *herald.IPPool) bool { return o.Spec.Disabled })
	r, err := Plan(&then, p.CCM, Wanted{Pools: enabled}, nil)
	if err != nil {
		return err
	}
	for _, c := range r.Pools {
		if c.breaks() {
			add("IPPool %s: %s: correct it, and give your objects with -f", c.Name, c.Invalid)
		}
	}
	waits, gets, recorded := map[string]string{}, map[string][]string{}, map[string]bool{}
	for _, w := range r.Waiting {
		waits[w.Service] = w.Reason
	}
	for _, s := range r.Served {
		for _, a := range s.Addresses {
			gets[s.Service] = append(gets[s.Service], a.Address)
		}
	}
	for _, rec := range p.Allocations {
		for _, o := range rec.Spec.Owners {
			recorded[o.Namespace+"/"+o.Name+" "+rec.Spec.Address] = true
		}
	}
	for _, svc := range slices.SortedFunc(slices.Values(p.Services), byName) {
		name := nameOf(svc)
		lost := slices.DeleteFunc(Addresses(svc), func(a string) bool { return recorded[name+" "+a] || slices.Contains(gets[name], a) })
		known := slices.ContainsFunc(p.Obstacles, func(text string) bool { return strings.HasPrefix(text, "Service "+name+": ") })
		switch {
		case !p.CCM.Serves(svc) || svc.DeletionTimestamp != nil || len(lost) == 0 || known:
		case waits[name] != "":
			add("Service %s: it has %s, and would wait with Herald: %s", name, some(lost), waits[name])
		default:
			add("Service %s: it has %s, and Herald would give it %s: correct the IPPools, and give your objects with -f", name, some(lost), cmp.Or(some(gets[name]), "another address"))
		}
	}
	return nil
}

// withoutSpeaker adds the nodes with MetalLB on which no speaker of Herald works.
func (p *planner) withoutSpeaker(add func(string, ...any)) {
	var without []string
	for _, n := range p.movable() {
		switch why := p.at.gone[n.Name]; {
		case statusOf(p.Objects, n.Name) == nil:
			without = append(without, n.Name)
		case why != "":
			add("node %s: %s: %s, or delete the Node if it is gone", n.Name, why, seeSpeakers)
		}
	}
	if len(without) > 0 {
		add("%s MetalLB and no SpeakerStatus: see whether herald-speaker runs there: kubectl get pods -A -l app.kubernetes.io/component=speaker", subject(without, "has", "have"))
	}
}

// excluded adds the nodes from which MetalLB announces although they are excluded from load balancers. Herald would announce
// nothing from them.
func (p *planner) excluded(add func(string, ...any)) {
	ignored := slices.ContainsFunc(p.speakers, func(d *appsv1.DaemonSet) bool {
		return slices.ContainsFunc(d.Spec.Template.Spec.Containers, func(c corev1.Container) bool {
			args := slices.Concat(c.Command, c.Args)
			return slices.Contains(args, "--ignore-exclude-lb") || slices.Contains(args, "--ignore-exclude-lb=true")
		})
	})
	var names []string
	for _, n := range p.movable() {
		if _, is := n.Labels[corev1.LabelNodeExcludeBalancers]; is && ignored {
			names = append(names, n.Name)
		}
	}
	if len(names) > 0 {
		add("%s the label %s, which MetalLB ignores (--ignore-exclude-lb) and Herald does not: remove the label from nodes that should announce, and --ignore-exclude-lb from MetalLB if the others need not",
			subject(names, "has", "have"), corev1.LabelNodeExcludeBalancers)
	}
}

// secrets returns the names of the Secrets that cannot be used.
func (t *Takeover) secrets() (names []string) {
	for _, o := range wantedOf[*herald.BGPPeer](t) {
		if ref := o.Spec.PasswordSecret; ref != nil && t.Secrets[ref.Name] != "" && !slices.Contains(names, ref.Name) {
			names = append(names, ref.Name)
		}
	}
	return names
}

// managed adds the Deployments and DaemonSets that something would reset.
func (p *planner) managed(add func(string, ...any)) {
	owned := func(kind string, o metav1.Object) {
		if owner := metav1.GetControllerOf(o); owner != nil {
			add("%s %s belongs to %s %s, whose controller would take the changes back: stop that controller first, for example MetalLB's operator", kind, nameOf(o), owner.Kind, owner.Name)
		}
	}
	for _, d := range p.controllers {
		owned("Deployment", d)
	}
	for _, d := range p.speakers {
		owned("DaemonSet", d)
	}
}

// SecretObstacle says why the Secret with the password of a BGPPeer cannot be used; empty if it can. The Secret is nil if
// there is none.
func SecretObstacle(namespace, name string, s *corev1.Secret) string {
	const cure = "with the password under the key password: kubectl create secret generic %[1]s -n %[2]s --type=kubernetes.io/basic-auth --from-file=password=FILE"
	switch {
	case s == nil:
		return fmt.Sprintf("Secret %[2]s/%[1]s is not there: create it, "+cure, name, namespace)
	case s.Type != corev1.SecretTypeBasicAuth || len(s.Data[corev1.BasicAuthPasswordKey]) == 0:
		return fmt.Sprintf("Secret %[2]s/%[1]s is not of type kubernetes.io/basic-auth, or has no password: create it again, "+cure, name, namespace)
	}
	return ""
}

// MetalLBServes reports whether a Service is of the class that MetalLB serves.
func MetalLBServes(o *Objects, svc *corev1.Service) bool {
	b := balancerOf(o)
	class := ""
	if svc.Spec.LoadBalancerClass != nil {
		class = *svc.Spec.LoadBalancerClass
	}
	return class == b.class()
}

// NamespacesOf returns the namespaces of the pods that the plan needs.
func NamespacesOf(o *Objects) (namespaces []string) {
	b := balancerOf(o)
	for _, d := range b.speakers {
		namespaces = append(namespaces, d.Namespace)
	}
	return compact(namespaces)
}

// Readdressed says which Services have other addresses in their status than before.
func Readdressed(before, after *Objects) (texts []string) {
	had := map[types.NamespacedName][]string{}
	for _, svc := range before.Services {
		had[types.NamespacedName{Namespace: svc.Namespace, Name: svc.Name}] = slices.Sorted(slices.Values(Addresses(svc)))
	}
	for _, svc := range slices.SortedFunc(slices.Values(after.Services), byName) {
		old, now := had[types.NamespacedName{Namespace: svc.Namespace, Name: svc.Name}], slices.Sorted(slices.Values(Addresses(svc)))
		if len(old) > 0 && !slices.Equal(old, now) {
			texts = append(texts, fmt.Sprintf("Service %s had %s, and has %s now: kubectl herald explain service %[1]s says why", nameOf(svc), some(old), cmp.Or(some(now), "none")))
		}
	}
	return texts
}
