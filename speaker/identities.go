package speaker

import (
	"context"
	"crypto/ed25519"
	"encoding/hex"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"time"

	"go.uber.org/zap"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/heraldlb/herald/api/client"
	herald "github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/speaker/segment"
)

const (
	// expectPeriod is how often a speaker that hears no other asks the API whether there are any.
	expectPeriod = 10 * time.Second
	// readTimeout bounds a request for other nodes' reports.
	readTimeout = 5 * time.Second
	// manyKeys is from how many on all reports are listed at once.
	manyKeys = 8
)

// identities fetches what verifies the frames of other speakers from their SpeakerStatuses, when a segment asks
// for it. Nobody watches those objects.
type identities struct {
	statuses client.Resource[*herald.SpeakerStatus, *herald.SpeakerStatusList]
	lease    *lease
	self     string
	exists   func(node string) bool
	log      *zap.Logger
	wake     chan struct{} // capacity one

	mu       sync.Mutex
	wanted   map[string]bool
	known    map[string]segment.Identity
	macs     map[string][]string // of the interfaces of other speakers, by node, as they report
	opened   bool                // a segment that was not told yet which speakers to expect
	segments func() []*segment.Segment
	joined   func() bool // every segment hears others
}

func newIdentities(set *client.Set, l *lease, self string, exists func(node string) bool, log *zap.Logger) *identities {
	return &identities{
		statuses: set.SpeakerStatuses, lease: l, self: self, exists: exists, log: log,
		wake: make(chan struct{}, 1), wanted: map[string]bool{}, known: map[string]segment.Identity{}, macs: map[string][]string{},
	}
}

// reports tells whether a speaker has reported an interface with this MAC: it is no stranger, though it may not be heard.
func (d *identities) reports(mac net.HardwareAddr) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, reported := range d.macs {
		if slices.Contains(reported, mac.String()) {
			return true
		}
	}
	return false
}

// want asks for a node's identity. It does not wait.
func (d *identities) want(node string) {
	d.mu.Lock()
	if len(d.wanted) < 8192 {
		d.wanted[node] = true
	}
	d.mu.Unlock()
	pull(d.wake)
}

// tellAll tells a segment that was opened all that is known.
func (d *identities) tellAll(seg *segment.Segment) {
	d.mu.Lock()
	known := maps.Clone(d.known)
	d.mu.Unlock()
	tell(seg, known)
	d.open()
}

// open has the segments told soon which speakers to expect: one was opened.
func (d *identities) open() {
	d.mu.Lock()
	d.opened = true
	d.mu.Unlock()
	pull(d.wake)
}

func tell(seg *segment.Segment, known map[string]segment.Identity) {
	seg.Do(func(m *segment.Machine, now segment.Time) {
		for node, id := range known {
			m.Identify(now, node, id)
		}
	})
}

// forget forgets nodes that are no longer part of the cluster.
func (d *identities) forget(nodes []string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, node := range nodes {
		delete(d.known, node)
		delete(d.macs, node)
	}
}

// list reads all reports.
func (d *identities) list(ctx context.Context) ([]herald.SpeakerStatus, error) {
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	list, err := d.statuses.List(ctx, metav1.ListOptions{ResourceVersion: "0"})
	if err != nil {
		return nil, err
	}
	d.take(list.Items)
	return list.Items, nil
}

// take notes the identities in reports, and tells them to the segments. They are told what they were told before,
// too: a segment that asks has forgotten it.
func (d *identities) take(reports []herald.SpeakerStatus) {
	read, macs := map[string]segment.Identity{}, map[string][]string{}
	for i := range reports {
		node := reports[i].Name
		if d.exists(node) {
			macs[node] = nil // What it reported before does not count any more.
			for _, o := range reports[i].Status.Interfaces {
				macs[node] = append(macs[node], o.MAC)
			}
		}
		if id, ok := identityOf(reports[i].Status.Identity); ok && node != d.self && d.exists(node) {
			read[node] = id
		}
	}
	d.mu.Lock()
	maps.Copy(d.known, read)
	maps.Copy(d.macs, macs)
	d.mu.Unlock()
	for _, seg := range d.segments() {
		tell(seg, read)
	}
}

