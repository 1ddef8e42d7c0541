package provider

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	herald "github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/ipam"
)

func pool(t ipam.Pool, ranges ...string) ipam.Pool {
	set, err := ipam.ParseAddresses(ranges, nil)
	if err != nil {
		panic(err) // invalid ranges in the test
	}
	t.Addresses = set
	return t
}

// storyPools returns the pools of the stories. The first addresses that they assign are 198.51.100.0
// and 2001:db8::.
func storyPools() []ipam.Pool {
	return []ipam.Pool{
		pool(ipam.Pool{Name: "public", AutoAssign: true}, "198.51.100.0/29", "2001:db8::/125"),
		pool(ipam.Pool{Name: "second", AutoAssign: true}, "198.51.100.16/29"),
		pool(ipam.Pool{Name: "manual"}, "203.0.113.0/29"),
		pool(ipam.Pool{Name: "disabled", AutoAssign: true, Closed: true}, "203.0.113.16/29"),
	}
}

func storyLedger() *ledger {
	l := newLedger(herald.LoadBalancerClass)
	l.setPools(storyPools(), nil)
	return l
}

// carrying returns a Service with these addresses in its status.
func carrying(uid string, w wish, texts ...string) *corev1.Service {
	svc := service(uid, w)
	var given []ipam.Allocation
	for _, a := range addresses(texts...) {
		given = append(given, ipam.Allocation{Address: a})
	}
	svc.Status.LoadBalancer = *status(given)
	return svc
}

// given returns the allocation in a record.
func given(address, pool, uid string) ipam.Allocation {
	a := ipam.Allocation{Address: netip.MustParseAddr(address), Pool: pool}
	if uid != "" {
		a.Owner = ipam.Owner{Namespace: "default", Name: uid, UID: uid}
	}
	return a
}

// note makes the ledger learn a record of an address and its owner, and returns the owners that lost
// the address.
func note(l *ledger, a ipam.Allocation, released bool) []ipam.Owner {
	if released {
		a.Owner.UID = ""
	}
	rec := recordOf(a, "", herald.AllocationOwner{Namespace: a.Owner.Namespace, Name: a.Owner.Name, UID: types.UID(a.Owner.UID)})
	if released {
		rec.Spec.ReleasedAt = &metav1.Time{}
	}
	lost, _, err := l.learn(a.Address, rec, []ipam.Tenant{{Owner: a.Owner}})
	if err != nil {
		panic(err) // an invalid address in the test
	}
	return lost
}

// byUID returns an owner for a lookup.
func byUID(uid string) ipam.Owner { return ipam.Owner{UID: uid} }

func ask(t testing.TB, l *ledger, svc *corev1.Service) ([]ipam.Allocation, error) {
	t.Helper()
	req, err := translate(svc)
	if err != nil {
		t.Fatal(err)
	}
	allocations, _, err := l.allocate(svc, req)
	return allocations, err
}

