package speaker

import (
	"cmp"
	"context"
	"crypto/ed25519"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/heraldlb/herald/api/client"
	herald "github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/speaker/announce"
	"github.com/heraldlb/herald/speaker/bgp"
	"github.com/heraldlb/herald/speaker/link"
	"github.com/heraldlb/herald/speaker/segment"
)

const (
	// reportPeriod is how often this node's status is assembled and, if it has changed, written.
	reportPeriod = time.Second

	// Limits of a SpeakerStatus. The API server rejects a SpeakerStatus that exceeds one of them.
	maxInterfaces, maxSubnets, maxGateways, maxHears, maxClaims, maxReports = 64, 16, 16, 64, 500, 64
	maxReason                                                               = 320

	// States of a session in a SpeakerStatus. The finer states of RFC 4271 change with every connection attempt.
	sessionEstablished = "Established"
	sessionDown        = "Down"
	sessionInvalid     = "Invalid"
)

// sessionReport is the content of the last event about a session.
type sessionReport struct {
	peer   types.UID
	up     bool
	reason string
}

// stamp formats a time for a SpeakerStatus.
func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// report assembles this node's status and gives it to the status writer. It also reports sessions that went up or down.
func (l *loop) report() {
	if l.shared == nil {
		return // Nothing has been decided.
	}
	views := l.s.segments.views()
	st := herald.SpeakerStatusStatus{
		Identity: identityFor(l.s.config), Interfaces: reportInterfaces(l.s.links.Interfaces(), views), Deaths: l.s.segments.reportDeaths(),
		Conflicts: l.s.segments.reportConflicts(time.Now()),
	}
	l.reportClaims(&st, views)
	l.reportSessions(&st)
	st.Problem = printable(l.problem())
	fit(&st)
	l.s.status.set(st)
}

// problem returns why this node announces nothing, or "".
func (l *loop) problem() string {
	switch self := l.shared.Nodes[l.s.config.Node]; {
	case !l.s.health.healthy():
		return "kube-proxy does not serve on this node"
	case self.Excluded:
		return l.exclusion()
	}
	return ""
}

// exclusion says by what this node is excluded. A Node that is gone stays in the snapshot until its routes are drained.
func (l *loop) exclusion() string {
	o, exists, err := l.s.inputs.nodes.GetStore().GetByKey(l.s.config.Node)
	if err != nil || !exists {
		return announce.ExcludedByDeletion
	}
	return announce.Exclusion(o.(*corev1.Node))
}

// printable makes a text fit for a SpeakerStatus: ASCII, of at most maxReason characters.
func printable(text string) string {
	text = strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return '?'
		}
		return r
	}, text)
	return text[:min(len(text), maxReason)]
}

// fit removes details until the text fits into a SpeakerStatus (herald.MaxStatusText). It removes the last claims first. If the
// rest is still too long, it removes the names of the nodes that are heard, the reasons of sessions, and the gateways and
// subnets of the last interfaces, in this order. L2Addresses and Neighbours still count everything.
func fit(st *herald.SpeakerStatusStatus) {
	over := textOf(st) - herald.MaxStatusText
	for n := len(st.Claims); over > 0 && n > 0; n-- {
		c := st.Claims[n-1]
		over -= len(c.Address) + len(c.Since) + len(c.Reason) + len(c.DeputyFor)
		st.Claims = st.Claims[:n-1]
	}
	for i := len(st.Interfaces) - 1; over > 0 && i >= 0; i-- {
		over -= total(st.Interfaces[i].Hears)
		st.Interfaces[i].Hears = nil
	}
	for i := len(st.Sessions) - 1; over > 0 && i >= 0; i-- {
		o := &st.Sessions[i]
		over -= len(o.Reason) + len(o.BFDReason)
		o.Reason, o.BFDReason = "", ""
	}
	for i := len(st.Interfaces) - 1; over > 0 && i >= 0; i-- {
		o := &st.Interfaces[i]
		over -= total(o.Gateways) + total(o.Subnets)
		o.Gateways, o.Subnets = nil, nil
	}
}

// textOf counts the characters that herald.MaxStatusText limits.
func textOf(st *herald.SpeakerStatusStatus) (n int) {
	for _, o := range st.Interfaces {
		n += len(o.MAC) + len(o.State) + total(o.Subnets) + total(o.Gateways) + total(o.Hears)
	}
	for _, o := range st.Claims {
		n += len(o.Address) + len(o.Since) + len(o.Reason) + len(o.DeputyFor)
	}
	for _, o := range st.Deaths {
		n += len(o.Node) + len(o.At)
	}
	for _, o := range st.Conflicts {
		n += len(o.Address) + len(o.MAC) + len(o.At)
	}
	for _, o := range st.Sessions {
		n += len(o.Peer) + len(o.Address) + len(o.State) + len(o.Since) + len(o.Reason) + len(o.BFD) + len(o.BFDReason)
	}
	return n
}

