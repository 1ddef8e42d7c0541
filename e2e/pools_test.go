package e2e

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	herald "github.com/heraldlb/herald/api/v1alpha1"
)

func TestPoolsAreEdited(t *testing.T) {
	c, _, ccm := withCCM(t)
	c.advertise()
	c.pool("public", delay(0), "198.51.100.1-198.51.100.9")
	c.pool("resting", with(delay(time.Hour), named), "198.51.100.101-198.51.100.102")
	from := func(pool string) func(*corev1.Service) { return annotated(herald.AnnotationPool, pool) }
	spans := func(spans ...herald.AddressRange) func(*herald.IPPoolSpec) {
		return func(s *herald.IPPoolSpec) { s.Addresses = spans }
	}
	c.served("a", "198.51.100.1")
	c.served("b", "198.51.100.2")
	c.served("c", "198.51.100.3")
	everybody := func(c *cluster) {
		c.t.Helper()
		c.holds("a", "198.51.100.1")
		c.holds("b", "198.51.100.2")
		c.holds("c", "198.51.100.3")
	}

	t.Run("wider: nothing moves, and nothing but the pool is written", func(t *testing.T) {
		c := c.within(t)
		c.capacity("public", 9, 3)
		c.settle()
		before := c.writes()
		c.editPool("public", spans("198.51.100.0-198.51.100.20"))
		c.capacity("public", 21, 3)
		d := since(before, c.writes())
		delete(d, "PUT ippools/status")
		if diff := cmp.Diff(map[string]int{"PUT ippools": 1}, d); diff != "" {
			t.Errorf("writes (-want +got):\n%s", diff)
		}
		everybody(c)
	})
	t.Run("narrower: who is outside keeps its address and is told", func(t *testing.T) {
		c := c.within(t)
		exclude := func(s *herald.IPPoolSpec) { s.Exclude = []herald.AddressRange{"198.51.100.2"} }
		c.editPool("public", with(spans("198.51.100.2-198.51.100.20"), exclude))
		for name, address := range map[string]string{"a": "198.51.100.1", "b": "198.51.100.2"} {
			c.condition("public", herald.PoolInRange, metav1.ConditionFalse, address+" (default/"+name+")")
			c.marked(address, metav1.ConditionFalse, address+" is in no IPPool any more: it stays in use")
			c.event("Service", name, "OutOfRange", address+" is in no IPPool any more: it stays in use; give the Service another address by ")
		}
		everybody(c)
		c.quietRestart(ccm, "canary")
		everybody(c)
	})
	t.Run("another pool has it, and then none again", func(t *testing.T) {
		c := c.within(t)
		c.pool("heir", delay(0), "198.51.100.1")
		c.marked("198.51.100.1", metav1.ConditionFalse,
			`198.51.100.1 was given from IPPool "public" and belongs to "heir" now: it stays in use`)
		c.editPool("heir", spans("203.0.113.1"))
		c.marked("198.51.100.1", metav1.ConditionFalse, "198.51.100.1 is in no IPPool any more")
		c.must(c.herald.Pools.Delete(c.ctx, "heir", metav1.DeleteOptions{}))
		everybody(c)
	})
	t.Run("wide again: the marks go", func(t *testing.T) {
		c := c.within(t)
		c.editPool("public", with(spans("198.51.100.1-198.51.100.9"), func(s *herald.IPPoolSpec) { s.Exclude = nil }))
		c.marked("198.51.100.1", metav1.ConditionTrue, "")
		c.marked("198.51.100.2", metav1.ConditionTrue, "")
		c.condition("public", herald.PoolInRange, metav1.ConditionTrue, "")
		everybody(c)
	})
	t.Run("a Service is renumbered, once", func(t *testing.T) {
		c := c.within(t)
		c.served("mover", "198.51.100.101", from("resting"))
		c.editPool("resting", func(s *herald.IPPoolSpec) { s.Exclude = []herald.AddressRange{"198.51.100.101"} })
		c.marked("198.51.100.101", metav1.ConditionFalse, "in no IPPool")
		c.edit("mover", annotated(herald.AnnotationRenumber, "198.51.100.101"))
		c.holds("mover", "198.51.100.102")
		c.eventually("the old one is released", func(context.Context) error {
			if rec := c.recordOf("198.51.100.101"); rec.Spec.ReleasedAt == nil {
				return fmt.Errorf("it is %+v", rec)
			}
			return nil
		})
		// Make before break: the new record is created before the old one is released.
		made, released := c.recordOf("198.51.100.102"), c.recordOf("198.51.100.101")
		if made.Generation != 1 || version(t, made) >= version(t, released) {
			t.Errorf("the new record is %+v, the old one %+v", made, released)
		}
		c.quietRestart(ccm, "canary-2")
		c.holds("mover", "198.51.100.102")
	})
	t.Run("with nothing else free it stays where it is", func(t *testing.T) {
		c := c.within(t)
		c.edit("mover", annotated(herald.AnnotationRenumber, "198.51.100.101, 198.51.100.102"))
		c.refused("mover", `pool "resting" has no free IPv4 address`)
		c.holds("mover", "198.51.100.102")
		c.editPool("resting", spans("198.51.100.101-198.51.100.103"))
		c.holds("mover", "198.51.100.103")
	})
	t.Run("one that is deleted waits for the Services, and names them", func(t *testing.T) {
		c := c.within(t)
		allows := func(s *herald.IPPoolSpec) { s.AllowRetain = true }
		c.pool("going", with(delay(0), named, allows), "203.0.113.101-203.0.113.109")
		retain := annotated(herald.AnnotationReclaim, string(herald.ReclaimRetain))
		key := annotated(herald.AnnotationSharingKey, "k")
		c.served("kept", "203.0.113.101", from("going"), retain)
		c.remove("kept")
		c.kept("203.0.113.101", "default/kept")
		c.served("share-1", "203.0.113.102", from("going"), key, ports("TCP/1"))
		c.service("share-2", from("going"), key, ports("TCP/2"))
		c.shares("203.0.113.102", "default/share-1", "default/share-2")
		c.reserve("203.0.113.109")
		c.must(c.herald.Pools.Delete(c.ctx, "going", metav1.DeleteOptions{}))
		in := func(holders string) {
			t.Helper()
			c.condition("going", herald.PoolReady, metav1.ConditionFalse,
				"give them addresses of another pool by kubectl herald renumber NAMESPACE/NAME: "+holders)
		}
		in("203.0.113.102 (default/share-1 default/share-2)")
		for _, address := range []string{"203.0.113.101", "203.0.113.109"} {
			c.eventually("the record of "+address+" is deleted", func(ctx context.Context) error {
				_, err := c.herald.Allocations.Get(ctx, address, metav1.GetOptions{})
				switch {
				case apierrors.IsNotFound(err):
					return nil
				case err == nil:
					err = errors.New("it is there")
				}
				return err
			})
		}
		c.remove("share-1")
		in("203.0.113.102 (default/share-2)")
		c.free("share-2", "203.0.113.102")
		c.poolGone("going")
	})
}
