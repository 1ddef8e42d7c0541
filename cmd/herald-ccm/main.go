// Command herald-ccm is Herald's cloud controller manager. It assigns addresses of IPPools to Services of type
// LoadBalancer. It is the stock cloud-controller-manager with one controller, the service controller, and with package
// provider as the cloud provider.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"
	"time"

	"github.com/go-logr/zapr"
	"github.com/spf13/cobra"
	"go.uber.org/zap"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes/scheme"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/record"
	cloudprovider "k8s.io/cloud-provider"
	"k8s.io/cloud-provider/app"
	"k8s.io/cloud-provider/app/config"
	servicecontroller "k8s.io/cloud-provider/controllers/service"
	"k8s.io/cloud-provider/names"
	"k8s.io/cloud-provider/options"
	"k8s.io/component-base/cli/flag"
	"k8s.io/component-base/metrics/legacyregistry"
	_ "k8s.io/component-base/metrics/prometheus/clientgo"
	_ "k8s.io/component-base/metrics/prometheus/version"
	genericcontrollermanager "k8s.io/controller-manager/app"
	"k8s.io/controller-manager/controller"
	"k8s.io/klog/v2"

	"github.com/heraldlb/herald/api/client"
	herald "github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/cmd/internal/metrics"
	"github.com/heraldlb/herald/cmd/internal/version"
	"github.com/heraldlb/herald/provider"
)

func main() { os.Exit(run()) }

func run() int {
	// With 10,000 Services, half the usual garbage saves 25 MB. The more frequent collection takes more than a tenth
	// of the processor time, but only while many Services arrive at once. The memory would be taken permanently.
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(50)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	logging := zap.NewProductionConfig()
	log, err := logging.Build()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	m := &manager{ctx: ctx, log: log, logLevel: logging.Level}
	cmd, err := m.command()
	if err == nil {
		err = cmd.ExecuteContext(ctx)
	}
	m.leave()
	if err != nil {
		log.Error("herald-ccm ends", zap.Error(err))
		return 1
	}
	return 0
}

// manager is the state of the process that the parts of the stock command share.
type manager struct {
	// ctx ends when the process is told to stop. The contexts of the stock app do not: with leader election they end
	// only when the lease is lost.
	ctx      context.Context
	log      *zap.Logger
	logLevel zap.AtomicLevel

	class     string
	classless bool
	quota     provider.Quota
	foreign   provider.Foreign
	deadNodes bool
	election  *options.CloudControllerManagerOptions

	serving serving
	lease   *lease
	events  []record.EventBroadcaster
}

// command returns the stock command with Herald's defaults and flags, and only the service controller.
func (m *manager) command() (*cobra.Command, error) {
	opts, err := options.NewCloudControllerManagerOptions()
	if err != nil {
		return nil, err
	}
	opts.KubeCloudShared.CloudProvider.Name = provider.Name
	// The lease has its own name, so that the cluster can have another cloud-controller-manager.
	opts.Generic.LeaderElection.ResourceName = "herald-ccm"
	opts.Generic.LeaderElection.ResourceNamespace = namespace()
	// With the stock defaults (1 worker, 20 requests per second) 10,000 Services would take half an hour. Each worker
	// waits for its responses, so the number of workers limits the concurrent requests. How many of these the API
	// server processes is its own decision (API Priority and Fairness), and no fixed rate of the client would suit
	// every API server.
	opts.ServiceController.ConcurrentServiceSyncs = 16
	opts.Generic.ClientConnection.QPS = -1
	// There is only one controller, so no pause between the starts of controllers is needed.
	opts.Generic.ControllerStartInterval.Duration = 0
	m.election = opts

	flags := flag.NamedFlagSets{}
	own := flags.FlagSet("herald")
	own.TextVar(&m.logLevel, "log-level", m.logLevel, "What is logged: debug, info, warn or error.")
	own.StringVar(&m.class, "load-balancer-class", herald.LoadBalancerClass, "The spec.loadBalancerClass of the Services to serve.")
	own.BoolVar(&m.classless, "serve-classless", true, "Whether to serve Services without spec.loadBalancerClass. Turn it off where another load balancer does.")
	own.Var(&m.quota, "namespace-quota", "The most addresses of each family that a namespace may hold, as ipv4=5,ipv6=5, where its annotation herald.dev/quota says nothing.")
	own.Var(&m.foreign, "foreign-annotations", "Load balancers whose annotations of Services are read as if they were Herald's, separated by commas: metallb, purelb, kube-vip, cilium. docs/moving.md lists the annotations.")
	own.BoolVar(&m.deadNodes, "mark-pods-on-dead-nodes", false, "Mark the pods on a node not ready as soon as its neighbours report that it died, which Kubernetes does about 45 s later. This needs the rights in manifests/components/dead-nodes.")

	controllers := map[string]app.ControllerInitFuncConstructor{
		names.ServiceLBController: {InitContext: app.ControllerInitContext{ClientName: "service-controller"}, Constructor: m.serviceController},
	}
	cmd := app.NewCloudControllerManagerCommand(opts, m.cloud, controllers, names.CCMControllerAliases(), flags, m.ctx.Done())
	cmd.Use = "herald-ccm"
	cmd.Long = "herald-ccm gives Services of type LoadBalancer addresses out of IPPools."
	cmd.SilenceUsage, cmd.SilenceErrors = true, true
	// The stock command would print the version of the Kubernetes libraries.
	serve := cmd.RunE
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if asked := cmd.Flags().Lookup("version"); asked != nil && asked.Value.String() != "false" {
			_, err := fmt.Fprintln(cmd.OutOrStdout(), cmd.Name(), "version", version.String())
			return err
		}
		return serve(cmd, args)
	}
	return cmd, nil
}

