package provider

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	herald "github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/ipam"
	"github.com/heraldlb/herald/provider/configuration"
)

// TestAnInvalidEditOfAPoolInUse checks that a mistake in an edit of a pool displaces no address in use, and gives no
// address of the pool to a younger one.
func TestAnInvalidEditOfAPoolInUse(t *testing.T) {
	reversed := func(o *herald.IPPool) { o.Spec.Exclude = []herald.AddressRange{"198.51.100.3-198.51.100.2"} }
	selector := func(o *herald.IPPool) {
		o.Spec.ServiceSelector = &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{Key: "app", Operator: "Near"}}}
	}
	unread := func(o *herald.IPPool) { o.Spec.Addresses = []herald.AddressRange{"198.51.100.3-198.51.100.0"} }
	for _, story := range []struct {
		name    string
		edit    func(*herald.IPPool)
		restart bool
		next    string // the address that the next Service gets
		says    string
	}{
		{"a reversed exclude", reversed, false, "198.51.100.1", "exclude"},
		{"a selector", selector, false, "198.51.100.1", "spec.serviceSelector"},
		{"reversed addresses", unread, false, "198.51.100.1", "addresses"},
		{"a reversed exclude, and a restart", reversed, true, "198.51.100.4", "exclude"},
		{"reversed addresses, and a restart", unread, true, "198.51.100.4", "addresses"},
	} {
		t.Run(story.name, func(t *testing.T) {
			w := newWorld(t)
			w.pool("public", public())
			w.pool("younger", func(o *herald.IPPool) { o.Spec.Addresses = []herald.AddressRange{"198.51.100.0/29"} })
			if _, err := w.serve(service("web", four)); err != nil {
				t.Fatal(err)
			}
			if story.restart {
				w.pools.valid = nil
			}
			w.pool("public", story.edit)
			if home, displaced := w.ledger.displaced(addresses("198.51.100.0")[0]); displaced {
				t.Errorf("the address in use is displaced; it is in pool %q", home)
			}
			w.reconcile()
			if c := w.records.cached("198.51.100.0").Status.Conditions; len(c) > 0 {
				t.Errorf("its record says %v", c)
			}
			o := w.publish("public")
			accepted := meta.FindStatusCondition(o.Status.Conditions, herald.ConditionAccepted)
			inForce := map[bool]string{false: "the last valid spec stays in force", true: "nothing new is given out"}[story.restart]
			if accepted.Status != metav1.ConditionFalse || !strings.Contains(accepted.Message, story.says) || !strings.Contains(accepted.Message, inForce) {
				t.Errorf("Accepted is %s: %s", accepted.Status, accepted.Message)
			}
			if ready := meta.IsStatusConditionTrue(o.Status.Conditions, herald.PoolReady); ready == story.restart {
				t.Errorf("Ready is %t", ready)
			}
			if got, err := w.serve(service("mail", four)); err != nil || !slices.Equal(got, []string{story.next}) {
				t.Errorf("the next Service is given %v (%v), want %s", got, err, story.next)
			}
			w.pool("public", public())
			if o := w.publish("public"); !meta.IsStatusConditionTrue(o.Status.Conditions, herald.ConditionAccepted) {
				t.Error("the mended pool is not accepted")
			}
		})
	}
}

