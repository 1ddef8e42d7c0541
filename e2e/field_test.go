package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/heraldlb/herald/e2e/kind"
	"github.com/heraldlb/herald/e2e/lab"
	"github.com/heraldlb/herald/e2e/lab/enclave"
)

// field is a cluster with Herald, routers and clients. A story with a field runs in the lab, or, with
// HERALD_CLUSTER=kind, on kind.
type field struct {
	*cluster
	site      *lab.Site
	ccm       program
	speakers  map[string]service // by node
	proxies   map[string]frozen  // kube-proxy by node
	apiServer frozen
	// referees is the number of running referees, which also send requests for addresses.
	referees *atomic.Int32
}

// program is a program that can be killed and started again.
type program interface {
	Kill() error
	Start() error
}

// frozen is a program that can be suspended and resumed.
type frozen interface {
	Freeze() error
	Resume() error
}

// service is a program that can also be stopped gracefully.
type service interface {
	program
	frozen
	Stop(ctx context.Context) error
}

func onKind() bool { return os.Getenv("HERALD_CLUSTER") == "kind" }

// withHerald returns a cluster with Herald for one story: a lab or kind, as HERALD_CLUSTER says. On kind there
// are always three nodes.
func withHerald(t testing.TB, o lab.Options) *field {
	t.Helper()
	if onKind() {
		return withKind(t, o)
	}
	return withLab(t, o).field
}

// labField is a field in the lab. Its programs are processes.
type labField struct {
	*field
	ccm      *lab.Process
	speakers map[string]*lab.Process
}

// startLab starts a lab without Herald.
func startLab(t testing.TB, o lab.Options) (context.Context, *lab.Lab) {
	t.Helper()
	ctx := storyContext(t)
	o.Database = database(t)
	l, err := lab.Start(ctx, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	l.DumpOnFailure(t)
	return ctx, l
}

// withLab starts a lab with Herald's programs. args are arguments of the speakers.
func withLab(t testing.TB, o lab.Options, args ...string) *labField {
	t.Helper()
	ctx, l := startLab(t, o)
	return startHerald(t, ctx, l, args...)
}

// startHerald starts Herald's programs in a lab. args are arguments of the speakers.
func startHerald(t testing.TB, ctx context.Context, l *lab.Lab, args ...string) *labField {
	t.Helper()
	var err error
	f := &labField{field: &field{
		cluster: clusterOf(t, ctx, &l.Access), site: &l.Site, apiServer: l.APIServer(), referees: &atomic.Int32{},
		speakers: map[string]service{}, proxies: map[string]frozen{},
	}}
	if f.ccm, err = l.StartCCM(); err != nil {
		t.Fatal(err)
	}
	if f.speakers, err = l.StartSpeakers(args...); err != nil {
		t.Fatal(err)
	}
	f.field.ccm = f.ccm
	for _, n := range l.Nodes {
		f.field.speakers[n.Name], f.proxies[n.Name] = f.speakers[n.Name], n.Proxy
	}
	return f
}

// shared is the kind cluster in which all stories run, one after the other.
var shared *kind.Cluster

// withKind undoes the story before and makes a site around the nodes.
func withKind(t testing.TB, o lab.Options) *field {
	t.Helper()
	return withKindOf(t, kind.DualStack, o)
}

func withKindOf(t testing.TB, families kind.Families, o lab.Options) *field {
	t.Helper()
	t.Cleanup(func() {
		if t.Failed() && shared != nil {
			dir := filepath.Join(root(t), "build", "failures", strings.ReplaceAll(t.Name(), "/", "_"))
			t.Logf("what one would look at is in %s: %v", dir, shared.Logs(context.WithoutCancel(t.Context()), dir))
		}
	})
	startKind(t, families)
	ctx := storyContext(t)
	if err := shared.Reset(ctx); err != nil {
		t.Fatal(err)
	}
	var nodes []*lab.Node
	for _, n := range shared.Nodes {
		nodes = append(nodes, n.Node)
	}
	site, err := lab.Surround(context.WithoutCancel(ctx), nodes, o.Routers, o.Password, "/run/routers")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := site.Close(); err != nil {
			t.Error(err)
		}
	})
	f := &field{
		cluster: clusterOf(t, ctx, &shared.Access), site: site, ccm: shared.CCM(), apiServer: shared.APIServer(), referees: &atomic.Int32{},
		speakers: map[string]service{}, proxies: map[string]frozen{},
	}
	for _, n := range shared.Nodes {
		f.speakers[n.Name], f.proxies[n.Name] = shared.Speaker(n), lab.Resident{Program: "kube-proxy", Host: n.Host}
	}
	return f
}

// startKind makes shared a cluster of the given families. Only one such cluster can run on a machine.
func startKind(t testing.TB, families kind.Families) {
	t.Helper()
	if shared != nil && shared.Families() == families {
		return
	}
	if shared != nil {
		before := shared
		shared = nil
		if err := before.Close(); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*patience)
	defer cancel()
	var err error
	if shared, err = kind.Start(ctx, kind.Options{
		Families: families, NodeImage: os.Getenv("HERALD_NODE_IMAGE"), Progress: func(step string) { fmt.Println("kind:", step) },
	}); err != nil {
		t.Fatal(err)
	}
	if err := shared.Install(ctx); err != nil {
		t.Fatal(err)
	}
}

// root returns the folder of Herald's go.mod.
func root(t testing.TB) string {
	dir, err := lab.FindRoot()
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// stories runs the tests and then closes the shared cluster.
type stories struct{ *testing.M }

func (s stories) Run() int {
	code := s.M.Run()
	if shared == nil {
		return code
	}
	if err := shared.Close(); err != nil {
		_, _ = os.Stderr.WriteString(err.Error() + "\n")
		return max(code, 1)
	}
	return code
}

func TestMain(m *testing.M) { enclave.RunTests(stories{m}) }
