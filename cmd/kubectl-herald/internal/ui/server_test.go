package ui

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/heraldlb/herald/cmd/kubectl-herald/internal/report"
)

const token = "correcthorsebatterystaple"

// served is a server of the page that stops at the end of the test.
type served struct {
	host string
	stop func() error
}

func (s *served) url(path string) string { return "http://" + s.host + "/" + token + "/" + path }

func serve(t *testing.T, source Source) *served {
	t.Helper()
	var listen net.ListenConfig
	l, err := listen.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan error, 1)
	go func() { ended <- Serve(ctx, l, token, source) }()
	s := &served{host: l.Addr().String()}
	s.stop = func() error {
		cancel()
		select {
		case err := <-ended:
			ended <- err
			return err
		case <-time.After(10 * time.Second):
			return errors.New("the server does not end")
		}
	}
	t.Cleanup(func() {
		if err := s.stop(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// asked sends a request, and returns the status code, the header and the body of the response.
func asked(t *testing.T, method, url string, edit func(*http.Request)) (code int, header http.Header, text string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	if edit != nil {
		edit(r)
	}
	var transport http.Transport
	defer transport.CloseIdleConnections()
	response, err := transport.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, response.Header, string(body)
}

// TestWhoMayAsk sends requests that are not from the page. Only the page itself is admitted, and every response has the
// headers that protect it.
func TestWhoMayAsk(t *testing.T) {
	s := serve(t, (&cluster{services: 3}).source())
	header := func(name, value string) func(*http.Request) {
		return func(r *http.Request) { r.Header.Set(name, value) }
	}
	headers := func(all ...string) func(*http.Request) {
		return func(r *http.Request) {
			for i := 0; i < len(all); i += 2 {
				r.Header.Set(all[i], all[i+1])
			}
		}
	}
	host := func(name string) func(*http.Request) { return func(r *http.Request) { r.Host = name } }
	_, port, _ := net.SplitHostPort(s.host)
	for _, c := range []struct {
		name, method, path string
		edit               func(*http.Request)
		code               int
		want               string
	}{
		{"the page", "GET", token + "/", nil, 200, "<title>Herald</title>"},
		{"its head", "HEAD", token + "/", nil, 200, ""},
		{"a module", "GET", token + "/app.js", nil, 200, "EventSource"},
		{"no token", "GET", "", nil, 403, "the token in it is missing"},
		{"no token, a file", "GET", "app.js", nil, 403, "the token in it is missing"},
		{"another token", "GET", "correcthorsebatterystaplf/", nil, 403, "the token in it is missing"},
		{"the beginning of the token", "GET", "correct/", nil, 403, "the token in it is missing"},
		{"events without the token", "GET", "events", nil, 403, "the token in it is missing"},
		{"a trace without the token", "GET", "trace?service=default/service-000", nil, 403, "the token in it is missing"},
		{"another name of the host", "GET", token + "/", host("evil.example:" + port), 403, "Open the address"},
		{"localhost", "GET", token + "/", host("localhost:" + port), 403, "Open the address"},
		{"no port", "GET", token + "/", host("127.0.0.1"), 403, "Open the address"},
		{"events by another name", "GET", token + "/events", host("evil.example"), 403, "Open the address"},
		{"another origin", "GET", token + "/trace?service=default/service-000", header("Origin", "http://evil.example"), 403, "Another page"},
		{"an opaque origin", "GET", token + "/", header("Origin", "null"), 403, "Another page"},
		{"another port", "GET", token + "/", header("Origin", "http://127.0.0.1:1"), 403, "Another page"},
		{"the origin itself", "GET", token + "/", header("Origin", "http://"+s.host), 200, "<title>"},
		{"a script of another site", "GET", token + "/app.js", headers("Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "no-cors", "Sec-Fetch-Dest", "script"), 403, "Another page"},
		{"another port of this host", "GET", token + "/", headers("Sec-Fetch-Site", "same-site", "Sec-Fetch-Mode", "cors", "Sec-Fetch-Dest", "empty"), 403, "Another page"},
		{"a frame of another site", "GET", token + "/", headers("Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "navigate", "Sec-Fetch-Dest", "iframe"), 403, "Another page"},
		{"a link that is followed", "GET", token + "/", headers("Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "navigate", "Sec-Fetch-Dest", "document"), 200, "<title>"},
		{"POST", "POST", token + "/", nil, 405, "nothing to write"},
		{"DELETE", "DELETE", token + "/trace?service=default/service-000", nil, 405, "nothing to write"},
		{"OPTIONS", "OPTIONS", token + "/events", nil, 405, "nothing to write"},
		{"no such file", "GET", token + "/server.go", nil, 404, "no such file"},
		{"a way out of the page", "GET", token + "/../feed.go", nil, 404, "no such file"},
		{"a directory", "GET", token + "/.", nil, 404, "no such file"},
		{"no such Service", "GET", token + "/trace?service=default/<script>", nil, 404, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			code, header, body := asked(t, c.method, "http://"+s.host+"/"+c.path, c.edit)
			if code != c.code || !strings.Contains(body, c.want) {
				t.Errorf("%d, want %d and %q: %s", code, c.code, c.want, body)
			}
			if c.code != 200 && (strings.Contains(body, "<") || strings.Contains(body, token)) {
				t.Errorf("the refusal says too much: %s", body)
			}
			for name, want := range map[string]string{
				"Content-Security-Policy": policy, "Referrer-Policy": "no-referrer", "X-Content-Type-Options": "nosniff", "X-Frame-Options": "DENY",
				"Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Resource-Policy": "same-origin", "Cache-Control": "no-store",
				"Access-Control-Allow-Origin": "", "Set-Cookie": "",
			} {
				if got := header.Get(name); got != want {
					t.Errorf("%s: %q, want %q", name, got, want)
				}
			}
		})
	}
	for _, directive := range []string{"default-src 'none'", "frame-ancestors 'none'", "base-uri 'none'", "form-action 'none'", "require-trusted-types-for 'script'"} {
		if !strings.Contains(policy, directive) {
			t.Errorf("no %s in %s", directive, policy)
		}
	}
	if strings.Contains(policy, "unsafe") || strings.Contains(policy, "*") {
		t.Errorf("%s", policy)
	}
}

// TestConnectionsAreNotHeld keeps connections without the token open as long as possible. A page stays open for longer.
func TestConnectionsAreNotHeld(t *testing.T) {
	s := serve(t, (&cluster{services: 3}).source())
	page := s.listen(t)
	page.next()
	began := time.Now()
	held := map[string]net.Conn{}
	for name, request := range map[string]string{
		"nothing is sent":          "",
		"a header without an end":  "GET / HTTP/1.1\r\nHost: " + s.host + "\r\n",
		"no token, then nothing":   "GET / HTTP/1.1\r\nHost: " + s.host + "\r\n\r\n",
		"a body that does not end": "POST / HTTP/1.1\r\nHost: " + s.host + "\r\nContent-Length: 1000\r\n\r\nx",
		"a GET with such a body":   "GET / HTTP/1.1\r\nHost: " + s.host + "\r\nContent-Length: 1000\r\n\r\nx",
		"chunks that do not end":   "POST / HTTP/1.1\r\nHost: " + s.host + "\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n",
	} {
		var dialer net.Dialer
		c, err := dialer.DialContext(t.Context(), "tcp", s.host)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if _, err := io.WriteString(c, request); err != nil {
			t.Fatal(err)
		}
		held[name] = c
	}
	var waiting sync.WaitGroup
	for name, c := range held {
		if err := c.SetReadDeadline(began.Add(2 * patience)); err != nil {
			t.Fatal(err)
		}
		waiting.Go(func() {
			if _, err := io.Copy(io.Discard, c); errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("%s: the connection is open after %v", name, 2*patience)
			}
		})
	}
	waiting.Wait()
	for time.Since(began) < patience+pause {
		page.next()
	}
}

// stream is the event stream of a page.
type stream struct {
	t      *testing.T
	lines  *bufio.Scanner
	closed func()
}

func (s *served) listen(t *testing.T) *stream {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.url("events"), nil)
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{}
	response, err := transport.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	if kind := response.Header.Get("Content-Type"); kind != "text/event-stream" {
		t.Fatalf("%s of type %s", response.Status, kind)
	}
	lines := bufio.NewScanner(response.Body)
	lines.Buffer(nil, 16<<20)
	closed := func() {
		_ = response.Body.Close()
		transport.CloseIdleConnections()
	}
	t.Cleanup(closed)
	return &stream{t, lines, closed}
}

// next returns the parts up to and including the next reading.
func (s *stream) next() map[string]string {
	s.t.Helper()
	parts, name := map[string]string{}, ""
	for s.lines.Scan() {
		if event, ok := strings.CutPrefix(s.lines.Text(), "event: "); ok {
			name = event
		}
		if data, ok := strings.CutPrefix(s.lines.Text(), "data: "); ok {
			parts[name] = data
			if name == "reading" {
				return parts
			}
		}
	}
	s.t.Fatal("the stream ends: ", s.lines.Err())
	return nil
}

// TestOneReadingServesAllPages checks that further pages cause no further readings, and that nothing is read without a
// page.
func TestOneReadingServesAllPages(t *testing.T) {
	source := (&cluster{services: 3, edit: troubled}).source()
	var readings atomic.Int32
	read := source.Read
	source.Read = func(ctx context.Context) (*report.Objects, error) {
		readings.Add(1)
		return read(ctx)
	}
	s := serve(t, source)
	asked(t, http.MethodGet, s.url(""), nil)
	asked(t, http.MethodGet, s.url("trace?service=default/service-000"), nil)
	if n := readings.Load(); n != 0 {
		t.Errorf("%d readings without a page", n)
	}
	var pages []*stream
	for range 5 {
		pages = append(pages, s.listen(t))
	}
	for _, p := range pages {
		first := p.next()
		for _, name := range []string{"problems", "nodes", "segments", "sessions", "pools", "services", "changes"} {
			if first[name] == "" {
				t.Errorf("there is no %s in %v", name, first)
			}
		}
		if second := p.next(); len(second) != 1 {
			t.Errorf("what has not changed came again: %v", second)
		}
	}
	if n := readings.Load(); n > 3 {
		t.Errorf("%d readings for 5 pages, which saw 2", n)
	}
	if code, _, body := asked(t, http.MethodGet, s.url("trace?service=default/service-000"), nil); code != 200 || !strings.Contains(body, `"service":"default/service-000"`) {
		t.Errorf("%d: %s", code, body)
	}
	if code, _, body := asked(t, http.MethodGet, s.url("trace?service=shop/checkout"), nil); code != 200 || !strings.Contains(body, "made up for shop/checkout") {
		t.Errorf("%d: no event of the Service: %s", code, body)
	}
	for _, p := range pages {
		p.closed()
	}
	time.Sleep(pause + 500*time.Millisecond) // the current reading, and the pause after it
	before := readings.Load()
	time.Sleep(2 * pause)
	if n := readings.Load(); n != before {
		t.Errorf("%d readings after the pages had gone", n-before)
	}
}

// TestAnErrorIsShown makes the cluster unreadable for a while. The page keeps the last content, and shows the error.
func TestAnErrorIsShown(t *testing.T) {
	source := (&cluster{services: 3}).source()
	var broken atomic.Bool
	read := source.Read
	source.Read = func(ctx context.Context) (*report.Objects, error) {
		if broken.Load() {
			return nil, errors.New("no route to host\x1b[2J")
		}
		return read(ctx)
	}
	p := serve(t, source).listen(t)
	if first := p.next(); !strings.Contains(first["reading"], `"error":""`) {
		t.Errorf("%s", first["reading"])
	}
	broken.Store(true)
	for !strings.Contains(p.next()["reading"], `"error":"no route to host�[2J"`) { // It comes, or the test ends.
	}
	broken.Store(false)
	for !strings.Contains(p.next()["reading"], `"error":""`) { // It comes, or the test ends.
	}
}

// TestAGapIsToldOf has readings that are late, and on time. The gap comes before the changes that happened during it.
func TestAGapIsToldOf(t *testing.T) {
	var owner string
	var read time.Time // when the cluster is read, and all Leases are renewed
	c := &cluster{services: 1, owner: func(int) string { return owner }, edit: func(o *report.Objects) {
		for _, l := range o.Leases {
			renewed := metav1.NewMicroTime(read)
			l.Spec.RenewTime = &renewed
		}
	}}
	for _, test := range []struct {
		name  string
		rest  time.Duration // until the second reading was due
		fails []time.Duration
		after time.Duration
		want  []string
	}{
		{"on time", pause, nil, 3 * time.Second, []string{"rack1-n1 (eth0) → rack1-n2 (eth0)"}},
		{"a large cluster is read seldom", 5 * time.Minute, nil, 5*time.Minute + 10*time.Second, []string{"rack1-n1 (eth0) → rack1-n2 (eth0)"}},
		{"no page for three hours", pause, nil, 3 * time.Hour, []string{"rack1-n1 (eth0) → rack1-n2 (eth0)", "Read again after 3h: what happened in between is not known in full"}},
		{"errors for a minute", pause, []time.Duration{20 * time.Second, 40 * time.Second}, time.Minute, []string{"→", "Read again after 60s"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			f := newFeed(c.source())
			now := time.Now()
			began := now.Add(-test.after)
			owner, read = nodes[0], began
			f.update(c.objects(), nil, began, began.Add(test.rest))
			for _, at := range test.fails {
				f.update(nil, errors.New("no route to host"), began.Add(at), began.Add(at+pause))
			}
			owner, read = nodes[1], now
			f.update(c.objects(), nil, now, now.Add(pause))
			if len(f.changes) != len(test.want) {
				t.Fatalf("%+v, want %q", f.changes, test.want)
			}
			for i, want := range test.want {
				if !strings.Contains(f.changes[i].Text, want) {
					t.Errorf("%d: %q, want %q", i, f.changes[i].Text, want)
				}
			}
		})
	}
}

// TestNothingIsLeft stops the server while pages are open.
func TestNothingIsLeft(t *testing.T) {
	before := goleak.IgnoreCurrent()
	s := serve(t, (&cluster{services: 3}).source())
	pages := []*stream{s.listen(t), s.listen(t)}
	for _, p := range pages {
		p.next()
	}
	if err := s.stop(); err != nil {
		t.Error(err)
	}
	for _, p := range pages {
		for p.lines.Scan() { // until it ends
		}
		p.closed()
	}
	if err := goleak.Find(before); err != nil {
		t.Error(err)
	}
	var dialer net.Dialer
	if c, err := dialer.DialContext(t.Context(), "tcp", s.host); err == nil {
		_ = c.Close()
		t.Error("something still listens")
	}
}
