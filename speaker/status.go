package speaker

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"time"

	"go.uber.org/zap"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/heraldlb/herald/api/client"
	herald "github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/speaker/bgp"
)

// States of a session in a SpeakerStatus. The finer ones of RFC 4271 come and go with every attempt.
const (
	sessionEstablished = "Established"
	sessionDown        = "Down"
	sessionInvalid     = "Invalid"
)

// sessionReport is what was last said of a session in an event.
type sessionReport struct {
	up     bool
	reason string
}

// report puts this node's status together, for the writer to write if it differs, and reports sessions
// that went up or down.
func (l *loop) report() {
	if l.shared == nil || l.shared.Away {
		return // Nothing has been decided, or not yet again; to say so would look like giving everything up.
	}
	var st herald.SpeakerStatusStatus
	for _, i := range l.s.links.Interfaces() {
		o := herald.SpeakerInterface{Name: i.Name, MAC: i.MAC.String()}
		for _, s := range roomy(i.Subnets) {
			o.Subnets = append(o.Subnets, s.String())
		}
		if !i.Up || len(o.Subnets) == 0 && !l.named(i.Name) {
			continue // The interfaces of pods come and go and are of no interest.
		}
		st.Interfaces = append(st.Interfaces, o)
	}
	for address, since := range l.claims {
		st.Claims = append(st.Claims, herald.SpeakerClaim{Address: address.String(), Since: new(metav1.NewMicroTime(since))})
	}
	for address := range l.asks {
		if _, has := l.claims[address]; !has {
			st.Claims = append(st.Claims, herald.SpeakerClaim{Address: address.String()})
		}
	}
	slices.SortFunc(st.Claims, func(x, y herald.SpeakerClaim) int { return cmp.Compare(x.Address, y.Address) })
	st.L2Addresses = int32(len(l.claims)) //nolint:gosec // An address each.
	l.owned.Set(float64(len(l.claims)))
	up := 0
	for _, s := range l.s.bgp.Sessions() {
		o := herald.SpeakerSession{Peer: s.Peer, State: sessionDown, Reason: s.Reason, Routes: int32(s.Advertised4 + s.Advertised6)} //nolint:gosec // A route each.
		if since := metav1.NewTime(s.Since); !since.IsZero() {
			o.Since = &since
		}
		if s.State == bgp.Established {
			up++
			o.State, o.Reason = sessionEstablished, s.WithheldReason
		}
		st.Sessions = append(st.Sessions, o)
		l.announceSession(s)
	}
	for _, c := range l.invalid {
		st.Sessions = append(st.Sessions, herald.SpeakerSession{Peer: c.object.GetName(), State: sessionInvalid, Reason: c.err.Error()})
	}
	slices.SortFunc(st.Sessions, func(x, y herald.SpeakerSession) int { return cmp.Compare(x.Peer, y.Peer) })
	if len(st.Sessions) > 0 {
		st.Established = fmt.Sprintf("%d/%d", up, len(st.Sessions))
	}
	switch self := l.shared.Nodes[l.s.config.Node]; {
	case !l.s.health.healthy():
		st.Problem = "kube-proxy does not serve on this node"
	case self.Excluded:
		st.Problem = "the node bears the label " + corev1.LabelNodeExcludeBalancers
	}
	l.s.status.set(st)
}

// roomy leaves out the subnets that have no room for a Service's address: the ends of links to pods, and
// addresses of Services that somebody put on an interface.
func roomy(subnets []netip.Prefix) []netip.Prefix {
	return slices.DeleteFunc(slices.Clone(subnets), netip.Prefix.IsSingleIP)
}

// named reports whether an L2Advertisement names the interface.
func (l *loop) named(name string) bool {
	return slices.ContainsFunc(l.shared.L2, func(ad L2Advertisement) bool { return slices.Contains(ad.Interfaces, name) })
}

// announceSession makes an event of a session that went up, or is down for another reason than before.
func (l *loop) announceSession(s bgp.Session) {
	now := sessionReport{up: s.State == bgp.Established, reason: s.Reason}
	before, known := l.sessions[s.Peer]
	if now == before && known || !now.up && now.reason == "" {
		return
	}
	l.sessions[s.Peer] = now
	o, exists, err := l.s.in().peers.GetStore().GetByKey(s.Peer)
	if err != nil || !exists {
		delete(l.sessions, s.Peer)
		return
	}
	if now.up {
		l.s.config.Events.Eventf(o.(*herald.BGPPeer), corev1.EventTypeNormal, "SessionUp", "node %s: the session is established", l.s.config.Node)
	} else {
		l.s.config.Events.Eventf(o.(*herald.BGPPeer), corev1.EventTypeWarning, "SessionDown", "node %s: %s", l.s.config.Node, now.reason)
	}
}

