package ui

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/duration"

	"github.com/heraldlb/herald/cmd/kubectl-herald/internal/report"
)

const (
	// pause is the minimum time between two readings. share is the minimum ratio of this time to the duration of a reading,
	// so that a large cluster is read less often.
	pause = 2 * time.Second
	share = 10
	// slowest is the longest time that a reading may take.
	slowest = time.Minute
	// overdue is how late a reading must be for the changes to note a gap before it. The page has the same number.
	overdue = 30 * time.Second
	// maxChanges is the most changes that are kept.
	maxChanges = 200
)

// Source is where the content of the page comes from.
type Source struct {
	// Cluster is the user's name for the cluster.
	Cluster string
	// Read reads the objects that report.OverviewOf needs.
	Read func(ctx context.Context) (*report.Objects, error)
	// Warnings reads the events of a Service to explain.
	Warnings func(ctx context.Context, name types.NamespacedName) []*corev1.Event
	CCM      *report.CCM
}

// reading describes the last reading of the cluster.
type reading struct {
	Cluster string `json:"cluster"`
	// At is the time of the last successful reading, and Began that of the first.
	At    time.Time `json:"at"`
	Began time.Time `json:"began"`
	// Due is when the next reading after At begins, if a page is open.
	Due time.Time `json:"due"`
	// Error says why the last reading failed; empty if it succeeded.
	Error string `json:"error"`
	// Unseen are the resources that the user may not read.
	Unseen []string `json:"unseen"`
}

// part is a part of the page, as JSON. Its version increases with each change.
type part struct {
	version uint64
	data    []byte
}

// feed reads the cluster once for all open pages. It does not read while no page is open.
type feed struct {
	source Source

	mu       sync.Mutex
	news     chan struct{} // Closed and replaced when a part changes.
	visitors chan struct{} // Has an element when a page has been opened.
	pages    int
	version  uint64
	parts    map[string]part
	objects  *report.Objects // Reports sort them, so mu must be held.
	overview *report.Overview
	changes  []report.Change // The newest first.
	reading  reading
}

func newFeed(s Source) *feed {
	return &feed{source: s, news: make(chan struct{}), visitors: make(chan struct{}, 1), parts: map[string]part{}, changes: []report.Change{}, reading: reading{Cluster: s.Cluster, Unseen: []string{}}}
}

// run reads until ctx ends.
func (f *feed) run(ctx context.Context) {
	for {
		if f.watched() {
			began := time.Now()
			objects, err := f.read(ctx)
			if ctx.Err() != nil {
				return
			}
			now := time.Now()
			rest := max(pause, share*now.Sub(began))
			f.update(objects, err, now, now.Add(rest))
			select {
			case <-ctx.Done():
				return
			case <-time.After(rest):
			}
			continue
		}
		select {
		case <-ctx.Done():
			return
		case <-f.visitors:
		}
	}
}

// read reads the cluster once. If that takes longer than slowest, the page says so.
func (f *feed) read(ctx context.Context) (*report.Objects, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, slowest, fmt.Errorf("the API server has not answered within %v", slowest))
	defer cancel()
	objects, err := f.source.Read(ctx)
	if err != nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return objects, err
}

func (f *feed) watched() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.pages > 0
}

// open counts an open page until closed is called.
func (f *feed) open() (closed func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.pages++
	select {
	case f.visitors <- struct{}{}:
	default:
	}
	return func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.pages--
	}
}

// update computes the parts of the page from the objects that were read.
func (f *feed) update(objects *report.Objects, err error, now, due time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.reading.Error = ""
	if err != nil {
		f.reading.Error = err.Error()
	} else {
		f.gap(now)
		f.reading.At, f.reading.Due, f.reading.Unseen = now, due, append([]string{}, objects.Unseen...)
		if f.reading.Began.IsZero() {
			f.reading.Began = now
		}
		overview := report.OverviewOf(objects, f.source.CCM, now)
		if f.overview != nil {
			for _, c := range report.Changes(f.overview, overview, now) {
				f.changes = slices.Insert(f.changes, 0, c)
			}
			f.changes = f.changes[:min(len(f.changes), maxChanges)]
		}
		f.objects, f.overview = objects, overview
		f.set("problems", overview.Problems)
		f.set("nodes", overview.Nodes)
		f.set("segments", overview.Segments)
		f.set("sessions", overview.Sessions)
		f.set("pools", overview.Pools)
		f.set("services", overview.Services)
		f.set("changes", f.changes)
	}
	f.set("reading", f.reading) // Last: pages show the other parts when they get this one.
	close(f.news)
	f.news = make(chan struct{})
}

// gap adds a change that says that nothing was read for a while.
func (f *feed) gap(now time.Time) {
	if f.overview == nil || now.Sub(f.reading.Due) <= overdue {
		return
	}
	f.changes = slices.Insert(f.changes, 0, report.Change{
		At:   now.UTC().Format(time.RFC3339),
		Text: fmt.Sprintf("Read again after %s: what happened in between is not known in full", duration.HumanDuration(now.Sub(f.reading.At))),
	})
}

// set replaces a part if it has changed.
func (f *feed) set(name string, value any) {
	data := encode(value)
	if old, known := f.parts[name]; known && bytes.Equal(old.data, data) {
		return
	}
	f.version++
	f.parts[name] = part{f.version, data}
}

// named is a part with its name.
type named struct {
	name string
	part
}

// since returns the parts that have changed since a version, in the order of their changes. The channel is closed when
// further parts change.
func (f *feed) since(version uint64) (news []named, more <-chan struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for name, p := range f.parts {
		if p.version > version {
			news = append(news, named{name, p})
		}
	}
	slices.SortFunc(news, func(x, y named) int { return int(x.version) - int(y.version) }) //nolint:gosec // The numbers are small.
	return news, f.news
}

// trace explains a Service, with the objects of the last reading, as of its time, and the Service's events.
func (f *feed) trace(ctx context.Context, name types.NamespacedName) ([]byte, error) {
	warnings := f.source.Warnings(ctx, name)
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.objects == nil {
		return nil, errNotRead
	}
	f.objects.Warnings = warnings
	r, err := report.ServiceNamed(f.objects, name, f.source.CCM, f.reading.At)
	if err != nil {
		return nil, err
	}
	return encode(r), nil
}

// encode encodes a report as JSON. In every string it replaces characters that cannot be printed, such as those that
// control a terminal or reverse the direction of text.
func encode(value any) []byte {
	data, err := json.Marshal(value)
	if err != nil {
		panic(err) // A report has only strings, numbers and lists.
	}
	var tree any
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	if err := d.Decode(&tree); err != nil {
		panic(err)
	}
	if data, err = json.Marshal(cleaned(tree)); err != nil {
		panic(err)
	}
	return data
}

func cleaned(tree any) any {
	switch x := tree.(type) {
	case string:
		return report.Clean(x)
	case []any:
		for i := range x {
			x[i] = cleaned(x[i])
		}
	case map[string]any:
		for key := range x {
			x[key] = cleaned(x[key])
		}
	}
	return tree
}
