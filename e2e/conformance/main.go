// Command conformance runs Kubernetes' own specs for load balancers, those labelled Feature:LoadBalancer,
// against Herald on a kind cluster. The client is outside of the nodes' subnet, behind a router.
//
//	conformance [bgp|l2]...    in these modes, one after the other; in both if none is named
//
// For each mode the command writes build/conformance/MODE.xml (JUnit) and MODE.log (the whole output). It
// writes a summary to docs/conformance.md.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/heraldlb/herald/e2e/kind"
	"github.com/heraldlb/herald/e2e/lab"
	"github.com/heraldlb/herald/e2e/lab/enclave"
	"github.com/heraldlb/herald/e2e/lab/router"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "conformance:", err)
		os.Exit(1)
	}
}

func run(names []string) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	chosen, err := choose(names)
	if err != nil {
		return err
	}
	if err := enclave.Enter(); err != nil {
		return err
	}
	root, err := lab.FindRoot()
	if err != nil {
		return err
	}
	herald, err := version(ctx, root)
	if err != nil {
		return err
	}
	g := ground{root: root, dir: filepath.Join(root, "build", "conformance"), herald: herald}
	if err := os.MkdirAll(g.dir, 0o755); err != nil {
		return err
	}
	err = g.stand(ctx, func() error {
		for _, m := range chosen {
			if err := g.run(ctx, m); err != nil {
				return fmt.Errorf("mode %s: %w", m.name, err)
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	return report(g.dir, filepath.Join(root, "docs", "conformance.md"), chosen)
}

// product lists the paths of Herald's own code.
var product = []string{"api", "cmd", "ipam", "provider", "speaker", "manifests", "go.mod", ":!*_test.go"}

// version returns git's name of the last commit that changed Herald itself, without its tests and the written results.
func version(ctx context.Context, root string) (string, error) {
	git := func(args ...string) (string, error) {
		out, err := exec.CommandContext(ctx, "git", append([]string{"-C", root}, args...)...).Output()
		if err != nil {
			return "", fmt.Errorf("git %s: %w: the results are dated by it", args[0], err)
		}
		return strings.TrimSpace(string(out)), nil
	}
	commit, err := git(append([]string{"log", "-1", "--format=%H", "--"}, product...)...)
	if err != nil {
		return "", err
	}
	name, err := git("describe", "--tags", "--always", commit)
	if err != nil {
		return "", err
	}
	changes, err := git(append([]string{"status", "--porcelain", "--"}, product...)...)
	if changes != "" {
		name += " with changes"
	}
	return name, err
}

// ground is the environment of the specs: a cluster with Herald, and a site around it.
type ground struct {
	root, dir, herald string

	cluster *kind.Cluster
	site    *lab.Site
}

// stand sets up the ground, calls f, and removes the ground.
func (g *ground) stand(ctx context.Context, f func() error) (err error) {
	tell := func(step string) { fmt.Println("kind:", step) }
	// The cluster is IPv4 only: one spec requests the health of a single-stack Service at every address of a node.
	g.cluster, err = kind.Start(ctx, kind.Options{Families: kind.IPv4, Root: g.root, NodeImage: os.Getenv("HERALD_NODE_IMAGE"), Progress: tell})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, g.cluster.Close()) }()
	tell("installing Herald")
	if err := g.cluster.Install(ctx); err != nil {
		return err
	}
	tell("loading the image of the test pods")
	if err := g.loadImage(ctx); err != nil {
		return err
	}
	// The API server needs a route to the client, too.
	nodes := []*lab.Node{g.cluster.ControlPlane.Node}
	for _, n := range g.cluster.Nodes {
		nodes = append(nodes, n.Node)
	}
	g.site, err = lab.Surround(context.WithoutCancel(ctx), nodes, []router.Kind{lab.FRR}, "", "/run/routers")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, g.site.Close()) }()
	return f()
}

func (g *ground) binary(name string) string { return filepath.Join(g.root, "build", "bin", name) }
