package report

import (
	"encoding/json"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"

	herald "github.com/heraldlb/herald/api/v1alpha1"
)

// takenOver is a cluster that moves from MetalLB to Herald. It makes edits, and plays the controllers and the speakers.
type takenOver struct {
	*Takeover
	t *testing.T
}

// beforeTakeover returns a cluster of two nodes in which default/web has an address of MetalLB, and Herald has no pools.
func beforeTakeover(t *testing.T) *takenOver {
	t.Helper()
	s := served()
	c := &takenOver{t: t, Takeover: &Takeover{Objects: s.Objects, CCM: &CCM{Class: herald.LoadBalancerClass, Classless: true}}}
	c.Pools, c.Allocations, c.L2Advertisements, c.BGPAdvertisements, c.BGPPeers = nil, nil, nil, nil, nil
	c.Leases = append(c.Leases, &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Name: ccmLease}})
	labels := func(component string) map[string]string {
		return map[string]string{"app": "metallb", "component": component}
	}
	c.Deployments = []*appsv1.Deployment{{ObjectMeta: metav1.ObjectMeta{Namespace: "metallb-system", Name: "controller", Labels: labels("controller")}}}
	c.DaemonSets = []*appsv1.DaemonSet{{
		ObjectMeta: metav1.ObjectMeta{Namespace: "metallb-system", Name: "speaker", UID: "speaker", Labels: labels("speaker")},
		Spec:       appsv1.DaemonSetSpec{UpdateStrategy: appsv1.DaemonSetUpdateStrategy{Type: appsv1.RollingUpdateDaemonSetStrategyType}},
	}}
	c.Wanted = []runtime.Object{
		&herald.IPPool{ObjectMeta: metav1.ObjectMeta{Name: "public"}, Spec: herald.IPPoolSpec{Addresses: []herald.AddressRange{"198.51.100.0/24"}}},
		&herald.BGPPeer{ObjectMeta: metav1.ObjectMeta{Name: "tor-a"}, Spec: herald.BGPPeerSpec{PasswordSecret: &herald.SecretReference{Name: "tor"}}},
		&herald.L2Advertisement{ObjectMeta: metav1.ObjectMeta{Name: "link"}},
		&herald.BGPAdvertisement{ObjectMeta: metav1.ObjectMeta{Name: "fabric"}},
	}
	c.Annotations = map[types.NamespacedName]map[string]string{{Namespace: "default", Name: "web"}: {herald.AnnotationIPs: "198.51.100.1"}}
	c.react()
	return c
}

// merge merges a JSON merge patch (RFC 7396) into an object.
func merge(into, patch map[string]any) {
	for key, value := range patch {
		below, isMap := value.(map[string]any)
		there, wasMap := into[key].(map[string]any)
		switch {
		case value == nil:
			delete(into, key)
		case isMap && wasMap:
			merge(there, below)
		case isMap:
			fresh := map[string]any{}
			merge(fresh, below)
			into[key] = fresh
		default:
			into[key] = value
		}
	}
}

