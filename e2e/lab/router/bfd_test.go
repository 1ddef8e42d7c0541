package router

import (
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestParseBIRDBFD(t *testing.T) {
	const out = `BIRD 2.0.12 ready.
bfd1:
IP address                Interface  State      Since         Interval  Timeout
198.18.0.1                eth0       Up         23:33:27.319    0.050    0.150
fe80::a                   eth0       Init       23:33:28.000    1.000    3.000
198.18.0.9                ---        Down       23:33:29.000    1.000    0.000
`
	got, err := parseBIRDBFD(out)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]BFDSession{
		{Peer: netip.MustParseAddr("198.18.0.1"), State: "up", Transmit: 50 * time.Millisecond, Detection: 150 * time.Millisecond, since: 23*time.Hour + 33*time.Minute + 27319*time.Millisecond},
		{Peer: netip.MustParseAddr("fe80::a"), State: "init", Transmit: time.Second, Detection: 3 * time.Second, since: 23*time.Hour + 33*time.Minute + 28*time.Second},
		{Peer: netip.MustParseAddr("198.18.0.9"), State: "down", Transmit: time.Second, since: 23*time.Hour + 33*time.Minute + 29*time.Second},
	}, got, compare, cmp.AllowUnexported(BFDSession{})); diff != "" {
		t.Error(diff)
	}
	before := got[0]
	before.since += time.Millisecond // BIRD rounds.
	if !got[0].Stayed(before) || got[0].Stayed(got[1]) || got[1].Stayed(got[1]) {
		t.Error("what has stayed up is not told from what has not")
	}
	if got, err := parseBIRDBFD("198.18.0.1 eth0 Up 23:33:27.319 soon 0.150\n"); err == nil {
		t.Errorf("read as %v", got)
	}
}

func TestParseFRRBFD(t *testing.T) {
	const peers = `[{"multihop":false,"peer":"198.18.0.2","interface":"eth0","id":41,"status":"up","uptime":4,
		"diagnostic":"ok","remote-diagnostic":"control detection time expired","receive-interval":50,"transmit-interval":60,
		"detect-multiplier":3,"remote-receive-interval":100,"remote-transmit-interval":200,"remote-detect-multiplier":5}]`
	got, err := parseFRRBFD([]byte(peers), []byte(`[{"peer":"198.18.0.2","session-up":2,"session-down":1}]`))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]BFDSession{{
		Peer: netip.MustParseAddr("198.18.0.2"), State: "up", Transmit: 100 * time.Millisecond, Detection: time.Second,
		RemoteDiagnostic: "control detection time expired", epoch: "41 1",
	}}, got, compare, cmp.AllowUnexported(BFDSession{})); diff != "" {
		t.Error(diff)
	}
	for _, bad := range [][2]string{{"", "[]"}, {peers, "[]"}, {peers, "x"}} {
		if got, err := parseFRRBFD([]byte(bad[0]), []byte(bad[1])); err == nil {
			t.Errorf("%q was read as %v", bad, got)
		}
	}
}
