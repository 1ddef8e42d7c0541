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
	// maxConnections is how many connections other machines may have at once.
	maxConnections = 64
	// maxRequest is the size of such a request, with an address of 39 characters and some interfaces each.
	maxRequest = 512 << 10
)

// server serves the speaker's port by HTTPS: /healthz and /readyz to everybody, /metrics, /verify, /bgp and, where it is
// turned on, /debug/pprof to those whom the API server lets have these paths.
type server struct {
	config serverConfig
	tls    *tls.Config
	// asking is held while the segments are asked: by one request at a time.
	asking sync.Mutex
	// telling is held while a Routing is put together: by one request at a time.
	telling sync.Mutex
}

// serverConfig is what a server is made of.
type serverConfig struct {
	// Key is the speaker's key of this boot. Its public half is in the SpeakerStatus, so that kubectl herald can
	// verify the server.
	Key ed25519.PrivateKey
	// Reviews tell who may.
	Reviews *reviews
	Metrics prometheus.Gatherer
	// Healthy and Ready are asked for each probe.
	Healthy, Ready func() bool
	// Interfaces lists the interfaces to ask on: link.List, except in tests.
	Interfaces func() ([]link.Interface, error)
	// Routing tells of the node's sessions and routes: Speaker.Routing, except in tests.
	Routing func(context.Context, inspect.RoutingQuery) (*inspect.Routing, error)
	// Profiling: /debug/pprof is served, as /metrics is.
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

// selfSigned makes a certificate of a key. Who connects compares the key, so nothing else in the certificate counts.
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
	protocols.SetHTTP1(true) // In HTTP/2 a connection has many requests at once, which no limit below counts.
	// What is wrong with strangers' connections is written for those who look for it only.
	log, err := zap.NewStdLogAt(s.config.Log, zap.DebugLevel)
	if err != nil {
		return err
	}
	server := &http.Server{
		Handler: s.handler(), TLSConfig: s.tls, Protocols: &protocols, ErrorLog: log,
		ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second, WriteTimeout: 30 * time.Second, IdleTimeout: 10 * time.Second,
		MaxHeaderBytes: 16 << 10,
		// A request that is under way ends when the speaker does.
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
		guarded.HandleFunc("GET /debug/pprof/profile", pprof.Profile) // ?seconds=20: an answer may take 30 s.
		guarded.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", probe(s.config.Healthy, "the loop is stuck"))
	mux.HandleFunc("GET /readyz", probe(s.config.Ready, "no decisions yet"))
	mux.Handle("/", s.config.Reviews.guard(guarded))
	return mux
}

// probe answers 200 while a condition holds, and 503 with what is wrong otherwise.
func probe(good func() bool, otherwise string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		if !good() {
			http.Error(w, otherwise, http.StatusServiceUnavailable)
			return
		}
		_, _ = fmt.Fprintln(w, "ok")
	}
}

// verify asks the segments who answers for the addresses in the request.
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

// alone does what is done for one request at a time. If it is being done for another one, that is the answer, so that no
// request waits, which takes a connection.
func alone(w http.ResponseWriter, doing *sync.Mutex, what string, do func()) bool {
	if !doing.TryLock() {
		w.Header().Set("Retry-After", "1")
		http.Error(w, what+" for somebody else: try again", http.StatusTooManyRequests)
		return false
	}
	defer doing.Unlock()
	do()
	return true
}

// answer writes a response. A client that reads slowly holds it up.
func answer(w http.ResponseWriter, response any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(response)
}

// routingTime bounds the wait for the speaker's loop.
const routingTime = 10 * time.Second

// bgp answers with a inspect.Routing. The query ?prefix=198.51.100.0/24 asks for the routes that overlap, and ?peer=tor-a
// for this BGPPeer and what is announced to it. Both may be there several times. ?limit=0 asks for so many routes at most.
func (s *server) bgp(w http.ResponseWriter, r *http.Request) {
	query, err := routingQuery(r.URL.Query())
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	var routing *inspect.Routing
	if !alone(w, &s.telling, "the speaker is telling of its sessions", func() {
		ctx, cancel := context.WithTimeout(r.Context(), routingTime)
		defer cancel()
		routing, err = s.config.Routing(ctx, query)
	}) {
		return
	}
	if err != nil {
		http.Error(w, "the speaker does not tell of its sessions: "+err.Error(), http.StatusServiceUnavailable)
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
			return q, fmt.Errorf("prefix: %q is none: write 198.51.100.0/24 or 2001:db8::1/128", text)
		}
		q.Prefixes = append(q.Prefixes, p.Masked())
	}
	return q, nil
}

// asked are the interfaces that can be asked on.
func asked(links []link.Interface) (all []ask.Interface) {
	for _, l := range links {
		if l.Up {
			all = append(all, ask.Interface{Index: l.Index, Name: l.Name, MAC: l.MAC, Addresses: l.Subnets})
		}
	}
	return all
}

// limitedListener closes connections beyond a limit at once. Those that come from the node itself are not counted:
// the kubelet's probes must come through whoever else connects, or it would restart the speaker.
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

// isLocal reports whether a connection is from this machine. No other can have a connection from the very address
// that it connects to.
func isLocal(c net.Conn) bool {
	from, err := netip.ParseAddrPort(c.RemoteAddr().String())
	to, err2 := netip.ParseAddrPort(c.LocalAddr().String())
	return err == nil && err2 == nil && from.Addr() == to.Addr()
}

type countedConn struct {
	net.Conn
	done func()
}

// Close makes room for another connection.
func (c *countedConn) Close() error {
	defer c.done()
	return c.Conn.Close()
}
