package router

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/heraldlb/herald/e2e/lab/enclave"
)

// Kind is a routing daemon.
type Kind string

// The kinds.
const (
	KindFRR  Kind = "FRR"
	KindBIRD Kind = "BIRD"
)

// starters has a function for each kind that starts a router with a configuration.
var starters = map[Kind]func(ctx context.Context, host enclave.Host, dir string, c Config) (Router, error){
	KindFRR: func(ctx context.Context, host enclave.Host, dir string, c Config) (Router, error) {
		return started(StartFRR(ctx, host, dir, c.FRR()))
	},
	KindBIRD: func(ctx context.Context, host enclave.Host, dir string, c Config) (Router, error) {
		return started(StartBIRD(ctx, host, dir, c.BIRD()))
	},
}

// started avoids an interface that holds a nil pointer.
func started[R Router](r R, err error) (Router, error) {
	if err != nil {
		return nil, err
	}
	return r, nil
}

// Kinds returns all kinds, sorted.
func Kinds() []Kind { return slices.Sorted(maps.Keys(starters)) }

// Start starts a router of a kind, and returns when it answers. Its files are in dir: see StartFRR and StartBIRD.
func Start(ctx context.Context, kind Kind, host enclave.Host, dir string, c Config) (Router, error) {
	start, known := starters[kind]
	if !known {
		return nil, fmt.Errorf("there is no router of kind %q: choose one of %v", kind, Kinds())
	}
	return start(ctx, host, dir, c)
}
