package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	herald "github.com/heraldlb/herald/api/v1alpha1"
)

// server starts an API server for a user who may read only some paths. Paths without content return empty lists.
func server(t *testing.T, content map[string]any, allowed func(path string) bool) (flags []string) {
	t.Helper()
	return serve(t, content, allowed, func(string) bool { return false })
}

// serverWithout starts an API server that does not know some paths.
func serverWithout(t *testing.T, content map[string]any, gone func(path string) bool) (flags []string) {
	t.Helper()
	return serve(t, content, func(string) bool { return true }, gone)
}

func serve(t *testing.T, content map[string]any, allowed, gone func(path string) bool) (flags []string) {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		if r.Header.Get("Impersonate-User") != "jane" {
			t.Errorf("%s not as jane", r.URL)
		}
		if !strings.HasPrefix(r.UserAgent(), "kubectl-herald/") {
			t.Errorf("%s by %s", r.URL, r.UserAgent())
		}
		if !allowed(r.URL.Path) {
			status := apierrors.NewForbidden(schema.GroupResource{}, "", nil).Status()
			status.Kind, status.APIVersion = "Status", "v1"
			w.WriteHeader(http.StatusForbidden)
			_ = json.NewEncoder(w).Encode(status)
			return
		}
		if gone(r.URL.Path) {
			http.NotFound(w, r)
			return
		}
		object, ok := content[r.URL.Path]
		if !ok {
			object = emptyList(r.URL.Path)
		}
		_ = json.NewEncoder(w).Encode(object)
	}))
	t.Cleanup(s.Close)
	t.Setenv("KUBECONFIG", "/dev/null")
	return []string{"--server", s.URL, "--as", "jane", "--cache-dir", t.TempDir()}
}

// emptyList returns an empty list of the kind of a path.
func emptyList(path string) any {
	kinds := map[string]metav1.TypeMeta{
		"ippools":           {Kind: "IPPoolList", APIVersion: "herald.dev/v1alpha1"},
		"ipallocations":     {Kind: "IPAllocationList", APIVersion: "herald.dev/v1alpha1"},
		"l2advertisements":  {Kind: "L2AdvertisementList", APIVersion: "herald.dev/v1alpha1"},
		"bgpadvertisements": {Kind: "BGPAdvertisementList", APIVersion: "herald.dev/v1alpha1"},
		"bgppeers":          {Kind: "BGPPeerList", APIVersion: "herald.dev/v1alpha1"},
		"speakerstatuses":   {Kind: "SpeakerStatusList", APIVersion: "herald.dev/v1alpha1"},
		"nodes":             {Kind: "NodeList", APIVersion: "v1"},
		"namespaces":        {Kind: "NamespaceList", APIVersion: "v1"},
		"services":          {Kind: "ServiceList", APIVersion: "v1"},
		"endpointslices":    {Kind: "EndpointSliceList", APIVersion: "discovery.k8s.io/v1"},
		"events":            {Kind: "EventList", APIVersion: "v1"},
		"pods":              {Kind: "PodList", APIVersion: "v1"},
		"leases":            {Kind: "LeaseList", APIVersion: "coordination.k8s.io/v1"},
	}
	kind := kinds[path[strings.LastIndex(path, "/")+1:]]
	return map[string]any{"kind": kind.Kind, "apiVersion": kind.APIVersion, "metadata": map[string]any{}, "items": []any{}}
}

func ran(t *testing.T, args ...string) (string, error) {
	t.Helper()
	cmd := command()
	var out bytes.Buffer
	cmd.SetOut(&out)
	cmd.SetErr(&out)
	cmd.SetArgs(args)
	err := cmd.ExecuteContext(t.Context())
	return out.String(), err
}

var web = corev1.Service{
	TypeMeta:   metav1.TypeMeta{Kind: "Service", APIVersion: "v1"},
	ObjectMeta: metav1.ObjectMeta{Namespace: "red", Name: "web", UID: "web"},
	Spec:       corev1.ServiceSpec{Type: corev1.ServiceTypeLoadBalancer, IPFamilies: []corev1.IPFamily{corev1.IPv4Protocol}},
	Status:     corev1.ServiceStatus{LoadBalancer: corev1.LoadBalancerStatus{Ingress: []corev1.LoadBalancerIngress{{IP: "198.51.100.1"}}}},
}

