package migrate

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	herald "github.com/heraldlb/herald/api/v1alpha1"
)

// routerIDs is the advice for a router ID that would be the same on all nodes.
const routerIDs = "in Herald each node has its own, by default its IPv4 address: if it matters give nodes a label or annotation, and name that in spec.routerIDFrom"

// external reports whether the number of the router's AS differs from the local one.
func external(s *herald.BGPPeerSpec) bool { return s.PeerASN != 0 && s.PeerASN != s.LocalASN }

// seconds returns a duration of BGP in whole seconds within limits. It adds a note if that changes the value.
func (i *item) seconds(field string, d *metav1.Duration, least, most time.Duration) *metav1.Duration {
	if d == nil {
		return nil
	}
	fits := min(max(d.Truncate(time.Second), least), most)
	if fits != d.Duration {
		i.approximated("%s: %v is not possible, and %v is written", field, d.Duration, fits)
	}
	return &metav1.Duration{Duration: fits}
}

// duration parses a duration; nil if there is none.
func (i *item) duration(field string, text *duration) (d *metav1.Duration, ok bool) {
	if text == nil {
		return nil, true
	}
	parsed, err := time.ParseDuration(string(*text))
	if err != nil {
		i.cannot("%s: %q is not a duration: write one such as 90s, and import again", field, *text)
		return nil, false
	}
	return &metav1.Duration{Duration: parsed}, true
}

// timers sets the hold time and the keepalive interval.
func (i *item) timers(p *herald.BGPPeerSpec, holdField, keepaliveField string, hold, keepalive *metav1.Duration) {
	if hold == nil && keepalive != nil && keepalive.Duration > 0 {
		hold = &metav1.Duration{Duration: min(3*keepalive.Duration, 65535*time.Second)}
	}
	if hold != nil && hold.Duration == 0 {
		i.approximated("%s: a session without a hold time keeps routes to dead nodes, and Herald offers none: the hold time is 90s", holdField)
		hold, keepalive = nil, nil
	}
	p.HoldTime = i.seconds(holdField, hold, 3*time.Second, 65535*time.Second)
	switch {
	case keepalive == nil:
	case keepalive.Duration < time.Second || p.HoldTime == nil || keepalive.Truncate(time.Second) >= p.HoldTime.Duration:
		i.approximated("%s: %v is not possible with this hold time: a third of the hold time is used", keepaliveField, keepalive.Duration)
	default:
		p.KeepaliveTime = i.seconds(keepaliveField, keepalive, time.Second, 21845*time.Second)
	}
}

// secretNamespace is the namespace in which herald-speaker reads the passwords of sessions.
const secretNamespace = "herald-system-peers"

// secret refers to a Secret of the other load balancer.
func (i *item) secret(p *herald.BGPPeerSpec, field, namespace, name string) {
	if name == "" {
		return
	}
	p.PasswordSecret = &herald.SecretReference{Name: name}
	i.approximated("%s: Herald reads Secrets of type kubernetes.io/basic-auth in the namespace %s: put Secret %s/%s there, with its password under the key password", field, secretNamespace, namespace, name)
}

// clearText refers to a Secret that the user must create for a password that the other's object has in clear text.
func (i *item) clearText(p *herald.BGPPeerSpec, field, peer string) {
	p.PasswordSecret = &herald.SecretReference{Name: peer}
	i.cannot("%s: there is a password in clear text, which is not written: kubectl create secret generic %s -n %s --type=kubernetes.io/basic-auth --from-file=password=FILE, and change the password, for whoever may read the object knows it", field, peer, secretNamespace)
}

// routerAddress returns the address of a router in Herald's format.
func (i *item) routerAddress(field, text, device string) (string, bool) {
	a, err := addressOf(text)
	switch {
	case err != nil:
		i.cannot("%s: %v: correct it", field, err)
		return "", false
	case a.IsLinkLocalUnicast() && a.Is6() && device == "":
		i.cannot("%s: %s is a link-local address, for which Herald needs the interface: write the BGPPeer by hand, with spec.interface", field, a)
		return "", false
	}
	return a.String(), true
}

// communityOf parses a numeric standard or large community.
func communityOf(text string) (herald.Community, error) {
	parts := strings.Split(text, ":")
	bits := map[int]int{2: 16, 3: 32}[len(parts)]
	if bits == 0 {
		return "", fmt.Errorf("%q is not a community such as 64512:100", text)
	}
	for n, part := range parts {
		value, err := strconv.ParseUint(part, 10, bits)
		if err != nil {
			return "", fmt.Errorf("%q is not a community such as 64512:100", text)
		}
		parts[n] = strconv.FormatUint(value, 10)
	}
	return herald.Community(strings.Join(parts, ":")), nil
}

// addCommunity adds a numeric standard or large community to the list, unless it is already there.
func (i *item) addCommunity(all []herald.Community, field, text string) []herald.Community {
	c, err := communityOf(text)
	if err != nil {
		i.cannot("%s: %v: it is left out", field, err)
	} else if !slices.Contains(all, c) {
		all = append(all, c)
	}
	return all
}

// aggregation returns the lengths of the networks that are announced instead of addresses; nil if there are none. For a
// length that no network has, it calls refuse with the length and the number of bits of an address of the family.
func (i *item) aggregation(field string, v4, v6 *int32, refuse func(length, bits int32)) *herald.AggregationLength {
	network := func(length *int32, bits int32) int32 {
		switch {
		case length == nil:
			return 0
		case *length < 1 || *length >= bits:
			refuse(*length, bits)
			return 0
		}
		return *length
	}
	lengths := herald.AggregationLength{IPv4: network(v4, 32), IPv6: network(v6, 128)}
	if lengths == (herald.AggregationLength{}) {
		return nil
	}
	i.approximated("%s: Herald announces an address by itself where a network would be wrong, for example if the Service has externalTrafficPolicy Local or the network reaches beyond the pool", field)
	return &lengths
}
