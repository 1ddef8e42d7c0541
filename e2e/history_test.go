package e2e

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"

	herald "github.com/heraldlb/herald/api/v1alpha1"
)

// history is the sequence of all changes of Services and records. The changes are in their real order: both kinds are
// stored in one etcd, and their resource versions are its revisions.
type history struct {
	c *cluster
	// laws has the rules that hold for the story, besides the rule that no two Services have the same address.
	laws laws

	watching sync.WaitGroup
	mu       sync.Mutex
	changes  []change
}

// laws says who acts in a story, which determines the changes that are allowed.
type laws struct {
	// oneLeader means that an address is only in the status of one Service at any time, and that no Service loses its
	// address before it asks for another one. Two leaders, of which one receives events late, cannot guarantee this.
	// They do not have to, because addresses without a record are not announced.
	oneLeader bool
	// byHand means that users delete records or write statuses.
	byHand bool
	// rest is the time for which released addresses are not reused.
	rest time.Duration
}

// change is one change of one object.
type change struct {
	revision int64
	at       time.Time // When the change was received.
	gone     bool
	svc      *corev1.Service
	rec      *herald.IPAllocation
}

// lastWords is the name of the Service, and lastAddress the address of the record, whose deletion closes a history.
const lastWords = "last-words"

var lastAddress = netip.MustParseAddr("203.0.113.255")

// record starts a history.
func (c *cluster) record(l laws) *history {
	c.t.Helper()
	h := &history{c: c, laws: l}
	services, err := c.kube.CoreV1().Services("default").Watch(c.ctx, metav1.ListOptions{})
	c.must(err)
	records, err := c.herald.Allocations.Watch(c.ctx, metav1.ListOptions{})
	c.must(err)
	for _, w := range []watch.Interface{services, records} {
		h.watching.Go(func() { h.follow(w) })
	}
	return h
}

func (h *history) follow(w watch.Interface) {
	defer w.Stop()
	for e := range w.ResultChan() {
		change := change{at: time.Now(), gone: e.Type == watch.Deleted}
		var name, revision string
		switch o := e.Object.(type) {
		case *corev1.Service:
			change.svc, name, revision = o, o.Name, o.ResourceVersion
		case *herald.IPAllocation:
			change.rec, name, revision = o, o.Name, o.ResourceVersion
		default:
			if h.c.ctx.Err() == nil { // If ctx has ended, the story was aborted.
				h.c.t.Errorf("the watch of the history says %+v", e)
			}
			return
		}
		if name == lastWords || name == lastAddress.String() {
			if change.gone {
				return
			}
			continue
		}
		var err error
		if change.revision, err = strconv.ParseInt(revision, 10, 64); err != nil {
			h.c.t.Error(err)
			return
		}
		h.mu.Lock()
		h.changes = append(h.changes, change)
		h.mu.Unlock()
	}
}

// judge closes the history and fails the story for every change that was not allowed.
func (h *history) judge() {
	h.c.t.Helper()
	ctx := h.c.ctx
	services := h.c.kube.CoreV1().Services("default")
	_, err := services.Create(ctx, &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: lastWords}, Spec: corev1.ServiceSpec{
		Ports: []corev1.ServicePort{{Port: 9000}}}}, metav1.CreateOptions{})
	h.c.must(err)
	_, err = h.c.herald.Allocations.Create(ctx, &herald.IPAllocation{ObjectMeta: metav1.ObjectMeta{Name: lastAddress.String()},
		Spec: herald.IPAllocationSpec{Address: lastAddress.String()}}, metav1.CreateOptions{})
	h.c.must(err)
	h.c.must(services.Delete(ctx, lastWords, metav1.DeleteOptions{}))
	h.c.must(h.c.herald.Allocations.Delete(ctx, lastAddress.String(), metav1.DeleteOptions{}))
	h.watching.Wait()

	slices.SortFunc(h.changes, func(x, y change) int { return cmp.Compare(x.revision, y.revision) })
	m := &moment{
		laws:     h.laws,
		standing: standing{services: map[types.UID]*corev1.Service{}, records: map[netip.Addr]*herald.IPAllocation{}},
		restless: map[types.UID]bool{}, forebears: map[bequest]types.UID{},
	}
	for i, change := range h.changes {
		if crimes := m.pass(change); len(crimes) > 0 {
			h.c.t.Errorf("%s\nin this course of things:\n%s", strings.Join(crimes, "\n"), h.tell(i))
			return
		}
	}
	h.c.t.Logf("%d changes of Services and records were judged", len(h.changes))
}

