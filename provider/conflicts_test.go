package provider

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	herald "github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/ipam"
)

// sees returns the report of a node about conflicts, each in the form "address mac age".
func sees(node string, now time.Time, conflicts ...string) *report {
	r := says(node)
	for _, c := range conflicts {
		f := strings.Fields(c)
		ago, err := time.ParseDuration(f[2])
		at := now.Add(-ago).Format(time.RFC3339Nano)
		if err != nil {
			at = f[2]
		}
		r.conflicts = append(r.conflicts, herald.SpeakerConflict{Address: f[0], Interface: "eth0", MAC: f[1], At: at})
	}
	return r
}

func everyAddress(netip.Addr) bool { return true }

// TestConflictsLast checks how long an address counts as conflicting, and when its record is checked again.
func TestConflictsLast(t *testing.T) {
	const address, stranger, other = "198.51.100.7", "02:00:00:00:00:01", "02:00:00:00:00:02"
	type event struct {
		after time.Duration
		*report
	}
	at := func(after time.Duration, node string, conflicts ...string) event {
		return event{after, sees(node, moment.Add(after), conflicts...)}
	}
	seen := func(mac, ago string) string { return address + " " + mac + " " + ago }
	for _, story := range []struct {
		name   string
		events []event
		news   int           // how often the record is checked
		at     time.Duration // the time of the question
		nodes  string        // the nodes that report it at this time
		lasts  time.Duration // how long it continues
	}{
		{"nothing", []event{at(0, "a")}, 0, 0, "", 0},
		{"reported now", []event{at(0, "a", seen(stranger, "0s"))}, 1, 0, "a", conflictFresh},
		{"seen some time ago", []event{at(0, "a", seen(stranger, "1m"))}, 1, time.Minute, "a", conflictFresh - 2*time.Minute},
		{"by two", []event{at(0, "b", seen(stranger, "0s")), at(0, "a", seen(stranger, "0s"))}, 2, 0, "a b", conflictFresh},
		{"seen again: no news", []event{at(0, "a", seen(stranger, "0s")), at(time.Minute, "a", seen(stranger, "0s"))}, 1, time.Minute, "a", conflictFresh},
		{"another machine: news", []event{at(0, "a", seen(stranger, "0s")), at(time.Minute, "a", seen(other, "0s"))}, 2, time.Minute, "a", conflictFresh},
		{"withdrawn", []event{at(0, "a", seen(stranger, "0s")), at(time.Minute, "a")}, 2, time.Minute, "", conflictQuiet},
		{"withdrawn and over", []event{at(0, "a", seen(stranger, "0s")), at(time.Minute, "a")}, 2, 2 * time.Minute, "", 0},
		{"withdrawn by one of two", []event{at(0, "a", seen(stranger, "0s")), at(0, "b", seen(stranger, "0s")), at(time.Minute, "a")}, 3, time.Minute, "b", conflictFresh - time.Minute},
		{"left behind by a node that is gone", []event{at(0, "a", seen(stranger, "0s"))}, 1, conflictFresh + time.Second, "", 0},
		{"of long ago", []event{at(0, "a", seen(stranger, "10m"))}, 0, 0, "", 0},
		{"of the future", []event{at(0, "a", seen(stranger, "-1h"))}, 0, 0, "", 0},
		{"of no time", []event{at(0, "a", seen(stranger, "soon"))}, 0, 0, "", 0},
		{"of no machine", []event{at(0, "a", seen("stranger", "0s"))}, 0, 0, "", 0},
		{"of no address", []event{at(0, "a", "web "+stranger+" 0s")}, 0, 0, "", 0},
		{"in another notation", []event{at(0, "a", "::ffff:"+address+" 02-00-00-00-00-01 0s"), at(0, "a", seen(stranger, "0s"))}, 1, 0, "a", conflictFresh},
	} {
		t.Run(story.name, func(t *testing.T) {
			news := 0
			c := newConflicts(everyAddress, func(netip.Addr) { news++ })
			before := map[string]*report{}
			for _, e := range story.events {
				c.report(moment.Add(e.after), before[e.Name], e.report)
				before[e.Name] = e.report
			}
			now := moment.Add(story.at)
			current, lasts := c.of(netip.MustParseAddr(address), now)
			var nodes []string
			for _, s := range current {
				nodes = append(nodes, s.node)
			}
			if got := strings.Join(nodes, " "); got != story.nodes || max(0, lasts) != story.lasts || news != story.news {
				t.Errorf("reported by %q, for another %v, with %d looks; want %q, %v, %d", got, lasts, news, story.nodes, story.lasts, story.news)
			}
			// When all reports are withdrawn, nothing is kept.
			for _, r := range before {
				c.report(now, r, says(r.Name))
			}
			c.of(netip.MustParseAddr(address), now.Add(time.Hour))
			if len(c.disputes) > 0 {
				t.Errorf("left are %v", c.disputes)
			}
		})
	}
}

