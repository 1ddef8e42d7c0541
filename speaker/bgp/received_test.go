package bgp

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/osrg/gobgp/v4/pkg/packet/bgp"
)

// Only UPDATEs of which a route is kept count: routes that are replaced or withdrawn do not.
func TestWhatIsKeptOfARoutersRoutes(t *testing.T) {
	nlri := func(prefixes ...string) (all []bgp.PathNLRI) {
		for _, p := range prefixes {
			n, err := bgp.NewIPAddrPrefix(netip.MustParsePrefix(p))
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, bgp.PathNLRI{NLRI: n})
		}
		return all
	}
	attributes := []bgp.PathAttributeInterface{bgp.NewPathAttributeCommunities(make([]uint32, 100))}
	size := func(routes int) int { return attributes[0].Len() + 5*routes }
	r := &received{}
	for _, c := range []struct {
		what                 string
		announced, withdrawn []bgp.PathNLRI
		want                 int
	}{
		{"two routes", nlri("198.51.100.1/32", "198.51.100.2/32"), nil, size(2)},
		{"one of them again", nlri("198.51.100.1/32"), nil, size(2) + size(1)},
		{"the other one", nlri("198.51.100.2/32"), nil, 2 * size(1)},
		{"one twice", nlri("198.51.100.2/32", "198.51.100.2/32"), nil, size(1) + size(2)},
		{"withdrawals", nil, nlri("198.51.100.1/32", "198.51.100.2/32", "198.51.100.3/32"), 0},
		{"announced and withdrawn", nlri("198.51.100.4/32"), nlri("198.51.100.4/32"), 0},
	} {
		r.update(c.announced, c.withdrawn, attributes)
		if r.bytes != c.want || (c.want == 0) != (len(r.of) == 0) {
			t.Errorf("%s: %d bytes of %d routes, want %d bytes", c.what, r.bytes, len(r.of), c.want)
		}
	}
}

// A router cannot fill the memory of a node with routes that are not used. One that changes a route again and again may.
func TestARouterThatSendsLargeRoutes(t *testing.T) {
	a := newArena(t, 2)
	large := origin + asPath + nextHop + "d063ea60" + strings.Repeat("00", 60_000) // Optional, transitive, of extended length.
	flood := func(hostile, prefixes int) *routerEnd {
		r := a.dialIn(hostileAt(hostile), "0600") // extended messages
		t.Cleanup(func() { _ = r.Close() })
		for i := range 600 {
			if _, err := r.Write(update(large, fmt.Sprintf("20cb00%04x", i%prefixes))); err != nil {
				break
			}
		}
		return r
	}
	_ = flood(0, 600).Close()
	eventually(t, "the reason", func() bool {
		all := a.speaker.Sessions()
		i := slices.IndexFunc(all, func(s Session) bool { return s.Address == hostileAt(0) })
		return all[i].Reason == errTooLarge.Error()
	})
	r := flood(1, 1)
	if _, err := r.Write(refresh); err != nil {
		t.Errorf("a router that changes one route has lost its session: %v", err)
	}
	if code, _ := r.until(2); code != 0 {
		t.Errorf("a router that changes one route gets a NOTIFICATION of code %d", code)
	}
	a.undisturbed()
}
