package speaker

import (
	"crypto/ed25519"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/zap"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/record"

	herald "github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/speaker/announce"
	"github.com/heraldlb/herald/speaker/link"
	"github.com/heraldlb/herald/speaker/segment"
	"github.com/heraldlb/herald/speaker/segment/ownership"
)

// loopOf returns the loop of a speaker that does not run. Everything is announced, both on the segment and to a router.
func loopOf(t testing.TB, node string, objects ...metav1.Object) *loop {
	t.Helper()
	kube, set := newAPIServer().clients(t)
	s, err := New(Config{
		Kube: kube, Herald: set, Events: record.NewFakeRecorder(100), Node: node, Namespace: "herald-system",
		Key: ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize)), Log: zap.NewNop(),
	})
	if err != nil {
		t.Fatal(err)
	}
	s.inputs = watched(t, objects...)
	s.segments.ctx = t.Context()
	s.loop.shared, _ = cluster(t, node)
	s.loop.usable = s.inputs.usable()
	return s.loop
}

// about returns changes of the given addresses only.
func about(addresses ...string) changes {
	c := noChanges()
	for _, a := range parseAddresses(addresses...) {
		c.addresses[a] = true
	}
	return c
}

// put makes the informers see objects.
func (l *loop) put(t testing.TB, objects ...metav1.Object) {
	t.Helper()
	for _, o := range objects {
		if err := informerOf(t, l.s.inputs, o).GetStore().Update(o); err != nil {
			t.Fatal(err)
		}
	}
}

// events returns the events that were recorded since the last call.
func (l *loop) events() (all []string) {
	for {
		select {
		case e := <-l.s.config.Events.(*record.FakeRecorder).Events:
			all = append(all, e)
		default:
			return all
		}
	}
}

// Two Services share an address. The address is announced while one of them exists. A change of a Service causes a decision
// about its address, and none about others.
func TestAnAddressOutlivesTheServicesThatLeave(t *testing.T) {
	const address = "198.51.100.7"
	mail := types.NamespacedName{Namespace: web.Namespace, Name: "mail"}
	l := loopOf(t, "n1", serviceNamed("web", address), serviceNamed("mail", address), sharedBy(address, "web", "mail"),
		slice("web-a", web, endpoint("n2", new(true))), slice("mail-a", mail, endpoint("n3", new(true))),
		serviceNamed("other", "198.51.100.8"), sharedBy("198.51.100.8", "other"))
	l.pass(about(address))
	began := l.decisions[vip]
	if got := said(began); got != "eth0: n1 n2 n3" || len(began.Exports) != 1 {
		t.Fatalf("%s, and to routers %v", got, began.Exports)
	}
	for _, step := range []struct {
		name    string
		objects []metav1.Object
		stays   bool
	}{
		{"one loses its endpoints", []metav1.Object{slice("mail-a", mail)}, true},
		{"it has some again, and the other has none", []metav1.Object{slice("mail-a", mail, endpoint("n3", new(true))), slice("web-a", web)}, true},
		{"the record is for one alone", []metav1.Object{sharedBy(address, "mail")}, true},
		{"that one has no endpoints", []metav1.Object{slice("mail-a", mail)}, false},
	} {
		l.put(t, step.objects...)
		l.pass(about(address))
		d := l.decisions[vip]
		if (len(d.Segments) > 0) != step.stays || step.stays && d.Segments[0] != began.Segments[0] {
			t.Fatalf("%s: %s", step.name, said(d))
		}
		if (len(d.Exports) > 0) != step.stays {
			t.Fatalf("%s: announced to routers: %v", step.name, d.Exports)
		}
	}
	l.put(t, released(sharedBy(address)))
	if l.pass(about(address)); len(l.decisions) > 0 {
		t.Errorf("the record is released, and decided is %+v", l.decisions)
	}
	if n := testutil.ToFloat64(l.decided); n != 5 {
		t.Errorf("%v decisions were made about five changes", n)
	}
}

