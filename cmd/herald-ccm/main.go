// Command herald-ccm is Herald's cloud-controller-manager: it gives Services of type LoadBalancer
// addresses out of IPPools. It is the stock cloud-controller-manager with one controller, the service
// controller, and package provider as its cloud.
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
	// With 10,000 Services half the usual garbage is 25 MB less. To collect it twice as often takes more than a tenth
	// of the processor time, but only while many Services come at once, and the memory is taken for good.
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

// manager is the process: what the pieces of the stock command share.
type manager struct {
	// ctx ends when the process is told to stop. The contexts that the stock app hands out do not: with
	// leader election they end only with the lease.
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
	events  record.EventBroadcaster
}

// command is the stock command with our defaults, our flags and the one controller.
func (m *manager) command() (*cobra.Command, error) {
	opts, err := options.NewCloudControllerManagerOptions()
	if err != nil {
		return nil, err
	}
	opts.KubeCloudShared.CloudProvider.Name = provider.Name
	// A lease of our own, so that another cloud-controller-manager can live in the same cluster.
	opts.Generic.LeaderElection.ResourceName = "herald-ccm"
	opts.Generic.LeaderElection.ResourceNamespace = namespace()
	// The stock defaults (1 worker, 20 requests a second) would take half an hour over 10,000 Services. Each worker
	// waits for its answers, so their number bounds what the API server has to do at once; how much of that it does is
	// its own decision (priority and fairness), and no rate of ours can be right for every one.
	opts.ServiceController.ConcurrentServiceSyncs = 16
	opts.Generic.ClientConnection.QPS = -1
	// Controllers start without a pause: there is one.
	opts.Generic.ControllerStartInterval.Duration = 0
	m.election = opts

	flags := flag.NamedFlagSets{}
	own := flags.FlagSet("herald")
	own.TextVar(&m.logLevel, "log-level", m.logLevel, "What is logged: debug, info, warn or error.")
	own.StringVar(&m.class, "load-balancer-class", herald.LoadBalancerClass, "The spec.loadBalancerClass of the Services to serve.")
	own.BoolVar(&m.classless, "serve-classless", true, "Whether to serve Services without spec.loadBalancerClass. Turn it off where another load balancer does.")
	own.Var(&m.quota, "namespace-quota", "The most addresses of each family that a namespace may hold, as ipv4=5,ipv6=5, where its annotation herald.dev/quota says nothing.")
	own.Var(&m.foreign, "foreign-annotations", "Load balancers whose annotations of Services are read as if they were Herald's, separated by commas: metallb, purelb, kube-vip, cilium. docs/moving.md lists the annotations.")
	own.BoolVar(&m.deadNodes, "mark-pods-on-dead-nodes", false, "Mark the pods on a node not ready as soon as its neighbours report that it died, which Kubernetes does about 45 s later. It takes the rights of manifests/components/dead-nodes.")

	controllers := map[string]app.ControllerInitFuncConstructor{
		names.ServiceLBController: {InitContext: app.ControllerInitContext{ClientName: "service-controller"}, Constructor: m.serviceController},
	}
	cmd := app.NewCloudControllerManagerCommand(opts, m.cloud, controllers, names.CCMControllerAliases(), flags, m.ctx.Done())
	cmd.Use = "herald-ccm"
	cmd.Long = "herald-ccm gives Services of type LoadBalancer addresses out of IPPools."
	cmd.SilenceUsage, cmd.SilenceErrors = true, true
	// The stock command would tell the version of the Kubernetes libraries.
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

// cloud makes the provider. It runs on every replica, before election.
func (m *manager) cloud(c *config.CompletedConfig) cloudprovider.Interface {
	// Here rather than at start: the command's own logging flags take effect in between.
	klog.SetLogger(zapr.NewLogger(m.log))
	kube := c.ClientBuilder.ClientOrDie("herald")
	set, err := client.New(rest.AddUserAgent(c.Kubeconfig, "herald/"+version.String()))
	if err != nil {
		m.log.Fatal("client for Herald's resources", zap.Error(err)) // Only a wrong kubeconfig, which has been read before, gets here.
	}
	set.OnDecodeError(func(err *client.DecodeError) { m.log.Error("an object is left out", zap.Error(err)) })
	untyped, err := dynamic.NewForConfig(rest.AddUserAgent(c.Kubeconfig, "herald/"+version.String()))
	if err != nil {
		m.log.Fatal("client for SpeakerStatuses", zap.Error(err))
	}
	legacyregistry.RawMustRegister(metrics.BuildInfo(), metrics.Unreadable(set))
	if e := m.election.Generic.LeaderElection; e.LeaderElect {
		m.lease = &lease{leases: kube.CoordinationV1().Leases(e.ResourceNamespace), name: e.ResourceName}
	}
	kinds := runtime.NewScheme()
	_, _ = scheme.AddToScheme(kinds), herald.AddToScheme(kinds) // They fail only if called with two types of one name.
	m.events = record.NewBroadcaster()
	m.events.StartRecordingToSink(&typedcorev1.EventSinkImpl{Interface: kube.CoreV1().Events("")})
	return provider.New(provider.Config{
		Kube: kube, Herald: set, Dynamic: untyped,
		Services:   c.SharedInformers.Core().V1().Services(),
		Namespaces: c.SharedInformers.Core().V1().Namespaces(),
		Events:     m.events.NewRecorder(kinds, corev1.EventSource{Component: "herald"}),
		Class:      m.class, Classless: m.classless, Quota: m.quota.Limits, Foreign: m.foreign, Namespace: namespace(), MarkPodsOnDeadNodes: m.deadNodes,
		Metrics: legacyregistry.Registerer(),
		Log:     m.log,
	})
}

// serviceController starts the stock service controller on the provider's projection of the Services.
// It runs on the leader.
func (m *manager) serviceController(init app.ControllerInitContext, c *config.CompletedConfig, cloud cloudprovider.Interface) app.InitFunc {
	return func(_ context.Context, shared genericcontrollermanager.ControllerContext) (controller.Interface, bool, error) {
		p := cloud.(*provider.Provider)
		services, err := servicecontroller.New(cloud, provider.Client(c.ClientBuilder.ClientOrDie(init.ClientName)), p.Services(), provider.OneNode(),
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
				m.log.Error("provider", zap.Error(err))
			}
		})
		return nil, begun, nil
	}
}

// leave ends the process in order: what served has been stopped before the lease is given up. The stock
// controller does not wait for its workers, so one that is just writing a status may finish that; the
// records keep even then two Services from having one address.
func (m *manager) leave() {
	m.serving.end()
	if m.events != nil {
		m.events.Shutdown()
	}
	if m.lease != nil {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if err := m.lease.release(ctx); err != nil {
			m.log.Warn("lease not released: the next leader waits for it to expire", zap.Error(err))
		}
	}
	_ = m.log.Sync()
}

// namespace is where this process runs, and its lease belongs.
func namespace() string {
	if ns := os.Getenv("POD_NAMESPACE"); ns != "" {
		return ns
	}
	return "herald-system"
}
