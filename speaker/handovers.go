package speaker

import (
	"context"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
)

const (
	// handoverPeriod is the pause between two rounds of requests to the kube-proxies of other nodes. handoversAtOnce bounds the
	// number of requests in one round.
	handoverPeriod  = 100 * time.Millisecond
	handoversAtOnce = 64
)

// handovers asks the kube-proxies of other nodes whether they forward addresses that this node hands over to them.
type handovers struct {
	client *http.Client
	// answered is called with each answer other than unknown, and with the time of the request.
	answered func(ctx context.Context, address netip.Addr, node string, said answer, asked time.Time)
	// wake gets a value when there are nodes to ask; capacity one.
	wake chan struct{}

	mu      sync.Mutex
	targets map[netip.Addr]map[string]healthPorts // by node
}

type handoverTarget struct {
	address netip.Addr
	node    string
}

func newHandovers(answered func(context.Context, netip.Addr, string, answer, time.Time)) *handovers {
	return &handovers{client: newHealthPortClient(), answered: answered, wake: make(chan struct{}, 1), targets: map[netip.Addr]map[string]healthPorts{}}
}

// set replaces the nodes that are asked about an address.
func (h *handovers) set(address netip.Addr, nodes map[string]healthPorts) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(nodes) == 0 {
		delete(h.targets, address)
		return
	}
	h.targets[address] = nodes
	pull(h.wake)
}

// some returns the targets of one round.
func (h *handovers) some() map[handoverTarget]healthPorts {
	h.mu.Lock()
	defer h.mu.Unlock()
	some := map[handoverTarget]healthPorts{}
	for address, nodes := range h.targets { // The order of a map is random, so every target gets its turn.
		for node, ports := range nodes {
			if len(some) < handoversAtOnce {
				some[handoverTarget{address, node}] = ports
			}
		}
		if len(some) == handoversAtOnce {
			break
		}
	}
	return some
}

// run asks while there are targets, until ctx ends.
func (h *handovers) run(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-h.wake:
		}
		for round := h.some(); len(round) > 0; round = h.some() {
			var g errgroup.Group
			g.SetLimit(healthPortRequests)
			for t, ports := range round {
				g.Go(func() error {
					asked := time.Now()
					if said := ports.ask(ctx, h.client); said != unknown {
						h.answered(ctx, t.address, t.node, said, asked)
					}
					return nil
				})
			}
			_ = g.Wait()
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(handoverPeriod):
			}
		}
	}
}