// tell returns the history up to a change as text.
func (h *history) tell(to int) string {
	const most = 40
	var lines []string
	for _, c := range h.changes[max(0, to+1-most) : to+1] {
		lines = append(lines, c.String())
	}
	return strings.Join(lines, "\n")
}

func (c change) String() string {
	s := fmt.Sprintf("%s %d ", c.at.Format("05.000"), c.revision)
	if c.gone {
		s += "gone: "
	}
	if c.svc != nil {
		s += fmt.Sprintf("Service %s (%s), %s, asks for %q, has %v", c.svc.Name, short(c.svc.UID), c.svc.Spec.Type, c.svc.Annotations[herald.AnnotationIPs], addresses(c.svc))
		if c.svc.DeletionTimestamp != nil {
			s += ", is being deleted"
		}
		return s
	}
	s += "record " + c.rec.Spec.Address
	for _, o := range c.rec.Spec.Owners {
		s += fmt.Sprintf(" of %s (%s)", o.Name, short(o.UID))
	}
	if c.rec.Spec.ReleasedAt != nil {
		s += ", released"
	}
	return s
}

func short(uid types.UID) types.UID { return uid[:min(len(uid), 4)] }

// moment is the state after a change.
type moment struct {
	laws
	standing
	// restless has the Services that ever changed or withdrew their request for addresses.
	restless map[types.UID]bool
	// forebears has, for each address and name, the last Service of that name for which the address was recorded.
	forebears map[bequest]types.UID
}

// bequest is an address and the name of a Service.
type bequest struct {
	address netip.Addr
	name    string
}

// pass applies a change and returns its violations of the laws.
func (m *moment) pass(c change) (crimes []string) {
	if c.svc != nil {
		crimes = m.passService(c)
		for _, a := range parsed(c.svc) {
			crimes = append(crimes, m.twice(a)...)
		}
		return crimes
	}
	a := netip.MustParseAddr(c.rec.Spec.Address)
	return append(m.passRecord(a, c), m.twice(a)...)
}

// twice looks for a second owner of an address.
func (m *moment) twice(a netip.Addr) []string {
	var carry, have []string
	for uid, svc := range m.services {
		if !slices.Contains(parsed(svc), a) {
			continue
		}
		carry = append(carry, svc.Name)
		if m.recorded(a, uid) {
			have = append(have, svc.Name)
		}
	}
	if len(have) > 1 {
		return []string{fmt.Sprintf("%s is recorded for, and in the status of, %v", a, have)}
	}
	if m.oneLeader && len(carry) > 1 {
		return []string{fmt.Sprintf("%s is in the status of %v", a, carry)}
	}
	return nil
}

// owns reports whether a record is for a Service.
func owns(rec *herald.IPAllocation, uid types.UID) bool {
	return slices.ContainsFunc(rec.Spec.Owners, func(o herald.AllocationOwner) bool { return o.UID == uid })
}