// cloud creates the provider. It runs on every replica, before the election.
func (m *manager) cloud(c *config.CompletedConfig) cloudprovider.Interface {
	// Set here and not at the start, because the command's own logging flags take effect in between.
	klog.SetLogger(zapr.NewLogger(m.log))
	kube := c.ClientBuilder.ClientOrDie("herald")
	set, err := client.New(rest.AddUserAgent(c.Kubeconfig, "herald/"+version.String()))
	if err != nil {
		m.log.Fatal("client for Herald's resources", zap.Error(err)) // A wrong kubeconfig would have failed before.
	}
	set.OnDecodeError(func(err *client.DecodeError) {
		m.log.Error("ignoring an object that cannot be decoded", zap.Error(err))
	})
	untyped, err := dynamic.NewForConfig(rest.AddUserAgent(c.Kubeconfig, "herald/"+version.String()))
	if err != nil {
		m.log.Fatal("client for SpeakerStatuses", zap.Error(err))
	}
	legacyregistry.RawMustRegister(metrics.BuildInfo(), metrics.Unreadable(set))
	if e := m.election.Generic.LeaderElection; e.LeaderElect {
		m.lease = &lease{leases: kube.CoordinationV1().Leases(e.ResourceNamespace), name: e.ResourceName}
	}
	kinds := runtime.NewScheme()
	_, _ = scheme.AddToScheme(kinds), herald.AddToScheme(kinds) // They fail only if one name has two types.
	recorder := func() record.EventRecorder {
		events := record.NewBroadcaster()
		events.StartRecordingToSink(&typedcorev1.EventSinkImpl{Interface: kube.CoreV1().Events("")})
		m.events = append(m.events, events)
		return events.NewRecorder(kinds, corev1.EventSource{Component: "herald"})
	}
	return provider.New(provider.Config{
		Kube: kube, Herald: set, Dynamic: untyped,
		Services:   c.SharedInformers.Core().V1().Services(),
		Namespaces: c.SharedInformers.Core().V1().Namespaces(),
		Events:     recorder(), Many: recorder(),
		Class: m.class, Classless: m.classless, Quota: m.quota.Limits, Foreign: m.foreign, Namespace: namespace(), MarkPodsOnDeadNodes: m.deadNodes,
		Metrics: legacyregistry.Registerer(),
		Log:     m.log,
	})
}

// serviceController starts the stock service controller, which sees the provider's projection of the Services. It runs
// on the leader.
func (m *manager) serviceController(init app.ControllerInitContext, c *config.CompletedConfig, cloud cloudprovider.Interface) app.InitFunc {
	return func(_ context.Context, shared genericcontrollermanager.ControllerContext) (controller.Interface, bool, error) {
		p := cloud.(*provider.Provider)
		services, err := servicecontroller.New(cloud, p.Client(c.ClientBuilder.ClientOrDie(init.ClientName)), p.Services(), provider.OneNode(),
			c.ComponentConfig.KubeCloudShared.ClusterName, nil)
		if err != nil {
			return nil, false, err
		}
		if m.lease != nil {
			m.lease.led.Store(true)
		}
		begun := m.serving.begin(func() {
			if err := p.Run(m.ctx, func(ctx context.Context) {
				services.Run(ctx, int(c.ComponentConfig.ServiceController.ConcurrentServiceSyncs), shared.ControllerManagerMetrics)
			}); err != nil {
				m.log.Error("the provider failed", zap.Error(err))
			}
		})
		return nil, begun, nil
	}
}

// leave ends the process in order: it releases the lease after serving has stopped. The stock controller does not wait
// for its workers, so a worker may still finish a write of a status. Even then the records prevent that two Services
// have one address.
func (m *manager) leave() {
	m.serving.end()
	for _, events := range m.events {
		events.Shutdown()
	}
	if m.lease != nil {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if err := m.lease.release(ctx); err != nil {
			m.log.Warn("failed to release the leader's Lease: the next leader waits until it expires", zap.Error(err))
		}
	}
	_ = m.log.Sync()
}

// namespace returns the namespace in which this process runs and has its lease.
func namespace() string {
	if ns := os.Getenv("POD_NAMESPACE"); ns != "" {
		return ns
	}
	return "herald-system"
}