// A pool is edited, and its Service keeps an address that is in no pool any more. The interface on which the address is announced
// stays, whether the speaker sees the edit before the record or after it.
func TestAnInterfaceStaysForAnAddressThatIsInNoPoolAnyMore(t *testing.T) {
	const address = "198.51.100.7"
	eth0 := link.Interface{Name: "eth0", Subnets: []netip.Prefix{netip.MustParsePrefix("198.51.100.1/24")}}
	pool := func(addresses herald.AddressRange) *herald.IPPool {
		return &herald.IPPool{ObjectMeta: metav1.ObjectMeta{Name: "public"}, Spec: herald.IPPoolSpec{Addresses: []herald.AddressRange{addresses}}}
	}
	edited := pool("203.0.113.0/24")
	for _, story := range []struct {
		name  string
		pool  *herald.IPPool
		steps [][]metav1.Object
		want  []bool
	}{
		{"record, edit", pool("198.51.100.0/28"), [][]metav1.Object{{recordFor(address, "web-uid")}, {edited}}, []bool{true, true}},
		{"edit, record", pool("198.51.100.0/28"), [][]metav1.Object{{edited}, {recordFor(address, "web-uid")}}, []bool{false, true}},
		{"never in a pool", edited, [][]metav1.Object{{recordFor(address, "web-uid")}}, []bool{true}},
	} {
		l := loopOf(t, "n1", &herald.L2Advertisement{ObjectMeta: metav1.ObjectMeta{Name: "all"}}, serviceWith(address), story.pool)
		all := noChanges()
		all.all = true
		l.pass(all)
		for i, step := range story.steps {
			l.put(t, step...)
			for _, o := range step {
				l.s.inputs.handlers()[informerOf(t, l.s.inputs, o)].OnAdd(o, false)
			}
			for len(l.s.inputs.trigger) > 0 {
				<-l.s.inputs.trigger
				l.pass(l.s.inputs.take())
			}
			if got := l.matters(eth0); got != story.want[i] {
				t.Errorf("%s, step %d: the interface matters: %v, want %v", story.name, i+1, got, story.want[i])
			}
		}
	}
}

// A record whose name is not its address cannot come from the API server, and causes no passes without end.
func TestARecordOfAnotherAddressCausesNoFurtherPasses(t *testing.T) {
	const address, other = "198.51.100.7", "198.51.100.8"
	rec := recordFor(address, "web-uid")
	rec.Spec.Address = other
	l := loopOf(t, "n1", serviceWith(address, other), rec)
	all := noChanges()
	all.all = true
	for _, c := range []changes{all, about(address)} {
		l.s.inputs.take()
		passes := 0
		for ; passes < 10; passes++ {
			l.pass(c)
			if c = l.s.inputs.take(); !c.all && len(c.addresses) == 0 {
				break
			}
		}
		if passes > 1 {
			t.Errorf("%d further passes", passes)
		}
	}
}

func TestANamespacesLabelsCostNoPassOverAllAddresses(t *testing.T) {
	const address = "198.51.100.7"
	l := loopOf(t, "n1", serviceWith(address), recordFor(address, "web-uid"), slice("web-a", web, endpoint("n2", nil)))
	l.shared.L2[0].Selector = compile(t, herald.Selection{NamespaceSelector: matching("team", "web")})
	l.pass(about(address))
	shared := l.shared
	for _, step := range []struct{ team, want string }{{"mail", "nobody"}, {"web", "eth0: n1 n2 n3"}} {
		namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "default", Labels: map[string]string{"team": step.team}}}
		l.put(t, namespace)
		l.s.inputs.handlers()[l.s.inputs.namespaces].OnAdd(namespace, false)
		l.pass(l.s.inputs.take())
		if got := said(l.decisions[vip]); got != step.want || l.shared != shared {
			t.Errorf("team %s: %s, want %s", step.team, got, step.want)
		}
	}
	before := testutil.ToFloat64(l.decided)
	c := noChanges()
	c.namespaces["unrelated"] = true
	if l.pass(c); testutil.ToFloat64(l.decided) != before {
		t.Error("the labels of a namespace without Services cost decisions")
	}
}