func TestAdoptingWhatAServiceCarries(t *testing.T) {
	four := []corev1.IPFamily{v4}
	type stand struct {
		ipam.Allocation
		released bool
	}
	for _, story := range []struct {
		name    string
		records []stand
		svc     *corev1.Service
		want    string // the addresses it gets, with their pools
	}{
		{"nothing carried", nil, carrying("web", wish{families: four}), "198.51.100.0 (public)"},
		{"free: it stays", nil, carrying("web", wish{families: four}, "198.51.100.5"), "198.51.100.5 (public)"},
		{"both families", nil, carrying("web", wish{families: []corev1.IPFamily{v6, v4}}, "198.51.100.5", "2001:db8::5"), "2001:db8::5 (public), 198.51.100.5 (public)"},
		{"the other family is given", nil, carrying("web", wish{families: []corev1.IPFamily{v4, v6}}, "198.51.100.5"), "198.51.100.5 (public), 2001:db8:: (public)"},
		{"of a pool that does not auto-assign", nil, carrying("web", wish{families: four}, "203.0.113.3"), "198.51.100.0 (public)"},
		{"of such a pool that is named", nil, carrying("web", wish{families: four, pool: "manual"}, "203.0.113.3"), "203.0.113.3 (manual)"},
		{"of a disabled pool, asked for", nil, carrying("web", wish{families: four, ips: "203.0.113.17"}, "203.0.113.17"), "203.0.113.17 (disabled)"},
		{"of a disabled pool", nil, carrying("web", wish{families: four}, "203.0.113.17"), "203.0.113.17 (disabled)"},
		{"taken: it gets another", []stand{{given("198.51.100.5", "public", "mail"), false}},
			carrying("web", wish{families: four}, "198.51.100.5"), "198.51.100.0 (public)"},
		{"reserved: it gets another", []stand{{given("198.51.100.5", "public", ""), false}},
			carrying("web", wish{families: four}, "198.51.100.5"), "198.51.100.0 (public)"},
		{"cooling after another: it gets another", []stand{{given("198.51.100.5", "public", "mail"), true}},
			carrying("web", wish{families: four}, "198.51.100.5"), "198.51.100.0 (public)"},
		{"cooling after itself: it takes it back", []stand{{given("198.51.100.5", "public", "web"), true}},
			carrying("web", wish{families: four}), "198.51.100.5 (public)"},
		{"from the pool that is asked for", nil, carrying("web", wish{families: four, pool: "second"}, "198.51.100.20"), "198.51.100.20 (second)"},
		{"another pool is asked for", nil, carrying("web", wish{families: four, pool: "second"}, "198.51.100.5"), "198.51.100.16 (second)"},
		{"another address is asked for", nil, carrying("web", wish{families: four, ips: "198.51.100.3"}, "198.51.100.5"), "198.51.100.3 (public)"},
		{"another address than one in no pool", nil, carrying("web", wish{families: four, ips: "198.51.100.3"}, "198.18.0.9"), "198.51.100.3 (public)"},
		{"a record outweighs the status", []stand{{given("198.51.100.3", "public", "web"), false}},
			carrying("web", wish{families: four}, "198.51.100.5"), "198.51.100.3 (public)"},
		{"a record outweighs a status that is in no pool", []stand{{given("198.51.100.3", "public", "web"), false}},
			carrying("web", wish{families: four}, "198.18.0.9"), "198.51.100.3 (public)"},
		{"a record of the other family does not", []stand{{given("2001:db8::3", "public", "web"), false}},
			carrying("web", wish{families: []corev1.IPFamily{v4, v6}}, "198.51.100.5"), "198.51.100.5 (public), 2001:db8::3 (public)"},
		{"a family it does not want any more", nil, carrying("web", wish{families: four}, "2001:db8::5"), "198.51.100.0 (public)"},
		{"of two in one family the first", nil, carrying("web", wish{families: four}, "198.51.100.5", "198.51.100.4"), "198.51.100.5 (public)"},
	} {
		t.Run(story.name, func(t *testing.T) {
			l := storyLedger()
			for _, r := range story.records {
				note(l, r.Allocation, r.released)
			}
			allocations, err := ask(t, l, story.svc)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, a := range allocations {
				got = append(got, fmt.Sprintf("%s (%s)", a.Address, a.Pool))
			}
			if strings.Join(got, ", ") != story.want {
				t.Errorf("%v, want %s", got, story.want)
			}
			if held := l.heldBy(byUID("web")); len(held) != len(allocations) {
				t.Errorf("it holds %v, which is more than it was given", held)
			}
		})
	}
}

func TestOfSeveralAddressesTheCarriedOneIsKept(t *testing.T) {
	four := []corev1.IPFamily{v4}
	for _, story := range []struct {
		name string
		svc  *corev1.Service
		want string
	}{
		{"the first", carrying("web", wish{families: four}, "198.51.100.3"), "198.51.100.3"},
		{"the second", carrying("web", wish{families: four}, "198.51.100.5"), "198.51.100.5"},
		{"none: the one taken last", carrying("web", wish{families: four}), "198.51.100.5"},
		{"but another is asked for", carrying("web", wish{families: four, ips: "198.51.100.5"}, "198.51.100.3"), "198.51.100.5"},
		{"but another pool is asked for", carrying("web", wish{families: four, pool: "second"}, "198.51.100.3"), "198.51.100.16"},
	} {
		t.Run(story.name, func(t *testing.T) {
			l := storyLedger()
			note(l, given("198.51.100.3", "public", "web"), false)
			note(l, given("198.51.100.5", "public", "web"), false)
			if l.count(byUID("web"), ipam.IPv4) != 2 || l.count(byUID("web"), ipam.IPv6) != 0 {
				t.Error("it holds two IPv4 addresses and no other, and they are not counted so")
			}
			kept, err := ask(t, l, story.svc)
			if err != nil || len(kept) != 1 || kept[0].Address.String() != story.want {
				t.Fatalf("it keeps %v (%v), want %s", kept, err, story.want)
			}
			for _, a := range l.superfluous(byUID("web"), kept) {
				note(l, a, true)
			}
			if l.count(byUID("web"), ipam.IPv4) != 1 {
				t.Error("it released all but one, and more are counted")
			}
		})
	}
}