// edit makes an edit in a list of objects.
func edit[T any, P interface {
	*T
	metav1.Object
}](t *testing.T, all []P, e Edit) []P {
	t.Helper()
	i := slices.IndexFunc(all, func(o P) bool { return o.GetName() == e.Name && o.GetNamespace() == e.Namespace })
	if e.Body == nil {
		if i < 0 {
			t.Fatalf("%s %s is deleted, and is not there", e.Resource, e.Name)
		}
		return slices.Delete(slices.Clone(all), i, i+1)
	}
	var before any = new(T)
	if i >= 0 {
		before = all[i]
	}
	var object, patch map[string]any
	for from, to := range map[any]*map[string]any{before: &object, &e.Body: &patch} {
		text, err := json.Marshal(from)
		if err == nil {
			err = json.Unmarshal(text, to)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	merge(object, patch)
	text, err := json.Marshal(object)
	after := P(new(T))
	if err == nil {
		err = json.Unmarshal(text, after)
	}
	if err != nil {
		t.Fatal(err)
	}
	if e.Patch == types.ApplyPatchType {
		after.SetManagedFields([]metav1.ManagedFieldsEntry{{Manager: TakeoverManager}})
	}
	if i < 0 {
		return append(slices.Clone(all), after)
	}
	all = slices.Clone(all)
	all[i] = after
	return all
}

func (c *takenOver) make(edits []Edit) {
	c.t.Helper()
	for _, e := range edits {
		switch e.Resource {
		case "services":
			if e.Body["metadata"].(map[string]any)["annotations"] == nil { // The fields of the manager go.
				i := slices.IndexFunc(c.Services, func(o *corev1.Service) bool { return o.Name == e.Name })
				c.Services[i] = c.Services[i].DeepCopy()
				c.Services[i].Annotations, c.Services[i].ManagedFields = nil, nil
				continue
			}
			c.Services = edit(c.t, c.Services, e)
		case "deployments":
			c.Deployments = edit(c.t, c.Deployments, e)
		case "daemonsets":
			c.DaemonSets = edit(c.t, c.DaemonSets, e)
		case "nodes":
			c.Nodes = edit(c.t, c.Nodes, e)
		case "ippools":
			c.Pools = slices.DeleteFunc(c.Pools, func(o *herald.IPPool) bool { return o.Name == e.Name })
			c.Pools = edit(c.t, c.Pools, e)
		case "l2advertisements":
			c.L2Advertisements = edit(c.t, c.L2Advertisements, e)
		case "bgppeers":
			c.BGPPeers = edit(c.t, c.BGPPeers, e)
		case "bgpadvertisements":
			c.BGPAdvertisements = edit(c.t, c.BGPAdvertisements, e)
		default:
			c.t.Fatalf("an edit of %s", e.Resource)
		}
	}
	c.react()
}

// react does what controllers, herald-ccm and the speakers do.
func (c *takenOver) react() {
	accepted := []metav1.Condition{{Type: herald.ConditionAccepted, Status: metav1.ConditionTrue}}
	for _, o := range c.Pools {
		o.Status.Conditions = accepted
		if !o.Spec.Disabled {
			c.Allocations = []*herald.IPAllocation{record("198.51.100.1", "public", "default/web")}
		}
	}
	for _, o := range c.L2Advertisements {
		o.Status.Conditions = accepted
	}
	for _, o := range c.BGPPeers {
		o.Status.Conditions = accepted
		if selector, err := herald.CompileSelector("nodeSelector", o.Spec.NodeSelector); err != nil || !slices.ContainsFunc(c.Nodes, func(n *corev1.Node) bool { return selector.Matches(labels.Set(n.Labels)) }) {
			o.Status.Conditions = []metav1.Condition{{Type: herald.ConditionAccepted, Status: metav1.ConditionFalse, Reason: herald.ReasonNoNodeSelected}}
		}
	}
	for _, d := range c.Deployments {
		d.Status.Replicas, d.Status.AvailableReplicas = replicas(d), replicas(d)
	}
	c.Pods = nil
	for _, d := range c.DaemonSets {
		for _, n := range c.Nodes {
			if !moved(n) || !keepsOff(d) {
				c.Pods = append(c.Pods, &corev1.Pod{
					ObjectMeta: metav1.ObjectMeta{Namespace: d.Namespace, Name: d.Name + "-" + n.Name, OwnerReferences: []metav1.OwnerReference{{UID: d.UID, Controller: new(true)}}},
					Spec:       corev1.PodSpec{NodeName: n.Name},
					Status:     corev1.PodStatus{Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}},
				})
			}
		}
	}
	for _, st := range c.Speakers {
		n := namedOf(c.Nodes, st.Name)
		st.Status.Claims, st.Status.Sessions, st.Status.L2Addresses = nil, nil, 0
		if st.Name == "n1" && len(c.L2Advertisements) > 0 {
			st.Status.Claims, st.Status.L2Addresses = []herald.SpeakerClaim{{Address: "198.51.100.1", Interface: "eth0"}}, 1
		}
		for _, peer := range c.BGPPeers {
			if selector, err := herald.CompileSelector("nodeSelector", peer.Spec.NodeSelector); err == nil && selector.Matches(labels.Set(n.Labels)) {
				st.Status.Sessions = append(st.Status.Sessions, herald.SpeakerSession{Peer: peer.Name, State: established, Routes: 1})
			}
		}
	}
}

func (c *takenOver) plan() *TakeoverPlan {
	c.t.Helper()
	plan, err := c.Plan(now)
	if err != nil {
		c.t.Fatal(err)
	}
	return plan
}

// take does steps, until the next one is the one named.
func (c *takenOver) take(until string) *takenOver {
	c.t.Helper()
	for range 20 {
		step := c.plan().Next()
		if step == nil || step.Name == until {
			return c
		}
		if step.Name == stepUninstall {
			c.Deployments, c.DaemonSets = nil, nil
			c.react()
		} else {
			c.make(step.Do)
		}
	}
	c.t.Fatalf("step %s is not reached:\n%s", until, plainText(c.plan().Text))
	return nil
}

var allSteps = []string{"annotations", "controller", "pools", "segments", "prepare", "node n1", "node n2", "uninstall", "peers", "labels"}

// TestTakeoverStepByStep takes all steps. Each is done by its own edits, and only the next one changes its state.
func TestTakeoverStepByStep(t *testing.T) {
	c := beforeTakeover(t)
	for i, name := range allSteps {
		plan := c.plan()
		if len(plan.Obstacles) > 0 {
			t.Fatalf("before %s: %v", name, plan.Obstacles)
		}
		if next := plan.Next(); next == nil || next.Name != name {
			t.Fatalf("after %d steps, the next is not %s:\n%s", i, name, plainText(plan.Text))
		}
		for _, s := range plan.Steps {
			at := slices.Index(allSteps, s.Name)
			if want := map[bool]StepState{true: StepDone, false: StepLater}[at < i]; at != i && s.State != want {
				t.Errorf("before %s, %s is %s", name, s.Name, s.State)
			}
		}
		c.take(append(allSteps, "")[i+1])
	}
	if plan := c.plan(); len(plan.Steps) > 0 || plan.Next() != nil {
		t.Errorf("after all steps: %s", plainText(plan.Text))
	}
	if s := c.BGPPeers[0].Spec.NodeSelector; s != nil {
		t.Errorf("the BGPPeer still selects %v", s)
	}
	for _, n := range c.Nodes {
		if moved(n) {
			t.Errorf("node %s still has the label", n.Name)
		}
	}
}

// TestTakeoverBack takes back all steps, from each of them. MetalLB's objects are then as they were.
func TestTakeoverBack(t *testing.T) {
	for i, name := range allSteps {
		if i > slices.Index(allSteps, stepUninstall) {
			if last := beforeTakeover(t).take(name).plan(); !last.Uninstalled() || last.Last() != nil {
				t.Errorf("before %s, MetalLB is gone, and %v can be taken back", name, last.Last())
			}
			continue
		}
		t.Run(name, func(t *testing.T) {
			c := beforeTakeover(t)
			was := c.DaemonSets[0].DeepCopy()
			c.take(name)
			for j := i - 1; j >= 0; j-- {
				last := c.plan().Last()
				if last == nil || last.Name != allSteps[j] {
					t.Fatalf("%s is not the last step:\n%s", allSteps[j], plainText(c.plan().Text))
				}
				c.make(last.Undo)
				now := c.plan().Named(last.Name)
				if lacks := now.Remains(); len(lacks) > 0 || now.State != StepNext {
					t.Errorf("after %s was taken back, it is %s: %v", last.Name, now.State, lacks)
				}
			}
			if last := c.plan().Last(); last != nil {
				t.Errorf("%s can be taken back, and nothing was done", last.Name)
			}
			if d := cmp.Diff(was, c.DaemonSets[0], cmp.Transformer("annotations", func(m map[string]string) int { return len(m) })); d != "" {
				t.Errorf("the DaemonSet is another one: %s", d)
			}
			if replicas(c.Deployments[0]) != 1 || len(c.BGPPeers)+len(c.BGPAdvertisements)+len(c.L2Advertisements) > 0 || c.Services[0].Annotations != nil {
				t.Errorf("%d replicas, %d BGPPeers, annotations %v", replicas(c.Deployments[0]), len(c.BGPPeers), c.Services[0].Annotations)
			}
		})
	}
}

// TestTakeoverWaits checks what the plan says if the check of a step that was begun does not pass.
func TestTakeoverWaits(t *testing.T) {
	for _, c := range []struct {
		name, step string // The step after the broken one.
		breaks     func(*takenOver)
		next, want string
	}{
		{"a Service loses an annotation", "controller", func(c *takenOver) { c.Services[0].Annotations = nil }, "annotations", "Service default/web does not have all annotations that it needs yet"},
		{"a pod of the controller stays", "pools", func(c *takenOver) { c.Deployments[0].Status.Replicas = 1 }, "controller", "Deployment metallb-system/controller still has 1 pod: kubectl -n metallb-system describe deployment controller says why"},
		{"an address has no record", "segments", func(c *takenOver) { c.Allocations = nil }, "pools", "Service default/web has 198.51.100.1, and no IPAllocation records that: kubectl herald explain service default/web says why"},
		{"a Service has another record, too", "segments", func(c *takenOver) {
			c.Allocations = append(c.Allocations, record("198.51.100.2", "public", "default/web"))
		}, "pools", "Service default/web has 198.51.100.1, and 198.51.100.2 is recorded for it, too: kubectl herald explain service default/web says why"},
		{"a record is of an earlier Service", "segments", func(c *takenOver) { c.Allocations[0].Spec.Owners[0].UID = "earlier" }, "pools", "no IPAllocation records that"},
		{"herald-ccm does not read a pool", "segments", func(c *takenOver) { c.Pools[0].Generation = 7 }, "pools", "herald-ccm has not read IPPool public yet: see whether it runs"},
		{"a pool is not accepted", "segments", func(c *takenOver) {
			c.Pools[0].Status.Conditions = []metav1.Condition{{Type: herald.ConditionAccepted, Status: metav1.ConditionFalse, Message: "spec.addresses is empty"}}
		}, "pools", "IPPool public is not accepted: spec.addresses is empty: correct it, and give your objects with -f"},
		{"an address has no owner", "prepare", func(c *takenOver) { c.Speakers[0].Status.Claims = nil; c.Speakers[0].Status.L2Addresses = 0 }, "segments", "198.51.100.1 of default/web has no owner: kubectl herald explain service default/web says why"},
		{"an address is too new to be reported", "prepare", func(c *takenOver) {
			c.Allocations[0].CreationTimestamp = metav1.NewTime(now)
			c.Speakers[0].Status.Claims, c.Speakers[0].Status.L2Addresses = nil, 0
		}, "segments", "198.51.100.1 of default/web has no owner"},
		{"a machine without a speaker has an address", "prepare", func(c *takenOver) {
			c.Speakers[1].Status.Conflicts = []herald.SpeakerConflict{{Address: "198.51.100.1", Interface: "eth0", MAC: "02:00:5e:00:53:99"}}
		}, "segments", "198.51.100.1: a machine that is not a speaker uses it: 02:00:5e:00:53:99 on eth0 of n2"},
		{"Helm edits the DaemonSet", "node n1", func(c *takenOver) { c.DaemonSets[0].Spec.Template.Spec.Affinity = nil }, "prepare", "DaemonSet metallb-system/speaker starts its pods on nodes with the label herald.dev/moved: see what has edited it, such as Helm or GitOps, and stop that"},
		{"the DaemonSet controller stands still", "node n1", func(c *takenOver) { c.DaemonSets[0].Generation = 2 }, "prepare", "the DaemonSet controller has not seen DaemonSet metallb-system/speaker yet"},
		{"a BGPPeer selects all nodes", "node n1", func(c *takenOver) { c.BGPPeers[0].Spec.NodeSelector = nil }, "prepare", "BGPPeer tor-a selects nodes without the label herald.dev/moved, on which MetalLB has a session"},
		{"a BGPAdvertisement is deleted", "node n1", func(c *takenOver) { c.BGPAdvertisements = nil }, "prepare", "BGPAdvertisement fabric is not there yet"},
		{"a pod of MetalLB stays on the node", "node n2", func(c *takenOver) {
			pod := c.Pods[0].DeepCopy()
			pod.Name, pod.Spec.NodeName = "speaker-n1", "n1"
			c.Pods = append(c.Pods, pod)
		}, "node n1", "pod metallb-system/speaker-n1 of MetalLB is still on node n1: kubectl -n metallb-system describe pod speaker-n1 says why"},
		{"a session is down", "node n2", func(c *takenOver) {
			c.Speakers[0].Status.Sessions[0].State, c.Speakers[0].Status.Sessions[0].Reason = "Down", "no answer"
		}, "node n1", "the session of node n1 with BGPPeer tor-a is Down: no answer: kubectl herald bgp peers tor-a says more"},
		{"there is no session", "node n2", func(c *takenOver) { c.Speakers[0].Status.Sessions = nil }, "node n1", "node n1 has no session with BGPPeer tor-a: kubectl herald bgp peers tor-a says why"},
		{"a route was not sent", "node n2", func(c *takenOver) { c.Speakers[0].Status.Sessions[0].Routes = 0 }, "node n1", "node n1 has sent BGPPeer tor-a 0 of 1 route: kubectl herald bgp routes says which are missing"},
		{"MetalLB is there", "uninstall", func(*takenOver) {}, "uninstall", "DaemonSet metallb-system/speaker is there"},
		{"a session ends when the BGPPeers are changed", "labels", func(c *takenOver) { c.Speakers[1].Status.Sessions[0].State = "Down" }, "peers", "the session of node n2 with BGPPeer tor-a is Down"},
	} {
		t.Run(c.name, func(t *testing.T) {
			cluster := beforeTakeover(t).take(c.step)
			c.breaks(cluster)
			plan := cluster.plan()
			next := plan.Next()
			if next == nil || next.Name != c.next || !strings.Contains(strings.Join(next.Lacks(), "\n"), c.want) {
				t.Fatalf("the next step is not %s, with %s:\n%s", c.next, c.want, plainText(plan.Text))
			}
			if next.Begun && !strings.Contains(plainText(plan.Text), "  waits: ") {
				t.Errorf("the plan does not say it:\n%s", plainText(plan.Text))
			}
		})
	}
}

// TestTakeoverObstacles checks what is said before the first step.
func TestTakeoverObstacles(t *testing.T) {
	for _, c := range []struct {
		name string
		with func(*takenOver)
		want string
	}{
		{"the translation", func(c *takenOver) {
			c.Obstacles = []string{"BGPPeer metallb-system/tor: spec.routerID: it is one for all nodes"}
		}, "BGPPeer metallb-system/tor: spec.routerID: it is one for all nodes"},
		{"no pools", func(c *takenOver) {
			c.Wanted, c.Obstacles = c.Wanted[1:], []string{"Service default/web: it has 198.51.100.1, which is in no IPPool"}
		}, "there is no IPPool that would take the place of an IPAddressPool: give Herald's objects with -f"},
		{"a disabled pool", func(c *takenOver) {
			c.Wanted[0].(*herald.IPPool).Spec.Disabled = true
			c.Obstacles = []string{"Service default/web: it has 198.51.100.1"}
		}, "IPPool public has spec.disabled"},
		{"an invalid pool", func(c *takenOver) {
			c.Wanted = append(c.Wanted, &herald.IPPool{ObjectMeta: metav1.ObjectMeta{Name: "broken"}, Spec: herald.IPPoolSpec{Addresses: []herald.AddressRange{"198.51.100.300"}}})
		}, "IPPool broken: "},
		{"a pool for other namespaces", func(c *takenOver) {
			c.Wanted[0].(*herald.IPPool).Spec.Namespaces = []string{"other"}
			c.Wanted = append(c.Wanted, &herald.IPPool{ObjectMeta: metav1.ObjectMeta{Name: "rest"}, Spec: herald.IPPoolSpec{Addresses: []herald.AddressRange{"203.0.113.0/24"}}})
			c.Annotations = nil
		}, "Service default/web: it has 198.51.100.1, and Herald would give it 203.0.113.0: correct the IPPools, and give your objects with -f"},
		{"an address in no pool", func(c *takenOver) {
			c.Wanted[0].(*herald.IPPool).Spec.Addresses = []herald.AddressRange{"203.0.113.0/24"}
		}, "Service default/web: it has 198.51.100.1, and would wait with Herald: "},
		{"no herald-ccm", func(c *takenOver) { c.Leases = c.Leases[:2] }, "herald-ccm has no Lease in the namespace of Herald (--herald-namespace)"},
		{"Leases that may not be listed", func(c *takenOver) { c.Leases = nil }, "whether herald-ccm and the speakers run is not known, since you may not list leases.coordination.k8s.io"},
		{"a node without a speaker", func(c *takenOver) { c.Speakers = c.Speakers[:1] }, "node n2 has MetalLB and no SpeakerStatus: see whether herald-speaker runs there"},
		{"a speaker that is silent", func(c *takenOver) { c.Leases[1] = lease("n2", time.Hour) }, "node n2: its speaker has not renewed the Lease speaker-n2 for"},
		{"an excluded node from which MetalLB announces", func(c *takenOver) {
			c.Nodes[1].Labels = map[string]string{corev1.LabelNodeExcludeBalancers: ""}
			c.DaemonSets[0].Spec.Template.Spec.Containers = []corev1.Container{{Args: []string{"--ignore-exclude-lb"}}}
		}, "node n2 has the label node.kubernetes.io/exclude-from-external-load-balancers, which MetalLB ignores (--ignore-exclude-lb) and Herald does not: remove the label"},
		{"a Secret that is not there", func(c *takenOver) {
			c.Secrets = map[string]string{"tor": SecretObstacle("herald-system-peers", "tor", nil)}
		}, "Secret herald-system-peers/tor is not there: create it, with the password under the key password: kubectl create secret generic tor -n herald-system-peers --type=kubernetes.io/basic-auth"},
		{"a Secret of another type", func(c *takenOver) {
			c.Secrets = map[string]string{"tor": SecretObstacle("herald-system-peers", "tor", &corev1.Secret{Type: corev1.SecretTypeOpaque})}
		}, "Secret herald-system-peers/tor is not of type kubernetes.io/basic-auth, or has no password"},
		{"an operator", func(c *takenOver) {
			c.DaemonSets[0].OwnerReferences = []metav1.OwnerReference{{Kind: "MetalLB", Name: "metallb", Controller: new(true)}}
		}, "DaemonSet metallb-system/speaker belongs to MetalLB metallb, whose controller would take the changes back"},
	} {
		t.Run(c.name, func(t *testing.T) {
			cluster := beforeTakeover(t)
			c.with(cluster)
			plan := cluster.plan()
			if len(plan.Obstacles) != 1 && c.name != "no pools" && c.name != "a disabled pool" || !strings.Contains(strings.Join(plan.Obstacles, "\n"), c.want) {
				t.Errorf("%q, want %s", plan.Obstacles, c.want)
			}
			if text := plainText(plan.Text); !strings.HasPrefix(text, "✗ ") || !strings.Contains(text, "Remove what is marked with ✗ first.") {
				t.Errorf("the plan does not say it:\n%s", text)
			}
		})
	}
}

// TestTakeoverOfSegmentsOnly checks a cluster without BGP, whose Services need no annotations: there are fewer steps.
func TestTakeoverOfSegmentsOnly(t *testing.T) {
	c := beforeTakeover(t)
	c.Wanted, c.Annotations = []runtime.Object{c.Wanted[0], c.Wanted[2]}, nil
	var names []string
	for _, s := range c.plan().Steps {
		names = append(names, s.Name)
	}
	if d := cmp.Diff([]string{"controller", "pools", "segments", "prepare", "node n1", "node n2", "uninstall", "labels"}, names); d != "" {
		t.Error(d)
	}
	if plan := c.take("").plan(); plan.Next() != nil {
		t.Errorf("it ends with\n%s", plainText(plan.Text))
	}
}

// TestTakeoverOfFRRK8s checks that the DaemonSet of FRR-K8s leaves a node with MetalLB's speaker if it has MetalLB's
// sessions, and only then.
func TestTakeoverOfFRRK8s(t *testing.T) {
	c := beforeTakeover(t)
	c.DaemonSets = append(c.DaemonSets, &appsv1.DaemonSet{
		ObjectMeta: metav1.ObjectMeta{Namespace: "metallb-system", Name: "frr-k8s-daemon", UID: "frr-k8s", Labels: map[string]string{"app.kubernetes.io/name": "frr-k8s", "app.kubernetes.io/component": "frr-k8s"}},
	})
	c.react()
	edited := func() (names []string) {
		for _, e := range c.plan().Named("prepare").Do {
			if e.Resource == "daemonsets" {
				names = append(names, e.Name)
			}
		}
		return names
	}
	if d := cmp.Diff([]string{"speaker"}, edited()); d != "" {
		t.Error(d)
	}
	c.DaemonSets[0].Spec.Template.Spec.Containers = []corev1.Container{{Env: []corev1.EnvVar{{Name: "METALLB_BGP_TYPE", Value: "frr-k8s"}}}}
	if d := cmp.Diff([]string{"frr-k8s-daemon", "speaker"}, edited()); d != "" {
		t.Error(d)
	}
	c.take("node n2")
	if i := slices.IndexFunc(c.Pods, func(p *corev1.Pod) bool { return p.Spec.NodeName == "n1" }); i >= 0 || len(c.Pods) != 2 {
		t.Errorf("%d pods of MetalLB run", len(c.Pods))
	}
	c.DaemonSets = slices.DeleteFunc(c.DaemonSets, func(d *appsv1.DaemonSet) bool { return d.Name == "speaker" })
	if s := c.take("uninstall").plan().Next(); !slices.Contains(s.Waits, "DaemonSet metallb-system/frr-k8s-daemon is there") {
		t.Errorf("without the speaker, %s waits for %v", s.Name, s.Waits)
	}
}

// TestTakeoverKeepsAffinity checks that a DaemonSet keeps the terms that it has, and gets them back.
func TestTakeoverKeepsAffinity(t *testing.T) {
	linux := corev1.NodeSelectorRequirement{Key: "kubernetes.io/os", Operator: corev1.NodeSelectorOpIn, Values: []string{"linux"}}
	terms := func(all ...corev1.NodeSelectorTerm) *corev1.Affinity {
		return &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{RequiredDuringSchedulingIgnoredDuringExecution: &corev1.NodeSelector{NodeSelectorTerms: all}}}
	}
	preferred := []corev1.PreferredSchedulingTerm{{Weight: 1, Preference: corev1.NodeSelectorTerm{MatchExpressions: []corev1.NodeSelectorRequirement{linux}}}}
	for _, c := range []struct {
		name     string
		affinity *corev1.Affinity
		strategy appsv1.DaemonSetUpdateStrategyType
	}{
		{"none", nil, appsv1.RollingUpdateDaemonSetStrategyType},
		{"OnDelete already", nil, appsv1.OnDeleteDaemonSetStrategyType},
		{"two terms", terms(corev1.NodeSelectorTerm{MatchExpressions: []corev1.NodeSelectorRequirement{linux}}, corev1.NodeSelectorTerm{MatchFields: []corev1.NodeSelectorRequirement{{Key: "metadata.name", Operator: corev1.NodeSelectorOpIn, Values: []string{"n1"}}}}), appsv1.RollingUpdateDaemonSetStrategyType},
		{"preferences", &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{PreferredDuringSchedulingIgnoredDuringExecution: preferred}}, appsv1.RollingUpdateDaemonSetStrategyType},
		{"affinity to pods", &corev1.Affinity{PodAffinity: &corev1.PodAffinity{}}, appsv1.RollingUpdateDaemonSetStrategyType},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := &appsv1.DaemonSet{ObjectMeta: metav1.ObjectMeta{Name: "speaker"}}
			d.Spec.UpdateStrategy.Type, d.Spec.Template.Spec.Affinity = c.strategy, c.affinity
			off := edit(t, []*appsv1.DaemonSet{d}, keepOff(d))[0]
			if !keepsOff(off) {
				t.Fatalf("its pods stay: %v", off.Spec.Template.Spec.Affinity)
			}
			for _, term := range requiredTerms(off) {
				if !slices.ContainsFunc(term.MatchExpressions, avoidsMoved) {
					t.Errorf("a term lets them stay: %v", term)
				}
			}
			off = edit(t, []*appsv1.DaemonSet{off}, keepOff(off))[0] // Twice is once.
			back := edit(t, []*appsv1.DaemonSet{off}, letOn(off))[0]
			if d := cmp.Diff(d.Spec, back.Spec); d != "" {
				t.Errorf("it is not what it was: %s", d)
			}
		})
	}
}

