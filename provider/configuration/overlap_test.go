package configuration

import (
	"reflect"
	"testing"

	"k8s.io/apimachinery/pkg/util/sets"

	herald "github.com/heraldlb/herald/api/v1alpha1"
)

// TestAttributesOfAdvertisementsAreCompared: advertisements that overlap are reported unless they give the same attributes.
func TestAttributesOfAdvertisementsAreCompared(t *testing.T) {
	attributes := map[string]any{
		"Communities": []herald.Community{"64512:1"}, "LocalPreference": new(int64(1)), "MED": new(int64(1)), "Prepend": int32(1),
		"ServiceOverrides": []herald.ServiceOverride{"MED"}, "LinkBandwidth": herald.LinkBandwidthReadyEndpoints,
	}
	// These say what is announced, where and when.
	others := sets.New("Selection", "WithoutEndpoints", "Peers", "PeerSelector", "AggregationLength", "DrainTime")
	for f := range reflect.TypeFor[herald.BGPAdvertisementSpec]().Fields() {
		value, is := attributes[f.Name]
		if is == others.Has(f.Name) {
			t.Errorf("%s is either an attribute, with a value in this test, or one of the others", f.Name)
		}
		if !is {
			continue
		}
		var x herald.BGPAdvertisementSpec
		reflect.ValueOf(&x).Elem().FieldByIndex(f.Index).Set(reflect.ValueOf(value))
		if sameAttributes(&x, &herald.BGPAdvertisementSpec{}) || !sameAttributes(&x, x.DeepCopy()) {
			t.Errorf("%s is not compared", f.Name)
		}
	}
}
