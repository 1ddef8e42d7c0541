package main

import (
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"

	"github.com/heraldlb/herald/speaker/inspect"
	"github.com/heraldlb/herald/speaker/link"
)

// apiServer returns an API server that knows four tokens. "viewer" is for the speaker's audience, "prometheus" is for the
// API server's audience, and "nobody" may use no path. "unaware" is authenticated for any audience, but the response names
// none.
func apiServer() *fake.Clientset {
	kube := fake.NewClientset()
	kube.PrependReactor("create", "tokenreviews", func(action clienttesting.Action) (bool, runtime.Object, error) {
		review := action.(clienttesting.CreateAction).GetObject().(*authenticationv1.TokenReview).DeepCopy()
		ours := slices.Contains(review.Spec.Audiences, inspect.Audience)
		switch token := review.Spec.Token; token {
		case "viewer":
			review.Status.Authenticated = ours
			review.Status.Audiences = []string{inspect.Audience}
		case "prometheus", "nobody":
			review.Status.Authenticated = !ours
		case "unaware":
			review.Status.Authenticated = ours
		case "broken":
			return true, nil, errors.New("etcd is away")
		}
		review.Status.User = authenticationv1.UserInfo{Username: review.Spec.Token, Groups: []string{"readers"}, Extra: map[string]authenticationv1.ExtraValue{"node": {"n1"}}}
		return true, review, nil
	})
	kube.PrependReactor("create", "subjectaccessreviews", func(action clienttesting.Action) (bool, runtime.Object, error) {
		review := action.(clienttesting.CreateAction).GetObject().(*authorizationv1.SubjectAccessReview).DeepCopy()
		s := review.Spec
		allowed := map[string][]string{"viewer": {"get /metrics", "get /bgp", "post /verify", "get /nowhere", "get /debug/pprof/heap"}, "prometheus": {"get /metrics"}}[s.User]
		review.Status.Allowed = slices.Contains(allowed, s.NonResourceAttributes.Verb+" "+s.NonResourceAttributes.Path) &&
			slices.Equal(s.Groups, []string{"readers"}) && slices.Equal(s.Extra["node"], []string{"n1"})
		return true, review, nil
	})
	return kube
}

type running struct {
	*server
	kube *fake.Clientset
	key  ed25519.PublicKey
	addr string
	stop func() error
}

// serving starts a server on the loopback interface. It stops at the end of the test.
func serving(t *testing.T, edits ...func(*serverConfig)) running {
	t.Helper()
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	kube := apiServer()
	registry := prometheus.NewRegistry()
	registry.MustRegister(prometheus.NewGauge(prometheus.GaugeOpts{Name: "herald_test"}))
	config := serverConfig{
		Key: private, Reviews: newReviews(kube), Metrics: registry, Log: zap.NewNop(),
		Healthy: func() bool { return true }, Ready: func() bool { return false },
		Interfaces: func() ([]link.Interface, error) { return nil, nil },
		Routing: func(_ context.Context, q inspect.RoutingQuery) (*inspect.Routing, error) {
			return &inspect.Routing{Node: "n1", Problem: fmt.Sprintf("asked for %v to %q, %d at most", q.Prefixes, q.Peers, q.Limit)}, nil
		},
	}
	for _, edit := range edits {
		edit(&config)
	}
	s, err := newServer(config)
	if err != nil {
		t.Fatal(err)
	}
	var listen net.ListenConfig
	l, err := listen.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.serve(ctx, l) }()
	r := running{s, kube, public, l.Addr().String(), func() error { cancel(); return <-ended }}
	t.Cleanup(func() {
		cancel()
		select {
		case err := <-ended:
			if err != nil {
				t.Error(err)
			}
		default: // The test has already received the error.
		}
	})
	return r
}

// client returns a client that trusts only the server's key.
func (r running) client(t *testing.T) *http.Client {
	transport := &http.Transport{TLSClientConfig: &tls.Config{
		InsecureSkipVerify: true, //nolint:gosec // The key is compared instead.
		VerifyConnection: func(s tls.ConnectionState) error {
			if key, ok := s.PeerCertificates[0].PublicKey.(ed25519.PublicKey); !ok || !key.Equal(r.key) {
				return errors.New("another key")
			}
			return nil
		},
	}}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

func (r running) ask(t *testing.T, c *http.Client, method, path, token, body string) (int, string) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), method, "https://"+r.addr+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if token != "" {
		request.Header.Set("Authorization", "Bearer "+token)
	}
	response, err := c.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	content, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, string(content)
}