// TestTakeoverOfNothing checks the plan of a cluster without MetalLB.
func TestTakeoverOfNothing(t *testing.T) {
	c := beforeTakeover(t)
	c.Deployments, c.DaemonSets, c.Pods = nil, nil, nil
	if text := plainText(c.plan().Text); text != "There is no Deployment or DaemonSet of MetalLB, no node with the label herald.dev/moved, and no BGPPeer whose nodeSelector has it: there is nothing to take over.\n" {
		t.Error(text)
	}
}

func TestReaddressed(t *testing.T) {
	before, after := served(), served()
	if texts := Readdressed(before.Objects, after.Objects); texts != nil {
		t.Error(texts)
	}
	after.Services[0].Status.LoadBalancer.Ingress[0].IP = "198.51.100.2"
	if d := cmp.Diff([]string{"Service default/web had 198.51.100.1, and has 198.51.100.2 now: kubectl herald explain service default/web says why"}, Readdressed(before.Objects, after.Objects)); d != "" {
		t.Error(d)
	}
}

// TestTakeoverWithMatchLabels has a BGPPeer that selects moved nodes by matchLabels, as the steps by hand do. MetalLB is
// uninstalled.
func TestTakeoverWithMatchLabels(t *testing.T) {
	c := beforeTakeover(t).take(stepPeers)
	c.BGPPeers[0].Spec.NodeSelector = &metav1.LabelSelector{MatchLabels: map[string]string{herald.LabelMoved: "true"}}
	if next := c.plan().Next(); next == nil || next.Name != stepPeers {
		t.Fatalf("next is %v: without the label, no node would have a session", next)
	}
	c.take("")
	if s := c.BGPPeers[0].Spec.NodeSelector; s != nil || slices.ContainsFunc(c.Nodes, moved) {
		t.Errorf("after all steps, the BGPPeer selects %v, and moved nodes are left: %v", s, slices.ContainsFunc(c.Nodes, moved))
	}
}

