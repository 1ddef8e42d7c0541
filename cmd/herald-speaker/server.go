package main

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"net/http/pprof"
	"net/netip"
	"net/url"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.uber.org/zap"

	"github.com/heraldlb/herald/speaker/ask"
	"github.com/heraldlb/herald/speaker/inspect"
	"github.com/heraldlb/herald/speaker/link"
)

const (
	// maxConnections is the most connections that other machines may have at once.
	maxConnections = 64
	// maxRequest is the most bytes of a request to /verify: enough for inspect.MaxQuestions addresses of 39 characters,
	// with some interfaces each.
	maxRequest = 512 << 10
)

// server serves the speaker's port over HTTPS. Everybody may use /healthz and /readyz. The API server decides who may use
// /metrics, /verify, /bgp and, if it is enabled, /debug/pprof.
type server struct {
	config serverConfig
	tls    *tls.Config
	// asking is held while the speaker asks the segments, for one request at a time.
	asking sync.Mutex
	// telling is held while the speaker assembles a Routing, for one request at a time.
	telling sync.Mutex
}

// serverConfig is the configuration of a server.
type serverConfig struct {
	// Key is the private key that the speaker generates at each start. The public key is in the SpeakerStatus, so that
	// kubectl herald can verify the server.
	Key ed25519.PrivateKey
	// Reviews decide who may use the guarded paths.
	Reviews *reviews
	Metrics prometheus.Gatherer
	// Healthy and Ready are called for each probe.
	Healthy, Ready func() bool
	// Interfaces lists the interfaces on which to ask: link.List, except in tests.
	Interfaces func() ([]link.Interface, error)
	// Routing returns the node's sessions and routes: Speaker.Routing, except in tests.
	Routing func(context.Context, inspect.RoutingQuery) (*inspect.Routing, error)
	// Profiling enables /debug/pprof, which is guarded like /metrics.
	Profiling bool
	Log       *zap.Logger
}

func newServer(config serverConfig) (*server, error) {
	certificate, err := selfSigned(config.Key)
	if err != nil {
		return nil, err
	}
	return &server{config: config, tls: &tls.Config{Certificates: []tls.Certificate{certificate}, MinVersion: tls.VersionTLS13}}, nil
}

// selfSigned returns a certificate for a key. Clients compare the key, so nothing else in the certificate matters.
func selfSigned(key ed25519.PrivateKey) (tls.Certificate, error) {
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		Subject:      pkix.Name{CommonName: "herald-speaker"},
		NotBefore:    time.Unix(0, 0),
		NotAfter:     time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC), // It does not expire: RFC 5280 §4.1.2.5.
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("certificate of the speaker's port: %w", err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, nil
}

// run listens on an address and serves until ctx ends.
func (s *server) run(ctx context.Context, address string) error {
	var config net.ListenConfig
	l, err := config.Listen(ctx, "tcp", address)
	if err != nil {
		return fmt.Errorf("--listen: %w", err)
	}
	return s.serve(ctx, l)
}

func (s *server) serve(ctx context.Context, l net.Listener) error {
	var protocols http.Protocols
	protocols.SetHTTP1(true) // An HTTP/2 connection has many requests at once, which the limits below do not count.
	// Errors of strangers' connections are logged at debug level only.
	log, err := zap.NewStdLogAt(s.config.Log, zap.DebugLevel)
	if err != nil {
		return err
	}
	server := &http.Server{
		Handler: s.handler(), TLSConfig: s.tls, Protocols: &protocols, ErrorLog: log,
		ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second, WriteTimeout: 30 * time.Second, IdleTimeout: 10 * time.Second,
		MaxHeaderBytes: 16 << 10,
		// Requests in progress end when the speaker stops.
		BaseContext: func(net.Listener) context.Context { return ctx },
	}
	closed := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(closed)
		grace, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if server.Shutdown(grace) != nil {
			_ = server.Close()
		}
	})
	err = server.ServeTLS(&limitedListener{Listener: l, limit: maxConnections}, "", "")
	if !stop() {
		<-closed
	}
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

func (s *server) handler() http.Handler {
	guarded := http.NewServeMux()
	guarded.Handle("GET /metrics", promhttp.HandlerFor(s.config.Metrics, promhttp.HandlerOpts{MaxRequestsInFlight: 4}))
	guarded.HandleFunc("POST /verify", s.verify)
	guarded.HandleFunc("GET /bgp", s.bgp)
	if s.config.Profiling {
		guarded.HandleFunc("GET /debug/pprof/", pprof.Index)
		guarded.HandleFunc("GET /debug/pprof/profile", pprof.Profile) // ?seconds=20: a response may take 30 s.
		guarded.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", probe(s.config.Healthy, "the loop is stuck"))
	mux.HandleFunc("GET /readyz", probe(s.config.Ready, "no decisions yet"))
	mux.Handle("/", s.config.Reviews.guard(guarded))
	return mux
}

// probe responds with 200 while a condition holds, and otherwise with 503 and the text otherwise.
func probe(good func() bool, otherwise string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		if !good() {
			http.Error(w, otherwise, http.StatusServiceUnavailable)
			return
		}
		_, _ = fmt.Fprintln(w, "ok")
	}
}