func TestWhoMayHaveWhat(t *testing.T) {
	r := serving(t)
	c := r.client(t)
	for _, x := range []struct {
		method, path, token string
		status              int
		body                string
	}{
		{"GET", "/healthz", "", 200, "ok"},
		{"GET", "/readyz", "", 503, "no decisions yet"},
		{"GET", "/metrics", "", 401, "show a token"},
		{"GET", "/metrics", "stranger", 401, "Unauthorized"},
		{"GET", "/metrics", "unaware", 401, "Unauthorized"},
		{"GET", "/metrics", "nobody", 403, "Forbidden"},
		{"GET", "/metrics", "prometheus", 200, "herald_test 0"},
		{"GET", "/metrics", "viewer", 200, "herald_test 0"},
		{"GET", "/metrics", "broken", 503, "the API server cannot be asked who you are: etcd is away"},
		{"POST", "/healthz", "", 401, "show a token"},
		{"POST", "/verify", "", 401, "show a token"},
		{"POST", "/verify", "prometheus", 403, "Forbidden"},
		{"POST", "/verify", "viewer", 200, `{"answers":[]}`},
		{"GET", "/bgp", "", 401, "show a token"},
		{"GET", "/bgp", "prometheus", 403, "Forbidden"},
		{"GET", "/bgp", "viewer", 200, `"problem":"asked for [] to [], 5000 at most"`},
		{"GET", "/bgp?limit=0&prefix=198.51.100.7/24&prefix=2001:db8::1/128", "viewer", 200, "asked for [198.51.100.0/24 2001:db8::1/128] to [], 0 at most"},
		{"GET", "/bgp?peer=tor-a&peer=tor-b", "viewer", 200, `asked for [] to [\"tor-a\" \"tor-b\"], 5000 at most`},
		{"GET", "/bgp?limit=-1", "viewer", 400, `limit: "-1" is not a number of routes`},
		{"GET", "/bgp?prefix=web", "viewer", 400, `prefix: "web" is not a prefix: write 198.51.100.0/24`},
		{"GET", "/bgp?" + strings.Repeat("prefix=::/0&", 101), "viewer", 400, "prefix: there are 101: ask for 100 at a time"},
		{"GET", "/bgp?" + strings.Repeat("peer=tor&", 101), "viewer", 400, "peer: there are 101: ask for 100 at a time"},
		{"POST", "/bgp", "viewer", 403, "Forbidden"},
		{"GET", "/debug/pprof", "", 401, "show a token"},
		{"GET", "/nowhere", "viewer", 404, "not found"},
	} {
		status, body := r.ask(t, c, x.method, x.path, x.token, `{"addresses": []}`)
		if status != x.status || !strings.Contains(body, x.body) {
			t.Errorf("%s %s with token %q: %d %q, want %d %q", x.method, x.path, x.token, status, body, x.status, x.body)
		}
	}
}

// TestProfilesAreServedWhereThatIsTurnedOn checks who may read profiles, depending on the configuration.
func TestProfilesAreServedWhereThatIsTurnedOn(t *testing.T) {
	for on, want := range map[bool]map[string]int{
		false: {"viewer": http.StatusNotFound, "prometheus": http.StatusForbidden},
		true:  {"viewer": http.StatusOK, "prometheus": http.StatusForbidden, "": http.StatusUnauthorized},
	} {
		r := serving(t, func(c *serverConfig) { c.Profiling = on })
		for token, status := range want {
			got, body := r.ask(t, r.client(t), http.MethodGet, "/debug/pprof/heap", token, "")
			if got != status || status == http.StatusOK && len(body) == 0 {
				t.Errorf("profiling %v, token %q: %d, want %d", on, token, got, status)
			}
		}
	}
}

// TestVerdictsAreKept checks how often the API server is asked.
func TestVerdictsAreKept(t *testing.T) {
	r := serving(t)
	c := r.client(t)
	for range 10 {
		for _, token := range []string{"viewer", "stranger", "nobody"} {
			r.ask(t, c, "GET", "/metrics", token, "")
		}
	}
	// viewer: one of each kind. stranger: one for each audience. nobody: one for each audience, and one for its access.
	if n := len(r.kube.Actions()); n != 2+2+3 {
		t.Errorf("the API server was asked %d times", n)
	}
	for range 2 { // An error is not cached.
		r.ask(t, c, "GET", "/metrics", "broken", "")
	}
	if n := len(r.kube.Actions()); n != 2+2+3+2 {
		t.Errorf("the API server was asked %d times", n)
	}
}

