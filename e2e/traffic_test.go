package e2e

import (
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	herald "github.com/heraldlb/herald/api/v1alpha1"
)

// chance returns a random number generator and logs its seed. HERALD_SEED sets the seed of an earlier run. The same seed
// results in the same actions, but not always at the same moments.
func chance(t testing.TB) *rand.Rand {
	t.Helper()
	seed := uint64(time.Now().UnixNano())
	if text := os.Getenv("HERALD_SEED"); text != "" {
		var err error
		if seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatalf("HERALD_SEED: %v", err)
		}
	}
	t.Logf("HERALD_SEED=%d", seed)
	return rand.New(rand.NewPCG(seed, 0))
}

// traffic simulates users, who create, change and delete Services.
type traffic struct {
	*cluster
	rng  *rand.Rand
	made int
	live []string
}

// few is both the number of Services and the number of addresses that they ask for, which causes conflicts. The pool has
// enough addresses for all.
const (
	few         = 12
	trafficPool = herald.AddressRange("198.51.100.0/27")
)

func (u *traffic) some() string { return fmt.Sprintf("198.51.100.%d", u.rng.IntN(few)) }

// step does one random action.
func (u *traffic) step() {
	u.t.Helper()
	if len(u.live) == 0 || len(u.live) < few && u.rng.IntN(2) == 0 {
		u.create()
		return
	}
	i := u.rng.IntN(len(u.live))
	name := u.live[i]
	switch u.rng.IntN(8) {
	case 0, 1:
		u.live = slices.Delete(u.live, i, i+1)
		u.remove(name)
	case 2:
		u.vanish(name)
		u.live = slices.Delete(u.live, i, i+1)
	case 3: // The Service vanishes and is created again, as another object.
		u.vanish(name)
		u.service(name)
	case 4:
		u.edit(name, func(svc *corev1.Service) { svc.Annotations = nil })
	case 5:
		u.edit(name, func(svc *corev1.Service) {
			svc.Spec.Type, svc.Spec.AllocateLoadBalancerNodePorts = corev1.ServiceTypeClusterIP, nil
			svc.Spec.Ports[0].NodePort = 0
		})
	case 6:
		u.edit(name, func(svc *corev1.Service) { svc.Spec.Type = corev1.ServiceTypeLoadBalancer })
	default:
		u.edit(name, annotated(herald.AnnotationIPs, u.some()))
	}
}

func (u *traffic) create() {
	u.t.Helper()
	u.made++
	name := fmt.Sprintf("svc-%d", u.made)
	u.live = append(u.live, name)
	switch u.rng.IntN(4) {
	case 0:
		u.service(name, annotated(herald.AnnotationIPs, u.some()))
	case 1:
		u.service(name, dualStack)
	default:
		u.service(name)
	}
}

// vanish force-deletes a Service: it is gone at once, in spite of finalizers.
func (c *cluster) vanish(name string) {
	c.t.Helper()
	services := c.kube.CoreV1().Services("default")
	c.remove(name)
	_, err := services.Patch(c.ctx, name, "application/merge-patch+json", []byte(`{"metadata":{"finalizers":null}}`), metav1.PatchOptions{})
	if !apierrors.IsNotFound(err) { // It is not found if it had no finalizers.
		c.must(err)
	}
	c.gone(name)
}
