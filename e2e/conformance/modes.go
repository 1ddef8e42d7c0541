package main

import (
	"fmt"
	"strings"

	"github.com/heraldlb/herald/e2e/lab"
)

// mode is a way in which Herald announces addresses.
type mode struct {
	name, title string
	// configuration returns Herald's configuration objects.
	configuration func(*lab.Router) string
	// cannot maps the specs that the mode cannot pass to the reasons.
	cannot map[string]string
}

const allNodes = "LoadBalancers ExternalTrafficPolicy: Local should target all nodes with endpoints"

// remarks are notes about specs in all modes.
var remarks = map[string]string{
	allNodes: "In Kubernetes 1.36 this spec passes whichever nodes answer: the answers that it compares contain the time.",
}

// alone is the reason for specs that cannot pass on a segment.
const alone = "On a segment one node answers for an address, and with `externalTrafficPolicy: Local` it serves its own endpoints only"

var modes = []mode{{
	name: "bgp", title: "BGP",
	configuration: func(r *lab.Router) string {
		return fmt.Sprintf(`
apiVersion: herald.dev/v1alpha1
kind: IPPool
metadata: {name: conformance}
spec: {addresses: [198.51.100.0/24]}
---
apiVersion: herald.dev/v1alpha1
kind: BGPPeer
metadata: {name: %s}
spec: {localASN: %d, peerASN: %d, address: %s}
---
apiVersion: herald.dev/v1alpha1
kind: BGPAdvertisement
metadata: {name: conformance}
spec: {pools: [conformance]}
`, r.Name, lab.NodeASN, r.ASN, r.IPv4)
	},
}, {
	name: "l2", title: "L2",
	configuration: func(*lab.Router) string {
		return `
apiVersion: herald.dev/v1alpha1
kind: IPPool
metadata: {name: conformance}
spec: {addresses: [198.18.0.200-198.18.0.250]}
---
apiVersion: herald.dev/v1alpha1
kind: L2Advertisement
metadata: {name: conformance}
spec: {pools: [conformance]}
`
	},
	cannot: map[string]string{
		allNodes: alone,
		"LoadBalancers should be able to switch session affinity for LoadBalancer service with Local traffic policy": alone +
			". Without affinity, the spec wants answers from at least two of its three pods. For that, two pods have to be on that node, and the scheduler decides this",
	},
}}

// choose finds modes by their names. Without names it returns all.
func choose(names []string) ([]mode, error) {
	if len(names) == 0 {
		return modes, nil
	}
	var chosen []mode
	for _, n := range names {
		m, ok := find(n)
		if !ok {
			return nil, fmt.Errorf("there is no mode %q: name some of bgp and l2, or none for both", n)
		}
		chosen = append(chosen, m)
	}
	return chosen, nil
}

func find(name string) (mode, bool) {
	for _, m := range modes {
		if m.name == strings.ToLower(name) {
			return m, true
		}
	}
	return mode{}, false
}
