package lab

import (
	"context"
	"encoding/binary"
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
	"github.com/mdlayher/ndp"
	"github.com/mdlayher/packet"
	"golang.org/x/net/bpf"
	"golang.org/x/net/ipv6"
	"golang.org/x/sys/unix"

	"github.com/heraldlb/herald/e2e/lab/enclave"
)

// ClaimKind says why a claim was sent.
type ClaimKind string

const (
	// Answer is a reply to a request for the address: an ARP reply, or a neighbour advertisement with the flag
	// Solicited.
	Answer ClaimKind = "answer"
	// Announcement is sent without a request: gratuitous ARP, or an unsolicited neighbour advertisement.
	Announcement ClaimKind = "announcement"
	// Request is an ARP request for another address. It carries the sender's own address, and listeners learn it.
	Request ClaimKind = "request"
)

// Claim is a packet that says which MAC an address has: an ARP packet, by its sender addresses, or a neighbour
// advertisement, by its target.
type Claim struct {
	// At is when the kernel received the packet, however late it was read.
	At   time.Time
	Kind ClaimKind
	Addr netip.Addr
	// MAC is the link-layer address that the claim gives for Addr.
	MAC net.HardwareAddr
	// Source is the sender of the Ethernet frame. It differs from MAC if one node answers for another.
	Source net.HardwareAddr
}

func (c Claim) String() string {
	return fmt.Sprintf("%s %s: %v is at %v (frame from %v)", c.At.Format("15:04:05.000"), c.Kind, c.Addr, c.MAC, c.Source)
}

// Watch records the claims of both families that reach a client, until Close.
type Watch struct {
	own   net.HardwareAddr
	conns []*packet.Conn
	work  sync.WaitGroup

	mu   sync.Mutex
	seen []Claim
	errs []error
}

// Watch starts to record the claims of other hosts. It ignores the client's own packets.
func (c *Client) Watch() (*Watch, error) {
	w := &Watch{own: c.MAC}
	for _, s := range []struct {
		protocol int
		filter   []bpf.Instruction
		parse    func(frame []byte) (Claim, bool)
	}{
		{unix.ETH_P_ARP, nil, parseARP},
		{unix.ETH_P_IPV6, onlyAdvertisements, parseAdvertisement},
	} {
		conn, err := listen(c.Host, s.protocol, s.filter)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("watch the segment from %s: %w", c.Host.Name, err), w.Close())
		}
		w.conns = append(w.conns, conn)
		w.work.Go(func() { w.read(conn, s.parse) })
	}
	return w, nil
}

// listen opens a packet socket on the host with kernel timestamps of receipt.
func listen(h enclave.Host, protocol int, filter []bpf.Instruction) (conn *packet.Conn, err error) {
	raw, err := bpf.Assemble(filter)
	if err != nil {
		return nil, err
	}
	err = h.Do(func() error {
		i, err := net.InterfaceByName(eth0)
		if err != nil {
			return err
		}
		conn, err = packet.Listen(i, packet.Raw, protocol, &packet.Config{Filter: raw})
		return err
	})
	if err != nil {
		return nil, err
	}
	rc, err := conn.SyscallConn()
	if err == nil {
		var failed error
		err = rc.Control(func(fd uintptr) { failed = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1) })
		err = errors.Join(err, failed)
	}
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return conn, nil
}

// Close ends the recording and returns its errors. All packets that the kernel received before Close are recorded.
func (w *Watch) Close() error {
	var errs []error
	for _, c := range w.conns {
		errs = append(errs, c.SetReadDeadline(time.Now()))
	}
	w.work.Wait()
	for _, c := range w.conns {
		errs = append(errs, c.Close())
	}
	return errors.Join(append(errs, w.errs...)...)
}

func (w *Watch) read(conn *packet.Conn, parse func([]byte) (Claim, bool)) {
	buf, control := make([]byte, 1<<16), make([]byte, 256)
	closing := false
	for {
		n, at, err := receive(conn, buf, control, closing)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			// Close was called. After the deadline a waiting read returns at once, even if there are frames that this
			// goroutine had no CPU time to read.
			closing = true
			continue
		}
		if closing && errors.Is(err, unix.EAGAIN) {
			return
		}
		if errors.Is(err, unix.ENETDOWN) {
			continue // The interface went down; the socket receives again when it is up.
		}
		if err != nil {
			w.mu.Lock()
			w.errs = append(w.errs, err)
			w.mu.Unlock()
			return
		}
		claim, ok := parse(buf[:n])
		if !ok || claim.Source.String() == w.own.String() {
			continue
		}
		claim.At = at
		w.mu.Lock()
		w.seen = append(w.seen, claim)
		w.mu.Unlock()
	}
}

