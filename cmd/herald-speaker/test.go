package main

import (
	"cmp"
	"context"
	"crypto/tls"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/heraldlb/herald/api/client"
	herald "github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/cmd/internal/version"
	"github.com/heraldlb/herald/speaker/inspect"
)

const (
	// testTime limits the duration of the test. Helm waits for five minutes.
	testTime = 2 * time.Minute
	// tokenFile has the token for the speakers. The pod of the test mounts it.
	tokenFile = "/var/run/secrets/herald-speaker/token" //nolint:gosec // It is a path.
)

// testCommand returns the command that the pod of `helm test` runs:
// manifests/charts/herald/templates/test.yaml.
func testCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "test SERVICE",
		Short: "Reach a Service through its external addresses, for helm test.",
		Long: `Reach a Service of Herald's namespace through its external addresses, by HTTPS at the path /healthz, and have the speakers
say who announces them: each asks its segments by ARP and NDP, and tells the routes that it has sent to its BGP peers. The pod
of helm test runs it.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			config, err := rest.InClusterConfig()
			if err != nil {
				return fmt.Errorf("test runs in a pod, that of helm test: %w", err)
			}
			config.UserAgent, config.QPS = "herald-test/"+version.String(), -1 // It makes few requests, once a second.
			t := tester{
				namespace: os.Getenv("POD_NAMESPACE"), service: args[0], node: os.Getenv("NODE_NAME"),
				port: inspect.Port, every: time.Second, out: cmd.OutOrStdout(),
			}
			if t.kube, err = kubernetes.NewForConfig(config); err != nil {
				return err
			}
			if t.herald, err = client.New(config); err != nil {
				return err
			}
			token, err := os.ReadFile(tokenFile)
			if err != nil {
				return err
			}
			t.token = string(token)
			ctx, cancel := context.WithTimeout(cmd.Context(), testTime)
			defer cancel()
			return t.run(ctx)
		},
	}
}

// tester tests whether a Service can be reached.
type tester struct {
	kube               kubernetes.Interface
	herald             *client.Set
	namespace, service string
	node               string // The node on which this pod runs.
	token              string
	port               uint16        // Of the speakers.
	every              time.Duration // Between two attempts.
	out                io.Writer
}

// run repeats each step until it succeeds or ctx ends. It prints what was proved, and what was not.
func (t *tester) run(ctx context.Context) error {
	var svc *corev1.Service
	if err := t.eventually(ctx, func() (err error) { svc, err = t.withAddress(ctx); return err }); err != nil {
		return err
	}
	unheard := []string{}
	for _, ingress := range svc.Status.LoadBalancer.Ingress {
		address, err := netip.ParseAddr(ingress.IP)
		if err != nil {
			return fmt.Errorf("status.loadBalancer of Service %s/%s: %w", t.namespace, t.service, err)
		}
		target := "https://" + net.JoinHostPort(ingress.IP, fmt.Sprint(svc.Spec.Ports[0].Port)) + "/healthz"
		if err := t.eventually(ctx, func() error { return get(ctx, target) }); err != nil {
			return fmt.Errorf("%w: see whether kube-proxy runs on node %s, and herald-ccm anywhere", err, t.node)
		}
		fmt.Fprintf(t.out, "%s: a pod of herald-ccm answers this pod on node %s.\n", address, t.node)
		var a announced
		if err := t.eventually(ctx, func() error {
			e, err := t.evidence(ctx, address)
			if err == nil {
				a, err = e.judge(address)
			}
			return err
		}); err != nil {
			return err
		}
		fmt.Fprint(t.out, a.text)
		if !a.heard {
			unheard = append(unheard, address.String())
		}
	}
	fmt.Fprintf(t.out, "Proved: Herald gives a Service an address, and kube-proxy on node %s takes requests for it to a pod.\n", t.node)
	if len(unheard) == 0 {
		fmt.Fprintln(t.out, "Proved: the network is told where the address is, as above.")
	} else {
		fmt.Fprintf(t.out, "Not proved: that the network hears where %s is. No other speaker is on the segment.\n", strings.Join(unheard, " and "))
	}
	fmt.Fprintln(t.out, "Not proved: that a client outside the cluster is answered. kube-proxy takes the request of a pod before it leaves the node, and what routers do with a route they alone know.")
	return nil
}

// eventually calls do until it succeeds. When ctx ends, it returns the last error that ctx did not cause.
func (t *tester) eventually(ctx context.Context, do func() error) error {
	var last error
	for {
		err := do()
		if err == nil {
			return nil
		}
		if ctx.Err() == nil || last == nil {
			last = err
		}
		select {
		case <-ctx.Done():
			return last
		case <-time.After(t.every):
		}
	}
}

// withAddress returns the Service. If the Service has no address, the error has the text of its last event.
func (t *tester) withAddress(ctx context.Context) (*corev1.Service, error) {
	svc, err := t.kube.CoreV1().Services(t.namespace).Get(ctx, t.service, metav1.GetOptions{})
	if err != nil || len(svc.Status.LoadBalancer.Ingress) > 0 {
		return svc, err
	}
	why := "it has no event: see whether herald-ccm runs"
	events, err := t.kube.CoreV1().Events(t.namespace).List(ctx, metav1.ListOptions{
		FieldSelector: fields.OneTermEqualSelector("involvedObject.uid", string(svc.UID)).String(),
	})
	if err != nil {
		return nil, err
	}
	if len(events.Items) > 0 {
		last := slices.MaxFunc(events.Items, func(x, y corev1.Event) int {
			return cmp.Or(x.LastTimestamp.Compare(y.LastTimestamp.Time), strings.Compare(x.ResourceVersion, y.ResourceVersion))
		})
		why = last.Message
	}
	return nil, fmt.Errorf("the Service %s/%s has no address: %s", t.namespace, t.service, why)
}

// get succeeds if the server is a healthy herald-ccm. The certificate of the server is self-signed.
func get(ctx context.Context, target string) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	transport := &http.Transport{TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: true}} //nolint:gosec // No secret is sent.
	defer transport.CloseIdleConnections()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, target, http.NoBody)
	if err != nil {
		return err
	}
	answer, err := transport.RoundTrip(request)
	if err != nil {
		return fmt.Errorf("get %s: %w", target, err)
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return fmt.Errorf("get %s: %s", target, answer.Status)
	}
	return nil
}

// evidence is what the speakers report about an address.
type evidence struct {
	statuses []*herald.SpeakerStatus
	answers  map[string][]inspect.Answer       // By node, what it heard.
	routes   map[string][]inspect.RoutingRoute // By node, what it announces.
	failed   []string                          // The speakers that could not be asked, and why.
}

// evidence asks all speakers about an address.
func (t *tester) evidence(ctx context.Context, address netip.Addr) (*evidence, error) {
	list, err := t.herald.SpeakerStatuses.List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, err
	}
	nodes, err := t.kube.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, err
	}
	e := &evidence{answers: map[string][]inspect.Answer{}, routes: map[string][]inspect.RoutingRoute{}}
	question := inspect.Question{Address: address}
	for i := range list.Items {
		status := &list.Items[i]
		if !slices.ContainsFunc(nodes.Items, func(n corev1.Node) bool { return n.Name == status.Name }) {
			continue // Its node is gone.
		}
		e.statuses = append(e.statuses, status)
		for _, c := range status.Status.Claims {
			if c.Address == address.String() && !slices.Contains(question.Interfaces, c.Interface) {
				question.Interfaces = append(question.Interfaces, c.Interface)
			}
		}
	}
	for _, status := range e.statuses {
		s := inspect.Speaker{Port: t.port, Token: t.token}
		for _, n := range nodes.Items {
			for _, a := range n.Status.Addresses {
				if n.Name == status.Name && a.Type == corev1.NodeInternalIP {
					s.Addresses = append(s.Addresses, a.Address)
				}
			}
		}
		if status.Status.Identity != nil {
			s.Key, _ = hex.DecodeString(status.Status.Identity.PublicKey) // An invalid key does not match the speaker's.
		}
		var routing inspect.Routing
		query := url.Values{"prefix": {netip.PrefixFrom(address, address.BitLen()).String()}}
		if err := s.Exchange(ctx, http.MethodGet, "/bgp?"+query.Encode(), nil, &routing); err != nil {
			e.failed = append(e.failed, fmt.Sprintf("node %s: %v", status.Name, err))
			continue
		}
		e.routes[status.Name] = routing.Routes
		if e.answers[status.Name], err = s.Verify(ctx, []inspect.Question{question}); err != nil {
			e.failed = append(e.failed, fmt.Sprintf("node %s: %v", status.Name, err))
		}
	}
	return e, nil
}

// announced says how the network learns where an address is.
type announced struct {
	text  string // Lines.
	heard bool   // A speaker on the segment heard an answer, or a route was sent.
}

// judge says who announces an address. It fails if nobody announces it, nobody hears it, or the wrong
// machine answers.
func (e *evidence) judge(address netip.Addr) (a announced, err error) {
	byMAC, owners := map[string]string{}, []string{}
	for _, s := range e.statuses {
		for _, i := range s.Status.Interfaces {
			byMAC[i.MAC] = s.Name
		}
		for _, c := range s.Status.Claims {
			// A deputy answers with the MAC address of the owner.
			if owner := cmp.Or(c.DeputyFor, s.Name); c.Address == address.String() && !slices.Contains(owners, owner) {
				owners = append(owners, owner)
			}
		}
	}
	heard, silent := map[string][]string{}, []string{}
	for _, s := range e.statuses {
		for _, answer := range e.answers[s.Name] {
			if answer.Address != address || slices.Contains(owners, s.Name) && len(answer.MACs) == 0 {
				continue // An owner does not hear itself.
			}
			if len(answer.MACs) == 0 {
				silent = append(silent, s.Name)
			}
			for _, mac := range answer.MACs {
				node := byMAC[mac]
				if node == "" || len(owners) > 0 && !slices.Contains(owners, node) {
					return a, fmt.Errorf("%s: node %s hears an answer with %s, which is not of %s: `kubectl herald verify` says who that is",
						address, s.Name, mac, cmp.Or(strings.Join(owners, " or "), "a node"))
				}
				if !slices.Contains(heard[node], s.Name) {
					heard[node] = append(heard[node], s.Name)
				}
			}
		}
	}
	var text strings.Builder
	for _, s := range e.statuses {
		if by := heard[s.Name]; len(by) > 0 {
			fmt.Fprintf(&text, "%s: node %s announces it on the segment; %s heard it.\n", address, s.Name, strings.Join(by, " and "))
			a.heard = true
		}
		for _, r := range e.routes[s.Name] {
			if r.Withheld == "" {
				fmt.Fprintf(&text, "%s: node %s announces %s by BGP to %s.\n", address, s.Name, r.Prefix, r.Peer)
				a.heard = true
			}
		}
	}
	switch {
	case a.heard:
	case len(e.failed) > 0:
		err = fmt.Errorf("%s: cannot tell who announces it, because speakers could not be asked: %s: pods have to reach TCP port %d of the nodes", address, strings.Join(e.failed, "; "), inspect.Port)
	case len(owners) == 0:
		err = fmt.Errorf("%s: no node announces it: see `kubectl get l2advertisements.herald.dev,bgpadvertisements.herald.dev,bgppeers.herald.dev`", address)
	case len(silent) > 0:
		err = fmt.Errorf("%s: node %s answers for it, and %s heard no answer: check the network between them", address, strings.Join(owners, " and "), strings.Join(silent, " and "))
	default:
		fmt.Fprintf(&text, "%s: node %s answers for it on the segment, by its own account.\n", address, strings.Join(owners, " and "))
	}
	a.text = text.String()
	return a, err
}
