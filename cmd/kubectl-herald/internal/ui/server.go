// Package ui serves a page that shows what Herald does, only on this machine.
//
// The page can do what its user may do with kubectl, so nobody else may use it. Other users of the machine do not know the
// token in its address. Other pages in the user's browser do not know the token either, and are refused if they use another
// name of the host (DNS rebinding).
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

// files has the files of the page by suffix, with their types. No other files are served.
var files = map[string]string{".html": "text/html; charset=utf-8", ".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".svg": "image/svg+xml"}

// policy lets the page load only its own files, and prevents scripts from inserting anything but text.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"

// patience is the most time that a page may take to send a request, and to receive a part of the event stream.
const patience = 10 * time.Second

var errNotRead = errors.New("the cluster has not been read yet")

// Serve serves the page on l until ctx ends. Its address is that of l, with the token as the first element of the path.
func Serve(ctx context.Context, l net.Listener, token string, s Source) error {
	h := &handler{feed: newFeed(s), token: token, host: l.Addr().String()}
	g, ctx := errgroup.WithContext(ctx)
	server := &http.Server{
		Handler: h, ReadTimeout: patience, IdleTimeout: time.Minute, MaxHeaderBytes: 16 << 10,
		BaseContext: func(net.Listener) context.Context { return ctx }, // Streams end with ctx.
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

// handler responds to requests of pages.
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

// sameOrigin reports whether a request is from the page itself, or from the user, who may follow a link from anywhere.
func sameOrigin(r *http.Request, host string) bool {
	if origin := r.Header.Get("Origin"); origin != "" && origin != "http://"+host {
		return false
	}
	switch r.Header.Get("Sec-Fetch-Site") {
	case "", "none", "same-origin": // Some browsers, and all other programs, do not send the header.
		return true
	}
	return r.Header.Get("Sec-Fetch-Mode") == "navigate" && r.Header.Get("Sec-Fetch-Dest") == "document"
}

// refuse responds with an error and ends the connection, so that a client without permission cannot hold it.
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
	_, _ = w.Write(content) // The page may be closed.
}

// events sends the parts of the page as server-sent events, and each part again when it changes.
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

// trace writes the report of explain for a Service.
func (h *handler) trace(w http.ResponseWriter, r *http.Request) {
	namespace, name, _ := strings.Cut(r.URL.Query().Get("service"), "/")
	data, err := h.feed.trace(r.Context(), types.NamespacedName{Namespace: namespace, Name: name})
	if err != nil {
		refuse(w, http.StatusNotFound, string(encode(err.Error())))
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(data)
}
