package e2e

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"

	"github.com/heraldlb/herald/api/client"
	herald "github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/e2e/lab"
)

// cluster has the clients of a cluster, and the context that bounds the story.
type cluster struct {
	t      testing.TB
	ctx    context.Context
	kube   kubernetes.Interface
	herald *client.Set
	access *lab.Access
	// namespace is the namespace of the story's Services.
	namespace string
}

func clusterOf(t testing.TB, ctx context.Context, a *lab.Access) *cluster {
	return &cluster{t: t, ctx: ctx, kube: a.Client, herald: a.Herald, access: a, namespace: "default"}
}

// within returns the cluster for a subtest, with the subtest's context. The parts of a story build on one
// another, so within skips the subtest if an earlier part failed.
func (c *cluster) within(t testing.TB) *cluster {
	if c.t.Failed() {
		t.Skip("a part before this one failed")
	}
	o := *c
	o.t = t
	var cancel context.CancelFunc
	o.ctx, cancel = context.WithCancel(c.ctx)
	t.Cleanup(cancel)
	return &o
}

// in returns the same cluster with another namespace.
func (c *cluster) in(namespace string) *cluster {
	o := *c
	o.namespace = namespace
	return &o
}

func (c *cluster) services() typedcorev1.ServiceInterface {
	return c.kube.CoreV1().Services(c.namespace)
}

// eventually waits until check returns nil, and fails the story after a minute.
func (c *cluster) eventually(what string, check func(ctx context.Context) error) {
	c.t.Helper()
	c.inTime(time.Minute, what, check)
}

// inTime is eventually with another time limit.
func (c *cluster) inTime(patience time.Duration, what string, check func(ctx context.Context) error) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.ctx, patience)
	defer cancel()
	if err := lab.Eventually(ctx, check); err != nil {
		c.t.Fatalf("%s: %v", what, err)
	}
}

// kubectl runs the real kubectl and returns its standard output.
func (c *cluster) kubectl(args ...string) string {
	c.t.Helper()
	out, err := c.access.Kubectl(c.ctx, args...)
	if err != nil {
		c.t.Fatalf("%v\n%s", err, out)
	}
	return out
}

func (c *cluster) must(err error) {
	c.t.Helper()
	if err != nil {
		c.t.Fatal(err)
	}
}

// pool creates an IPPool.
func (c *cluster) pool(name string, edit func(*herald.IPPoolSpec), addresses ...herald.AddressRange) {
	c.t.Helper()
	p := &herald.IPPool{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: herald.IPPoolSpec{Addresses: addresses}}
	if edit != nil {
		edit(&p.Spec)
	}
	_, err := c.herald.Pools.Create(c.ctx, p, metav1.CreateOptions{})
	c.must(err)
}

func delay(d time.Duration) func(*herald.IPPoolSpec) {
	return func(s *herald.IPPoolSpec) { s.ReuseDelay = &metav1.Duration{Duration: d} }
}

// advertise announces all pools on the segment. Otherwise Services would get an event that nothing announces their
// address.
func (c *cluster) advertise() {
	c.t.Helper()
	_, err := c.herald.L2Advertisements.Create(c.ctx, &herald.L2Advertisement{ObjectMeta: metav1.ObjectMeta{Name: "all"}}, metav1.CreateOptions{})
	c.must(err)
}

// service creates a Service of type LoadBalancer.
func (c *cluster) service(name string, edit ...func(*corev1.Service)) *corev1.Service {
	c.t.Helper()
	svc := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: corev1.ServiceSpec{
			Type: corev1.ServiceTypeLoadBalancer, Selector: map[string]string{"app": "pod"},
			Ports: []corev1.ServicePort{{Port: 9000}},
		},
	}
	for _, e := range edit {
		e(svc)
	}
	svc, err := c.services().Create(c.ctx, svc, metav1.CreateOptions{})
	c.must(err)
	return svc
}

func annotated(key, value string) func(*corev1.Service) {
	return func(svc *corev1.Service) {
		if svc.Annotations == nil {
			svc.Annotations = map[string]string{}
		}
		svc.Annotations[key] = value
	}
}

func classed(class string) func(*corev1.Service) {
	return func(svc *corev1.Service) { svc.Spec.LoadBalancerClass = &class }
}

