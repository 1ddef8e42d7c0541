package interop

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/heraldlb/herald/e2e/lab/router"
	"github.com/heraldlb/herald/speaker/bgp"
)

func TestPathDownEndsTheSessionAndItComesBack(t *testing.T) {
	withEach(t, func(t *testing.T, kind implementation) {
		a, b := newRack(t, kind), newRack(t, kind)
		a.start()
		b.start()
		s := newSpeaker(t, a.peer("a"), b.peer("b"))
		s.Set(vip4, to(bgp.Attributes{}, "a", "b"))
		a.hears(a.plain(vip4))
		b.hears(b.plain(vip4))
		before, other := s.up("a"), s.up("b")
		s.PathDown("a")
		eventually(t, a.wasToldPathDown)
		eventually(t, func() error {
			if now := s.session("a"); now.State != bgp.Established || now.Since.Equal(before.Since) {
				return errors.New("the session has not ended and come back")
			}
			return nil
		})
		a.hears(a.plain(vip4))
		s.undisturbed(other)
		s.PathDown("nobody")
	})
}

// wasToldPathDown checks why the last session ended. Routers tell for as long as there is no next one.
func (r *rack) wasToldPathDown() (err error) {
	var said, want string
	switch it := r.router.(type) {
	case *router.FRR:
		var out []byte
		out, err = it.Show(context.Background(), "show bgp neighbors json")
		said, want = string(out), "BFD Down"
	case *router.BIRD:
		said, err = it.Show(context.Background(), "protocols", "all")
		want = "Received: Unknown error 6.10" // It has no name for the subcode.
	}
	if err == nil && !strings.Contains(said, want) {
		err = fmt.Errorf("the router was not told %q: %s", want, said)
	}
	return err
}
