package speaker

import (
	"context"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/heraldlb/herald/speaker/announce"
)

const (
	// healthPortTimeout is how long a kube-proxy may take to answer.
	healthPortTimeout = 250 * time.Millisecond
	// healthPortRequests is how many requests are under way at a time.
	healthPortRequests = 8
	// handoverPeriod is how often the kube-proxies of other nodes are asked, and handoversAtOnce how many of them in one round.
	handoverPeriod  = 100 * time.Millisecond
	handoversAtOnce = 64
)

// healthPorts are the ports of a node on which its kube-proxy tells whether its rules have ready endpoints on that node:
// spec.healthCheckNodePort of each Service under policy Local that the node delivers. kube-proxy changes its answer after it
// has written its rules. Endpoints that terminate do not count (KEP-1669).
type healthPorts struct {
	node  netip.Addr // its internal address
	ports []uint16   // sorted
}

// healthPortsOf are the ports of a node for an address; there are none if a Service has none, or if the node has no internal
// address of the family.
func healthPortsOf(a *announce.Address, node string, internal netip.Addr) (of healthPorts) {
	for _, svc := range a.Services {
		if !svc.Local || !svc.Delivers(a.Addr, node) {
			continue
		}
		if svc.HealthPort == 0 || !internal.IsValid() {
			return healthPorts{}
		}
		of.ports = append(of.ports, svc.HealthPort)
	}
	slices.Sort(of.ports)
	of.node, of.ports = internal, slices.Compact(of.ports)
	return of
}

// answer is what a kube-proxy says of all the ports.
type answer int

const (
	unknown  answer = iota // It does not answer, or not as kube-proxy does.
	no                     // Its rules do not have ready endpoints of one of the Services.
	forwards               // They have them of all.
)

// ask asks the kube-proxy of the node. A request is not repeated.
func (h healthPorts) ask(ctx context.Context, client *http.Client) answer {
	if len(h.ports) == 0 {
		return unknown
	}
	for _, port := range h.ports {
		url := "http://" + net.JoinHostPort(h.node.String(), strconv.Itoa(int(port))) + "/healthz"
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return unknown
		}
		res, err := client.Do(req)
		if err != nil {
			return unknown
		}
		_ = res.Body.Close()
		switch res.StatusCode {
		case http.StatusOK:
		case http.StatusServiceUnavailable:
			return no
		default:
			return unknown
		}
	}
	return forwards
}

func newHealthPortClient() *http.Client {
	return &http.Client{
		Timeout: healthPortTimeout, Transport: &http.Transport{DisableKeepAlives: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// handovers asks the kube-proxies of other nodes whether they forward addresses that this node hands over to them.
type handovers struct {
	client *http.Client
	// answered is called with each answer that is known, and with the time of the question.
	answered func(ctx context.Context, address netip.Addr, node string, said answer, asked time.Time)
	// wake gets a value when there is somebody to ask; capacity one.
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

// set has these nodes asked for an address, in place of those that were before.
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

// some are the targets of one round.
func (h *handovers) some() map[handoverTarget]healthPorts {
	h.mu.Lock()
	defer h.mu.Unlock()
	some := map[handoverTarget]healthPorts{}
	for address, nodes := range h.targets { // The order of a map is random: the others have their turn.
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

// run asks while there is somebody to ask, until ctx ends.
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