// TestANamespacesAdministratorAsks is about a user who may read one namespace and, in the second case, what the role
// herald-view allows.
func TestANamespacesAdministratorAsks(t *testing.T) {
	node := "n1"
	content := map[string]any{
		"/api/v1/namespaces/red/services/web": web,
		"/api/v1/namespaces/red":              corev1.Namespace{TypeMeta: metav1.TypeMeta{Kind: "Namespace", APIVersion: "v1"}, ObjectMeta: metav1.ObjectMeta{Name: "red"}},
		"/apis/discovery.k8s.io/v1/namespaces/red/endpointslices": discoveryv1.EndpointSliceList{
			TypeMeta: metav1.TypeMeta{Kind: "EndpointSliceList", APIVersion: "discovery.k8s.io/v1"},
			Items: []discoveryv1.EndpointSlice{{
				ObjectMeta:  metav1.ObjectMeta{Namespace: "red", Name: "web-a", Labels: map[string]string{discoveryv1.LabelServiceName: "web"}},
				AddressType: discoveryv1.AddressTypeIPv4, Endpoints: []discoveryv1.Endpoint{{NodeName: &node, Addresses: []string{"10.0.0.1"}}},
			}},
		},
		"/apis/herald.dev/v1alpha1/ippools": herald.IPPoolList{
			TypeMeta: metav1.TypeMeta{Kind: "IPPoolList", APIVersion: "herald.dev/v1alpha1"},
			Items:    []herald.IPPool{{ObjectMeta: metav1.ObjectMeta{Name: "public"}, Spec: herald.IPPoolSpec{Addresses: []herald.AddressRange{"198.51.100.0/24"}}}},
		},
		"/apis/herald.dev/v1alpha1/ipallocations": herald.IPAllocationList{
			TypeMeta: metav1.TypeMeta{Kind: "IPAllocationList", APIVersion: "herald.dev/v1alpha1"},
			Items: []herald.IPAllocation{{ObjectMeta: metav1.ObjectMeta{Name: "198.51.100.1"}, Spec: herald.IPAllocationSpec{
				Address: "198.51.100.1", Pool: "public", Owners: []herald.AllocationOwner{{Namespace: "red", Name: "web", UID: "web"}},
			}}},
		},
	}
	own := func(path string) bool {
		return strings.HasPrefix(path, "/api/v1/namespaces/red") || strings.HasPrefix(path, "/apis/discovery.k8s.io/v1/namespaces/red/")
	}
	for _, c := range []struct {
		name    string
		allowed func(path string) bool
		want    []string
	}{
		{"with the namespace alone", own, []string{
			"1 ready, on n1", "198.51.100.1 is in its status; pool and record cannot be seen", "who announces it cannot be seen",
			"Nothing has to be done in Herald, as far as can be seen: you may not list bgpadvertisements.herald.dev, bgppeers.herald.dev, ipallocations.herald.dev, ippools.herald.dev, " +
				"l2advertisements.herald.dev, leases.coordination.k8s.io, nodes, services, speakerstatuses.herald.dev.",
		}},
		{"with Herald's resources", func(path string) bool { return own(path) || strings.HasPrefix(path, "/apis/herald.dev/") }, []string{
			"public IPv4: has 255 of 256 IPv4 addresses free", "198.51.100.1 from pool public", "who announces it cannot be seen",
			"you may not list leases.coordination.k8s.io, nodes, services.",
		}},
		{"with the role herald-explain", func(path string) bool {
			return own(path) || strings.HasPrefix(path, "/apis/herald.dev/") || path == "/api/v1/nodes" || strings.HasPrefix(path, "/apis/coordination.k8s.io/")
		}, []string{
			"Next: 198.51.100.1 is announced by no node: there is no L2Advertisement and no BGPAdvertisement", "Not everything can be seen: you may not list services.",
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			said, err := ran(t, append(server(t, content, c.allowed), "explain", "service", "web", "-n", "red")...)
			if err != nil {
				t.Fatal(err)
			}
			for _, want := range c.want {
				if !strings.Contains(said, want) {
					t.Errorf("no %q in\n%s", want, said)
				}
			}
		})
	}
	t.Run("what needs everything says what is missing", func(t *testing.T) {
		_, err := ran(t, append(server(t, content, own), "status")...)
		if err == nil || !strings.Contains(err.Error(), "you may not list bgpadvertisements.herald.dev, bgppeers.herald.dev, endpointslices.discovery.k8s.io, ipallocations.herald.dev, ") {
			t.Errorf("error %v", err)
		}
	})
	t.Run("a Service that may not be read", func(t *testing.T) {
		_, err := ran(t, append(server(t, content, own), "explain", "service", "blue/web")...)
		if !apierrors.IsForbidden(err) {
			t.Errorf("error %v", err)
		}
	})
}

