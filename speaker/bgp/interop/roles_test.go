package interop

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/heraldlb/herald/e2e/lab/rack"
	"github.com/heraldlb/herald/e2e/lab/router"
	"github.com/heraldlb/herald/speaker/bgp"
	"github.com/heraldlb/herald/speaker/bgp/route"
)

// routerNames has what routers call the roles, and otherEnd the role of the other end.
var (
	routerNames = map[bgp.Role]string{
		bgp.RoleProvider: "provider", bgp.RoleRSServer: "rs-server", bgp.RoleRSClient: "rs-client", bgp.RoleCustomer: "customer", bgp.RolePeer: "peer",
	}
	otherEnd = map[string]string{"provider": "customer", "customer": "provider", "rs-server": "rs-client", "rs-client": "rs-server", "peer": "peer"}
)

// A router that insists on roles takes each role of the node that goes with its own, and the routes.
func TestRolesThatFit(t *testing.T) {
	for role, own := range routerNames {
		other := otherEnd[own]
		t.Run(string(role), func(t *testing.T) {
			bothWays(t, func(t *testing.T, kind router.Kind, w way) {
				r := newBench(t, kind)
				r.Config.Neighbors[0].Role, r.Config.Neighbors[0].StrictRole = other, true
				p := r.peer("tor")
				p.Role, p.LocalAddress = role, r.Node4
				w.on(bgp.DefaultPort, r, &p)
				r.Start()
				s := newSpeaker(t, p)
				s.Set(vip4, to(route.Attributes{}, "tor"))
				s.Set(vip6, to(decorated, "tor"))
				want := decorate(r.plain(vip6))
				want.ASPath = []uint32{rack.NodeASN, rack.NodeASN, rack.NodeASN}
				r.hears(r.plain(vip4), want)
				said, err := r.says()
				r.Must(err)
				shown := []string{"role: " + strings.ReplaceAll(other, "-", "_"), "role: " + strings.ReplaceAll(own, "-", "_")}
				if kind == router.KindFRR {
					shown = []string{`"localrole":"` + other, `"remoterole":"` + own}
				}
				for _, want := range shown {
					if !strings.Contains(said, want) {
						t.Errorf("the router does not show %s: %s", want, said)
					}
				}
				for _, d := range s.Details(t.Context()) {
					if got := strings.Join(append(d.Local.Others, d.Remote.Others...), ", "); strings.Count(got, "role ") != 2 || !strings.Contains(got, "role "+string(role)) {
						t.Errorf("capabilities %s, want the roles of both ends", got)
					}
				}
			})
		})
	}
}

// A router that does not know what the node is to it hears it from the routes.
func TestRoutesOfAProviderAreOnlyToCustomers(t *testing.T) {
	rack.Each(t, func(t *testing.T, kind router.Kind) {
		r := newBench(t, kind)
		r.Start()
		above, below := r.peer("tor"), r.peer("tor")
		above.Role, below.Role = bgp.RoleProvider, bgp.RoleCustomer
		s := newSpeaker(t, above)
		marked := func(want bool) {
			t.Helper()
			rack.Eventually(t, func() error {
				if err := r.heard(r.plain(vip4)); err != nil {
					return err
				}
				var out string
				var err error
				switch daemon := r.Router.(type) {
				case *router.FRR:
					var b []byte
					b, err = daemon.Show(context.Background(), fmt.Sprintf("show bgp ipv4 unicast %v json", vip4))
					out = string(b)
				case *router.BIRD:
					out, err = daemon.Show(context.Background(), "route", "all", vip4.String())
				}
				if err != nil {
					return err // BIRD does when the route has just gone with a session.
				}
				if strings.Contains(strings.ToLower(out), "otc") != want || want && !strings.Contains(out, fmt.Sprint(rack.NodeASN)) {
					return fmt.Errorf("Only to Customer %v is not what the router has: %s", want, out)
				}
				return nil
			})
		}
		s.Set(vip4, to(route.Attributes{}, "tor"))
		marked(true)
		s.peers(below)
		marked(false)
	})
}

// Whatever is wrong with the roles, the reason says what to write.
func TestRolesThatDoNotFit(t *testing.T) {
	for name, story := range map[string]struct {
		node   bgp.Role
		router string
		strict bool
		reason string
	}{
		"two customers":            {bgp.RoleCustomer, "customer", false, "spec.role is Customer, so the router must have the BGP role Provider, and it has Customer (RFC 9234)"},
		"a peer and a provider":    {bgp.RolePeer, "provider", true, "spec.role is Peer, so the router must have the BGP role Peer, and it has Provider (RFC 9234)"},
		"no role, and one is due":  {"", "provider", true, "the router insists on a BGP role of this node (RFC 9234): write in spec.role what this node is to the router; the role of the router is Provider"},
		"no role, and none is due": {"", "provider", false, ""},
		"the router has no role":   {bgp.RoleCustomer, "", false, ""},
	} {
		t.Run(name, func(t *testing.T) {
			bothWays(t, func(t *testing.T, kind router.Kind, w way) {
				r := newBench(t, kind)
				r.Config.Neighbors[0].Role, r.Config.Neighbors[0].StrictRole = story.router, story.strict
				p := r.peer("tor")
				p.Role, p.LocalAddress = story.node, r.Node4
				w.on(bgp.DefaultPort, r, &p)
				r.Start()
				s := newSpeaker(t, p)
				s.Set(vip4, to(route.Attributes{}, "tor"))
				if story.reason == "" {
					r.hears(r.plain(vip4))
					return
				}
				rack.Eventually(t, func() error { return s.down("tor", story.reason) })
			})
		})
	}
}
