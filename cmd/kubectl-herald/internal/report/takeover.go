package report

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	herald "github.com/heraldlb/herald/api/v1alpha1"
)

// Takeover has the objects from which the steps from MetalLB to Herald are derived. It needs all lists of Objects that Plan and
// NewNetwork need, BGPPeers, Deployments, DaemonSets, the Pods of MetalLB and Leases.
type Takeover struct {
	*Objects
	CCM *CCM
	// Wanted are the IPPools, L2Advertisements, BGPPeers and BGPAdvertisements that take the place of MetalLB's
	// configuration.
	Wanted []runtime.Object
	// Annotations are the annotations of Herald that Services need.
	Annotations map[types.NamespacedName]map[string]string
	// Obstacles are those that the translation of MetalLB's configuration has found.
	Obstacles []string
	// Secrets says, for each Secret of a wanted BGPPeer that cannot be used, why.
	Secrets map[string]string
}

// TakeoverPlan has the steps from MetalLB to Herald. There are none if MetalLB is not installed and no takeover is under way.
type TakeoverPlan struct {
	// Obstacles are what prevents the next step.
	Obstacles []string
	Steps     []Step
	// Unread are the objects of the cluster that could not be decoded.
	Unread []string
}

// StepState says whether a step was done.
type StepState string

// The states of a step.
const (
	StepDone  StepState = "done"
	StepNext  StepState = "next"
	StepLater StepState = "later"
)

// Step is a step from MetalLB to Herald.
type Step struct {
	Name  string
	State StepState
	// Text says what the step changes, and Back what taking it back changes.
	Text, Back string
	// Do are the changes of the step; none if the user has to make them. Undo takes them back.
	Do, Undo []Edit
	// Begun is true if at least one of the changes was made.
	Begun bool
	// Waits lists what is missing before the step counts as done.
	Waits []string
	// Absent says what of MetalLB does not work again after the step was taken back.
	Absent []string

	partial bool // At least one of the changes was not made.
	barred  bool // MetalLB has to be uninstalled first.
}

// Edit is a change of one object.
type Edit struct {
	schema.GroupVersionResource
	Namespace, Name string
	// Patch is the type of Body. Without a body, the object is deleted.
	Patch types.PatchType
	Body  map[string]any
	// Text says what was done, once it was.
	Text string
}

// Next returns the next step; nil if all are done.
func (p *TakeoverPlan) Next() *Step {
	return p.find(func(s *Step) bool { return s.State == StepNext })
}

// Last returns the last step that can be taken back; nil if there is none.
func (p *TakeoverPlan) Last() (last *Step) {
	for i := range p.Steps {
		if p.Steps[i].Begun && len(p.Steps[i].Undo) > 0 {
			last = &p.Steps[i]
		}
	}
	return last
}

// Named returns the step of a name; nil if there is none.
func (p *TakeoverPlan) Named(name string) *Step {
	return p.find(func(s *Step) bool { return s.Name == name })
}

func (p *TakeoverPlan) find(fits func(*Step) bool) *Step {
	for i := range p.Steps {
		if fits(&p.Steps[i]) {
			return &p.Steps[i]
		}
	}
	return nil
}

// Uninstalled reports whether MetalLB is gone, so that no step can be taken back.
func (p *TakeoverPlan) Uninstalled() bool {
	s := p.Named(stepUninstall)
	return s == nil || s.State == StepDone
}

// Lacks returns what is missing before the step counts as done. A step that is no longer in the plan is done.
func (s *Step) Lacks() []string {
	if s == nil || s.State == StepDone {
		return nil
	}
	if len(s.Waits) == 0 {
		return []string{"not all of its changes are there"}
	}
	return s.Waits
}

// Remains returns what keeps the step from being taken back.
func (s *Step) Remains() []string {
	switch {
	case s == nil:
		return nil
	case s.Begun:
		return []string{"not everything was taken back"}
	}
	return s.Absent
}

// planner derives the steps.
type planner struct {
	*Takeover
	metalLBOf
	at      *situation
	network *Network
	steps   []*Step
}

