package report

import (
	"cmp"
	"crypto/ed25519"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	herald "github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/speaker/announce"
	"github.com/heraldlb/herald/speaker/inspect"
)

// Wanted returns the given addresses or, if none are given, all that are announced.
func (n *Network) Wanted(addresses []string) ([]Announcement, error) {
	all := n.announcements()
	if len(addresses) == 0 {
		return all, nil
	}
	var wanted []Announcement
	for _, text := range addresses {
		address, err := netip.ParseAddr(text)
		if err != nil {
			return nil, fmt.Errorf("%q is not an IP address: name addresses, as 198.51.100.7 or 2001:db8::7", text)
		}
		a := Announcement{address: address.Unmap().WithZone("").String()}
		if i := slices.IndexFunc(all, func(o Announcement) bool { return o.address == a.address }); i >= 0 {
			a = all[i]
		}
		wanted = append(wanted, a)
	}
	return wanted, nil
}

// Again returns the addresses with findings, as they are announced now, to ask for them again. If no addresses were
// given, it leaves out those that are no longer announced.
func (n *Network) Again(given []string, r *VerifyReport) []Announcement {
	again, _ := n.Wanted(given) // Wanted parsed them before.
	return slices.DeleteFunc(again, func(a Announcement) bool {
		return !slices.ContainsFunc(r.Findings, func(f finding) bool { return f.Address == a.address })
	})
}

// Question returns the question to speakers about the address; false if the address is invalid.
func (a *Announcement) Question() (inspect.Question, bool) {
	address, err := netip.ParseAddr(a.address)
	return inspect.Question{Address: address, Interfaces: a.interfaces}, err == nil
}

// Askee is a speaker that can be asked.
type Askee struct {
	Node      string
	Addresses []string // Of the node.
	Key       ed25519.PublicKey
}

// Askable returns the speakers on the given nodes, or on all nodes if none are given. unasked says why others cannot
// be asked.
func (n *Network) Askable(from []string) (speakers []Askee, unasked []Unasked, err error) {
	for _, name := range from {
		if !slices.ContainsFunc(n.nodes, func(o *corev1.Node) bool { return o.Name == name }) {
			return nil, nil, fmt.Errorf("there is no node %q: kubectl get nodes lists them", name)
		}
	}
	for _, node := range n.nodes {
		if len(from) > 0 && !slices.Contains(from, node.Name) || len(from) == 0 && !announce.RunsOn(node) {
			continue
		}
		s := Askee{Node: node.Name}
		for _, a := range node.Status.Addresses {
			if a.Type == corev1.NodeInternalIP {
				s.Addresses = append(s.Addresses, a.Address)
			}
		}
		i := slices.IndexFunc(n.speakers, func(o *herald.SpeakerStatus) bool { return o.Name == node.Name })
		switch {
		case i < 0:
			unasked = append(unasked, Unasked{node.Name, "it has no SpeakerStatus: see whether herald-speaker runs there"})
		case len(s.Addresses) == 0:
			unasked = append(unasked, Unasked{node.Name, "status.addresses of the node has no InternalIP"})
		default:
			if s.Key, err = keyOf(n.speakers[i]); err != nil {
				unasked = append(unasked, Unasked{node.Name, err.Error()})
				continue
			}
			speakers = append(speakers, s)
		}
	}
	return speakers, unasked, nil
}

// keyOf returns the public key of a speaker's port.
func keyOf(o *herald.SpeakerStatus) (ed25519.PublicKey, error) {
	if o.Status.Identity == nil {
		return nil, errors.New("its SpeakerStatus has no identity: see whether herald-speaker is up to date there")
	}
	key, err := hex.DecodeString(o.Status.Identity.PublicKey)
	if err != nil || len(key) != ed25519.PublicKeySize {
		return nil, errors.New("identity.publicKey in its SpeakerStatus is not a key: restart herald-speaker there")
	}
	return key, nil
}

// byMAC returns the interfaces that have each MAC address, according to the speakers.
func (s *segments) byMAC() map[string][]place {
	by := map[string][]place{}
	for _, at := range slices.SortedFunc(maps.Keys(s.interfaces), comparePlaces) {
		if mac, err := net.ParseMAC(s.interfaces[at].MAC); err == nil {
			by[mac.String()] = append(by[mac.String()], at)
		}
	}
	return by
}

func comparePlaces(x, y place) int {
	return cmp.Or(strings.Compare(x.Node, y.Node), strings.Compare(x.Interface, y.Interface))
}
