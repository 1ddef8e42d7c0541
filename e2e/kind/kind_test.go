package kind_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/heraldlb/herald/e2e/kind"
	"github.com/heraldlb/herald/e2e/lab"
	"github.com/heraldlb/herald/e2e/lab/enclave"
)

func TestMain(m *testing.M) { enclave.RunTests(m) }

// patience bounds the start of a cluster, including the build of a node image.
const patience = 5 * time.Minute

func TestCluster(t *testing.T) {
	if os.Getenv("HERALD_KIND") == "" {
		t.Skip("it takes minutes: make e2e-clusters")
	}
	for _, families := range []kind.Families{kind.IPv4, kind.IPv6, kind.DualStack} {
		t.Run(string(families), func(t *testing.T) {
			c := start(t, kind.Options{Families: families})
			t.Run("nodes are where the plan has them", func(t *testing.T) { planned(t, c) })
			t.Run("a pod is reached from all nodes", func(t *testing.T) { reached(t, c) })
			t.Run("names of Services are resolved", func(t *testing.T) { resolved(t, c) })
			t.Run("a host can join the segment", func(t *testing.T) { joined(t, c) })
			t.Run("logs are collected", func(t *testing.T) { collected(t, c) })
			t.Run("a node that is started again reaches pods", func(t *testing.T) { restarted(t, c) })
		})
	}
}

