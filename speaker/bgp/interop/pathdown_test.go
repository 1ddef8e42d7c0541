package interop

import (
	"testing"

	"github.com/heraldlb/herald/e2e/lab/rack"
	"github.com/heraldlb/herald/e2e/lab/router"
	"github.com/heraldlb/herald/speaker/bgp/route"
)

func TestPathDownEndsTheSessionAndItComesBack(t *testing.T) {
	rack.Each(t, func(t *testing.T, kind router.Kind) {
		a, b := newBench(t, kind), newBench(t, kind)
		a.Start()
		b.Start()
		s := newSpeaker(t, a.peer("a"), b.peer("b"))
		s.Set(vip4, to(route.Attributes{}, "a", "b"))
		a.hears(a.plain(vip4))
		b.hears(b.plain(vip4))
		before, other := s.up("a"), s.up("b")
		s.PathDown("a")
		// Routers report the reason until there is a next session.
		said := map[router.Kind]string{rack.FRR: "bfd down", rack.BIRD: "received: unknown error 6.10"}[kind] // BIRD has no name for it.
		rack.Eventually(t, func() error { return a.wasTold(said) })
		s.replaced(before)
		a.hears(a.plain(vip4))
		s.undisturbed(other)
		s.PathDown("nobody")
	})
}
