package bgp

import "testing"

func TestNotificationText(t *testing.T) {
	for _, c := range []struct {
		code, subcode uint8
		said, want    string
	}{
		{6, 2, "maintenance", `Cease, Administrative Shutdown ("maintenance")`},
		{6, 10, "", "Cease, BFD Down"},
		{6, 99, "", "Cease, subcode 99"},
		{4, 0, "", "Hold Timer Expired"},
		{2, 2, "", "OPEN Message Error, Bad Peer AS"},
		{2, 5, "", "OPEN Message Error, subcode 5"}, // deprecated
		{42, 1, "", "code 42, subcode 1"},
	} {
		if got := notificationText(c.code, c.subcode, c.said); got != c.want {
			t.Errorf("code %d subcode %d: %q, want %q", c.code, c.subcode, got, c.want)
		}
	}
}
