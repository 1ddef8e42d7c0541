package main

import (
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
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"

	herald "github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/cmd/kubectl-herald/internal/report"
	"github.com/heraldlb/herald/speaker/inspect"
)

// TestSpeakersAreAsked asks three speakers: one that answers, one that fails, and one with another key.
func TestSpeakersAreAsked(t *testing.T) {
	public, certificate := identity(t)
	var err error
	var sizes []int
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if host, _, _ := net.SplitHostPort(r.Context().Value(http.LocalAddrContextKey).(net.Addr).String()); host == "127.0.0.2" {
			http.Error(w, "the segments are being asked for somebody else\x1b[2J", http.StatusTooManyRequests)
			return
		}
		var request inspect.Request
		if err := json.NewDecoder(r.Body).Decode(&request); err != nil || r.Method != http.MethodPost || r.URL.Path != "/verify" || r.Header.Get("Authorization") != "Bearer secret" {
			http.Error(w, "bad request", http.StatusBadRequest)
			return
		}
		sizes = append(sizes, len(request.Addresses))
		var response inspect.Response
		for _, q := range request.Addresses {
			response.Answers = append(response.Answers, inspect.Answer{Address: q.Address, Interface: "eth0", MACs: []string{"02:00:5e:00:53:01"}})
		}
		_ = json.NewEncoder(w).Encode(response)
	}))
	var listen net.ListenConfig
	if server.Listener, err = listen.Listen(t.Context(), "tcp", "0.0.0.0:0"); err != nil {
		t.Fatal(err)
	}
	server.TLS = &tls.Config{Certificates: []tls.Certificate{certificate}}
	server.Config.ErrorLog = zap.NewStdLog(zap.NewNop())
	server.StartTLS()
	defer server.Close()

	kube, tokens := fake.NewClientset(), 0
	kube.PrependReactor("create", "serviceaccounts", func(action clienttesting.Action) (bool, runtime.Object, error) {
		request := action.(clienttesting.CreateAction).GetObject().(*authenticationv1.TokenRequest)
		if a := action.(clienttesting.CreateActionImpl); a.Name != viewer || a.Namespace != "herald-system" || action.GetSubresource() != "token" || !slices.Equal(request.Spec.Audiences, []string{inspect.Audience}) || *request.Spec.ExpirationSeconds != 600 {
			return true, nil, errors.New("an unexpected request")
		}
		tokens++
		request.Status.Token = "secret"
		return true, request, nil
	})
	other, _, _ := ed25519.GenerateKey(nil)
	askees := []report.Askee{
		{Node: "n1", Addresses: []string{"127.0.0.9", "127.0.0.1"}, Key: public},
		{Node: "n2", Addresses: []string{"127.0.0.2"}, Key: public},
		{Node: "n3", Addresses: []string{"127.0.0.1"}, Key: other},
	}
	var addresses []string
	for i := range 2500 {
		addresses = append(addresses, netip.AddrFrom4([4]byte{198, 18, byte(i >> 8), byte(i)}).String())
	}
	wanted, err := report.NewNetwork(&report.Objects{}).Wanted(addresses)
	if err != nil {
		t.Fatal(err)
	}
	v := &verifier{speakers{cluster: &cluster{kube: kube}, own: "herald-system", port: uint16(server.Listener.Addr().(*net.TCPAddr).Port)}}
	answers, unasked, err := v.ask(t.Context(), askees, wanted)
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

// identity returns the key and the certificate of a speaker.
func identity(t *testing.T) (ed25519.PublicKey, tls.Certificate) {
	t.Helper()
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, public, private)
	if err != nil {
		t.Fatal(err)
	}
	return public, tls.Certificate{Certificate: [][]byte{der}, PrivateKey: private}
}