// TestTakeoverLeavesOwnAnnotations has a Service that its user forbids to share its address.
func TestTakeoverLeavesOwnAnnotations(t *testing.T) {
	c := beforeTakeover(t)
	c.Annotations = map[types.NamespacedName]map[string]string{{Namespace: "default", Name: "web"}: {herald.AnnotationSharingKey: "k"}}
	c.Services[0].Annotations = map[string]string{herald.AnnotationSharingKey: ""}
	if plan := c.plan(); plan.Next() == nil || plan.Next().Name != stepController || len(plan.Named(stepAnnotations).Do) > 0 {
		t.Errorf("%v, and %s", plan.Next(), plainText(plan.Text))
	}
}

func TestRoutesThatAreDue(t *testing.T) {
	routes := map[netip.Prefix]bool{}
	for _, p := range []string{"198.51.100.1/32", "198.51.100.2/32", "2001:db8::1/128"} {
		routes[netip.MustParsePrefix(p)] = true
	}
	for _, c := range []struct {
		session herald.SpeakerSession
		want    int
	}{
		{herald.SpeakerSession{Address: "198.18.0.1"}, 3},
		{herald.SpeakerSession{Address: "198.18.0.1", Reason: "the Secret is gone, and its last password is in use"}, 3},
		{herald.SpeakerSession{Address: "198.18.0.1", Withheld: []herald.IPFamily{herald.IPv6}}, 2},
		{herald.SpeakerSession{Address: "fe80::1%eth0", Withheld: []herald.IPFamily{herald.IPv4}}, 1},
	} {
		if n := due(c.session, routes); n != c.want {
			t.Errorf("%+v: %d, want %d", c.session, n, c.want)
		}
	}
}

