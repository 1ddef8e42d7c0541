package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	herald "github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/e2e/lab"
	"github.com/heraldlb/herald/e2e/lab/router"
)

// preparedFault is a fault that users have, with everything that reports its cause.
type preparedFault struct {
	name       string
	make, mend func(f *field)
	// says is a problem in the output of kubectl herald status and on the page.
	says string
	// counts and shows are the texts of status and of the page for a fault of one Service only, which is not a problem of the
	// cluster.
	counts, shows string
	// next has texts under "Next:" in the output of kubectl herald explain service and on the page, by Service in the
	// namespace default.
	next map[string]string
	// alerts are the alerts that fire, and pending is one that would fire later. over are those that fire once the fault is
	// corrected.
	alerts, over []string
	pending      string
}

// documented checks that docs/troubleshooting.md has the fault with exactly its alerts.
func (p *preparedFault) documented(t *testing.T) {
	t.Helper()
	content, err := os.ReadFile("../docs/troubleshooting.md")
	if err != nil {
		t.Fatal(err)
	}
	_, row, ok := strings.Cut(string(content), "\n| "+p.name+" | ")
	if !ok {
		t.Fatal("docs/troubleshooting.md has no row for it")
	}
	row, _, _ = strings.Cut(row, "\n")
	var want []string
	for _, alert := range append(slices.Clone(p.alerts), p.pending) {
		if alert != "" {
			want = append(want, fmt.Sprintf("[%s](monitoring.md#%s)", alert, strings.ToLower(alert)))
		}
	}
	links := regexp.MustCompile(`\[Herald\w+\]\([^)]*\)`).FindAllString(row, -1)
	if !slices.Equal(links, want) {
		t.Errorf("docs/troubleshooting.md has the alerts %q, want %q", links, want)
	}
}

