package main

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/heraldlb/herald/e2e/lab"
)

const (
	// labDir is in the enclave's own /run, which is in memory and is removed with the enclave.
	labDir = "/run/herald-demo"
	// patience bounds a step. No step takes this long unless something is broken.
	patience = time.Minute
)

//go:embed manifests
var manifests embed.FS

// story has the state that the steps share.
type story struct {
	terminal *terminal
	began    time.Time
	figures  figures

	lab      *lab.Lab // nil until it has started.
	speakers map[string]*lab.Process
	applied  time.Time  // Start of the last kubectl apply.
	address  netip.Addr // External address of svc-1 as a Service of type LoadBalancer.

	before, now standing
	lost        *lab.Node // nil while no node is cut off.
	lostAt      time.Time
	healedAt    time.Time // when the lost node was about to be plugged in again
	probes      []probe
	watch       *lab.Watch // Watches the segment since the loss; nil before.
}

func newStory(t *terminal) *story { return &story{terminal: t, began: time.Now()} }

// chapter is a group of steps under a heading.
type chapter struct {
	title string
	steps []step
	// note explains the results of the steps.
	note string
}

// step does one thing, or waits for one condition.
type step struct {
	what string
	do   func(context.Context) (said string, err error)
	show string // A manifest to show before do is called.
}

// chapters returns the chapters of the story.
func (s *story) chapters() []chapter {
	return []chapter{
		{title: "A cluster, and Herald in it", steps: []step{
			{what: "Kubernetes on three nodes, an FRR router, two clients", do: s.startLab},
			{what: "herald-ccm, and herald-speaker on each node", do: s.startHerald},
			s.apply("quickstart.yaml", all),
			{what: "every node has a BGP session with router1", do: s.sessions},
		}},
		{title: "ClusterIP: a Service for those inside", steps: []step{
			s.apply("clusterip.yaml", service),
			{what: "pod-1 runs", do: s.podRuns("pod-1")},
			{what: "a pod on k8s-node2 asks CLUSTER-IP:9000", do: s.askClusterIP},
			{what: "the clients outside the cluster have no way there", do: s.clusterIPIsInside},
		}},
		{title: "NodePort: a port of the nodes", steps: []step{
			s.apply("nodeport.yaml", service),
			{what: "the client on the segment asks NODE-IP:30000", do: s.askNodePort},
			{what: "nodes without the pod are silent, as the policy is Local", do: s.nodePortIsLocal},
		}},
		{title: "LoadBalancer: an address of its own", steps: []step{
			s.apply("loadbalancer.yaml", service),
			{what: "svc-1 gets an EXTERNAL-IP", do: s.externalIP},
			{what: "the client on the segment asks EXTERNAL-IP:9000, by ARP", do: s.askFromSegment},
			{what: "the client behind the router asks it, by BGP", do: s.askFromOutside},
			{what: "pod-2 runs, clear of pod-1 and of the address", do: s.secondPod},
			{what: "one node has the address by ARP, all by BGP", do: s.whoHasIt},
		}, note: "Until the first answer it is mostly kube-proxy that is waited for: it lets a\n" +
			"second pass between two changes of its rules."},
		{title: "The node that has the address is lost", steps: []step{
			{what: "both clients ask every 20 ms", do: s.startProbes},
			{what: "pull the cable", do: s.cut},
			{what: "router1 has dropped the next hop", do: s.hopDropped},
			{what: "another node takes the address", do: s.ownerMoved},
			{what: "both clients are served again", do: s.servedAgain},
		}, note: "The gap is the longest time between two requests that were answered. On the\n" +
			"segment another node takes the address a quarter of a second after the last\n" +
			"heartbeat of the lost node. It sent one every 100 ms, the last one before the\n" +
			"cable was pulled, so less than that may pass after the loss. The router finds the\n" +
			"path dead by BFD, after three packets of 100 ms that did not come. Without BFD it\n" +
			"is when the BGP hold time ends (90 s by default), and until then a share of the\n" +
			"connections goes to the lost node."},
		{title: "The node comes back", steps: []step{
			{what: "plug the cable in", do: s.heal},
			{what: "router1 has the next hop again", do: s.hopBack},
			{what: "the node that took the address keeps it", do: s.stays},
		}},
		{title: "A speaker crashes on a node that lives", steps: []step{
			{what: "kill -9 the speaker of the node that has the address", do: s.killSpeaker},
			{what: "another node answers in its place, with its MAC address", do: s.deputised},
			{what: "both clients are served", do: s.served},
		}, note: "The node still carries the packets, so nothing moves and no connection breaks.\n" +
			"The kernel closes the BGP sessions of a process that dies: no hold time passes."},
	}
}

