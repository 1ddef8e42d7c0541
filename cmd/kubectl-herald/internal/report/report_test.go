package report

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/charmbracelet/lipgloss"
	"github.com/google/go-cmp/cmp"
	"github.com/muesli/termenv"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/yaml"

	herald "github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/ipam"
)

// began is the creation time of the first object of a test. Each later object is a minute younger.
var began = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func pool(name string, age int, addresses ...herald.AddressRange) *herald.IPPool {
	return &herald.IPPool{
		ObjectMeta: metav1.ObjectMeta{Name: name, CreationTimestamp: metav1.NewTime(began.Add(time.Duration(age) * time.Minute))},
		Spec:       WithDefaults(herald.IPPoolSpec{Addresses: addresses}),
	}
}

// record returns a record of an address and its Service, NAMESPACE/NAME. If the Service is empty, the
// address is reserved.
func record(address, pool, service string) *herald.IPAllocation {
	rec := &herald.IPAllocation{ObjectMeta: metav1.ObjectMeta{Name: address}, Spec: herald.IPAllocationSpec{Address: address, Pool: pool}}
	if namespace, name, ok := strings.Cut(service, "/"); ok {
		rec.Spec.Owners = []herald.AllocationOwner{{Namespace: namespace, Name: name, UID: types.UID(name)}}
	}
	return rec
}

// reserved turns the owner into a reservation for the Service's name.
func reserved(rec *herald.IPAllocation) *herald.IPAllocation {
	rec.Spec.Owners[0].UID = ""
	return rec
}

func cooling(rec *herald.IPAllocation) *herald.IPAllocation {
	now := metav1.Now()
	rec.Spec.ReleasedAt = &now
	return rec
}

func request(name string, families ...ipam.Family) ipam.Ask {
	return ipam.Ask{Request: ipam.Request{Owner: ipam.Owner{Namespace: "default", Name: name, UID: name}, Families: families, RequireAll: true}}
}

func TestPools(t *testing.T) {
	public := pool("public", 0, "198.51.100.0/26", "2001:db8::/64")
	public.Status = herald.IPPoolStatus{
		IPv4: &herald.PoolUsage{Capacity: 64, Assigned: 30, Cooling: 2, Available: 32},
		IPv6: &herald.PoolUsage{Capacity: 9007199254740991, Assigned: 1, Available: 9007199254740991},
		Conditions: []metav1.Condition{
			{Type: herald.PoolReady, Status: metav1.ConditionTrue, Reason: "AddressesAvailable"},
			{Type: herald.PoolAddressesAvailable, Status: metav1.ConditionTrue, Reason: "Available"},
			{Type: herald.ConditionAnnounced, Status: metav1.ConditionFalse, Reason: "NoAdvertisement", Message: "create one"},
		},
	}
	tiny := pool("tiny", 1, "203.0.113.0/32")
	tiny.Status = herald.IPPoolStatus{
		IPv4:       &herald.PoolUsage{Capacity: 1, Assigned: 1},
		Conditions: []metav1.Condition{{Type: herald.PoolReady, Status: metav1.ConditionFalse, Reason: "Exhausted", Message: "every address is in use"}},
	}
	objects := &Objects{Pools: []*herald.IPPool{public, tiny, pool("new", 2, "203.0.113.8/29")}, Allocations: []*herald.IPAllocation{
		record("198.51.100.1", "public", "red/a"), record("198.51.100.2", "public", "default/b"), record("198.51.100.3", "public", "red/c"), record("2001:db8::1", "public", "red/c"),
		cooling(record("198.51.100.4", "public", "red/gone")), cooling(record("198.51.100.62", "public", "red/gone")),
		record("198.51.100.5", "", ""), reserved(record("198.51.100.6", "public", "red/later")), record("203.0.113.0", "tiny", "red/d"),
		record("203.0.113.7", "tiny", "red/e"), record("203.0.113.6", "tiny", "default/f"), cooling(record("203.0.113.5", "tiny", "red/g")), // Outside of the pool now.
	}}
	for i := range 25 {
		objects.Allocations = append(objects.Allocations, record(fmt.Sprintf("198.51.100.%d", 7+i), "public", "blue/web"))
	}
	report := Pools(objects)
	want := `public  198.51.100.0/26, 2001:db8::/64
  IPv4  ███████████▒░░░░░░░░░░░░  30 used  2 cooling     32 free  of 64
  IPv6  █░░░░░░░░░░░░░░░░░░░░░░░   1 used  0 cooling  2^53+ free  of 2^53+
  used by blue 25, red 3, default 1, none yet (reserved) 2
  ! Announced: NoAdvertisement: create one

tiny  203.0.113.0/32
  IPv4  ████████████████████████   1 used  0 cooling      0 free  of 1
  used by red 1
  out of range, and still in use by default 1, red 1
  ! Ready: Exhausted: every address is in use

new  203.0.113.8/29
  ! Accepted: NoStatus: herald-ccm has not seen it yet: see whether it runs
`
	if diff := cmp.Diff(want, report.Text(StyleOf(&bytes.Buffer{}))); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(noPools+"\n", (&PoolsReport{}).Text(StyleOf(&bytes.Buffer{}))); diff != "" {
		t.Error(diff)
	}
}

