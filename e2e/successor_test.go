package e2e

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/heraldlb/herald/e2e/lab"
	"github.com/heraldlb/herald/e2e/lab/router"
)

// TestASuccessorFindsEverythingAsItWas replaces the speaker that holds the address, as an update of Herald
// does, and then removes the speaker for good.
func TestASuccessorFindsEverythingAsItWas(t *testing.T) {
	f := withLab(t, lab.Options{Nodes: 3, Routers: []router.Kind{lab.FRR, lab.BIRD}}).field
	const address, target = "198.18.0.200", "198.18.0.200:9000"
	all := names(f.site)
	f.announce()
	f.gracefully()
	f.pool("segment", delay(0), "198.18.0.200-198.18.0.250")
	f.service("web", to8080)
	f.pod("pod-1", all[0])
	for _, r := range f.site.Routers {
		f.routed(r, address, all...)
	}
	owner := f.answeredBy(address, all...)
	f.served("web")

	t.Run("replaced", func(t *testing.T) {
		f := f.within(t)
		r := f.referee(address)
		openers := []*lab.Opener{f.opens(f.site.Segment, target), f.opens(f.site.Outside, target)}
		before := f.boot(owner)
		f.podDeleted(lab.SpeakerPod(f.site.Node(owner)))
		f.must(f.speakers[owner].Stop(f.ctx))
		for _, r := range f.site.Routers {
			f.routed(r, address, all...) // At once, and also after the kernel has closed the open connections.
		}
		f.deputised(address, owner)
		f.pass(4 * time.Second)
		for _, r := range f.site.Routers {
			f.routed(r, address, all...)
		}
		f.must(f.speakers[owner].Start())
		f.answeredBy(address, owner)
		f.eventually("its sessions are up", func(ctx context.Context) error {
			s, err := f.herald.SpeakerStatuses.Get(ctx, owner, metav1.GetOptions{})
			if err == nil && (s.Status.Identity == nil || s.Status.Identity.Boot == before) {
				err = errors.New("it has not reported yet")
			} else if err == nil && s.Status.Established != "2/2" {
				err = fmt.Errorf("%s are", s.Status.Established)
			}
			return err
		})
		for _, o := range openers {
			if attempts := o.Stop(); attempts.Failed() > 0 || len(attempts) == 0 {
				t.Errorf("%v: %v", attempts, attempts.Errors())
			}
		}
		for _, r := range f.site.Routers {
			f.routed(r, address, all...)
		}
		r.judge(owner)
	})
	t.Run("gone for good", func(t *testing.T) {
		f := f.within(t)
		r := f.referee(address)
		f.must(f.speakers[owner].Stop(f.ctx))
		second := f.answeredBy(address, without(all, owner)...)
		r.judge(owner, second)
	})
}

// podDeleted creates a pod that is being deleted but is not gone.
func (f *field) podDeleted(name string) {
	f.t.Helper()
	pods := f.kube.CoreV1().Pods(lab.HeraldNamespace)
	_, err := pods.Create(f.ctx, &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, Finalizers: []string{"e2e.herald.dev/stays"}},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "herald-speaker", Image: "herald"}}},
	}, metav1.CreateOptions{})
	f.must(err)
	f.must(pods.Delete(f.ctx, name, metav1.DeleteOptions{}))
}