// receive reads one frame and the time at which the kernel received it. The time of the read would be useless: a
// test program that had no CPU time for a while reads many frames at once. receive waits for a frame, or, if atOnce
// is set, returns EAGAIN if there is none.
func receive(conn *packet.Conn, buf, control []byte, atOnce bool) (n int, at time.Time, err error) {
	rc, err := conn.SyscallConn()
	if err != nil {
		return 0, at, err
	}
	var m int
	var failed error
	read := func(fd uintptr) bool {
		n, m, _, _, failed = unix.Recvmsg(int(fd), buf, control, unix.MSG_DONTWAIT)
		return !errors.Is(failed, unix.EAGAIN)
	}
	if atOnce {
		err = rc.Control(func(fd uintptr) { read(fd) })
	} else {
		err = rc.Read(read)
	}
	if err != nil {
		return 0, at, err
	}
	if failed != nil {
		return 0, at, os.NewSyscallError("recvmsg", failed)
	}
	messages, err := unix.ParseSocketControlMessage(control[:m])
	if err != nil {
		return 0, at, err
	}
	for _, c := range messages {
		if c.Header.Level == unix.SOL_SOCKET && c.Header.Type == unix.SO_TIMESTAMPNS && len(c.Data) >= 16 {
			return n, time.Unix(int64(binary.NativeEndian.Uint64(c.Data)), int64(binary.NativeEndian.Uint64(c.Data[8:]))), nil
		}
	}
	return 0, at, errors.New("a frame without a time of receipt")
}

// parseARP reads a frame with an ARP packet. A probe (RFC 5227, section 2.1.1) has no sender address and claims
// nothing.
func parseARP(frame []byte) (Claim, bool) {
	var f ethernet.Frame
	var p arp.Packet
	if f.UnmarshalBinary(frame) != nil || p.UnmarshalBinary(f.Payload) != nil {
		return Claim{}, false
	}
	if p.HardwareType != 1 || p.HardwareAddrLength != 6 || p.ProtocolType != uint16(ethernet.EtherTypeIPv4) || !p.SenderIP.Is4() || p.SenderIP.IsUnspecified() {
		return Claim{}, false
	}
	kind := Request
	switch {
	case p.SenderIP == p.TargetIP:
		kind = Announcement // RFC 5227, section 3, and the older form, a reply: RFC 5944, section 4.6.
	case p.Operation == arp.OperationReply:
		kind = Answer
	}
	return Claim{Kind: kind, Addr: p.SenderIP, MAC: slices.Clone(p.SenderHardwareAddr), Source: slices.Clone(f.Source)}, true
}

const (
	ipv6HeaderLen = 40
	icmpv6        = 58
	// ndpHopLimit shows that no router has forwarded the packet (RFC 4861, section 3.1).
	ndpHopLimit = 255
)

// onlyAdvertisements accepts frames whose IPv6 payload is a neighbour advertisement.
var onlyAdvertisements = []bpf.Instruction{
	bpf.LoadAbsolute{Off: 14 + 6, Size: 1}, // Next header.
	bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: icmpv6, SkipTrue: 3},
	bpf.LoadAbsolute{Off: 14 + ipv6HeaderLen, Size: 1}, // ICMPv6 type.
	bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: uint32(ipv6.ICMPTypeNeighborAdvertisement), SkipTrue: 1},
	bpf.RetConstant{Val: 1 << 16},
	bpf.RetConstant{Val: 0},
}

// parseAdvertisement reads a frame with a neighbour advertisement. An advertisement that a host must discard
// (RFC 4861, section 7.1.2) is not a claim.
func parseAdvertisement(frame []byte) (Claim, bool) {
	var f ethernet.Frame
	if f.UnmarshalBinary(frame) != nil || f.EtherType != ethernet.EtherTypeIPv6 || len(f.Payload) < ipv6HeaderLen {
		return Claim{}, false
	}
	header, payload := f.Payload[:ipv6HeaderLen], f.Payload[ipv6HeaderLen:]
	length := int(binary.BigEndian.Uint16(header[4:]))
	if header[0]>>4 != 6 || header[6] != icmpv6 || header[7] != ndpHopLimit || length > len(payload) {
		return Claim{}, false
	}
	payload = payload[:length] // Ethernet pads short frames.
	source, destination := netip.AddrFrom16([16]byte(header[8:24])), netip.AddrFrom16([16]byte(header[24:40]))
	m, err := ndp.ParseMessage(payload)
	if err != nil || payload[1] != 0 || !checksumHolds(header, payload) {
		return Claim{}, false
	}
	a, ok := m.(*ndp.NeighborAdvertisement)
	if !ok || a.TargetAddress.IsMulticast() || source.IsMulticast() || a.Solicited && destination.IsMulticast() {
		return Claim{}, false
	}
	// The answer to a unicast solicitation may leave the option out (RFC 4861, section 4.4).
	claim := Claim{Kind: Announcement, Addr: a.TargetAddress, MAC: slices.Clone(f.Source), Source: slices.Clone(f.Source)}
	if a.Solicited {
		claim.Kind = Answer
	}
	for _, o := range a.Options {
		if l, ok := o.(*ndp.LinkLayerAddress); ok && l.Direction == ndp.Target {
			claim.MAC = slices.Clone(l.Addr)
		}
	}
	return claim, true
}