// TestAPoolIsDeleted checks that the deletion of a pool waits for Services, and for nothing else.
func TestAPoolIsDeleted(t *testing.T) {
	w := newWorld(t)
	w.pool("public", public(func(o *herald.IPPool) { o.Spec.ReclaimPolicy = herald.ReclaimRetain }))
	kept, web := service("kept", four), service("web", four)
	for _, svc := range []string{"198.51.100.2", "198.51.100.3"} {
		var owners []herald.AllocationOwner
		if svc == "198.51.100.3" {
			owners = []herald.AllocationOwner{{Namespace: "default", Name: "later"}}
		}
		rec := recordOf(given(svc, "", ""), "", herald.AllocationOwner{})
		rec.Spec.Owners = owners
		if _, err := w.recordsAPI.put(rec); err != nil {
			t.Fatal(err)
		}
	}
	w.records.load()
	if _, err := w.serve(kept); err != nil {
		t.Fatal(err)
	}
	if _, err := w.serve(web); err != nil {
		t.Fatal(err)
	}
	w.gone(kept)
	w.recordsAre("198.51.100.0 public ~default/kept", "198.51.100.1 public default/web", "198.51.100.2 ", "198.51.100.3  ~default/later")

	now := metav1.Now()
	w.pool("public", func(o *herald.IPPool) { o.DeletionTimestamp = &now })
	w.reconcile()
	w.recordsAre("198.51.100.1 public default/web")
	o := w.publish("public")
	if o == nil {
		t.Fatal("the pool is gone, though a Service has an address of it")
	}
	ready := meta.FindStatusCondition(o.Status.Conditions, herald.PoolReady)
	for _, text := range []string{"198.51.100.1 (default/web)", "kubectl herald renumber"} {
		if ready.Reason != "Deleting" || !strings.Contains(ready.Message, text) {
			t.Errorf("Ready is %s: %q, which does not say %q", ready.Reason, ready.Message, text)
		}
	}
	w.gone(web)
	if o := w.publish("public"); o != nil {
		t.Errorf("the pool is still there, with %v", o.Status.Conditions)
	}
}

func TestAServiceOfAPoolThatNothingAnnouncesIsTold(t *testing.T) {
	const says = "Warning NotAnnounced IPPool public is not announced: no L2Advertisement or BGPAdvertisement selects the pool"
	w := newWorld(t)
	w.pool("public", public())
	early, late := service("early", four), service("late", four)
	if _, err := w.serve(early); err != nil {
		t.Fatal(err)
	}
	w.eventsSay() // It is not known yet.
	w.publish("public")
	w.eventsSay(says)
	w.publish("public")
	w.eventsSay()
	for range 2 { // The event is written only once.
		if _, err := w.serve(late); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(w.recorder.Events); n != 1 {
		t.Errorf("%d events, want one", n)
	}
	w.eventsSay(says)

	advertisement := &herald.L2Advertisement{ObjectMeta: metav1.ObjectMeta{Name: "all"}}
	if err := w.l2.Add(advertisement); err != nil {
		t.Fatal(err)
	}
	w.publish("public")
	if _, err := w.serve(service("announced", four)); err != nil {
		t.Fatal(err)
	}
	w.eventsSay()

	if err := w.l2.Delete(advertisement); err != nil {
		t.Fatal(err)
	}
	w.publish("public")
	if n := len(w.recorder.Events); n != 3 {
		t.Errorf("%d events, want one for each Service", n)
	}
	w.eventsSay(says)
	w.publish("public")
	w.eventsSay()
}

// TestAnAddressThatWasTakenOutOfAPoolSaysNothingOfTheSubnetsOfThePool has a pool that is edited to a network that no node is in. Its
// Service keeps an address of the nodes' network, which is still announced.
func TestAnAddressThatWasTakenOutOfAPoolSaysNothingOfTheSubnetsOfThePool(t *testing.T) {
	w := newWorld(t)
	w.pool("public", public())
	announced := &configuration.PoolAssessment{Announced: metav1.Condition{Type: herald.ConditionAnnounced, Status: metav1.ConditionTrue, Reason: herald.ReasonAnnounced}}
	off := &configuration.PoolAssessment{Announced: metav1.Condition{
		Type: herald.ConditionAnnounced, Status: metav1.ConditionFalse, Reason: herald.ReasonOffSubnet, Message: "in no subnet",
	}}
	now := announced
	w.pools.assessed = func(string) *configuration.PoolAssessment { return now }
	w.publish("public")
	web, late := service("web", four), service("late", four)
	if _, err := w.serve(web); err != nil {
		t.Fatal(err)
	}
	w.pool("public", func(o *herald.IPPool) { o.Spec.Addresses = []herald.AddressRange{"203.0.113.0/24"} })
	if got, err := w.serve(late); err != nil || !slices.Equal(got, []string{"203.0.113.0"}) {
		t.Fatalf("%q, %v", got, err)
	}
	w.eventsSay()
	now = off
	w.publish("public")
	if n := len(w.recorder.Events); n != 1 {
		t.Errorf("%d events, want one, for the Service whose address is in the pool", n)
	}
	w.eventsSay("IPPool public is not announced: in no subnet")
}

// TestEveryConditionOfAPoolHasAMessage checks pools with and without anything wrong.
func TestEveryConditionOfAPoolHasAMessage(t *testing.T) {
	full := map[ipam.Family]ipam.Usage{ipam.IPv4: {Capacity: 8, Assigned: 8}}
	for _, c := range []struct {
		name     string
		edit     func(o *herald.IPPool)
		use      use
		assessed *configuration.PoolAssessment
		invalid  error
	}{
		{"nothing is wrong", func(*herald.IPPool) {}, use{families: map[ipam.Family]ipam.Usage{ipam.IPv4: {Capacity: 8, Available: 8}}}, &configuration.PoolAssessment{}, nil},
		{"not assessed yet", func(*herald.IPPool) {}, use{families: map[ipam.Family]ipam.Usage{ipam.IPv4: {Capacity: 8, Available: 8}}}, nil, nil},
		{"everything is wrong", func(o *herald.IPPool) { o.Spec.Disabled = true },
			use{families: full, overlaps: []string{"198.51.100.0 (pool old)"}, outside: []string{"198.51.100.9 (default/web)"}}, &configuration.PoolAssessment{}, errors.New("nonsense")},
		{"it is full", func(*herald.IPPool) {}, use{families: full}, &configuration.PoolAssessment{InClusterNetwork: "pods have them"}, nil},
		{"it is being deleted", func(o *herald.IPPool) { now := metav1.Now(); o.DeletionTimestamp = &now }, use{families: full}, nil, nil},
		{"it has no addresses", func(*herald.IPPool) {}, use{}, nil, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := &herald.IPPool{ObjectMeta: metav1.ObjectMeta{Name: "public"}}
			c.edit(o)
			if c.assessed != nil { // Package configuration has tests of its own.
				c.assessed.Announced = metav1.Condition{Type: herald.ConditionAnnounced, Status: metav1.ConditionTrue, Reason: herald.ReasonAnnounced, Message: "all is announced"}
			}
			describePool(o, c.use, c.assessed, c.invalid, true)
			if len(o.Status.Conditions) < 4 {
				t.Errorf("%d conditions", len(o.Status.Conditions))
			}
			for _, is := range o.Status.Conditions {
				if is.Message == "" {
					t.Errorf("%s=%s, %s has no message", is.Type, is.Status, is.Reason)
				}
			}
		})
	}
}