// The SpeakerStatus of each node reports an invalid BGPPeer; herald-ccm reports it once, on the BGPPeer.
func TestAnInvalidPeerIsReportedInTheStatus(t *testing.T) {
	near := &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{Key: "a", Operator: "Near"}}}
	l := loopOf(t, "n1",
		&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1"}, Status: corev1.NodeStatus{Addresses: []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: "198.18.0.1"}}}},
		&herald.L2Advertisement{ObjectMeta: metav1.ObjectMeta{Name: "bad"}, Spec: herald.L2AdvertisementSpec{Selection: herald.Selection{NodeSelector: near}}},
		&herald.BGPPeer{ObjectMeta: metav1.ObjectMeta{Name: "tor"}, Spec: herald.BGPPeerSpec{
			Address: "198.18.0.254", LocalASN: 64512, PeerASN: 64513, PasswordSecret: &herald.SecretReference{Name: "tor"},
		}})
	all, peers := noChanges(), noChanges()
	all.all, peers.peers = true, true
	secret := func(password string) *corev1.Secret {
		return &corev1.Secret{
			ObjectMeta: metav1.ObjectMeta{Namespace: "herald-system", Name: "tor"}, Data: map[string][]byte{corev1.BasicAuthPasswordKey: []byte(password)},
		}
	}
	for _, step := range []struct {
		name     string
		password string
		what     changes
		sessions int
	}{
		{"the first pass", "", all, 0},
		{"a password, as everything else stays", "x", peers, 1},
		{"another password", "y", peers, 1},
		{"the password is gone, and the last one is in force", "", peers, 1},
		{"all again", "", all, 1},
	} {
		l.put(t, secret(step.password))
		shared := l.shared
		l.pass(step.what)
		if (l.shared == shared) == step.what.all {
			t.Errorf("%s: a new snapshot is made: %v", step.name, l.shared != shared)
		}
		if n := len(l.s.bgp.Sessions()); n != step.sessions {
			t.Errorf("%s: %d sessions, want %d", step.name, n, step.sessions)
		}
		var st herald.SpeakerStatusStatus
		l.reportSessions(&st)
		if s := st.Sessions; len(s) != 1 || (s[0].State == sessionInvalid) != (step.sessions == 0) ||
			step.sessions == 0 && !strings.Contains(s[0].Reason, `spec.passwordSecret: the Secret herald-system/tor has no key "password"`) {
			t.Errorf("%s: %+v", step.name, s)
		} else if step.sessions > 0 && (step.password == "") != strings.Contains(s[0].Reason, "the last password is in force") {
			t.Errorf("%s: %+v", step.name, s)
		}
	}
	if e := l.events(); len(e) > 0 {
		t.Errorf("events about configuration come from every node: %v", e)
	}
}

// A recorded address that belongs to the infrastructure is not announced, and one node reports this.
func TestInfrastructureIsNotAnnounced(t *testing.T) {
	const address = "198.51.100.7"
	node := func(name string, addresses ...string) *corev1.Node {
		n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}}
		n.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}}
		for _, a := range addresses {
			n.Status.Addresses = append(n.Status.Addresses, corev1.NodeAddress{Type: corev1.NodeInternalIP, Address: a})
		}
		return n
	}
	var events []string
	for _, self := range []string{"n1", "n2", "n3"} {
		l := loopOf(t, self, serviceWith(address), recordFor(address, "web-uid"), slice("web-a", web, endpoint("n2", nil)),
			node("n1"), node("n2"), node("n3"), &herald.BGPAdvertisement{ObjectMeta: metav1.ObjectMeta{Name: "all"}},
			&herald.BGPPeer{ObjectMeta: metav1.ObjectMeta{Name: "tor"}, Spec: herald.BGPPeerSpec{Address: "198.51.100.254"}})
		all := noChanges()
		all.all = true
		l.pass(all)
		if d := l.decisions[vip]; d.Refused != "" || len(d.Exports) != 1 {
			t.Fatalf("%s: %+v", self, d)
		}
		l.put(t, node("n3", address))
		for range 2 {
			l.pass(all)
		}
		if got := said(l.decisions[vip]); got != "refused: an address of node n3" {
			t.Errorf("%s: %s", self, got)
		}
		events = append(events, l.events()...)
		l.put(t, node("n3"))
		if l.pass(all); l.decisions[vip].Refused != "" || len(l.decisions[vip].Exports) != 1 {
			t.Errorf("%s: the node has another address, and still %+v", self, l.decisions[vip])
		}
	}
	want := "Warning NotAnnounced 198.51.100.7 is not announced: it is an address of node n3. Take it out of the IPPool public, and let the Services that have it move to another address"
	if len(events) != 1 || events[0] != want {
		t.Errorf("%q, want one event of three nodes: %q", events, want)
	}
}

