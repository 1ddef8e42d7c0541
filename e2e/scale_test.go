package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"sigs.k8s.io/controller-runtime/pkg/envtest"

	herald "github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/e2e/lab"
)

// BenchmarkServices runs the lifecycle of many Services, part by part, against a real API server on the same machine.
// It measures the time of each part and its cost for herald-ccm. Up to 4,000 Services, it first measures how MetalLB's
// controller assigns as many addresses, on the same API server. With more Services than the fewest, each part also
// reports the CPU time for each Service as a multiple of the time with the fewest. This shows work that grows with the
// number of Services.
//
// Each part needs the results of the one before, so the benchmark requires -benchtime 1x.
func BenchmarkServices(b *testing.B) {
	fewest := map[string]float64{}
	for _, many := range []int{1000, 4000, 10000} {
		b.Run(fmt.Sprintf("services=%d", many), func(b *testing.B) {
			s := newScale(b, many, fewest)
			if many <= 4000 { // MetalLB's controller takes minutes for 10,000.
				s.metalLB(b)
			}
			s.herald(b)
		})
	}
}

// scale is a cluster with many Services.
type scale struct {
	*cluster
	plane *lab.ControlPlane
	many  int
	// controller is the process that assigns the addresses of the Services.
	controller *lab.Process
	// fewest is the CPU time for each Service, by part, of the scale that ran first.
	fewest map[string]float64
	// metalLBs is the CPU time in seconds that MetalLB's controller took to assign as many addresses, or 0 if it was not
	// measured.
	metalLBs float64
}

func newScale(b *testing.B, many int, fewest map[string]float64) *scale {
	ctx, plane := startControlPlane(b, false)
	s := &scale{cluster: clusterOf(b, ctx, &plane.Access), plane: plane, many: many, fewest: fewest}
	_, err := s.kube.CoreV1().Nodes().Create(ctx, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "node"}}, metav1.CreateOptions{})
	s.must(err)
	return s
}

// part measures the controller from the start of act until nothing is written. The measured time is that of act alone,
// which returns when its effects are visible. part returns the controller's CPU time in seconds, or 0 if the part did not
// run.
func (s *scale) part(b *testing.B, name string, act func(b *testing.B, c *cluster)) (used float64) {
	b.Run(name, func(b *testing.B) {
		if b.N > 1 {
			b.Fatal("what this part starts from is used up: run it with -benchtime 1x")
		}
		c := s.within(b)
		apiServer, err := s.plane.APIServer().PID()
		c.must(err)
		before, pid := c.writes(), s.controller.PID()
		cpu, server := cpuSeconds(b, pid), cpuSeconds(b, apiServer)
		forgetPeak(b, pid)
		b.ResetTimer()
		act(b, c)
		b.StopTimer()
		c.settle()
		if s.controller.PID() != pid {
			cpu = 0 // The process started in this part.
		}
		used = cpuSeconds(b, s.controller.PID()) - cpu
		b.ReportMetric(0, "ns/op")
		b.ReportMetric(b.Elapsed().Seconds(), "s")
		b.ReportMetric(used, "cpu-s")
		b.ReportMetric(cpuSeconds(b, apiServer)-server, "apiserver-cpu-s")
		b.ReportMetric(memoryMB(b, s.controller.PID(), "VmHWM"), "peak-MB")
		b.ReportMetric(memoryMB(b, s.controller.PID(), "RssAnon"), "anon-MB")
		perService := used * 1000 / float64(s.many)
		b.ReportMetric(perService, "cpu-ms/service")
		if few := s.fewest[name]; few > 0 {
			b.ReportMetric(perService/few, "times-the-fewest")
		} else {
			s.fewest[name] = perService
		}
		if name == "create" && s.metalLBs > 0 {
			b.ReportMetric(s.metalLBs/used, "metallb's-cpu/ours")
		}
		writes, events, pools := sorted(since(before, c.writes()))
		b.ReportMetric(float64(writes)/float64(s.many), "writes/service")
		b.ReportMetric(float64(events)/float64(s.many), "events/service")
		b.ReportMetric(float64(pools), "pool-writes")
	})
	return used
}

// create creates the Services and waits until all have an address. It reports the time from the last creation to the last
// address.
func (s *scale) create(b *testing.B, c *cluster) {
	c.createMany(s.many, withoutNodePorts)
	created := time.Now()
	c.awaitAddresses(s.many)
	b.ReportMetric(time.Since(created).Seconds(), "s-after-the-last")
}

// metalLB measures MetalLB's controller, which assigns addresses to the Services. It deletes the Services at the end.
func (s *scale) metalLB(b *testing.B) {
	s.startMetalLB(b)
	s.metalLBs = s.part(b, "metallb-create", s.create)
	s.part(b, "metallb-delete", func(_ *testing.B, c *cluster) { c.removeMany(s.many) })
	s.must(s.controller.Stop(s.ctx))
}

