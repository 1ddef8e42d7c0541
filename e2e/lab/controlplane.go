package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/go-logr/logr"
	"golang.org/x/sync/errgroup"
	"sigs.k8s.io/controller-runtime/pkg/envtest"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/heraldlb/herald/e2e/lab/enclave"
)

// programs are the programs in the multi-call binary that the lab runs.
var programs = []string{"etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kube-proxy", "kubectl"}

// controllers are the controllers that kube-controller-manager runs. The lab manages Nodes and Herald manages
// load balancers, so the controllers for these are left out.
var controllers = []string{
	"endpointslice-controller", "namespace-controller", "garbage-collector-controller",
	"deployment-controller", "replicaset-controller", "daemonset-controller", "statefulset-controller",
	"clusterrole-aggregation-controller",
}

// ControlPlane is a real etcd and kube-apiserver with Herald's custom resources and the namespace
// herald-system. It has no nodes.
type ControlPlane struct {
	Access
	options   ControlPlaneOptions
	temporary bool // Close removes the folder.
	env       *envtest.Environment
	files     []io.Closer // Logs of etcd and kube-apiserver.

	mu        sync.Mutex
	processes []*Process // In the order of their creation.
}

// StartControlPlane starts a control plane on the loopback interface. It needs neither an enclave nor
// root. Within an enclave it cannot outlive the program.
func StartControlPlane(ctx context.Context, o ControlPlaneOptions) (*ControlPlane, error) {
	if err := o.complete(); err != nil {
		return nil, err
	}
	c, err := startServer(o, "")
	if err != nil {
		return nil, err
	}
	if err := c.install(ctx); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

// MakeDatabase creates a folder with the database of a control plane that has Herald's custom resources, admission
// policies and namespaces.
func MakeDatabase(ctx context.Context, dir string) error {
	work, err := os.MkdirTemp(filepath.Dir(dir), "herald-database-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	c, err := StartControlPlane(ctx, ControlPlaneOptions{Dir: work})
	if err != nil {
		return err
	}
	// The files are complete once etcd has ended.
	if err := c.Close(); err != nil {
		return err
	}
	return os.Rename(filepath.Join(work, "etcd"), dir)
}

// startServer starts etcd and the API server, which listens on the address; "" means the loopback
// interface. It takes no context because envtest takes none.
func startServer(o ControlPlaneOptions, address string) (*ControlPlane, error) {
	c := &ControlPlane{options: o}
	err := c.furnish()
	if err == nil {
		o.Progress("starting etcd and kube-apiserver")
		err = c.startServer(address)
	}
	if err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

// install starts the controllers and, unless the control plane is to be bare, installs Herald's resources.
func (c *ControlPlane) install(ctx context.Context) error {
	parallel, inner := errgroup.WithContext(ctx)
	if c.options.Database == "" && !c.options.Bare {
		c.options.Progress("installing the custom resources")
		parallel.Go(func() error {
			_, err := envtest.InstallCRDs(c.Config, envtest.CRDInstallOptions{
				Paths: []string{filepath.Join(c.options.Root, "manifests", "crds")}, ErrorIfPathMissing: true, PollInterval: tick,
			})
			return err
		})
		parallel.Go(func() error { return c.createPolicies(inner) })
		parallel.Go(func() error { return c.createNamespace(inner, HeraldNamespace) })
		parallel.Go(func() error { return c.createNamespace(inner, PeersNamespace) })
	}
	if c.options.Controllers {
		parallel.Go(c.startControllers)
	}
	if err := parallel.Wait(); err != nil || c.options.Bare {
		return err
	}
	return c.awaitPolicies(ctx)
}

// furnish creates the folder with its subfolders and the links to the programs.
func (c *ControlPlane) furnish() error {
	if c.options.Dir == "" {
		// An enclave has its own /run in memory, which is removed with the enclave.
		parent := ""
		if os.Getpid() == 1 {
			parent = "/run"
		}
		dir, err := os.MkdirTemp(parent, "herald-lab-")
		if err != nil {
			return err
		}
		c.options.Dir, c.temporary = dir, true
		// The routing daemons run as other users.
		if err := os.Chmod(dir, 0o755); err != nil {
			return err
		}
	}
	dir, err := filepath.Abs(c.options.Dir)
	if err != nil {
		return err
	}
	c.options.Dir = dir
	c.Access = Access{Kubeconfig: c.path("kubeconfig"), kubectl: c.path("bin", "kubectl"), cache: c.path("kubectl-cache"), plugins: filepath.Dir(c.options.binary("kubernetes"))}
	for _, sub := range []string{"bin", "logs", "etcd", "certs"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o755); err != nil {
			return err
		}
	}
	if c.options.Database != "" {
		if err := os.CopyFS(c.path("etcd"), os.DirFS(c.options.Database)); err != nil {
			return err
		}
	}
	for _, p := range programs {
		link := filepath.Join(dir, "bin", p)
		if err := os.Symlink(c.options.binary("kubernetes"), link); err != nil && !errors.Is(err, os.ErrExist) {
			return err
		}
	}
	return nil
}

// discardLogs gives controller-runtime a logger. Without one it prints a warning.
var discardLogs = sync.OnceFunc(func() { log.SetLogger(logr.Discard()) })

func (c *ControlPlane) startServer(address string) (err error) {
	discardLogs()
	server, etcd := &envtest.APIServer{CertDir: c.path("certs")}, &envtest.Etcd{DataDir: c.path("etcd")}
	if address != "" {
		server.SecureServing.ListenAddr = envtest.ListenAddr{Address: address, Port: "6443"}
	}
	apiServer, _ := onSegment(apiServerHost)
	server.Configure().
		Set("service-cluster-ip-range", serviceCIDRs).
		// Pods in the lab have no token to mount, and no controller would remove the taint from new Nodes.
		Set("disable-admission-plugins", "ServiceAccount", "TaintNodesByCondition").
		// Otherwise kube-apiserver looks for a default route, and an enclave has none.
		Set("advertise-address", apiServer.Addr().String())
	// The only member elects itself after the election timeout. Both values are in milliseconds.
	etcd.Configure().Set("heartbeat-interval", "10").Set("election-timeout", "100")
	for name, out := range map[string][]*io.Writer{
		"etcd":           {&etcd.Out, &etcd.Err},
		"kube-apiserver": {&server.Out, &server.Err},
	} {
		f, err := os.Create(c.logPath(name))
		if err != nil {
			return err
		}
		c.files = append(c.files, f)
		for _, w := range out {
			*w = f
		}
	}
	c.env = &envtest.Environment{BinaryAssetsDirectory: c.path("bin"), ControlPlane: envtest.ControlPlane{APIServer: server, Etcd: etcd}}
	if _, err = c.env.Start(); err != nil {
		return fmt.Errorf("start the API server: %w: see %s", err, c.logPath("kube-apiserver"))
	}
	if err := os.WriteFile(c.Kubeconfig, c.env.KubeConfig, 0o600); err != nil {
		return err
	}
	return c.connect()
}

func (c *ControlPlane) startControllers() error {
	return c.process(enclave.Host{}, "kube-controller-manager", c.path("bin", "kube-controller-manager"),
		"--kubeconfig", c.Kubeconfig, "--controllers", strings.Join(controllers, ","),
		"--leader-elect=false", "--secure-port=0", "--kube-api-qps=1000", "--kube-api-burst=2000",
	).Start()
}

// APIServer returns the kube-apiserver, whose process envtest does not expose.
func (c *ControlPlane) APIServer() Resident { return Resident{Program: "kube-apiserver"} }

// Dir is the folder of logs, certificates and the database.
func (c *ControlPlane) Dir() string { return c.options.Dir }

// KubeconfigFor writes a kubeconfig for a user and returns the file's path. With it, a program runs
// with the rights that its manifests give it: its service account is the user
// system:serviceaccount:NAMESPACE:NAME with the group system:serviceaccounts.
func (c *ControlPlane) KubeconfigFor(user string, groups ...string) (string, error) {
	u, err := c.env.AddUser(envtest.User{Name: user, Groups: groups}, nil)
	if err != nil {
		return "", err
	}
	content, err := u.KubeConfig()
	if err != nil {
		return "", err
	}
	path := c.path("kubeconfig-" + strings.ReplaceAll(user, ":", "-"))
	return path, os.WriteFile(path, content, 0o600)
}

// process makes a process that Close ends. If the name is taken, process appends a number to it.
func (c *ControlPlane) process(host enclave.Host, name, path string, args ...string) *Process {
	c.mu.Lock()
	defer c.mu.Unlock()
	base := name
	for n := 2; c.named(name) != nil; n++ {
		name = fmt.Sprintf("%s-%d", base, n)
	}
	p := &Process{Name: name, Host: host, Path: path, Args: args, LogPath: c.logPath(name)}
	c.processes = append(c.processes, p)
	return p
}

// Processes returns the processes in the order of their creation, whether they are running or not. It does not
// include those of pods, etcd and kube-apiserver.
func (c *ControlPlane) Processes() []*Process {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]*Process(nil), c.processes...)
}

func (c *ControlPlane) named(name string) *Process {
	for _, p := range c.processes {
		if p.Name == name {
			return p
		}
	}
	return nil
}

func (c *ControlPlane) path(elem ...string) string {
	return filepath.Join(append([]string{c.options.Dir}, elem...)...)
}

func (c *ControlPlane) logPath(name string) string { return c.path("logs", name+".log") }

// Close ends every process and removes the folder if it is a temporary one.
func (c *ControlPlane) Close() error {
	var all errgroup.Group
	for _, p := range c.Processes() {
		all.Go(p.Kill) // They have no data that needs saving.
	}
	errs := []error{all.Wait()}
	if c.env != nil {
		errs = append(errs, c.env.Stop())
	}
	for _, f := range c.files {
		errs = append(errs, f.Close())
	}
	if c.temporary {
		errs = append(errs, os.RemoveAll(c.options.Dir))
	}
	return errors.Join(errs...)
}