// tell runs the steps of the story up to the end, or to the first step that fails.
func (s *story) tell(ctx context.Context) error {
	s.terminal.heading("Herald, a load balancer for bare-metal Kubernetes")
	s.terminal.note("Kubernetes, FRR, the kernel's networking and Herald are the real ones. A node\n" +
		"is a network namespace, a pod is a process. This machine's own network is not\n" +
		"touched.")
	for i, c := range s.chapters() {
		s.terminal.heading(fmt.Sprintf("%d  %s", i+1, c.title))
		for _, step := range c.steps {
			if step.show != "" {
				s.terminal.block(step.show)
			}
			if err := s.take(ctx, step); err != nil {
				return fmt.Errorf("%s: %s: %w", c.title, step.what, err)
			}
		}
		s.terminal.note(c.note)
	}
	return nil
}

func (s *story) take(ctx context.Context, step step) error {
	ctx, cancel := context.WithTimeoutCause(ctx, patience, fmt.Errorf("not within %v", patience))
	defer cancel()
	return s.terminal.step(step.what, func() (string, error) { return step.do(ctx) })
}

// close stops the cluster. The end of the enclave removes anything that close misses.
func (s *story) close() error {
	if s.lab == nil {
		return nil
	}
	s.terminal.heading("The end")
	err := s.terminal.step("take the cluster down", func() (string, error) {
		for _, p := range s.probes {
			p.Stop()
		}
		var watched error
		if s.watch != nil {
			watched = s.watch.Close()
		}
		if s.lost != nil {
			// The API server would wait for connections that a cut-off node cannot close.
			if err := s.lost.Heal(); err != nil {
				return "", err
			}
		}
		return "", errors.Join(watched, s.lab.Close())
	})
	s.figures.add("elapsed_s", "%.1f", time.Since(s.began).Seconds())
	return err
}

// all and service select the part of a manifest to show.
func all(manifest string) string { return manifest }
func service(manifest string) string {
	return manifest[strings.LastIndex(manifest, "---\n")+len("---\n"):]
}

// apply returns the step that shows the relevant part of a manifest and applies the manifest.
func (s *story) apply(file string, part func(manifest string) string) step {
	manifest, err := manifests.ReadFile("manifests/" + file)
	return step{
		what: "kubectl apply -f " + file, show: part(string(manifest)),
		do: func(ctx context.Context) (string, error) {
			if err != nil {
				return "", err
			}
			s.applied = time.Now()
			return "", s.lab.Apply(ctx, string(manifest))
		},
	}
}

// figures are measurements in the form key=value, in the order in which they were taken.
type figures []string

func (f *figures) add(key, format string, value any) {
	*f = append(*f, key+"="+fmt.Sprintf(format, value))
}

func (f figures) String() string { return strings.Join(f, " ") }

// silent returns an error if a request is answered, or if ctx ends.
func silent(ctx context.Context, from *lab.Client, target string) error {
	reply, err := from.Get(ctx, target)
	if err == nil {
		return fmt.Errorf("%s answers %s at %s", reply.Pod, from.Host.Name, target)
	}
	return context.Cause(ctx)
}