// checksumHolds sums the pseudo-header (RFC 8200, section 8.1) and the message including its checksum. A valid sum
// is all ones.
func checksumHolds(header, message []byte) bool {
	sum := uint32(len(message)) + icmpv6
	for _, b := range [][]byte{header[8:40], message} {
		for i, octet := range b {
			if i%2 == 0 {
				sum += uint32(octet) << 8
			} else {
				sum += uint32(octet)
			}
		}
	}
	for sum>>16 != 0 {
		sum = sum&0xffff + sum>>16
	}
	return sum == 0xffff
}

// Claims returns the claims of the address since the given time. The zero Addr stands for all addresses.
func (w *Watch) Claims(addr netip.Addr, since time.Time) (of []Claim) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range w.seen {
		if (!addr.IsValid() || c.Addr == addr) && !c.At.Before(since) {
			of = append(of, c)
		}
	}
	return of
}

// MACs returns the MACs that were claimed for the address since the given time, in the order of their first claim.
// Two MACs mean that the address moved, or that two nodes claim it.
func (w *Watch) MACs(addr netip.Addr, since time.Time) []net.HardwareAddr {
	return macs(w.Claims(addr, since))
}

// Run is a sequence of consecutive answers with the same MAC.
type Run struct {
	MAC         net.HardwareAddr
	First, Last time.Time
	Answers     int
}

// Answerers returns the answers for the address since the given time as runs. An address that moved once and cleanly
// has two runs. If the first node continues to answer, there are more.
func (w *Watch) Answerers(addr netip.Addr, since time.Time) []Run {
	return runs(w.answers(addr, since))
}

// Overlaps returns the pairs of consecutive answers that have different MACs and arrived within the window. If the
// window is shorter than the time between two requests, a pair is two answers to the same request. A longer window
// also finds the last answer before a quick move and the first one after it.
func (w *Watch) Overlaps(addr netip.Addr, window time.Duration) [][2]Claim {
	return overlaps(w.answers(addr, time.Time{}), window)
}

func (w *Watch) answers(addr netip.Addr, since time.Time) []Claim {
	return answers(w.Claims(addr, since))
}

// answers returns the claims that are answers. While an address moves, an announcement does not prove that its
// sender answers.
func answers(claims []Claim) []Claim {
	return slices.DeleteFunc(claims, func(c Claim) bool { return c.Kind != Answer })
}

func runs(answers []Claim) (all []Run) {
	for _, a := range answers {
		if n := len(all); n > 0 && all[n-1].MAC.String() == a.MAC.String() {
			all[n-1].Last = a.At
			all[n-1].Answers++
			continue
		}
		all = append(all, Run{MAC: a.MAC, First: a.At, Last: a.At, Answers: 1})
	}
	return all
}

func overlaps(answers []Claim, window time.Duration) (pairs [][2]Claim) {
	for i := 1; i < len(answers); i++ {
		a, b := answers[i-1], answers[i]
		if a.MAC.String() != b.MAC.String() && b.At.Sub(a.At) <= window {
			pairs = append(pairs, [2]Claim{a, b})
		}
	}
	return pairs
}

func macs(claims []Claim) (distinct []net.HardwareAddr) {
	for _, c := range claims {
		if !slices.ContainsFunc(distinct, func(m net.HardwareAddr) bool { return m.String() == c.MAC.String() }) {
			distinct = append(distinct, c.MAC)
		}
	}
	return distinct
}

// AnswerWindow is how long [Client.Ask] listens for answers. In the lab, an answer takes milliseconds.
const AnswerWindow = 300 * time.Millisecond

// Ask sends an ARP or NDP request for the address, depending on its family. It returns the MACs of all answers
// within AnswerWindow; more than one means a conflict. Unlike the kernel, Ask always sends a request and records
// every answer.
func (c *Client) Ask(ctx context.Context, addr netip.Addr) ([]net.HardwareAddr, error) {
	if addr.Is4() {
		return c.ARP(ctx, addr)
	}
	return c.NDP(ctx, addr)
}

// ARP is Ask for an IPv4 address.
func (c *Client) ARP(ctx context.Context, addr netip.Addr) ([]net.HardwareAddr, error) {
	request, err := c.arpRequest(addr)
	if err != nil {
		return nil, fmt.Errorf("ask from %s who has %s: %w", c.Host.Name, addr, err)
	}
	return c.ask(ctx, addr, request)
}

