package bgp

import (
	"fmt"

	"github.com/osrg/gobgp/v4/pkg/packet/bgp"
)

// notificationText describes the codes of a NOTIFICATION (RFC 4271 §4.5), and quotes the sender's message for operators
// (RFC 9003).
func notificationText(code, subcode uint8, said string) string {
	text := fmt.Sprintf("code %d, subcode %d", code, subcode)
	if n, ok := notifications[code]; ok {
		text = n.name
		switch {
		case int(subcode) < len(n.subcodes) && n.subcodes[subcode] != "":
			text += ", " + n.subcodes[subcode]
		case subcode != 0:
			text += fmt.Sprintf(", subcode %d", subcode)
		}
	}
	if said != "" {
		text += fmt.Sprintf(" (%q)", said)
	}
	return text
}

// communication returns the message for operators in the data of a NOTIFICATION (RFC 9003 section 2), or "".
func communication(code, subcode uint8, data []byte) string {
	shuts := subcode == bgp.BGP_ERROR_SUB_ADMINISTRATIVE_SHUTDOWN || subcode == bgp.BGP_ERROR_SUB_ADMINISTRATIVE_RESET
	if code != bgp.BGP_ERROR_CEASE || !shuts || len(data) == 0 || int(data[0]) >= len(data) {
		return ""
	}
	return string(data[1:][:data[0]])
}

// notifications has the names from https://www.iana.org/assignments/bgp-parameters. Subcodes that are unassigned or
// deprecated are empty.
var notifications = map[uint8]struct {
	name     string
	subcodes []string
}{
	1: {"Message Header Error", []string{"", "Connection Not Synchronized", "Bad Message Length", "Bad Message Type"}},
	2: {"OPEN Message Error", []string{
		"", "Unsupported Version Number", "Bad Peer AS", "Bad BGP Identifier", "Unsupported Optional Parameter", "",
		"Unacceptable Hold Time", "Unsupported Capability", "", "", "", "Role Mismatch", // RFC 9234
	}},
	3: {"UPDATE Message Error", []string{
		"", "Malformed Attribute List", "Unrecognized Well-known Attribute", "Missing Well-known Attribute",
		"Attribute Flags Error", "Attribute Length Error", "Invalid ORIGIN Attribute", "", "Invalid NEXT_HOP Attribute",
		"Optional Attribute Error", "Invalid Network Field", "Malformed AS_PATH",
	}},
	4: {"Hold Timer Expired", nil},
	5: {"Finite State Machine Error", []string{
		"", "Unexpected Message in OpenSent", "Unexpected Message in OpenConfirm", "Unexpected Message in Established",
	}},
	6: {"Cease", []string{ // RFC 4486, RFC 8538, RFC 9384
		"", "Maximum Number of Prefixes Reached", "Administrative Shutdown", "Peer De-configured", "Administrative Reset",
		"Connection Rejected", "Other Configuration Change", "Connection Collision Resolution", "Out of Resources",
		"Hard Reset", "BFD Down",
	}},
	7: {"ROUTE-REFRESH Message Error", []string{"", "Invalid Message Length"}},
	8: {"Send Hold Timer Expired", nil}, // RFC 9687
}