// TestPoolsCountTheRecords checks that the numbers fit together before herald-ccm has written the status of a pool again.
func TestPoolsCountTheRecords(t *testing.T) {
	public := pool("public", 0, "198.51.100.0/29")
	public.Status.IPv4 = &herald.PoolUsage{Capacity: 8, Assigned: 1, Available: 6} // It never gives out one.
	public.Status.Conditions = []metav1.Condition{{Type: herald.PoolReady, Status: metav1.ConditionTrue}}
	o := &Objects{Pools: []*herald.IPPool{public}, Allocations: []*herald.IPAllocation{
		cooling(record("198.51.100.1", "public", "red/gone")), record("198.51.100.2", "public", "default/b"), record("198.51.100.3", "public", "red/c"),
	}}
	says := func(want string) {
		t.Helper()
		if said := strings.Join(strings.Fields(Pools(o).Text(StyleOf(&bytes.Buffer{}))), " "); !strings.Contains(said, want) {
			t.Errorf("%s\ndoes not have %s", said, want)
		}
	}
	says("2 used 1 cooling 4 free of 8 used by default 1, red 1")
	o.Allocations = nil
	says("0 used 0 cooling 7 free of 8")
	o.Unread = []string{"IPAllocation 198.51.100.1 cannot be read"}
	says("1 used 0 cooling 6 free of 8")
}

// TestPoolsWithAnInvalidSpec checks that the addresses of a pool whose last valid spec only herald-ccm knows are in range.
func TestPoolsWithAnInvalidSpec(t *testing.T) {
	public := pool("public", 0, "198.51.100.0/29", "nonsense")
	public.Status.IPv4 = &herald.PoolUsage{Capacity: 16, Assigned: 1, Available: 15}
	o := &Objects{Pools: []*herald.IPPool{public}, Allocations: []*herald.IPAllocation{record("198.51.100.9", "public", "default/b")}}
	said := Pools(o).Text(StyleOf(&bytes.Buffer{}))
	if !strings.Contains(said, "1 used") || !strings.Contains(said, "used by default 1") || strings.Contains(said, "out of range") {
		t.Error(said)
	}
}

func TestBarsShowTheLeastThereIs(t *testing.T) {
	for _, c := range []struct {
		f    familyReport
		want string
	}{
		{familyReport{Capacity: 1000, Free: 1000}, "0 used, 0 cooling, 24 free"},
		{familyReport{Capacity: 1000, Used: 1, Free: 999}, "1 used, 0 cooling, 23 free"},
		{familyReport{Capacity: 1000, Used: 999, Free: 1}, "23 used, 0 cooling, 1 free"},
		{familyReport{Capacity: 1000, Used: 998, Cooling: 1, Free: 1}, "22 used, 1 cooling, 1 free"},
		{familyReport{Capacity: 1000, Used: 1, Cooling: 998, Free: 1}, "1 used, 22 cooling, 1 free"},
		{familyReport{Capacity: 1000, Used: 999, Cooling: 1}, "23 used, 1 cooling, 0 free"},
		{familyReport{Capacity: 4, Used: 2, Cooling: 1, Free: 1}, "12 used, 6 cooling, 6 free"},
		{familyReport{}, "0 used, 0 cooling, 24 free"},
	} {
		bar := c.f.bar(StyleOf(&bytes.Buffer{}))
		got := strings.NewReplacer("U", count(strings.Count(bar, "█"), "used", "used"), "C", count(strings.Count(bar, "▒"), "cooling", "cooling"),
			"F", count(strings.Count(bar, "░"), "free", "free")).Replace("U, C, F")
		if got != c.want {
			t.Errorf("%+v: %s, want %s", c.f, got, c.want)
		}
	}
}

