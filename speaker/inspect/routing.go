package inspect

import (
	"net/netip"
	"slices"
)

const (
	// MaxRoutes is the largest number of routes in a Routing.
	MaxRoutes = 5000
	// MaxPrefixes and MaxPeers are the largest numbers of prefixes and peers in a RoutingQuery.
	MaxPrefixes, MaxPeers = 100, 100
	// MaxRoutingPeers and MaxHeld bound the other lists of a Routing.
	MaxRoutingPeers, MaxHeld = 256, 1000
)

// RoutingUnresolved is the state of a RoutingPeer that refers to something that the node does not have.
const RoutingUnresolved = "Unresolved"

// Routing describes the BGP sessions of one node, with their BFD sessions, and its routes. It is the response to GET /bgp, in
// JSON. Times are in the format of RFC 3339, by the node's clock. Durations are written as "1.5s".
type Routing struct {
	Node string `json:"node"`
	At   string `json:"at"`
	// Problem is why the node announces nothing. Empty: there is no such problem.
	Problem string `json:"problem,omitempty"`
	// Leaving is how long the node has been leaving. Its routes then have the community GRACEFUL_SHUTDOWN (RFC 8326).
	// Empty: the node is not leaving.
	Leaving string          `json:"leaving,omitempty"`
	Peers   []RoutingPeer   `json:"peers"`  // by name
	Routes  []RoutingRoute  `json:"routes"` // by prefix and peer
	Held    []RoutingHeldBy `json:"held"`   // addresses that the node does not announce, for a reason of its own
	// More, MorePeers and MoreHeld are how many routes, peers and addresses exist that are not in the lists.
	More      int `json:"more"`
	MorePeers int `json:"morePeers,omitempty"`
	MoreHeld  int `json:"moreHeld,omitempty"`
}

// RoutingPeer is the state of a BGPPeer on one node.
type RoutingPeer struct {
	Peer string `json:"peer"`
	// State is a state of RFC 4271, section 8.2.2, or Invalid if the BGPPeer cannot be used, or Unresolved if it refers to
	// something that the node does not have.
	State     string        `json:"state"`
	Since     string        `json:"since,omitempty"`
	Reason    string        `json:"reason,omitempty"`    // why the session is not established
	LastError *RoutingError `json:"lastError,omitempty"` // nil: there has been no error
	// Flaps counts how often the session has left Established, by cause.
	Flaps map[string]uint64 `json:"flaps,omitempty"`

	Local  RoutingEnd `json:"local"`
	Router RoutingEnd `json:"router"`
	// Passive means that the router connects to the node.
	Passive bool `json:"passive,omitempty"`
	// HoldTime and KeepaliveTime are the times in effect.
	HoldTime      string `json:"holdTime,omitempty"`
	KeepaliveTime string `json:"keepaliveTime,omitempty"`

	IPv4           RoutingCount `json:"ipv4"`
	IPv6           RoutingCount `json:"ipv6"`
	WithheldReason string       `json:"withheldReason,omitempty"`
	// UpdatesSent and UpdatesReceived count UPDATE messages.
	UpdatesSent     uint64 `json:"updatesSent"`
	UpdatesReceived uint64 `json:"updatesReceived"`

	BFD *RoutingBFD `json:"bfd,omitempty"` // nil: the BGPPeer has no BFD
}

// RoutingError is why a session is down or, if it is up, why it was down before.
type RoutingError struct {
	Text string `json:"text"`
	// By is the end that reported the error, node or router. Empty: there was no connection.
	By string `json:"by,omitempty"`
	At string `json:"at"`
}

// RoutingEnd is one end of a session. The fields from its OPEN are set while the session is established.
type RoutingEnd struct {
	Address      string   `json:"address,omitempty"`
	Port         uint16   `json:"port,omitempty"` // the port to connect to
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

// RoutingBFD is a BFD session with a router (RFC 5880).
type RoutingBFD struct {
	State            string `json:"state"`
	Since            string `json:"since,omitempty"`
	Reason           string `json:"reason,omitempty"` // why the session is not up
	Diagnostic       string `json:"diagnostic,omitempty"`
	RouterState      string `json:"routerState,omitempty"`
	RouterDiagnostic string `json:"routerDiagnostic,omitempty"`
	// TransmitInterval and ReceiveInterval are the intervals in effect.
	TransmitInterval string `json:"transmitInterval,omitempty"`
	ReceiveInterval  string `json:"receiveInterval,omitempty"`
	// DetectionTime is the silence after which this node declares the router dead. RouterDetectionTime is the silence after
	// which the router declares this node dead.
	DetectionTime       string `json:"detectionTime,omitempty"`
	RouterDetectionTime string `json:"routerDetectionTime,omitempty"`
	// Measured are the times between the router's packets since the session came up or its intervals changed.
	Measured        *RoutingMeasured `json:"measured,omitempty"`
	Failures        uint64           `json:"failures"`
	PacketsSent     uint64           `json:"packetsSent"`
	PacketsReceived uint64           `json:"packetsReceived"`
}

// RoutingMeasured is a measurement of the times between packets.
type RoutingMeasured struct {
	Packets uint64 `json:"packets"`
	Min     string `json:"min"`
	Mean    string `json:"mean"`
	Max     string `json:"max"`
}

// RoutingRoute is a route for one peer, with the attributes that matter on that session.
type RoutingRoute struct {
	Prefix string `json:"prefix"`
	Peer   string `json:"peer"`
	// Withheld is why the route has not been sent to the router. Empty: it has been sent.
	Withheld    string   `json:"withheld,omitempty"`
	NextHop     string   `json:"nextHop,omitempty"`
	Communities []string `json:"communities,omitempty"` // of all kinds
	// LocalPreference is for internal sessions, and Prepend for external ones.
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

// RoutingQuery selects the peers and routes of a Routing.
type RoutingQuery struct {
	// Prefixes selects the routes that overlap one of them. If there are none, it selects all routes.
	Prefixes []netip.Prefix
	// Peers selects these peers and the routes for them. If there are none, it selects all peers.
	Peers []string
	// Limit is the largest number of routes to return, up to MaxRoutes.
	Limit int
}

// Wants reports whether the query selects the routes to a prefix.
func (q *RoutingQuery) Wants(p netip.Prefix) bool {
	return len(q.Prefixes) == 0 || slices.ContainsFunc(q.Prefixes, p.Overlaps)
}

// WantsPeer reports whether the query selects a BGPPeer.
func (q *RoutingQuery) WantsPeer(name string) bool {
	return len(q.Peers) == 0 || slices.Contains(q.Peers, name)
}