// A gateway is known only to the nodes that have it. One of those on the segment reports it, and a node that hears no other does.
func TestOneNodeThatHasAGatewayReportsIt(t *testing.T) {
	const address = "198.51.100.7"
	names := []string{"n1", "n2", "n3", "n4", "n5", "n6"}
	var nodes []metav1.Object
	for _, name := range names {
		n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}}
		n.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}}
		nodes = append(nodes, n)
	}
	subnet, other := []netip.Prefix{netip.MustParsePrefix("198.51.100.0/24")}, []netip.Prefix{netip.MustParsePrefix("203.0.113.0/24")}
	var segment []announce.Neighbour
	for _, name := range names[:4] {
		segment = append(segment, announce.Neighbour{Node: name, Interface: "eth0", Subnets: subnet})
	}
	segment = append(segment, announce.Neighbour{Node: "n5", Interface: "eth0", Subnets: other})
	events := func(self string, segments ...announce.Segment) int {
		l := loopOf(t, self, append(nodes, recordFor(address, "web-uid"))...)
		l.shared = l.s.inputs.shared(self, true, nil)
		l.shared.Segments, l.refusedHere = segments, refuseGateways(l.shared, parseAddresses(address))
		l.refuse(&announce.Address{Addr: vip}, l.shared.Infrastructure[vip])
		return len(l.events())
	}
	n := 0
	for _, self := range names[:4] {
		n += events(self, announce.Segment{Interface: "eth0", Nodes: segment})
	}
	if n != 1 {
		t.Errorf("%d events of four nodes with the gateway, want 1", n)
	}
	if n := events("n6"); n != 1 {
		t.Errorf("%d events of a node without a segment, want 1", n)
	}
}

// Labels that change all the time cause passes over all addresses, but not all the time. Changes of single addresses are not
// delayed.
func TestPassesOverAllAddressesAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := loopOf(t, "n1", &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1"}})
		const took = 100 * time.Millisecond
		full, small := 0, 0
		for began := time.Now(); time.Since(began) < 10*time.Second; time.Sleep(passPeriod) {
			l.s.inputs.touchAll()
			l.s.inputs.touch(vip)
			c := l.admit(l.s.inputs.take(), time.Now())
			if c.addresses[vip] {
				small++
			}
			if c.all {
				full++
				now := time.Now()
				time.Sleep(took)
				l.nextFull = now.Add(took + fullPause(took))
			}
		}
		if full < 9 || full > 11 || small < 400 {
			t.Errorf("%d passes over all addresses in 10 s, which take 100 ms each, and %d over some; want 10, and every one", full, small)
		}
		// A node that is short of processor time still decides with its new neighbours in time.
		if pause := fullPause(10 * time.Second); pause > maxFullPause {
			t.Errorf("after a pass of 10 s the next one comes after %v", pause)
		}
		// A postponed pass comes without another change.
		if !l.postponed {
			t.Fatal("none was left out")
		}
		<-l.full.C
		if c := l.admit(l.s.inputs.take(), time.Now()); !c.all {
			t.Error("it was forgotten")
		}
		if c := l.admit(l.s.inputs.take(), time.Now()); c.all || l.postponed {
			t.Error("it comes twice")
		}
		// A pass measures its own duration, and the first pass is not delayed.
		l.nextFull = time.Now().Add(time.Hour)
		l.shared = nil
		l.s.inputs.touchAll()
		if c := l.admit(l.s.inputs.take(), time.Now()); !c.all {
			t.Error("the first one is delayed")
		}
		all := noChanges()
		all.all = true
		if l.pass(all); l.nextFull.After(time.Now().Add(time.Minute)) {
			t.Error("a pass does not set when the next one may be")
		}
	})
}

// A node that comes back with the same name is a different node, even if this node did not see the first one go.
func TestANodeThatIsGoneIsForgotten(t *testing.T) {
	node := func(name string, uid types.UID) *corev1.Node {
		return &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, UID: uid, ResourceVersion: string(uid)}}
	}
	l := loopOf(t, "n1", node("n1", "1"), node("n2", "2"), node("n3", "3"), node("n4", "4"))
	all := noChanges()
	all.all = true
	l.pass(all)
	for _, n := range []string{"n2", "n3", "n4"} {
		l.s.identities.known[n] = segment.Identity{Boot: 1}
		l.s.segments.event(zap.NewNop(), "eth0", segment.Event{Kind: segment.EventDead, Node: n})
	}
	if err := l.s.inputs.nodes.GetStore().Delete(node("n2", "2")); err != nil {
		t.Fatal(err)
	}
	l.put(t, node("n4", "5"))
	l.s.inputs.handlers()[l.s.inputs.nodes].OnUpdate(node("n4", "4"), node("n4", "5"))
	l.pass(l.s.inputs.take())
	_, known2 := l.s.identities.known["n2"]
	_, known3 := l.s.identities.known["n3"]
	_, known4 := l.s.identities.known["n4"]
	if deaths := l.s.segments.reportDeaths(); known2 || !known3 || known4 || len(deaths) != 1 || deaths[0].Node != "n3" {
		t.Errorf("n2 and the first n4 are gone: their keys are known: %v, %v; n3's key is known: %v; deaths: %v", known2, known4, known3, deaths)
	}
}