// verify asks on the segments which machines answer for the addresses in the request.
func (s *server) verify(w http.ResponseWriter, r *http.Request) {
	var request inspect.Request
	decoder := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxRequest))
	decoder.DisallowUnknownFields()
	err := decoder.Decode(&request)
	if err == nil && len(request.Addresses) > inspect.MaxQuestions {
		err = fmt.Errorf("it has %d addresses: ask for %d at a time", len(request.Addresses), inspect.MaxQuestions)
	}
	if err != nil {
		http.Error(w, "the request cannot be read: "+err.Error(), http.StatusBadRequest)
		return
	}
	response := inspect.Response{Answers: []inspect.Answer{}}
	if !alone(w, &s.asking, "the segments are being asked", func() {
		var links []link.Interface
		if links, err = s.config.Interfaces(); err == nil {
			var answers []inspect.Answer
			answers, err = ask.All(r.Context(), asked(links), request.Addresses)
			response.Answers = append(response.Answers, answers...)
		}
	}) {
		return
	}
	if err != nil {
		response.Error = err.Error()
	}
	answer(w, response)
}

// alone calls do for one request at a time. While do runs, other requests are refused. They do not wait, because a waiting
// request occupies a connection.
func alone(w http.ResponseWriter, doing *sync.Mutex, what string, do func()) bool {
	if !doing.TryLock() {
		w.Header().Set("Retry-After", "1")
		http.Error(w, what+" for another request: try again", http.StatusTooManyRequests)
		return false
	}
	defer doing.Unlock()
	do()
	return true
}

// answer writes a response. A client that reads slowly delays it.
func answer(w http.ResponseWriter, response any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(response)
}

// routingTime limits the wait for the speaker's loop.
const routingTime = 10 * time.Second

// bgp responds with an inspect.Routing. The query ?prefix=198.51.100.0/24 selects the routes that overlap the prefix, and
// ?peer=tor-a selects this BGPPeer and what is announced to it. Both may be repeated. ?limit=0 sets the most routes to
// return.
func (s *server) bgp(w http.ResponseWriter, r *http.Request) {
	query, err := routingQuery(r.URL.Query())
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	var routing *inspect.Routing
	if !alone(w, &s.telling, "the speaker is reporting its sessions", func() {
		ctx, cancel := context.WithTimeout(r.Context(), routingTime)
		defer cancel()
		routing, err = s.config.Routing(ctx, query)
	}) {
		return
	}
	if err != nil {
		http.Error(w, "the speaker cannot report its sessions: "+err.Error(), http.StatusServiceUnavailable)
		return
	}
	answer(w, routing)
}

func routingQuery(values url.Values) (q inspect.RoutingQuery, err error) {
	q.Limit = inspect.MaxRoutes
	if text := values.Get("limit"); text != "" {
		if q.Limit, err = strconv.Atoi(text); err != nil || q.Limit < 0 {
			return q, fmt.Errorf("limit: %q is not a number of routes: write 0 or more", text)
		}
	}
	if n := len(values["prefix"]); n > inspect.MaxPrefixes {
		return q, fmt.Errorf("prefix: there are %d: ask for %d at a time", n, inspect.MaxPrefixes)
	}
	if n := len(values["peer"]); n > inspect.MaxPeers {
		return q, fmt.Errorf("peer: there are %d: ask for %d at a time", n, inspect.MaxPeers)
	}
	q.Peers = values["peer"]
	for _, text := range values["prefix"] {
		p, err := netip.ParsePrefix(text)
		if err != nil {
			return q, fmt.Errorf("prefix: %q is not a prefix: write 198.51.100.0/24 or 2001:db8::1/128", text)
		}
		q.Prefixes = append(q.Prefixes, p.Masked())
	}
	return q, nil
}

// asked returns the interfaces on which the speaker can ask.
func asked(links []link.Interface) (all []ask.Interface) {
	for _, l := range links {
		if l.Up {
			all = append(all, ask.Interface{Index: l.Index, Name: l.Name, MAC: l.MAC, Addresses: l.Subnets})
		}
	}
	return all
}

// limitedListener immediately closes connections beyond a limit. Connections from the node itself do not count: the
// kubelet's probes must succeed whoever else connects, because otherwise the kubelet would restart the speaker.
type limitedListener struct {
	net.Listener
	limit int64
	open  atomic.Int64
}

// Accept waits for a connection within the limit.
func (l *limitedListener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil || isLocal(c) {
			return c, err
		}
		if l.open.Add(1) <= l.limit {
			return &countedConn{Conn: c, done: sync.OnceFunc(func() { l.open.Add(-1) })}, nil
		}
		l.open.Add(-1)
		_ = c.Close()
	}
}

// isLocal reports whether a connection is from this machine. Only this machine can connect from the address that it
// connects to.
func isLocal(c net.Conn) bool {
	from, err := netip.ParseAddrPort(c.RemoteAddr().String())
	to, err2 := netip.ParseAddrPort(c.LocalAddr().String())
	return err == nil && err2 == nil && from.Addr() == to.Addr()
}

type countedConn struct {
	net.Conn
	done func()
}

// Close closes the connection, which no longer counts.
func (c *countedConn) Close() error {
	defer c.done()
	return c.Conn.Close()
}