// TestAServiceIsToldOnceOfAPoolThatNothingAnnounces has a Service with two addresses of the pool.
func TestAServiceIsToldOnceOfAPoolThatNothingAnnounces(t *testing.T) {
	w := newWorld(t)
	w.pool("public", public())
	web := service("web", four)
	web.Annotations[herald.AnnotationAddresses] = "2"
	if got, err := w.serve(web); err != nil || len(got) != 2 {
		t.Fatalf("%v (%v)", got, err)
	}
	w.publish("public")
	if n := len(w.recorder.Events); n != 1 {
		t.Errorf("%d events, want one", n)
	}
}

// TestAServiceIsAdoptedFromAPoolThatIsNotValid checks that a Service keeps the address that it carries if the records are
// lost and the spec of the pool is invalid.
func TestAServiceIsAdoptedFromAPoolThatIsNotValid(t *testing.T) {
	w := newWorld(t)
	w.pool("public", public(func(o *herald.IPPool) { o.Spec.Exclude = []herald.AddressRange{"198.51.100.3-198.51.100.2"} }))
	w.pool("younger", func(o *herald.IPPool) { o.Spec.Addresses = []herald.AddressRange{"203.0.113.0/29"} })
	if got, err := w.serve(carrying("web", four, "198.51.100.1")); err != nil || !slices.Equal(got, []string{"198.51.100.1"}) {
		t.Errorf("%v (%v), want 198.51.100.1", got, err)
	}
	if got, err := w.serve(service("new", four)); err != nil || !slices.Equal(got, []string{"203.0.113.0"}) {
		t.Errorf("a new Service: %v (%v), want an address of the other pool", got, err)
	}
}

