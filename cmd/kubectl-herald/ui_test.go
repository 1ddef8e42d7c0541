package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// TestReadingsShareConnections reads through a proxy, for which client-go does not cache a transport. The first reading
// opens ten connections, because it makes ten lists concurrently. The next readings open none. An object that cannot be
// decoded is a problem in every reading.
func TestReadingsShareConnections(t *testing.T) {
	const lists = 10
	var dialled, asked atomic.Int32
	together := make(chan struct{})
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if n := asked.Add(1); n == lists {
			close(together)
		}
		select {
		case <-together:
		case <-r.Context().Done():
		}
		content := emptyList(r.URL.Path)
		if strings.HasSuffix(r.URL.Path, "/ippools") {
			content.(map[string]any)["items"] = []any{map[string]any{"metadata": map[string]any{"name": "old"}, "spec": map[string]any{"priority": "high"}}}
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(content)
	}))
	s.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			dialled.Add(1)
		}
	}
	s.Start()
	t.Cleanup(s.Close)
	config := configThrough(t, s.URL)

	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	in, out := io.Pipe()
	said := bufio.NewScanner(in)
	cmd := command()
	cmd.SetOut(out)
	cmd.SetArgs([]string{"ui", "--kubeconfig", config, "--cache-dir", t.TempDir()})
	var running sync.WaitGroup
	defer running.Wait()
	defer cancel()
	running.Go(func() { _ = out.CloseWithError(cmd.ExecuteContext(ctx)) })
	if !said.Scan() {
		t.Fatal("ui does not begin: ", said.Err())
	}
	url := strings.Fields(said.Text())[1]
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url+"events", nil)
	if err != nil {
		t.Fatal(err)
	}
	var transport http.Transport
	defer transport.CloseIdleConnections()
	page, err := transport.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	defer page.Body.Close()
	problems, readings := "", 0
	for lines := bufio.NewScanner(page.Body); readings < 4 && lines.Scan(); {
		if strings.HasPrefix(lines.Text(), `data: [{"kind":`) && problems == "" {
			problems = lines.Text()
		}
		if lines.Text() == "event: reading" {
			readings++
		}
		if lines.Text() == "event: problems" && readings > 0 {
			t.Error("the problems are other ones in another reading")
		}
	}
	if readings < 4 {
		t.Fatalf("%d readings", readings)
	}
	if !strings.Contains(problems, "ippools/old cannot be read") {
		t.Errorf("the pool that cannot be decoded is not a problem: %s", problems)
	}
	if n := dialled.Load(); n != lists {
		t.Errorf("%d connections for five readings, want %d", n, lists)
	}
}

// configThrough returns a kubeconfig for a cluster behind a proxy.
func configThrough(t *testing.T, proxy string) string {
	t.Helper()
	config := filepath.Join(t.TempDir(), "config")
	if err := os.WriteFile(config, fmt.Appendf(nil, `{apiVersion: v1, kind: Config, current-context: lab, contexts: [{name: lab, context: {cluster: lab}}],
clusters: [{name: lab, cluster: {server: "http://api.example", proxy-url: %q}}]}`, proxy), 0o600); err != nil {
		t.Fatal(err)
	}
	return config
}

func TestAPortThatIsTakenIsNamed(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(emptyList(r.URL.Path))
	}))
	t.Cleanup(s.Close)
	address := s.Listener.Addr().String() // The port is in use.
	_, port, _ := net.SplitHostPort(address)
	cmd := command()
	cmd.SetOut(io.Discard)
	cmd.SetArgs([]string{"ui", "--port", port, "--kubeconfig", configThrough(t, s.URL), "--cache-dir", t.TempDir()})
	err := cmd.ExecuteContext(t.Context())
	if err == nil || !strings.HasPrefix(err.Error(), "--port: ") || !strings.Contains(err.Error(), address) || !strings.HasSuffix(err.Error(), ": choose another one, or 0 for any that is free") {
		t.Error(err)
	}
}