// TestWhoMovesBecauseOfAConflict is about the address 198.51.100.0, which a Service holds.
func TestWhoMovesBecauseOfAConflict(t *testing.T) {
	four := wish{families: []corev1.IPFamily{v4}}
	address := netip.MustParseAddr("198.51.100.0")
	for _, story := range []struct {
		name string
		svc  *corev1.Service
		edit func(*herald.IPAllocation)
		want bool
	}{
		{"a new address", service("web", four), nil, true},
		{"without a conflict", service("web", four), func(rec *herald.IPAllocation) { rec.Status.Conditions = nil }, false},
		{"when the conflict is over", service("web", four), func(rec *herald.IPAllocation) { rec.Status.Conditions[0].Status = metav1.ConditionFalse }, false},
		{"an address in established use", service("web", four), func(rec *herald.IPAllocation) {
			rec.CreationTimestamp = metav1.NewTime(moment.Add(-establishedAfter - time.Second))
		}, false},
		{"one that it asks for", service("web", wish{families: four.families, ips: "198.51.100.0"}), nil, false},
		{"one that spec.loadBalancerIP asks for", service("web", wish{families: four.families, ip: "198.51.100.0"}), nil, false},
		{"one that was reserved for it by hand", service("web", four), func(rec *herald.IPAllocation) { rec.Spec.ReclaimPolicy = herald.ReclaimRetain }, false},
		{"one that it has left", service("web", four), func(rec *herald.IPAllocation) { rec.Spec.ReleasedAt = &metav1.Time{Time: moment} }, false},
		{"one of another class", service("web", four), func(rec *herald.IPAllocation) { rec.Spec.Class = "example.com/other" }, false},
	} {
		t.Run(story.name, func(t *testing.T) {
			l := storyLedger()
			rec := recordOf(ipam.Allocation{Address: address, Pool: "public"}, herald.LoadBalancerClass, ownerEntry(story.svc))
			rec.CreationTimestamp = metav1.NewTime(moment)
			rec.Status.Conditions = []metav1.Condition{{Type: herald.AllocationConflict, Status: metav1.ConditionTrue}}
			if story.edit != nil {
				story.edit(rec)
			}
			_, tenants, err := TenantsOf(rec)
			if err != nil {
				t.Fatal(err)
			}
			if _, _, err := l.learn(address, rec, tenants); err != nil {
				t.Fatal(err)
			}
			req, err := translate(story.svc)
			if err != nil {
				t.Fatal(err)
			}
			if got := l.leaves(req, address, moment); got != story.want {
				t.Errorf("it moves: %v, want %v", got, story.want)
			}
		})
	}
}

// TestAReportThatChangesCostsFewWrites checks that a node that reports another machine each time does not cause a write
// of the record each time.
func TestAReportThatChangesCostsFewWrites(t *testing.T) {
	address := netip.MustParseAddr("198.51.100.7")
	c := newConflicts(everyAddress, func(netip.Addr) {})
	rec := recordOf(ipam.Allocation{Address: address}, "", herald.AllocationOwner{})
	writes := 0
	var before *report
	for second := range 300 {
		now := moment.Add(time.Duration(second) * time.Second)
		after := sees("a", now, fmt.Sprintf("198.51.100.7 02:00:00:00:00:%02x 0s", second%256))
		if second%2 == 1 {
			after = says("a") // The conflict is withdrawn in between.
		}
		c.report(now, before, after)
		before = after
		if condition, _ := c.condition(rec, address, now); condition != nil && meta.SetStatusCondition(&rec.Status.Conditions, *condition) {
			writes++
		}
	}
	if text := rec.Status.Conditions[0].Message; writes < 4 || writes > 7 {
		t.Errorf("%d writes in five minutes, the last: %s", writes, text)
	}
	c.synced.Store(true)
	if is, _ := c.condition(rec, address, moment.Add(time.Hour)); is.Status != metav1.ConditionFalse || is.Message == "" {
		t.Errorf("an hour later: %+v", is)
	}
}

