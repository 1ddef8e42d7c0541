package speaker

import (
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/zap"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	herald "github.com/heraldlb/herald/api/v1alpha1"
)

// loopOf is the loop of a speaker that does not run. Everything is announced, on the segment and to a
// router.
func loopOf(t *testing.T, node string, objects ...metav1.Object) *loop {
	t.Helper()
	kube, set := offline(t)
	s, err := New(Config{Kube: kube, Herald: set, Node: node, Namespace: "herald-system", LeaseDuration: time.Minute, Log: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	s.inputs.Store(watched(t, objects...))
	shared, _ := cluster()
	shared.L2 = []L2Advertisement{{Name: "all", Selector: compile(t, herald.Selection{})}}
	shared.BGP = []BGPAdvertisement{{Name: "all", Selector: compile(t, herald.Selection{}), Peers: []string{"tor"}}}
	s.loop.shared = on(node, shared)
	return s.loop
}

// Two Services share an address. While one of them is there the claim stands as it is; and what becomes of
// one costs a decision about its address, and none about others.
func TestAClaimOutlivesTheServicesThatLeave(t *testing.T) {
	const address = "198.51.100.7"
	mail := types.NamespacedName{Namespace: web.Namespace, Name: "mail"}
	asking := claiming(first, address)
	asking.Status.Claims[0].Since = nil
	l := loopOf(t, first, serviceNamed("web", address), serviceNamed("mail", address), sharedBy(address, "web", "mail"), asking,
		slice("web-a", web, endpoint(second, new(true))), slice("mail-a", mail, endpoint(third, new(true))),
		serviceNamed("other", "198.51.100.8"), sharedBy("198.51.100.8", "other"))
	in := l.s.in()
	now := noon
	change := func(objects ...metav1.Object) {
		t.Helper()
		for _, o := range objects {
			if err := informerOf(t, in, o).GetStore().Update(o); err != nil {
				t.Fatal(err)
			}
		}
		c := noChanges()
		c.addresses[vip] = true
		now = now.Add(time.Second)
		l.pass(c, now)
	}
	change()
	began, claims := l.claims[vip]
	if !claims {
		t.Fatalf("it does not answer: %+v", l.decisions[vip])
	}
	for _, step := range []struct {
		name    string
		objects []metav1.Object
		stays   bool
	}{
		{"one loses its endpoints", []metav1.Object{slice("mail-a", mail)}, true},
		{"it has some again, and the other has none", []metav1.Object{slice("mail-a", mail, endpoint(third, new(true))), slice("web-a", web)}, true},
		{"the record is for one alone", []metav1.Object{sharedBy(address, "mail")}, true},
		{"that one has no endpoints", []metav1.Object{slice("mail-a", mail)}, false},
	} {
		change(step.objects...)
		since, claims := l.claims[vip]
		if claims != step.stays || claims && !since.Equal(began) {
			t.Fatalf("%s: claimed: %v, since %v; it was since %v", step.name, claims, since, began)
		}
		if d := l.decisions[vip]; (len(d.Exports) > 0) != step.stays {
			t.Fatalf("%s: announced to routers: %v", step.name, d.Exports)
		}
	}
	if n := testutil.ToFloat64(l.decided); n != 5 {
		t.Errorf("%v decisions were made about five changes", n)
	}
}
