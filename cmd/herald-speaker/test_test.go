package main

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/zap"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/rest"
	clienttesting "k8s.io/client-go/testing"

	"github.com/heraldlb/herald/api/client"
	herald "github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/speaker/inspect"
)

// TestWhoAnnounces is about the reports of three nodes' speakers about one address.
func TestWhoAnnounces(t *testing.T) {
	address := netip.MustParseAddr("198.51.100.7")
	status := func(node, mac string, claims ...herald.SpeakerClaim) *herald.SpeakerStatus {
		return &herald.SpeakerStatus{ObjectMeta: metav1.ObjectMeta{Name: node}, Status: herald.SpeakerStatusStatus{
			Interfaces: []herald.SpeakerInterface{{Name: "eth0", MAC: mac}}, Claims: claims,
		}}
	}
	const mac1, mac2, mac3 = "02:00:5e:00:53:01", "02:00:5e:00:53:02", "02:00:5e:00:53:03"
	owns := herald.SpeakerClaim{Address: "198.51.100.7", Interface: "eth0"}
	standsIn := herald.SpeakerClaim{Address: "198.51.100.7", Interface: "eth0", DeputyFor: "n1"}
	other := herald.SpeakerClaim{Address: "198.51.100.8", Interface: "eth0"}
	hears := func(macs ...string) []inspect.Answer {
		return []inspect.Answer{{Address: address, Interface: "eth0", MACs: macs}}
	}
	idle := []*herald.SpeakerStatus{status("n1", mac1), status("n2", mac2, other), status("n3", mac3)}
	owned := []*herald.SpeakerStatus{status("n1", mac1, owns), status("n2", mac2, other), status("n3", mac3)}
	for name, story := range map[string]struct {
		evidence
		want  string // in the text, or in the error
		heard bool
		fails bool
	}{
		"the others hear the owner": {evidence{statuses: owned, answers: map[string][]inspect.Answer{"n1": hears(), "n2": hears(mac1), "n3": hears(mac1)}},
			"198.51.100.7: node n1 announces it on the segment; n2 and n3 heard it.\n", true, false},
		"one hears the owner": {evidence{statuses: owned, answers: map[string][]inspect.Answer{"n1": hears(), "n2": hears(mac1), "n3": hears()}},
			"node n1 announces it on the segment; n2 heard it.", true, false},
		"a list of claims that is cut": {evidence{statuses: idle, answers: map[string][]inspect.Answer{"n2": hears(mac1)}},
			"node n1 announces it on the segment; n2 heard it.", true, false},
		"a deputy": {evidence{statuses: []*herald.SpeakerStatus{status("n1", mac1), status("n2", mac2, standsIn), status("n3", mac3)},
			answers: map[string][]inspect.Answer{"n2": hears(), "n3": hears(mac1)}},
			"node n1 announces it on the segment; n3 heard it.", true, false},
		"routes": {evidence{statuses: idle, routes: map[string][]inspect.RoutingRoute{"n1": {{Prefix: "198.51.100.0/26", Peer: "tor"}}, "n2": {{Prefix: "198.51.100.7/32", Peer: "tor", Withheld: "no"}}}},
			"198.51.100.7: node n1 announces 198.51.100.0/26 by BGP to tor.\n", true, false},
		"no other node is on the segment": {evidence{statuses: owned[:1], answers: map[string][]inspect.Answer{"n1": hears()}},
			"node n1 answers for it on the segment, by its own account.", false, false},

		"nobody":                   {evidence{statuses: idle, answers: map[string][]inspect.Answer{"n1": hears(), "n2": hears()}}, "no node announces it", false, true},
		"a route that is not sent": {evidence{statuses: idle, routes: map[string][]inspect.RoutingRoute{"n1": {{Prefix: "198.51.100.7/32", Peer: "tor", Withheld: "no"}}}}, "no node announces it", false, true},
		"silence":                  {evidence{statuses: owned, answers: map[string][]inspect.Answer{"n1": hears(), "n2": hears(), "n3": hears()}}, "node n1 answers for it, and n2 and n3 heard no answer", false, true},
		"a stranger":               {evidence{statuses: owned, answers: map[string][]inspect.Answer{"n2": hears("02:00:5e:00:53:99")}}, "node n2 hears an answer with 02:00:5e:00:53:99, which is not of n1", false, true},
		"another than the owner":   {evidence{statuses: owned, answers: map[string][]inspect.Answer{"n2": hears(mac1), "n3": hears(mac1, mac2)}}, "node n3 hears an answer with " + mac2, false, true},
		"nobody could be asked":    {evidence{statuses: owned, failed: []string{"node n1: timeout"}}, "speakers could not be asked: node n1: timeout: pods have to reach TCP port 7475", false, true},
	} {
		t.Run(name, func(t *testing.T) {
			a, err := story.judge(address)
			said := a.text
			if err != nil {
				said = err.Error()
			}
			if !strings.Contains(said, story.want) || a.heard != story.heard || (err != nil) != story.fails {
				t.Errorf("heard %t, error %v: %q, want %q", a.heard, err, said, story.want)
			}
		})
	}
}