func TestASnapshotKnowsTheCandidatesOfTheOneBefore(t *testing.T) {
	l := loopOf(t, "n1")
	all := noChanges()
	all.all = true
	before, a := cluster(t, "n1")
	candidates := func() *ownership.Candidates { return announce.Decide(l.shared, a).Segments[0].Candidates }
	c := candidates()
	l.pass(all)
	l.shared.Nodes, l.shared.L2, l.shared.Segments = before.Nodes, before.L2, before.Segments
	if candidates() != c {
		t.Error("it does not")
	}
}

// Without L2Advertisements the speaker joins no segment.
func TestWithoutL2AdvertisementsThereAreNoSegments(t *testing.T) {
	l := loopOf(t, "n1", &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1"}}, serviceWith("198.51.100.7"), recordFor("198.51.100.7", "web-uid"),
		slice("web-a", web, endpoint("n1", nil)), &herald.BGPAdvertisement{ObjectMeta: metav1.ObjectMeta{Name: "all"}},
		&herald.BGPPeer{ObjectMeta: metav1.ObjectMeta{Name: "tor"}})
	all := noChanges()
	all.all = true
	l.pass(all)
	if d := l.decisions[vip]; len(d.Segments) > 0 || len(d.Exports) != 1 || len(l.s.segments.opened) > 0 {
		t.Errorf("%+v, and %d segments", d, len(l.s.segments.opened))
	}
	l.report()
	l.s.segments.leave(false)
}

// A router whose address comes from the Node is known before the first address is announced.
func TestAFoundRouterIsNeverAnnounced(t *testing.T) {
	const address = "198.51.100.7"
	l := loopOf(t, "n1", serviceWith(address), recordFor(address, "web-uid"), slice("web-a", web, endpoint("n1", nil)),
		&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1", Labels: map[string]string{"tor": address}}},
		&herald.BGPAdvertisement{ObjectMeta: metav1.ObjectMeta{Name: "all"}},
		&herald.BGPPeer{ObjectMeta: metav1.ObjectMeta{Name: "tor"}, Spec: herald.BGPPeerSpec{
			LocalASN: 64512, PeerASN: 64513, AddressFrom: &herald.PeerAddressSource{NodeLabel: "tor"},
		}})
	l.shared = nil
	all := noChanges()
	all.all = true
	l.pass(all)
	if got := said(l.decisions[vip]); !strings.HasPrefix(got, "refused: ") || len(l.decisions[vip].Exports) > 0 {
		t.Errorf("the first decision about the router's own address: %s", got)
	}
}

// The watch of pools is interrupted. Meanwhile a pool is deleted and created again with the same name and labels. The informer then
// reports a change from one object to the other, and both have generation 1.
func TestAPoolThatIsMadeAnewWhileTheWatchIsInterruptedIsRead(t *testing.T) {
	pool := func(uid types.UID, onConflict herald.ConflictPolicy) *herald.IPPool {
		return &herald.IPPool{
			ObjectMeta: metav1.ObjectMeta{Name: "public", UID: uid, Generation: 1, ResourceVersion: string(uid)},
			Spec:       herald.IPPoolSpec{OnConflict: onConflict},
		}
	}
	before, after := pool("1", herald.ConflictDefend), pool("2", herald.ConflictYield)
	l := loopOf(t, "n1", before)
	all := noChanges()
	all.all = true
	l.pass(all)
	l.put(t, after)
	l.s.inputs.handlers()[l.s.inputs.pools].OnUpdate(before, after)
	if l.pass(l.s.inputs.take()); !l.shared.Pools["public"].Yield {
		t.Error("the old pool is in force")
	}
}
