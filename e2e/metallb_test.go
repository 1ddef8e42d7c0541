package e2e

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"sigs.k8s.io/controller-runtime/pkg/envtest"

	herald "github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/e2e/lab"
	"github.com/heraldlb/herald/e2e/lab/router"
)

// metalLBNamespace is the namespace in which MetalLB's manifests install it.
const metalLBNamespace = "metallb-system"

// synTimeout is the time after which a kernel sends a lost SYN again (RFC 6298, section 2.1). A SYN that is sent again sooner
// was not lost but answered. The answer is an ACK, for example, if the receiver still has a broken connection with the same
// ports (RFC 9293, section 3.5.1).
const synTimeout = time.Second

// metalLBManifest has the workloads of MetalLB's native manifest, without what only its webhooks and probes need. Pods of the
// lab have no token, so MetalLB has a kubeconfig. The controller has the network of its node, because the API server has no
// route to pods, and then needs ports that the speaker does not use.
const metalLBManifest = `
apiVersion: v1
kind: Namespace
metadata: {name: metallb-system}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: controller, namespace: metallb-system, labels: {app: metallb, component: controller}}
spec:
  selector: {matchLabels: {app: metallb, component: controller}}
  template:
    metadata: {labels: {app: metallb, component: controller}}
    spec:
      hostNetwork: true
      terminationGracePeriodSeconds: 0
      containers:
      - name: controller
        image: quay.io/metallb/controller:v0.16.1
        args: [--port=9121, --health-probe-port=17473, --webhook-mode=disabled, --namespace=metallb-system, --log-level=info]
        env:
        - {name: METALLB_POD_NAME, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
        - {name: METALLB_DEPLOYMENT, value: controller}
        - {name: KUBECONFIG, value: %[1]q}
        ports: [{containerPort: 9121}]
---
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: speaker, namespace: metallb-system, labels: {app: metallb, component: speaker}}
spec:
  selector: {matchLabels: {app: metallb, component: speaker}}
  template:
    metadata: {labels: {app: metallb, component: speaker}}
    spec:
      hostNetwork: true
      terminationGracePeriodSeconds: 2
      nodeSelector: {kubernetes.io/os: linux}
      containers:
      - name: speaker
        image: quay.io/metallb/speaker:v0.16.1
        args: [--port=9120, --namespace=metallb-system, --log-level=info]
        env:
        - {name: METALLB_NODE_NAME, valueFrom: {fieldRef: {fieldPath: spec.nodeName}}}
        - {name: METALLB_POD_NAME, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
        - {name: METALLB_ML_BIND_ADDR, valueFrom: {fieldRef: {fieldPath: status.podIP}}}
        - {name: METALLB_ML_LABELS, value: "app=metallb,component=speaker"}
        - {name: METALLB_BGP_TYPE, value: native}
        - {name: KUBECONFIG, value: %[1]q}
        ports: [{containerPort: 9120}]
`

// metalLBObjects announce one pool on the segment and one to both routers.
const metalLBObjects = `
apiVersion: metallb.io/v1beta1
kind: IPAddressPool
metadata: {name: segment, namespace: metallb-system}
spec: {addresses: [198.18.0.200-198.18.0.250, "2001:db8:18::200-2001:db8:18::250"]}
---
apiVersion: metallb.io/v1beta1
kind: IPAddressPool
metadata: {name: routed, namespace: metallb-system}
spec: {addresses: [198.51.100.0/26], autoAssign: false}
---
apiVersion: metallb.io/v1beta1
kind: L2Advertisement
metadata: {name: segment, namespace: metallb-system}
spec: {ipAddressPools: [segment]}
---
apiVersion: metallb.io/v1beta1
kind: BGPAdvertisement
metadata: {name: routed, namespace: metallb-system}
spec: {ipAddressPools: [routed]}
---
apiVersion: metallb.io/v1beta2
kind: BGPPeer
metadata: {name: router1, namespace: metallb-system}
spec: {myASN: 64512, peerASN: 64500, peerAddress: 198.18.0.2}
---
apiVersion: metallb.io/v1beta2
kind: BGPPeer
metadata: {name: router2, namespace: metallb-system}
spec: {myASN: 64512, peerASN: 64501, peerAddress: 198.18.0.3}
`