func total(texts []string) (n int) {
	for _, t := range texts {
		n += len(t)
	}
	return n
}

func identityFor(c Config) *herald.SpeakerIdentity {
	return &herald.SpeakerIdentity{Boot: fmt.Sprintf("%016x", c.Boot), PublicKey: hex.EncodeToString(c.Key.Public().(ed25519.PublicKey))}
}

// reportInterfaces lists the interfaces on which addresses could be announced. It leaves out the interfaces of pods.
func reportInterfaces(interfaces []link.Interface, views map[string]segment.View) (all []herald.SpeakerInterface) {
	for _, i := range interfaces {
		if _, joined := views[i.Name]; !i.Up || len(roomy(i.Subnets)) == 0 && !joined {
			continue
		}
		o := herald.SpeakerInterface{Name: i.Name, MAC: i.MAC.String()}
		subnets := roomy(i.Subnets)
		for _, s := range subnets[:min(len(subnets), maxSubnets)] {
			o.Subnets = append(o.Subnets, s.String())
		}
		for _, g := range i.Gateways[:min(len(i.Gateways), maxGateways)] {
			o.Gateways = append(o.Gateways, g.String())
		}
		if v, ok := views[i.Name]; ok {
			o.State = string(v.State)
			for _, m := range v.Members {
				if m.Heard() {
					o.Neighbours++
					if len(o.Hears) < maxHears {
						o.Hears = append(o.Hears, m.Node)
					}
				}
			}
		}
		all = append(all, o)
	}
	if len(all) > maxInterfaces {
		// Other speakers need the interfaces of the segments that this node has joined, so these are kept.
		slices.SortStableFunc(all, func(x, y herald.SpeakerInterface) int {
			switch {
			case x.State != "" && y.State == "":
				return -1
			case x.State == "" && y.State != "":
				return 1
			}
			return 0
		})
		all = all[:maxInterfaces]
		slices.SortFunc(all, func(x, y herald.SpeakerInterface) int { return cmp.Compare(x.Name, y.Name) })
	}
	return all
}

// reportClaims lists the addresses that this node answers for.
func (l *loop) reportClaims(st *herald.SpeakerStatusStatus, views map[string]segment.View) {
	now := time.Now()
	for iface, v := range views {
		for _, h := range v.Holdings {
			c := herald.SpeakerClaim{
				Address: h.Addr.String(), Interface: iface, Since: stamp(now.Add(-h.For)), Reason: printable(h.Reason),
			}
			if h.Node == l.s.config.Node {
				st.L2Addresses++
			} else {
				c.DeputyFor = h.Node
			}
			st.Claims = append(st.Claims, c)
		}
	}
	slices.SortFunc(st.Claims, func(x, y herald.SpeakerClaim) int {
		return cmp.Or(cmp.Compare(x.Address, y.Address), cmp.Compare(x.Interface, y.Interface))
	})
	st.Claims = st.Claims[:min(len(st.Claims), maxClaims)]
	// The same time may be rounded up in one report and down in the next, so the time that was reported first stays.
	since := make(map[claimKey]time.Time, len(st.Claims))
	for i := range st.Claims {
		c := &st.Claims[i]
		key := claimKey{c.Address, c.Interface, c.DeputyFor}
		at, _ := time.Parse(time.RFC3339, c.Since) // It was formatted above.
		if before, known := l.since[key]; known && at.Sub(before).Abs() <= 2*time.Second {
			at = before
		}
		c.Since, since[key] = stamp(at), at
	}
	l.since = since
}

type claimKey struct{ address, iface, deputyFor string }

// reportDeaths lists the neighbours that this node has seen die and has not heard since.
func (s *segments) reportDeaths() (all []herald.SpeakerDeath) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for k, at := range s.deaths {
		all = append(all, herald.SpeakerDeath{Node: k.node, Interface: k.iface, At: stamp(at)})
	}
	slices.SortFunc(all, func(x, y herald.SpeakerDeath) int {
		return cmp.Or(cmp.Compare(y.At, x.At), cmp.Compare(x.Node, y.Node), cmp.Compare(x.Interface, y.Interface))
	})
	return all[:min(len(all), maxReports)]
}