// TestADaemonSetWithoutAffinityIsLetOn checks the patch: the API server refuses an empty list of terms.
func TestADaemonSetWithoutAffinityIsLetOn(t *testing.T) {
	spec := letOn(&appsv1.DaemonSet{}).Body["spec"].(map[string]any)["template"].(map[string]any)["spec"].(map[string]any)
	if affinity, there := spec["affinity"]; affinity != nil || !there {
		t.Errorf("the patch has the affinity %v", affinity)
	}
}

// TestTheOrderOfAddressesIsNoChange has a Service whose addresses herald-ccm writes in another order than MetalLB.
func TestTheOrderOfAddressesIsNoChange(t *testing.T) {
	with := func(addresses ...string) *Objects {
		svc := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web"}}
		for _, a := range addresses {
			svc.Status.LoadBalancer.Ingress = append(svc.Status.LoadBalancer.Ingress, corev1.LoadBalancerIngress{IP: a})
		}
		return &Objects{Services: []*corev1.Service{svc}}
	}
	before := with("2001:db8::1", "198.51.100.1")
	if texts := Readdressed(before, with("198.51.100.1", "2001:db8::1")); len(texts) > 0 {
		t.Error(texts)
	}
	if texts := Readdressed(before, with("198.51.100.1")); len(texts) != 1 {
		t.Errorf("%q, want one text", texts)
	}
}

// TestALeaseFromTheFutureIsNotValid has a speaker whose clock, or whose intention, is wrong.
func TestALeaseFromTheFutureIsNotValid(t *testing.T) {
	now, holder, seconds := time.Unix(1_000_000, 0), "n1", int32(30)
	for after, valid := range map[time.Duration]bool{-time.Minute: true, time.Minute: true, time.Minute + time.Second: false, 24 * time.Hour: false, -time.Hour: false} {
		renewed := metav1.NewMicroTime(now.Add(after))
		l := &coordinationv1.Lease{Spec: coordinationv1.LeaseSpec{HolderIdentity: &holder, LeaseDurationSeconds: &seconds, RenewTime: &renewed}}
		if why := expired(l, now); (why == "") != valid {
			t.Errorf("renewed %v from now: %q", after, why)
		}
	}
}