func TestAnAddressInNoPoolIsNotReplacedUnasked(t *testing.T) {
	l := storyLedger()
	_, err := ask(t, l, carrying("web", wish{families: []corev1.IPFamily{v4}}, "198.18.0.9"))
	if refused, ok := errors.AsType[*ipam.Error](err); !ok || !errors.Is(err, ipam.ErrNotInPool) || refused.Address != netip.MustParseAddr("198.18.0.9") {
		t.Fatalf("%v, want a refusal of the address it carries", err)
	}
	for _, says := range []string{"198.18.0.9", "in no IPPool", "spec.addresses", "clear the Service's status"} {
		if !strings.Contains(Words(err), says) {
			t.Errorf("%q does not say %q", err, says)
		}
	}
	if held := l.heldBy(byUID("web")); len(held) > 0 {
		t.Errorf("it was refused and holds %v", held)
	}
}

func TestAdoptGivesNothingNew(t *testing.T) {
	l := storyLedger()
	for uid, carried := range map[string][]string{"with": {"198.51.100.5"}, "without": nil} {
		svc := carrying(uid, wish{families: []corev1.IPFamily{v4, v6}}, carried...)
		req, err := translate(svc)
		if err != nil {
			t.Fatal(err)
		}
		if err := l.adopt(svc, req); err != nil {
			t.Fatal(err)
		}
		if held := l.heldBy(byUID(uid)); len(held) != len(carried) {
			t.Errorf("%s: holds %v, carried %v", uid, held, carried)
		}
	}
}

func TestSettled(t *testing.T) {
	four, both := []corev1.IPFamily{v4}, []corev1.IPFamily{v4, v6}
	const required, preferred = corev1.IPFamilyPolicyRequireDualStack, corev1.IPFamilyPolicyPreferDualStack
	mine, mine6 := given("198.51.100.5", "public", "web"), given("2001:db8::5", "public", "web")
	learn := func(records ...ipam.Allocation) func(*ledger) {
		return func(l *ledger) {
			for _, r := range records {
				note(l, r, false)
			}
		}
	}
	for _, story := range []struct {
		name string
		wish wish
		past func(*ledger)
		want bool
	}{
		{"it holds nothing", wish{families: four}, func(*ledger) {}, false},
		{"it holds what it asks for", wish{families: four}, learn(mine), true},
		{"in memory only", wish{families: four}, func(l *ledger) { _ = l.alloc.Restore(mine, ipam.Sharing{}) }, false},
		{"the record is gone", wish{families: four}, func(l *ledger) { learn(mine)(l); l.outdated(mine.Address, l.version(mine.Address)) }, false},
		{"it gave it up", wish{families: four}, func(l *ledger) { note(l, mine, true) }, false},
		{"it gave one up and has another", wish{families: four}, func(l *ledger) {
			note(l, given("198.51.100.4", "public", "web"), true)
			note(l, mine, false)
		}, true},
		{"a family is missing", wish{families: both, policy: required}, learn(mine), false},
		{"a family that may be missing is", wish{families: both, policy: preferred}, learn(mine), true},
		{"both families", wish{families: both, policy: required}, learn(mine6, mine), true},
		{"a family too many", wish{families: four}, learn(mine, mine6), false},
		{"the other family", wish{families: four}, learn(mine6), false},
		{"another address is asked for", wish{families: four, ips: "198.51.100.6"}, learn(mine), false},
		{"that very address is asked for", wish{families: four, ips: "198.51.100.5"}, learn(mine), true},
		{"another pool is asked for", wish{families: four, pool: "second"}, learn(mine), false},
		{"that very pool is asked for", wish{families: four, pool: "public"}, learn(mine), true},
		{"recorded without a pool", wish{families: four, pool: "second"}, learn(given("198.51.100.5", "", "web")), true},
		{"the pool asked for has it by now", wish{families: four, pool: "public"}, learn(given("198.51.100.5", "gone", "web")), true},
		{"in no pool any more", wish{families: four}, learn(given("198.18.0.9", "public", "web")), true},
	} {
		t.Run(story.name, func(t *testing.T) {
			l := storyLedger()
			story.past(l)
			svc := service("web", story.wish)
			req, err := translate(svc)
			if err != nil {
				t.Fatal(err)
			}
			held, ok := l.settled(req, ownerEntry(svc))
			if ok != story.want {
				t.Fatalf("%v with %v, want %v", ok, held, story.want)
			}
			for i := 1; i < len(held); i++ {
				if req.Families[i] != ipam.FamilyOf(held[i].Address) {
					t.Errorf("%v are not in the order of the families", held)
				}
			}
		})
	}
}

