// Command app is the web server in the pods of the stories. It answers with its pod, its node and the
// address that the request came from.
//
// Users of a load balancer see nothing but the answer, so the stories assert on nothing else. The
// environment has POD_NAME and NODE_NAME. Without POD_NAME the app uses the hostname, which is the name
// of the pod. PORT is the port that the app listens on. The default is 8080.
package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// grace is how long running requests may take after SIGTERM.
const grace = 5 * time.Second

func main() { os.Exit(run()) }

func run() int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	pod := os.Getenv("POD_NAME")
	if pod == "" {
		pod, _ = os.Hostname() // On an error the name stays empty in the answer.
	}
	server := &http.Server{
		Addr:              ":" + cmp.Or(os.Getenv("PORT"), "8080"), // All addresses of both families.
		Handler:           answer(pod, os.Getenv("NODE_NAME")),
		ReadHeaderTimeout: grace,
	}
	closed := make(chan error, 1)
	go func() {
		<-ctx.Done()
		ending, cancel := context.WithTimeout(context.Background(), grace)
		defer cancel()
		closed <- server.Shutdown(ending)
	}()
	if err := server.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		fmt.Fprintln(os.Stderr, "app:", err)
		return 1
	}
	if err := <-closed; err != nil {
		fmt.Fprintln(os.Stderr, "app: stop:", err)
		return 1
	}
	return 0
}

// answer writes {"pod":…,"node":…,"client":…}; client is the address that the request came from,
// without its port.
func answer(pod, node string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		from, err := netip.ParseAddrPort(r.RemoteAddr)
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(map[string]string{
			"pod": pod, "node": node, "client": from.Addr().Unmap().String(),
		})
	})
}