func identityOf(o *herald.SpeakerIdentity) (id segment.Identity, ok bool) {
	if o == nil {
		return id, false
	}
	boot, err := strconv.ParseUint(o.Boot, 16, 64)
	if err != nil {
		return id, false
	}
	key, err := hex.DecodeString(o.PublicKey)
	if err != nil || len(key) != ed25519.PublicKeySize {
		return id, false
	}
	return segment.Identity{Boot: boot, Key: key}, true
}

// run fetches until ctx ends.
func (d *identities) run(ctx context.Context) error {
	ticker := time.NewTicker(expectPeriod)
	defer ticker.Stop()
	// Speakers that start at the same time as this one may not have reported their interfaces yet. Where multicast is
	// filtered, two of them meet only if one expects the other, whomever else they hear.
	again := false
	for {
		expect := false
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-ticker.C:
			expect, again = again || !d.joined(), false
		case <-d.wake:
		}
		d.mu.Lock()
		if d.opened {
			expect, again, d.opened = true, true, false
		}
		d.mu.Unlock()
		if expect {
			if err := d.expect(ctx); err != nil && ctx.Err() == nil {
				d.log.Warn("not known which other speakers there are, asking again", zap.Error(err))
			}
		}
		d.fetch(ctx)
		select { // Many that come at once are asked for together.
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(passPeriod):
		}
	}
}

// fetch reads the reports of the nodes that were asked for. One that cannot be read is asked for again when its
// next frame comes.
func (d *identities) fetch(ctx context.Context) {
	d.mu.Lock()
	wanted := d.wanted
	d.wanted = map[string]bool{}
	d.mu.Unlock()
	for node := range wanted {
		if !d.exists(node) {
			delete(wanted, node) // Anybody can write a name into a frame.
		}
	}
	if len(wanted) > manyKeys {
		if _, err := d.list(ctx); err != nil && ctx.Err() == nil {
			d.log.Warn("the keys of other speakers are not known, asking again", zap.Error(err))
		}
		return
	}
	for node := range wanted {
		ctx, cancel := context.WithTimeout(ctx, readTimeout)
		o, err := d.statuses.Get(ctx, node, metav1.GetOptions{})
		cancel()
		if err == nil {
			d.take([]herald.SpeakerStatus{*o})
		} else {
			d.log.Debug("the key of another speaker is not known", zap.String("node", node), zap.Error(err))
		}
	}
}

// expect tells every segment which speakers should be heard there: those that run, by their Leases, and have an
// interface in one of its subnets, by their reports.
func (d *identities) expect(ctx context.Context) error {
	list, err := d.list(ctx)
	if err != nil {
		return err
	}
	fresh, err := d.lease.fresh(ctx)
	if err != nil {
		return err
	}
	for _, seg := range d.segments() {
		seg.Do(func(m *segment.Machine, now segment.Time) {
			own := m.Interface()
			var expected []segment.Expected
			for i := range list {
				o := &list[i]
				if o.Name == d.self || !fresh[o.Name] || !d.exists(o.Name) {
					continue
				}
				for _, other := range o.Status.Interfaces {
					if e, ok := expectedOf(o.Name, other); ok && shareNetwork(own.Prefixes, e.Prefixes) {
						expected = append(expected, e)
						break
					}
				}
			}
			m.Expect(now, expected)
		})
	}
	return nil
}

func expectedOf(node string, i herald.SpeakerInterface) (e segment.Expected, ok bool) {
	mac, err := net.ParseMAC(i.MAC)
	// A frame to a group would reach all. A report can name any MAC.
	if err != nil || len(mac) != len(e.MAC) || mac[0]&1 != 0 || segment.MAC(mac) == (segment.MAC{}) {
		return e, false
	}
	e = segment.Expected{Node: node, MAC: segment.MAC(mac), Interface: i.Name, Hears: i.Neighbours > 0}
	for _, text := range i.Subnets {
		if p, err := netip.ParsePrefix(text); err == nil {
			e.Prefixes = append(e.Prefixes, p)
		}
	}
	return e, true
}

func shareNetwork(x, y []netip.Prefix) bool {
	for _, a := range x {
		for _, b := range y {
			if a.Masked() == b.Masked() && !a.IsSingleIP() {
				return true
			}
		}
	}
	return false
}
