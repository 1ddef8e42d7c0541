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
	// spacing is the least time between two lists. The first event after a quiet time causes a list
	// at once. A node that starts a hundred pods, each with a dozen events, needs one list per spacing.
	spacing = 50 * time.Millisecond

	// listShare is the least ratio of the time between two lists to the time that a list takes.
	listShare = 10

	// resubscribeAfter is how long a subscription must have lasted to be renewed at once when it is
	// lost. A subscription that lasted for a shorter time is renewed after this time.
	resubscribeAfter = time.Second

	// backlog is how many events wait in the process while a list is read. Further events wait in
	// the socket. The kernel drops events that do not fit there, and reports this: see follow.
	backlog = 64
)

// errLost is the error of a subscription that ended without an error from the library.
var errLost = errors.New("netlink subscription ended")

// Watcher keeps the list of interfaces up to date. Its methods may be called from any goroutine.
type Watcher struct {
	log     *zap.Logger
	list    func() ([]Interface, error)
	changed chan struct{}

	mu         sync.Mutex
	interfaces []Interface
}

// Watch returns a Watcher, which has no interfaces until Run has read them.
func Watch(log *zap.Logger) *Watcher {
	return &Watcher{log: log, list: List, changed: make(chan struct{}, 1)}
}

// Interfaces returns the last result of [List], or nil before Run has read it. The Watcher never
// changes this slice, and the caller must not change it either.
func (w *Watcher) Interfaces() []Interface {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.interfaces
}

// Changed returns a channel that receives a value after Interfaces has changed. One value may stand
// for several changes, so call Interfaces after receiving it. There is one channel, for one reader.
//
// The kernel delays the event for a lost carrier by up to a second if it has sent other such events
// shortly before.
func (w *Watcher) Changed() <-chan struct{} { return w.changed }

// Run keeps the list up to date until ctx is done, and then returns nil. It returns no errors: when
// it cannot ask the kernel, it keeps the old list, logs this, and tries again.
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

// follow runs as long as one subscription, and returns why the subscription was lost. Most likely
// this is ENOBUFS: events came faster than they were read, and the kernel dropped some.
//
// An event only says that something changed. follow then asks the kernel for the present state. So
// no event can make the list wrong: neither one that was lost, nor one that is older than the last
// list, nor a message like the RTM_DELLINK with which a bridge says that it lost a port.
func (w *Watcher) follow(ctx context.Context) error {
	done := make(chan struct{})
	var reason atomic.Pointer[error]
	unread := make(chan struct{}, 1)
	fail := func(err error) {
		// The library calls fail when a subscription ends, and for a message that it cannot parse:
		// such a message, too, says that something changed.
		reason.Store(&err)
		select {
		case unread <- struct{}{}:
		default:
		}
	}

	// The subscriptions come before the first list, so no change is missed between them. When follow
	// returns, drain joins their goroutines: each closes its channel at its end, and may have to send
	// its remaining events first.
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
			// On a node with the full routing table of the Internet, a list takes a second.
			pause = max(spacing, listShare*last.Sub(began))
			continue
		case <-unread:
		case _, open = <-links:
		case _, open = <-addrs:
		case r, more := <-routes:
			// Routes to pods change often, and do not affect gateways.
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
