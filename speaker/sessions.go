package speaker

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	"go.uber.org/zap"
	corev1 "k8s.io/api/core/v1"

	"github.com/heraldlb/herald/api/client"
	herald "github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/speaker/announce"
	"github.com/heraldlb/herald/speaker/bgp"
	"github.com/heraldlb/herald/speaker/link"
)

// takePeers gives the current peers to the BGP speaker. The SpeakerStatus reports the BGPPeers that are rejected.
func (l *loop) takePeers() {
	if !l.s.exists(l.s.config.Node) && (l.shared.Draining == nil || *l.shared.Draining < l.longestDrain()) {
		return // The Node was deleted. Its routes are being drained, or will be from the next pass on.
	}
	peers, rejected, changed := l.findRouters()
	if changed {
		l.s.inputs.touchAll() // The addresses of routers must not be announced.
	}
	for name, err := range l.s.bgp.SetPeers(peers) {
		rejected = append(rejected, announce.Rejected{Kind: "BGPPeer", Name: name, Err: err})
	}
	for _, r := range rejected {
		if !slices.ContainsFunc(l.rejected, func(o announce.Rejected) bool { return o.Name == r.Name && o.Err.Error() == r.Err.Error() }) {
			l.s.log.Warn("no BGP session is possible with a BGPPeer", zap.String("peer", r.Name), zap.Error(r.Err))
		}
	}
	l.rejected = rejected
	l.takePaths(peers)
}

// findRouters determines which peers this node has, and records the routers that this node finds itself. changed reports
// whether those routers have changed.
func (l *loop) findRouters() (peers []bgp.Peer, rejected []announce.Rejected, changed bool) {
	here := site{interfaces: l.s.links.Interfaces(), before: l.found, established: map[string]netip.Addr{}, now: time.Now()}
	for _, s := range l.s.bgp.Sessions() {
		if s.State == bgp.Established {
			here.established[s.Peer] = s.Address
		}
	}
	here.links = l.listenForRouters(here.interfaces)
	peers, rejected = l.s.inputs.ownPeers(&here)
	l.indexes = indexInterfaces(peers, l.indexes, here.index)
	changed = !maps.Equal(routersIn(here.found), routersIn(l.found))
	for name, f := range here.found {
		if before := l.found[name]; len(f.kept) > 0 && (before == nil || !slices.Equal(f.kept, before.kept)) {
			l.s.log.Warn("using the last valid values of a BGPPeer", zap.String("peer", name), zap.Strings("why", f.kept))
		}
	}
	l.found = here.found
	return peers, rejected, changed
}

// index returns the index of an interface. It asks the kernel, which may be slow, only for interfaces that are not in the list,
// such as VRFs.
func (s *site) index(name string) (int, error) {
	for _, i := range s.interfaces {
		if i.Name == name {
			return i.Index, nil
		}
	}
	return link.Index(name)
}

// indexInterfaces sets the interface index of each peer, and returns the indexes by name. An interface that does not exist keeps
// its last index: a session ends when a new interface replaces the old one, and not because there is none for a while.
func indexInterfaces(peers []bgp.Peer, before map[string]int, index func(name string) (int, error)) map[string]int {
	now := map[string]int{}
	for i := range peers {
		name := cmp.Or(peers[i].Interface, peers[i].Address.Zone())
		if name == "" {
			continue
		}
		if _, asked := now[name]; !asked {
			now[name] = before[name]
			if n, err := index(name); err == nil {
				now[name] = n
			}
		}
		peers[i].InterfaceIndex = now[name]
	}
	return now
}

// ownPeers returns the sessions that this node should hold, and the BGPPeers for which it cannot hold one.
func (in *inputs) ownPeers(s *site) (peers []bgp.Peer, rejected []announce.Rejected) {
	if s.node, s.password = in.self(), in.password; s.node == nil {
		return nil, nil
	}
	return s.peers(client.Items[*herald.BGPPeer](in.peers.GetStore()))
}

// self returns the Node of this speaker, or nil while there is none.
func (in *inputs) self() *corev1.Node {
	o, exists, err := in.nodes.GetStore().GetByKey(in.node)
	if err != nil || !exists {
		return nil
	}
	return o.(*corev1.Node)
}

// password returns the password in the Secret with the given name.
func (in *inputs) password(name string) (string, error) {
	o, exists, err := in.secrets.GetStore().GetByKey(in.namespace + "/" + name)
	if err != nil || !exists {
		return "", fmt.Errorf("there is no Secret %s/%s of type %s: create it, with the password under the key %q",
			in.namespace, name, corev1.SecretTypeBasicAuth, corev1.BasicAuthPasswordKey)
	}
	if password := o.(*corev1.Secret).Data[corev1.BasicAuthPasswordKey]; len(password) > 0 {
		return string(password), nil
	}
	return "", fmt.Errorf("the Secret %s/%s has no key %q: put the password there", in.namespace, name, corev1.BasicAuthPasswordKey)
}