// TestAPoolTellsWhyNothingIsAvailable checks that a pool without free addresses does not report those of nodes as in use,
// because nobody could release them.
func TestAPoolTellsWhyNothingIsAvailable(t *testing.T) {
	w := newWorld(t)
	w.pool("public", func(o *herald.IPPool) { o.Spec.Addresses = []herald.AddressRange{"198.51.100.0/31"} })
	if _, err := w.serve(service("web", four)); err != nil {
		t.Fatal(err)
	}
	for _, story := range []struct {
		next func()
		want string
	}{
		{func() { w.skip(map[netip.Addr]string{netip.MustParseAddr("198.51.100.1"): "the address of node n1"}) }, "never given out"},
		{func() {
			w.skip(nil)
			if _, err := w.serve(service("mail", four)); err != nil {
				t.Fatal(err)
			}
		}, "every address is in use: "},
	} {
		story.next()
		o := w.publish("public")
		if c := meta.FindStatusCondition(o.Status.Conditions, herald.PoolReady); c.Status != metav1.ConditionFalse || !strings.Contains(c.Message, story.want) {
			t.Errorf("Ready is %s: %s; want %q", c.Status, c.Message, story.want)
		}
	}
}

// TestClosedPool is about an invalid spec: the pool has the addresses that can be parsed, without the exclusions that can
// be parsed.
func TestClosedPool(t *testing.T) {
	p := ClosedPool(&herald.IPPool{Spec: herald.IPPoolSpec{
		Addresses: []herald.AddressRange{"198.51.100.0/30", "198.51.100.1", "0.0.0.1", "public"},
		Exclude:   []herald.AddressRange{"127.0.0.0-198.51.100.0", "203.0.113.9-203.0.113.1", "198.51.100.2"},
	}}, []netip.Addr{netip.MustParseAddr("203.0.113.7")})
	var got []string
	for _, r := range p.Addresses.Ranges() {
		got = append(got, r.String())
	}
	if want := []string{"198.51.100.1-198.51.100.1", "198.51.100.3-198.51.100.3", "203.0.113.7-203.0.113.7"}; !slices.Equal(got, want) || !p.Closed {
		t.Errorf("closed %v, addresses %q, want %q", p.Closed, got, want)
	}
}

// TestAReservationStaysWhenItsAddressMovesToAnotherPool has an edit that moves addresses to another pool and deletes their old pool. It is
// made again and again while the record of a reservation that names no pool is checked.
func TestAReservationStaysWhenItsAddressMovesToAnotherPool(t *testing.T) {
	const address = "198.51.100.7"
	w := newWorld(t)
	w.reserve(address, herald.AllocationOwner{Namespace: "default", Name: "db"})
	rec, err := w.recordsAPI.get(address)
	if err != nil {
		t.Fatal(err)
	}
	edited := make(chan struct{})
	go func() {
		defer close(edited)
		for range 20000 {
			w.ledger.setPools([]ipam.Pool{pool(ipam.Pool{Name: "old"}, "198.51.100.0/28")}, map[string]poolTerms{"old": {lasting: true}})
			w.ledger.setPools([]ipam.Pool{pool(ipam.Pool{Name: "new"}, "198.51.100.0/28")}, map[string]poolTerms{"new": {lasting: true}, "old": {deleting: true}})
		}
	}()
	for ended := false; !ended; {
		select {
		case <-edited:
			ended = true
		default:
		}
		if released, err := w.reconciler.releaseNames(t.Context(), rec, netip.MustParseAddr(address)); released || err != nil {
			t.Fatalf("the reservation is released, although no pool that has its address is deleted: %v", err)
		}
	}
}

// TestARecordIsAlwaysInItsPool looks for the record of a reservation that names no pool, at the moment at which it gets one.
func TestARecordIsAlwaysInItsPool(t *testing.T) {
	const address = "198.51.100.3"
	w := newWorld(t)
	w.pool("public", public())
	w.reserve(address, herald.AllocationOwner{Namespace: "default", Name: "db"})
	reserved, err := w.recordsAPI.get(address)
	if err != nil {
		t.Fatal(err)
	}
	taken := reserved.DeepCopy()
	taken.Spec.Pool = "public"
	for range 2000 {
		_ = w.recordsAPI.cache.Update(reserved) // Update fails only for an object without a name.
		done := make(chan struct{})
		go func() {
			defer close(done)
			_ = w.recordsAPI.cache.Update(taken)
		}()
		for ended := false; !ended; {
			select {
			case <-done:
				ended = true
			default:
			}
			if all := w.records.ofPool("public"); len(all) != 1 {
				t.Fatalf("the pool has the records %v, want that of %s", all, address)
			}
		}
	}
}
