package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	herald "github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/e2e/lab"
	"github.com/heraldlb/herald/e2e/lab/router"
)

// ask runs kubectl herald and returns its output and its exit code.
func (c *cluster) ask(args ...string) (said string, code int) {
	c.t.Helper()
	said, err := c.access.Kubectl(c.ctx, append([]string{"herald"}, args...)...)
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		return said + err.Error(), exit.ExitCode()
	case err != nil:
		c.t.Fatal(err)
	}
	return said, 0
}

// says checks that output of kubectl herald contains the lines in this order. Several spaces count as one.
func (c *cluster) says(said string, want ...string) {
	c.t.Helper()
	if strings.Contains(said, "\x1b") {
		c.t.Errorf("escape codes where nobody watches: %q", said)
	}
	rest := strings.Join(strings.Fields(said), " ")
	for _, w := range want {
		_, after, ok := strings.Cut(rest, w)
		if !ok {
			c.t.Fatalf("no %q, or not after what comes before it, in\n%s", w, said)
		}
		rest = after
	}
}

// comesToSay runs kubectl herald until it has this exit code and its output contains all texts, and returns the output.
func (c *cluster) comesToSay(command string, code int, want ...string) (said string) {
	c.t.Helper()
	c.eventually("kubectl herald "+command+" says "+strings.Join(want, ", "), func(context.Context) (err error) {
		var got int
		said, got = c.ask(strings.Fields(command)...)
		flat := strings.Join(strings.Fields(said), " ")
		for _, w := range want {
			if !strings.Contains(flat, w) || got != code {
				return fmt.Errorf("there is no %q, or exit code %d is not %d; it says\n%s", w, got, code, said)
			}
		}
		return nil
	})
	return said
}

