package provider

import (
	"errors"
	"testing"
	"testing/synctest"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	kubetesting "k8s.io/client-go/testing"
)

// TestServiceCIDRsAreLookedForUntilThereIsAnAnswer checks that an API server that does not answer at
// first is not mistaken for one that has ServiceCIDRs.
func TestServiceCIDRsAreLookedForUntilThereIsAnAnswer(t *testing.T) {
	for _, kinds := range [][]metav1.APIResource{nil, {{Name: "ingresses"}}, {{Name: "ingresses"}, {Name: "servicecidrs"}}} {
		synctest.Test(t, func(t *testing.T) {
			kube, asked := fake.NewClientset(), 0
			kube.Resources = []*metav1.APIResourceList{{GroupVersion: "networking.k8s.io/v1", APIResources: kinds}}
			kube.PrependReactor("get", "resource", func(kubetesting.Action) (bool, runtime.Object, error) {
				if asked++; asked == 1 {
					return true, nil, errors.New("the API server is starting")
				}
				return false, nil, nil
			})
			s := &assessor{kube: kube}
			if has := s.hasServiceCIDRs(t.Context()); has != (len(kinds) > 1) || asked != 2 {
				t.Errorf("with %v: %t after %d questions", kinds, has, asked)
			}
		})
	}
}
