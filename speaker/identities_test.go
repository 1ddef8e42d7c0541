package speaker

import (
	"context"
	"crypto/ed25519"
	"encoding/hex"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/heraldlb/herald/api/client"
	herald "github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/speaker/segment"
)

func TestWhatIsAnIdentity(t *testing.T) {
	key := strings.Repeat("0f", ed25519.PublicKeySize)
	for _, story := range []struct {
		name string
		o    *herald.SpeakerIdentity
		boot uint64
		ok   bool
	}{
		{"one", &herald.SpeakerIdentity{Boot: "00000000000000ff", PublicKey: key}, 255, true},
		{"none", nil, 0, false},
		{"an empty one", &herald.SpeakerIdentity{}, 0, false},
		{"no boot", &herald.SpeakerIdentity{PublicKey: key}, 0, false},
		{"a boot that is too long", &herald.SpeakerIdentity{Boot: "10000000000000000", PublicKey: key}, 0, false},
		{"a boot that is not a number", &herald.SpeakerIdentity{Boot: "-1", PublicKey: key}, 0, false},
		{"no key", &herald.SpeakerIdentity{Boot: "1"}, 0, false},
		{"a key that is too short", &herald.SpeakerIdentity{Boot: "1", PublicKey: key[2:]}, 0, false},
		{"a key that is too long", &herald.SpeakerIdentity{Boot: "1", PublicKey: key + "00"}, 0, false},
		{"a key that is not a number", &herald.SpeakerIdentity{Boot: "1", PublicKey: "xx" + key[2:]}, 0, false},
	} {
		if id, ok := identityOf(story.o); ok != story.ok || id.Boot != story.boot {
			t.Errorf("%s: %v, %v", story.name, id, ok)
		}
	}
}

// A speaker that is not heard yet is recognized by the interfaces that it reports.
func TestASpeakerIsNoStranger(t *testing.T) {
	_, set := offline(t)
	d := newIdentities(set, nil, "n1", func(string) bool { return true }, zap.NewNop())
	d.segments = func() []*segment.Segment { return nil }
	s := newSegments(segment.Config{Node: "n1"}, zap.NewNop(), d, func() {})
	d.take([]herald.SpeakerStatus{{
		ObjectMeta: metav1.ObjectMeta{Name: "n2"},
		Status:     herald.SpeakerStatusStatus{Interfaces: []herald.SpeakerInterface{{Name: "eth0", MAC: "02:00:5e:00:53:02"}}},
	}})
	if !s.sibling("eth0", net.HardwareAddr{0x02, 0, 0x5e, 0, 0x53, 0x02}) {
		t.Error("another speaker is taken for a stranger")
	}
	if s.sibling("eth0", net.HardwareAddr{0x02, 0, 0x5e, 0, 0x53, 0x03}) {
		t.Error("a stranger is taken for another speaker")
	}
}

// The identity that this speaker writes is what other speakers read.
func FuzzIdentities(f *testing.F) {
	f.Add("00000000000000ff", strings.Repeat("0f", 32), uint64(7))
	f.Add("", "", uint64(0))
	f.Fuzz(func(t *testing.T, boot, key string, own uint64) {
		id, ok := identityOf(&herald.SpeakerIdentity{Boot: boot, PublicKey: key})
		if ok && len(id.Key) != ed25519.PublicKeySize {
			t.Fatalf("a key of %d bytes", len(id.Key))
		}
		if ok {
			ed25519.Verify(id.Key, []byte("x"), make([]byte, ed25519.SignatureSize)) // It panics if the length is wrong.
		}
		c := Config{Boot: own, Key: ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))}
		if id, ok := identityOf(identityFor(c)); !ok || id.Boot != own || !id.Key.Equal(c.Key.Public()) {
			t.Fatalf("%v, %v", id, ok)
		}
	})
}