// file writes manifests to a new file and returns its name.
func file(t testing.TB, yaml string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "pools.yaml")
	if err := os.WriteFile(name, []byte(yaml), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

// TestWhatIsSeenAndPlanned is about the kubectl plugin: what it shows, and what it plans.
func TestWhatIsSeenAndPlanned(t *testing.T) {
	c, _, _ := withCCM(t)
	said, _ := c.ask("pools")
	c.says(said, "There are no IPPools")
	c.pool("public", delay(0), "198.51.100.0/30", "2001:db8:51::/126")
	c.pool("tiny", func(s *herald.IPPoolSpec) { no := false; s.AutoAssign = &no; delay(0)(s) }, "203.0.113.0")
	for name, address := range map[string]string{"web": "198.51.100.1", "db": "198.51.100.3", "small": "203.0.113.0"} {
		c.service(name, annotated(herald.AnnotationIPs, address))
		c.holds(name, address)
	}
	c.service("late", annotated(herald.AnnotationPool, "gold"))
	c.event("Service", "late", "SyncLoadBalancerFailed", `there is no pool "gold"`)
	c.condition("tiny", herald.PoolAddressesAvailable, metav1.ConditionFalse, "")

	t.Run("pools", func(t *testing.T) {
		c := c.within(t)
		c.eventually("the use of the pools", func(context.Context) error {
			p, err := c.herald.Pools.Get(c.ctx, "public", metav1.GetOptions{})
			if err == nil && (p.Status.IPv4 == nil || p.Status.IPv4.Assigned != 2) {
				err = errors.New("is not yet told")
			}
			return err
		})
		said, code := c.ask("pools")
		c.says(said,
			"public 198.51.100.0/30, 2001:db8:51::/126", "IPv4 ", " 2 used 0 cooling 2 free of 4", "IPv6 ", " 0 used 0 cooling 4 free of 4",
			"used by default 2", "! Announced: NoAdvertisement: ",
			"tiny 203.0.113.0", " 1 used 0 cooling 0 free of 1", "! Ready: Exhausted: every address is in use",
		)
		if code != 0 {
			t.Errorf("exit code %d", code)
		}
		said, _ = c.ask("pools", "tiny", "-o", "json")
		var report struct {
			Pools []struct {
				Name     string
				Families []struct{ Used, Free int }
			}
		}
		if err := json.Unmarshal([]byte(said), &report); err != nil || len(report.Pools) != 1 || report.Pools[0].Families[0].Used != 1 {
			t.Errorf("%v: %s", err, said)
		}
		if said, code := c.ask("pools", "gold"); code != 1 {
			t.Errorf("exit code %d: %s", code, said)
		} else {
			c.says(said, `error: there is no IPPool "gold"`)
		}
	})
	t.Run("what is there already changes nothing", func(t *testing.T) {
		c := c.within(t)
		yaml, err := c.access.Kubectl(c.ctx, "get", "ippools.herald.dev", "-o", "yaml")
		c.must(err)
		said, code := c.ask("plan", "-f", file(t, yaml))
		c.says(said, "No pool would change.", "= 3 Services keep what they have: 3 addresses", "? default/late would wait: there is no pool", "Nothing would be lost.")
		if code != 0 {
			t.Errorf("exit code %d", code)
		}
	})
	const pools = `apiVersion: herald.dev/v1alpha1
kind: IPPool
metadata: {name: public}
spec: {addresses: [198.51.100.0/31, "2001:db8:51::/126"], reuseDelay: 0s}
---
apiVersion: herald.dev/v1alpha1
kind: IPPool
metadata: {name: gold}
spec: {addresses: [198.51.100.0-198.51.100.2], reuseDelay: 0s}
`
	t.Run("what is planned is what happens", func(t *testing.T) {
		c := c.within(t)
		var said string
		var code int
		// There are occasional events of the waiting Service. Writes of a plan would occur each time.
		c.eventually("a plan writes nothing", func(context.Context) error {
			before := c.writes()
			said, code = c.ask("plan", "-f", file(t, pools), "--delete", "tiny")
			if d := since(before, c.writes()); len(d) > 0 {
				return fmt.Errorf("while it was made these were written: %v", d)
			}
			return nil
		})
		c.says(said,
			"~ public addresses - 198.51.100.0/30 + 198.51.100.0/31 IPv4 4 → 2 addresses, 2 → 1 free",
			"- tiny gives out nothing more, and goes when its last address is free",
			"+ gold addresses + 198.51.100.0-198.51.100.2 reuseDelay - 10s + 0s IPv4 0 → 1 addresses, 0 free overlaps 198.51.100.0-198.51.100.1 stays with the older pool public",
			"= 2 Services keep what they have: 2 addresses",
			"- 198.51.100.3 default/db would be out of range of public",
			"+ 198.51.100.2 default/late would be given, from gold",
			"1 address in use would be out of range",
		)
		if code != 2 {
			t.Errorf("exit code %d, want 2", code)
		}
		c.must(c.access.Apply(c.ctx, pools))
		c.must(c.herald.Pools.Delete(c.ctx, "tiny", metav1.DeleteOptions{}))
		c.holds("late", "198.51.100.2")
		c.condition("public", herald.PoolInRange, metav1.ConditionFalse, "198.51.100.3 (default/db)")
		c.condition("gold", herald.PoolExclusive, metav1.ConditionFalse, "198.51.100.0-198.51.100.1 (pool public)")
		c.condition("tiny", herald.PoolReady, metav1.ConditionFalse, "203.0.113.0 (default/small)")
		for name, address := range map[string]string{"web": "198.51.100.1", "db": "198.51.100.3", "small": "203.0.113.0"} {
			c.holds(name, address)
		}
	})
	t.Run("what cannot be planned says why", func(t *testing.T) {
		c := c.within(t)
		said, code := c.ask("plan", "-f", file(t, strings.Replace(pools, "addresses", "adresses", 1)))
		c.says(said, `error: `, `strict decoding error: unknown field "spec.adresses"`)
		if code != 1 {
			t.Errorf("exit code %d, want 1", code)
		}
		said, code = c.ask("plan", "-f", file(t, strings.Replace(pools, "198.51.100.0/31", "198.51.100.7-198.51.100.0", 1)))
		c.says(said, `invalid spec.addresses[0] "198.51.100.7-198.51.100.0": ends before it starts: write 198.51.100.0-198.51.100.7`,
			"IPPool public would be invalid")
		if code != 2 {
			t.Errorf("exit code %d, want 2", code)
		}
	})
}

func TestAServiceIsRenumbered(t *testing.T) {
	c, _, _ := withCCM(t)
	c.pool("public", delay(0), "198.51.100.1-198.51.100.2", "2001:db8:51::/126")
	c.service("web")
	c.holds("web", "198.51.100.1")
	annotation := func(name string) string { return c.get(name).Annotations[herald.AnnotationRenumber] }

	before := c.get("web").ResourceVersion
	said, code := c.ask("renumber", "default/web", "--dry-run")
	c.says(said, "default/web would leave 198.51.100.1, and get 198.51.100.2 of pool public.", "Connections to 198.51.100.1 would break off. Nothing was changed.")
	if now := c.get("web").ResourceVersion; code != 0 || now != before {
		t.Errorf("exit code %d; the Service was written: %s → %s", code, before, now)
	}
	said, code = c.ask("renumber", "default/web")
	c.says(said, "default/web: 198.51.100.1 → 198.51.100.2", "Connections to 198.51.100.1 break off. Point clients to 198.51.100.2, for example in DNS.")
	if code != 0 || annotation("web") != "" {
		t.Errorf("exit code %d; the annotation says %q", code, annotation("web"))
	}
	c.holds("web", "198.51.100.2") // The Service keeps the address without the annotation.
	c.unrecorded("198.51.100.1")
	t.Run("of both families", func(t *testing.T) {
		c := c.within(t)
		c.pool("other", delay(0), "203.0.113.0/31")
		c.service("dual", dualStack, annotated(herald.AnnotationPool, "public"))
		c.holds("dual", "198.51.100.1", "2001:db8:51::")
		c.edit("dual", func(svc *corev1.Service) { svc.Annotations = nil })
		said, _ := c.ask("renumber", "dual", "-n", "default")
		c.says(said, "default/dual: 198.51.100.1, 2001:db8:51:: → 203.0.113.0, 2001:db8:51::1")
		c.holds("dual", "203.0.113.0", "2001:db8:51::1")
		c.remove("dual")
		c.gone("dual")
		c.must(c.herald.Pools.Delete(c.ctx, "other", metav1.DeleteOptions{}))
		c.poolGone("other")
	})
	t.Run("it keeps what it has if there is no other, and says why", func(t *testing.T) {
		c := c.within(t)
		c.service("neighbour", annotated(herald.AnnotationIPs, "198.51.100.1"))
		c.holds("neighbour", "198.51.100.1")
		said, code := c.ask("renumber", "web", "--dry-run", "-n", "default")
		c.says(said, "error: default/web would keep 198.51.100.2: no auto-assigning pool (public) has a free IPv4 address")
		if code != 1 {
			t.Errorf("exit code %d", code)
		}
		said, code = c.ask("renumber", "web", "--timeout", "5s", "-n", "default")
		c.says(said, "error: default/web: no other address within 5s; it keeps 198.51.100.2: ", "no auto-assigning pool (public) has a free IPv4 address")
		if code != 1 || annotation("web") != "" {
			t.Errorf("exit code %d; the annotation says %q", code, annotation("web"))
		}
		c.holds("web", "198.51.100.2")
	})
	t.Run("it keeps what it has if we are interrupted", func(t *testing.T) {
		c := c.within(t)
		var stderr bytes.Buffer
		cmd := exec.CommandContext(c.ctx, "../build/bin/kubectl-herald", "--kubeconfig", c.access.Kubeconfig, "renumber", "default/web")
		cmd.Stderr = &stderr
		c.must(cmd.Start())
		c.eventually("asked to leave", func(context.Context) error {
			if annotation("web") == "" {
				return errors.New("not yet")
			}
			return nil
		})
		c.must(cmd.Process.Signal(os.Interrupt))
		if err := cmd.Wait(); cmd.ProcessState.ExitCode() != 1 || annotation("web") != "" {
			t.Errorf("%v; the annotation says %q", err, annotation("web"))
		}
		c.says(stderr.String(), "error: default/web: interrupted; it keeps 198.51.100.2")
		c.remove("neighbour")
		c.gone("neighbour")
		c.unrecorded("198.51.100.1")
		c.holds("web", "198.51.100.2")
	})
	t.Run("what pins an address is named", func(t *testing.T) {
		c := c.within(t)
		for what, pin := range map[string]func(*corev1.Service){
			"annotation herald.dev/ips": annotated(herald.AnnotationIPs, "198.51.100.2"),
			"spec.loadBalancerIP":       func(svc *corev1.Service) { svc.Annotations, svc.Spec.LoadBalancerIP = nil, "198.51.100.2" },
		} {
			c.edit("web", pin)
			said, _ := c.ask("renumber", "default/web")
			c.says(said, "error: default/web: "+what+" asks for 198.51.100.2")
			c.edit("web", func(svc *corev1.Service) { svc.Annotations, svc.Spec.LoadBalancerIP = nil, "" })
		}
		c.service("poor", annotated(herald.AnnotationPool, "gold"))
		said, _ = c.ask("renumber", "default/poor")
		c.says(said, "error: default/poor: has no address to leave")
		said, _ = c.ask("renumber", "default/kubernetes")
		c.says(said, "error: default/kubernetes: is of type ClusterIP")
		said, _ = c.ask("renumber", "/web")
		c.says(said, `error: "/web" is not the name of a Service`)
	})
}

// TestAServiceIsExplained sets up everything that a Service needs, step by step, and checks the explanation at each step.
func TestAServiceIsExplained(t *testing.T) {
	f := withLab(t, lab.Options{Routers: []router.Kind{lab.FRR}}).field
	all, router := names(f.site), f.site.Routers[0].Name
	eventually := func(want ...string) {
		t.Helper()
		f.eventually("explained with "+want[len(want)-1], func(ctx context.Context) error {
			said, err := f.access.Kubectl(ctx, "herald", "explain", "service", "default/web")
			for _, w := range want {
				if err == nil && !strings.Contains(strings.Join(strings.Fields(said), " "), w) {
					err = errors.New("it says\n" + said)
				}
			}
			return err
		})
	}
	f.service("web", to8080)
	eventually("default/web has no class: herald-ccm serves it", "asks for IPv4", "Next: there is no IPPool: create one")
	f.pool("gold", func(s *herald.IPPoolSpec) { no := false; s.AutoAssign = &no; delay(0)(s) }, "198.18.0.199")
	eventually(`✗ gold IPv4: pool "gold" does not auto-assign: name it to be served from it`, "Next: no pool auto-assigns addresses")
	f.pool("segment", delay(0), "198.18.0.200-198.18.0.201")
	eventually("✓ segment IPv4: has 1 of 2 IPv4 addresses free", "✓ 198.18.0.200 from pool segment", "✗ 198.18.0.200 is announced by no node",
		"Next: 198.18.0.200 is announced by no node: there is no L2Advertisement and no BGPAdvertisement: create one with spec.pools: [segment]")
	f.announce()
	eventually("0 ready", "no endpoint is ready: see the pods that spec.selector chooses: kubectl -n default get pods -l ")
	f.pod("pod-1", all[0])
	node := f.answeredBy("198.18.0.200", all...)
	f.routed(f.site.Routers[0], "198.18.0.200", all...)
	eventually("1 ready, on "+all[0], "✓ 198.18.0.200 by ARP on eth0: node "+node+" owns it", "✓ 198.18.0.200 by BGP: "+strings.Join(all, ", ")+" to "+router, "Nothing has to be done in Herald: it announces the Service.")

	said, _ := f.ask("explain", "service", "default/web", "-o", "json")
	type verdict struct {
		Pool, Family string
		Fits         bool
	}
	type fact struct {
		Address string
		Wrong   bool
	}
	type report struct {
		Service, Next        string
		Pools                []verdict
		Addresses, Announced []fact
	}
	var got report
	f.must(json.Unmarshal([]byte(said), &got))
	own := fact{"198.18.0.200", false}
	want := report{"default/web", "", []verdict{{"gold", "IPv4", false}, {"segment", "IPv4", true}}, []fact{own}, []fact{own, own}}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, want %+v, in\n%s", got, want, said)
	}

	// Each mistake is reported. The test makes it and then corrects it.
	patch := func(kind, name, spec string) {
		t.Helper()
		_, err := f.access.Kubectl(f.ctx, "patch", kind, name, "--type=merge", "-p", `{"spec":`+spec+`}`)
		f.must(err)
	}
	patch("bgpadvertisements.herald.dev", "all", `{"peers":["tro"]}`)
	eventually("✓ 198.18.0.200 by ARP", "Next: 198.18.0.200 BGPAdvertisement all: spec.peers names tro, and there is no such BGPPeer")
	patch("bgpadvertisements.herald.dev", "all", `{"peers":null,"nodeSelector":{"matchLabels":{"rack":"none"}}}`)
	patch("l2advertisements.herald.dev", "all", `{"interfaces":["absent0"]}`)
	eventually("✗ 198.18.0.200 is announced by no node", "Next: 198.18.0.200 is announced by no node: L2Advertisement all: spec.interfaces names absent0")
	patch("bgpadvertisements.herald.dev", "all", `{"nodeSelector":null}`)
	patch("l2advertisements.herald.dev", "all", `{"interfaces":null}`)
	_, err := f.access.Kubectl(f.ctx, "label", "node", all[1], corev1.LabelNodeExcludeBalancers+"=")
	f.must(err)
	f.routed(f.site.Routers[0], "198.18.0.200", append([]string{all[0]}, all[2:]...)...)
	eventually("✓ 198.18.0.200 by BGP: "+strings.Join(append([]string{all[0]}, all[2:]...), ", ")+" to "+router, "Nothing has to be done in Herald: it announces the Service.")
	_, err = f.access.Kubectl(f.ctx, "label", "node", all[1], corev1.LabelNodeExcludeBalancers+"-")
	f.must(err)
	f.routed(f.site.Routers[0], "198.18.0.200", all...)

	_, err = f.access.Kubectl(f.ctx, "patch", "ippools.herald.dev", "segment", "--type=merge", "-p", `{"spec":{"addresses":["198.18.0.201"]}}`)
	f.must(err)
	eventually("✗ 198.18.0.200 from pool segment", "; out of range", "Next: 198.18.0.200 from pool segment", "give the Service another address by kubectl herald renumber default/web")
	said, _ = f.ask("renumber", "default/web")
	f.says(said, "default/web: 198.18.0.200 → 198.18.0.201")
	f.answeredBy("198.18.0.201", all...)
	eventually("✓ 198.18.0.201 from pool segment", "✓ 198.18.0.201 by ARP", "Nothing has to be done in Herald: it announces the Service.")
}
