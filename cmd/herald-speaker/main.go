// Command herald-speaker announces the addresses of Services from the node it runs on, by ARP on the
// segment and by BGP to routers.
package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/go-logr/zapr"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/spf13/cobra"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/kubernetes"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/record"
	"k8s.io/client-go/util/connrotation"
	"k8s.io/klog/v2"

	"github.com/heraldlb/herald/api/client"
	"github.com/heraldlb/herald/speaker"
)

func main() { os.Exit(run()) }

func run() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := command().ExecuteContext(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "herald-speaker:", err)
		return 1
	}
	return 0
}

// flags are what differs from one node or installation to the next.
type flags struct {
	kubeconfig, node, namespace, listen, proxyHealth string
	leaseDuration                                    time.Duration
	l2Only                                           bool
}

func command() *cobra.Command {
	var f flags
	cmd := &cobra.Command{
		Use:   "herald-speaker",
		Short: "Announces the addresses of Services from this node.",
		Args:  cobra.NoArgs, SilenceUsage: true, SilenceErrors: true,
		RunE: func(cmd *cobra.Command, _ []string) error { return f.run(cmd.Context()) },
	}
	namespace := os.Getenv("POD_NAMESPACE")
	if namespace == "" {
		namespace = "herald-system"
	}
	set := cmd.Flags()
	set.StringVar(&f.kubeconfig, "kubeconfig", "", "How to reach the API server; empty inside a pod.")
	set.StringVar(&f.node, "node-name", os.Getenv("NODE_NAME"), "The name of this node (default $NODE_NAME).")
	set.StringVar(&f.namespace, "namespace", namespace, "Herald's namespace, of its Leases and of the Secrets that BGPPeers name (default $POD_NAMESPACE).")
	set.StringVar(&f.listen, "listen", ":7475", "Where /metrics, /healthz and /readyz are served.")
	set.StringVar(&f.proxyHealth, "kube-proxy-healthz", "http://127.0.0.1:10256/healthz",
		"The health of the node's kube-proxy: without it the node announces nothing. Empty where another data path serves Services.")
	set.BoolVar(&f.l2Only, "l2-only", false, "Announce on the segment only: no BGPPeer, BGPAdvertisement or Secret is read.")
	set.DurationVar(&f.leaseDuration, "lease-duration", 30*time.Second,
		"How long the other nodes count on this one without a sign of life. The same on all nodes.")
	return cmd
}

func (f *flags) run(ctx context.Context) error {
	if f.node == "" {
		return errors.New("--node-name: which node this is must be said, by the flag or by the environment NODE_NAME")
	}
	if f.leaseDuration < time.Second {
		return fmt.Errorf("--lease-duration: %s is less than 1s", f.leaseDuration)
	}
	log, err := zap.NewProduction()
	if err != nil {
		return err
	}
	defer func() { _ = log.Sync() }()
	klog.SetLogger(zapr.NewLogger(log.Named("client-go")))
	config, err := clientcmd.BuildConfigFromFlags("", f.kubeconfig)
	if err != nil {
		return err
	}
	config.UserAgent = "herald-speaker"
	// What a speaker writes is bounded by what changes on its node.
	config.QPS, config.Burst = 50, 100
	connections := connrotation.NewDialer((&net.Dialer{Timeout: 10 * time.Second, KeepAlive: 10 * time.Second}).DialContext)
	config.Dial = connections.DialContext
	kubeConfig := rest.CopyConfig(config)
	kubeConfig.ContentType, kubeConfig.AcceptContentTypes = "application/vnd.kubernetes.protobuf", "application/vnd.kubernetes.protobuf,application/json"
	kube, err := kubernetes.NewForConfig(kubeConfig)
	if err != nil {
		return err
	}
	set, err := client.New(config)
	if err != nil {
		return err
	}
	broadcaster := record.NewBroadcaster(record.WithContext(ctx))
	defer broadcaster.Shutdown()
	broadcaster.StartRecordingToSink(&typedcorev1.EventSinkImpl{Interface: kube.CoreV1().Events("")})
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	s, err := speaker.New(speaker.Config{
		Kube: kube, Herald: set, Reconnect: connections.CloseAll,
		Events: broadcaster.NewRecorder(client.Scheme, corev1.EventSource{Component: "herald-speaker", Host: f.node}),
		Node:   f.node, Pod: os.Getenv("POD_NAME"), Namespace: f.namespace, LeaseDuration: f.leaseDuration, L2Only: f.l2Only, KubeProxyHealth: f.proxyHealth,
		Metrics: registry, Log: log,
	})
	if err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return serve(ctx, f.listen, registry, s) })
	g.Go(func() error { return s.Run(ctx) })
	return g.Wait()
}

// serve answers for probes and metrics until ctx ends.
func serve(ctx context.Context, address string, registry *prometheus.Registry, s *speaker.Speaker) error {
	mux := http.NewServeMux()
	mux.Handle("/metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	mux.HandleFunc("/healthz", probe(s.Healthy, "the loop is stuck"))
	mux.HandleFunc("/readyz", probe(s.Ready, "no decisions yet"))
	var config net.ListenConfig
	l, err := config.Listen(ctx, "tcp", address)
	if err != nil {
		return fmt.Errorf("--listen: %w", err)
	}
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	stop := context.AfterFunc(ctx, func() {
		grace, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = server.Shutdown(grace)
	})
	defer stop()
	if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
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