// TestConflictsOfAddressesWithoutARecord checks that conflicts of addresses without a record are not kept.
func TestConflictsOfAddressesWithoutARecord(t *testing.T) {
	recorded := netip.MustParseAddr("198.51.100.7")
	c := newConflicts(func(a netip.Addr) bool { return a == recorded }, func(a netip.Addr) {
		if a != recorded {
			t.Errorf("%s is looked at, which has no record", a)
		}
	})
	before := says("a")
	for i := range 100 {
		after := sees("a", moment, fmt.Sprintf("203.0.113.%d 02:00:00:00:00:01 0s", i), "198.51.100.7 02:00:00:00:00:01 0s")
		c.report(moment, before, after)
		before = after
	}
	if seen, _ := c.of(recorded, moment); len(seen) != 1 || len(c.disputes) != 1 {
		t.Errorf("%s is reported by %v, remembered are %v", recorded, seen, c.disputes)
	}
}

// BenchmarkReports measures a report that says nothing, alone and beside 50,000 conflicts that another node has reported. The two
// should cost the same.
func BenchmarkReports(b *testing.B) {
	for _, reports := range []int{0, 1000} {
		b.Run(fmt.Sprint(50*reports, " conflicts"), func(b *testing.B) {
			c := newConflicts(everyAddress, func(netip.Addr) {})
			var before *report
			address := netip.MustParseAddr("2001:db8::")
			for range reports {
				var all []string
				for range 50 {
					all = append(all, address.String()+" 02:00:00:00:00:01 0s")
					address = address.Next()
				}
				after := sees("hostile", moment, all...)
				c.report(moment, before, after)
				before = after
			}
			quiet := says("quiet")
			for b.Loop() {
				c.report(moment, quiet, quiet)
			}
		})
	}
}

// TestAConflictIsNotOverWhileReportsAreReceived has a herald-ccm that starts, and a record with a conflict that a node still reports.
func TestAConflictIsNotOverWhileReportsAreReceived(t *testing.T) {
	const address, stranger = "198.51.100.7", "02:00:00:00:00:01"
	rec := recordOf(given(address, "public", "web"), "", herald.AllocationOwner{})
	rec.Status.Conditions = []metav1.Condition{{Type: herald.AllocationConflict, Status: metav1.ConditionTrue}}
	said := sees("a", moment, address+" "+stranger+" 0s")
	for range 2000 {
		c := newConflicts(everyAddress, func(netip.Addr) {})
		go func() {
			c.report(moment, nil, said)
			c.synced.Store(true)
		}()
		for synced := false; !synced; {
			synced = c.synced.Load()
			if is, _ := c.condition(rec, netip.MustParseAddr(address), moment); is.Status != metav1.ConditionTrue {
				t.Fatalf("the conflict is over: %+v", is)
			}
		}
	}
}

// TestAConflictOfADeletedRecord checks that a conflict of an address whose record is gone is forgotten when it is over,
// and not before, because the record may come back.
func TestAConflictOfADeletedRecord(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.pool("public", func(o *herald.IPPool) { o.Spec.Addresses = []herald.AddressRange{"198.51.100.0/30"} })
		svc := service("web", wish{families: []corev1.IPFamily{v4}})
		if _, err := w.serve(svc); err != nil {
			t.Fatal(err)
		}
		w.reconcile()
		now := time.Now()
		w.conflicts.report(now, nil, sees("a", now, "198.51.100.0 02:00:00:00:00:01 "+(conflictFresh-time.Second).String()))
		w.gone(svc)
		w.recordsAre()
		if len(w.conflicts.disputes) != 1 {
			t.Errorf("remembered are %v, before the conflict is over", w.conflicts.disputes)
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if w.reconcile(); len(w.conflicts.disputes) > 0 {
			t.Errorf("remembered are %v, though the conflict is over", w.conflicts.disputes)
		}
	})
}