func TestARecordOutweighsMemory(t *testing.T) {
	l := storyLedger()
	web, mail := service("web", wish{families: []corev1.IPFamily{v4}}), service("mail", wish{families: []corev1.IPFamily{v4}})
	before, err := ask(t, l, web)
	if err != nil {
		t.Fatal(err)
	}
	address := before[0].Address

	// Another leader has recorded the address for another Service.
	if displaced := note(l, given(address.String(), "public", "mail"), false); !slices.Equal(displaced, []ipam.Owner{owner(web)}) {
		t.Errorf("displaced is %v, want default/web", displaced)
	}
	if holders, cooling := l.holders(address); len(holders) != 1 || cooling || holders[0].Owner != owner(mail) {
		t.Errorf("holders are %v", holders)
	}
	if held := l.heldBy(byUID("web")); len(held) > 0 {
		t.Errorf("default/web still has %v", held)
	}
	after, err := ask(t, l, web)
	if err != nil || after[0].Address == address {
		t.Errorf("default/web is served with %v, %v", after, err)
	}
	if l.drop(address, owner(web)); len(l.heldBy(byUID("mail"))) != 1 {
		t.Error("default/web freed what default/mail has")
	}

	for _, story := range []struct {
		name     string
		learned  ipam.Allocation
		released bool
		was      bool
	}{
		{"the same again", given(address.String(), "public", "mail"), false, false},
		{"it is released", given(address.String(), "public", "mail"), true, false},
		{"it is taken back", given(address.String(), "public", "mail"), false, false},
		{"it is reserved", given(address.String(), "public", ""), false, true},
		{"nobody is displaced where it was reserved", given(address.String(), "public", "web"), false, false},
	} {
		if displaced := note(l, story.learned, story.released); len(displaced) > 0 != story.was {
			t.Errorf("%s: displaced %v", story.name, displaced)
		}
		want := story.learned.Owner
		if story.released {
			want.UID = "" // It is kept for the name.
		}
		if holders, cooling := l.holders(address); len(holders) != 1 || holders[0].Owner != want || cooling != story.released {
			t.Errorf("%s: held by %v, cooling %v", story.name, holders, cooling)
		}
	}
}

func TestARefusedServiceKeepsWhatItsStatusSays(t *testing.T) {
	for _, story := range []struct {
		name    string
		held    []string
		carried []string
		want    string
	}{
		{"a move that was done", []string{"198.51.100.3", "198.51.100.5"}, []string{"198.51.100.5"}, "198.51.100.5"},
		{"a move that is under way", []string{"198.51.100.3", "198.51.100.5"}, []string{"198.51.100.3"}, "198.51.100.3"},
		{"nothing in the status yet", []string{"198.51.100.3", "198.51.100.5"}, nil, "198.51.100.3 198.51.100.5"},
		{"each family for itself", []string{"198.51.100.3", "198.51.100.5", "2001:db8::3"}, []string{"198.51.100.5"}, "198.51.100.5 2001:db8::3"},
	} {
		t.Run(story.name, func(t *testing.T) {
			l := storyLedger()
			for _, a := range story.held {
				note(l, given(a, "public", "web"), false)
			}
			var kept []string
			for _, a := range l.carriedFirst(carrying("web", wish{families: []corev1.IPFamily{v4, v6}}, story.carried...)) {
				kept = append(kept, a.Address.String())
			}
			if got := strings.Join(kept, " "); got != story.want {
				t.Errorf("it keeps %s, want %s", got, story.want)
			}
		})
	}
}