func (s *segments) reportConflicts(now time.Time) (all []herald.SpeakerConflict) {
	s.mu.Lock()
	defer s.mu.Unlock()
	maps.DeleteFunc(s.conflicts, func(_ conflictKey, c conflict) bool { return now.Sub(c.at) > conflictTime })
	for k, c := range s.conflicts {
		// Twice a minute is often enough to say that the stranger is still there.
		all = append(all, herald.SpeakerConflict{
			Address: k.addr.String(), Interface: k.iface, MAC: c.mac.String(), At: stamp(c.at.Truncate(conflictTime / 2)),
		})
	}
	slices.SortFunc(all, func(x, y herald.SpeakerConflict) int {
		return cmp.Or(cmp.Compare(x.Address, y.Address), cmp.Compare(x.Interface, y.Interface))
	})
	return all[:min(len(all), maxReports)]
}

func (l *loop) reportSessions(st *herald.SpeakerStatusStatus) {
	up := 0
	for _, s := range l.s.bgp.Sessions() {
		o := herald.SpeakerSession{Peer: s.Peer, Address: s.Address.String(), State: sessionDown, Reason: s.Reason, Routes: int32(s.Advertised4 + s.Advertised6)} //nolint:gosec // A route each.
		if !s.Since.IsZero() {
			o.Since = stamp(s.Since)
		}
		if s.State == bgp.Established {
			up++
			o.State, o.Reason = sessionEstablished, s.WithheldReason
			if s.Withheld4 > 0 {
				o.Withheld = append(o.Withheld, herald.IPv4)
			}
			if s.Withheld6 > 0 {
				o.Withheld = append(o.Withheld, herald.IPv6)
			}
		}
		if f := l.found[s.Peer]; f != nil {
			o.Reason = strings.Join(slices.DeleteFunc(append([]string{o.Reason}, f.kept...), func(text string) bool { return text == "" }), "; ")
		}
		st.Sessions = append(st.Sessions, o)
		l.reportSession(s)
	}
	for _, c := range l.rejected {
		o := herald.SpeakerSession{Peer: c.Name, State: sessionInvalid, Reason: c.Err.Error()}
		if isUnresolved(c.Err) {
			o.State = sessionDown
		}
		st.Sessions = append(st.Sessions, o)
	}
	slices.SortFunc(st.Sessions, func(x, y herald.SpeakerSession) int { return cmp.Compare(x.Peer, y.Peer) })
	if len(st.Sessions) > 0 {
		st.Established = fmt.Sprintf("%d/%d", up, len(st.Sessions))
	}
	st.Sessions = st.Sessions[:min(len(st.Sessions), herald.MaxStatusSessions)]
	for i := range st.Sessions {
		st.Sessions[i].Reason = printable(st.Sessions[i].Reason)
	}
	l.reportPaths(st.Sessions)
}

// roomy removes the subnets of a single address, which have no room for a Service's address: the ends of links to pods, and
// addresses of Services that somebody has assigned to an interface.
func roomy(subnets []netip.Prefix) []netip.Prefix {
	return slices.DeleteFunc(slices.Clone(subnets), netip.Prefix.IsSingleIP)
}

// reportSession records an event if a session has come up, or is down for a different reason than before.
func (l *loop) reportSession(s bgp.Session) {
	o, exists, err := l.s.inputs.peers.GetStore().GetByKey(s.Peer)
	if err != nil || !exists {
		delete(l.sessions, s.Peer)
		return
	}
	peer := o.(*herald.BGPPeer)
	now := sessionReport{peer: peer.UID, up: s.State == bgp.Established, reason: s.Reason}
	before, known := l.sessions[s.Peer]
	switch {
	case !now.up && now.reason == "":
		if before.up { // The node has begun a new session, because the BGPPeer was edited.
			delete(l.sessions, s.Peer)
		}
		return
	case now == before && known:
		return
	}
	l.sessions[s.Peer] = now
	if now.up {
		l.s.config.Events.Eventf(peer, corev1.EventTypeNormal, herald.EventSessionUp, "node %s: the session is established", l.s.config.Node)
	} else {
		l.s.config.Events.Eventf(peer, corev1.EventTypeWarning, herald.EventSessionDown, "node %s: %s", l.s.config.Node, now.reason)
	}
}

// statusWriter writes this node's SpeakerStatus when it differs from the one that was written last.
type statusWriter struct {
	client  client.Resource[*herald.SpeakerStatus, *herald.SpeakerStatusList]
	node    string
	owner   func() []metav1.OwnerReference
	log     *zap.Logger
	changed chan struct{} // capacity one

	mu   sync.Mutex
	want herald.SpeakerStatusStatus

	// sent, owned and written belong to run. sent and owned are the status and the owner that were written last, and written is the
	// object that the API server returned. It may differ: an API server with an older schema drops fields, and an admission webhook may
	// change the owner, and neither must be written again and again.
	sent    herald.SpeakerStatusStatus
	owned   []metav1.OwnerReference
	written *herald.SpeakerStatus
}

