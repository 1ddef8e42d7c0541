package main

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/zap"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"

	herald "github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/speaker/ask"
)

// heard is what the speakers of a cluster that is healthy hear: the nth node has 02:00:5e:00:53:0n.
type heard map[string][]ask.Answer

// of sets what a node hears of an address, by the last parts of the MAC addresses.
func (h heard) of(node, address string, macs ...string) heard {
	for i, m := range macs {
		macs[i] = "02:00:5e:00:53:" + m
	}
	a := netip.MustParseAddr(address)
	h[node] = slices.DeleteFunc(h[node], func(x ask.Answer) bool { return x.Address == a })
	h[node] = append(h[node], ask.Answer{Address: a, Interface: "eth0", MACs: macs})
	return h
}

func allWell() heard {
	h := heard{}
	for i, address := range []string{"198.51.100.1", "198.51.100.2", "198.51.100.3"} {
		for n, node := range []string{"n1", "n2", "n3"} {
			if n == i {
				h.of(node, address)
			} else {
				h.of(node, address, "0"+strconv.Itoa(i+1))
			}
		}
	}
	return h
}

// TestVerify changes one thing at a time, and holds all that is found.
func TestVerify(t *testing.T) {
	const one = "198.51.100.1"
	for _, c := range []struct {
		name   string
		change func(n *network, h heard)
		want   []string // Kind: text.
	}{
		{"all is well", func(*network, heard) {}, nil},
		{"the split brain", func(_ *network, h heard) { h.of("n1", one, "02").of("n3", one, "01", "02") }, []string{
			"SplitBrain: 198.51.100.1: nodes n1 and n2 answer, as n2 (eth0), n3 (eth0), n1 (eth0) heard; node n1 owns it: see kubectl herald status, and on those nodes whether something else has the address (ip addr)",
		}},
		{"the two halves of one", func(_ *network, h heard) { h.of("n3", one, "02") }, []string{
			"SplitBrain: 198.51.100.1: nodes n1 and n2 answer, as n2 (eth0), n3 (eth0) heard; node n1 owns it: see kubectl herald status, and on those nodes whether something else has the address (ip addr)",
		}},
		{"another node answers", func(_ *network, h heard) { h.of("n1", one, "02").of("n2", one).of("n3", one, "02") }, []string{
			"NotOwner: 198.51.100.1: node n2 answers, as n1 (eth0), n3 (eth0) heard; node n1 owns it: see there whether something else has the address (ip addr)",
			"Silence: 198.51.100.1: n2 (eth0) heard no answer; node n1 owns it: see what is between them",
		}},
		{"a stranger answers", func(_ *network, h heard) { h.of("n1", one, "99").of("n2", one, "01", "99") }, []string{
			"Stranger: 198.51.100.1: a machine that is no speaker answers, with 02:00:5e:00:53:99, as n1 (eth0), n2 (eth0) heard; node n1 owns it: find that machine; it has the address, or is a router that answers for others (proxy ARP)",
		}},
		{"silence", func(_ *network, h heard) { h.of("n2", one).of("n3", one) }, []string{
			"Silence: 198.51.100.1: n2 (eth0), n3 (eth0) heard no answer; node n1 owns it: see what is between them",
		}},
		{"nobody owns it", func(n *network, h heard) {
			n.speakers[0].Status.Claims, n.speakers[0].Status.L2Addresses = nil, 0
			h.of("n2", one).of("n3", one)
		}, []string{"Silence: 198.51.100.1: nobody answers, and no SpeakerStatus says who owns it: kubectl herald explain service default/web1 says why"}},
		{"nobody owns it, since nothing is ready", func(n *network, h heard) {
			n.speakers[0].Status.Claims, n.speakers[0].Status.L2Addresses, n.ready = nil, 0, nil
			h.of("n2", one).of("n3", one)
		}, nil},
		{"nobody owns it, and one answers", func(n *network, _ heard) { n.speakers[0].Status.Claims, n.speakers[0].Status.L2Addresses = nil, 0 }, []string{
			"NotOwner: 198.51.100.1: node n1 answers, as n2 (eth0), n3 (eth0) heard; no node owns it there, by the SpeakerStatuses: see there whether something else has the address (ip addr)",
		}},
		{"more than is listed", func(n *network, _ heard) { n.speakers[0].Status.Claims, n.speakers[0].Status.L2Addresses = nil, 3000 }, nil},
		{"more than is listed, and only the owner has asked", func(n *network, h heard) {
			n.speakers[0].Status.Claims, n.speakers[0].Status.L2Addresses = nil, 3000
			delete(h, "n2")
			delete(h, "n3")
		}, nil},
		{"a deputy answers with the owner's address", func(n *network, h heard) {
			n.claim(2, "n1")
			h.of("n3", one)
			delete(h, "n1")
		}, nil},
		{"owners on two segments", func(n *network, h heard) {
			n.claim(1, "")
			hears(n.eth0(0))
			hears(n.eth0(1), "n3")
			hears(n.eth0(2), "n2")
			h.of("n2", one).of("n3", one, "02").of("n1", "198.51.100.2").of("n1", "198.51.100.3").of("n2", one)
		}, nil},
		{"nonsense, and a loop", func(_ *network, h heard) {
			h["n2"] = []ask.Answer{{Address: netip.MustParseAddr(one), Interface: "eth0", MACs: []string{"\x1b[2J", "02:00:5e:00:53:02", "02:00:5e:00:53:01"}}, {}}
			h["n4"] = []ask.Answer{{Address: netip.MustParseAddr(one), Interface: "\x1b[2J"}}
		}, []string{"Silence: 198.51.100.1: n4 (�[2J) heard no answer; node n1 owns it: see what is between them"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			n, h := healthy(), allWell()
			c.change(n, h)
			wanted, err := n.wanted(nil)
			if err != nil || len(wanted) != 3 {
				t.Fatalf("%d addresses are asked for: %v", len(wanted), err)
			}
			r := n.verify(wanted, h, now)
			var got []string
			for _, f := range r.Findings {
				got = append(got, string(f.Kind)+": "+f.Text)
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestWhatIsVerified(t *testing.T) {
	n := healthy()
	n.l2 = []*herald.L2Advertisement{{Spec: herald.L2AdvertisementSpec{Interfaces: []string{"eth1", "eth0"}}}, {Spec: herald.L2AdvertisementSpec{Interfaces: []string{"eth1"}}}}
	wanted, err := n.wanted([]string{"::ffff:198.51.100.2", "2001:db8::9"})
	if err != nil {
		t.Fatal(err)
	}
	if len(wanted) != 2 || wanted[0].address != "198.51.100.2" || !slices.Equal(wanted[0].interfaces, []string{"eth0", "eth1"}) || wanted[1].address != "2001:db8::9" || wanted[1].interfaces != nil {
		t.Errorf("%+v", wanted)
	}
	if _, err := n.wanted([]string{"web"}); err == nil || !strings.Contains(err.Error(), `"web" is no IP address`) {
		t.Errorf("error %v", err)
	}
}

func TestWhoCanBeAsked(t *testing.T) {
	n := healthy()
	key := strings.Repeat("0a", ed25519.PublicKeySize)
	for i, text := range []string{key, "xyz", key} {
		n.speakers[i].Status.Identity = &herald.SpeakerIdentity{PublicKey: text}
	}
	n.nodes[2].Status.Addresses = nil
	n.nodes = append(n.nodes, &corev1.Node{})
	n.nodes[3].Name = "n4"
	speakers, unasked, err := n.askable(nil)
	if err != nil {
		t.Fatal(err)
	}
	if len(speakers) != 1 || speakers[0].node != "n1" || !slices.Equal(speakers[0].addresses, []string{"198.51.100.101"}) || hex.EncodeToString(speakers[0].key) != key {
		t.Errorf("%+v", speakers)
	}
	want := []unaskedReport{
		{"n2", "identity.publicKey in its SpeakerStatus is no key: restart herald-speaker there"},
		{"n3", "status.addresses of the node has no InternalIP"},
		{"n4", "it has no SpeakerStatus: see whether herald-speaker runs there"},
	}
	if diff := cmp.Diff(want, unasked); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if speakers, unasked, err := n.askable([]string{"n1"}); err != nil || len(speakers) != 1 || len(unasked) != 0 {
		t.Errorf("%v, %v, %v", speakers, unasked, err)
	}
	if _, _, err := n.askable([]string{"n5"}); err == nil {
		t.Error("a node that is not there can be asked from")
	}
}

// TestSpeakersAreAsked has three speakers asked: one that answers, one that fails, and one that has another key.
func TestSpeakersAreAsked(t *testing.T) {
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, public, private)
	if err != nil {
		t.Fatal(err)
	}
	var sizes []int
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if host, _, _ := net.SplitHostPort(r.Context().Value(http.LocalAddrContextKey).(net.Addr).String()); host == "127.0.0.2" {
			http.Error(w, "the segments are being asked for somebody else\x1b[2J", http.StatusTooManyRequests)
			return
		}
		var request ask.Request
		if err := json.NewDecoder(r.Body).Decode(&request); err != nil || r.Method != http.MethodPost || r.URL.Path != "/verify" || r.Header.Get("Authorization") != "Bearer secret" {
			http.Error(w, "bad request", http.StatusBadRequest)
			return
		}
		sizes = append(sizes, len(request.Addresses))
		var response ask.Response
		for _, q := range request.Addresses {
			response.Answers = append(response.Answers, ask.Answer{Address: q.Address, Interface: q.Interfaces[0], MACs: []string{"02:00:5e:00:53:01"}})
		}
		_ = json.NewEncoder(w).Encode(response)
	}))
	var listen net.ListenConfig
	if server.Listener, err = listen.Listen(t.Context(), "tcp", "0.0.0.0:0"); err != nil {
		t.Fatal(err)
	}
	server.TLS = &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: private}}}
	server.Config.ErrorLog = zap.NewStdLog(zap.NewNop())
	server.StartTLS()
	defer server.Close()

	kube, tokens := fake.NewClientset(), 0
	kube.PrependReactor("create", "serviceaccounts", func(action clienttesting.Action) (bool, runtime.Object, error) {
		request := action.(clienttesting.CreateAction).GetObject().(*authenticationv1.TokenRequest)
		if a := action.(clienttesting.CreateActionImpl); a.Name != viewer || a.Namespace != "herald-system" || action.GetSubresource() != "token" || !slices.Equal(request.Spec.Audiences, []string{ask.Audience}) || *request.Spec.ExpirationSeconds != 600 {
			return true, nil, errors.New("an unexpected request")
		}
		tokens++
		request.Status.Token = "secret"
		return true, request, nil
	})
	other, _, _ := ed25519.GenerateKey(nil)
	speakers := []askee{
		{"n1", []string{"127.0.0.9", "127.0.0.1"}, public},
		{"n2", []string{"127.0.0.2"}, public},
		{"n3", []string{"127.0.0.1"}, other},
	}
	var wanted []announcement
	for i := range 2500 {
		wanted = append(wanted, announcement{address: netip.AddrFrom4([4]byte{198, 18, byte(i >> 8), byte(i)}).String(), interfaces: []string{"eth0"}})
	}
	v := &verifier{cluster: &cluster{kube: kube}, own: "herald-system", port: uint16(server.Listener.Addr().(*net.TCPAddr).Port)}
	answers, unasked, err := v.ask(t.Context(), speakers, wanted)
	if err != nil {
		t.Fatal(err)
	}
	if len(answers["n1"]) != 2500 || !slices.Equal(sizes, []int{1000, 1000, 500}) || len(answers["n2"])+len(answers["n3"]) > 0 {
		t.Errorf("%d answers of n1 to requests of %v; %d of n2, %d of n3", len(answers["n1"]), sizes, len(answers["n2"]), len(answers["n3"]))
	}
	if len(unasked) != 2 || unasked[0].Reason != "429 Too Many Requests: the segments are being asked for somebody else�[2J" || !strings.Contains(unasked[1].Reason, "it has another key than the one in its SpeakerStatus") {
		t.Errorf("%+v", unasked)
	}
	if tokens != 1 {
		t.Errorf("%d tokens", tokens)
	}
}

func TestVerifyForPeople(t *testing.T) {
	r := &verifyReport{Speakers: 3, Addresses: 12}
	say := func() string { return r.text(styleOf(&bytes.Buffer{})) }
	if want := "Asked for 12 addresses from 3 nodes.\nNobody but its owner answers for an address, and every owner does.\n"; say() != want {
		t.Errorf("%q, want %q", say(), want)
	}
	r.Unasked = []unaskedReport{{"n3", "connection refused"}}
	for range maxFindings + 5 {
		r.Findings = append(r.Findings, finding{Text: "198.51.100.7: ..."})
	}
	said := say()
	if strings.Count(said, "198.51.100.7") != maxFindings || !strings.HasSuffix(said, "✗ and 5 more: -o json lists all\n✗ node n3 could not be asked: connection refused\n") {
		t.Errorf("%s", said)
	}
}
