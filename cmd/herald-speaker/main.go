// Command herald-speaker announces the addresses of Services from the node on which it runs: by ARP and NDP on
// the node's segments, and by BGP to routers.
package main

import (
	"cmp"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/go-logr/zapr"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/spf13/cobra"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/kubernetes"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/record"
	"k8s.io/klog/v2"

	"github.com/heraldlb/herald/api/client"
	"github.com/heraldlb/herald/cmd/internal/metrics"
	"github.com/heraldlb/herald/cmd/internal/version"
	"github.com/heraldlb/herald/speaker"
	"github.com/heraldlb/herald/speaker/link"
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

// flags are the settings that differ between nodes or installations.
type flags struct {
	kubeconfig, node, namespace, peers, listen, proxyHealth, proxyMetrics string
	refresh                                                               time.Duration
	l2Only, profiling                                                     bool
	logLevel                                                              zap.AtomicLevel
}

func command() *cobra.Command {
	f := flags{logLevel: zap.NewAtomicLevel()}
	cmd := &cobra.Command{
		Use:     "herald-speaker",
		Short:   "Announces the addresses of Services from this node.",
		Version: version.String(),
		Args:    cobra.NoArgs, SilenceUsage: true, SilenceErrors: true,
		RunE:              func(cmd *cobra.Command, _ []string) error { return f.run(cmd.Context()) },
		CompletionOptions: cobra.CompletionOptions{DisableDefaultCmd: true},
	}
	cmd.AddCommand(testCommand())
	namespace := os.Getenv("POD_NAMESPACE")
	if namespace == "" {
		namespace = "herald-system"
	}
	set := cmd.Flags()
	set.StringVar(&f.kubeconfig, "kubeconfig", "", "How to reach the API server; empty inside a pod.")
	set.StringVar(&f.node, "node-name", os.Getenv("NODE_NAME"), "The name of this node (default $NODE_NAME).")
	set.StringVar(&f.namespace, "namespace", namespace, "Herald's namespace, which has the Leases of the speakers (default $POD_NAMESPACE).")
	set.StringVar(&f.peers, "peers-namespace", "", "The namespace of the Secrets that BGPPeers name (default: that of --namespace, followed by -peers). The Role and RoleBinding herald-speaker of herald-system-peers must be there, too: a speaker that cannot read Secrets announces nothing.")
	set.StringVar(&f.listen, "listen", ":7475", "Where /healthz, /readyz, /metrics, /verify and /bgp are served, by HTTPS.")
	set.BoolVar(&f.profiling, "profiling", false, "Serve /debug/pprof at the address of --listen, to clients that the API server authorizes.")
	set.TextVar(&f.logLevel, "log-level", f.logLevel, "What is logged: debug, info, warn or error.")
	set.StringVar(&f.proxyHealth, "kube-proxy-healthz", "http://127.0.0.1:10256/healthz",
		"The URL of the health check of the node's kube-proxy. The node announces nothing while it fails. Empty: another data path serves Services.")
	set.StringVar(&f.proxyMetrics, "kube-proxy-metrics", "http://127.0.0.1:10249/metrics",
		"The URL of the metrics of the node's kube-proxy. A new address is announced once they show that kube-proxy forwards it, or after three seconds at the latest; "+
			"after ten seconds at the latest if kube-proxy says that it does not forward the address yet. Empty: at once.")
	set.BoolVar(&f.l2Only, "l2-only", false, "Announce on the segment only: no BGPPeer, BGPAdvertisement or Secret is read.")
	set.DurationVar(&f.refresh, "l2-refresh", time.Minute,
		"The time between two unsolicited announcements of an address on the segment. 0: only when it moves.")
	return cmd
}

func (f *flags) run(ctx context.Context) error {
	if f.node == "" {
		return errors.New("--node-name: the name of the node is missing: set the flag or the environment variable NODE_NAME")
	}
	if f.refresh < 0 || f.refresh > 0 && f.refresh < time.Second {
		return fmt.Errorf("--l2-refresh: %s is less than 1s: write 0 for no announcements, or at least 1s", f.refresh)
	}
	logging := zap.NewProductionConfig()
	logging.Level = f.logLevel
	log, err := logging.Build()
	if err != nil {
		return err
	}
	defer func() { _ = log.Sync() }()
	klog.SetLogger(zapr.NewLogger(log.Named("client-go")))
	config, err := clientcmd.BuildConfigFromFlags("", f.kubeconfig)
	if err != nil {
		return err
	}
	config.UserAgent = "herald-speaker/" + version.String()
	// The number of writes of a speaker depends on the changes on its node.
	config.QPS, config.Burst = 50, 100
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
	// Anybody who connects to the speaker's port causes reviews. Reviews must not use up the speaker's own
	// request rate.
	reviewConfig := rest.CopyConfig(kubeConfig)
	reviewConfig.QPS, reviewConfig.Burst = 5, 10
	reviewsKube, err := kubernetes.NewForConfig(reviewConfig)
	if err != nil {
		return err
	}
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		return err
	}
	var boot [8]byte
	_, _ = rand.Read(boot[:]) // crypto/rand.Read never fails.
	broadcaster := record.NewBroadcaster(record.WithContext(ctx))
	defer broadcaster.Shutdown()
	broadcaster.StartRecordingToSink(&typedcorev1.EventSinkImpl{Interface: kube.CoreV1().Events("")})
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), metrics.BuildInfo(), metrics.Unreadable(set), metrics.Requests())
	set.OnDecodeError(func(err *client.DecodeError) { log.Error("ignoring an object that cannot be decoded", zap.Error(err)) })
	s, err := speaker.New(speaker.Config{
		Kube: kube, Herald: set, Boot: binary.BigEndian.Uint64(boot[:]), Key: key, Refresh: f.refresh,
		Events: broadcaster.NewRecorder(client.Scheme, corev1.EventSource{Component: "herald-speaker", Host: f.node}),
		Node:   f.node, Pod: os.Getenv("POD_NAME"), Namespace: f.namespace, PeersNamespace: cmp.Or(f.peers, f.namespace+"-peers"), L2Only: f.l2Only, KubeProxyHealth: f.proxyHealth, KubeProxyMetrics: f.proxyMetrics,
		Metrics: registry, Log: log,
	})
	if err != nil {
		return err
	}
	server, err := newServer(serverConfig{
		Key: key, Reviews: newReviews(reviewsKube), Metrics: registry, Healthy: s.Healthy, Ready: s.Ready, Interfaces: link.List, Routing: s.Routing,
		Profiling: f.profiling, Log: log.Named("server"),
	})
	if err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return server.run(ctx, f.listen) })
	g.Go(func() error { return s.Run(ctx) })
	return g.Wait()
}
