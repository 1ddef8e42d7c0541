package e2e

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	herald "github.com/heraldlb/herald/api/v1alpha1"
)

const strangersMAC = "02:00:5e:00:53:01"

// stranger makes a node report that another machine uses exactly these addresses.
func (c *cluster) stranger(node string, addresses ...string) {
	c.t.Helper()
	c.reports(node, func(s *herald.SpeakerStatusStatus) {
		s.Conflicts = nil
		for _, a := range addresses {
			s.Conflicts = append(s.Conflicts, herald.SpeakerConflict{Address: a, Interface: "eth0", MAC: strangersMAC, At: time.Now().UTC().Format(time.RFC3339Nano)})
		}
	})
}

// disputed waits until a record reports that a stranger uses its address, or that no stranger does.
func (c *cluster) disputed(name string, want metav1.ConditionStatus) *herald.IPAllocation {
	c.t.Helper()
	var rec *herald.IPAllocation
	c.eventually(fmt.Sprintf("AddressConflict=%s of %s", want, name), func(ctx context.Context) (err error) {
		if rec, err = c.herald.Allocations.Get(ctx, name, metav1.GetOptions{}); err != nil {
			return err
		}
		for _, cond := range rec.Status.Conditions {
			if cond.Type == herald.AllocationConflict && cond.Status == want {
				return nil
			}
		}
		return fmt.Errorf("there are %+v", rec.Status.Conditions)
	})
	return rec
}

// TestAddressConflicts is about other machines that use addresses of Herald's pools.
func TestAddressConflicts(t *testing.T) {
	c, _, ccm := withCCM(t)
	c.pool("public", delay(0), "198.51.100.1-198.51.100.3", "2001:db8:51::1-2001:db8:51::2")

	// If a new address has a conflict, the Service gets another one, and no Service gets the conflicting one.
	c.service("web")
	c.holds("web", "198.51.100.1")
	c.stranger("n1", "198.51.100.1")
	c.holds("web", "198.51.100.2")
	c.event("Service", "web", "AddressConflict", "198.51.100.1 is used by a machine with the MAC address "+strangersMAC+", too, which node n1 saw on interface eth0")
	c.event("Service", "web", "AddressReplaced", "the Service was given 198.51.100.2 instead")
	c.eventually("198.51.100.1 is released", func(context.Context) error {
		if rec := c.disputed("198.51.100.1", metav1.ConditionTrue); rec.Spec.ReleasedAt == nil {
			return errors.New("it is not")
		}
		return nil
	})
	c.service("next")
	c.holds("next", "198.51.100.3")
	c.service("late")
	c.event("Service", "late", "SyncLoadBalancerFailed", "public")

	// A Service moves once only. Services keep their addresses if there is no other address.
	c.stranger("n1", "198.51.100.2", "198.51.100.3")
	c.disputed("198.51.100.2", metav1.ConditionTrue)
	c.event("Service", "next", "AddressConflict", "the Service keeps 198.51.100.3")
	c.holds("web", "198.51.100.2")
	c.holds("next", "198.51.100.3")

	// A Service that asked for the address keeps it, whatever else the node reports. An invalid report has no effect.
	c.service("six", annotated(herald.AnnotationIPs, "2001:db8:51::1"), func(svc *corev1.Service) {
		svc.Spec.IPFamilies = []corev1.IPFamily{corev1.IPv6Protocol}
	})
	c.holds("six", "2001:db8:51::1")
	c.reports("n2", func(s *herald.SpeakerStatusStatus) {
		s.Conflicts = []herald.SpeakerConflict{{Address: "fe80:::1", Interface: "eth0", MAC: strangersMAC, At: "now"}, {Address: "198.51.100", Interface: "\x1b", MAC: "", At: ""}}
	})
	c.stranger("n1", "2001:db8:51:0::1")
	rec := c.disputed("2001-0db8-0051-0000-0000-0000-0000-0001", metav1.ConditionTrue)
	if len(rec.Status.Conditions) != 1 || !strings.Contains(rec.Status.Conditions[0].Message, "kubectl herald renumber") {
		t.Errorf("the condition says %+v", rec.Status.Conditions)
	}
	c.event("Service", "six", "AddressConflict", strangersMAC)
	c.holds("six", "2001:db8:51::1")

	// A conflict that is withdrawn while herald-ccm is stopped is over. The abandoned address is an exception: no speaker
	// checks it.
	c.must(ccm.Stop(c.ctx))
	c.stranger("n1")
	c.must(ccm.Start())
	for _, name := range []string{"198.51.100.2", "198.51.100.3", "2001-0db8-0051-0000-0000-0000-0000-0001"} {
		c.disputed(name, metav1.ConditionFalse)
	}
	if rec := c.disputed("198.51.100.1", metav1.ConditionTrue); rec.Spec.ReleasedAt == nil {
		t.Error("the address that was left is given out again")
	}
	c.holds("web", "198.51.100.2")
	c.event("Service", "late", "SyncLoadBalancerFailed", "public")
	// Deleting the record tells Herald that the stranger is gone.
	c.must(c.herald.Allocations.Delete(c.ctx, "198.51.100.1", metav1.DeleteOptions{}))
	c.holds("late", "198.51.100.1")
}