// TestServiceIsReached tests a Service, with a real speaker's port that reports a route, or none.
func TestServiceIsReached(t *testing.T) {
	for name, story := range map[string]struct {
		address string // of the Service
		status  int    // of /healthz
		routes  []inspect.RoutingRoute
		want    string // in the output, or in the error
	}{
		"all is well":       {"127.0.0.1", http.StatusOK, []inspect.RoutingRoute{{Prefix: "127.0.0.1/32", Peer: "tor"}}, "node n1 announces 127.0.0.1/32 by BGP to tor.\nProved: Herald gives a Service an address, and kube-proxy on node n9 takes requests for it to a pod.\nProved: the network is told"},
		"no address":        {"", http.StatusOK, nil, "the Service herald-system/herald-test has no address: there is no IPPool: create one"},
		"no answer":         {"127.0.0.1", http.StatusServiceUnavailable, nil, "503 Service Unavailable: see whether kube-proxy runs on node n9"},
		"not announced":     {"127.0.0.1", http.StatusOK, nil, "127.0.0.1: no node announces it"},
		"no address of IPs": {"::zz", http.StatusOK, nil, "status.loadBalancer of Service herald-system/herald-test"},
	} {
		t.Run(name, func(t *testing.T) {
			// Three attempts are enough if all is well. A missing result is tried more than once, but not forever.
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			var looks atomic.Int32
			look := func() {
				if looks.Add(1) == 5 {
					cancel()
				}
			}
			backend := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				look()
				if r.URL.Path != "/healthz" {
					t.Errorf("%s is asked for", r.URL)
				}
				w.WriteHeader(story.status)
			}))
			backend.Config.ErrorLog = zap.NewStdLog(zap.NewNop())
			backend.StartTLS()
			defer backend.Close()
			r := serving(t, func(c *serverConfig) {
				c.Routing = func(_ context.Context, q inspect.RoutingQuery) (*inspect.Routing, error) {
					look()
					if len(q.Prefixes) != 1 || q.Prefixes[0] != netip.MustParsePrefix("127.0.0.1/32") {
						t.Errorf("asked for the routes of %v", q.Prefixes)
					}
					return &inspect.Routing{Routes: story.routes}, nil
				}
			})
			defer func() { _ = r.stop() }()
			objects := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Type", "application/json")
				gone := herald.SpeakerStatus{ObjectMeta: metav1.ObjectMeta{Name: "gone"}}
				_ = json.NewEncoder(w).Encode(herald.SpeakerStatusList{
					TypeMeta: metav1.TypeMeta{APIVersion: herald.GroupVersion.String(), Kind: "SpeakerStatusList"},
					Items: []herald.SpeakerStatus{gone, {ObjectMeta: metav1.ObjectMeta{Name: "n1"}, Status: herald.SpeakerStatusStatus{
						Identity: &herald.SpeakerIdentity{PublicKey: hex.EncodeToString(r.key)},
					}}},
				})
			}))
			defer objects.Close()
			set, err := client.New(&rest.Config{Host: objects.URL, QPS: -1})
			if err != nil {
				t.Fatal(err)
			}

			port := backend.Listener.Addr().(*net.TCPAddr).Port
			svc := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "herald-system", Name: "herald-test", UID: "1"}, Spec: corev1.ServiceSpec{Ports: []corev1.ServicePort{{Port: int32(port)}}}}
			if story.address != "" {
				svc.Status.LoadBalancer.Ingress = []corev1.LoadBalancerIngress{{IP: story.address}}
			}
			event := func(name, message string, at time.Time) *corev1.Event {
				return &corev1.Event{ObjectMeta: metav1.ObjectMeta{Namespace: "herald-system", Name: name}, Message: message, LastTimestamp: metav1.NewTime(at)}
			}
			kube := fake.NewClientset(svc, event("a", "there is no IPPool: create one", time.Unix(20, 0)), event("b", "Ensuring load balancer", time.Unix(10, 0)),
				&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1"}, Status: corev1.NodeStatus{Addresses: []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: "127.0.0.1"}}}})
			kube.PrependReactor("get", "services", func(clienttesting.Action) (bool, runtime.Object, error) {
				look()
				return false, nil, nil
			})
			_, speakerPort, _ := net.SplitHostPort(r.addr)
			number, err := strconv.ParseUint(speakerPort, 10, 16)
			if err != nil {
				t.Fatal(err)
			}
			var out strings.Builder
			under := tester{kube: kube, herald: set, namespace: "herald-system", service: "herald-test", node: "n9", token: "viewer", port: uint16(number), every: time.Millisecond, out: &out}
			if err := under.run(ctx); err != nil {
				out.WriteString(err.Error())
			}
			if !strings.Contains(out.String(), story.want) {
				t.Errorf("%q, want %q", out.String(), story.want)
			}
		})
	}
}