func FuzzExpected(f *testing.F) {
	f.Add("02:00:00:00:00:01", "198.51.100.1/24", "198.51.100.0/24")
	f.Add("ff:ff:ff:ff:ff:ff", "198.51.100.1", "::/0")
	f.Add("00:00:00:00:00:00", "2001:db8::1/129", "garbage")
	f.Add("02:00:5e:10:00:00:00:01", "", "")
	f.Fuzz(func(t *testing.T, mac, one, other string) {
		e, ok := expectedOf("n1", herald.SpeakerInterface{Name: "eth0", MAC: mac, Subnets: []string{one, other}})
		if !ok {
			return
		}
		if e.MAC == (segment.MAC{}) || e.MAC[0]&1 != 0 {
			t.Fatalf("frames would be sent to %v, which is not one machine's", e.MAC)
		}
		for _, p := range e.Prefixes {
			if !p.IsValid() {
				t.Fatalf("%v", p)
			}
		}
		shareNetwork(e.Prefixes, e.Prefixes)
	})
}

func TestWhoIsExpectedOnASegment(t *testing.T) {
	iface := func(mac string, neighbours int32, subnets ...string) herald.SpeakerInterface {
		return herald.SpeakerInterface{Name: "lan0", MAC: mac, Subnets: subnets, Neighbours: neighbours}
	}
	own := neighbour("", "", "198.51.100.1/24", "2001:db8::1/64").Subnets
	for _, story := range []struct {
		name   string
		o      herald.SpeakerInterface
		ok     bool
		shares bool
	}{
		{"the same network", iface("02:00:00:00:00:01", 0, "198.51.100.2/24"), true, true},
		{"one of two", iface("02:00:00:00:00:01", 0, "203.0.113.2/24", "2001:db8::2/64"), true, true},
		{"a larger one", iface("02:00:00:00:00:01", 0, "198.51.100.2/16"), true, false},
		{"another", iface("02:00:00:00:00:01", 0, "203.0.113.2/24"), true, false},
		{"none that can be read", iface("02:00:00:00:00:01", 0, "garbage", "198.51.100.2"), true, false},
		{"one beside what cannot be read", iface("02:00:00:00:00:01", 0, "garbage", "198.51.100.2/24"), true, true},
		{"no MAC", iface("", 0, "198.51.100.2/24"), false, false},
		{"a MAC of 8 bytes", iface("02:00:00:00:00:00:00:01", 0, "198.51.100.2/24"), false, false},
		{"a group", iface("01:00:5e:00:00:fe", 0, "198.51.100.2/24"), false, false},
		{"zero", iface("00:00:00:00:00:00", 0, "198.51.100.2/24"), false, false},
	} {
		e, ok := expectedOf("n2", story.o)
		if ok != story.ok || ok && (e.Node != "n2" || e.Interface != "lan0") || shareNetwork(own, e.Prefixes) != story.shares {
			t.Errorf("%s: %+v, %v", story.name, e, ok)
		}
	}
	if e, _ := expectedOf("n2", iface("02:00:00:00:00:01", 1)); !e.Hears {
		t.Error("it hears another speaker")
	}
	single := []netip.Prefix{netip.MustParsePrefix("198.51.100.7/32")}
	if shareNetwork(single, single) {
		t.Error("one address is not a network")
	}
}

// asking has identities of the node n1 that run in a synctest bubble.
type asking struct {
	*apiServer
	*identities
}

func startAsking(t *testing.T, nodes ...string) asking {
	a := asking{apiServer: newAPIServer()}
	kube, set := a.clients(t)
	a.identities = newIdentities(set, &lease{leases: kube.CoordinationV1().Leases("herald-system"), node: "n1"}, "n1",
		func(node string) bool { return slices.Contains(nodes, node) }, zap.NewNop())
	a.segments, a.joined = func() []*segment.Segment { return nil }, func() bool { return true }
	go func() { _ = a.run(t.Context()) }()
	return a
}

