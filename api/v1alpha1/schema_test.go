package v1alpha1_test

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"slices"
	"strings"
	"testing"

	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/cel"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/listtype"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/validation"
	"k8s.io/apimachinery/pkg/runtime"
	utiljson "k8s.io/apimachinery/pkg/util/json"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"pgregory.net/rapid"
	"sigs.k8s.io/yaml"

	"net/netip"

	herald "github.com/heraldlb/herald/api/v1alpha1"
)

// kind is one of Herald's kinds as the API server validates it.
type kind struct {
	name, plural string
	object       func() runtime.Object
	schema       *apiextensions.JSONSchemaProps
	validator    validation.SchemaValidator
	structural   *schema.Structural
	cel          *cel.Validator
}

func kinds(t testing.TB) []*kind {
	all := []*kind{
		{name: "IPPool", plural: "ippools", object: func() runtime.Object { return &herald.IPPool{} }},
		{name: "IPAllocation", plural: "ipallocations", object: func() runtime.Object { return &herald.IPAllocation{} }},
		{name: "L2Advertisement", plural: "l2advertisements", object: func() runtime.Object { return &herald.L2Advertisement{} }},
		{name: "BGPAdvertisement", plural: "bgpadvertisements", object: func() runtime.Object { return &herald.BGPAdvertisement{} }},
		{name: "BGPPeer", plural: "bgppeers", object: func() runtime.Object { return &herald.BGPPeer{} }},
		{name: "SpeakerStatus", plural: "speakerstatuses", object: func() runtime.Object { return &herald.SpeakerStatus{} }},
	}
	for _, k := range all {
		text, err := os.ReadFile("../../manifests/crds/herald.dev_" + k.plural + ".yaml")
		if err != nil {
			t.Fatal(err)
		}
		var crd apiextensionsv1.CustomResourceDefinition
		if err := yaml.UnmarshalStrict(text, &crd); err != nil {
			t.Fatal(err)
		}
		k.schema = &apiextensions.JSONSchemaProps{}
		if err := apiextensionsv1.Convert_v1_JSONSchemaProps_To_apiextensions_JSONSchemaProps(crd.Spec.Versions[0].Schema.OpenAPIV3Schema, k.schema, nil); err != nil {
			t.Fatal(err)
		}
		if k.validator, _, err = validation.NewSchemaValidator(k.schema); err != nil {
			t.Fatal(err)
		}
		if k.structural, err = schema.NewStructural(k.schema); err != nil {
			t.Fatal(err)
		}
		k.cel = cel.NewValidator(k.structural, true, math.MaxUint64)
	}
	return all
}

// invalid says what the API server would have against the object.
func (k *kind) invalid(o map[string]any) field.ErrorList {
	errs := validation.ValidateCustomResource(nil, o, k.validator)
	errs = append(errs, listtype.ValidateListSetsAndMaps(nil, k.structural, o)...)
	if len(errs) > 0 {
		return errs
	}
	errs, _ = k.cel.Validate(context.Background(), nil, k.structural, o, nil, math.MaxInt64)
	return errs
}

// texts are values of which some schema or type might make something else than another does.
var texts = []string{
	"", "a", "public", "198.51.100.7", "198.51.100.0/24", "198.51.100.7/24", "198.51.100.1-198.51.100.9", "198.51.100.1 - 198.51.100.9", "2001:db8::7", "2001:DB8::7",
	"2001:db8:0:0::7", "2001:db8::/32", "2001:db8::0/32", "::ffff:198.51.100.7", "fe80::1%eth0", "010.0.0.1",
	"0", "0s", "1s", "3s", "10s", "90s", "1h", "1m30s", "1.5h", ".5s", "1d", "1w", "-1s", "+1s", "1µs", "1us", "1ns", "99999h99999h99999h99999h", "3600s", "4096s",
	"2562047h47m16.854775807s", "9223372036854775807ns", "s", "1 s", "1S",
	"2026-01-01T00:00:00Z", "2026-01-01t00:00:00z", "2026-01-01T00:00:00+01:00", "2026-01-01T00:00:00+99:99", "2026-01-01T00:00:00.5Z", "2026-01-01T00:00:00,5Z", "2026-01-01T00:00:00x5z",
	"2026-02-30T00:00:00Z", "2026-01-01T24:00:00Z", "2026-01-01T23:59:60Z", "0000-01-01T00:00:00Z", "9999-12-31T23:59:59Z", "2026-99-99T99:99:99Z", "2026-01-01",
	"64512:100", "65536:1", "4200000000:1:2", "no-export", "99999999999:1:1", "rt:64512:100", "soo:65536:65536", "In", "Exists", "True", "False", "Unknown", "TCP/80", "\u2028", "<&>", "e\u0301",
}