// startMetalLB starts MetalLB's controller with one pool and waits until it assigns an address to a Service. Its
// webhooks, which check only pools, are off.
func (s *scale) startMetalLB(b *testing.B) {
	const namespace, pod = "metallb-system", "controller"
	_, err := envtest.InstallCRDs(s.plane.Config, envtest.CRDInstallOptions{
		Paths: []string{s.plane.Program("metallb")}, ErrorIfPathMissing: true,
	})
	s.must(err)
	// The controller reads its own pod, which owns the objects that it creates for reports.
	s.must(s.access.Apply(s.ctx, fmt.Sprintf(`
apiVersion: v1
kind: Namespace
metadata: {name: %[1]s}
---
apiVersion: v1
kind: Pod
metadata: {name: %[2]s, namespace: %[1]s}
spec: {containers: [{name: controller, image: controller}]}
---
apiVersion: metallb.io/v1beta1
kind: IPAddressPool
metadata: {name: public, namespace: %[1]s}
spec: {addresses: [198.18.0.0/17]}
`, namespace, pod)))
	s.controller = &lab.Process{
		Name: "metallb-controller", Path: s.plane.Program("metallb-controller"), LogPath: filepath.Join(s.plane.Dir(), "metallb-controller.log"),
		Args: []string{"--kubeconfig", s.plane.Kubeconfig, "--namespace", namespace, "--pod-name", pod, "--webhook-mode", "disabled"},
	}
	s.must(s.controller.Start())
	b.Cleanup(func() { s.must(s.controller.Kill()) })
	s.service("warm-up", withoutNodePorts)
	s.awaitAddresses(1)
	s.remove("warm-up")
	s.settle()
}

// sorted adds up a controller's writes of Services and records, of events, and of pools.
func sorted(d map[string]int) (writes, events, pools int) {
	for k, n := range d {
		switch k {
		case "POST services", "DELETE services", "PUT ippools", "PATCH namespaces": // The user's own.
		case "POST ipaddresses", "DELETE ipaddresses": // The API server's.
		case "POST events", "PATCH events":
			events += n
		case "PUT ippools/status", "PUT ipaddresspools/status", "PATCH ipaddresspools/status":
			pools += n
		default:
			writes += n
		}
	}
	return writes, events, pools
}

// herald runs all parts with herald-ccm.
func (s *scale) herald(b *testing.B) {
	ccm, err := s.plane.StartCCM()
	s.must(err)
	s.controller = ccm
	s.advertise()
	s.pool("public", delay(0), "198.18.0.0/17")
	s.service("warm-up", withoutNodePorts)
	s.event("Service", "warm-up", "EnsuredLoadBalancer", "")
	s.remove("warm-up")
	s.awaitNoRecords()
	s.settle()
	s.lives(b)
	s.waits(b)
}

// lives measures creation, a new leader, edits of the pool, and deletion.
func (s *scale) lives(b *testing.B) {
	const all = "198.18.0.0/17"
	out := s.many / 2 // The number of addresses outside of the narrowed pool.
	half := fmt.Sprintf("198.18.0.0-198.18.%d.%d", (s.many-out)/256, (s.many-out)%256)
	s.part(b, "create", s.create)
	s.part(b, "restart", func(_ *testing.B, c *cluster) {
		c.must(s.controller.Restart(c.ctx))
		c.service("canary", withoutNodePorts)
		c.eventually("an address", func(context.Context) error {
			if len(addresses(c.get("canary"))) == 0 {
				return errors.New("none")
			}
			return nil
		})
	})
	s.part(b, "narrow", func(_ *testing.B, c *cluster) {
		c.readdress("public", herald.AddressRange(half))
		c.condition("public", herald.PoolInRange, metav1.ConditionFalse, "more")
		c.awaitRecords(out, herald.AllocationInRange, metav1.ConditionFalse)
	})
	s.part(b, "widen", func(_ *testing.B, c *cluster) {
		c.readdress("public", all)
		c.condition("public", herald.PoolInRange, metav1.ConditionTrue, "")
		c.awaitRecords(out, herald.AllocationInRange, metav1.ConditionTrue)
	})
	s.part(b, "delete", func(_ *testing.B, c *cluster) {
		c.remove("canary")
		c.removeMany(s.many)
		c.awaitNoRecords()
	})
}

