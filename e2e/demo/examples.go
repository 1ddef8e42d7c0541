package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	herald "github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/e2e/lab"
	"github.com/heraldlb/herald/e2e/lab/router"
)

const (
	namespace = "default"
	port      = 9000  // The port of svc-1.
	nodePort  = 30000 // The node port of svc-1.
)

func (s *story) startLab(ctx context.Context) (string, error) {
	l, err := lab.Start(ctx, lab.Options{
		Routers:             []router.Kind{lab.FRR},
		BFD:                 100 * time.Millisecond,
		ControlPlaneOptions: lab.ControlPlaneOptions{Dir: labDir, Progress: s.terminal.progress},
	})
	if err != nil {
		return "", err
	}
	s.lab = l
	s.figures.add("nodes", "%d", len(l.Nodes))
	s.figures.add("start_s", "%.1f", time.Since(s.began).Seconds())
	return "", nil
}

func (s *story) startHerald(context.Context) (said string, err error) {
	if _, err := s.lab.StartCCM(); err != nil {
		return "", err
	}
	s.speakers, err = s.lab.StartSpeakers()
	return "", err
}

// sessions waits until every speaker reports an established session.
func (s *story) sessions(ctx context.Context) (string, error) {
	return "", lab.Eventually(ctx, func(ctx context.Context) error {
		for _, n := range s.lab.Nodes {
			speaker, err := s.lab.Herald.SpeakerStatuses.Get(ctx, n.Name, metav1.GetOptions{})
			if err != nil {
				return err
			}
			if sessions := speaker.Status.Sessions; len(sessions) != 1 || sessions[0].State != "Established" {
				return fmt.Errorf("%s: %+v", n.Name, sessions)
			}
		}
		return nil
	})
}

func (s *story) podRuns(name string) func(context.Context) (string, error) {
	return func(ctx context.Context) (string, error) {
		if err := s.lab.AwaitPod(ctx, namespace, name, true); err != nil {
			return "", err
		}
		pod, err := s.lab.Client.CoreV1().Pods(namespace).Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return "", err
		}
		return fmt.Sprintf("on %s, at %s", pod.Spec.NodeName, pod.Status.PodIP), nil
	}
}

// copyOf returns the manifest of the article's pod with another name, label and node.
func copyOf(name, label, node string) (manifest string, err error) {
	article, err := manifests.ReadFile("manifests/clusterip.yaml")
	pod, _, _ := strings.Cut(string(article), "---\n")
	return strings.NewReplacer("pod-1", name, "app: pod", "app: "+label, "k8s-node1", node).Replace(pod), err
}

// run starts a copy of the article's pod and waits until it is ready.
func (s *story) run(ctx context.Context, name, label, node string) error {
	manifest, err := copyOf(name, label, node)
	if err != nil {
		return err
	}
	if err := s.lab.Apply(ctx, manifest); err != nil {
		return err
	}
	return s.lab.AwaitPod(ctx, namespace, name, true)
}

func (s *story) service(ctx context.Context) (*corev1.Service, error) {
	return s.lab.Client.CoreV1().Services(namespace).Get(ctx, "svc-1", metav1.GetOptions{})
}

// clusterIP returns the address and port at which pods reach svc-1.
func (s *story) clusterIP(ctx context.Context) (target string, err error) {
	svc, err := s.service(ctx)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%s:%d", svc.Spec.ClusterIP, port), nil
}

func (s *story) askClusterIP(ctx context.Context) (string, error) {
	if err := s.run(ctx, "asker", "asker", "k8s-node2"); err != nil {
		return "", err
	}
	inside, err := s.lab.InPod(ctx, namespace, "asker")
	if err != nil {
		return "", err
	}
	target, err := s.clusterIP(ctx)
	if err != nil {
		return "", err
	}
	return ask(ctx, inside, target)
}

func (s *story) clusterIPIsInside(ctx context.Context) (string, error) {
	target, err := s.clusterIP(ctx)
	if err != nil {
		return "", err
	}
	for _, from := range []*lab.Client{s.lab.Segment, s.lab.Outside} {
		if err := silent(ctx, from, target); err != nil {
			return "", err
		}
	}
	return "", nil
}

