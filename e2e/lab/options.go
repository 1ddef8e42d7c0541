package lab

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// RouterKind says which routing daemon a router runs.
type RouterKind string

// The routing daemons of the lab.
const (
	FRR  RouterKind = "FRR"
	BIRD RouterKind = "BIRD"
)

// Options of a [Lab]. The zero value is a lab of three nodes without a router.
type Options struct {
	// Nodes is how many there are at the start: 1 to [MaxNodes], 3 if it is 0.
	Nodes int
	// Routers on the segment, at most [MaxRouters]: the first is router1.
	Routers []RouterKind
	// Password of the BGP sessions (TCP MD5, RFC 2385), without spaces. None if empty.
	Password string
	// BFD has the routers watch the paths to the nodes by BFD, with packets this often and a multiplier of 20; 0: they do not.
	BFD time.Duration
	// BFDKeeps has the routers keep the routes of nodes that restart gracefully when BFD fails.
	BFDKeeps bool
	// Images says which program runs in a pod, by the name of the image. test/app is always there.
	Images map[string]string
	ControlPlaneOptions
}

// ControlPlaneOptions are those that a control plane alone has too.
type ControlPlaneOptions struct {
	// Controllers starts kube-controller-manager with the controllers that make endpoint slices,
	// empty deleted namespaces, collect garbage and run Deployments. A Lab always has them.
	Controllers bool
	// Bare leaves out Herald's custom resources, admission policies and namespaces. A Lab never does.
	Bare bool
	// Database is a folder that [MakeDatabase] has made. A control plane that begins with a copy of it has Herald's custom
	// resources, admission policies and namespaces already, and starts sooner. If empty it installs them.
	Database string
	// Dir gets logs, certificates and the database. If empty it is a temporary folder, which
	// Close removes.
	Dir string
	// Root is the folder of Herald's go.mod, where build/bin and manifests/crds are. If empty it
	// is looked for upwards from the working directory.
	Root string
	// Progress is told what is being done now, in a few words.
	Progress func(step string)
}

// complete fills in what was left out, and refuses what cannot be.
func (o *Options) complete() error {
	if o.Nodes == 0 {
		o.Nodes = 3
	}
	if o.Nodes < 1 || o.Nodes > MaxNodes {
		return fmt.Errorf("lab: Options.Nodes is %d: choose 1 to %d", o.Nodes, MaxNodes)
	}
	if len(o.Routers) > MaxRouters {
		return fmt.Errorf("lab: Options.Routers has %d: choose at most %d", len(o.Routers), MaxRouters)
	}
	for _, r := range o.Routers {
		if r != FRR && r != BIRD {
			return fmt.Errorf("lab: Options.Routers has %q: choose %s or %s", r, FRR, BIRD)
		}
	}
	if strings.ContainsAny(o.Password, " \t\n\"") {
		return fmt.Errorf("lab: Options.Password %q cannot be written in the routers' configurations: leave out spaces and quotes", o.Password)
	}
	if err := o.ControlPlaneOptions.complete(); err != nil {
		return err
	}
	images := map[string]string{"test/app": o.binary("app")}
	maps.Copy(images, o.Images)
	o.Images = images
	return nil
}

func (o *ControlPlaneOptions) complete() (err error) {
	if o.Progress == nil {
		o.Progress = func(string) {}
	}
	if o.Root == "" {
		if o.Root, err = FindRoot(); err != nil {
			return err
		}
	}
	if _, err := os.Stat(o.binary("kubernetes")); err != nil {
		return fmt.Errorf("lab: Kubernetes is not built: %w: run `make kubernetes`", err)
	}
	return nil
}

// binary is the path of a program of ours. Where HERALD_RACE is set, those that were built with the race
// detector come first.
func (o *ControlPlaneOptions) binary(name string) string {
	if os.Getenv("HERALD_RACE") != "" {
		if path := filepath.Join(o.Root, "build", "race", name); exists(path) {
			return path
		}
	}
	return filepath.Join(o.Root, "build", "bin", name)
}

// Program is the path of a program of Herald's, as the lab runs it.
func (c *ControlPlane) Program(name string) string { return c.options.binary(name) }

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// FindRoot goes up from the working directory to the folder that has both go.mod and our manifests.
func FindRoot() (string, error) {
	start, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for dir := start; ; dir = filepath.Dir(dir) {
		_, noModule := os.Stat(filepath.Join(dir, "go.mod"))
		_, noManifests := os.Stat(filepath.Join(dir, "manifests", "crds"))
		if err := errors.Join(noModule, noManifests); err == nil {
			return dir, nil
		} else if !errors.Is(err, fs.ErrNotExist) {
			return "", err
		}
		if dir == filepath.Dir(dir) {
			return "", fmt.Errorf("lab: no Herald source tree at or above %s: set Options.Root", start)
		}
	}
}