// Plan returns the steps. It derives their states from the objects alone.
func (t *Takeover) Plan(now time.Time) (*TakeoverPlan, error) {
	p := &planner{Takeover: t, metalLBOf: balancerOf(t.Objects), at: situationOf(t.Objects, now), network: NewNetwork(t.Objects)}
	plan := &TakeoverPlan{Unread: t.Objects.Unread}
	moving := len(p.marked()) > 0 || len(p.labelled()) > 0
	switch {
	case !p.there() && !moving:
		return plan, nil
	case p.there():
		p.annotations()
		p.controller()
		p.pools()
		p.segment()
		p.prepare()
		for _, node := range p.movable() {
			p.node(node)
		}
		var err error
		if plan.Obstacles, err = p.obstacles(); err != nil {
			return nil, err
		}
	}
	p.uninstall()
	p.peers()
	p.labels()
	next := false
	for _, s := range p.steps {
		s.conclude(&next)
		plan.Steps = append(plan.Steps, *s)
	}
	return plan, nil
}

// conclude sets the state of a step. next is true if one of the steps before is the next one.
func (s *Step) conclude(next *bool) {
	switch {
	case !s.barred && !s.partial && len(s.Waits) == 0:
		s.State = StepDone
	case *next:
		s.State = StepLater
	default:
		s.State, *next = StepNext, true
	}
}

func (p *planner) step(name string) *Step {
	s := &Step{Name: name}
	p.steps = append(p.steps, s)
	return s
}

// part notes whether one of the changes of a step was made.
func (s *Step) part(made bool) {
	s.Begun = s.Begun || made
	s.partial = s.partial || !made
}

func (s *Step) wait(format string, args ...any) {
	s.Waits = append(s.Waits, fmt.Sprintf(format, args...))
}

// wantedOf returns the wanted objects of a type.
func wantedOf[T runtime.Object](t *Takeover) (all []T) {
	for _, o := range t.Wanted {
		if x, ok := o.(T); ok {
			all = append(all, x)
		}
	}
	return all
}

// namedOf returns the object of a name; nil if there is none.
func namedOf[T metav1.Object](all []T, name string) (found T) {
	for _, o := range all {
		if o.GetName() == name {
			return o
		}
	}
	return found
}

func namesOfObjects[T metav1.Object](all []T) (names []string) {
	for _, o := range all {
		names = append(names, o.GetName())
	}
	return names
}

// hasMoved reports whether a selector selects only nodes with the label of moved nodes.
func hasMoved(s *metav1.LabelSelector) bool {
	if s == nil {
		return false
	}
	_, has := s.MatchLabels[herald.LabelMoved]
	return has || slices.ContainsFunc(s.MatchExpressions, isMoved)
}

func isMoved(r metav1.LabelSelectorRequirement) bool { return r.Key == herald.LabelMoved }

// marked returns the BGPPeers that only moved nodes have.
func (p *planner) marked() (peers []*herald.BGPPeer) {
	for _, peer := range p.BGPPeers {
		if hasMoved(peer.Spec.NodeSelector) {
			peers = append(peers, peer)
		}
	}
	return peers
}

// labelled returns the names of the moved nodes.
func (p *planner) labelled() (names []string) {
	for _, n := range p.Nodes {
		if moved(n) {
			names = append(names, n.Name)
		}
	}
	slices.Sort(names)
	return names
}

func moved(n *corev1.Node) bool { _, ok := n.Labels[herald.LabelMoved]; return ok }

// movable returns the nodes that have moved, or that have pods of MetalLB's DaemonSets.
func (p *planner) movable() (nodes []*corev1.Node) {
	for _, n := range p.Nodes {
		if moved(n) || slices.ContainsFunc(p.Pods, func(pod *corev1.Pod) bool { return pod.Spec.NodeName == n.Name && p.runs(pod) != nil }) {
			nodes = append(nodes, n)
		}
	}
	slices.SortFunc(nodes, func(x, y *corev1.Node) int { return cmp.Compare(x.Name, y.Name) })
	return nodes
}

// listed returns names of one kind: IPPool a, or IPPools a, b.
func listed(kind string, names []string) string {
	if len(names) != 1 {
		kind += "s"
	}
	return kind + " " + some(names)
}
