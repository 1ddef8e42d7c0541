package speaker

import (
	"context"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"time"

	"github.com/heraldlb/herald/speaker/announce"
)

const (
	// healthPortTimeout is how long a kube-proxy may take to answer.
	healthPortTimeout = 250 * time.Millisecond
	// healthPortRequests is the number of concurrent requests.
	healthPortRequests = 8
)

// healthPorts has the ports of a node on which its kube-proxy tells whether its rules have ready endpoints on that node. They
// are spec.healthCheckNodePort of each Service under policy Local that the node delivers. kube-proxy changes its answer after
// it has written its rules. Endpoints that terminate do not count as ready (KEP-1669).
type healthPorts struct {
	node  netip.Addr // its internal address
	ports []uint16   // sorted
}

// healthPortsOf returns the ports of a node for an address. It returns none if one of the Services has none, or if the node
// has no internal address of the family.
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

// answer is the answer of a kube-proxy, for all its ports together.
type answer int

const (
	unknown  answer = iota // It does not answer, or not as kube-proxy does.
	no                     // Its rules have no ready endpoints for at least one of the Services.
	forwards               // Its rules have ready endpoints for all of the Services.
)

// ask asks the kube-proxy of the node once on each port.
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