// TestMetalLBHandsOver moves a cluster from the real MetalLB to Herald by the documented commands, one node after the other,
// while clients on the segment and behind routers open connections. One node also goes back. No Service may lose its
// address, no connection may be refused, and none may wait for a second. A connection that is open when an address or a route
// moves may break: the other node does not know it.
func TestMetalLBHandsOver(t *testing.T) {
	m := beforeTheMove(t)
	f, all := m.labField, names(m.site)
	follow := f.follower("docs/moving.md", "only() {")

	m.step("the controller stops")
	follow("scale deployment controller")
	f.eventually("MetalLB's controller is gone", func(ctx context.Context) error { return f.metalLBPods(ctx, "controller", "", 0) })
	m.step("the pools")
	follow("only IPPool")
	f.holds("web", m.onSegment...)
	f.holds("routed", m.routed)
	m.step("on the segment, both announce")
	follow("only L2Advertisement")
	f.owned(m.onSegment...)
	m.step("the speakers")
	follow("patch daemonset speaker")
	follow("only BGPPeer")
	for _, n := range all {
		f.eventually("MetalLB's speaker stays on "+n, func(ctx context.Context) error { return f.metalLBPods(ctx, "speaker", n, 1) })
	}
	over := func(n string) {
		m.step(n + " moves")
		f.label(n, herald.LabelMoved, "true")
		m.moved(n)
	}
	over(all[0])
	m.step(all[0] + " goes back")
	f.unlabel(all[0], herald.LabelMoved)
	m.wentBack(all[0])
	for _, n := range all {
		over(n)
	}
	m.step("MetalLB is uninstalled")
	since := f.sessionsSince()
	f.kubectl("delete", "namespace", metalLBNamespace)
	follow("label nodes --all")
	m.judge(since)
}

// TestMetalLBIsTakenOver is the same move by kubectl herald takeover.
func TestMetalLBIsTakenOver(t *testing.T) {
	m := beforeTheMove(t)
	f, all := m.labField, names(m.site)
	const takeover = "takeover metallb"
	next := func(what string) {
		m.step(what)
		f.does(takeover+" --next", what+": done")
	}
	f.comesToSay(takeover, 0, "Next: annotations")
	for _, s := range []string{"annotations", "controller", "pools", "segments", "prepare"} {
		next(s)
	}
	f.holds("web", m.onSegment...)
	f.holds("routed", m.routed)
	next("node " + all[0])
	m.moved(all[0])
	m.step(all[0] + " goes back")
	f.does(takeover+" --back", "node "+all[0]+": taken back")
	m.wentBack(all[0])
	for _, n := range all {
		next("node " + n)
		m.moved(n)
	}
	m.step("MetalLB is uninstalled")
	since := f.sessionsSince()
	f.kubectl("delete", "namespace", metalLBNamespace)
	next("peers")
	next("labels")
	m.judge(since)
}

// move is a move from MetalLB to Herald while clients open connections.
type move struct {
	*labField
	routed    string
	onSegment []string
	opened    map[string]*lab.Opener
	watched   *lab.Watch
	kept      func()
}

// beforeTheMove starts the clients of a cluster that MetalLB serves.
func beforeTheMove(t *testing.T) *move {
	t.Helper()
	f := withMetalLB(t)
	m := &move{
		labField: f, routed: "198.51.100.0", onSegment: []string{"198.18.0.200", "2001:db8:18::200"},
		opened: map[string]*lab.Opener{}, kept: f.keeps("web", "routed"),
	}
	var err error
	m.watched, err = f.site.Segment.Watch()
	f.must(err)
	t.Cleanup(func() { _ = m.watched.Close() })
	for _, address := range m.onSegment {
		target := target(netip.MustParseAddr(address))
		f.reached(f.site.Segment, target)
		m.opened["the segment, "+address] = f.site.Segment.Patient().Open(f.ctx, target, 10*time.Millisecond)
	}
	for _, r := range f.site.Routers {
		f.reached(r.Outside, m.routed+":9000")
		m.opened["behind "+string(r.Kind)] = r.Outside.Patient().Open(f.ctx, m.routed+":9000", 10*time.Millisecond)
	}
	return m
}

func (m *move) step(what string) { m.t.Logf("%s %s", time.Now().Format("15:04:05.000"), what) }

// moved waits until a node announces by Herald.
func (m *move) moved(node string) {
	m.t.Helper()
	m.eventually("MetalLB's speaker leaves "+node, func(ctx context.Context) error { return m.metalLBPods(ctx, "speaker", node, 0) })
	m.sessions(node, len(m.site.Routers))
	m.learns(m.fromAll(m.routed + "/32")...)
}

// wentBack waits until a node announces by MetalLB.
func (m *move) wentBack(node string) {
	m.t.Helper()
	m.eventually("MetalLB's speaker returns to "+node, func(ctx context.Context) error { return m.metalLBPods(ctx, "speaker", node, 1) })
	m.sessions(node, 0)
	m.learns(m.fromAll(m.routed + "/32")...)
}