// reports writes the reports of speakers.
func reports(t *testing.T, set *client.Set, nodes ...string) {
	t.Helper()
	for i, n := range nodes {
		_, err := set.SpeakerStatuses.Create(t.Context(), &herald.SpeakerStatus{ObjectMeta: metav1.ObjectMeta{Name: n}, Status: herald.SpeakerStatusStatus{
			Identity: &herald.SpeakerIdentity{Boot: fmt.Sprintf("%016x", i+1), PublicKey: hex.EncodeToString(make([]byte, ed25519.PublicKeySize))},
		}}, metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
	}
}

func (a asking) boots() map[string]uint64 {
	a.identities.mu.Lock()
	defer a.identities.mu.Unlock()
	boots := map[string]uint64{}
	for n, id := range a.known {
		boots[n] = id.Boot
	}
	return boots
}

func TestAKeyIsAskedForWhenASegmentWantsIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := startAsking(t, "n1", "n2", "n3")
		_, set := a.clients(t)
		reports(t, set, "n1", "n2", "stranger")
		synctest.Wait()
		a.requests()
		time.Sleep(time.Minute)
		if got := a.requests(); len(got) > 0 {
			t.Errorf("nobody wants anything, and it is asked: %v", got)
		}
		// A frame from anybody can have any name.
		a.want("stranger")
		a.want("../../../api/v1/secrets")
		time.Sleep(time.Second)
		if got := a.requests(); len(got) > 0 {
			t.Errorf("the API has no such nodes, and it is asked: %v", got)
		}
		for range 100 {
			a.want("n2")
		}
		time.Sleep(time.Second)
		// The first request may come before the last want, and then there is a second one for the rest.
		if got := a.requests(); len(got) > 2 || !slices.Equal(slices.Compact(got), []string{"GET " + statuses + "/n2"}) || a.boots()["n2"] != 2 {
			t.Errorf("it is asked %v, and known are %v", got, a.boots())
		}
		a.want("n3") // This node has no SpeakerStatus yet.
		time.Sleep(time.Second)
		if got := a.requests(); len(got) != 1 || len(a.boots()) != 1 {
			t.Errorf("it is asked %v, and known are %v", got, a.boots())
		}
		// A new boot replaces the old one.
		a.edit(statuses+"/n2", func(o map[string]any) {
			o["status"].(map[string]any)["identity"].(map[string]any)["boot"] = "00000000000000ff"
		})
		a.want("n2")
		if time.Sleep(time.Second); a.boots()["n2"] != 255 {
			t.Errorf("known are %v", a.boots())
		}
		// A report that cannot be read changes nothing.
		a.edit(statuses+"/n2", func(o map[string]any) { o["status"] = map[string]any{} })
		a.want("n2")
		if time.Sleep(time.Second); a.boots()["n2"] != 255 {
			t.Errorf("known are %v", a.boots())
		}
		if a.forget([]string{"n2"}); len(a.boots()) > 0 {
			t.Errorf("known are %v", a.boots())
		}
	})
}

func TestManyKeysAreAskedForAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var nodes []string
		for i := range 100 {
			nodes = append(nodes, fmt.Sprint("n", i))
		}
		a := startAsking(t, nodes...)
		_, set := a.clients(t)
		reports(t, set, append(nodes, "stranger")...)
		synctest.Wait()
		a.requests()
		for _, n := range nodes {
			a.want(n)
		}
		time.Sleep(time.Second)
		// The first few may be fetched before the others are wanted.
		got := a.requests()
		lists := len(slices.DeleteFunc(slices.Clone(got), func(r string) bool { return r != "GET "+statuses }))
		if lists < 1 || lists > 2 || len(got)-lists > manyKeys || len(a.boots()) != 99 {
			t.Errorf("it is asked %v, and %d are known, want all but this node's own", got, len(a.boots()))
		}
	})
}