// oneSpeaker returns the API server's content for a node at 127.0.0.1 and its speaker, with a token for it.
func oneSpeaker(public ed25519.PublicKey) map[string]any {
	return map[string]any{
		"/api/v1/namespaces/herald-system/serviceaccounts/herald-viewer/token": authenticationv1.TokenRequest{
			TypeMeta: metav1.TypeMeta{Kind: "TokenRequest", APIVersion: "authentication.k8s.io/v1"}, Status: authenticationv1.TokenRequestStatus{Token: "secret"},
		},
		"/api/v1/nodes": corev1.NodeList{TypeMeta: metav1.TypeMeta{Kind: "NodeList", APIVersion: "v1"}, Items: []corev1.Node{{
			ObjectMeta: metav1.ObjectMeta{Name: "n1"},
			Status:     corev1.NodeStatus{Addresses: []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: "127.0.0.1"}}},
		}}},
		"/apis/herald.dev/v1alpha1/speakerstatuses": herald.SpeakerStatusList{
			TypeMeta: metav1.TypeMeta{Kind: "SpeakerStatusList", APIVersion: "herald.dev/v1alpha1"},
			Items: []herald.SpeakerStatus{{
				ObjectMeta: metav1.ObjectMeta{Name: "n1"},
				Status:     herald.SpeakerStatusStatus{Identity: &herald.SpeakerIdentity{PublicKey: hex.EncodeToString(public)}},
			}},
		},
	}
}

// TestTheSecondLook has a speaker that hears a stranger. When it is asked again, it gives one of several
// answers.
func TestTheSecondLook(t *testing.T) {
	public, certificate := identity(t)
	for _, c := range []struct {
		name          string
		first, second func(w http.ResponseWriter, heard *inspect.Response)
		want          []string
		err           error
	}{
		{"the stranger is still there", heardStranger, heardStranger, []string{"✗ 198.51.100.7: a machine that is not a speaker answers"}, errAttention},
		{"the stranger has gone", heardStranger, func(http.ResponseWriter, *inspect.Response) {}, []string{"Nobody but its owner answers"}, nil},
		{"the speaker fails", heardStranger, failed, []string{
			"✗ 198.51.100.7: a machine that is not a speaker answers", "✗ node n1 could not be asked: 503 Service Unavailable: restarting",
		}, errAttention},
		{"one interface fails, both times", heardStrangerOnOne, heardStrangerOnOne, []string{
			"✗ 198.51.100.7: a machine that is not a speaker answers", "✗ node n1 could not be asked: interface eth1: no such device\n",
		}, errAttention},
	} {
		t.Run(c.name, func(t *testing.T) {
			asked := 0
			s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				asked++
				var request inspect.Request
				if err := json.NewDecoder(r.Body).Decode(&request); err != nil || len(request.Addresses) != 1 {
					http.Error(w, "bad request", http.StatusBadRequest)
					return
				}
				response := inspect.Response{Answers: []inspect.Answer{{Address: request.Addresses[0].Address, Interface: "eth0"}}}
				if asked == 1 {
					c.first(w, &response)
				} else {
					c.second(w, &response)
				}
				_ = json.NewEncoder(w).Encode(response)
			}))
			s.TLS = &tls.Config{Certificates: []tls.Certificate{certificate}}
			s.Config.ErrorLog = zap.NewStdLog(zap.NewNop())
			s.StartTLS()
			defer s.Close()
			_, port, _ := net.SplitHostPort(s.Listener.Addr().String())
			flags := server(t, oneSpeaker(public), func(string) bool { return true })
			said, err := ran(t, append(flags, "verify", "198.51.100.7", "--port", port)...)
			if asked != 2 || !errors.Is(err, c.err) {
				t.Errorf("asked %d times; error %v, want %v", asked, err, c.err)
			}
			for _, want := range c.want {
				if strings.Count(said, want) != 1 {
					t.Errorf("not once %q in\n%s", want, said)
				}
			}
		})
	}
}

func heardStranger(_ http.ResponseWriter, heard *inspect.Response) {
	heard.Answers[0].MACs = []string{"02:00:5e:00:53:99"}
}

func heardStrangerOnOne(w http.ResponseWriter, heard *inspect.Response) {
	heardStranger(w, heard)
	heard.Error = "interface eth1: no such device"
}

func failed(w http.ResponseWriter, _ *inspect.Response) {
	http.Error(w, "restarting", http.StatusServiceUnavailable)
}
