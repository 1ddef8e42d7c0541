package provider

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/heraldlb/herald/ipam"
)

// TestNotices checks that the owner of a Service is told something unexpected with the decision, and not again when
// the Service carries the address.
func TestNotices(t *testing.T) {
	four := wish{families: []corev1.IPFamily{v4}}
	sharing := func(svc *corev1.Service) ipam.Request {
		req, err := translate(svc)
		if err != nil {
			t.Fatal(err)
		}
		req.Sharing = ipam.Sharing{Key: "web", Ports: []ipam.Port{{Protocol: "TCP", Number: 80}}}
		return req
	}
	for _, story := range []struct {
		name    string
		arrange func(*ledger)
		svc     *corev1.Service
		want    []string
	}{
		{"nothing to say", func(*ledger) {}, service("web", four), nil},
		{"another has its port", func(l *ledger) {
			other := service("other", four)
			if _, _, err := l.allocate(other, sharing(other)); err != nil {
				t.Fatal(err)
			}
		}, service("web", four), []string{"NotShared: 198.51.100.0 is shared by default/other, which has port TCP/80, too: the Service was given 198.51.100.1, and shares it with none"}},
		{"a Service of another namespace has its key", func(l *ledger) {
			other := service("other", four)
			other.Namespace = "blue"
			if _, _, err := l.allocate(other, sharing(other)); err != nil {
				t.Fatal(err)
			}
		}, service("web", four), nil},
		{"another has what it carries", func(l *ledger) {
			note(l, given("198.51.100.3", "public", "other"), false)
		}, carrying("web", four, "198.51.100.3"), []string{"AddressReplaced: 198.51.100.3, which was in the status of the Service, is held by default/other: the Service was given 198.51.100.0 instead"}},
		{"what was kept for it is in no pool", func(l *ledger) {
			note(l, ipam.Allocation{Address: netip.MustParseAddr("192.0.2.1"), Pool: "gone", Owner: ipam.Owner{Namespace: "default", Name: "web"}}, false)
		}, service("web", four), []string{"AddressNotKept: 192.0.2.1 was kept for the Service, but it is in no pool any more: the Service was given 198.51.100.0"}},
		{"what was kept for it has cooled there", func(l *ledger) {
			note(l, given("192.0.2.1", "gone", "web"), true)
		}, service("web", four), nil},
	} {
		t.Run(story.name, func(t *testing.T) {
			l := storyLedger()
			story.arrange(l)
			allocations, notices, err := l.allocate(story.svc, sharing(story.svc))
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, n := range notices {
				got = append(got, n.reason+": "+n.message)
			}
			if !slices.Equal(got, story.want) {
				t.Errorf("the notices are\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(story.want, "\n"))
			}
			served := carrying("web", four, allocations[0].Address.String())
			if _, again, err := l.allocate(served, sharing(served)); err != nil || len(again) > 0 {
				t.Errorf("when it carries the address the notices are %v, %v", again, err)
			}
		})
	}
}