// start starts a cluster. When the test ends, it closes the cluster and checks that nothing is left.
func start(t *testing.T, o kind.Options) *kind.Cluster {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	began := time.Now()
	o.NodeImage = os.Getenv("HERALD_NODE_IMAGE")
	o.Progress = func(step string) { t.Logf("%5.1fs %s", time.Since(began).Seconds(), step) }
	c, err := kind.Start(ctx, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("the cluster is up after %v; %s", time.Since(began).Round(100*time.Millisecond), memory(t))
	t.Cleanup(func() {
		closing := time.Now()
		if err := c.Close(); err != nil {
			t.Error("close:", err)
		}
		t.Logf("closed after %v", time.Since(closing).Round(100*time.Millisecond))
		for _, l := range leftovers(t, c) {
			t.Error("left behind:", l)
		}
	})
	return c
}

// planned compares the addresses on the nodes and in the API with the address plan.
func planned(t *testing.T, c *kind.Cluster) {
	if len(c.Nodes) != 3 {
		t.Fatalf("%d workers, want 3", len(c.Nodes))
	}
	for i, n := range c.Nodes {
		if want := fmt.Sprintf("k8s-node%d", i+1); n.Name != want {
			t.Errorf("worker %d is called %s, want %s", i+1, n.Name, want)
		}
		v4 := netip.MustParseAddr(fmt.Sprintf("198.18.0.%d", 11+i))
		v6 := netip.MustParseAddr(fmt.Sprintf("2001:db8:18::%d", 11+i))
		if n.IPv4 != v4 || n.IPv6 != v6 {
			t.Errorf("%s has %v and %v, want %v and %v", n.Name, n.IPv4, n.IPv6, v4, v6)
		}
		object, err := c.Client.CoreV1().Nodes().Get(t.Context(), n.Name, metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if got := object.Labels[corev1.LabelHostname]; got != n.Name {
			t.Errorf("a nodeSelector finds %s as %q", n.Name, got)
		}
		want := n.IPv4
		if c.Families() == kind.IPv6 {
			want = n.IPv6
		}
		if got := object.Status.Addresses[0].Address; got != want.String() {
			t.Errorf("the API has %s at %s", n.Name, got)
		}
		// A fault at this port must affect this node only.
		if !strings.HasPrefix(n.Port, "veth") {
			t.Errorf("%s is plugged in at %q", n.Name, n.Port)
		}
	}
}

// reached runs a pod like those of users, from an image that it builds, and sends requests to it from every node.
func reached(t *testing.T, c *kind.Cluster) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	root, err := lab.FindRoot()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.BuildImage(ctx, "test/app", "FROM scratch\nCOPY app /\nENTRYPOINT [\"/app\"]\n", filepath.Join(root, "build/bin")); err != nil {
		t.Fatal(err)
	}
	if err := c.LoadImage(ctx, "test/app"); err != nil {
		t.Fatal(err)
	}
	pods := c.Client.CoreV1().Pods(metav1.NamespaceDefault)
	pod, err := pods.Create(ctx, &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "pod-1"},
		Spec: corev1.PodSpec{
			NodeSelector: map[string]string{corev1.LabelHostname: "k8s-node1"},
			Containers: []corev1.Container{{
				Name: "container", Image: "test/app",
				Ports: []corev1.ContainerPort{{ContainerPort: 8080}},
				Env:   []corev1.EnvVar{{Name: "POD_NAME", Value: "pod-1"}},
			}},
		},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if err := lab.Eventually(ctx, func(ctx context.Context) (err error) {
		if pod, err = pods.Get(ctx, "pod-1", metav1.GetOptions{}); err != nil {
			return err
		}
		for _, condition := range pod.Status.Conditions {
			if condition.Type == corev1.PodReady && condition.Status == corev1.ConditionTrue {
				return nil
			}
		}
		return fmt.Errorf("pod-1: %+v", pod.Status)
	}); err != nil {
		t.Fatal(err)
	}
	var got []bool
	for _, ip := range pod.Status.PodIPs {
		got = append(got, netip.MustParseAddr(ip.IP).Is4())
	}
	want := map[kind.Families][]bool{kind.IPv4: {true}, kind.IPv6: {false}, kind.DualStack: {true, false}}[c.Families()]
	if !slices.Equal(got, want) {
		t.Fatalf("pod-1 has %v", pod.Status.PodIPs)
	}
	for _, n := range append(c.Nodes, c.ControlPlane) {
		for _, ip := range pod.Status.PodIPs {
			target := netip.AddrPortFrom(netip.MustParseAddr(ip.IP), 8080).String()
			// The kernel may still run duplicate address detection for an IPv6 address.
			if err := lab.Eventually(ctx, func(ctx context.Context) error {
				reply, err := n.Get(ctx, target)
				if err == nil && reply.Pod != "pod-1" {
					err = fmt.Errorf("%s: %+v answered", target, reply)
				}
				return err
			}); err != nil {
				t.Errorf("from %s: %v", n.Name, err)
			}
		}
	}
}

// resolved queries the cluster's DNS server at its Service, as pods do.
func resolved(t *testing.T, c *kind.Cluster) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	kubernetes, dns := "10.96.0.1", "10.96.0.10:53"
	if c.Families() == kind.IPv6 {
		kubernetes, dns = "fd00:10:96::1", "[fd00:10:96::a]:53"
	}
	resolver := net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return c.Nodes[0].Dial(ctx, network, dns)
	}}
	if got, err := resolver.LookupHost(ctx, "kubernetes.default.svc.cluster.local."); err != nil || !slices.Equal(got, []string{kubernetes}) {
		t.Errorf("kubernetes is at %v, %v; want %s", got, err, kubernetes)
	}
}

// joined connects a client to the nodes' segment, as package lab does.
func joined(t *testing.T, c *kind.Cluster) {
	h, err := enclave.NewHost("client")
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		// Remove the cable first: the kernel would remove it with the namespace, but some time later.
		if err := errors.Join(enclave.Host{}.Script("ip link delete v-client"), h.Remove()); err != nil {
			t.Error(err)
		}
	}()
	if err := enclave.Connect(enclave.Host{}, "v-client", h, "eth0"); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(
		enclave.Host{}.Script("ip link set v-client master segment"),
		h.Script("ip addr add 198.18.0.100/24 dev eth0; ip addr add 2001:db8:18::100/64 dev eth0 nodad"),
	); err != nil {
		t.Fatal(err)
	}
	client := lab.Client{Host: h}
	for _, n := range c.Nodes {
		for _, ip := range []netip.Addr{n.IPv4, n.IPv6} {
			kubelet := netip.AddrPortFrom(ip, 10250).String()
			conn, err := client.Dial(t.Context(), "tcp", kubelet)
			if err != nil {
				t.Errorf("%s: %v", n.Name, err)
				continue
			}
			if err := conn.Close(); err != nil {
				t.Error(err)
			}
		}
	}
}

