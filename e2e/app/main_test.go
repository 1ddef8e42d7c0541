package main

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"testing"
)

func TestTheAnswerNamesPodNodeAndClient(t *testing.T) {
	for remote, want := range map[string]string{
		"198.18.0.100:40000":          "198.18.0.100",
		"[2001:db8:18::100]:40000":    "2001:db8:18::100",
		"[::ffff:198.18.0.100]:40000": "198.18.0.100", // IPv4 over the socket of both families
	} {
		request := httptest.NewRequest(http.MethodGet, "/", nil)
		request.RemoteAddr = remote
		response := httptest.NewRecorder()
		answer("app-1", "k8s-node1").ServeHTTP(response, request)
		var got map[string]string
		if err := json.Unmarshal(response.Body.Bytes(), &got); err != nil {
			t.Fatal(err)
		}
		if got["pod"] != "app-1" || got["node"] != "k8s-node1" || got["client"] != want {
			t.Errorf("from %s: got %v, want app-1 on k8s-node1 asked by %s", remote, got, want)
		}
	}
}
