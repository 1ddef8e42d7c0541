// Package inspect is what a speaker's port answers to kubectl herald, by HTTPS with a bearer token: POST /verify has the
// speaker ask its segments who has an address, and GET /bgp tells of its sessions with routers and of its routes. The
// speaker serves it on Linux, and a Speaker asks it from any operating system.
package inspect

import "net/netip"

const (
	// Port is where a speaker listens unless it is told otherwise.
	Port = 7475
	// Audience is that of tokens for this port alone.
	Audience = "herald-speaker"
	// MaxQuestions is how many addresses one request may have.
	MaxQuestions = 1000
)

// Request is the body of POST /verify, in JSON.
type Request struct {
	Addresses []Question `json:"addresses"`
}

// Question is for one address. It is asked on every interface that has a subnet that holds the address, and on
// those that are named.
type Question struct {
	Address    netip.Addr `json:"address"`
	Interfaces []string   `json:"interfaces,omitempty"`
}

// Answer is what was heard about one address on one interface.
type Answer struct {
	Address   netip.Addr `json:"address"`
	Interface string     `json:"interface"`
	// The hardware addresses that the answers gave, sorted: the first ask.MaxMACs that came. Empty: there was no answer.
	MACs []string `json:"macs"`
}

// Response is the body of the response to it.
type Response struct {
	Answers []Answer `json:"answers"`
	// Error says what failed. What did not fail is among the answers.
	Error string `json:"error,omitempty"`
}