// NDP is Ask for an IPv6 address. It multicasts the solicitation.
func (c *Client) NDP(ctx context.Context, addr netip.Addr) ([]net.HardwareAddr, error) {
	request, err := c.solicitation(addr)
	if err != nil {
		return nil, fmt.Errorf("ask from %s who has %s: %w", c.Host.Name, addr, err)
	}
	return c.ask(ctx, addr, request)
}

func (c *Client) ask(ctx context.Context, addr netip.Addr, request *ethernet.Frame) (answered []net.HardwareAddr, err error) {
	w, err := c.Watch()
	if err != nil {
		return nil, err
	}
	if err = send(w.conns[0], request); err != nil {
		err = fmt.Errorf("ask from %s who has %s: %w", c.Host.Name, addr, err)
	} else {
		err = pause(ctx, AnswerWindow)
	}
	// Only a closed Watch has certainly recorded all answers.
	if err = errors.Join(err, w.Close()); err != nil {
		return nil, err
	}
	return macs(w.answers(addr, time.Time{})), nil
}

func send(conn *packet.Conn, frame *ethernet.Frame) error {
	b, err := frame.MarshalBinary()
	if err != nil {
		return err
	}
	_, err = conn.WriteTo(b, &packet.Addr{HardwareAddr: frame.Destination})
	return err
}

// arpRequest returns a frame with an ARP request for the address (RFC 826).
func (c *Client) arpRequest(addr netip.Addr) (*ethernet.Frame, error) {
	p, err := arp.NewPacket(arp.OperationRequest, c.MAC, c.IPv4, make(net.HardwareAddr, 6), addr)
	if err != nil {
		return nil, err
	}
	b, err := p.MarshalBinary()
	if err != nil {
		return nil, err
	}
	return &ethernet.Frame{Destination: ethernet.Broadcast, Source: c.MAC, EtherType: ethernet.EtherTypeARP, Payload: b}, nil
}

// solicitation returns a frame with a neighbour solicitation for the address (RFC 4861, section 4.3).
func (c *Client) solicitation(addr netip.Addr) (*ethernet.Frame, error) {
	group, err := ndp.SolicitedNodeMulticast(addr)
	if err != nil {
		return nil, err
	}
	message, err := ndp.MarshalMessageChecksum(&ndp.NeighborSolicitation{
		TargetAddress: addr, Options: []ndp.Option{&ndp.LinkLayerAddress{Direction: ndp.Source, Addr: c.MAC}},
	}, c.IPv6, group)
	if err != nil {
		return nil, err
	}
	header := make([]byte, ipv6HeaderLen, ipv6HeaderLen+len(message))
	header[0] = 6 << 4
	binary.BigEndian.PutUint16(header[4:], uint16(len(message)))
	header[6], header[7] = icmpv6, ndpHopLimit
	source, destination := c.IPv6.As16(), group.As16()
	copy(header[8:], source[:])
	copy(header[24:], destination[:])
	mac := append(net.HardwareAddr{0x33, 0x33}, destination[12:]...) // RFC 2464, section 7.
	return &ethernet.Frame{Destination: mac, Source: c.MAC, EtherType: ethernet.EtherTypeIPv6, Payload: append(header, message...)}, nil
}

// Asker requests an address repeatedly, so that a [Watch] records which hosts answer.
type Asker struct {
	cancel context.CancelFunc
	work   sync.WaitGroup
	conn   *packet.Conn
	err    error
}

// AskEvery requests the address at the given interval until Stop is called or ctx ends.
func (c *Client) AskEvery(ctx context.Context, addr netip.Addr, every time.Duration) (*Asker, error) {
	request := c.solicitation
	if addr.Is4() {
		request = c.arpRequest
	}
	frame, err := request(addr)
	if err != nil {
		return nil, fmt.Errorf("ask from %s who has %s: %w", c.Host.Name, addr, err)
	}
	ctx, cancel := context.WithCancel(ctx)
	a := &Asker{cancel: cancel}
	if a.conn, err = listen(c.Host, 0, nil); err != nil { // Protocol 0: the socket only sends.
		cancel()
		return nil, fmt.Errorf("ask from %s who has %s: %w", c.Host.Name, addr, err)
	}
	a.work.Go(func() {
		ticker := time.NewTicker(every)
		defer ticker.Stop()
		for a.err == nil {
			a.err = send(a.conn, frame)
			select {
			case <-ctx.Done():
				return
			case <-ticker.C:
			}
		}
	})
	return a, nil
}

// Stop ends the requests and returns their error.
func (a *Asker) Stop() error {
	a.cancel()
	a.work.Wait()
	return errors.Join(a.err, a.conn.Close())
}
