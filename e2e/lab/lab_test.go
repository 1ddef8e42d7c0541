package lab_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	herald "github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/e2e/lab"
	"github.com/heraldlb/herald/e2e/lab/enclave"
	"github.com/heraldlb/herald/e2e/lab/router"
)

func TestMain(m *testing.M) { enclave.RunTests(m) }

// patience bounds every story. No story takes this long unless it fails.
const patience = time.Minute

// start starts a lab for one test. When the test ends, it closes the lab and checks that nothing is left.
func start(t testing.TB, o lab.Options) (context.Context, *lab.Lab) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	began := time.Now()
	o.Progress = func(step string) { t.Logf("%5.2fs %s", time.Since(began).Seconds(), step) }
	l, err := lab.Start(ctx, o)
	if err != nil {
		cancel()
		t.Fatal(err)
	}
	t.Logf("lab of %d nodes and %d routers is up after %v", len(l.Nodes), len(l.Routers), time.Since(began).Round(time.Millisecond))
	t.Cleanup(func() {
		defer cancel()
		if err := l.Close(); err != nil {
			t.Error("close:", err)
		}
		for _, left := range leftovers(t) {
			t.Error("left behind:", left)
		}
	})
	l.DumpOnFailure(t)
	return ctx, l
}

// leftovers returns the processes, namespaces and interfaces that a lab should have removed. This test
// program is process 1 of its enclave, so it sees all of these and nothing else.
func leftovers(t testing.TB) (left []string) {
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range stats {
		stat, err := os.ReadFile(path)
		if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ESRCH) {
			continue // The process ended before the file was opened or read.
		}
		if err != nil {
			t.Fatal(err)
		}
		// The format is "pid (name) state ...". A zombie does not count: its parent has not reaped it, but it holds nothing.
		name, rest, _ := strings.Cut(string(stat), ") ")
		if pid, _, _ := strings.Cut(name, " "); pid != "1" && rest[0] != 'Z' {
			left = append(left, "process "+name+")")
		}
	}
	spaces, err := os.ReadDir("/run/netns")
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range spaces {
		left = append(left, "namespace "+s.Name())
	}
	interfaces, err := filepath.Glob("/proc/sys/net/ipv4/conf/*")
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range interfaces {
		if name := filepath.Base(i); name == "segment" || strings.HasPrefix(name, "v-") {
			left = append(left, "interface "+name)
		}
	}
	return left
}

// apps creates pods as users write them, one on each of the given nodes, behind one Service of each kind.
func apps(t testing.TB, ctx context.Context, l *lab.Lab, nodes ...string) {
	t.Helper()
	yaml := services
	for i, node := range nodes {
		yaml += fmt.Sprintf(pod, i+1, node)
	}
	if err := l.Apply(ctx, yaml); err != nil {
		t.Fatal(err)
	}
	for i := range nodes {
		if err := l.AwaitPod(ctx, "default", fmt.Sprintf("pod%d", i+1), true); err != nil {
			t.Fatal(err)
		}
	}
}

const pod = `
---
apiVersion: v1
kind: Pod
metadata: {name: pod%d, labels: {app: pod}}
spec:
  nodeSelector: {kubernetes.io/hostname: %s}
  terminationGracePeriodSeconds: 5
  containers:
  - name: app
    image: test/app
    ports: [{containerPort: 8080}]
`

const services = `
apiVersion: v1
kind: Service
metadata: {name: cluster}
spec:
  ipFamilyPolicy: RequireDualStack
  selector: {app: pod}
  ports: [{port: 80, targetPort: 8080}]
---
apiVersion: v1
kind: Service
metadata: {name: local}
spec:
  type: NodePort
  externalTrafficPolicy: Local
  selector: {app: pod}
  ports: [{port: 80, targetPort: 8080, nodePort: 30080}]
---
apiVersion: v1
kind: Service
metadata: {name: balanced}
spec:
  ipFamilyPolicy: RequireDualStack
  type: LoadBalancer
  loadBalancerClass: example.com/by-hand
  externalTrafficPolicy: Local
  selector: {app: pod}
  ports: [{port: 9000, targetPort: 8080}]
`

