package e2e

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	herald "github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/e2e/lab"
	"github.com/heraldlb/herald/e2e/lab/enclave"
	"github.com/heraldlb/herald/e2e/lab/router"
)

// blocksLike returns the matching code blocks of README.md and of all documents in docs, by their location.
func blocksLike(t *testing.T, pattern string) map[string]string {
	t.Helper()
	documents, err := filepath.Glob("../docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	blocks, like := map[string]string{}, regexp.MustCompile(pattern)
	for _, d := range append(documents, "../README.md") {
		text, err := os.ReadFile(d)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range fenced.FindAllSubmatchIndex(text, -1) {
			if block := string(text[m[2]:m[3]]); like.MatchString(block) {
				blocks[fmt.Sprintf("%s:%d", filepath.Base(d), 1+strings.Count(string(text[:m[0]]), "\n"))] = block
			}
		}
	}
	if len(blocks) == 0 {
		t.Fatalf("no document has a code block like %q", pattern)
	}
	return blocks
}

// TestDocumentedConfigurations checks the router configurations in the documents with the parsers of FRR and BIRD.
func TestDocumentedConfigurations(t *testing.T) {
	for _, daemon := range []struct {
		like, before string
		check        []string
	}{
		{`(?m)^(router bgp |bfd$)`, "", []string{"vtysh", "-C", "-f"}},
		// A filter is only a part of a configuration. The other parts need these lines.
		{`(?m)^(protocol|filter) `, "router id 10.0.0.1;\nprotocol static { ipv4; }\n", []string{"bird", "-p", "-c"}},
	} {
		for where, block := range blocksLike(t, daemon.like) {
			file := filepath.Join(t.TempDir(), "configuration")
			if err := os.WriteFile(file, []byte(daemon.before+block), 0o600); err != nil {
				t.Fatal(err)
			}
			out, err := (enclave.Host{}).Command(t.Context(), daemon.check[0], append(daemon.check[1:], file)...).CombinedOutput()
			if err != nil || len(out) > 0 {
				t.Errorf("%s: %s says %v: %s", where, daemon.check[0], err, out)
			}
		}
	}
}

// documentedDaemon is a routing daemon on the router at 10.0.0.1, with the documented configuration.
type documentedDaemon struct {
	name string
	// all is the configuration for all nodes, one is for the first node only, and link is for the node at swp1. With roles, the
	// configuration for all nodes insists on BGP roles.
	all, roles, one, link string
	start                 func(context.Context, enclave.Host, string) (router.Router, error)
	// weights are the weights in the kernel for nodes with three endpoints and with one.
	weights [2]string
	// told returns the daemon's output about its neighbours. With two nodes, each of signs occurs in it this many times.
	// The signs show that both ends do graceful restart and that no route is sent.
	told  func(context.Context, router.Router) (string, error)
	signs map[string]int
}

func documentedDaemons(t *testing.T) []documentedDaemon {
	const peers, bfd = "docs/bgp-peers.md", "docs/bfd.md"
	// Redistributed routes would be sent to the nodes without the documented filter.
	frr := blockOf(t, peers, "bgp listen range") + blockOf(t, peers, "stale-time") +
		"router bgp 64500\n address-family ipv4 unicast\n  redistribute connected\n exit-address-family\nexit\n"
	bird := blockOf(t, "docs/bgp-routes.md", "filter herald_in") +
		strings.ReplaceAll(blockOf(t, peers, "neighbor range 10."), "import all", "import filter herald_in")
	const protocol = "protocol bgp herald {\n"
	return []documentedDaemon{{
		name:  "FRR",
		all:   frr,
		roles: frr + blockOf(t, peers, "local-role provider"),
		one:   blockOf(t, bfd, "neighbor 10.0.0.11 bfd"),
		link:  blockOf(t, peers, "neighbor swp1"), weights: [2]string{"75", "25"},
		start: func(ctx context.Context, h enclave.Host, config string) (router.Router, error) {
			const dir = "/run/documented-frr"
			r, err := router.StartFRR(ctx, h, dir, "!\nbfd\n")
			if err != nil {
				return nil, err
			}
			// vtysh loads a file for all daemons, as when FRR starts as a service.
			file := filepath.Join(dir, "all.conf")
			if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
				return nil, errors.Join(err, r.Kill())
			}
			out, err := h.Command(ctx, "vtysh", "--vty_socket", dir, "-f", file).CombinedOutput()
			if err != nil || strings.Contains(string(out), "%") {
				return nil, errors.Join(fmt.Errorf("FRR does not take its configuration: %w: %s", err, out), r.Kill())
			}
			return r, nil
		},
		told: func(ctx context.Context, r router.Router) (string, error) {
			out, err := r.(*router.FRR).Show(ctx, "show bgp neighbors", "show bgp summary json")
			return string(out), err
		},
		signs: map[string]int{
			"Received Restart Time(sec): 30": 2, "Long-lived Graceful Restart: advertised and received": 2, "N bit: True": 2, `"pfxSnt":0`: 4,
		},
	}, {
		name:  "BIRD",
		all:   bird,
		roles: strings.Replace(bird, protocol, protocol+blockOf(t, peers, "local role provider"), 1),
		one:   "router id 10.0.0.1;\nprotocol device {}\n" + blockOf(t, bfd, "protocol bgp node11"),
		link:  blockOf(t, peers, "neighbor range fe80"), weights: [2]string{"1", "1"},
		start: func(ctx context.Context, h enclave.Host, config string) (router.Router, error) {
			return router.StartBIRD(ctx, h, "/run/documented-bird", config)
		},
		told: func(ctx context.Context, r router.Router) (string, error) {
			return r.(*router.BIRD).Show(ctx, "protocols", "all")
		},
		signs: map[string]int{"Restart time: 30": 2, "LL stale time: 3600": 2, "1 imported, 0 exported": 4},
	}}
}

