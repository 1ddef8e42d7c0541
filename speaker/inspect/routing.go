package inspect

import (
	"net/netip"
	"slices"
)

const (
	// MaxRoutes is how many routes a Routing has at most.
	MaxRoutes = 5000
	// MaxPrefixes and MaxPeers are how many of each a RoutingQuery may have.
	MaxPrefixes, MaxPeers = 100, 100
	// MaxRoutingPeers and MaxHeld bound its other lists.
	MaxRoutingPeers, MaxHeld = 256, 1000
)

// RoutingUnresolved is the state of a RoutingPeer that refers to something that the node does not have.
const RoutingUnresolved = "Unresolved"

// Routing is what one node has to do with routers: its BGP sessions, BFD beside them, and its routes. It is what GET /bgp
// answers, in JSON. Times are RFC 3339 by the node's clock, durations as "1.5s".
type Routing struct {
	Node string `json:"node"`
	At   string `json:"at"`
	// Problem is why the node announces nothing. Empty: it does.
	Problem string `json:"problem,omitempty"`
	// Leaving is for how long the node has been leaving: its routes have the community GRACEFUL_SHUTDOWN (RFC 8326).
	// Empty: it does not leave.
	Leaving string          `json:"leaving,omitempty"`
	Peers   []RoutingPeer   `json:"peers"`  // by name
	Routes  []RoutingRoute  `json:"routes"` // by prefix and peer
	Held    []RoutingHeldBy `json:"held"`   // addresses that the node does not announce, for a reason of its own
	// More, MorePeers and MoreHeld are how many routes, peers and addresses there are besides.
	More      int `json:"more"`
	MorePeers int `json:"morePeers,omitempty"`
	MoreHeld  int `json:"moreHeld,omitempty"`
}

// RoutingPeer is a BGPPeer as one node has it.
type RoutingPeer struct {
	Peer string `json:"peer"`
	// State is one of RFC 4271, section 8.2.2, or Invalid: the BGPPeer cannot be used, or Unresolved: it refers to something
	// that the node does not have.
	State     string        `json:"state"`
	Since     string        `json:"since,omitempty"`
	Reason    string        `json:"reason,omitempty"`    // why it is not established
	LastError *RoutingError `json:"lastError,omitempty"` // nil: there has been none
	// Flaps are how many times the session has left Established, by cause.
	Flaps map[string]uint64 `json:"flaps,omitempty"`

	Local  RoutingEnd `json:"local"`
	Router RoutingEnd `json:"router"`
	// Passive: the router connects to the node.
	Passive bool `json:"passive,omitempty"`
	// HoldTime and KeepaliveTime are those that hold.
	HoldTime      string `json:"holdTime,omitempty"`
	KeepaliveTime string `json:"keepaliveTime,omitempty"`

	IPv4           RoutingCount `json:"ipv4"`
	IPv6           RoutingCount `json:"ipv6"`
	WithheldReason string       `json:"withheldReason,omitempty"`
	// UpdatesSent and UpdatesReceived are UPDATE messages.
	UpdatesSent     uint64 `json:"updatesSent"`
	UpdatesReceived uint64 `json:"updatesReceived"`

	BFD *RoutingBFD `json:"bfd,omitempty"` // nil: the BGPPeer has none
}

// RoutingError is why a session is not up or, if it is, why it was not before.
type RoutingError struct {
	Text string `json:"text"`
	// By is the end that reported it, node or router. Empty: there was no connection.
	By string `json:"by,omitempty"`
	At string `json:"at"`
}

// RoutingEnd is one end of a session. What it said in its OPEN is there while the session is established.
type RoutingEnd struct {
	Address      string   `json:"address,omitempty"`
	Port         uint16   `json:"port,omitempty"` // to connect to
	ASN          uint32   `json:"asn,omitempty"`
	RouterID     string   `json:"routerID,omitempty"`
	Families     []string `json:"families,omitempty"`
	Capabilities []string `json:"capabilities,omitempty"`
}

// RoutingCount counts prefixes of one family.
type RoutingCount struct {
	Sent     int `json:"sent"`
	Withheld int `json:"withheld"`
}

// RoutingBFD is BFD with a router (RFC 5880).
type RoutingBFD struct {
	State            string `json:"state"`
	Since            string `json:"since,omitempty"`
	Reason           string `json:"reason,omitempty"` // why it is not up
	Diagnostic       string `json:"diagnostic,omitempty"`
	RouterState      string `json:"routerState,omitempty"`
	RouterDiagnostic string `json:"routerDiagnostic,omitempty"`
	// TransmitInterval and ReceiveInterval hold now.
	TransmitInterval string `json:"transmitInterval,omitempty"`
	ReceiveInterval  string `json:"receiveInterval,omitempty"`
	// DetectionTime is the silence after which this node finds the router dead, RouterDetectionTime the other way round.
	DetectionTime       string `json:"detectionTime,omitempty"`
	RouterDetectionTime string `json:"routerDetectionTime,omitempty"`
	// Measured are the times between the router's packets since the session came up or its intervals changed.
	Measured        *RoutingMeasured `json:"measured,omitempty"`
	Failures        uint64           `json:"failures"`
	PacketsSent     uint64           `json:"packetsSent"`
	PacketsReceived uint64           `json:"packetsReceived"`
}

// RoutingMeasured is a measurement of times between packets.
type RoutingMeasured struct {
	Packets uint64 `json:"packets"`
	Min     string `json:"min"`
	Mean    string `json:"mean"`
	Max     string `json:"max"`
}

// RoutingRoute is a prefix as one peer is to hear it, with the attributes that matter on that session.
type RoutingRoute struct {
	Prefix string `json:"prefix"`
	Peer   string `json:"peer"`
	// Withheld is why the router has not been told. Empty: it has.
	Withheld    string   `json:"withheld,omitempty"`
	NextHop     string   `json:"nextHop,omitempty"`
	Communities []string `json:"communities,omitempty"` // of all kinds
	// LocalPreference is sent on internal sessions, and Prepend on external ones.
	LocalPreference *uint32 `json:"localPreference,omitempty"`
	MED             *uint32 `json:"med,omitempty"`
	Prepend         uint8   `json:"prepend,omitempty"`
	LinkBandwidth   float32 `json:"linkBandwidth,omitempty"` // bytes per second
}

// RoutingHeldBy is an address that a node does not announce, and why.
type RoutingHeldBy struct {
	Address string `json:"address"`
	Reason  string `json:"reason"`
}

// RoutingQuery chooses the peers and routes of a Routing.
type RoutingQuery struct {
	// Prefixes: routes that overlap one of them; none: all routes.
	Prefixes []netip.Prefix
	// Peers: these, and routes for them; none: all peers.
	Peers []string
	// Limit is how many routes are wanted at most; MaxRoutes is the most.
	Limit int
}

// Wants reports whether the routes to a prefix are asked for.
func (q *RoutingQuery) Wants(p netip.Prefix) bool {
	return len(q.Prefixes) == 0 || slices.ContainsFunc(q.Prefixes, p.Overlaps)
}

// WantsPeer reports whether a BGPPeer is asked for.
func (q *RoutingQuery) WantsPeer(name string) bool {
	return len(q.Peers) == 0 || slices.Contains(q.Peers, name)
}