var numbers = []any{
	json.Number("0"), json.Number("1"), json.Number("-1"), json.Number("179"), json.Number("64512"), json.Number("2147483647"), json.Number("2147483648"), json.Number("-2147483649"),
	json.Number("4294967295"), json.Number("4294967296"), json.Number("9007199254740991"), json.Number("9007199254740993"), json.Number("9223372036854775807"), json.Number("9223372036854775808"),
	json.Number("1e19"), json.Number("1e300"), json.Number("1.0"), json.Number("1.5"), json.Number("1e2"),
}

// seldom is true about once in n times. Rapid likes small numbers.
func seldom(t *rapid.T, label string, n int) bool {
	return rapid.IntRange(0, n).Draw(t, label) == n*2/3
}

// unions are the fields of which an object has exactly one, by the path of the object.
var unions = map[string][][]string{
	"BGPPeer.spec":              {{"localASN", "localASNFrom"}, {"peerASN", "peerASNFrom", "peerType"}, {"address", "addressFrom"}, {"ttlSecurityHops", "multihopTTL"}},
	"BGPPeer.spec.addressFrom":  {{"defaultGateway", "nodeLabel", "nodeAnnotation", "interface"}},
	"BGPPeer.spec.localASNFrom": nodeValue, "BGPPeer.spec.peerASNFrom": nodeValue, "BGPPeer.spec.routerIDFrom": nodeValue,
}

var nodeValue = [][]string{{"nodeLabel", "nodeAnnotation"}}

// members draws which members of unions the object has; now and then it says nothing about one.
func members(t *rapid.T, path string) map[string]bool {
	has := map[string]bool{}
	for _, union := range unions[path] {
		if seldom(t, path+" any of "+union[0], 20) {
			continue
		}
		one := rapid.SampledFrom(union).Draw(t, path+" one of "+union[0])
		for _, name := range union {
			has[name] = name == one
		}
	}
	return has
}

// value draws what the schema describes, and now and then what it does not.
func value(t *rapid.T, s *apiextensions.JSONSchemaProps, path string) any {
	if seldom(t, path+" null", 400) {
		return nil
	}
	switch s.Type {
	case "object":
		o := map[string]any{}
		names := make([]string, 0, len(s.Properties))
		for name := range s.Properties {
			names = append(names, name)
		}
		slices.Sort(names)
		union := members(t, path)
		for _, name := range names {
			p := s.Properties[name]
			has, decided := union[name]
			if slices.Contains(s.Required, name) || has || !decided && rapid.Bool().Draw(t, path+"."+name+" present") {
				o[name] = value(t, &p, path+"."+name)
			}
		}
		if s.AdditionalProperties != nil {
			for range rapid.IntRange(0, 2).Draw(t, path+" keys") {
				o[rapid.SampledFrom([]string{"app", "team", ""}).Draw(t, path+" key")] = value(t, s.AdditionalProperties.Schema, path+"[]")
			}
		}
		return o
	case "array":
		least := 0
		if s.MinItems != nil {
			least = int(*s.MinItems)
		}
		list := []any{}
		for range rapid.IntRange(least, least+2).Draw(t, path+" size") {
			list = append(list, value(t, s.Items.Schema, path+"[]"))
		}
		return list
	case "boolean":
		return rapid.Bool().Draw(t, path)
	case "integer":
		fit := numbers
		if s.Maximum != nil && s.Minimum != nil && !seldom(t, path+" out of range", 10) {
			fit = []any{json.Number(fmt.Sprintf("%.0f", *s.Minimum)), json.Number(fmt.Sprintf("%.0f", *s.Maximum)), json.Number(fmt.Sprintf("%.1f", *s.Maximum))}
		}
		return rapid.SampledFrom(fit).Draw(t, path)
	case "string":
		switch {
		case len(s.Enum) > 0 && !seldom(t, path+" not of enum", 20):
			return rapid.SampledFrom(s.Enum).Draw(t, path)
		// What matches a pattern seldom fits a rule besides.
		case s.Pattern != "" && !seldom(t, path+" does not match", 3) && (len(s.XValidations) == 0 || seldom(t, path+" by its pattern", 5)):
			return rapid.StringMatching(s.Pattern).Draw(t, path)
		}
		fit := texts
		if !seldom(t, path+" any", 20) {
			fit = fitting(s, path)
		}
		return rapid.SampledFrom(fit).Draw(t, path)
	}
	panic(fmt.Sprintf("%s: no generator for type %q", path, s.Type))
}

// fitting are those of the texts that fit the CEL rules of the string; all if none does.
func fitting(s *apiextensions.JSONSchemaProps, path string) []string {
	if known, ok := fits[path]; ok {
		return known
	}
	structural, err := schema.NewStructural(s)
	if err != nil {
		panic(err)
	}
	validator, _, err := validation.NewSchemaValidator(s)
	if err != nil {
		panic(err)
	}
	rules := cel.NewValidator(structural, false, math.MaxUint64)
	var fit []string
	for _, text := range texts {
		if len(validation.ValidateCustomResource(nil, text, validator)) > 0 {
			continue
		}
		if rules != nil {
			if errs, _ := rules.Validate(context.Background(), field.NewPath("x"), structural, text, nil, math.MaxInt64); len(errs) > 0 {
				continue
			}
		}
		fit = append(fit, text)
	}
	if fit == nil {
		fit = texts
	}
	fits[path] = fit
	return fit
}

