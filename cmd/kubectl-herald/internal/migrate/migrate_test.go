package migrate

import (
	"context"
	"encoding/json"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/cel"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/listtype"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/validation"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/validation/field"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/yaml"
)

// objects parses YAML as kubectl does.
func objects(t testing.TB, text string) (all []*unstructured.Unstructured) {
	t.Helper()
	for document := range strings.SplitSeq(text, "\n---\n") {
		raw, err := yaml.YAMLToJSON([]byte(document))
		if err != nil {
			t.Fatal(err)
		}
		u := &unstructured.Unstructured{}
		if err := u.UnmarshalJSON(raw); err != nil {
			t.Fatalf("%v: %s", err, document)
		}
		all = append(all, u)
	}
	return all
}

// TestCorpus translates the objects in the documents, examples and tests of other load balancers, and compares the
// results with files, which HERALD_GENERATE=1 writes.
func TestCorpus(t *testing.T) {
	server := schemas(t)
	for _, s := range Sources {
		files, err := filepath.Glob("testdata/" + s.Name + "/*/objects.yaml")
		if err != nil || len(files) == 0 {
			t.Fatalf("no corpus of %s: %v", s.Name, err)
		}
		for _, file := range files {
			dir := filepath.Dir(file)
			t.Run(s.Name+"/"+filepath.Base(dir), func(t *testing.T) {
				text, err := os.ReadFile(file)
				if err != nil {
					t.Fatal(err)
				}
				r := s.Translate(objects(t, string(text)))
				got, err := r.YAML()
				if err != nil {
					t.Fatal(err)
				}
				server.accept(t, got)
				golden(t, filepath.Join(dir, "herald.yaml"), got)
				golden(t, filepath.Join(dir, "report.txt"), r.Text())
				if all := got + r.Text(); strings.Contains(all, "yourPassword") || strings.Contains(all, "s3cret") {
					t.Error("a password is printed")
				}
			})
		}
	}
}

func golden(t *testing.T, file, got string) {
	t.Helper()
	if os.Getenv("HERALD_GENERATE") != "" {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s is not what is written (-want +got): if the new text is right, run HERALD_GENERATE=1 go test\n%s", file, diff)
	}
}

// apiServer validates Herald's objects by kind as an API server does, except for admission policies.
type apiServer map[string]func(map[string]any) field.ErrorList

func schemas(t testing.TB) apiServer {
	t.Helper()
	all := apiServer{}
	for _, plural := range []string{"ippools", "l2advertisements", "bgpadvertisements", "bgppeers"} {
		text, err := os.ReadFile("../../../../manifests/crds/herald.dev_" + plural + ".yaml")
		if err != nil {
			t.Fatal(err)
		}
		var crd apiextensionsv1.CustomResourceDefinition
		if err := yaml.UnmarshalStrict(text, &crd); err != nil {
			t.Fatal(err)
		}
		props := &apiextensions.JSONSchemaProps{}
		if err := apiextensionsv1.Convert_v1_JSONSchemaProps_To_apiextensions_JSONSchemaProps(crd.Spec.Versions[0].Schema.OpenAPIV3Schema, props, nil); err != nil {
			t.Fatal(err)
		}
		validator, _, err := validation.NewSchemaValidator(props)
		if err != nil {
			t.Fatal(err)
		}
		structural, err := schema.NewStructural(props)
		if err != nil {
			t.Fatal(err)
		}
		rules := cel.NewValidator(structural, true, math.MaxUint64)
		all[crd.Spec.Names.Kind] = func(o map[string]any) field.ErrorList {
			errs := validation.ValidateCustomResource(nil, o, validator)
			errs = append(errs, listtype.ValidateListSetsAndMaps(nil, structural, o)...)
			if len(errs) == 0 {
				errs, _ = rules.Validate(context.Background(), nil, structural, o, nil, math.MaxInt64)
			}
			return errs
		}
	}
	return all
}