// judge ends the clients after the last step, and checks what they saw. since are the sessions before that step.
func (m *move) judge(since []string) {
	m.t.Helper()
	for _, n := range names(m.site) {
		m.eventually(n+" has no label", func(ctx context.Context) error {
			o, err := m.kube.CoreV1().Nodes().Get(ctx, n, metav1.GetOptions{})
			if err == nil && o.Labels[herald.LabelMoved] != "" {
				err = errors.New("it has it")
			}
			return err
		})
	}
	m.step("the end")
	for from, o := range m.opened {
		made := o.Stop()
		var broken, refused int
		for _, a := range made {
			again, is := errors.AsType[*lab.SentAgainError](a.Err)
			switch {
			case a.Err == nil:
			case broke(a):
				broken++
			case is && a.End.Sub(a.Start) < synTimeout:
				m.t.Logf("from %s: connected, after the kernel sent the SYN again at once: %v", from, again)
			default:
				refused++
			}
		}
		m.t.Logf("from %s: %v, %d of them broken", from, made, broken)
		if len(made) == 0 || refused > 0 || made.Gap() >= time.Second {
			m.t.Errorf("from %s: %d connections were refused, and the gap is %v:\n%s", from, refused, made.Gap(), strings.Join(made.Errors(), "\n"))
		}
	}
	for _, address := range m.onSegment {
		m.t.Logf("%d nodes answered requests for %s", len(m.watched.MACs(netip.MustParseAddr(address), time.Time{})), address)
	}
	m.kept()
	m.answeredBy(m.onSegment[0], names(m.site)...)
	m.learns(m.fromAll(m.routed + "/32")...)
	if now := m.sessionsSince(); !slices.Equal(now, since) {
		m.t.Errorf("sessions were reset by the last step:\n%v\n%v", since, now)
	}
	m.noStrangers()
}

// withMetalLB starts a lab in which MetalLB serves the Service web on the segment, in both families, and the Service routed
// behind two routers. Then it starts Herald, which has no configuration.
func withMetalLB(t *testing.T) *labField {
	t.Helper()
	if onKind() {
		t.Skip("it needs a lab: kind's nodes have no images of MetalLB")
	}
	programs := filepath.Join(root(t), "build", "bin")
	if _, err := os.Stat(filepath.Join(programs, "metallb-speaker")); err != nil {
		t.Skip("MetalLB is not built: run make metallb")
	}
	ctx, l := startLab(t, lab.Options{Routers: []router.Kind{lab.FRR, lab.BIRD}, Images: map[string]string{
		"quay.io/metallb/controller:v0.16.1": filepath.Join(programs, "metallb-controller"),
		"quay.io/metallb/speaker:v0.16.1":    filepath.Join(programs, "metallb-speaker"),
	}})
	f := &field{cluster: clusterOf(t, ctx, &l.Access), site: &l.Site}
	_, err := envtest.InstallCRDs(l.Config, envtest.CRDInstallOptions{Paths: []string{filepath.Join(programs, "metallb")}, ErrorIfPathMissing: true})
	f.must(err)
	f.must(l.Apply(ctx, fmt.Sprintf(metalLBManifest, l.Kubeconfig)))
	f.eventually("MetalLB's objects", func(ctx context.Context) error { return l.Apply(ctx, metalLBObjects) })
	for i, n := range names(f.site)[:2] {
		f.pod(fmt.Sprint("pod-", i), n)
	}
	f.service("web", to8080, dualStack)
	f.service("routed", to8080, annotated("metallb.io/address-pool", "routed"))
	for _, name := range []string{"web", "routed"} {
		f.eventually("MetalLB gives an address to "+name, func(context.Context) error {
			if len(addresses(f.get(name))) == 0 {
				return errors.New("it has none")
			}
			return nil
		})
		f.served(name)
	}
	f.learns(f.fromAll("198.51.100.0/32")...)
	started := startHerald(t, ctx, l)
	f.eventually("all speakers report", func(ctx context.Context) error {
		list, err := f.herald.SpeakerStatuses.List(ctx, metav1.ListOptions{})
		if err == nil && len(list.Items) != len(f.site.Nodes) {
			err = fmt.Errorf("%d do", len(list.Items))
		}
		return err
	})
	return started
}

// metalLBPods checks that a component of MetalLB has this number of running pods, on a node or, if the node is "", on all.
func (f *field) metalLBPods(ctx context.Context, component, node string, want int) error {
	o := metav1.ListOptions{LabelSelector: "component=" + component}
	if node != "" {
		o.FieldSelector = "spec.nodeName=" + node
	}
	list, err := f.kube.CoreV1().Pods(metalLBNamespace).List(ctx, o)
	if err != nil {
		return err
	}
	if len(list.Items) != want || slices.ContainsFunc(list.Items, func(p corev1.Pod) bool { return p.Status.Phase != corev1.PodRunning || p.DeletionTimestamp != nil }) {
		return fmt.Errorf("there are %d", len(list.Items))
	}
	return nil
}

