package main

import (
	"crypto/tls"
	"encoding/hex"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"

	herald "github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/cmd/kubectl-herald/internal/report"
	"github.com/heraldlb/herald/speaker/inspect"
)

// TestWithoutATokenTheStatusesAreLeft is about a user who may not get a token for the speakers.
func TestWithoutATokenTheStatusesAreLeft(t *testing.T) {
	kube := fake.NewClientset()
	kube.PrependReactor("create", "serviceaccounts", func(clienttesting.Action) (bool, runtime.Object, error) {
		return true, nil, errors.New("you may not")
	})
	o := &report.Objects{}
	for _, name := range []string{"n1", "n2", "n3"} {
		o.Nodes = append(o.Nodes, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}, Status: corev1.NodeStatus{
			Addresses: []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: "127.0.0.9"}},
		}})
		if name != "n3" {
			o.Speakers = append(o.Speakers, &herald.SpeakerStatus{ObjectMeta: metav1.ObjectMeta{Name: name}, Status: herald.SpeakerStatusStatus{
				Identity: &herald.SpeakerIdentity{PublicKey: hex.EncodeToString(make([]byte, 32))},
			}})
		}
	}
	from := routing{speakers: speakers{cluster: &cluster{kube: kube}, own: "herald-system", port: 1}}
	asked, err := from.ask(t.Context(), o, inspect.RoutingQuery{})
	if err != nil {
		t.Fatal(err)
	}
	if len(asked.Answers) != 0 || len(asked.Unasked) != 3 {
		t.Fatalf("%+v", asked)
	}
	for _, u := range asked.Unasked {
		want := "request a token of ServiceAccount herald-system/herald-viewer, which the speakers require: you may not"
		if u.Node == "n3" {
			want = "it has no SpeakerStatus"
		}
		if !strings.Contains(u.Reason, want) {
			t.Errorf("%+v, want %q", u, want)
		}
	}
	from.nodes = []string{"nowhere"}
	if _, err := from.ask(t.Context(), o, inspect.RoutingQuery{}); err == nil || !strings.Contains(err.Error(), `there is no node "nowhere"`) {
		t.Errorf("error %v", err)
	}
}

// TestASpeakerIsAskedForRoutes has a speaker that reports one session that is up, and one that is
// down.
func TestASpeakerIsAskedForRoutes(t *testing.T) {
	public, certificate := identity(t)
	state, asked := "Established", ""
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked = r.Method + " " + r.URL.String()
		_ = json.NewEncoder(w).Encode(inspect.Routing{Node: "n1", Peers: []inspect.RoutingPeer{{Peer: "tor", State: state}}, Routes: []inspect.RoutingRoute{
			{Prefix: "198.51.100.7/32", Peer: "tor", Withheld: map[bool]string{true: "the session is not established"}[state != "Established"]},
		}})
	}))
	s.TLS = &tls.Config{Certificates: []tls.Certificate{certificate}}
	s.StartTLS()
	defer s.Close()
	_, port, _ := net.SplitHostPort(s.Listener.Addr().String())
	may := func(path string) bool { return !strings.Contains(path, "endpointslices") } // Nothing is compared then.
	for _, c := range []struct {
		state, query string
		args         []string
		err          error
	}{
		{"Established", "limit=5000&prefix=198.51.100.7%2F32", []string{"bgp", "routes", "198.51.100.7"}, nil},
		{"Idle", "limit=5000", []string{"bgp", "routes"}, errAttention},
		{"Established", "limit=0", []string{"bgp", "peers"}, nil},
		{"Idle", "limit=0&peer=tor", []string{"bgp", "peers", "tor"}, errAttention},
		{"Established", "limit=5000&peer=tor&peer=spine", []string{"bgp", "routes", "--peer", "tor,spine"}, nil},
	} {
		state = c.state
		said, err := ran(t, append(server(t, oneSpeaker(public), may), append(c.args, "--port", port)...)...)
		if !errors.Is(err, c.err) || asked != "GET /bgp?"+c.query {
			t.Errorf("%v: error %v, want %v; asked %s, want %s; it says\n%s", c.args, err, c.err, asked, c.query, said)
		}
	}
}