func TestOlderVersionsAreNotLearned(t *testing.T) {
	address := netip.MustParseAddr("198.51.100.5")
	learn := func(l *ledger, uid string, released bool, version string) (stale bool) {
		t.Helper()
		o := ipam.Owner{Namespace: "default", Name: "web", UID: uid}
		rec := recordOf(given(address.String(), "public", uid), "", herald.AllocationOwner{Namespace: o.Namespace, Name: o.Name, UID: types.UID(uid)})
		rec.ResourceVersion = version
		if released {
			rec.Spec.ReleasedAt = &metav1.Time{}
		}
		_, stale, err := l.learn(address, rec, []ipam.Tenant{{Owner: o}})
		if err != nil {
			t.Fatal(err)
		}
		return stale
	}
	holder := func(l *ledger) string {
		holders, cooling := l.holders(address)
		if len(holders) != 1 {
			return fmt.Sprint(holders)
		}
		return fmt.Sprintf("%s, cooling %t", known(holders[0].Owner), cooling)
	}
	l := storyLedger()
	for _, step := range []struct {
		name, uid string
		released  bool
		version   string
		stale     bool
		holder    string
	}{
		{"the first", "a", false, "99", false, "a, cooling false"},
		{"an earlier one", "b", false, "98", true, "a, cooling false"},
		{"a later one, of more digits", "b", false, "101", false, "b, cooling false"},
		{"the same again", "b", false, "101", false, "b, cooling false"},
		{"released", "", true, "105", false, "~web, cooling true"},
		{"before it was released", "b", false, "101", true, "~web, cooling true"},
		{"taken back", "c", false, "107", false, "c, cooling false"},
	} {
		if stale := learn(l, step.uid, step.released, step.version); stale != step.stale || holder(l) != step.holder {
			t.Errorf("%s: stale %t, held by %s; want %t, %s", step.name, stale, holder(l), step.stale, step.holder)
		}
	}
	// A caller that asked the API server before the last version was learned has no evidence of a
	// backup.
	if l.outdated(address, "105"); !learn(l, "a", false, "106") || holder(l) != "c, cooling false" {
		t.Errorf("a version that was passed over meanwhile is learned: %s", holder(l))
	}
	// After a backup was restored, all versions are older.
	if l.outdated(address, l.version(address)); learn(l, "a", false, "7") || holder(l) != "a, cooling false" {
		t.Errorf("what is no longer known keeps an earlier version out: %s", holder(l))
	}
	if l.outdated(address, l.version(address)); learn(l, "b", false, "5") || holder(l) != "b, cooling false" {
		t.Errorf("a record that is gone keeps an earlier version out: %s", holder(l))
	}
}

func TestAnAddressThatCoolsDownSaysSo(t *testing.T) {
	l := storyLedger()
	note(l, given("198.51.100.5", "public", "mail"), true)
	_, err := ask(t, l, service("web", wish{families: []corev1.IPFamily{v4}, ips: "198.51.100.5"}))
	if !errors.Is(err, ipam.ErrTaken) || !strings.Contains(err.Error(), "198.51.100.5 was released by default/mail") {
		t.Errorf("%v", err)
	}
}

func TestUseCountsWhatCools(t *testing.T) {
	l := storyLedger()
	note(l, given("198.51.100.1", "public", "web"), false)
	note(l, given("198.51.100.2", "public", "mail"), true)
	note(l, given("2001:db8::1", "public", "mail"), true)
	note(l, given("198.51.100.17", "second", "web"), true)
	note(l, given("198.18.0.9", "public", "web"), false)
	u := l.use([]string{"public"})["public"]
	for f, want := range map[ipam.Family][4]int64{ipam.IPv4: {8, 1, 1, 6}, ipam.IPv6: {8, 0, 1, 7}} {
		p := u.family(f)
		if got := [4]int64{p.Capacity, p.Assigned, p.Cooling, p.Available}; got != want {
			t.Errorf("%s: capacity, assigned, cooling, available are %v, want %v", f, got, want)
		}
	}
	if someOf(u.outside) != "198.18.0.9 (default/web)" {
		t.Errorf("outside are %v", u.outside)
	}
	if n := l.size(); n != 5 {
		t.Errorf("size %d, want 5", n)
	}
}

// TestWorkersShareTheLedger is about the service controller's workers. Of many Services that ask at
// once, each gets its own address, and those for which there is none get none.
func TestWorkersShareTheLedger(t *testing.T) {
	const workers, each = 8, 20
	l := newLedger(herald.LoadBalancerClass)
	l.setPools([]ipam.Pool{pool(ipam.Pool{Name: "public", AutoAssign: true}, "198.51.100.0/25")}, nil)
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for i := range each {
				svc := service(fmt.Sprintf("web-%d-%d", w, i), wish{families: []corev1.IPFamily{v4}})
				req, _ := translate(svc)
				allocations, _, err := l.allocate(svc, req)
				for _, a := range allocations {
					note(l, a, false)
				}
				if err != nil && !errors.Is(err, ipam.ErrExhausted) {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	holders := map[netip.Addr]string{}
	for w := range workers {
		for i := range each {
			uid := fmt.Sprintf("web-%d-%d", w, i)
			for _, a := range l.heldBy(byUID(uid)) {
				if other, taken := holders[a.Address]; taken {
					t.Errorf("%s is held by %s and %s", a.Address, other, uid)
				}
				holders[a.Address] = uid
			}
		}
	}
	if len(holders) != 128 {
		t.Errorf("%d addresses are held, want all 128", len(holders))
	}
}