func local(svc *corev1.Service) {
	svc.Spec.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyLocal
}

// clusterIP changes the type of a Service to ClusterIP.
func clusterIP(svc *corev1.Service) {
	svc.Spec.Type, svc.Spec.LoadBalancerClass, svc.Spec.AllocateLoadBalancerNodePorts = corev1.ServiceTypeClusterIP, nil, nil
	for i := range svc.Spec.Ports {
		svc.Spec.Ports[i].NodePort = 0
	}
}

func dualStack(svc *corev1.Service) {
	policy := corev1.IPFamilyPolicyRequireDualStack
	svc.Spec.IPFamilyPolicy = &policy
}

func (c *cluster) get(name string) *corev1.Service {
	c.t.Helper()
	svc, err := c.services().Get(c.ctx, name, metav1.GetOptions{})
	c.must(err)
	return svc
}

// edit changes a Service, and retries on a conflict.
func (c *cluster) edit(name string, change ...func(*corev1.Service)) {
	c.t.Helper()
	c.eventually("edit of Service "+name, func(ctx context.Context) error {
		svc, err := c.services().Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		for _, edit := range change {
			edit(svc)
		}
		_, err = c.services().Update(ctx, svc, metav1.UpdateOptions{})
		return err
	})
}

func (c *cluster) remove(name string) {
	c.t.Helper()
	c.must(c.services().Delete(c.ctx, name, metav1.DeleteOptions{}))
}

// addresses returns the addresses in a Service's status.
func addresses(svc *corev1.Service) []string {
	var list []string
	for _, i := range svc.Status.LoadBalancer.Ingress {
		list = append(list, i.IP)
	}
	return list
}

// holds waits until the Service has exactly these addresses, each recorded for it.
func (c *cluster) holds(name string, want ...string) *corev1.Service {
	c.t.Helper()
	var svc *corev1.Service
	c.eventually(fmt.Sprintf("Service %s with %v", name, want), func(ctx context.Context) (err error) {
		if svc, err = c.services().Get(ctx, name, metav1.GetOptions{}); err != nil {
			return err
		}
		if got := addresses(svc); strings.Join(got, ",") != strings.Join(want, ",") {
			return fmt.Errorf("it has %v", got)
		}
		for _, a := range want {
			rec, err := c.herald.Allocations.Get(ctx, herald.AllocationName(netip.MustParseAddr(a)), metav1.GetOptions{})
			if err != nil {
				return err
			}
			if len(rec.Spec.Owners) != 1 || rec.Spec.Owners[0].UID != svc.UID || rec.Spec.ReleasedAt != nil {
				return fmt.Errorf("the record of %s says %+v, released %v", a, rec.Spec.Owners, rec.Spec.ReleasedAt)
			}
		}
		return nil
	})
	return svc
}

// event waits for an event about an object whose message contains the text.
func (c *cluster) event(kind, name, reason, text string) {
	c.t.Helper()
	c.eventually(fmt.Sprintf("event %s of %s %s with %q", reason, kind, name, text), func(ctx context.Context) error {
		list, err := c.kube.CoreV1().Events(c.namespace).List(ctx, metav1.ListOptions{FieldSelector: "involvedObject.kind=" + kind + ",involvedObject.name=" + name})
		if err != nil {
			return err
		}
		var seen []string
		for _, e := range list.Items {
			if e.Reason == reason && strings.Contains(e.Message, text) {
				return nil
			}
			seen = append(seen, e.Reason+": "+e.Message)
		}
		return errors.New("there are:\n" + strings.Join(seen, "\n"))
	})
}

// condition waits for a condition of an IPPool whose message contains the text.
func (c *cluster) condition(pool, kind string, status metav1.ConditionStatus, text string) {
	c.t.Helper()
	c.eventually(fmt.Sprintf("condition %s=%s of IPPool %s with %q", kind, status, pool, text), func(ctx context.Context) error {
		p, err := c.herald.Pools.Get(ctx, pool, metav1.GetOptions{})
		if err != nil {
			return err
		}
		for _, o := range p.Status.Conditions {
			if o.Type == kind && o.Status == status && strings.Contains(o.Message, text) {
				return nil
			}
		}
		return fmt.Errorf("there are %+v", p.Status.Conditions)
	})
}