// coloured returns the style of a terminal.
func coloured() Style {
	r := lipgloss.NewRenderer(&bytes.Buffer{})
	r.SetColorProfile(termenv.ANSI)
	return styled(r)
}

func TestPlan(t *testing.T) {
	public, old, tiny := pool("public", 0, "198.51.100.0/30"), pool("old", 1, "203.0.113.0/31"), pool("tiny", 2, "203.0.113.8")
	unused := pool("unused", 3, "203.0.113.16/30")
	golden, arrived := request("golden", ipam.IPv4), request("arrived", ipam.IPv4)
	golden.Pool, arrived.Carried = "gold", []netip.Addr{netip.MustParseAddr("203.0.113.130")}
	s := state{
		pools: []*herald.IPPool{public, old, tiny, unused},
		records: []*herald.IPAllocation{
			record("198.51.100.0", "public", "default/web"), record("198.51.100.2", "public", "default/db"),
			cooling(record("198.51.100.3", "public", "default/gone")), record("203.0.113.0", "old", "default/past"),
			record("203.0.113.8", "tiny", ""), record("203.0.113.200", "public", "default/lost"),
		},
		misread: []waitingReport{{"default/odd", `annotation herald.dev/ips: "x" is not an IP address`}},
		asks: []ipam.Ask{
			request("web", ipam.IPv4), request("db", ipam.IPv4), request("past", ipam.IPv4), request("lost", ipam.IPv4),
			request("six", ipam.IPv6), golden, arrived,
		},
	}
	s.held = (&Objects{Allocations: s.records}).held()
	six := pool("six", 0, "2001:db8::/126", "198.51.100.0/29")
	six.Spec.Priority = 7
	for _, c := range []struct {
		name    string
		wanted  []*herald.IPPool
		deleted []string
		loses   bool
		want    string
		err     string
	}{{
		name: "nothing changes", wanted: []*herald.IPPool{pool("public", 9, "198.51.100.0/30")},
		want: `No pool would change.

= 3 Services keep what they have: 4 addresses
~  203.0.113.200  default/lost     is out of range already, of public
?                 default/odd      would wait: annotation herald.dev/ips: "x" is not an IP address
?                 default/six      would wait: no auto-assigning pool (public, old, tiny, unused) has IPv6 addresses: add some, or name a pool
?                 default/golden   would wait: there is no pool "gold": create it, or name another
?                 default/arrived  would wait: status.loadBalancer carries 203.0.113.130, which is in no IPPool: add it to spec.addresses of one to keep it, or clear the Service's status to be given another

Nothing would be lost.
`,
	}, {
		name: "a pool is narrowed, one added, one goes when it can, one at once", deleted: []string{"old", "unused"}, loses: true,
		wanted: []*herald.IPPool{pool("public", 9, "198.51.100.0/31"), six, pool("gold", 9, "203.0.113.200/31")},
		want: `~ public
    addresses  - 198.51.100.0/30
               + 198.51.100.0/31
    IPv4       4 → 2 addresses, 1 free
- old  gives out nothing more, and goes when its last address is free
+ gold
    addresses  + 203.0.113.200/31
    IPv4       0 → 2 addresses, 0 free
+ six
    addresses  + 2001:db8::/126
               + 198.51.100.0/29
    priority   + 7
    IPv4       0 → 6 addresses, 0 → 4 free
    IPv6       0 → 4 addresses, 0 → 3 free
    overlaps   198.51.100.0-198.51.100.1 stays with the older pool public
- unused
    IPv4  4 → 0 addresses, 4 → 0 free

= 2 Services keep what they have: 3 addresses
-  198.51.100.2   default/db       would be out of range of public (six has it)
~  203.0.113.200  default/lost     is out of range already, of public (gold has it)
+  2001:db8::     default/six      would be given, from six
+  203.0.113.201  default/golden   would be given, from gold
?                 default/odd      would wait: annotation herald.dev/ips: "x" is not an IP address
?                 default/arrived  would wait: status.loadBalancer carries 203.0.113.130, which is in no IPPool: add it to spec.addresses of one to keep it, or clear the Service's status to be given another

1 address in use would be out of range; their Services keep them.
`,
	}, {
		name: "a pool is not what it should be", wanted: []*herald.IPPool{pool("tiny", 9, "203.0.113.8-203.0.113.1")}, loses: true,
		want: `~ tiny
    addresses  - 203.0.113.8
               + 203.0.113.8-203.0.113.1
    invalid    spec.addresses[0] "203.0.113.8-203.0.113.1": ends before it starts: write 203.0.113.1-203.0.113.8

= 3 Services keep what they have: 4 addresses
~  203.0.113.200  default/lost     is out of range already, of public
?                 default/odd      would wait: annotation herald.dev/ips: "x" is not an IP address
?                 default/six      would wait: no auto-assigning pool (public, old, tiny, unused) has IPv6 addresses: add some, or name a pool
?                 default/golden   would wait: there is no pool "gold": create it, or name another
?                 default/arrived  would wait: status.loadBalancer carries 203.0.113.130, which is in no IPPool: add it to spec.addresses of one to keep it, or clear the Service's status to be given another

IPPool tiny would be invalid: its last valid spec stays in force until herald-ccm restarts, and then it gives out nothing new.
`,
	}, {
		name: "a pool that is added is not what it should be", wanted: []*herald.IPPool{pool("young", 9, "203.0.113.25-203.0.113.24")}, loses: true,
		want: "\nIPPool young would be invalid and give out nothing.\n",
	}, {
		name: "back in range", wanted: []*herald.IPPool{pool("public", 9, "198.51.100.0/30", "203.0.113.200")},
		want: "+  203.0.113.200  default/lost     would be in range of public again\n",
	}, {
		name: "what a Service has from another load balancer it keeps", wanted: []*herald.IPPool{pool("abroad", 9, "203.0.113.128/30")},
		want: "+  203.0.113.130  default/arrived  is in its status already, and would be recorded, from abroad\n",
	}, {
		name: "a pool that is not there is deleted", deleted: []string{"gold"}, err: `--delete: there is no IPPool "gold"`,
	}, {
		name: "a pool is deleted and applied", deleted: []string{"old"}, wanted: []*herald.IPPool{old}, err: `--delete: IPPool "old" is in a file, too`,
	}} {
		t.Run(c.name, func(t *testing.T) {
			r, err := s.plan(c.wanted, c.deleted)
			if c.err != "" {
				if err == nil || !strings.Contains(err.Error(), c.err) {
					t.Errorf("error %v, want %q", err, c.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got := r.Text(StyleOf(&bytes.Buffer{})); !strings.Contains(got, c.want) {
				t.Errorf("(-want +got):\n%s", cmp.Diff(c.want, got))
			}
			if r.Loses != c.loses {
				t.Errorf("loses %t, want %t", r.Loses, c.loses)
			}
			if !strings.Contains(r.Text(coloured()), "\x1b[") {
				t.Error("there are no colours on a terminal")
			}
			text, err := json.Marshal(r)
			if err != nil || strings.Contains(string(text), "null") {
				t.Errorf("%v, or lists that are empty are not lists: %s", err, text)
			}
		})
	}
}

// TestPlanOfAPoolThatIsInvalidAlready is about a pool whose last valid spec only herald-ccm knows.
func TestPlanOfAPoolThatIsInvalidAlready(t *testing.T) {
	s := state{pools: []*herald.IPPool{pool("public", 0, "198.51.100.9-198.51.100.8", "198.51.100.0/31")}, asks: []ipam.Ask{request("new", ipam.IPv4)}}
	s.held = (&Objects{Allocations: []*herald.IPAllocation{record("198.51.100.0", "public", "default/web"), record("198.51.100.8", "public", "default/db")}}).held()
	for _, c := range []struct {
		name    string
		wanted  []*herald.IPPool
		deleted []string
		want    []string
		loses   bool
	}{
		{"nothing changes", nil, nil, []string{"= 2 Services keep what they have: 2 addresses", "? default/new would wait", "Nothing would be lost."}, false},
		{"it is deleted", nil, []string{"public"}, []string{"- public gives out nothing more", "= 2 Services keep what they have: 2 addresses", "Nothing would be lost."}, false},
		{"it is corrected", []*herald.IPPool{pool("public", 9, "198.51.100.8/31", "198.51.100.0/31")}, nil,
			[]string{"= 2 Services keep what they have: 2 addresses", "+ 198.51.100.1 default/new would be given, from public", "Nothing would be lost."}, false},
		{"it is narrowed", []*herald.IPPool{pool("public", 9, "198.51.100.0/31")}, nil, []string{"- 198.51.100.8 default/db would be out of range of public"}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			r, err := s.plan(c.wanted, c.deleted)
			if err != nil {
				t.Fatal(err)
			}
			said := r.Text(StyleOf(&bytes.Buffer{}))
			for _, want := range c.want {
				if !strings.Contains(strings.Join(strings.Fields(said), " "), want) {
					t.Errorf("no %q in\n%s", want, said)
				}
			}
			if r.Loses != c.loses {
				t.Errorf("loses %t, want %t", r.Loses, c.loses)
			}
		})
	}
}

// TestPlanOfAddressesFromAnotherController is about pools that list, or no longer list, a class in spec.announceClasses.
func TestPlanOfAddressesFromAnotherController(t *testing.T) {
	class := "example.com/gateways"
	gateway := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "gw", UID: "gw"},
		Spec:       corev1.ServiceSpec{Type: corev1.ServiceTypeLoadBalancer, LoadBalancerClass: &class, IPFamilies: []corev1.IPFamily{corev1.IPv4Protocol}},
		Status:     corev1.ServiceStatus{LoadBalancer: corev1.LoadBalancerStatus{Ingress: []corev1.LoadBalancerIngress{{IP: "198.51.100.1"}}}},
	}
	admitting := pool("public", 0, "198.51.100.0/30")
	admitting.Spec.AnnounceClasses = []string{class}
	without := pool("public", 0, "198.51.100.0/30")
	for _, c := range []struct {
		name   string
		before *herald.IPPool
		after  *herald.IPPool
		held   []*herald.IPAllocation
		want   []string
		loses  bool
	}{
		{"the class is listed", without, admitting, nil,
			[]string{"+ 198.51.100.1 default/gw would be announced (another controller gave it), from public", "Nothing would be lost."}, false},
		{"it is listed as before", admitting, admitting, []*herald.IPAllocation{record("198.51.100.1", "public", "default/gw")},
			[]string{"= 1 Service keeps what they have: 1 address", "Nothing would be lost."}, false},
		{"it is removed", admitting, without, []*herald.IPAllocation{record("198.51.100.1", "public", "default/gw")},
			[]string{"- 198.51.100.1 default/gw would no longer be announced: ", "1 address from another controller would no longer be announced."}, true},
		{"its address is removed", admitting, pool("public", 0, "198.51.100.2/31"), []*herald.IPAllocation{record("198.51.100.1", "public", "default/gw")},
			[]string{"- 198.51.100.1 default/gw would no longer be announced: ", "1 address from another controller would no longer be announced."}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := &Objects{Pools: []*herald.IPPool{c.before}, Allocations: c.held, Services: []*corev1.Service{gateway}}
			r, err := Plan(o, &CCM{Class: herald.LoadBalancerClass, Classless: true}, Wanted{Pools: []*herald.IPPool{c.after}}, nil)
			if err != nil {
				t.Fatal(err)
			}
			said := strings.Join(strings.Fields(r.Text(StyleOf(&bytes.Buffer{}))), " ")
			for _, want := range c.want {
				if !strings.Contains(said, want) {
					t.Errorf("no %q in\n%s", want, said)
				}
			}
			if r.Loses != c.loses || strings.Contains(said, "keep them") || strings.Contains(said, "keeps what") && c.loses {
				t.Errorf("loses %t, want %t:\n%s", r.Loses, c.loses, said)
			}
		})
	}
}