func (m *moment) passService(c change) (crimes []string) {
	before := m.services[c.svc.UID]
	if c.gone {
		delete(m.services, c.svc.UID)
		return nil
	}
	m.services[c.svc.UID] = c.svc
	if before == nil || !m.oneLeader {
		return nil
	}
	for _, a := range parsed(c.svc) {
		if !slices.Contains(parsed(before), a) && !m.byHand && !m.recordedFor(a, c.svc) {
			crimes = append(crimes, fmt.Sprintf("%s comes into the status of %s and is not recorded for it", a, c.svc.Name))
		}
	}
	if before.Spec.Type != c.svc.Spec.Type || !slices.Equal(wishes(before), wishes(c.svc)) {
		m.restless[c.svc.UID] = true
	}
	for _, a := range parsed(before) {
		if m.recorded(a, c.svc.UID) && !slices.Contains(parsed(c.svc), a) && m.keeps(c.svc) {
			crimes = append(crimes, fmt.Sprintf("Service %s had %s, asks for no other, and has %v", c.svc.Name, a, addresses(c.svc)))
		}
	}
	return crimes
}

// recordedFor reports whether there is a record of the address for a Service of that name. The record may be for another
// Service of the same name. If it is for an earlier one, it may be gone: the controller writes the status to the Service
// that has the name now.
func (m *moment) recordedFor(a netip.Addr, svc *corev1.Service) bool {
	if uid, had := m.forebears[bequest{a, svc.Name}]; had && uid != svc.UID {
		return true
	}
	rec := m.records[a]
	return rec != nil && rec.Spec.ReleasedAt == nil &&
		slices.ContainsFunc(rec.Spec.Owners, func(o herald.AllocationOwner) bool { return o.Name == svc.Name })
}

func (m *moment) passRecord(a netip.Addr, c change) (crimes []string) {
	before := m.records[a]
	if c.gone {
		delete(m.records, a)
		if len(c.rec.Spec.Owners) == 0 || m.byHand {
			return nil
		}
		if before == nil || before.Spec.ReleasedAt == nil {
			return []string{fmt.Sprintf("the record of %s is deleted and never was released", a)}
		}
		if rested := c.at.Sub(before.Spec.ReleasedAt.Time); rested < m.rest {
			return []string{fmt.Sprintf("%s rested for %v, want %v", a, rested, m.rest)}
		}
		return nil
	}
	m.records[a] = c.rec
	for _, o := range c.rec.Spec.Owners {
		m.forebears[bequest{a, o.Name}] = o.UID
		if before != nil && len(before.Spec.Owners) > 0 && !owns(before, o.UID) && m.services[before.Spec.Owners[0].UID] != nil {
			crimes = append(crimes, fmt.Sprintf("the record of %s passes from one Service to %s", a, o.Name))
		}
		svc := m.services[o.UID]
		if m.oneLeader && c.rec.Spec.ReleasedAt != nil && before != nil && before.Spec.ReleasedAt == nil &&
			svc != nil && slices.Contains(parsed(svc), a) && stays(svc) {
			crimes = append(crimes, fmt.Sprintf("%s is released while the status of Service %s has it", a, o.Name))
		}
		for uid, svc := range m.services {
			if m.oneLeader && before == nil && uid != o.UID && slices.Contains(parsed(svc), a) {
				crimes = append(crimes, fmt.Sprintf("%s is given to %s while it is in the status of %s", a, o.Name, svc.Name))
			}
		}
	}
	return crimes
}

// stays reports whether a Service should have addresses.
func stays(svc *corev1.Service) bool {
	return svc.DeletionTimestamp == nil && svc.Spec.Type == corev1.ServiceTypeLoadBalancer
}

// keeps reports whether a Service should keep its addresses.
func (m *moment) keeps(svc *corev1.Service) bool { return stays(svc) && !m.restless[svc.UID] }

// wishes returns the addresses that a Service asks for.
func wishes(svc *corev1.Service) (list []netip.Addr) {
	if text := svc.Annotations[herald.AnnotationIPs]; text != "" {
		for t := range strings.SplitSeq(text, ",") {
			list = append(list, netip.MustParseAddr(strings.TrimSpace(t)))
		}
	}
	return list
}

// parsed returns the addresses in a Service's status.
func parsed(svc *corev1.Service) (list []netip.Addr) {
	for _, a := range addresses(svc) {
		list = append(list, netip.MustParseAddr(a))
	}
	return list
}