// collected checks that the logs have the most important contents.
func collected(t *testing.T, c *kind.Cluster) {
	dir := t.TempDir()
	if err := c.Logs(t.Context(), dir); err != nil {
		t.Fatal(err)
	}
	for file, want := range map[string]string{
		"objects.txt":                "pod-1",
		"events.txt":                 "Created",
		"herald-worker/network.txt":  "chain service",
		"herald-worker/journal.log":  "pod-1",
		"herald-worker3/network.txt": "198.18.0.13/24",
	} {
		if content, err := os.ReadFile(filepath.Join(dir, file)); err != nil || !strings.Contains(string(content), want) {
			t.Errorf("%s: %d bytes without %q, %v", file, len(content), want, err)
		}
	}
}

// restarted starts the last node again. Its network namespace is then another one than that of Cluster.Nodes, so it must be the last
// test. The pod of reached runs on the first node.
func restarted(t *testing.T, c *kind.Cluster) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	pod, err := c.Client.CoreV1().Pods(metav1.NamespaceDefault).Get(ctx, "pod-1", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	node := c.Nodes[len(c.Nodes)-1].Container
	if said, err := c.Shell(ctx, "docker restart --time 0 "+node); err != nil {
		t.Fatal(err, said)
	}
	for _, ip := range pod.Status.PodIPs {
		target := netip.AddrPortFrom(netip.MustParseAddr(ip.IP), 8080).String()
		if err := lab.Eventually(ctx, func(ctx context.Context) error {
			said, err := c.Shell(ctx, fmt.Sprintf("docker exec %s curl --silent --max-time 2 http://%s", node, target))
			if err == nil && !strings.Contains(said, `"pod":"pod-1"`) {
				err = fmt.Errorf("%s: %s", target, said)
			}
			return err
		}); err != nil {
			t.Error(err)
		}
	}
}

// memory returns the machine's available memory.
func memory(t *testing.T) string {
	content, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(content)) {
		if strings.HasPrefix(line, "MemAvailable") {
			return strings.Join(strings.Fields(line), " ")
		}
	}
	return ""
}

// leftovers returns the processes, control groups, hosts, interfaces and containers that the cluster should have
// removed. This program is process 1 of its enclave and sees only processes of the enclave. Control groups of the
// whole machine are visible, so it asks for those of the cluster.
func leftovers(t *testing.T, c *kind.Cluster) (left []string) {
	glob := func(pattern string) []string {
		paths, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		return paths
	}
	for _, path := range glob("/proc/[0-9]*/stat") {
		stat, err := os.ReadFile(path)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		// The format is "pid (name) state ...". A zombie does not count: its parent has not reaped it, but it holds nothing.
		name, rest, _ := bytes.Cut(stat, []byte(") "))
		if !bytes.HasPrefix(name, []byte("1 ")) && rest[0] != 'Z' {
			left = append(left, "process "+string(name)+")")
		}
	}
	groups, err := c.ControlGroups()
	if err != nil {
		t.Fatal(err)
	}
	left = append(left, groups...)
	left = append(left, glob("/run/netns/*")...)
	left = append(left, glob("/proc/sys/net/ipv4/conf/veth*")...)
	left = append(left, glob("/proc/sys/net/ipv4/conf/segment")...)
	root, err := lab.FindRoot()
	if err != nil {
		t.Fatal(err)
	}
	return append(left, glob(filepath.Join(root, "build/kind/docker/containers/*"))...)
}