// TestDocumentedRouters pastes the documented configuration of the cluster and of the router, as a user does: first for
// FRR, then for BIRD.
func TestDocumentedRouters(t *testing.T) {
	f := withLab(t, lab.Options{Nodes: 2}).field
	paste := func(f *field, block string, options ...string) error {
		_, err := f.access.Shell(f.ctx, "kubectl apply "+strings.Join(options, " ")+" -f - <<'EOF'\n"+block+"EOF\n")
		return err
	}
	for where, block := range blocksLike(t, `^apiVersion: `) {
		if err := paste(f, block, "--dry-run=server"); err != nil {
			t.Errorf("%s: %v", where, err)
		}
	}

	// The router is on the nodes' segment. Its port swp1 leads to the first node only.
	host, err := enclave.NewHost("documented")
	f.must(err)
	t.Cleanup(func() { _ = host.Remove() })
	f.must(enclave.Connect(enclave.Host{}, "documented", host, "eth0"))
	f.must((enclave.Host{}).Script("ip link set documented master %s", lab.Bridge))
	f.must(host.Script("ip addr add 10.0.0.1/24 dev eth0; ip addr add 2001:db8:18::f/64 dev eth0"))
	for i, n := range f.site.Nodes {
		f.must(n.Host.Script("ip addr add 10.0.0.%d/24 dev eth0", 11+i))
	}
	f.must(enclave.Connect(f.site.Nodes[0].Host, "eth1", host, "swp1"))

	const address = "198.51.100.0"
	f.pool("public", delay(0), "198.51.100.0/26", "2001:db8:51::/112")
	for pod, node := range []int{0, 0, 0, 1} {
		f.pod(fmt.Sprint("pod-", pod), f.site.Nodes[node].Name)
	}
	f.service("web", to8080, local, dualStack)
	f.holds("web", address, "2001:db8:51::")

	for _, daemon := range documentedDaemons(t) {
		t.Run(daemon.name, func(t *testing.T) {
			f := f.within(t)
			var r router.Router
			stop := func() {
				if r != nil {
					f.must(r.Stop()) // A daemon that is killed leaves its routes in the kernel.
				}
				r = nil
			}
			t.Cleanup(stop)
			configure := func(config string) {
				stop()
				started, err := daemon.start(f.ctx, host, config)
				f.must(err)
				r = started
			}
			// hears waits until the router has this number of routes from nodes, and is returns true for each of them.
			hears := func(number int, is func(router.Route) bool) {
				f.t.Helper()
				f.eventually("the router's routes", func(ctx context.Context) error {
					routes, err := r.Routes(ctx)
					routes = slices.DeleteFunc(routes, func(r router.Route) bool { return len(r.ASPath) == 0 })
					if err == nil && (len(routes) != number || slices.ContainsFunc(routes, func(r router.Route) bool { return !is(r) })) {
						err = fmt.Errorf("there are %+v", routes)
					}
					return err
				})
			}
			any := func(router.Route) bool { return true }
			// forwards waits until the router's kernel has exactly these next hops to the address.
			forwards := func(want ...string) {
				f.t.Helper()
				f.eventually("the router's next hops", func(ctx context.Context) error {
					out, err := host.Command(ctx, "ip", "route", "show", address).CombinedOutput()
					if err == nil && (strings.Count(string(out), "via ") != len(want) ||
						slices.ContainsFunc(want, func(w string) bool { return !strings.Contains(string(out), w) })) {
						err = fmt.Errorf("not %q in %q", want, out)
					}
					return err
				})
			}
			// watches waits until the router has BFD sessions with these nodes, as documented.
			watches := func(nodes ...string) {
				f.t.Helper()
				f.eventually("the router's BFD sessions", func(ctx context.Context) error {
					all, err := r.BFD(ctx)
					var up []string
					for _, s := range all {
						if s.State == "up" && s.Transmit == 100*time.Millisecond && s.Detection == 300*time.Millisecond {
							up = append(up, s.Peer.String())
						}
					}
					if slices.Sort(up); err == nil && !slices.Equal(up, nodes) {
						err = fmt.Errorf("there are %+v", all)
					}
					return err
				})
			}

			configure(daemon.all)
			f.must(paste(f, blockOf(t, "docs/bgp-peers.md", "kind: Secret")))
			f.must(paste(f, blockOf(t, "docs/bgp-routes.md", "linkBandwidth")))
			f.must(f.patchPeer("tor-a", `{"spec":{"gracefulRestart":{"staleTime":"1h","onNotification":"Keep"}}}`))
			f.told("bgppeers tor-a", herald.ConditionEstablished, "Established")
			f.told("bgppeers tor-a", herald.ConditionPathsAlive, "Alive")
			hears(4, any)
			watches("10.0.0.11", "10.0.0.12")
			forwards("via 10.0.0.11 dev eth0 weight "+daemon.weights[0], "via 10.0.0.12 dev eth0 weight "+daemon.weights[1])
			f.eventually("what the router says of the nodes", func(ctx context.Context) error {
				said, err := daemon.told(ctx, r)
				for sign, n := range daemon.signs {
					if err == nil && strings.Count(said, sign) != n {
						err = fmt.Errorf("not %d times %q: %s", n, sign, said)
					}
				}
				return err
			})

			configure(daemon.roles)
			f.told("bgppeers tor-a", herald.ConditionEstablished, "NoSession", "the router insists on a BGP role of this node")
			f.must(f.patchPeer("tor-a", `{"spec":{"role":"Customer"}}`))
			f.told("bgppeers tor-a", herald.ConditionEstablished, "Established")
			hears(4, any)

			// The first node leaves. The router does not use the node's routes, although it still has them.
			f.must(paste(f, blockOf(t, "docs/bgp-routes.md", "drainTime: 5s")))
			f.label(f.site.Nodes[0].Name, corev1.LabelNodeExcludeBalancers, "")
			forwards("via 10.0.0.12 dev eth0")
			hears(4, func(r router.Route) bool {
				from := r.NextHops[0] == netip.MustParseAddr("10.0.0.11") || r.NextHops[0] == f.site.Nodes[0].IPv6
				return slices.Contains(r.Communities, "65535:0") == from
			})
			hears(2, any)
			f.unlabel(f.site.Nodes[0].Name, corev1.LabelNodeExcludeBalancers)
			hears(4, any)

			configure(daemon.one)
			f.must(paste(f, blockOf(t, "docs/bfd.md", "detectMultiplier: 3, transmitInterval")))
			f.told("bgppeers tor-a", herald.ConditionEstablished, "SessionsDown", "node k8s-node2: ")
			watches("10.0.0.11")
			f.kubectl("delete", "bgppeer.herald.dev", "tor-a")

			configure(daemon.link)
			f.must(paste(f, blockOf(t, "docs/bgp-peers.md", "addressFrom: {interface: eth1}")))
			hears(2, func(r router.Route) bool { return r.NextHops[0].IsLinkLocalUnicast() })
			f.kubectl("delete", "bgppeer.herald.dev", "leaf")
		})
	}
}