func TestVerifyRefuses(t *testing.T) {
	r := serving(t)
	c := r.client(t)
	var many inspect.Request
	for n := range inspect.MaxQuestions + 1 {
		many.Addresses = append(many.Addresses, inspect.Question{Address: netip.AddrFrom4([4]byte{198, 18, byte(n >> 8), byte(n)})})
	}
	tooMany, err := json.Marshal(many)
	if err != nil {
		t.Fatal(err)
	}
	for body, want := range map[string]string{
		"":                                     "the request cannot be read",
		`{"addresses":[{"address":"web"}]}`:    "the request cannot be read",
		`{"adresses":[]}`:                      "unknown field",
		string(tooMany):                        "it has 1001 addresses: ask for 1000 at a time",
		`"` + strings.Repeat("x", 1<<20) + `"`: "too large",
	} {
		if status, said := r.ask(t, c, "POST", "/verify", "viewer", body); status != 400 || !strings.Contains(said, want) {
			t.Errorf("%.40s: %d %q, want 400 %q", body, status, said, want)
		}
	}
	r.asking.Lock()
	if status, said := r.ask(t, c, "POST", "/verify", "viewer", `{"addresses":[]}`); status != 429 || !strings.Contains(said, "try again") {
		t.Errorf("%d %q, want 429", status, said)
	}
	r.asking.Unlock()
	if status, _ := r.ask(t, c, "POST", "/verify", "viewer", `{"addresses":[]}`); status != 200 {
		t.Errorf("%d, want 200", status)
	}
}

// TestVerifySaysWhatFailed is about interfaces that cannot be listed, or do not exist.
func TestVerifySaysWhatFailed(t *testing.T) {
	gone := link.Interface{Index: 4711, Name: "gone", Up: true, MAC: make(net.HardwareAddr, 6), Subnets: []netip.Prefix{netip.MustParsePrefix("198.18.0.1/24")}}
	for want, list := range map[string]func() ([]link.Interface, error){
		"netlink is away": func() ([]link.Interface, error) { return nil, errors.New("netlink is away") },
		"interface gone: ask by ARP: ": func() ([]link.Interface, error) {
			down := gone
			down.Up, down.Name = false, "down"
			return []link.Interface{gone, down}, nil
		},
	} {
		r := serving(t, func(c *serverConfig) { c.Interfaces = list })
		status, body := r.ask(t, r.client(t), "POST", "/verify", "viewer", `{"addresses":[{"address":"198.18.0.9"}]}`)
		var response inspect.Response
		if err := json.Unmarshal([]byte(body), &response); err != nil || status != 200 {
			t.Fatalf("%d %q: %v", status, body, err)
		}
		if !strings.Contains(response.Error, want) || strings.Contains(response.Error, "down") || len(response.Answers) != 0 {
			t.Errorf("%+v, want error %q", response, want)
		}
	}
}

// TestALoopThatIsStuckIsSaidToBe is about a speaker whose loop does not respond in time.
func TestALoopThatIsStuckIsSaidToBe(t *testing.T) {
	r := serving(t, func(c *serverConfig) {
		c.Routing = func(context.Context, inspect.RoutingQuery) (*inspect.Routing, error) {
			return nil, context.DeadlineExceeded
		}
	})
	status, said := r.ask(t, r.client(t), "GET", "/bgp", "viewer", "")
	if status != 503 || !strings.Contains(said, "the speaker cannot report its sessions: context deadline exceeded") {
		t.Errorf("%d %q", status, said)
	}
}