func TestSpeakersAreExpectedWhileNoneIsHeard(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := startAsking(t, "n1", "n2")
		lists := func() (n int) {
			for _, r := range a.requests() {
				if strings.HasSuffix(r, "/leases") {
					n++
				}
			}
			return n
		}
		synctest.Wait()
		if n := lists(); n != 0 {
			t.Errorf("there is no segment, and it is asked %d times", n)
		}
		a.open()
		time.Sleep(time.Second)
		if n := lists(); n != 1 {
			t.Errorf("a segment is opened, and it is asked %d times", n)
		}
		time.Sleep(10 * expectPeriod)
		if n := lists(); n != 1 {
			t.Errorf("others are heard, and it is asked %d times, want once more for those that started late", n)
		}
	})
}

func TestWhichLeasesWereRenewedInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := newAPIServer()
		kube, _ := server.clients(t)
		leases := kube.CoordinationV1().Leases("herald-system")
		owner := []metav1.OwnerReference{{Kind: "Node", Name: "n1", UID: "node-uid"}}
		told := 0
		l := &lease{leases: leases, node: "n1", owner: func() []metav1.OwnerReference { return owner }, log: zap.NewNop(), changed: func(bool) { told++ }}
		fresh := func() []string {
			t.Helper()
			all, err := l.renewed(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			var names []string
			for n := range all {
				names = append(names, n)
			}
			slices.Sort(names)
			return names
		}
		ago := func(d time.Duration) *metav1.MicroTime { return new(metav1.NewMicroTime(time.Now().Add(-d))) }
		for name, spec := range map[string]coordinationv1.LeaseSpec{
			"speaker-n2":     {HolderIdentity: new("n2"), RenewTime: ago(leaseDuration - time.Second)},
			"speaker-late":   {HolderIdentity: new("late"), RenewTime: ago(leaseDuration)},
			"speaker-ended":  {HolderIdentity: new(""), RenewTime: ago(0)},
			"speaker-nobody": {RenewTime: ago(0)},
			"speaker-never":  {HolderIdentity: new("never")},
			"other":          {HolderIdentity: new("other"), RenewTime: ago(0)},
		} {
			if _, err := leases.Create(t.Context(), &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: spec}, metav1.CreateOptions{}); err != nil {
				t.Fatal(err)
			}
		}
		if got := fresh(); !slices.Equal(got, []string{"n2"}) {
			t.Errorf("%v", got)
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() { l.run(ctx); close(ended) }()
		time.Sleep(time.Hour)
		synctest.Wait()
		if got := fresh(); !slices.Equal(got, []string{"n1"}) || !l.reached.Load() || told != 1 {
			t.Errorf("an hour later: %v; it was told %d times that the API server is reached: %v", got, told, l.reached.Load())
		}
		cancel()
		<-ended
		if len(fresh()) != 0 {
			t.Errorf("it has ended: %v", fresh())
		}
		// The Node is deleted, and the Lease with it. Nothing creates the Lease again.
		owner = nil
		server.edit("/apis/coordination.k8s.io/v1/namespaces/herald-system/leases/speaker-n1", nil)
		if err := l.write(t.Context(), "n1"); err != nil {
			t.Error(err)
		}
		l.release()
		if _, err := leases.Get(t.Context(), "speaker-n1", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
			t.Errorf("the node is gone, and its Lease is there: %v", err)
		}
	})
}

func TestALeaseTellsWhetherTheAPIServerIsReached(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := newAPIServer()
		kube, _ := server.clients(t)
		var told []bool
		done := make(chan struct{})
		ctx, cancel := context.WithCancel(t.Context())
		l := &lease{leases: kube.CoordinationV1().Leases("herald-system"), node: "n1", owner: func() []metav1.OwnerReference { return []metav1.OwnerReference{{Name: "n1"}} }, log: zap.NewNop(),
			changed: func(reached bool) { told = append(told, reached) }}
		go func() { l.run(ctx); close(done) }()
		for _, down := range []bool{false, true, false} {
			server.setDown(down)
			time.Sleep(time.Minute + time.Second)
		}
		cancel()
		<-done
		if !slices.Equal(told, []bool{true, false, true}) {
			t.Errorf("%v", told)
		}
	})
}
