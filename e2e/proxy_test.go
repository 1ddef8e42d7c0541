package e2e

import (
	"context"
	"encoding/json"
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"github.com/heraldlb/herald/e2e/lab"
)

// proxy is between herald-ccm and the API server. It delays, drops and refuses requests and watch events as networks
// and overloaded API servers do. It uses administrator credentials at the API server.
type proxy struct {
	kubeconfig string
	pass       http.Handler

	mu sync.Mutex
	// judge chooses the fault for a request. The request passes if judge is nil or returns nil.
	judge func(*request.RequestInfo) fault
	// lag returns the delay of watch events.
	lag func() time.Duration
	// held are the resources whose watch events are held back until released is closed.
	held     []string
	released chan struct{}
}

// fault handles a request in place of the API server.
type fault func(w http.ResponseWriter, r *http.Request, pass http.Handler)

// startProxy starts a proxy in front of the API server. The proxy outlives the programs that use the control plane.
func startProxy(t testing.TB, plane *lab.ControlPlane) *proxy {
	t.Helper()
	transport, err := rest.TransportFor(plane.Config)
	if err != nil {
		t.Fatal(err)
	}
	target, err := url.Parse(plane.Config.Host)
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{kubeconfig: filepath.Join(t.TempDir(), "kubeconfig"), released: make(chan struct{})}
	p.pass = &httputil.ReverseProxy{
		Rewrite:       func(r *httputil.ProxyRequest) { r.SetURL(target) },
		Transport:     transport,
		FlushInterval: -1, // Flush at once, for watches.
		ErrorHandler:  func(http.ResponseWriter, *http.Request, error) { panic(http.ErrAbortHandler) },
	}
	server := httptest.NewUnstartedServer(p)
	server.EnableHTTP2 = true
	server.Config.ErrorLog = zap.NewStdLog(zap.NewNop()) // Killed clients do not close their connections properly.
	server.StartTLS()
	t.Cleanup(func() {
		for _, program := range plane.Processes() {
			if err := program.Kill(); err != nil {
				t.Error(err)
			}
		}
		server.CloseClientConnections()
		server.Close()
	})
	config := clientcmdapi.NewConfig()
	config.Clusters["proxy"] = &clientcmdapi.Cluster{
		Server:                   server.URL,
		CertificateAuthorityData: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}),
	}
	config.Contexts["proxy"] = &clientcmdapi.Context{Cluster: "proxy"}
	config.CurrentContext = "proxy"
	if err := clientcmd.WriteToFile(*config, p.kubeconfig); err != nil {
		t.Fatal(err)
	}
	return p
}

var requestInfo = request.RequestInfoFactory{APIPrefixes: sets.NewString("api", "apis"), GrouplessAPIPrefixes: sets.NewString("api")}

func (p *proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	info, err := requestInfo.NewRequestInfo(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	p.mu.Lock()
	judge := p.judge
	p.mu.Unlock()
	if judge != nil {
		if f := judge(info); f != nil {
			f(w, r, p.pass)
			return
		}
	}
	if info.Verb == "watch" {
		w = heldBack{w, func() { p.hold(r.Context(), info.Resource) }}
	}
	p.pass.ServeHTTP(w, r)
}

// heldBack is a response whose writes wait for hold.
type heldBack struct {
	http.ResponseWriter
	hold func()
}

func (h heldBack) Write(b []byte) (int, error) {
	h.hold()
	return h.ResponseWriter.Write(b)
}

// Unwrap makes the response flushable.
func (h heldBack) Unwrap() http.ResponseWriter { return h.ResponseWriter }

func (p *proxy) hold(ctx context.Context, resource string) {
	p.mu.Lock()
	held, released, lag := slices.Contains(p.held, resource), p.released, p.lag
	p.mu.Unlock()
	if held {
		select {
		case <-ctx.Done():
		case <-released:
		}
	}
	if lag != nil {
		pause(ctx, lag())
	}
}

// inflict makes judge choose the faults of requests from now on. With nil all requests pass.
func (p *proxy) inflict(judge func(*request.RequestInfo) fault) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.judge = judge
}

// delayWatches delays watch events by lag.
func (p *proxy) delayWatches(lag func() time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.lag = lag
}

// holdWatches holds back the watch events of exactly these resources from now on.
func (p *proxy) holdWatches(resources ...string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	close(p.released)
	p.held, p.released = resources, make(chan struct{})
}

// writes reports whether a request changes Services, records or pools. It does not count the status of pools, which
// is written at intervals.
func writes(r *request.RequestInfo) bool {
	return slices.Contains([]string{"create", "update", "patch", "delete"}, r.Verb) &&
		(r.Resource == "services" || r.Resource == "ipallocations" || r.Resource == "ippools" && r.Subresource == "")
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// lost drops the request, and calls then at that moment.
func lost(then func()) fault {
	return func(http.ResponseWriter, *http.Request, http.Handler) {
		then()
		panic(http.ErrAbortHandler)
	}
}

// answerLost lets the request take effect, but drops the answer.
func answerLost(then func()) fault {
	return func(_ http.ResponseWriter, r *http.Request, pass http.Handler) {
		pass.ServeHTTP(httptest.NewRecorder(), r)
		then()
		panic(http.ErrAbortHandler)
	}
}

// slow delays the request before it takes effect.
func slow(d time.Duration) fault {
	return func(w http.ResponseWriter, r *http.Request, pass http.Handler) {
		pause(r.Context(), d)
		pass.ServeHTTP(w, r)
	}
}

// answerSlow lets the request take effect at once, but delays the answer.
func answerSlow(d time.Duration) fault {
	return func(w http.ResponseWriter, r *http.Request, pass http.Handler) {
		pass.ServeHTTP(heldBack{w, func() { pause(r.Context(), d) }}, r)
	}
}

// refused answers like an API server that is broken or overloaded, or on a conflict.
func refused(err *apierrors.StatusError) fault {
	return func(w http.ResponseWriter, _ *http.Request, _ http.Handler) {
		status := err.Status()
		status.APIVersion, status.Kind = "v1", "Status"
		w.Header().Set("Content-Type", "application/json")
		if status.Details != nil && status.Details.RetryAfterSeconds > 0 {
			w.Header().Set("Retry-After", strconv.Itoa(int(status.Details.RetryAfterSeconds)))
		}
		w.WriteHeader(int(status.Code))
		_ = json.NewEncoder(w).Encode(status) // The client may not wait for the answer.
	}
}
