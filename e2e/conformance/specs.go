package main

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"

	"k8s.io/client-go/tools/clientcmd"
)

// workers is the number of specs that run in parallel. They mostly wait. Two of them wait for a quarter of an hour.
const workers = 4

//go:embed Dockerfile
var dockerfile string

// agnhost matches the names of the test pods' image in the list that the specs' program prints.
var agnhost = regexp.MustCompile(`(?m)^.*/e2e-test-images/agnhost:.*$`)

// loadImage builds the image of the test pods under the names that the specs use, and loads it on the nodes.
func (g *ground) loadImage(ctx context.Context) error {
	list, err := exec.CommandContext(ctx, g.binary("e2e.test"), "--list-images").Output()
	if err != nil {
		return fmt.Errorf("list the specs' images: %w: run `make conformance`", err)
	}
	names := agnhost.FindAllString(string(list), -1)
	if len(names) == 0 {
		return errors.New("the specs name no image agnhost any more: see what their pods run now, e2e.test --list-images")
	}
	for _, name := range names {
		if err := g.cluster.BuildImage(ctx, name, dockerfile, filepath.Join(g.dir, "agnhost")); err != nil {
			return err
		}
	}
	return g.cluster.LoadImage(ctx, names...)
}

// kubeconfig writes a kubeconfig for access to the API server from outside, and returns the file's name.
func (g *ground) kubeconfig() (string, error) {
	config, err := clientcmd.LoadFromFile(g.cluster.Kubeconfig)
	if err != nil {
		return "", err
	}
	for _, c := range config.Clusters {
		server := url.URL{Scheme: "https", Host: g.cluster.ControlPlane.IPv4.String() + ":6443"}
		c.Server = server.String()
	}
	const file = "/run/conformance.kubeconfig"
	return file, clientcmd.WriteToFile(*config, file)
}

// run runs the specs with Herald set up for one mode, and keeps the results.
func (g *ground) run(ctx context.Context, m mode) error {
	kubernetes, err := g.cluster.Client.Discovery().ServerVersion()
	if err != nil {
		return err
	}
	if err := g.cluster.Reset(ctx); err != nil {
		return err
	}
	if err := g.cluster.Apply(ctx, m.configuration(g.site.Routers[0])); err != nil {
		return err
	}
	fmt.Printf("%s: running the specs, for a quarter of an hour and more; %s tells how far they are\n", m.name, filepath.Join(g.dir, m.name+".log"))
	found, err := g.specs(ctx, m)
	if err != nil {
		return err
	}
	found.Name = m.name
	found.Properties = []property{{"kubernetes", kubernetes.GitVersion}, {"herald", g.herald}}
	if found.Failures > 0 {
		err = g.cluster.Logs(ctx, filepath.Join(g.dir, m.name+".cluster"))
	}
	return errors.Join(err, found.write(filepath.Join(g.dir, m.name+".xml")))
}

// specs runs the specs on the client behind the router.
func (g *ground) specs(ctx context.Context, m mode) (*suite, error) {
	kubeconfig, err := g.kubeconfig()
	if err != nil {
		return nil, err
	}
	log, err := os.Create(filepath.Join(g.dir, m.name+".log"))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	const all = "/run/conformance.xml" // It also has the specs that were not selected.
	cmd := g.site.Outside.Host.Command(ctx, g.binary("ginkgo"), "run", "-v", "--no-color", fmt.Sprint("--procs=", workers), "--timeout=1h",
		"--label-filter=Feature: containsAny LoadBalancer", "--output-dir=/run", "--junit-report="+filepath.Base(all),
		g.binary("e2e.test"), "--",
		"--kubeconfig="+kubeconfig, "--kubectl-path=/run/kubectl", "--provider=skeleton", "--disable-log-dump", "--dump-logs-on-failure=false",
		fmt.Sprint("--num-nodes=", len(g.cluster.Nodes))) // Without the flag, only the first worker would count the nodes.
	// The client cannot reach a proxy.
	cmd.Env, cmd.Stdout, cmd.Stderr = append(os.Environ(), "NO_PROXY=*", "no_proxy=*"), log, log
	failed := cmd.Run()
	found, err := readSuite(all)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("the specs left no results: see %s", log.Name()), failed, err)
	}
	return found, nil
}
