package e2e

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	herald "github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/e2e/lab"
	"github.com/heraldlb/herald/speaker/inspect"
)

// bgpIsShown checks the output of kubectl herald bgp for working sessions, and then for each thing that can be wrong.
func (f *field) bgpIsShown(t *testing.T, good, other *lab.Router) {
	t.Helper()
	_, err := f.access.Kubectl(f.ctx, "apply", "-f", "../manifests/rbac/viewer.yaml")
	f.must(err)
	const document = "docs/kubectl-herald.md"
	both := "k8s-node1, k8s-node2"

	t.Run("kubectl herald bgp: all is well", func(t *testing.T) {
		f := f.within(t)
		for _, r := range f.site.Routers {
			f.must(f.patchPeer(r.Name, `{"spec":{"bfd":{"detectMultiplier":20,"transmitInterval":"100ms","receiveInterval":"100ms"}}}`))
		}
		f.comesToSay("bgp peers", 0, "All sessions are established, and all routes are sent.", "PEER NODE ROUTER AS STATE FOR BFD SENT WITHHELD FLAPS",
			fmt.Sprintf("%s k8s-node1 %v %d Established", good.Name, good.IPv4, good.ASN), fmt.Sprintf("%s k8s-node2 %v %d Established", other.Name, other.IPv4, other.ASN), " Up 1 0 ")
		f.comesToSay("bgp peers "+good.Name+" --node k8s-node1", 0, good.Name+" on k8s-node1", "hold time 3s, keepalive time 1s", "both: IPv4 unicast; IPv6 unicast",
			"4-byte AS numbers", "1 sent", "BFD Up for ", "detection time 2s here, 2s at the router", "on average of ")
		f.comesToSay("bgp routes", 0, "All routes are sent.", "198.18.0.200/32 default/web "+good.Name+" yes "+both+" 198.18.0.", "communities 64512:100 no-export 64512:1:2",
			other.Name+" yes "+both, "prepend 2")
		f.comesToSay("status", 0, "Nothing needs attention.", "2/2, BFD 2/2")
		var routes struct {
			Routes []struct {
				Node, Peer, Prefix, NextHop string
				Services                    []string
			}
			Problems, NotSent, Unasked []struct{}
		}
		said, _ := f.ask("bgp", "routes", "default/web", "--peer", good.Name, "--node", "k8s-node2", "-o", "json")
		f.must(json.Unmarshal([]byte(said), &routes))
		if n := f.site.Node("k8s-node2"); len(routes.Routes) != 1 || routes.Routes[0].NextHop != n.IPv4.String() || routes.Routes[0].Services[0] != "default/web" || routes.NotSent == nil {
			t.Errorf("%+v in\n%s", routes, said)
		}
	})
	t.Run("kubectl herald bgp: a family that the router does not speak", func(t *testing.T) {
		f := f.within(t)
		f.pool("both", delay(0), "198.51.100.0/30", "2001:db8:51::/126")
		f.service("dual", to8080, dualStack, annotated(herald.AnnotationPool, "both"))
		f.routed(other, "2001:db8:51::", names(f.site)...)
		other.IPv4Only = true
		f.must(other.Restart())
		f.routed(other, "198.51.100.0", names(f.site)...)
		const why = "the router does not speak IPv6 unicast on this session: activate that address family there"
		f.comesToSay("bgp routes", 2, "✗ 2001:db8:51:: is not sent to "+other.Name+" by "+both+": "+why, "2001:db8:51::/128 default/dual "+good.Name+" yes ", other.Name+" no "+both)
		f.comesToSay("bgp peers", 2, "✗ "+other.Name+" on "+both+": 1 route is withheld: "+why, " Up 2 1 1")
		f.comesToSay("bgp peers "+other.Name+" --node k8s-node1", 2, "last error ", "here: IPv6 unicast", "0 sent, 1 withheld", "flaps 1 by ")
		f.prints(document, "Established  22s", "bgp peers")
		f.prints(document, "Administrative Shutdown", "bgp peers "+other.Name+" --node k8s-node1")
		f.prints(document, "NEXT HOPS", "bgp routes")
		f.comesToSay("bgp routes 198.51.100.0", 0, "All routes are sent.")
	})
	t.Run("kubectl herald bgp: a wrong password", func(t *testing.T) {
		f := f.within(t)
		f.must(f.patchPeer(other.Name, `{"spec":{"passwordSecret":{"name":"bad"}}}`))
		const why = "the session is down: no answer: with a password that is set on one side only, or differs"
		f.comesToSay("bgp peers", 2, "✗ "+other.Name+" on k8s-node1", why, good.Name+" k8s-node1 ")
		f.comesToSay("bgp routes 198.18.0.200", 2, "✗ 198.18.0.200 is not sent to "+other.Name+" by k8s-node1", why, "198.18.0.200/32 default/web "+good.Name+" yes")
		f.prints(document, "by BGP: the session", "explain service default/web")
		f.must(f.patchPeer(other.Name, `{"spec":{"passwordSecret":{"name":"good"}}}`))
		f.comesToSay("bgp routes 198.18.0.200", 0, "All routes are sent.")
	})
	t.Run("kubectl herald bgp: a path that BFD finds dead", func(t *testing.T) {
		f := f.within(t)
		f.must(good.Host.Script("nft add table inet cut; nft add chain inet cut out '{ type filter hook output priority 0; }'; nft add rule inet cut out udp dport 3784 drop"))
		const why = "is Down: the router has fallen silent"
		f.comesToSay("bgp peers", 2, "✗ "+good.Name+" on "+both+": BFD "+why)
		f.comesToSay("bgp peers "+good.Name+" --node k8s-node1", 2, "BFD Down for ", `diagnostic here "Control Detection Time Expired"`, "the path was found dead 1 time", "flaps 1 by bfd down")
		f.comesToSay("status", 2, "✗ BFD with "+good.Name+" "+"is Down on "+both, "2/2, BFD 1/2")
		f.comesToSay("explain service default/web", 0, "✗ 198.18.0.200 by BGP: BFD of nodes "+both+" with "+good.Name+" "+why, "kubectl herald bgp peers "+good.Name)
		f.must(good.Host.Script("nft delete table inet cut"))
		f.comesToSay("bgp peers "+good.Name, 0, "BFD Up for ")
	})
	t.Run("the metrics of a speaker: what has happened so far", func(t *testing.T) {
		f := f.within(t)
		peer, mute := fmt.Sprintf("peer=%q", good.Name), fmt.Sprintf("peer=%q", other.Name)
		f.counts("k8s-node1",
			"herald_bgp_session_up{"+peer+"} 1", `herald_bgp_session_state{`+peer+`,state="Established"} 1`, `herald_bgp_session_flaps_total{cause="bfd_down",`+peer+"} 1",
			`herald_bgp_session_flaps_total{cause="hold_timer_expired",`+peer+"} 0", `herald_bgp_routes{family="IPv6",`+peer+"} 1", `herald_bgp_routes_withheld{family="IPv6",`+mute+"} 1",
			`herald_bgp_routes_withheld{family="IPv4",`+mute+"} 0", `herald_bfd_session_state{`+peer+`,state="Up"} 1`, `herald_bfd_downs_total{diagnostic="control_detection_time_expired",`+peer+"} 1",
			"herald_bfd_failures_total{"+peer+"} 1", `herald_bgp_updates_total{direction="sent",`+peer+"} ", `herald_bfd_packets_total{direction="received",`+peer+"} ")
	})
	t.Run("kubectl herald bgp: a node that does not announce, and a speaker that is away", func(t *testing.T) {
		f := f.within(t)
		f.edit("web", local)
		f.prints(document, "NOT ANNOUNCED", "bgp routes default/web")
		f.must(f.speakers["k8s-node2"].Kill())
		f.comesToSay("bgp peers", 2, "✗ node k8s-node2 could not be asked: ", good.Name+" k8s-node1 ", good.Name+" k8s-node2 * "+good.IPv4.String(), "* as its SpeakerStatus has it")
	})
}

// counts waits until the metrics of a node's speaker have lines with these beginnings.
func (f *field) counts(node string, want ...string) {
	f.t.Helper()
	token, err := f.kube.CoreV1().ServiceAccounts(lab.HeraldNamespace).CreateToken(f.ctx, "herald-viewer", &authenticationv1.TokenRequest{
		Spec: authenticationv1.TokenRequestSpec{Audiences: []string{inspect.Audience}},
	}, metav1.CreateOptions{})
	f.must(err)
	transport := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}} //nolint:gosec // Nobody else is in the lab.
	defer transport.CloseIdleConnections()
	f.eventually("the metrics of "+node, func(ctx context.Context) error {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("https://%v:%d/metrics", f.site.Node(node).IPv4, inspect.Port), nil)
		if err != nil {
			return err
		}
		request.Header.Set("Authorization", "Bearer "+token.Status.Token)
		response, err := transport.RoundTrip(request)
		if err != nil {
			return err
		}
		defer response.Body.Close()
		text, err := io.ReadAll(response.Body)
		for _, w := range want {
			if err == nil && !strings.Contains("\n"+string(text), "\n"+w) {
				err = fmt.Errorf("%s: there is no %q in\n%s", response.Status, w, text)
			}
		}
		return err
	})
}
