package speaker

import (
	"errors"
	"maps"
	"net/netip"
	"reflect"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	herald "github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/e2e/lab/enclave"
	"github.com/heraldlb/herald/speaker/bgp"
	"github.com/heraldlb/herald/speaker/link"
)

// Whatever happens to an interface, sessions are affected only when a new interface gets its name.
func TestPeersHaveTheIndexesOfTheirInterfaces(t *testing.T) {
	addr := netip.MustParseAddr
	peers := []bgp.Peer{
		{Name: "bound", Address: addr("198.18.0.254"), Interface: "eth0"},
		{Name: "both", Address: addr("fe80::1%eth0"), Interface: "eth0"},
		{Name: "far", Address: addr("203.0.113.1")},
		{Name: "local", Address: addr("fe80::1%eth1")},
		{Name: "vrf", Address: addr("198.18.0.254"), Interface: "red"},
	}
	indexes := map[string]int{"gone": 9}
	for _, step := range []struct {
		what  string
		there map[string]int
		want  [5]int
	}{
		{"one is not there yet", map[string]int{"eth0": 2, "red": 4}, [5]int{2, 2, 0, 0, 4}},
		{"it comes", map[string]int{"eth0": 2, "eth1": 3, "red": 4}, [5]int{2, 2, 0, 3, 4}},
		{"all go", nil, [5]int{2, 2, 0, 3, 4}},
		{"they are the same", map[string]int{"eth0": 2, "eth1": 3, "red": 4}, [5]int{2, 2, 0, 3, 4}},
		{"two are others", map[string]int{"eth0": 5, "eth1": 3, "red": 6}, [5]int{5, 5, 0, 3, 6}},
	} {
		asked := map[string]int{}
		indexes = indexInterfaces(peers, indexes, func(name string) (int, error) {
			asked[name]++
			if n := step.there[name]; n != 0 {
				return n, nil
			}
			return 0, errors.New("not found")
		})
		var got [5]int
		for i, p := range peers {
			got[i] = p.InterfaceIndex
		}
		if got != step.want {
			t.Errorf("%s: %v, want %v", step.what, got, step.want)
		}
		if want := map[string]int{"eth0": 1, "eth1": 1, "red": 1}; !maps.Equal(asked, want) {
			t.Errorf("%s: asked for %v, want %v", step.what, asked, want)
		}
		if len(indexes) != 3 {
			t.Errorf("%s: remembered are %v, want those of peers alone", step.what, indexes)
		}
	}
}

// The sessions of a BGPPeer with an interface stay unchanged while the interface has no carrier or does not exist for a while.
// They change when a new interface has its name.
func TestAnInterfaceThatIsMadeAnewGetsNewSessions(t *testing.T) {
	if !enclosed {
		t.Skip(enclave.ErrNotRoot)
	}
	const anew = "ip link add anew type veth peer name far"
	script(t, anew)
	t.Cleanup(func() { script(t, "ip link delete anew") })
	l := loopOf(t, "n1", &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1"}}, peerOf("tor", func(o *herald.BGPPeerSpec) {
		o.Interface, o.Passive, o.BFD = "anew", true, &herald.BFD{}
	}))
	var before []bgp.Peer
	for _, step := range []struct {
		does string
		same bool
	}{
		{"true", false},
		{"ip link set anew up", true},
		{"ip link set anew down; ip link set anew up", true},
		{"ip link delete anew", true},
		{anew, false},
		{"ip link set anew up", true},
	} {
		script(t, step.does)
		peers, rejected, _ := l.findRouters()
		if len(peers) != 1 || len(rejected) > 0 {
			t.Fatalf("after %q: %+v, rejected %v", step.does, peers, rejected)
		}
		if same := reflect.DeepEqual(peers, before); same != step.same {
			t.Errorf("after %q the same session is %t, want %t: %+v", step.does, same, step.same, peers)
		}
		if before = peers; step.does == anew || step.does == "true" {
			index, err := link.Index("anew")
			if err != nil {
				t.Fatal(err)
			}
			paths := l.s.inputs.bfdSessions(peers)
			if peers[0].InterfaceIndex != index || len(paths) != 1 || paths[0].DeviceIndex != index {
				t.Errorf("the interface has index %d, and peers %+v and paths %+v", index, peers, paths)
			}
		}
	}
	if _, err := link.Index("none"); err == nil {
		t.Error("an interface that is not there has an index")
	}
}
