package migrate

import (
	"fmt"
	"slices"
	"strconv"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation"

	herald "github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/provider"
)

func newIPPool(name string) *herald.IPPool {
	return &herald.IPPool{TypeMeta: kindOf("IPPool"), ObjectMeta: metav1.ObjectMeta{Name: name}}
}

func newL2Advertisement(name string) *herald.L2Advertisement {
	return &herald.L2Advertisement{TypeMeta: kindOf("L2Advertisement"), ObjectMeta: metav1.ObjectMeta{Name: name}}
}

func newBGPPeer(name string) *herald.BGPPeer {
	return &herald.BGPPeer{TypeMeta: kindOf("BGPPeer"), ObjectMeta: metav1.ObjectMeta{Name: name}}
}

func newBGPAdvertisement(name string) *herald.BGPAdvertisement {
	return &herald.BGPAdvertisement{TypeMeta: kindOf("BGPAdvertisement"), ObjectMeta: metav1.ObjectMeta{Name: name}}
}

func kindOf(kind string) metav1.TypeMeta {
	return metav1.TypeMeta{APIVersion: herald.GroupVersion.String(), Kind: kind}
}

// numbered returns the name of the nth object that one object is translated to.
func numbered(name string, n int) string {
	if n == 0 {
		return name
	}
	return name + "-" + strconv.Itoa(n+1)
}

// distinct returns the list in order, without duplicates.
func distinct(list []string) []string { return slices.Compact(slices.Sorted(slices.Values(list))) }

// valid returns why Herald would refuse an object, unless the other's schema already rules this out.
func valid(o runtime.Object) error {
	var selection *herald.Selection
	switch o := o.(type) {
	case *herald.IPPool:
		switch n := len(o.Spec.Addresses); {
		case n == 0:
			return fmt.Errorf("it has no addresses that can be translated")
		case n > 64 || len(o.Spec.Exclude) > 64:
			return fmt.Errorf("an IPPool has at most 64 addresses and ranges, and this one would have %d and %d that are excluded", n, len(o.Spec.Exclude))
		case len(o.Spec.Namespaces) > 64:
			return fmt.Errorf("an IPPool names at most 64 namespaces, and this one would name %d: give them a label for namespaceSelector", len(o.Spec.Namespaces))
		}
		for _, n := range o.Spec.Namespaces {
			if len(validation.IsDNS1123Label(n)) > 0 {
				return fmt.Errorf("%q is not the name of a namespace", n)
			}
		}
		if _, err := provider.PoolOf(o); err != nil {
			return fmt.Errorf("Herald cannot use its addresses: %w", err) //nolint:staticcheck // The message begins with a name.
		}
		return nil
	case *herald.BGPPeer:
		_, err := herald.CompileSelector("nodeSelector", o.Spec.NodeSelector)
		return err
	case *herald.L2Advertisement:
		selection = &o.Spec.Selection
		if _, err := herald.CompileSelector("preferredNodes", o.Spec.PreferredNodes); err != nil {
			return err
		}
		if len(o.Spec.Interfaces) > 32 {
			return fmt.Errorf("an L2Advertisement names at most 32 interfaces, and this one would name %d", len(o.Spec.Interfaces))
		}
	case *herald.BGPAdvertisement:
		selection = &o.Spec.Selection
		if n := len(o.Spec.Communities); n > 32 {
			return fmt.Errorf("a BGPAdvertisement has at most 32 communities, and this one would have %d", n)
		}
		if n := len(o.Spec.Peers); n > 64 {
			return fmt.Errorf("a BGPAdvertisement names at most 64 peers, and this one would name %d: give them a label for peerSelector", n)
		}
	}
	if n := len(selection.Pools); n > 64 {
		return fmt.Errorf("an advertisement names at most 64 pools, and this one would name %d: give them a label for poolSelector", n)
	}
	_, err := selection.Compile()
	return err
}