// TestWhatCannotBeDecoded has an IPPool that does not fit its type, and an IPAllocation with an invalid port. Every
// command names both, and none reports that all is well.
func TestWhatCannotBeDecoded(t *testing.T) {
	list := func(kind string, items ...any) any {
		return map[string]any{"kind": kind, "apiVersion": "herald.dev/v1alpha1", "metadata": map[string]any{}, "items": items}
	}
	content := map[string]any{
		"/api/v1/namespaces/red/services/web": web,
		"/apis/herald.dev/v1alpha1/ippools":   list("IPPoolList", map[string]any{"metadata": map[string]any{"name": "public"}, "spec": map[string]any{"addresses": "198.51.100.0/24"}}),
		"/apis/herald.dev/v1alpha1/ipallocations": list("IPAllocationList", herald.IPAllocation{ObjectMeta: metav1.ObjectMeta{Name: "198.51.100.77"}, Spec: herald.IPAllocationSpec{
			Address: "198.51.100.77", Pool: "public", Owners: []herald.AllocationOwner{{Namespace: "blue", Name: "dns", UID: "dns", Sharing: &herald.AllocationSharing{Key: "k", Ports: []string{"TCP/080"}}}},
		}}),
	}
	file := filepath.Join(t.TempDir(), "pools.yaml")
	if err := os.WriteFile(file, []byte("apiVersion: herald.dev/v1alpha1\nkind: IPPool\nmetadata: {name: gold}\nspec: {addresses: [203.0.113.0/24]}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args []string
		err  error
	}{
		{[]string{"pools"}, nil},
		{[]string{"status"}, errAttention},
		{[]string{"plan", "-f", file}, errAttention},
		{[]string{"explain", "service", "red/web"}, nil},
		{[]string{"bgp", "routes"}, errAttention},
	} {
		t.Run(c.args[0], func(t *testing.T) {
			said, err := ran(t, append(server(t, content, func(string) bool { return true }), c.args...)...)
			if !errors.Is(err, c.err) {
				t.Errorf("error %v, want %v", err, c.err)
			}
			for _, want := range []string{"ippools/public cannot be read and is left out: ", "IPAllocation 198.51.100.77 cannot be read: spec.owners[0].sharing.ports[0]: "} {
				if strings.Count(said, want) != 1 {
					t.Errorf("not once %q in\n%s", want, said)
				}
			}
			for _, green := range []string{"There are no IPPools", "Nothing needs attention", "Nothing would be lost", "Nothing has to be done"} {
				if strings.Contains(said, green) {
					t.Errorf("%q in\n%s", green, said)
				}
			}
		})
	}
}

// TestWithoutHerald has a cluster in which Herald is not installed, and one in which one of its kinds is missing.
func TestWithoutHerald(t *testing.T) {
	for _, c := range []struct {
		name string
		gone func(path string) bool
		want string
	}{
		{"not installed", func(path string) bool { return strings.HasPrefix(path, "/apis/herald.dev/") },
			"the CustomResourceDefinitions of herald.dev are missing, so Herald is not installed in this cluster: docs/install.md says how to install it; kubectl config current-context says which cluster this is"},
		{"a kind is missing", func(path string) bool { return path == "/apis/herald.dev/v1alpha1/ippools" },
			"the CustomResourceDefinition ippools.herald.dev is missing: apply the manifests of this version, manifests/herald.yaml or the chart"},
	} {
		content := map[string]any{
			"/api/v1/namespaces/red/services/web": web,
			"/apis/herald.dev/v1alpha1":           metav1.APIResourceList{TypeMeta: metav1.TypeMeta{Kind: "APIResourceList", APIVersion: "v1"}, GroupVersion: "herald.dev/v1alpha1"},
		}
		flags := serverWithout(t, content, c.gone)
		for _, args := range [][]string{{"status"}, {"pools"}, {"explain", "service", "red/web"}, {"verify"}, {"bgp", "routes"}, {"renumber", "red/web"}, {"renumber", "red/web", "--dry-run"}} {
			if _, err := ran(t, append(slices.Clone(flags), args...)...); err == nil || err.Error() != c.want {
				t.Errorf("%s: %v: %v", c.name, args, err)
			}
		}
	}
}

func TestWithoutACluster(t *testing.T) {
	unusable := filepath.Join(t.TempDir(), "config")
	if err := os.WriteFile(unusable, []byte("{apiVersion: v1, kind: Config, clusters: [{name: lab, cluster: {server: 'https://192.0.2.1'}}]}"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, config := range map[string]string{"no kubeconfig": "/dev/null", "a kubeconfig without a current context": unusable} {
		t.Setenv("KUBECONFIG", config)
		for _, command := range []string{"status", "pools", "preflight"} {
			if _, err := ran(t, command, "--cache-dir", t.TempDir()); err == nil || !strings.HasPrefix(err.Error(), "no cluster is configured: ") {
				t.Errorf("%s: %s: %v", name, command, err)
			}
		}
	}
	if _, err := ran(t, "pools", "--server", "http://127.0.0.1:1", "--cache-dir", t.TempDir()); err == nil || strings.Contains(err.Error(), "no cluster") {
		t.Errorf("with --server: %v", err)
	}
}

func TestWithoutASubcommand(t *testing.T) {
	const explain = ": write kubectl herald explain service NAMESPACE/NAME"
	const bgp = ": write kubectl herald bgp peers [NAME]..., or kubectl herald bgp routes [ADDRESS | PREFIX | NAMESPACE/NAME]..."
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"explain"}, "kubectl herald explain does nothing by itself" + explain},
		{[]string{"explain", "default/web"}, `kubectl herald explain has no subcommand "default/web"` + explain},
		{[]string{"explain", "pool", "public"}, `kubectl herald explain has no subcommand "pool"` + explain},
		{[]string{"bgp"}, "kubectl herald bgp does nothing by itself" + bgp},
		{[]string{"bgp", "sessions"}, `kubectl herald bgp has no subcommand "sessions"` + bgp},
	} {
		if said, err := ran(t, c.args...); err == nil || err.Error() != c.want {
			t.Errorf("%v: error %v, want %s; it says %q", c.args, err, c.want, said)
		}
	}
}