// TestAlertsAndDashboards runs a Prometheus that scrapes herald-ccm and the speakers, with the alerts of the manifests. The
// test causes one fault after the other. Within a minute kubectl herald and its page name the cause. Exactly the alerts of the
// fault fire, and they resolve when it is corrected. All queries of the dashboards have results.
//
// Time is scaled for Prometheus: each minute in the alerts is a second here. Prometheus scrapes and evaluates every second.
func TestAlertsAndDashboards(t *testing.T) {
	const address = "198.18.0.200"
	f := withLab(t, lab.Options{Routers: []router.Kind{lab.BIRD}, BFD: 100 * time.Millisecond})
	p := startPrometheus(f)
	f.pool("segment", delay(0), address+"-198.18.0.203")
	f.announce()
	router := f.site.Routers[0]
	f.must(f.patchPeer(router.Name, `{"spec":{"bfd":{"detectMultiplier":20,"transmitInterval":"100ms","receiveInterval":"100ms"}}}`))
	f.pod("pod-1", f.site.Nodes[0].Name)
	f.kubectl("annotate", "namespace", "default", herald.AnnotationQuota+"=ipv4=10")
	f.service("web", to8080, annotated(herald.AnnotationIPs, address))
	owner := f.answeredBy(address, names(f.site)...)
	f.routed(router, address, names(f.site)...)
	f.comesToSay("status", 0, "Nothing needs attention.")
	ui := f.openPage()
	p.firesOnly(f.cluster)
	var others []lab.Port
	for _, n := range f.site.Nodes {
		if n.Name != owner {
			others = append(others, n)
		}
	}
	other := others[0].(*lab.Node)

	// This alert resolves a minute after the stranger is gone. The test causes the other faults in this time.
	const lingers = "HeraldAddressConflict"
	for _, fault := range []preparedFault{
		{
			name: "no endpoint of a Service is ready",
			make: func(f *field) {
				f.service("local", local, func(svc *corev1.Service) { svc.Spec.Selector["app"] = "none" })
			},
			mend:   func(f *field) { f.remove("local") },
			counts: "1 without a ready endpoint",
			shows:  "NoEndpoint",
			next:   map[string]string{"local": "no endpoint is ready: see the pods that spec.selector chooses: kubectl -n default get pods -l app=none"},
		},
		{
			name: "another machine uses an address",
			make: func(f *field) {
				f.must(f.site.Segment.Host.Script("ip addr add %[1]s/32 dev eth0; arping -q -c 1 -A -I eth0 %[1]s", address))
			},
			mend:   func(f *field) { f.must(f.site.Segment.Host.Script("ip addr del %s/32 dev eth0", address)) },
			says:   address + ": a machine that is not a speaker uses it: ",
			alerts: []string{lingers}, over: []string{lingers},
		},
		{
			name: "a pool is full, and one more Service comes",
			make: func(f *field) {
				for _, name := range []string{"a", "b", "c", "late"} {
					f.service(name, to8080)
				}
			},
			mend:   func(f *field) { f.remove("late"); f.remove("a"); f.remove("b") },
			says:   "default/late waits for an address: kubectl herald explain service default/late says why",
			next:   map[string]string{"late": "no auto-assigning pool (segment) has a free IPv4 address: add addresses to one, or release some"},
			alerts: []string{"HeraldPoolFull", "HeraldServicesPending"},
		},
		{
			name: "a Service names a pool that does not exist, and another Service asks for an address that is in no pool",
			make: func(f *field) {
				f.service("misspelt", annotated(herald.AnnotationPool, "segmnet"))
				f.service("outside", annotated(herald.AnnotationIPs, "203.0.113.7"))
			},
			mend: func(f *field) { f.remove("misspelt"); f.remove("outside") },
			says: "default/misspelt waits for an address: kubectl herald explain service default/misspelt says why",
			next: map[string]string{
				"misspelt": `there is no pool "segmnet"`,
				"outside":  "203.0.113.7 is in no pool",
			},
			alerts: []string{"HeraldServicesPending"},
		},
		{
			name:   "a router is down",
			make:   func(f *field) { f.must(router.Kill()) },
			mend:   func(f *field) { f.must(router.Start()) },
			says:   "the session with " + router.Name + " is Down on ",
			alerts: []string{"HeraldBGPSessionDown"},
		},
		{
			name:   "a BGPPeer has the wrong AS number",
			make:   func(f *field) { f.must(f.patchPeer(router.Name, fmt.Sprintf(`{"spec":{"peerASN":%d}}`, router.ASN-1))) },
			mend:   func(f *field) { f.must(f.patchPeer(router.Name, fmt.Sprintf(`{"spec":{"peerASN":%d}}`, router.ASN))) },
			says:   fmt.Sprintf("the router's AS number is not %d, which spec.peerASN", router.ASN-1),
			alerts: []string{"HeraldBGPSessionDown"},
		},
		{
			name:   "kube-proxy is dead on a node",
			make:   func(f *field) { f.must(other.Proxy.Kill()) },
			mend:   func(f *field) { f.must(other.Proxy.Start()) },
			says:   "node " + other.Name + " announces nothing: kube-proxy does not serve on this node",
			alerts: []string{"HeraldKubeProxyDown"},
		},
		{
			name: "a speaker does not run on a node",
			make: func(f *field) { f.must(f.speakers[owner].Kill()) },
			mend: func(f *field) {
				f.must(f.speakers[owner].Start())
				f.eventually("its BGP session is up again", p.finds(fmt.Sprintf(`herald_bgp_session_up{node=%q} == 1`, owner)))
			},
			says:   "the speaker of node " + owner + " is silent, and ",
			alerts: []string{"HeraldSpeakerDown"},
		},
		{
			name: "a node has no speaker",
			make: func(f *field) { f.must(f.join("k8s-node9")) },
			mend: func(f *field) {
				f.must(f.kube.CoreV1().Nodes().Delete(f.ctx, "k8s-node9", metav1.DeleteOptions{}))
			},
			says:   "node k8s-node9 has no SpeakerStatus: see whether herald-speaker runs there",
			alerts: []string{"HeraldNodeWithoutSpeaker"},
		},
		{
			name:   "the segment is split, and the API server reaches all nodes",
			make:   func(f *field) { f.must(lab.Split([]lab.Port{f.site.Node(owner)}, others)) },
			mend:   func(f *field) { f.must(lab.Heal(append(others, f.site.Node(owner))...)) },
			says:   "the segment of eth0 is split: these nodes hear only each other, and all reach the API server: ",
			alerts: []string{"HeraldSegmentSplit"},
		},
		{
			name: "the API server refuses what herald-ccm writes",
			make: func(f *field) {
				f.must(f.access.Apply(f.ctx, noRecords))
				f.eventually("the API server refuses records", func(ctx context.Context) error {
					record := &herald.IPAllocation{ObjectMeta: metav1.ObjectMeta{Name: "198.18.0.199"}, Spec: herald.IPAllocationSpec{Address: "198.18.0.199"}}
					_, err := f.herald.Allocations.Create(ctx, record, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
					if err == nil || !strings.Contains(err.Error(), "made up") {
						return fmt.Errorf("the answer is: %v", err) //nolint:errorlint // There may be none.
					}
					return nil
				})
				f.service("refused")
			},
			mend: func(f *field) {
				f.kubectl("delete", "validatingadmissionpolicybinding,validatingadmissionpolicy", "made-up")
				f.remove("refused")
			},
			says:   "default/refused waits for an address: kubectl herald explain service default/refused says why",
			next:   map[string]string{"refused": "denied request: made up"},
			alerts: []string{"HeraldServicesPending"}, pending: "HeraldAPIWritesFail",
		},
		{
			name:   "herald-ccm does not run",
			make:   func(f *field) { f.must(f.ccm.Kill()) },
			mend:   func(f *field) { f.must(f.ccm.Start()) },
			says:   "herald-ccm has not renewed the Lease herald-ccm for ",
			alerts: []string{"HeraldControllerWithoutLeader"},
		},
	} {
		t.Run(fault.name, func(t *testing.T) {
			f := f.within(t)
			fault.documented(t)
			fault.make(f)
			if fault.says != "" {
				f.comesToSay("status", 2, fault.says)
				ui.shows(f.cluster, "problems", fault.says)
			} else {
				f.comesToSay("status", 0, fault.counts)
				ui.shows(f.cluster, "services", fault.shows)
			}
			for service, next := range fault.next {
				f.comesToSay("explain service default/"+service, 0, "Next: ", next)
				ui.traces(f.cluster, "default/"+service, next)
			}
			if fault.pending != "" {
				p.sees(f.cluster, fault.pending)
			}
			p.firesOnly(f.cluster, fault.alerts...)
			fault.mend(f)
			p.firesOnly(f.cluster, fault.over...)
		})
	}
	t.Run("every query of the dashboards finds something", func(t *testing.T) {
		f := f.within(t)
		files, err := filepath.Glob("../manifests/monitoring/dashboards/*.json")
		f.must(err)
		if len(files) != 4 {
			t.Errorf("there are %d dashboards", len(files))
		}
		for _, path := range files {
			for _, query := range queries(t, path) {
				f.eventually(fmt.Sprintf("%s: %s", filepath.Base(path), query), p.finds(query))
			}
		}
	})
	t.Run("the reference has the type of every metric", func(t *testing.T) {
		f := f.within(t)
		content, err := os.ReadFile("../docs/monitoring.md")
		f.must(err)
		metadata := map[string][]struct{ Type string }{}
		f.must(p.get(f.ctx, "metadata", &metadata))
		for name, m := range metadata {
			if row := fmt.Sprintf("\n| `%s` | %s |", name, m[0].Type); strings.HasPrefix(name, "herald_") && !strings.Contains(string(content), row) {
				t.Errorf("there is no row %q", row[1:])
			}
		}
		if len(metadata["herald_pool_available"]) == 0 {
			t.Errorf("there are only %v", metadata)
		}
	})
	t.Run("at the end all is well", func(t *testing.T) {
		f := f.within(t)
		p.lingers = ""
		f.inTime(patience, "no alert fires", func(ctx context.Context) error { return p.checkFiring(ctx, nil) })
		f.comesToSay("status", 0, "Nothing needs attention.")
		ui.shows(f.cluster, "problems", "[]")
	})
}

// join creates a Node that is Ready but runs nothing.
func (f *field) join(name string) error {
	node, err := f.kube.CoreV1().Nodes().Create(f.ctx, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{})
	if err != nil {
		return err
	}
	node.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue, Reason: "KubeletReady"}}
	_, err = f.kube.CoreV1().Nodes().UpdateStatus(f.ctx, node, metav1.UpdateOptions{})
	return err
}

// noRecords is a policy that forbids all users to create an IPAllocation.
const noRecords = `apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicy
metadata: {name: made-up}
spec:
  matchConstraints:
    resourceRules: [{apiGroups: [herald.dev], apiVersions: ["*"], operations: [CREATE], resources: [ipallocations]}]
  validations: [{expression: "false", message: made up}]
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata: {name: made-up}
spec: {policyName: made-up, validationActions: [Deny]}
`
