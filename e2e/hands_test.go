package e2e

import (
	"fmt"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	herald "github.com/heraldlb/herald/api/v1alpha1"
)

// TestUsersDeleteRecordsAndRestoreBackups is about users who delete records, force-delete Services and restore backups.
func TestUsersDeleteRecordsAndRestoreBackups(t *testing.T) {
	c, _, _, ccm := withProxy(t)
	history := c.record(laws{byHand: true, oneLeader: true})
	c.pool("public", delay(0), trafficPool, "2001:db8:51::/124")
	const many = 8
	name := func(i int) string { return fmt.Sprintf("svc-%d", i) }
	for i := range many {
		c.service(name(i), dualStack)
	}
	c.atRest()
	for _, way := range []string{"there", "away"} {
		t.Run("while herald-ccm is "+way, func(t *testing.T) {
			c := c.within(t)
			had := c.allAddresses()
			if way == "away" {
				c.must(ccm.Kill())
			}
			_, records := c.backup()
			for _, rec := range records {
				c.must(c.herald.Allocations.Delete(c.ctx, rec.Name, metav1.DeleteOptions{}))
			}
			for i := range many / 4 {
				c.vanish(name(i))
				delete(had, name(i))
				c.service(name(i), dualStack) // A new Service with the same name.
			}
			if way == "away" {
				c.must(ccm.Start())
			}
			c.atRest()
			c.stillHave(had)
		})
	}
	history.judge()

	t.Run("a backup is restored", func(t *testing.T) {
		c := c.within(t)
		had := c.allAddresses()
		services, records := c.backup()
		// After the backup, other Services get the addresses.
		for i := range many / 2 {
			c.remove(name(i))
			c.gone(name(i))
		}
		c.atRest()
		for i := range many {
			c.service(fmt.Sprintf("later-%d", i), dualStack)
		}
		c.atRest()
		c.must(ccm.Stop(c.ctx))
		now, recorded := c.backup()
		for _, svc := range now {
			c.vanish(svc.Name)
		}
		for _, rec := range recorded {
			c.must(c.herald.Allocations.Delete(c.ctx, rec.Name, metav1.DeleteOptions{}))
		}
		history := c.record(laws{oneLeader: true, byHand: true})
		c.restore(services, records)
		c.service("new", dualStack)
		c.must(ccm.Start())
		c.atRest()
		c.stillHave(had)
		history.judge()
	})
}

// backup returns all records and all Services, except the API server's own Service, which the API server recreates.
func (c *cluster) backup() ([]corev1.Service, []herald.IPAllocation) {
	c.t.Helper()
	services, err := c.kube.CoreV1().Services("default").List(c.ctx, metav1.ListOptions{})
	c.must(err)
	records, err := c.herald.Allocations.List(c.ctx, metav1.ListOptions{})
	c.must(err)
	users := slices.DeleteFunc(services.Items, func(svc corev1.Service) bool { return svc.Name == "kubernetes" })
	return users, records.Items
}

// restore creates the objects again. The Services have their addresses in the status, but new UIDs, which differ from
// those in the records.
func (c *cluster) restore(services []corev1.Service, records []herald.IPAllocation) {
	c.t.Helper()
	for _, rec := range records {
		rec.ObjectMeta = metav1.ObjectMeta{Name: rec.Name}
		_, err := c.herald.Allocations.Create(c.ctx, &rec, metav1.CreateOptions{})
		c.must(err)
	}
	for _, svc := range services {
		status := svc.Status
		svc.ObjectMeta = metav1.ObjectMeta{Name: svc.Name, Annotations: svc.Annotations, Finalizers: svc.Finalizers}
		svc.Spec.ClusterIP, svc.Spec.ClusterIPs, svc.Spec.Ports[0].NodePort = "", nil, 0
		created, err := c.kube.CoreV1().Services("default").Create(c.ctx, &svc, metav1.CreateOptions{})
		c.must(err)
		created.Status = status
		_, err = c.kube.CoreV1().Services("default").UpdateStatus(c.ctx, created, metav1.UpdateOptions{})
		c.must(err)
	}
}

// stillHave fails the story if the addresses of one of these Services have changed.
func (c *cluster) stillHave(had map[string]string) {
	c.t.Helper()
	has := c.allAddresses()
	for name, addresses := range had {
		if has[name] != addresses {
			c.t.Errorf("%s had %s and has %s", name, addresses, has[name])
		}
	}
}