func TestCompletion(t *testing.T) {
	services := func(all ...corev1.Service) corev1.ServiceList {
		return corev1.ServiceList{TypeMeta: metav1.TypeMeta{Kind: "ServiceList", APIVersion: "v1"}, Items: all}
	}
	db := web
	db.Namespace, db.Name = "blue", "db"
	content := map[string]any{
		"/api/v1/services":                 services(web, db),
		"/api/v1/namespaces/red/services":  services(web),
		"/api/v1/namespaces/blue/services": services(db),
		"/apis/herald.dev/v1alpha1/ippools": herald.IPPoolList{
			TypeMeta: metav1.TypeMeta{Kind: "IPPoolList", APIVersion: "herald.dev/v1alpha1"}, Items: []herald.IPPool{{ObjectMeta: metav1.ObjectMeta{Name: "public"}}},
		},
	}
	everything := func(string) bool { return true }
	for _, c := range []struct {
		name    string
		allowed func(string) bool
		args    []string
		want    []string
	}{
		{"Services", everything, []string{"explain", "service", "-n", "red", ""}, []string{"web", "red/web", "blue/db"}},
		{"Services of one namespace", everything, []string{"renumber", "blue/"}, []string{"blue/db"}},
		{"Services, for a namespace's administrator", func(path string) bool { return strings.HasPrefix(path, "/api/v1/namespaces/red/") }, []string{"explain", "service", "-n", "red", "w"}, []string{"web"}},
		{"only one Service", everything, []string{"renumber", "red/web", ""}, nil},
		{"pools", everything, []string{"pools", "pu"}, []string{"public"}},
		{"pools to delete", everything, []string{"plan", "--delete", ""}, []string{"public"}},
		{"nothing may be read", func(string) bool { return false }, []string{"pools", ""}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			said, err := ran(t, append(append([]string{"__complete"}, server(t, content, c.allowed)...), c.args...)...)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for line := range strings.Lines(said) {
				if line = strings.TrimSpace(line); strings.HasPrefix(line, ":") {
					break
				}
				got = append(got, line)
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}
