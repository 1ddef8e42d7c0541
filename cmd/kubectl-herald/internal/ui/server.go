// Package ui serves a page that shows what Herald does, on this machine alone.
//
// The page can do what its user may do by kubectl, so nobody else may ask for it: not other users of the machine, who do not
// know the token in its address, and not other pages in the user's browser, which neither know the token nor are let in by
// another name of the host (DNS rebinding).
package ui

import (
	"context"
	"crypto/subtle"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	"k8s.io/apimachinery/pkg/types"
)

//go:embed page
var embedded embed.FS

// files of the page, with their types. No other is served.
var files = map[string]string{".html": "text/html; charset=utf-8", ".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".svg": "image/svg+xml"}

// policy lets the page load its own files, and nothing be written into it but text.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"

// patience is how long a page may take to send a request, and to read what it is sent.
const patience = 10 * time.Second

var errNotRead = errors.New("the cluster has not been read yet")

// Serve serves pages on l until ctx ends. Their address is that of l, with the token as the first element of the path.
func Serve(ctx context.Context, l net.Listener, token string, s Source) error {
	h := &handler{feed: newFeed(s), token: token, host: l.Addr().String()}
	g, ctx := errgroup.WithContext(ctx)
	server := &http.Server{
		Handler: h, ReadTimeout: patience, IdleTimeout: time.Minute, MaxHeaderBytes: 16 << 10,
		BaseContext: func(net.Listener) context.Context { return ctx }, // Streams end with it.
	}
	g.Go(func() error {
		h.feed.run(ctx)
		return nil
	})
	g.Go(func() error {
		if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			return err
		}
		return nil
	})
	g.Go(func() error {
		<-ctx.Done()
		end, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		if err := server.Shutdown(end); err != nil {
			return server.Close()
		}
		return nil
	})
	return g.Wait()
}

// handler answers pages.
type handler struct {
	feed        *feed
	token, host string
}

func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	for name, value := range map[string]string{
		"Content-Security-Policy": policy, "Referrer-Policy": "no-referrer", "X-Content-Type-Options": "nosniff", "X-Frame-Options": "DENY",
		"Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Resource-Policy": "same-origin", "Cache-Control": "no-store",
	} {
		w.Header().Set(name, value)
	}
	token, path, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	switch {
	case r.Host != h.host:
		refuse(w, http.StatusForbidden, "Open the address that kubectl herald ui has printed.")
	case !sameOrigin(r, h.host):
		refuse(w, http.StatusForbidden, "Another page may not ask for this.")
	case r.Method != http.MethodGet && r.Method != http.MethodHead:
		w.Header().Set("Allow", "GET, HEAD")
		refuse(w, http.StatusMethodNotAllowed, "There is nothing to write here.")
	case subtle.ConstantTimeCompare([]byte(token), []byte(h.token)) != 1:
		refuse(w, http.StatusForbidden, "Open the address that kubectl herald ui has printed: the token in it is missing here, or is of an earlier run.")
	case path == "events":
		h.events(w, r)
	case path == "trace":
		h.trace(w, r)
	default:
		file(w, path)
	}
}

// sameOrigin reports whether a request is from the page itself, or from the user: a link may be followed from anywhere.
func sameOrigin(r *http.Request, host string) bool {
	if origin := r.Header.Get("Origin"); origin != "" && origin != "http://"+host {
		return false
	}
	switch r.Header.Get("Sec-Fetch-Site") {
	case "", "none", "same-origin": // Not every browser and no program says it.
		return true
	}
	return r.Header.Get("Sec-Fetch-Mode") == "navigate" && r.Header.Get("Sec-Fetch-Dest") == "document"
}

// refuse ends the connection, too, so that who may not ask cannot hold it.
func refuse(w http.ResponseWriter, code int, why string) {
	w.Header().Set("Connection", "close")
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(code)
	fmt.Fprintln(w, why)
}

// file writes a file of the page.
func file(w http.ResponseWriter, name string) {
	if name == "" {
		name = "index.html"
	}
	kind := ""
	if i := strings.LastIndexByte(name, '.'); i >= 0 {
		kind = files[name[i:]]
	}
	content, err := fs.ReadFile(embedded, "page/"+name)
	if kind == "" || err != nil {
		refuse(w, http.StatusNotFound, "There is no such file.")
		return
	}
	w.Header().Set("Content-Type", kind)
	_, _ = w.Write(content) // The page may have gone.
}

// events sends the parts of the page, and each again when it changes, as server-sent events.
func (h *handler) events(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/event-stream")
	if r.Method == http.MethodHead {
		return
	}
	defer h.feed.open()()
	stream := http.NewResponseController(w)
	var version uint64
	for {
		news, more := h.feed.since(version)
		_ = stream.SetWriteDeadline(time.Now().Add(patience))
		for _, p := range news {
			if _, err := fmt.Fprintf(w, "event: %s\ndata: %s\n\n", p.name, p.data); err != nil {
				return
			}
			version = p.version
		}
		if err := stream.Flush(); err != nil {
			return
		}
		select {
		case <-r.Context().Done():
			return
		case <-more:
		}
	}
}

// trace writes the report of explain on a Service.
func (h *handler) trace(w http.ResponseWriter, r *http.Request) {
	namespace, name, _ := strings.Cut(r.URL.Query().Get("service"), "/")
	data, err := h.feed.trace(r.Context(), types.NamespacedName{Namespace: namespace, Name: name}, time.Now())
	if err != nil {
		refuse(w, http.StatusNotFound, string(encode(err.Error())))
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(data)
}