func TestPodsReachOneAnotherThroughAClusterIP(t *testing.T) {
	ctx, l := start(t, lab.Options{Nodes: 2})
	apps(t, ctx, l, "k8s-node1", "k8s-node2")
	client, err := l.InPod(ctx, "default", "pod1")
	if err != nil {
		t.Fatal(err)
	}
	service, err := l.Client.CoreV1().Services("default").Get(ctx, "cluster", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if len(service.Spec.ClusterIPs) != 2 {
		t.Fatalf("ClusterIPs %v, want one of each family", service.Spec.ClusterIPs)
	}
	for _, ip := range service.Spec.ClusterIPs {
		target := netip.AddrPortFrom(netip.MustParseAddr(ip), 80).String()
		for _, want := range []string{"pod1", "pod2"} { // The client's own pod, too, via the node.
			if _, err := client.Eventually(ctx, target, from(want)); err != nil {
				t.Error(err)
			}
		}
	}
}

// from accepts only answers of the given pod.
func from(pod string) func(lab.Reply) error {
	return func(r lab.Reply) error {
		if r.Pod != pod {
			return fmt.Errorf("%s answered, want %s", r.Pod, pod)
		}
		return nil
	}
}

func TestALocalNodePortAnswersOnlyWhereThePodIsAndKeepsTheClient(t *testing.T) {
	ctx, l := start(t, lab.Options{Nodes: 2})
	apps(t, ctx, l, "k8s-node1")
	with, without := l.Node("k8s-node1"), l.Node("k8s-node2")
	reply, err := l.Segment.Eventually(ctx, with.IPv4.String()+":30080", from("pod1"))
	if err != nil {
		t.Fatal(err)
	}
	if reply.Client != l.Segment.IPv4 || reply.Node != with.Name {
		t.Errorf("got %+v, want node %s and client %s", reply, with.Name, l.Segment.IPv4)
	}
	if reply, err := l.Segment.Get(ctx, without.IPv4.String()+":30080"); err == nil {
		t.Errorf("%s has no pod and answers %+v", without.Name, reply)
	}

	t.Log("readiness decides about endpoints")
	if err := l.SetReady(ctx, "default", "pod1", false); err != nil {
		t.Fatal(err)
	}
	if err := l.Segment.EventuallySilent(ctx, with.IPv4.String()+":30080"); err != nil {
		t.Error(err)
	}
	if err := l.SetReady(ctx, "default", "pod1", true); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Segment.Eventually(ctx, with.IPv4.String()+":30080", nil); err != nil {
		t.Error(err)
	}

	t.Log("a pod that is deleted is gone, with its process and its namespace")
	if _, err := l.Kubectl(ctx, "delete", "pod", "pod1", "--wait"); err != nil {
		t.Fatal(err)
	}
	for _, left := range leftovers(t) {
		if strings.Contains(left, "(app)") || strings.Contains(left, "namespace pod-") {
			t.Error("left behind:", left)
		}
	}

	t.Log("a node that comes later is as good as the others")
	later, err := l.AddNode(ctx)
	if err != nil {
		t.Fatal(err)
	}
	apps(t, ctx, l, later.Name)
	if _, err := l.Segment.Eventually(ctx, later.IPv4.String()+":30080", from("pod1")); err != nil {
		t.Error(err)
	}
}

func TestAClientBeyondEachRouterReachesALoadBalancerAddress(t *testing.T) {
	ctx, l := start(t, lab.Options{Nodes: 2, Routers: []router.Kind{lab.FRR, lab.BIRD}})
	apps(t, ctx, l, "k8s-node1")
	node := l.Node("k8s-node1")
	vips := map[netip.Addr]netip.Addr{ // To the node's address in the same family.
		netip.MustParseAddr("198.51.100.1"):   node.IPv4,
		netip.MustParseAddr("2001:db8:51::1"): node.IPv6,
	}
	service, err := l.Client.CoreV1().Services("default").Get(ctx, "balanced", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for vip := range vips {
		service.Status.LoadBalancer.Ingress = append(service.Status.LoadBalancer.Ingress, corev1.LoadBalancerIngress{IP: vip.String()})
	}
	if _, err := l.Client.CoreV1().Services("default").UpdateStatus(ctx, service, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	for _, r := range l.Routers {
		for vip, gateway := range vips {
			if err := r.Host.Script("ip route add %s via %s", vip, gateway); err != nil {
				t.Fatal(err)
			}
			hops, err := r.NextHops(ctx, netip.PrefixFrom(vip, vip.BitLen()))
			if err != nil || !slices.Equal(hops, []netip.Addr{gateway}) {
				t.Errorf("%s sends %s to %v (%v), want %s", r.Name, vip, hops, err, gateway)
			}
			reply, err := r.Outside.Eventually(ctx, netip.AddrPortFrom(vip, 9000).String(), from("pod1"))
			if err != nil {
				t.Error(err)
			} else if reply.Client != r.Outside.IPv4 && reply.Client != r.Outside.IPv6 {
				t.Errorf("the pod saw %s, want an address of %s", reply.Client, r.Outside.Host.Name)
			}
		}
	}
}

func TestRoutersTakeRoutesOverSessionsWithAPassword(t *testing.T) {
	ctx, l := start(t, lab.Options{Nodes: 2, Routers: []router.Kind{lab.FRR, lab.BIRD}, Password: "correct-horse"})
	for _, n := range l.Nodes { // BIRD takes the place of a speaker.
		config := fmt.Sprintf("router id %s;\nprotocol device {}\n"+
			"protocol static { ipv4; route 198.51.100.7/32 blackhole; }\n", n.IPv4)
		for _, r := range l.Routers {
			config += fmt.Sprintf("protocol bgp %s { local as %d; neighbor %s as %d; password \"correct-horse\";\n"+
				"connect delay time 1; connect retry time 1; error wait time 1, 2; ipv4 { import none; export all; }; }\n",
				r.Name, lab.NodeASN, r.IPv4, r.ASN)
		}
		bird, err := router.StartBIRD(ctx, n.Host, filepath.Join(l.Dir(), "bird-"+n.Name), config)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := bird.Kill(); err != nil {
				t.Error(err)
			}
		})
	}
	prefix := netip.MustParsePrefix("198.51.100.7/32")
	both := []netip.Addr{l.Nodes[0].IPv4, l.Nodes[1].IPv4}
	for _, r := range l.Routers {
		learned := func(ctx context.Context) error {
			hops, err := r.NextHops(ctx, prefix)
			slices.SortFunc(hops, netip.Addr.Compare)
			if err == nil && !slices.Equal(hops, both) {
				err = fmt.Errorf("%s sends %s to %v, want %v", r.Name, prefix, hops, both)
			}
			return err
		}
		if err := lab.Eventually(ctx, learned); err != nil {
			t.Fatal(err)
		}
		if routes, err := r.Routes(ctx); err != nil || len(routes) != 2 {
			t.Errorf("%s has the paths %+v (%v), want one from each node", r.Name, routes, err)
		}
		if err := r.Restart(); err != nil {
			t.Fatal(err)
		}
		if err := lab.Eventually(ctx, learned); err != nil {
			t.Errorf("after a restart: %v", err)
		}
	}
}

func TestPodsLiveAsUsersExpect(t *testing.T) {
	ctx, l := start(t, lab.Options{Nodes: 2})
	if err := l.Apply(ctx, deployment); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Kubectl(ctx, "wait", "deployment/many", "--for=condition=Available", "--timeout=30s"); err != nil {
		t.Fatal(err)
	}

	t.Log("a process that dies is started again")
	list, err := l.Client.CoreV1().Pods("default").List(ctx, metav1.ListOptions{LabelSelector: "app=many"})
	if err != nil || len(list.Items) != 3 {
		t.Fatalf("%d pods (%v), want 3", len(list.Items), err)
	}
	victim := list.Items[0].Name
	inside, err := l.InPod(ctx, "default", victim)
	if err != nil {
		t.Fatal(err)
	}
	if err := (enclave.Host{}).Script("kill -9 $(ip netns pids %s)", inside.Host.Name); err != nil {
		t.Fatal(err)
	}
	if err := lab.Eventually(ctx, func(ctx context.Context) error {
		p, err := l.Client.CoreV1().Pods("default").Get(ctx, victim, metav1.GetOptions{})
		if err != nil {
			return err
		}
		if s := p.Status.ContainerStatuses[0]; s.RestartCount != 1 || !s.Ready {
			return fmt.Errorf("%d restarts, ready %t, want 1 and true", s.RestartCount, s.Ready)
		}
		return nil
	}); err != nil {
		t.Error(err)
	}

	t.Log("what cannot run says why")
	if err := l.Apply(ctx, strings.ReplaceAll(fmt.Sprintf(pod, 9, "k8s-node1"), "test/app", "test/none")); err != nil {
		t.Fatal(err)
	}
	if err := lab.Eventually(ctx, func(ctx context.Context) error {
		out, err := l.Kubectl(ctx, "get", "pod", "pod9", "-o", "yaml")
		if err == nil && !strings.Contains(out, "Options.Images") {
			err = errors.New(out)
		}
		return err
	}); err != nil {
		t.Error(err)
	}

	t.Log("pods go with what made them")
	if _, err := l.Kubectl(ctx, "delete", "deployment/many", "pod/pod9", "--cascade=foreground", "--wait"); err != nil {
		t.Fatal(err)
	}
	if err := lab.Eventually(ctx, func(context.Context) error {
		for _, left := range leftovers(t) {
			if strings.Contains(left, "namespace pod-") {
				return errors.New(left)
			}
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
}

const deployment = `
apiVersion: apps/v1
kind: Deployment
metadata: {name: many}
spec:
  replicas: 3
  selector: {matchLabels: {app: many}}
  template:
    metadata: {labels: {app: many}}
    spec:
      terminationGracePeriodSeconds: 5
      containers:
      - name: app
        image: test/app
        ports: [{containerPort: 8080}]
`

func TestANodeIsCutOffAndComesBack(t *testing.T) {
	ctx, l := start(t, lab.Options{Nodes: 1})
	apps(t, ctx, l, "k8s-node1")
	node := l.Nodes[0]
	target := node.IPv4.String() + ":30080"
	if _, err := l.Segment.Eventually(ctx, target, nil); err != nil {
		t.Fatal(err)
	}
	for _, failure := range []struct {
		name    string
		cut     func() error
		carrier string
	}{
		{"cut", node.Cut, "0"},
		{"isolated", node.Isolate, "1"},
	} {
		t.Run(failure.name, func(t *testing.T) {
			opener := l.Segment.Open(ctx, target, 20*time.Millisecond)
			if err := failure.cut(); err != nil {
				t.Fatal(err)
			}
			if err := l.Segment.EventuallySilent(ctx, target); err != nil {
				t.Error(err)
			}
			out, err := node.Host.Command(ctx, "cat", "/sys/class/net/eth0/carrier").Output()
			if got := strings.TrimSpace(string(out)); err != nil || got != failure.carrier {
				t.Errorf("carrier %q (%v), want %q", got, err, failure.carrier)
			}
			if out, err := node.Host.Command(ctx, "timeout", "1", "bash", "-c", "exec 3<>/dev/tcp/198.18.0.1/6443").CombinedOutput(); err == nil {
				t.Errorf("the node still reaches the API server: %s", out)
			}
			if err := node.Heal(); err != nil {
				t.Fatal(err)
			}
			if _, err := l.Segment.Eventually(ctx, target, nil); err != nil {
				t.Error(err)
			}
			attempts := opener.Stop()
			t.Log(attempts)
			if attempts.Failed() == 0 || attempts.Gap() < 100*time.Millisecond {
				t.Errorf("%v: the client did not notice", attempts)
			}
		})
	}
}

func TestAKernelForgetsANeighbour(t *testing.T) {
	ctx, s, _ := site(t, 1)
	vip := netip.MustParseAddr("198.18.0.200")
	if err := s.Nodes[0].Host.Script("ip addr add %s/32 dev eth0", vip); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		_, _ = s.Segment.Get(ctx, vip.String()+":1") // Nothing listens there, but the kernel resolves the address.
		if mac, err := s.Segment.Neighbour(vip); err != nil || s.NodeByMAC(mac) != s.Nodes[0] {
			t.Errorf("%s is at %v (%v), want %s", vip, mac, err, s.Nodes[0].Name)
		}
		if err := s.Segment.FlushNeighbour(vip); err != nil {
			t.Fatal(err)
		}
		if mac, err := s.Segment.Neighbour(vip); !errors.Is(err, lab.ErrNoNeighbour) {
			t.Errorf("after the flush: %v, %v", mac, err)
		}
	}
}

func TestAControlPlaneAloneHasHeraldsResources(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	c, err := lab.StartControlPlane(ctx, lab.ControlPlaneOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := c.Close(); err != nil {
			t.Error("close:", err)
		}
		for _, left := range leftovers(t) {
			t.Error("left behind:", left)
		}
	}()
	pool := &herald.IPPool{ObjectMeta: metav1.ObjectMeta{Name: "public"}}
	pool.Spec.Addresses = []herald.AddressRange{"198.51.100.0/26"}
	if _, err := c.Herald.Pools.Create(ctx, pool, metav1.CreateOptions{}); err != nil {
		t.Error(err)
	}
	pool.Name, pool.Spec.Addresses = "wrong", []herald.AddressRange{"198.51.100.0/33"}
	if _, err := c.Herald.Pools.Create(ctx, pool, metav1.CreateOptions{}); !apierrors.IsInvalid(err) {
		t.Errorf("a pool of 198.51.100.0/33: got %v, want it refused as invalid", err)
	}
	if out, err := c.Kubectl(ctx, "get", "ippools", "-o", "name"); err != nil || out != "ippool.herald.dev/public\n" {
		t.Errorf("kubectl: %q, %v", out, err)
	}

	t.Log("its API server can be stopped in its tracks")
	if err := c.APIServer().Freeze(); err != nil {
		t.Fatal(err)
	}
	frozen, end := context.WithTimeout(ctx, time.Second)
	if _, err := c.Herald.Pools.List(frozen, metav1.ListOptions{}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a frozen API server: got %v, want no answer", err)
	}
	end()
	if err := c.APIServer().Resume(); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Herald.Pools.List(ctx, metav1.ListOptions{}); err != nil {
		t.Errorf("after it was resumed: %v", err)
	}

	t.Log("RBAC holds for whoever is not the administrator")
	nobody, err := c.KubeconfigFor("system:serviceaccount:default:nobody", "system:serviceaccounts")
	if err != nil {
		t.Fatal(err)
	}
	if out, err := c.Kubectl(ctx, "--kubeconfig", nobody, "get", "ippools"); err == nil || !strings.Contains(err.Error(), "Forbidden") {
		t.Errorf("%q, %v, want Forbidden", out, err)
	}
}

// BenchmarkStart measures how long a lab of three nodes and both routers takes to start and to close, and how
// much memory its programs use. Run it with -benchtime 1x or a few.
func BenchmarkStart(b *testing.B) {
	var up, down time.Duration
	var memory int
	for b.Loop() {
		began := time.Now()
		l, err := lab.Start(b.Context(), lab.Options{Nodes: 3, Routers: []router.Kind{lab.FRR, lab.BIRD}})
		if err != nil {
			b.Fatal(err)
		}
		up += time.Since(began)
		memory = 0
		for name, rss := range residents(b) {
			b.Logf("%-40s %4d MB", name, rss>>20)
			memory += rss
		}
		began = time.Now()
		if err := l.Close(); err != nil {
			b.Fatal(err)
		}
		down += time.Since(began)
	}
	b.ReportMetric(up.Seconds()/float64(b.N), "s-up/op")
	b.ReportMetric(down.Seconds()/float64(b.N), "s-down/op")
	b.ReportMetric(float64(memory>>20), "MB")
}

// residents returns the resident set sizes of all processes in the enclave, in bytes. Pages of the Kubernetes
// binary that several processes map are counted for each of them.
func residents(b *testing.B) map[string]int {
	sizes := map[string]int{}
	paths, err := filepath.Glob("/proc/[0-9]*/statm")
	if err != nil {
		b.Fatal(err)
	}
	for _, path := range paths {
		statm, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		name, err := os.ReadFile(filepath.Join(filepath.Dir(path), "comm"))
		if err != nil {
			continue
		}
		pages, err := strconv.Atoi(strings.Fields(string(statm))[1])
		if err != nil {
			b.Fatal(err)
		}
		pid := filepath.Base(filepath.Dir(path))
		sizes[strings.TrimSpace(string(name))+" "+pid] = pages * os.Getpagesize()
	}
	return sizes
}
