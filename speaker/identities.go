package speaker

import (
	"context"
	"crypto/ed25519"
	"encoding/hex"
	"maps"
	"net"
	"net/netip"
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
	// manyKeys is the number of wanted identities above which all reports are listed in one request.
	manyKeys = 8
)

// identities fetches the keys that verify the frames of other speakers from their SpeakerStatuses, when a segment asks for
// them. No speaker watches those objects.
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
	reported map[string]bool     // has all of macs
	opened   bool                // whether a new segment has not been told yet which speakers to expect
	segments func() []*segment.Segment
	joined   func() bool // reports whether other speakers are heard on every segment
}

func newIdentities(set *client.Set, l *lease, self string, exists func(node string) bool, log *zap.Logger) *identities {
	return &identities{
		statuses: set.SpeakerStatuses, lease: l, self: self, exists: exists, log: log,
		wake: make(chan struct{}, 1), wanted: map[string]bool{}, known: map[string]segment.Identity{}, macs: map[string][]string{},
	}
}

// reports tells whether a speaker has reported an interface with this MAC address. Such a speaker is not a stranger, even if this
// node does not hear it.
func (d *identities) reports(mac net.HardwareAddr) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.reported[mac.String()]
}

// collect updates reported. The caller holds mu.
func (d *identities) collect() {
	d.reported = map[string]bool{}
	for _, all := range d.macs {
		for _, mac := range all {
			d.reported[mac] = true
		}
	}
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

// tellAll tells a new segment all known identities.
func (d *identities) tellAll(seg *segment.Segment) {
	d.mu.Lock()
	known := maps.Clone(d.known)
	d.mu.Unlock()
	tell(seg, known)
	d.open()
}

// open notes that a segment was opened, so that run soon tells the segments which speakers to expect.
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
	d.collect()
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

// take records the identities in reports, and tells them to the segments. It also repeats identities that the segments were
// told before: a segment that asks for one has forgotten it.
func (d *identities) take(reports []herald.SpeakerStatus) {
	read, macs := map[string]segment.Identity{}, map[string][]string{}
	for i := range reports {
		node := reports[i].Name
		if d.exists(node) {
			macs[node] = nil // The new report replaces the one before.
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
	d.collect()
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

// run fetches identities until ctx ends.
func (d *identities) run(ctx context.Context) error {
	ticker := time.NewTicker(expectPeriod)
	defer ticker.Stop()
	// Speakers that start at the same time as this one may not have reported their interfaces yet, so run asks again. Where
	// multicast is filtered, two speakers find each other only if one expects the other, even if both hear further speakers.
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
				d.log.Warn("failed to find out which other speakers run, trying again", zap.Error(err))
			}
		}
		d.fetch(ctx)
		select { // Nodes that are wanted at almost the same time are fetched together.
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(passPeriod):
		}
	}
}

// fetch reads the reports of the wanted nodes. A report that cannot be read is wanted again when the node's next frame comes.
func (d *identities) fetch(ctx context.Context) {
	d.mu.Lock()
	wanted := d.wanted
	d.wanted = map[string]bool{}
	d.mu.Unlock()
	for node := range wanted {
		if !d.exists(node) {
			delete(wanted, node) // A frame from anybody can have any name.
		}
	}
	if len(wanted) > manyKeys {
		if _, err := d.list(ctx); err != nil && ctx.Err() == nil {
			d.log.Warn("failed to list the keys of the other speakers, trying again", zap.Error(err))
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
			d.log.Debug("failed to read the key of another speaker", zap.String("node", node), zap.Error(err))
		}
	}
}

// expect tells every segment which speakers should be heard there: those that run according to their Leases and that, according
// to their reports, have an interface in one of the segment's subnets.
func (d *identities) expect(ctx context.Context) error {
	list, err := d.list(ctx)
	if err != nil {
		return err
	}
	renewed, err := d.lease.renewed(ctx)
	if err != nil {
		return err
	}
	for _, seg := range d.segments() {
		seg.Do(func(m *segment.Machine, now segment.Time) {
			own := m.Interface()
			var expected []segment.Expected
			for i := range list {
				o := &list[i]
				if o.Name == d.self || !renewed[o.Name] || !d.exists(o.Name) {
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
	// A report can name any MAC address. A frame to a group address would reach all machines.
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