// TestRequestsForRoutesDoNotWait is about a speaker that takes long to report its sessions, and a client that takes long to
// read the response.
func TestRequestsForRoutesDoNotWait(t *testing.T) {
	begun, done := make(chan struct{}), make(chan struct{})
	long := &inspect.Routing{Node: "n1", Problem: strings.Repeat("x", 32<<20)} // more than the buffers of a connection hold
	r := serving(t, func(c *serverConfig) {
		c.Routing = func(_ context.Context, q inspect.RoutingQuery) (*inspect.Routing, error) {
			if q.Limit == 0 {
				return &inspect.Routing{Node: "n1"}, nil
			}
			begun <- struct{}{}
			<-done
			return long, nil
		}
	})
	get := func(query string) (*http.Response, error) {
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+r.addr+"/bgp"+query, nil)
		if err != nil {
			return nil, err
		}
		request.Header.Set("Authorization", "Bearer viewer")
		return r.client(t).Do(request)
	}
	answered := make(chan error, 1)
	go func() {
		response, err := get("") // The body of the response is not read.
		if err == nil {
			t.Cleanup(func() { _ = response.Body.Close() })
		}
		answered <- err
	}()
	<-begun
	second, err := get("?limit=0")
	if err != nil {
		t.Fatal(err)
	}
	said, err := io.ReadAll(second.Body)
	_ = second.Body.Close()
	if err != nil || second.StatusCode != http.StatusTooManyRequests || second.Header.Get("Retry-After") != "1" ||
		!strings.Contains(string(said), "the speaker is reporting its sessions for another request: try again") {
		t.Errorf("while it tells another: %d %q %q, error %v", second.StatusCode, second.Header, said, err)
	}
	close(done)
	if err := <-answered; err != nil { // The client has read the beginning of the response.
		t.Fatal(err)
	}
	if status, said := r.ask(t, r.client(t), http.MethodGet, "/bgp?limit=0", "viewer", ""); status != http.StatusOK {
		t.Errorf("while another reads: %d %q", status, said)
	}
}

// TestTheKeyIsTheSpeakers is about a client that expects another key.
func TestTheKeyIsTheSpeakers(t *testing.T) {
	r := serving(t)
	r.ask(t, r.client(t), "GET", "/healthz", "", "")
	r.key, _, _ = ed25519.GenerateKey(nil)
	request, err := http.NewRequestWithContext(t.Context(), "GET", "https://"+r.addr+"/healthz", nil)
	if err != nil {
		t.Fatal(err)
	}
	if response, err := r.client(t).Do(request); err == nil || !strings.Contains(err.Error(), "another key") {
		t.Errorf("error %v", err)
		if err == nil {
			_ = response.Body.Close()
		}
	}
}

// TestProbesComeThrough is about the kubelet, while a stranger uses all connections.
func TestProbesComeThrough(t *testing.T) {
	r := serving(t)
	stranger := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}}
	dial := func() net.Conn {
		t.Helper()
		c, err := stranger.DialContext(t.Context(), "tcp", r.addr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		return c
	}
	// alive reports whether the server keeps the connection open and waits for data.
	alive := func(c net.Conn, patience time.Duration) bool {
		t.Helper()
		if err := c.SetReadDeadline(time.Now().Add(patience)); err != nil {
			t.Fatal(err)
		}
		_, err := c.Read(make([]byte, 1))
		var timeout net.Error
		return errors.As(err, &timeout) && timeout.Timeout()
	}
	var open []net.Conn
	for range maxConnections {
		open = append(open, dial())
	}
	if !alive(open[0], 50*time.Millisecond) || !alive(open[maxConnections-1], 50*time.Millisecond) {
		t.Fatal("a connection within the limit was closed")
	}
	if alive(dial(), 4*time.Second) {
		t.Error("a connection beyond the limit stays open")
	}
	if status, _ := r.ask(t, r.client(t), "GET", "/healthz", "", ""); status != 200 {
		t.Errorf("the node's own probe: %d", status)
	}
	_ = open[0].Close()
	deadline := time.Now().Add(20 * time.Second)
	for !alive(dial(), 50*time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("a connection that was closed makes no room for another")
		}
	}
}

// TestTheServerEnds is about a server that stops during a request.
func TestTheServerEnds(t *testing.T) {
	r := serving(t)
	body, more := io.Pipe()
	request, err := http.NewRequestWithContext(t.Context(), "POST", "https://"+r.addr+"/verify", body)
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Authorization", "Bearer viewer")
	asked := make(chan error)
	go func() {
		response, err := r.client(t).Do(request)
		if err == nil {
			err = errors.New(response.Status)
			_ = response.Body.Close()
		}
		asked <- err
	}()
	if _, err := more.Write([]byte(`{"addresses":[`)); err != nil { // The request is being read.
		t.Fatal(err)
	}
	if err := r.stop(); err != nil {
		t.Error(err)
	}
	_ = more.Close()
	if err := <-asked; err == nil || strings.HasPrefix(err.Error(), "200") {
		t.Errorf("the request that was under way: %v", err)
	}
}