func (a apiServer) accept(t *testing.T, text string) {
	t.Helper()
	for document := range strings.SplitSeq(text, "---\n") {
		var o map[string]any
		if err := utilyaml.Unmarshal([]byte(document), &o); err != nil {
			t.Fatal(err)
		}
		if o == nil {
			continue
		}
		kind, _ := o["kind"].(string)
		if judge := a[kind]; judge == nil {
			t.Errorf("%q is not a kind of Herald's: %s", kind, document)
		} else if errs := judge(o); len(errs) > 0 {
			t.Errorf("Herald's API would refuse\n%s\nwith %v", document, errs)
		}
	}
}

// fuzz decodes random specs of one kind, and checks that Herald's API accepts the translation. others are objects that
// refer to the fuzzed object, or that it refers to.
func fuzz(f *testing.F, s *Source, apiVersion, kind string, others ...string) {
	server := schemas(f)
	files, err := filepath.Glob("testdata/" + s.Name + "/*/objects.yaml")
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		for _, u := range objects(f, string(text)) {
			if u.GetKind() != kind {
				continue
			}
			raw, err := json.Marshal(u.Object)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(raw)
			for _, field := range []string{"metadata", "spec", "data"} {
				mistyped(u.Object[field], func(wrong any) {
					o := u.DeepCopy()
					o.Object[field] = wrong
					if raw, err = json.Marshal(o.Object); err != nil {
						f.Fatal(err)
					}
					f.Add(raw)
				})
			}
		}
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		u := &unstructured.Unstructured{}
		if u.UnmarshalJSON(raw) != nil {
			return
		}
		u.SetAPIVersion(apiVersion)
		u.SetKind(kind)
		all := []*unstructured.Unstructured{u}
		for _, o := range others {
			all = append(all, objects(t, o)...)
		}
		r := s.Translate(all)
		text, err := r.YAML()
		if err != nil {
			t.Fatal(err)
		}
		server.accept(t, text)
		if len(r.Notes)+r.Others == 0 && kind != "Service" {
			t.Error("nothing is said about the object")
		}
		if strings.Contains(r.Text(), "s3cret") {
			t.Error("a password is printed")
		}
		for _, word := range []string{"Go struct", "Go value", "json:"} {
			if strings.Contains(r.Text(), word) && !strings.Contains(string(raw), word) {
				t.Errorf("a user is told of %q:\n%s", word, r.Text())
			}
		}
	})
}

// mistyped replaces each value in value, and value itself, by one of another type in turn, and calls yield with the
// result each time.
func mistyped(value any, yield func(any)) {
	switch v := value.(type) {
	case map[string]any:
		for key := range v {
			mistyped(v[key], func(wrong any) {
				o := maps.Clone(v)
				o[key] = wrong
				yield(o)
			})
		}
		yield("s3cret")
	case []any:
		for n := range v {
			mistyped(v[n], func(wrong any) {
				o := slices.Clone(v)
				o[n] = wrong
				yield(o)
			})
		}
		yield(map[string]any{"s3cret": true})
	case string:
		yield(7)
	case nil:
	default:
		yield("s3cret")
	}
}

func FuzzMetalLBIPAddressPool(f *testing.F) { fuzz(f, &metalLB, "metallb.io/v1beta1", "IPAddressPool") }
func FuzzMetalLBL2Advertisement(f *testing.F) {
	fuzz(f, &metalLB, "metallb.io/v1beta1", "L2Advertisement")
}
func FuzzMetalLBCommunity(f *testing.F) { fuzz(f, &metalLB, "metallb.io/v1beta1", "Community") }
func FuzzMetalLBService(f *testing.F)   { fuzz(f, &metalLB, "v1", "Service") }