// waits measures many Services that have to wait for an address.
func (s *scale) waits(b *testing.B) {
	s.readdress("public", "198.51.100.0/29")
	s.part(b, "wait", func(_ *testing.B, c *cluster) { c.createMany(s.many, withoutNodePorts) })
	// Relabel for this long, as fast as the API server permits.
	const stir = 5 * time.Second
	s.part(b, "relabel", func(_ *testing.B, c *cluster) {
		for start := time.Now(); time.Since(start) < stir; {
			patch := fmt.Sprintf(`{"metadata":{"labels":{"turn":"%d"}}}`, time.Since(start))
			_, err := c.kube.CoreV1().Namespaces().Patch(c.ctx, "default", types.MergePatchType, []byte(patch), metav1.PatchOptions{})
			c.must(err)
		}
	})
	s.part(b, "serve", func(_ *testing.B, c *cluster) {
		c.readdress("public", "198.51.100.0/29", "198.18.0.0/17")
		c.awaitAddresses(s.many)
	})
}

// withoutNodePorts makes a Service use no node ports, of which there are fewer than 3,000.
func withoutNodePorts(svc *corev1.Service) {
	no := false
	svc.Spec.AllocateLoadBalancerNodePorts = &no
}

// readdress changes the addresses of a pool.
func (c *cluster) readdress(pool string, addresses ...herald.AddressRange) {
	c.t.Helper()
	c.eventually("edit of IPPool "+pool, func(ctx context.Context) error {
		p, err := c.herald.Pools.Get(ctx, pool, metav1.GetOptions{})
		if err != nil {
			return err
		}
		p.Spec.Addresses = addresses
		_, err = c.herald.Pools.Update(ctx, p, metav1.UpdateOptions{})
		return err
	})
}

// createMany creates Services in several goroutines.
func (c *cluster) createMany(many int, edit ...func(*corev1.Service)) {
	c.t.Helper()
	c.forMany(many, func(name string) { c.service(name, edit...) })
}

func (c *cluster) removeMany(many int) {
	c.t.Helper()
	c.forMany(many, c.remove)
}

// forMany calls the function call for the names of this many Services, in several goroutines.
func (c *cluster) forMany(many int, call func(name string)) {
	c.t.Helper()
	numbers := make(chan int)
	var workers sync.WaitGroup
	for range 8 {
		workers.Go(func() {
			for i := range numbers {
				call(fmt.Sprintf("svc-%05d", i))
			}
		})
	}
	for i := range many {
		numbers <- i
	}
	close(numbers)
	workers.Wait()
}

// awaitAddresses waits until this many Services have an address.
func (c *cluster) awaitAddresses(many int) {
	c.t.Helper()
	c.awaitServices(many, "an address", func(svc *corev1.Service) bool { return len(addresses(svc)) > 0 })
}

// awaitServices waits until has returns true for this many Services.
func (c *cluster) awaitServices(many int, something string, has func(*corev1.Service) bool) {
	c.t.Helper()
	c.await(c.kube.CoreV1().Services("default").Watch, many, something, func(o runtime.Object) bool {
		svc, ok := asService(o)
		return ok && has(svc)
	})
}

// awaitNoRecords waits until no address is recorded.
func (c *cluster) awaitNoRecords() {
	c.t.Helper()
	c.must(lab.Eventually(c.ctx, func(ctx context.Context) error {
		left, err := c.herald.Allocations.List(ctx, metav1.ListOptions{Limit: 1})
		if err == nil && len(left.Items) > 0 {
			err = fmt.Errorf("the record %s is left", left.Items[0].Name)
		}
		return err
	}))
}

// awaitRecords waits until this many records have a condition.
func (c *cluster) awaitRecords(many int, kind string, status metav1.ConditionStatus) {
	c.t.Helper()
	c.await(c.herald.Allocations.Watch, many, fmt.Sprintf("%s=%s", kind, status), func(o runtime.Object) bool {
		rec, ok := o.(*herald.IPAllocation)
		return ok && meta.IsStatusConditionPresentAndEqual(rec.Status.Conditions, kind, status)
	})
}

// await waits until has returns true for this many objects.
func (c *cluster) await(watch watchFunc, many int, something string, has func(runtime.Object) bool) {
	c.t.Helper()
	watched := map[string]bool{}
	for len(watched) < many && c.ctx.Err() == nil {
		// The watch begins with all existing objects. The API server ends it for clients that do not keep up.
		w, err := watch(c.ctx, metav1.ListOptions{})
		c.must(err)
		for e := range w.ResultChan() {
			if has(e.Object) {
				watched[e.Object.(metav1.Object).GetName()] = true
			}
			if len(watched) == many {
				break
			}
		}
		w.Stop()
	}
	if len(watched) < many {
		c.t.Fatalf("%d of %d objects have %s", len(watched), many, something)
	}
}

type watchFunc func(context.Context, metav1.ListOptions) (watch.Interface, error)

// forgetPeak resets the kernel's measurement of a process's peak memory (proc(5), clear_refs).
func forgetPeak(t testing.TB, pid int) {
	t.Helper()
	if err := os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", pid), []byte("5"), 0); err != nil {
		t.Fatal(err)
	}
}
