package main

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
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
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"

	"github.com/heraldlb/herald/cmd/kubectl-herald/internal/report"
	"github.com/heraldlb/herald/speaker/ask"
)

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
			response.Answers = append(response.Answers, ask.Answer{Address: q.Address, Interface: "eth0", MACs: []string{"02:00:5e:00:53:01"}})
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
	speakers := []report.Askee{
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
