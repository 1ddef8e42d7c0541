package lab

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/mdlayher/arp"
	"github.com/mdlayher/ethernet"
	"github.com/mdlayher/packet"
	"golang.org/x/sys/unix"
)

// ARPWindow is how long [Client.ARP] listens for answers. Whoever answers at all does so within
// milliseconds here.
const ARPWindow = 300 * time.Millisecond

// ARPPacket is one that a client saw. In a request and in a reply alike, the sender's addresses are
// what a listener learns.
type ARPPacket struct {
	At        time.Time
	Operation arp.Operation
	Sender    netip.Addr
	SenderMAC net.HardwareAddr
	Target    netip.Addr
}

// Gratuitous tells whether the packet announces its own sender (RFC 5944, section 4.6).
func (p ARPPacket) Gratuitous() bool { return p.Sender == p.Target }

func (p ARPPacket) String() string {
	return fmt.Sprintf("%s %v %v is at %v (target %v)", p.At.Format("15:04:05.000"), p.Operation, p.Sender, p.SenderMAC, p.Target)
}

// ARPWatch records the ARP packets that reach a client, from its start until Close.
type ARPWatch struct {
	conn *packet.Conn
	own  net.HardwareAddr
	work sync.WaitGroup

	mu   sync.Mutex
	seen []ARPPacket
	err  error
}

// WatchARP starts recording what others send. The client's own packets are left out.
func (c *Client) WatchARP() (*ARPWatch, error) {
	w := &ARPWatch{own: c.MAC}
	err := c.Host.Do(func() error {
		i, err := net.InterfaceByName(eth0)
		if err != nil {
			return err
		}
		w.conn, err = packet.Listen(i, packet.Raw, unix.ETH_P_ARP, nil)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("watch ARP on %s: %w", c.Host.Name, err)
	}
	w.work.Go(w.read)
	return w, nil
}

// Close ends the recording and returns what went wrong in it.
func (w *ARPWatch) Close() error {
	err := w.conn.SetReadDeadline(time.Now())
	w.work.Wait()
	return errors.Join(err, w.err, w.conn.Close())
}

func (w *ARPWatch) read() {
	buf := make([]byte, 1<<16)
	for {
		n, _, err := w.conn.ReadFrom(buf)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return // Close
		}
		if err != nil {
			w.err = err
			return
		}
		if p, ok := parseARP(buf[:n]); ok && p.SenderMAC.String() != w.own.String() {
			w.mu.Lock()
			w.seen = append(w.seen, p)
			w.mu.Unlock()
		}
	}
}

func parseARP(frame []byte) (ARPPacket, bool) {
	var f ethernet.Frame
	var p arp.Packet
	if f.UnmarshalBinary(frame) != nil || p.UnmarshalBinary(f.Payload) != nil {
		return ARPPacket{}, false
	}
	return ARPPacket{
		At: time.Now(), Operation: p.Operation, Sender: p.SenderIP, Target: p.TargetIP,
		SenderMAC: slices.Clone(p.SenderHardwareAddr), // The buffer is used again.
	}, true
}

// Packets returns those with the sender address, since the time. The zero Addr stands for all.
func (w *ARPWatch) Packets(sender netip.Addr, since time.Time) []ARPPacket {
	w.mu.Lock()
	defer w.mu.Unlock()
	var of []ARPPacket
	for _, p := range w.seen {
		if (!sender.IsValid() || p.Sender == sender) && !p.At.Before(since) {
			of = append(of, p)
		}
	}
	return of
}

// MACs returns which MACs claimed the address since the time, in the order of their first claim.
// Two mean that it moved, or that two answer.
func (w *ARPWatch) MACs(sender netip.Addr, since time.Time) []net.HardwareAddr {
	return macs(w.Packets(sender, since))
}

// ARP asks the segment who has the address and returns all MACs that answered within ARPWindow:
// none, or one, if all is well. Unlike the kernel it always asks, and hears every answer out.
func (c *Client) ARP(ctx context.Context, addr netip.Addr) (answered []net.HardwareAddr, err error) {
	w, err := c.WatchARP()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, w.Close()) }()
	request, err := arp.NewPacket(arp.OperationRequest, c.MAC, c.IPv4, make(net.HardwareAddr, 6), addr)
	if err != nil {
		return nil, err
	}
	payload, err := request.MarshalBinary()
	if err != nil {
		return nil, err
	}
	frame, err := (&ethernet.Frame{
		Destination: ethernet.Broadcast, Source: c.MAC, EtherType: ethernet.EtherTypeARP, Payload: payload,
	}).MarshalBinary()
	if err != nil {
		return nil, err
	}
	if _, err := w.conn.WriteTo(frame, &packet.Addr{HardwareAddr: ethernet.Broadcast}); err != nil {
		return nil, fmt.Errorf("ask from %s who has %s: %w", c.Host.Name, addr, err)
	}
	window := time.NewTimer(ARPWindow)
	defer window.Stop()
	select {
	case <-window.C:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	// An announcement is no answer: within the window the address may pass from one to another.
	return macs(slices.DeleteFunc(w.Packets(addr, time.Time{}), func(p ARPPacket) bool {
		return p.Operation != arp.OperationReply || p.Gratuitous()
	})), nil
}

func macs(packets []ARPPacket) (distinct []net.HardwareAddr) {
	for _, p := range packets {
		if !slices.ContainsFunc(distinct, func(m net.HardwareAddr) bool { return m.String() == p.SenderMAC.String() }) {
			distinct = append(distinct, p.SenderMAC)
		}
	}
	return distinct
}
