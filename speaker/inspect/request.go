// Package inspect has the requests that kubectl herald sends to the port of a speaker, by HTTPS with a bearer token, and
// their responses. POST /verify makes the speaker ask on its segments which machines have an address. GET /bgp returns the
// speaker's sessions with routers and its routes. The speaker serves the port on Linux. A [Speaker] is the client, for any
// operating system.
package inspect

import "net/netip"

const (
	// Port is the port on which a speaker listens by default.
	Port = 7475
	// Audience is the audience of tokens that are only for this port.
	Audience = "herald-speaker"
	// MaxQuestions is how many addresses one request may have.
	MaxQuestions = 1000
)

// Request is the body of POST /verify, in JSON.
type Request struct {
	Addresses []Question `json:"addresses"`
}

// Question asks for one address. The speaker asks it on every interface that has a subnet with the address, and on the
// interfaces that are named.
type Question struct {
	Address    netip.Addr `json:"address"`
	Interfaces []string   `json:"interfaces,omitempty"`
}

// Answer has the answers for one address on one interface.
type Answer struct {
	Address   netip.Addr `json:"address"`
	Interface string     `json:"interface"`
	// MACs are the hardware addresses in the answers, sorted: the first ask.MaxMACs that came. Empty: there was no answer.
	MACs []string `json:"macs"`
}

// Response is the body of the response to POST /verify.
type Response struct {
	Answers []Answer `json:"answers"`
	// Error says what failed. Answers has the results of what did not fail.
	Error string `json:"error,omitempty"`
}
