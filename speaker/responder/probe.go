package responder

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"
)

const (
	// RFC 5227 §1.1 has PROBE_NUM 3, one to two seconds apart, and an ANNOUNCE_WAIT of two seconds. RFC
	// 4862 §5.1 has one probe and waits a second. On a segment of servers an answer takes less than a
	// millisecond, so even with this spacing two of the three probes may be lost.
	probeCount   = 3
	probeSpacing = 100 * time.Millisecond

	// probePatience is how long Probe waits for the socket to be ready.
	probePatience = time.Second
)

// A probe waits for strangers that use an address.
type probe struct {
	addr  netip.Addr
	ready chan struct{}         // closed when the filter accepts answers
	found chan net.HardwareAddr // capacity one
}

// Probe asks whether a machine that is neither this one nor a sibling uses addr on iface, or is about
// to use it (RFC 5227 §2.1, RFC 4862 §5.4). It sends three probes 100 ms apart and waits 300 ms in all.
// It returns the MAC of the first such machine, or nil if addr is free. Run must be running.
func (r *Responder) Probe(ctx context.Context, iface string, addr netip.Addr) (net.HardwareAddr, error) {
	addr = addr.Unmap().WithZone("")
	if !r.protocol.Supports(addr) {
		return nil, fmt.Errorf("probe %v on interface %q: not an address that %s can ask for", addr, iface, r.protocol.Name())
	}
	p := &probe{addr: addr, ready: make(chan struct{}), found: make(chan net.HardwareAddr, 1)}
	l, err := r.enlist(iface, p)
	if err != nil {
		return nil, fmt.Errorf("probe %v: %w", addr, err)
	}
	defer r.dismiss(l, p)
	timer := time.NewTimer(probePatience)
	defer timer.Stop()
	select {
	case <-p.ready:
	case <-timer.C:
		return nil, fmt.Errorf("probe %v: the socket on interface %q did not become ready within %v; the log says why", addr, iface, probePatience)
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	for range probeCount {
		if err := r.sendProbe(l, addr); err != nil {
			return nil, fmt.Errorf("probe %v on interface %q: %w", addr, iface, err)
		}
		timer.Reset(probeSpacing)
		select {
		case mac := <-p.found:
			return mac, nil
		case <-timer.C:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	return nil, nil
}

func (r *Responder) enlist(iface string, p *probe) (*link, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	l := r.links[iface]
	if l == nil || !l.ifi.Up {
		return nil, fmt.Errorf("interface %q does not exist or is down", iface)
	}
	l.probes = append(l.probes, p)
	if r.widen(l, p.addr) {
		close(p.ready)
	}
	return l, nil
}

func (r *Responder) dismiss(l *link, p *probe) {
	r.mu.Lock()
	defer r.mu.Unlock()
	l.probes = slices.DeleteFunc(l.probes, func(o *probe) bool { return o == p })
	r.narrow(l, p.addr)
}

func (r *Responder) sendProbe(l *link, addr netip.Addr) error {
	if r.options.Silent(l.name) {
		return errors.New("nothing may be sent on it at the moment")
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if !l.isServing() || !l.socket.accepts(addr) {
		return errors.New("it changed meanwhile")
	}
	frame, err := r.protocol.Probe(l.socket.self, addr)
	if err != nil {
		return err
	}
	return l.socket.Write(frame)
}
