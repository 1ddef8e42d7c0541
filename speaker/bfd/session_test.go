package bfd

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap/zaptest"
)

func TestSetSaysWhatIsWrong(t *testing.T) {
	good := session("peer", there4)
	for _, c := range []struct {
		edit func(*Session)
		want string
	}{
		{func(s *Session) { s.Name = "" }, "Name: is empty"},
		{func(s *Session) { s.Peer = netip.Addr{} }, "Peer: "},
		{func(s *Session) { s.Peer = netip.MustParseAddr("224.0.0.1") }, "Peer: 224.0.0.1 is not the address of a machine"},
		{func(s *Session) { s.Peer = netip.MustParseAddr("fe80::1") }, "Peer: fe80::1 is link-local and needs its interface: fe80::1%eth0"},
		{func(s *Session) { s.Peer, s.MinimumTTL = netip.MustParseAddr("fe80::1%eth0"), 254 }, "MinimumTTL: "},
		{func(s *Session) { s.Local = here6 }, "Local: 2001:db8::1 is not of the family"},
		{func(s *Session) { s.Local = netip.MustParseAddr("0.0.0.0") }, "Local: "},
		{func(s *Session) { s.TransmitInterval = 300 * time.Microsecond }, "TransmitInterval: 300µs is not in whole microseconds between 10ms and 1m0s"},
		{func(s *Session) { s.ReceiveInterval = time.Hour }, "ReceiveInterval: "},
		{func(s *Session) { s.ReceiveInterval = 50*ms + 1 }, "ReceiveInterval: "},
	} {
		s := good
		c.edit(&s)
		faults := New(zaptest.NewLogger(t), nil).Set([]Session{s, {Name: "other", Peer: there6}})
		if err := faults[s.Name]; err == nil || !strings.Contains(err.Error(), c.want) || len(faults) != 1 {
			t.Errorf("%+v: %v, want only %q", s, faults, c.want)
		}
	}
	other := good
	other.Name = "other"
	faults := New(zaptest.NewLogger(t), nil).Set([]Session{good, other})
	if err := faults["other"]; err == nil || !strings.Contains(err.Error(), `session "peer" is with 198.18.0.2 on the same path`) || len(faults) != 1 {
		t.Errorf("two on one path: %v", faults)
	}
}