func newStatusWriter(
	c client.Resource[*herald.SpeakerStatus, *herald.SpeakerStatusList], node string, owner func() []metav1.OwnerReference, log *zap.Logger,
) *statusWriter {
	return &statusWriter{client: c, node: node, owner: owner, log: log, changed: make(chan struct{}, 1)}
}

// set gives the writer a new status to write.
func (w *statusWriter) set(st herald.SpeakerStatusStatus) {
	w.mu.Lock()
	w.want = st
	w.mu.Unlock()
	pull(w.changed)
}

// first writes the first status, with the identity and the interfaces, and retries until it succeeds. Before that, other
// speakers refuse the frames of this one, and could take it for a stranger.
func (w *statusWriter) first(ctx context.Context, st herald.SpeakerStatusStatus) error {
	for {
		err := w.write(ctx, st)
		if err == nil {
			return nil
		}
		if ctx.Err() == nil {
			w.log.Warn("failed to write the SpeakerStatus, trying again", zap.Error(err))
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Second):
		}
	}
}

// rewriteAfter is how long it may take to notice that somebody deleted or changed the status.
const rewriteAfter = 10 * time.Second

func (w *statusWriter) run(ctx context.Context) error {
	verified := time.Now()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-w.changed:
		}
		w.mu.Lock()
		want := w.want
		w.mu.Unlock()
		if time.Since(verified) > rewriteAfter {
			// There is no watch, so the status is read from time to time. What somebody else wrote is overwritten.
			verified = time.Now()
			if o, err := w.client.Get(ctx, w.node, metav1.GetOptions{ResourceVersion: "0"}); err == nil && w.written != nil && o.UID == w.written.UID {
				if equality.Semantic.DeepEqual(o.Status, w.written.Status) && equality.Semantic.DeepEqual(o.OwnerReferences, w.written.OwnerReferences) {
					w.written = o // Somebody may have changed its labels.
				} else {
					w.written = nil
				}
			} else if err == nil || apierrors.IsNotFound(err) {
				w.written = nil
			}
		}
		if err := w.write(ctx, want); err != nil && ctx.Err() == nil {
			w.log.Warn("failed to write the SpeakerStatus, trying again", zap.Error(err))
			pull(w.changed)
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(time.Second):
			}
		}
	}
}

func (w *statusWriter) write(ctx context.Context, want herald.SpeakerStatusStatus) error {
	owner := w.owner()
	if w.written != nil && equality.Semantic.DeepEqual(w.sent, want) && (len(owner) == 0 || equality.Semantic.DeepEqual(w.owned, owner)) {
		return nil
	}
	if len(owner) == 0 {
		// After kubectl delete node, a status without an owner would stay for good.
		return fmt.Errorf("the API has no node %s", w.node)
	}
	if w.written == nil {
		o, err := w.client.Create(ctx, &herald.SpeakerStatus{
			ObjectMeta: metav1.ObjectMeta{Name: w.node, OwnerReferences: owner}, Status: want,
		}, metav1.CreateOptions{})
		if apierrors.IsAlreadyExists(err) {
			// A status that cannot be decoded is overwritten: its metadata is enough for that.
			o, err = w.client.Get(ctx, w.node, metav1.GetOptions{})
			if unreadable := (*client.DecodeError)(nil); err == nil || errors.As(err, &unreadable) {
				return w.update(ctx, o, want, owner) // If this fails, it is tried again.
			}
		}
		if err == nil {
			w.written, w.sent, w.owned = o, want, owner
		}
		return err
	}
	return w.update(ctx, w.written, want, owner)
}

// update writes the status into an object as it was read or written.
func (w *statusWriter) update(ctx context.Context, is *herald.SpeakerStatus, want herald.SpeakerStatusStatus, owner []metav1.OwnerReference) error {
	o := is.DeepCopy()
	o.Status = want
	o.OwnerReferences = owner // A node that was deleted and registered again has a new UID.
	updated, err := w.client.Update(ctx, o, metav1.UpdateOptions{})
	switch {
	case apierrors.IsConflict(err), apierrors.IsNotFound(err):
		w.written = nil // Somebody changed or deleted it.
		return err
	case err != nil:
		return err
	}
	w.written, w.sent, w.owned = updated, want, owner
	return nil
}
