package lab

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/heraldlb/herald/e2e/lab/router"
)

// The routing daemons of the lab.
const (
	FRR  = router.KindFRR
	BIRD = router.KindBIRD
)

// routerASNs has the AS number of the routers of each kind.
var routerASNs = map[router.Kind]uint32{FRR: FRRASN, BIRD: BIRDASN}

// Options of a [Lab]. The zero value is a lab of three nodes without a router.
type Options struct {
	// Nodes is the number of nodes at the start: 1 to [MaxNodes]. 0 means 3.
	Nodes int
	// Routers are the routers on the segment, router1 first, at most [MaxRouters].
	Routers []router.Kind
	// Password is the password of the BGP sessions (TCP MD5, RFC 2385), without spaces or quotes. If it is empty
	// the sessions have none.
	Password string
	// BFD is the packet interval of the routers' BFD sessions with the nodes. The multiplier is 20. 0 means no BFD.
	BFD time.Duration
	// BFDKeeps makes the routers keep the routes of gracefully restarting nodes when BFD fails.
	BFDKeeps bool
	// Images maps the name of an image to the path of the program that runs in its pods. test/app is always known.
	Images map[string]string
	ControlPlaneOptions
}

// ControlPlaneOptions are the options of a [ControlPlane]. A [Lab] has them too.
type ControlPlaneOptions struct {
	// Controllers starts kube-controller-manager with the controllers that create EndpointSlices,
	// empty deleted namespaces, collect garbage and run Deployments. A Lab always has them.
	Controllers bool
	// Bare leaves out Herald's custom resources, admission policies and namespaces. A Lab always has them.
	Bare bool
	// Database is a folder that [MakeDatabase] made. A control plane starts faster with a copy of it, because the
	// copy has Herald's custom resources, admission policies and namespaces. If Database is empty they are installed.
	Database string
	// Dir is the folder for logs, certificates and the database. If it is empty, the control plane
	// uses a temporary folder, which Close removes.
	Dir string
	// Root is the folder of Herald's go.mod, build/bin and manifests/crds. If it is empty,
	// [FindRoot] finds it.
	Root string
	// Progress is called at each step with a few words about it.
	Progress func(step string)
}

// complete sets the defaults and validates the options.
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
		if routerASNs[r] == 0 {
			return fmt.Errorf("lab: Options.Routers has %q: choose one of %v", r, slices.Sorted(maps.Keys(routerASNs)))
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

// binary returns the path of a program that this repository builds. If HERALD_RACE is set and there is a
// build with the race detector, it returns that one.
func (o *ControlPlaneOptions) binary(name string) string {
	if os.Getenv("HERALD_RACE") != "" {
		if path := filepath.Join(o.Root, "build", "race", name); exists(path) {
			return path
		}
	}
	return filepath.Join(o.Root, "build", "bin", name)
}

// Program returns the path of the build of a Herald program that the lab runs.
func (c *ControlPlane) Program(name string) string { return c.options.binary(name) }

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// FindRoot returns the first folder, from the working directory upwards, with both go.mod and Herald's manifests.
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