// statusWriter writes this node's SpeakerStatus when it differs from what was written last.
type statusWriter struct {
	client  *client.Set
	node    string
	owner   func() []metav1.OwnerReference
	log     *zap.Logger
	changed chan struct{}

	wrote chan struct{} // What was written last stands, or was read back.

	mu      sync.Mutex
	want    herald.SpeakerStatusStatus
	foreign bool   // Somebody else deleted or changed what was written.
	version string // The resource version of what was written last; empty if nothing was.
	unsure  bool   // A write is under way, or has failed and may have been carried out.

	// written belongs to run.
	written *herald.SpeakerStatus
}

func newStatusWriter(c *client.Set, node string, owner func() []metav1.OwnerReference, log *zap.Logger) *statusWriter {
	return &statusWriter{client: c, node: node, owner: owner, log: log, changed: make(chan struct{}, 1), wrote: make(chan struct{}, 1)}
}

// stands reports whether the API server is known to have this version of the status still. Before the
// first write it has what there was at the start.
func (w *statusWriter) stands(version string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return !w.unsure && (w.version == "" || w.version == version)
}

// begin notes that a write is under way.
func (w *statusWriter) begin() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.unsure = true
}

// stood notes what has been written.
func (w *statusWriter) stood(o *herald.SpeakerStatus) {
	w.written = o
	w.mu.Lock()
	w.version, w.unsure = o.ResourceVersion, false
	w.mu.Unlock()
	pull(w.wrote)
}

// observe takes what the watch says of a node's status; nil: it is gone. If somebody else changed or
// deleted ours it is written again: without it the node is on no segment, for the others.
func (w *statusWriter) observe(node string, o *herald.SpeakerStatus) {
	if node != w.node {
		return
	}
	w.mu.Lock()
	foreign := o == nil || !w.unsure && newer(o.ResourceVersion, w.version)
	w.foreign = w.foreign || foreign
	w.mu.Unlock()
	// Of two writes in a row the first may be read back when the second is under way, and counts only with
	// the second, which says nothing new of what was asked for.
	pull(w.wrote)
	if foreign {
		pull(w.changed)
	}
}

// newer compares resource versions, which are numbers (KEP-5504). None is newer than one that is not known.
func newer(version, than string) bool {
	v, err := strconv.ParseUint(version, 10, 64)
	t, unknown := strconv.ParseUint(than, 10, 64)
	return err == nil && unknown == nil && v > t
}

// set has the status written soon.
func (w *statusWriter) set(st herald.SpeakerStatusStatus) {
	w.mu.Lock()
	w.want = st
	w.mu.Unlock()
	pull(w.changed)
}

func (w *statusWriter) run(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-w.changed:
		}
		w.mu.Lock()
		want := w.want
		if w.foreign {
			w.written, w.foreign = nil, false
		}
		w.mu.Unlock()
		if err := w.write(ctx, want); err != nil && ctx.Err() == nil {
			w.log.Warn("SpeakerStatus not written, trying again", zap.Error(err))
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
	if w.written != nil && equality.Semantic.DeepEqual(w.written.Status, want) {
		return nil
	}
	w.begin()
	if w.written == nil {
		o, err := w.client.SpeakerStatuses.Create(ctx, &herald.SpeakerStatus{
			ObjectMeta: metav1.ObjectMeta{Name: w.node, OwnerReferences: w.owner()}, Status: want,
		}, metav1.CreateOptions{})
		if apierrors.IsAlreadyExists(err) {
			o, err = w.client.SpeakerStatuses.Get(ctx, w.node, metav1.GetOptions{})
			if err == nil {
				w.stood(o)
				return w.write(ctx, want)
			}
		}
		if err == nil {
			w.stood(o)
		}
		return err
	}
	o := w.written.DeepCopy()
	o.Status = want
	updated, err := w.client.SpeakerStatuses.Update(ctx, o, metav1.UpdateOptions{})
	switch {
	case apierrors.IsConflict(err), apierrors.IsNotFound(err):
		// Somebody changed or deleted it by hand.
		w.written = nil
		return w.write(ctx, want)
	case err != nil:
		return err
	}
	w.stood(updated)
	return nil
}