// TestPlanPromisesNoAddressOfTheNetwork is about the addresses that herald-ccm never assigns.
func TestPlanPromisesNoAddressOfTheNetwork(t *testing.T) {
	s := waiting()
	s.Pools = nil
	s.Nodes[0].Status.Addresses = []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: "198.51.100.1"}}
	s.BGPPeers[0].Spec.Address = "198.51.100.2"
	r, err := Plan(s.Objects, &CCM{Class: herald.LoadBalancerClass, Classless: true}, Wanted{Pools: []*herald.IPPool{pool("public", 0, "198.51.100.0/29")}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	said := strings.Join(strings.Fields(r.Text(StyleOf(&bytes.Buffer{}))), " ")
	// 198.51.100.0 is the network address of the nodes' subnet.
	for _, want := range []string{"+ 198.51.100.3 default/web would be given, from public", "0 → 8 addresses, 0 → 4 free"} {
		if !strings.Contains(said, want) {
			t.Errorf("no %q in\n%s", want, said)
		}
	}
}

// TestPlanOfPoolsOffEverySubnet is about addresses that no node could announce on a segment, although an L2Advertisement says so.
func TestPlanOfPoolsOffEverySubnet(t *testing.T) {
	everything := []*herald.L2Advertisement{{ObjectMeta: metav1.ObjectMeta{Name: "all"}}}
	for _, c := range []struct {
		name    string
		applied []*herald.L2Advertisement // They are in the cluster.
		pools   []*herald.IPPool          // These, too.
		wanted  Wanted
		want    string // Of the pool stray; empty: nothing.
	}{
		{"a pool is added", everything, nil, Wanted{Pools: []*herald.IPPool{pool("stray", 0, "203.0.113.0/28")}}, "+ stray"},
		{"a pool is changed", everything, []*herald.IPPool{pool("stray", 0, "198.51.100.32/28")}, Wanted{Pools: []*herald.IPPool{pool("stray", 0, "203.0.113.0/28")}}, "~ stray"},
		{"an advertisement is added", nil, []*herald.IPPool{pool("stray", 0, "203.0.113.0/28")}, Wanted{L2Advertisements: everything}, "  stray"},
		{"nothing is different", everything, []*herald.IPPool{pool("stray", 0, "203.0.113.0/28")}, Wanted{L2Advertisements: everything}, ""},
		{"the advertisement is to be one of another pool", everything, nil, Wanted{
			Pools:            []*herald.IPPool{pool("stray", 0, "203.0.113.0/28"), pool("fits", 0, "198.51.100.32/28")},
			L2Advertisements: []*herald.L2Advertisement{{ObjectMeta: metav1.ObjectMeta{Name: "all"}, Spec: herald.L2AdvertisementSpec{Selection: herald.Selection{Pools: []string{"fits"}}}}},
		}, ""},
		{"by BGP", nil, nil, Wanted{Pools: []*herald.IPPool{pool("stray", 0, "203.0.113.0/28")}, BGPAdvertisements: []*herald.BGPAdvertisement{{ObjectMeta: metav1.ObjectMeta{Name: "all"}}}}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := installed(t).Objects
			o.L2Advertisements, o.Pools = c.applied, c.pools
			r, err := Plan(o, ours, c.wanted, nil)
			if err != nil {
				t.Fatal(err)
			}
			said := plainText(r.Text)
			const problem, verdict = "the pool's addresses are in no subnet of the nodes that L2Advertisement all announces them from: 203.0.113.0/28;",
				"Nothing would be lost. Correct spec.addresses or the advertisement of IPPool stray: see off subnet above.\n"
			warned := strings.Contains(said, c.want+"\n") && strings.Contains(said, "    off subnet  "+problem) && strings.HasSuffix(said, verdict)
			if warned != (c.want != "") || !warned && strings.Contains(said, "subnet") || r.Loses {
				t.Errorf("loses %t:\n%s", r.Loses, said)
			}
		})
	}
}

// TestDefaultsAreThoseOfTheSchema compares WithDefaults with the defaults in the schema.
func TestDefaultsAreThoseOfTheSchema(t *testing.T) {
	text, err := os.ReadFile("../../../../manifests/crds/herald.dev_ippools.yaml")
	if err != nil {
		t.Fatal(err)
	}
	type schema struct {
		Properties map[string]schema `json:"properties"`
		Default    any               `json:"default"`
	}
	var crd struct {
		Spec struct {
			Versions []struct {
				Schema struct {
					OpenAPIV3Schema schema `json:"openAPIV3Schema"`
				} `json:"schema"`
			} `json:"versions"`
		} `json:"spec"`
	}
	if err := yaml.Unmarshal(text, &crd); err != nil {
		t.Fatal(err)
	}
	want := map[string][]any{}
	for name, property := range crd.Spec.Versions[0].Schema.OpenAPIV3Schema.Properties["spec"].Properties {
		if property.Default != nil {
			want[name] = []any{property.Default}
		}
	}
	got := fields(WithDefaults(herald.IPPoolSpec{}))
	delete(got, "addresses") // It is required.
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-schema +withDefaults):\n%s", diff)
	}
}