var fits = map[string][]string{}

// draw makes an object of the kind as the API server would read it, and its name fit.
func (k *kind) draw(t *rapid.T) map[string]any {
	drawn, _ := value(t, k.schema, k.name).(map[string]any)
	if drawn == nil {
		drawn = map[string]any{}
	}
	drawn["apiVersion"], drawn["kind"] = "herald.dev/v1alpha1", k.name
	metadata := map[string]any{"name": "o"}
	drawn["metadata"] = metadata
	if spec, ok := drawn["spec"].(map[string]any); ok && k.name == "IPAllocation" {
		text, _ := spec["address"].(string)
		if a, err := netip.ParseAddr(text); err == nil {
			metadata["name"] = herald.AllocationName(a.WithZone(""))
		}
	}
	encoded, err := json.Marshal(drawn)
	if err != nil {
		t.Fatal(err)
	}
	var read map[string]any
	if err := utiljson.Unmarshal(encoded, &read); err != nil {
		t.Fatalf("%s: %v", encoded, err)
	}
	return read
}

// decodes requires that what the schema of the kind admits fits the Go type.
func (k *kind) decodes(t *rapid.T) (valid bool) {
	o := k.draw(t)
	errs := k.invalid(o)
	stored, err := json.Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	if len(errs) > 0 {
		return false
	}
	if err := utiljson.Unmarshal(stored, k.object()); err != nil {
		t.Fatalf("the schema admits what the Go type does not: %v\n%s", err, stored)
	}
	return true
}

// TestTheSchemasAdmitNothingThatTheTypesDoNot is what FuzzDecode does, of random objects.
func TestTheSchemasAdmitNothingThatTheTypesDoNot(t *testing.T) {
	for _, k := range kinds(t) {
		t.Run(k.name, func(t *testing.T) {
			valid, all := 0, 0
			rapid.Check(t, func(t *rapid.T) {
				all++
				if k.decodes(t) {
					valid++
				}
			})
			t.Logf("%d of %d objects were valid", valid, all)
			if valid < all/20 {
				t.Errorf("only %d of %d objects were valid: the test says little", valid, all)
			}
		})
	}
}

// FuzzDecode makes objects of all kinds from their schemas.
func FuzzDecode(f *testing.F) {
	all := kinds(f)
	f.Fuzz(rapid.MakeFuzz(func(t *rapid.T) { rapid.SampledFrom(all).Draw(t, "kind").decodes(t) }))
}

// What herald-ccm cannot read as a port is in no record.
func TestPortsOfRecordsEndAt65535(t *testing.T) {
	for _, k := range kinds(t) {
		if k.name != "IPAllocation" {
			continue
		}
		for port, valid := range map[string]bool{
			"TCP/1": true, "UDP/9999": true, "SCTP/10000": true, "TCP/59999": true, "TCP/64999": true, "TCP/65499": true, "TCP/65529": true, "TCP/65535": true,
			"TCP/0": false, "TCP/080": false, "TCP/65536": false, "TCP/65540": false, "TCP/65600": false, "TCP/66000": false, "TCP/70000": false, "TCP/99999": false,
			"TCP/100000": false, "tcp/80": false, "TCP/": false, "80": false,
		} {
			owner := map[string]any{"namespace": "default", "name": "web", "sharing": map[string]any{"key": "k", "traffic": "Cluster", "ports": []any{port}}}
			errs := k.invalid(map[string]any{
				"metadata": map[string]any{"name": "198.51.100.7"},
				"spec":     map[string]any{"address": "198.51.100.7", "owners": []any{owner}},
			})
			if (len(errs) == 0) != valid {
				t.Errorf("%s: %v, want that it is valid: %t", port, errs, valid)
			}
		}
	}
}

// TestEveryTextAndListIsBounded of what a node reports.
func TestEveryTextAndListIsBounded(t *testing.T) {
	var unbounded []string
	var walk func(s *apiextensions.JSONSchemaProps, path string)
	walk = func(s *apiextensions.JSONSchemaProps, path string) {
		switch {
		case s.Type == "string" && s.MaxLength == nil && !strings.HasPrefix(s.Pattern, "^[0-9a-f]{") && len(s.Enum) == 0,
			s.Type == "array" && s.MaxItems == nil,
			s.Type == "integer" && (s.Minimum == nil || s.Maximum == nil):
			unbounded = append(unbounded, path)
		}
		for name, p := range s.Properties {
			walk(&p, path+"."+name)
		}
		if s.Items != nil {
			walk(s.Items.Schema, path+"[]")
		}
	}
	for _, k := range kinds(t) {
		if k.name == "SpeakerStatus" {
			status := k.schema.Properties["status"]
			walk(&status, "status")
		}
	}
	if len(unbounded) > 0 {
		t.Errorf("a node can make these as large as it likes: %q", unbounded)
	}
}