// follower imports MetalLB's configuration, gives the Services the annotations that the report names, and returns a function
// that runs the code block of a document that has a text. Before that block, the one with the other text runs, which defines
// what the commands need. All run in one folder.
func (f *field) follower(document, definition string) func(text string) {
	dir, before := f.t.TempDir(), blockOf(f.t, document, definition)
	run := func(commands string) {
		f.t.Helper()
		if out, err := f.access.Shell(f.ctx, fmt.Sprintf("cd %q\n%s", dir, commands)); err != nil {
			f.t.Fatalf("%v\n%s\n%s", err, commands, out)
		}
	}
	run(`
		kubectl herald import metallb >herald.yaml 2>report
		grep '^  kubectl annotate ' report >commands
		. ./commands
	`)
	return func(text string) {
		f.t.Helper()
		run(before + blockOf(f.t, document, text))
	}
}

// owned waits until the speakers report an owner of each address on the segment.
func (f *field) owned(addresses ...string) {
	f.t.Helper()
	f.eventually(fmt.Sprintf("owners of %v", addresses), func(ctx context.Context) error {
		list, err := f.herald.SpeakerStatuses.List(ctx, metav1.ListOptions{})
		if err != nil {
			return err
		}
		owners := map[string]string{}
		for _, o := range list.Items {
			for _, c := range o.Status.Claims {
				owners[c.Address] = o.Name
			}
		}
		for _, a := range addresses {
			if owners[a] == "" {
				return fmt.Errorf("there are %v", owners)
			}
		}
		return nil
	})
}

// sessions waits until a node reports exactly this number of sessions, all established and with a route.
func (f *field) sessions(node string, want int) {
	f.t.Helper()
	f.eventually(fmt.Sprintf("%d sessions of %s", want, node), func(ctx context.Context) error {
		o, err := f.herald.SpeakerStatuses.Get(ctx, node, metav1.GetOptions{})
		if err == nil && (len(o.Status.Sessions) != want || slices.ContainsFunc(o.Status.Sessions, func(s herald.SpeakerSession) bool {
			return s.State != "Established" || s.Routes != 1
		})) {
			err = fmt.Errorf("there are %+v", o.Status.Sessions)
		}
		return err
	})
}

// sessionsSince lists all sessions with the time since which they are established.
func (f *field) sessionsSince() (all []string) {
	f.t.Helper()
	list, err := f.herald.SpeakerStatuses.List(f.ctx, metav1.ListOptions{})
	f.must(err)
	for _, o := range list.Items {
		for _, s := range o.Status.Sessions {
			all = append(all, fmt.Sprintf("%s to %s %s since %s", o.Name, s.Peer, s.State, s.Since))
		}
	}
	return all
}

// noStrangers fails the story if a speaker has taken a machine for a stranger that uses an address.
func (f *field) noStrangers() {
	f.t.Helper()
	events, err := f.kube.CoreV1().Events("").List(f.ctx, metav1.ListOptions{})
	f.must(err)
	for _, e := range events.Items {
		if e.Reason == herald.EventAddressConflict {
			f.t.Errorf("%s: %s", e.InvolvedObject.Name, e.Message)
		}
	}
}

// keeps watches Services. The returned function fails the story if one of them had other addresses in between than now.
func (c *cluster) keeps(names ...string) (judge func()) {
	c.t.Helper()
	list, err := c.services().List(c.ctx, metav1.ListOptions{})
	c.must(err)
	w, err := c.services().Watch(c.ctx, metav1.ListOptions{ResourceVersion: list.ResourceVersion})
	c.must(err)
	first := map[string][]string{}
	for i := range list.Items {
		if name := list.Items[i].Name; slices.Contains(names, name) {
			first[name] = addresses(&list.Items[i])
		}
	}
	failures := make(chan []string, 1)
	go func() {
		var all []string
		for e := range w.ResultChan() {
			svc, ok := asService(e.Object)
			if !ok || e.Type == watch.Bookmark || first[svc.Name] == nil {
				continue
			}
			if now := addresses(svc); !slices.Equal(now, first[svc.Name]) {
				all = append(all, fmt.Sprintf("%s had %v, and before %v", svc.Name, now, first[svc.Name]))
			}
		}
		failures <- all
	}()
	c.t.Cleanup(w.Stop)
	return func() {
		c.t.Helper()
		w.Stop()
		for _, f := range <-failures {
			c.t.Error(f)
		}
	}
}