func FuzzMetalLBBGPAdvertisement(f *testing.F) {
	fuzz(f, &metalLB, "metallb.io/v1beta1", "BGPAdvertisement",
		"apiVersion: metallb.io/v1beta1\nkind: Community\nmetadata: {name: c}\nspec: {communities: [{name: vpn-only, value: '1234:1'}]}")
}

func FuzzMetalLBBGPPeer(f *testing.F) {
	fuzz(f, &metalLB, "metallb.io/v1beta2", "BGPPeer",
		"apiVersion: metallb.io/v1beta1\nkind: BFDProfile\nmetadata: {name: testbfdprofile}\nspec: {receiveInterval: 380}")
}

func FuzzMetalLBBFDProfile(f *testing.F) {
	fuzz(f, &metalLB, "metallb.io/v1beta1", "BFDProfile",
		"apiVersion: metallb.io/v1beta2\nkind: BGPPeer\nmetadata: {name: p}\nspec: {myASN: 1, peerASN: 2, peerAddress: 10.0.0.1, ebgpMultiHop: true, bfdProfile: testbfdprofile}")
}

func FuzzCiliumPool(f *testing.F) { fuzz(f, &ciliumLB, "cilium.io/v2", "CiliumLoadBalancerIPPool") }
func FuzzCiliumL2(f *testing.F) {
	fuzz(f, &ciliumLB, "cilium.io/v2alpha1", "CiliumL2AnnouncementPolicy")
}
func FuzzCiliumService(f *testing.F) { fuzz(f, &ciliumLB, "v1", "Service") }

const (
	ciliumFuzzPeers = "apiVersion: cilium.io/v2\nkind: CiliumBGPClusterConfig\nmetadata: {name: c}\nspec: {bgpInstances: [{name: i, localASN: 1, peers: [{name: p, peerASN: 2, peerAddress: 10.0.0.1, peerConfigRef: {name: cilium-peer}}]}]}"
	ciliumFuzzBoth  = "apiVersion: cilium.io/v2\nkind: CiliumBGPPeerConfig\nmetadata: {name: cilium-peer}\nspec: {families: [{afi: ipv4, safi: unicast, advertisements: {matchLabels: {advertise: bgp}}}]}"
)

func FuzzCiliumClusterConfig(f *testing.F) {
	fuzz(f, &ciliumLB, "cilium.io/v2", "CiliumBGPClusterConfig", ciliumFuzzBoth)
}

func FuzzCiliumPeerConfig(f *testing.F) {
	fuzz(f, &ciliumLB, "cilium.io/v2", "CiliumBGPPeerConfig", ciliumFuzzPeers)
}

func FuzzCiliumAdvertisement(f *testing.F) {
	fuzz(f, &ciliumLB, "cilium.io/v2", "CiliumBGPAdvertisement", ciliumFuzzPeers, ciliumFuzzBoth)
}

func FuzzKubeVIPConfigMap(f *testing.F) { fuzz(f, &kubeVIP, "v1", "ConfigMap") }
func FuzzKubeVIPDaemonSet(f *testing.F) { fuzz(f, &kubeVIP, "apps/v1", "DaemonSet") }
func FuzzKubeVIPService(f *testing.F)   { fuzz(f, &kubeVIP, "v1", "Service") }

func FuzzPureLBServiceGroup(f *testing.F) {
	fuzz(f, &pureLB, "purelb.io/v2", "ServiceGroup", "apiVersion: purelb.io/v2\nkind: LBNodeAgent\nmetadata: {name: a}\nspec: {local: {localInterface: eth0}}")
}

func FuzzPureLBNodeAgent(f *testing.F) {
	fuzz(f, &pureLB, "purelb.io/v2", "LBNodeAgent", "apiVersion: purelb.io/v2\nkind: ServiceGroup\nmetadata: {name: default}\nspec: {local: {v4pool: {pool: 192.0.2.0/29}}}")
}

func FuzzPureLBService(f *testing.F) { fuzz(f, &pureLB, "v1", "Service") }
