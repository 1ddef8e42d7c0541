package link

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vishvananda/netlink"
	"go.uber.org/zap"
)

const (
	// spacing is the least time between two lists. The first event after a quiet time is acted on
	// at once; a node that starts a hundred pods, each worth a dozen events, costs a list per spacing.
	spacing = 50 * time.Millisecond

	// listShare is the least ratio of the time between two lists to the time that a list takes.
	listShare = 10

	// resubscribeAfter is the least life of a subscription whose loss is made good at once.
	// One that dies younger is renewed after this time.
	resubscribeAfter = time.Second

	// backlog is how many events wait in the process while a list is read; further ones wait in
	// the socket. The kernel drops what does not fit there and says so, see follow.
	backlog = 64
)

// errLost ends a subscription whose cause of death the library did not tell.
var errLost = errors.New("netlink subscription ended")

// Watcher keeps the list of interfaces up to date. Its methods may be called from any goroutine.
type Watcher struct {
	log     *zap.Logger
	list    func() ([]Interface, error)
	changed chan struct{}

	mu         sync.Mutex
	interfaces []Interface
}

// Watch returns a Watcher that knows nothing yet; Run makes it see.
func Watch(log *zap.Logger) *Watcher {
	return &Watcher{log: log, list: List, changed: make(chan struct{}, 1)}
}

// Interfaces returns what [List] returned last, or nil before Run has read it. The slice is never
// written to again, neither by the Watcher nor by the caller.
func (w *Watcher) Interfaces() []Interface {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.interfaces
}

// Changed receives a value after Interfaces has changed. Several changes may be one value: read
// Interfaces after receiving. There is one channel, for one reader.
//
// The kernel holds back the news of a lost carrier for up to a second if it has told
// others shortly before.
func (w *Watcher) Changed() <-chan struct{} { return w.changed }

// Run keeps the list true until ctx is done; it returns nil then and has no other error: when the
// kernel cannot be asked, the list stays as it was, the log says so, and it is tried again.
func (w *Watcher) Run(ctx context.Context) error {
	for ctx.Err() == nil {
		began := time.Now()
		err := w.follow(ctx)
		if ctx.Err() != nil {
			break
		}
		w.log.Warn("lost the subscription to interfaces, subscribing again", zap.Error(err))
		if time.Since(began) < resubscribeAfter {
			select {
			case <-ctx.Done():
			case <-time.After(resubscribeAfter):
			}
		}
	}
	return nil
}

// follow lives as long as one subscription. It returns why that was lost: most likely ENOBUFS,
// events came faster than they were read and the kernel dropped some.
//
// An event only says that something changed, the kernel is then asked for what is true. That
// leaves nothing to get out of step: neither a lost event, nor one that is older than the last
// list, nor a message like the RTM_DELLINK with which a bridge says that it lost a port.
func (w *Watcher) follow(ctx context.Context) error {
	done := make(chan struct{})
	var reason atomic.Pointer[error]
	unread := make(chan struct{}, 1)
	fail := func(err error) {
		// Called for what ends a subscription, and for a message that could not be parsed:
		// that one, too, says that something changed.
		reason.Store(&err)
		select {
		case unread <- struct{}{}:
		default:
		}
	}

	// The subscriptions come before the first list, so nothing falls between. Leaving follow joins
	// their goroutines: each closes its channel at its end, and may have to get rid of events first.
	links := make(chan netlink.LinkUpdate, backlog)
	linkOptions := netlink.LinkSubscribeOptions{ErrorCallback: fail}
	if err := netlink.LinkSubscribeWithOptions(links, done, linkOptions); err != nil {
		close(done)
		return fmt.Errorf("subscribe to links: %w", err)
	}
	defer drain(links)
	addrs := make(chan netlink.AddrUpdate, backlog)
	addrOptions := netlink.AddrSubscribeOptions{ErrorCallback: fail}
	if err := netlink.AddrSubscribeWithOptions(addrs, done, addrOptions); err != nil {
		close(done)
		return fmt.Errorf("subscribe to addresses: %w", err)
	}
	defer drain(addrs)
	routes := make(chan netlink.RouteUpdate, backlog)
	routeOptions := netlink.RouteSubscribeOptions{ErrorCallback: fail}
	if err := netlink.RouteSubscribeWithOptions(routes, done, routeOptions); err != nil {
		close(done)
		return fmt.Errorf("subscribe to routes: %w", err)
	}
	defer drain(routes)
	defer close(done)

	var last time.Time
	pause := spacing
	due := time.After(0)
	for {
		open := true
		select {
		case <-ctx.Done():
			return nil
		case <-due:
			began := time.Now()
			if err := w.refresh(); err != nil {
				return err
			}
			last, due = time.Now(), nil
			// A node with a routing table of the Internet takes a second for a list.
			pause = max(spacing, listShare*last.Sub(began))
			continue
		case <-unread:
		case _, open = <-links:
		case _, open = <-addrs:
		case r, more := <-routes:
			// The routes to pods come and go, and say nothing about gateways.
			if open = more; open && !isDefault(r.Route) {
				continue
			}
		}
		if !open {
			if err := reason.Load(); err != nil {
				return *err
			}
			return errLost
		}
		if due == nil {
			due = time.After(time.Until(last.Add(pause)))
		}
	}
}

func drain[T any](events <-chan T) {
	for range events {
	}
}

func (w *Watcher) refresh() error {
	interfaces, err := w.list()
	if err != nil {
		return err
	}
	w.mu.Lock()
	changed := !reflect.DeepEqual(w.interfaces, interfaces)
	w.interfaces = interfaces
	w.mu.Unlock()
	if changed {
		select {
		case w.changed <- struct{}{}:
		default:
		}
	}
	return nil
}
