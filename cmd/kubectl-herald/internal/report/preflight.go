package report

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	herald "github.com/heraldlb/herald/api/v1alpha1"
)

// Surroundings are the objects that preflight checks.
type Surroundings struct {
	*Objects
	Wanted  Wanted
	Own     string // Herald's own namespace.
	Version string // Of the API server, for example v1.36.3.
	// Served are the resources that the API server serves. NotServed says which API groups could not be queried, and why.
	Served    []*metav1.APIResourceList
	NotServed string
}

// PreflightReport is the output of preflight for programs.
type PreflightReport struct {
	Problems  []problem `json:"problems"` // If empty, the exit code is 0, provided that Nodes and Services were read.
	Warnings  []problem `json:"warnings"`
	Unchecked []problem `json:"unchecked"` // What nothing is known of, and why.
	Fine      []problem `json:"fine"`

	blind bool // Without Nodes and Services, the checks are too incomplete for a good result.
}

// The kinds of checks, in the order in which preflight makes them.
const (
	kubernetesVersion problemKind = "KubernetesVersion"
	kubeProxy         problemKind = "KubeProxy"
	nodesFit          problemKind = "Nodes"
	customResources   problemKind = "CustomResources"
	policies          problemKind = "AdmissionPolicies"
	podSecurity       problemKind = "PodSecurity"
	loadBalancers     problemKind = "LoadBalancers"
	servicesServed    problemKind = "Services"
	poolRanges        problemKind = "Pools"
	portsFree         problemKind = "Ports"
	multicast         problemKind = "Multicast"
)

var checks = []problemKind{
	kubernetesVersion, kubeProxy, nodesFit, customResources, policies, podSecurity, loadBalancers, servicesServed, poolRanges, portsFree, multicast, unreadable,
}

// preflight is a check of a cluster in progress.
type preflight struct {
	*Surroundings
	ccm  *CCM
	plan *PlanReport       // The effect on pools and Services.
	gone map[string]string // Why the speakers of nodes do not work.
	now  time.Time
	PreflightReport
}

// Preflight returns the problems that Herald would have on this cluster. It needs all of Objects. The resources of Herald
// need not exist yet.
func Preflight(in *Surroundings, ccm *CCM, now time.Time) (*PreflightReport, error) {
	plan, err := Plan(in.Objects, ccm, in.Wanted, nil)
	if err != nil {
		return nil, err
	}
	p := &preflight{Surroundings: in, ccm: ccm, plan: plan, now: now,
		PreflightReport: PreflightReport{Problems: in.unreadable(), Warnings: []problem{}, Unchecked: []problem{}, Fine: []problem{}, blind: !in.sees("nodes", "services")}}
	if p.gone = silentSpeakers(p.Leases, now); p.sees("nodes") {
		p.gone = NewNetwork(p.Objects).gone(now)
	}
	slices.SortFunc(p.Nodes, byName)
	slices.SortFunc(p.Pods, byName)
	slices.SortFunc(p.DaemonSets, byName)
	slices.SortFunc(p.Deployments, byName)
	p.kubernetes()
	p.proxy()
	p.nodes()
	p.resources()
	p.admission()
	p.security()
	p.others()
	p.services()
	p.pools()
	p.ports()
	p.heard()
	for _, list := range [][]problem{p.Problems, p.Warnings, p.Unchecked, p.Fine} {
		for i := range list {
			list[i].Text = Clean(list[i].Text)
		}
		slices.SortStableFunc(list, func(x, y problem) int { return cmp.Compare(slices.Index(checks, x.Kind), slices.Index(checks, y.Kind)) })
	}
	return &p.PreflightReport, nil
}

func byName[T metav1.Object](x, y T) int {
	return cmp.Or(cmp.Compare(x.GetNamespace(), y.GetNamespace()), cmp.Compare(x.GetName(), y.GetName()))
}

func (p *preflight) problem(kind problemKind, nodes []string, format string, args ...any) {
	p.Problems = append(p.Problems, problem{kind, "", list(nodes), fmt.Sprintf(format, args...)})
}

func (p *preflight) warn(kind problemKind, nodes []string, format string, args ...any) {
	p.Warnings = append(p.Warnings, problem{kind, "", list(nodes), fmt.Sprintf(format, args...)})
}

func (p *preflight) unchecked(kind problemKind, format string, args ...any) {
	p.Unchecked = append(p.Unchecked, problem{kind, "", []string{}, fmt.Sprintf(format, args...)})
}

func (p *preflight) fine(kind problemKind, format string, args ...any) {
	p.Fine = append(p.Fine, problem{kind, "", []string{}, fmt.Sprintf(format, args...)})
}

// may reports whether all of these resources could be read. If not, it notes that the check is incomplete.
func (p *preflight) may(kind problemKind, what string, resources ...string) bool {
	missing := slices.DeleteFunc(resources, func(r string) bool { return p.sees(r) })
	if len(missing) > 0 {
		p.unchecked(kind, "%s: you may not read %s: run this as somebody who may", what, strings.Join(missing, ", "))
	}
	return len(missing) == 0
}

const speakerLeases = "leases.coordination.k8s.io"

// working returns the SpeakerStatuses of the speakers that work. If the user may not read Leases, it includes those of
// speakers that no longer work.
func (p *preflight) working() []*herald.SpeakerStatus {
	return slices.DeleteFunc(slices.Clone(p.Speakers), func(o *herald.SpeakerStatus) bool { return p.gone[o.Name] != "" })
}

// Serves reports whether the API server serves a resource, such as "daemonsets", in a group and version, such as "apps/v1".
func (in *Surroundings) Serves(groupVersion, resource string) bool {
	return slices.ContainsFunc(in.Served, func(l *metav1.APIResourceList) bool {
		return l.GroupVersion == groupVersion && slices.ContainsFunc(l.APIResources, func(r metav1.APIResource) bool { return r.Name == resource })
	})
}

// servesGroup reports whether the API server serves any version of a group.
func (in *Surroundings) servesGroup(group string) bool {
	return slices.ContainsFunc(in.Served, func(l *metav1.APIResourceList) bool { return groupOf(l) == group })
}

func groupOf(l *metav1.APIResourceList) string {
	group, _, named := strings.Cut(l.GroupVersion, "/")
	if !named {
		return ""
	}
	return group
}

// Good reports whether there are no problems. It is false if Nodes or Services could not be read.
func (r *PreflightReport) Good() bool { return len(r.Problems) == 0 && !r.blind }

// Text writes the report for people.
func (r *PreflightReport) Text(s Style) string {
	var l lines
	marked(&l, s.bad.Render("✗ "), r.Problems)
	marked(&l, s.warn.Render("! "), r.Warnings)
	marked(&l, s.faint.Render("? "), r.Unchecked)
	marked(&l, s.good.Render("✓ "), r.Fine)
	l.add()
	l.add(count(len(r.Problems), "problem", "problems"), ", ", count(len(r.Warnings), "warning", "warnings"), ", ",
		number(int64(len(r.Unchecked))), " not checked (?), ", number(int64(len(r.Fine))), " fine.")
	return l.String()
}