// askNodePort sends a request to the node of the pod, and checks that the pod sees the client's address.
func (s *story) askNodePort(ctx context.Context) (string, error) {
	pod, err := s.lab.Client.CoreV1().Pods(namespace).Get(ctx, "pod-1", metav1.GetOptions{})
	if err != nil {
		return "", err
	}
	target := fmt.Sprintf("%s:%d", s.lab.Node(pod.Spec.NodeName).IPv4, nodePort)
	reply, err := s.lab.Segment.Eventually(ctx, target, func(r lab.Reply) error {
		if r.Client != s.lab.Segment.IPv4 {
			return fmt.Errorf("the pod sees %s, not the client's %s", r.Client, s.lab.Segment.IPv4)
		}
		return nil
	})
	return answer(target, reply), err
}

func (s *story) nodePortIsLocal(ctx context.Context) (string, error) {
	pod, err := s.lab.Client.CoreV1().Pods(namespace).Get(ctx, "pod-1", metav1.GetOptions{})
	if err != nil {
		return "", err
	}
	var others []string
	for _, n := range s.lab.Nodes {
		if n.Name == pod.Spec.NodeName {
			continue
		}
		if err := silent(ctx, s.lab.Segment, fmt.Sprintf("%s:%d", n.IPv4, nodePort)); err != nil {
			return "", err
		}
		others = append(others, n.Name)
	}
	return strings.Join(others, ", "), nil
}

func (s *story) externalIP(ctx context.Context) (string, error) {
	err := lab.Eventually(ctx, func(ctx context.Context) error {
		svc, err := s.service(ctx)
		if err != nil {
			return err
		}
		if len(svc.Status.LoadBalancer.Ingress) == 0 {
			return errors.New("svc-1 has no address in status.loadBalancer")
		}
		s.address, err = netip.ParseAddr(svc.Status.LoadBalancer.Ingress[0].IP)
		return err
	})
	s.figures.add("address", "%s", s.address)
	return s.address.String(), err
}

// target returns the address and port at which clients reach the load balancer.
func (s *story) target() string { return netip.AddrPortFrom(s.address, port).String() }

// askFromSegment measures the time until the first answer. Its requests have a short timeout: a request
// that is sent too early would wait until the kernel resends the SYN, and the wait would be measured.
func (s *story) askFromSegment(ctx context.Context) (said string, err error) {
	const hurry = 100 * time.Millisecond
	err = lab.Eventually(ctx, func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, hurry)
		defer cancel()
		reply, err := s.lab.Segment.Get(ctx, s.target())
		said = answer(s.target(), reply)
		return err
	})
	took := time.Since(s.applied).Milliseconds()
	s.figures.add("create_to_reply_ms", "%d", took)
	return fmt.Sprintf("%s\n%d ms from the start of kubectl apply to the answer", said, took), err
}

func (s *story) askFromOutside(ctx context.Context) (string, error) {
	return ask(ctx, s.lab.Outside, s.target())
}

// secondPod starts a second pod, so that a pod is left when the node with the address is lost.
func (s *story) secondPod(ctx context.Context) (string, error) {
	owner, err := s.awaitOwner(ctx)
	if err != nil {
		return "", err
	}
	i := slices.IndexFunc(s.lab.Nodes, func(n *lab.Node) bool { return n != owner && n.Name != "k8s-node1" })
	if err := s.run(ctx, "pod-2", "pod", s.lab.Nodes[i].Name); err != nil {
		return "", err
	}
	return s.podRuns("pod-2")(ctx)
}

// whoHasIt waits until all nodes have announced the address, and shows the owner and the next hops.
func (s *story) whoHasIt(ctx context.Context) (said string, err error) {
	if s.before, err = s.stands(ctx, s.lab.Nodes...); err != nil {
		return "", err
	}
	record, err := s.lab.Herald.Allocations.Get(ctx, herald.AllocationName(s.address), metav1.GetOptions{})
	if err != nil {
		return "", err
	}
	return "\n" + s.terminal.table(
		append([]string{"address", "pool"}, standingHeader...),
		append([]string{s.address.String(), record.Spec.Pool}, s.before.cells()...),
	), nil
}

// ask sends requests until one is answered.
func ask(ctx context.Context, from *lab.Client, target string) (string, error) {
	reply, err := from.Eventually(ctx, target, nil)
	return answer(target, reply), err
}

func answer(target string, r lab.Reply) string {
	return fmt.Sprintf("\n%s → %s on %s, which sees %s", target, r.Pod, r.Node, r.Client)
}
