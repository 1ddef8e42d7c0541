package e2e

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	herald "github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/e2e/lab"
)

// TestTheOwnerOfAddressesDies is about nodes that die or seem to die.
func TestTheOwnerOfAddressesDies(t *testing.T) {
	f := withSegment(t, 3)
	for _, fault := range []struct {
		name       string
		fail, heal func(n *lab.Node) error
	}{
		{"its cable is pulled", (*lab.Node).Cut, (*lab.Node).Heal},
		{"its interface goes down", interfaceDown, interfaceUp},
	} {
		t.Run(fault.name, func(t *testing.T) {
			f := f.within(t)
			owner := f.gather()
			o := f.observe(observing{open: true})
			f.must(fault.fail(f.site.Node(owner)))
			o.settled(without(f.nodes, owner)...)
			f.dead(owner)
			f.must(fault.heal(f.site.Node(owner)))
			f.members()
			s := o.end()
			s.failedOver(owner, longGap)
		})
	}

	t.Run("it is suspended, and yields when it wakes", func(t *testing.T) {
		f := f.within(t)
		owner := f.gather()
		o := f.observe(observing{open: true})
		// The kernel of a suspended machine does not answer, either.
		f.must(f.site.Node(owner).Isolate())
		f.must(f.speakers[owner].Freeze())
		f.dead(owner)
		f.pass(5 * time.Second)
		f.must(f.site.Node(owner).Heal())
		f.must(f.speakers[owner].Resume())
		f.members()
		o.settled(without(f.nodes, owner)...)
		s := o.end()
		s.failedOver(owner, longGap)
	})

	t.Run("its kube-proxy dies", func(t *testing.T) {
		f := f.within(t)
		owner := f.gather()
		o := f.observe(observing{open: true})
		f.must(f.site.Node(owner).Proxy.Kill())
		o.settled(without(f.nodes, owner)...)
		f.reported(owner, "kube-proxy does not serve", func(s *herald.SpeakerStatusStatus) bool { return strings.Contains(s.Problem, "kube-proxy") })
		f.must(f.site.Node(owner).Proxy.Start())
		f.reported(owner, "no problem", func(s *herald.SpeakerStatusStatus) bool { return s.Problem == "" })
		f.pass(time.Second) // The node must not take the addresses back.
		s := o.end()
		s.failedOver(owner, atOnce) // The node announces the handover on the segment.
	})

	t.Run("it dies while nobody reaches the API server", func(t *testing.T) {
		f := f.within(t)
		owner := f.gather()
		o := f.observe(observing{open: true})
		f.must(f.apiServer.Freeze())
		f.must(f.site.Node(owner).Cut())
		others := o.settled(without(f.nodes, owner)...)
		f.must(f.site.Node(owner).Heal())
		f.pass(3 * time.Second) // The node hears the others, and must not take the addresses back.
		f.must(f.apiServer.Resume())
		f.members()
		for i, n := range o.settled(without(f.nodes, owner)...) {
			if n != others[i] {
				t.Errorf("%s moved from %s to %s", f.addresses[i], others[i], n)
			}
		}
		s := o.end()
		s.failedOver(owner, longGap)
	})

	t.Run("it alone does not reach the API server, which says that it is not ready", func(t *testing.T) {
		f := f.within(t)
		owner := f.gather()
		o := f.observe(observing{open: true})
		node := f.site.Node(owner)
		f.must(node.Host.Script(`nft '
			add table inet fault
			add chain inet fault output { type filter hook output priority 0; }
			add rule inet fault output tcp dport 6443 drop
			add chain inet fault input { type filter hook input priority 0; }
			add rule inet fault input tcp sport 6443 drop
		'`))
		o.stays(4*time.Second, owner) // The node is Ready and serves.
		f.nodeReady(owner, corev1.ConditionFalse)
		o.settled(without(f.nodes, owner)...)
		f.must(node.Host.Script("nft delete table inet fault"))
		f.nodeReady(owner, corev1.ConditionTrue)
		f.reported(owner, "that it owns nothing", func(s *herald.SpeakerStatusStatus) bool { return len(s.Claims) == 0 })
		o.settled(without(f.nodes, owner)...)
		s := o.end()
		s.neverTwo(twoAnswers) // The node answers until it hears the new owner.
		s.gap(longGap)
	})
}

// interfaceDown takes down a node's own end of its cable. It saves the configuration that the kernel drops, for
// interfaceUp.
func interfaceDown(n *lab.Node) error {
	return n.Host.Script(`
		sysctl -qw net.ipv6.conf.eth0.keep_addr_on_down=1
		ip -4 route save dev eth0 >/run/%[1]s-routes4
		ip -6 route save dev eth0 >/run/%[1]s-routes6
		ip link set eth0 down
	`, n.Name)
}

func interfaceUp(n *lab.Node) error {
	return n.Host.Script(`
		ip link set eth0 up
		ip -4 route restore </run/%[1]s-routes4
		ip -6 route restore </run/%[1]s-routes6
	`, n.Name)
}

// nodeReady sets a node's condition Ready, as kube-controller-manager and the kubelet do. A lab has neither.
func (f *segmentField) nodeReady(node string, status corev1.ConditionStatus) {
	f.t.Helper()
	f.eventually(fmt.Sprintf("Ready=%s of %s is written", status, node), func(ctx context.Context) error {
		n, err := f.kube.CoreV1().Nodes().Get(ctx, node, metav1.GetOptions{})
		if err != nil {
			return err
		}
		for i := range n.Status.Conditions {
			if c := &n.Status.Conditions[i]; c.Type == corev1.NodeReady {
				c.Status, c.LastTransitionTime = status, metav1.Now()
			}
		}
		_, err = f.kube.CoreV1().Nodes().UpdateStatus(ctx, n, metav1.UpdateOptions{})
		return err
	})
}