// writes returns the API server's counts of write requests by verb and resource, such as
// "POST ipallocations" or "PATCH services/status".
func (c *cluster) writes() map[string]int {
	c.t.Helper()
	text, err := c.kube.CoreV1().RESTClient().Get().AbsPath("/metrics").DoRaw(c.ctx)
	c.must(err)
	label := regexp.MustCompile(`(\w+)="([^"]*)"`)
	counts := map[string]int{}
	lines := bufio.NewScanner(strings.NewReader(string(text)))
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		line, ok := strings.CutPrefix(lines.Text(), "apiserver_request_total{")
		if !ok {
			continue
		}
		labels := map[string]string{}
		for _, m := range label.FindAllStringSubmatch(line, -1) {
			labels[m[1]] = m[2]
		}
		switch labels["verb"] {
		case "POST", "PUT", "PATCH", "APPLY", "DELETE":
		default:
			continue
		}
		n, err := strconv.ParseFloat(line[strings.LastIndex(line, " ")+1:], 64)
		c.must(err)
		name := labels["verb"] + " " + labels["resource"]
		if s := labels["subresource"]; s != "" {
			name += "/" + s
		}
		counts[name] += int(n)
	}
	return counts
}

// since returns the differences between two counts, without zeros and without Leases, which are written all the time.
func since(before, after map[string]int) map[string]int {
	d := map[string]int{}
	for k, n := range after {
		if n != before[k] && !strings.HasSuffix(k, " leases") {
			d[k] = n - before[k]
		}
	}
	return d
}

// quietRestart restarts herald-ccm and creates a Service. It fails if there are writes for anything but the new
// Service, which herald-ccm serves after all work that a restart causes.
func (c *cluster) quietRestart(ccm *lab.Process, canary string) {
	c.t.Helper()
	c.must(ccm.Stop(c.ctx))
	before := c.settled()
	c.must(ccm.Start())
	c.service(canary)
	c.event("Service", canary, "EnsuredLoadBalancer", "")
	d := since(before, c.settled())
	delete(d, "PUT ippools/status")          // For the canary.
	delete(d, "PUT l2advertisements/status") // For the last edit of a pool, if herald-ccm was stopped before that write.
	d["POST events"]--                       // "herald-ccm became leader".
	want := map[string]int{"POST services": 1, "PATCH services/status": 1, "POST ipallocations": 1, "POST events": 1}
	if diff := cmp.Diff(want, d); diff != "" {
		c.t.Errorf("writes of %s alone (-want +got):\n%s", canary, diff)
	}
}

// settled returns the counts of writes once there was no write for a second. It leaves out the API server's own writes
// for ClusterIPs: their records and, if it finds a ClusterIP without a record, an event.
func (c *cluster) settled() map[string]int {
	c.t.Helper()
	c.settle()
	counts := c.writes()
	list, err := c.kube.CoreV1().Events("").List(c.ctx, metav1.ListOptions{FieldSelector: "reason=ClusterIPNotAllocated"})
	c.must(err)
	for _, e := range list.Items {
		counts["POST events"]--
		if e.Series != nil { // The event was repeated.
			counts["PATCH events"]--
		}
	}
	delete(counts, "POST ipaddresses")
	return counts
}

// settle waits until there was no write for a second. Waiting for a certain event is not enough: events come after
// the changes that they report, and some may be dropped when there are very many. The counting itself costs the API
// server CPU time.
func (c *cluster) settle() {
	c.t.Helper()
	const pause = 250 * time.Millisecond
	var last map[string]int
	var quiet, asked time.Time // since when
	c.must(lab.Eventually(c.ctx, func(context.Context) error {
		if time.Since(asked) > pause {
			now := c.writes()
			asked = time.Now()
			if last == nil || len(since(last, now)) > 0 {
				last, quiet = now, asked
			}
		}
		if lasts := asked.Sub(quiet); lasts < time.Second {
			return fmt.Errorf("quiet for %v", lasts)
		}
		return nil
	}))
}

// asService returns the Service in a watch event.
func asService(o runtime.Object) (*corev1.Service, bool) {
	svc, ok := o.(*corev1.Service)
	return svc, ok
}
