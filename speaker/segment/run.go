package segment

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vishvananda/netlink"
	"go.uber.org/zap"
	"golang.org/x/sys/unix"
)

// Callbacks tell the speaker what a Segment decides. The goroutine that runs the Segment calls them. They must not block.
type Callbacks struct {
	// Answer says how this node answers for an address from now on.
	Answer func(Answer)
	// Check asks for the addresses to be probed for strangers. The results go to Machine.Checked.
	Check func(s *Segment, addrs []netip.Addr)
	// Identify asks for a node's Identity.
	Identify func(node string)
	// Changed says that Members have changed.
	Changed func([]Member)
	Event   func(Event)
}

// Segment runs a Machine on an interface. One goroutine, in Run, owns the Machine.
type Segment struct {
	log       *zap.Logger
	name      string
	index     int
	callbacks Callbacks
	sockets   *sockets
	turned    atomic.Int64 // when the last complete turn of Run began, on the boot clock

	mu       sync.Mutex
	commands []func(*Machine, Time)
	ended    bool

	// The other fields belong to the goroutine in Run.
	machine    *Machine
	buffer     []byte
	iface      Interface
	generation int
	warned     bool
	busy       bool // the last turn read a frame that was not a beat
	room       Time // until then the sockets have room for beats
}

// Open opens a segment on an interface. For the Machine the interface is down until Set is called.
func Open(log *zap.Logger, c Config, name string, index int, callbacks Callbacks) (*Segment, error) {
	sockets, err := openSockets(index)
	if err != nil {
		return nil, fmt.Errorf("interface %s: %w", name, err)
	}
	s := &Segment{log: log, name: name, index: index, callbacks: callbacks, sockets: sockets, machine: New(c), buffer: make([]byte, accepted)}
	now := BootTime()
	s.machine.resume(now)
	s.turned.Store(int64(now))
	return s, nil
}

// Name returns the name of the interface.
func (s *Segment) Name() string { return s.name }

// Index returns the index of the interface.
func (s *Segment) Index() int { return s.index }

// BootTime reads CLOCK_BOOTTIME, which counts while the machine is suspended. Go's monotonic clock does not.
func BootTime() Time {
	var t unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_BOOTTIME, &t) // It fails only for unknown clocks.
	return time.Duration(t.Nano())
}

// Stalled reports whether the last turn of Run was so long ago that other nodes may have taken the addresses, because the
// process was frozen or the node suspended. Nothing may be sent before the next turn.
func (s *Segment) Stalled() bool { return BootTime()-time.Duration(s.turned.Load()) > maxGap }

// Do makes the goroutine that owns the Machine call f soon. After the end of Run, f is not called.
func (s *Segment) Do(f func(m *Machine, now Time)) {
	s.mu.Lock()
	if !s.ended {
		s.commands = append(s.commands, f)
		s.sockets.poke()
	}
	s.mu.Unlock()
}

// Set tells the Machine the current state of the interface.
func (s *Segment) Set(i Interface) {
	s.Do(func(m *Machine, now Time) {
		s.iface = i
		m.Set(now, i)
	})
}

// View is what a Machine knows at one moment.
type View struct {
	State    State
	Members  []Member
	Holdings []Holding
	Unowned  int
	Counters Counters
}

// View gets a View from the goroutine in Run. The only error is that of ctx.
func (s *Segment) View(ctx context.Context) (v View, err error) {
	done := make(chan View, 1)
	s.Do(func(m *Machine, _ Time) {
		done <- View{State: m.State(), Members: m.Members(), Holdings: m.Holdings(), Unowned: m.Unowned(), Counters: m.Counters()}
	})
	select {
	case v = <-done:
		return v, nil
	case <-ctx.Done():
		return v, ctx.Err()
	}
}

// Leave ends the membership, and returns when the last frames have been handed to the kernel. If a successor follows, other
// nodes answer in place of this one. Otherwise they take over. They are told three times, in case a frame is lost.
func (s *Segment) Leave(ctx context.Context, successor bool) {
	s.await(ctx, func(m *Machine, now Time) { m.Leave(now, successor) })
	for range 2 {
		select {
		case <-time.After(leavePeriod):
		case <-ctx.Done():
			return
		}
		s.await(ctx, func(m *Machine, _ Time) { m.Repeat() })
	}
}

// leavePeriod is the time between two frames that say that this speaker leaves.
const leavePeriod = 20 * time.Millisecond

// await makes the goroutine that owns the Machine call f and carry out what it wants done, and waits for that.
func (s *Segment) await(ctx context.Context, f func(m *Machine, now Time)) {
	done := make(chan struct{})
	s.Do(func(m *Machine, now Time) {
		f(m, now)
		s.perform()
		close(done)
	})
	select {
	case <-done:
	case <-ctx.Done():
	}
}

// Run runs the Machine until ctx ends, and then returns nil. If it cannot wait for frames any more, it returns the error. By
// then it has closed all sockets and ended all answers.
func (s *Segment) Run(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if !s.ended {
			s.sockets.poke()
		}
	})
	defer stop()
	defer s.end()
	if s.closed() {
		return nil
	}
	pause := time.NewTimer(0)
	defer pause.Stop()
	for ctx.Err() == nil {
		if err := s.wait(ctx, pause); err != nil {
			return fmt.Errorf("interface %s: wait for frames: %w", s.name, err)
		}
		s.turn()
	}
	return nil
}

// batch is how long frames wait for others when they come fast, because a wake-up for each of them costs more than to read
// it. The times of the protocol allow for this wait.
const batch = 10 * time.Millisecond

// unread is how many beats may wait to be read, as an estimate. Where net.core.rmem_max is 208 KiB, which was the default
// for a long time, a receive buffer has 416 KiB. A frame counts with all the memory that the driver allocated for it, often
// half a page and the kernel's own data, together 2304 bytes. So such a buffer holds 184 frames, of which this is half.
const unread = 90

// wait returns when there is something to do: a frame that is not a beat, a command, or a time that has come. Beats do not
// end the wait. They are read after it, which is soon: see Machine.Next.
func (s *Segment) wait(ctx context.Context, timer *time.Timer) error {
	now, next := BootTime(), min(s.machine.Next(), s.room)
	if pause := min(time.Duration(s.turned.Load())+batch, next) - now; s.busy && pause > 0 {
		timer.Reset(pause)
		select {
		case <-timer.C:
		case <-ctx.Done():
		}
		now = BootTime()
	}
	return s.sockets.wait(next - now)
}

func (s *Segment) turn() {
	m := s.machine
	looked := BootTime()
	s.mu.Lock()
	commands := s.commands
	s.commands = nil
	s.mu.Unlock()
	// Frames first: a process that was frozen must learn which node stood in for it before it does anything.
	s.busy = s.sockets.read(s.buffer, s.receive)
	s.readBeats()
	for _, f := range commands {
		f(m, BootTime())
	}
	if m.NeedsReceived() {
		if frames, err := s.received(); err == nil {
			m.Received(BootTime(), frames)
		}
	}
	if now := BootTime(); now >= m.Next() {
		// The work above took time. Frames that have arrived meanwhile may say that another node has an address.
		s.sockets.look()
		s.busy = s.sockets.read(s.buffer, s.receive) || s.busy
		m.Tick(BootTime())
	}
	s.perform()
	// If the process was frozen since the time looked, it has not read the frames that arrived meanwhile, so turned is that time and
	// not a later one.
	s.turned.Store(int64(looked))
	if g := m.Generation(); g != s.generation {
		s.generation = g
		s.callbacks.Changed(m.Members())
	}
}

func (s *Segment) readBeats() {
	before := s.sockets.emptied.boot
	count := s.sockets.readBeats(s.buffer, func(frame []byte, now, came Time) {
		from, payload, drop := readDatagram(frame)
		if drop != "" {
			s.machine.drop(drop)
			return
		}
		s.machine.Receive(now, Arrival{At: came, From: from, Unicast: isUnicast(frame)}, payload)
	})
	now := s.sockets.emptied.boot
	s.room = now + time.Second
	if count > 0 {
		s.room = now + max((now-before)*unread/time.Duration(count), time.Millisecond)
	}
}

func (s *Segment) receive(frame []byte) {
	m := s.machine
	if addr, from, ok := readAnswer(frame); ok {
		m.Answered(BootTime(), addr, from)
		return
	}
	from, payload, drop := readDatagram(frame)
	if drop != "" {
		m.drop(drop)
		return
	}
	now := BootTime()
	m.Receive(now, Arrival{At: now, From: from, Unicast: isUnicast(frame)}, payload)
}

// perform carries out the Output of the Machine, in the order that Output names.
func (s *Segment) perform() {
	o := s.machine.Take()
	o.Answers = lastAnswers(o.Answers)
	for _, a := range o.Answers {
		if a.Node == "" {
			s.callbacks.Answer(a)
		}
	}
	for _, f := range o.Frames {
		s.write(datagram(s.iface, f.To, f.Payload))
	}
	for _, a := range o.Answers {
		if a.Node != "" {
			s.callbacks.Answer(a)
		}
	}
	for _, p := range o.Probes {
		if q := question(s.iface, p); q != nil {
			s.write(q)
		}
	}
	if len(o.Checks) > 0 {
		s.callbacks.Check(s, o.Checks)
	}
	for _, node := range o.Keys {
		s.callbacks.Identify(node)
	}
	for _, e := range o.Events {
		s.callbacks.Event(e)
	}
}

// lastAnswers keeps only the last Answer for each address.
func lastAnswers(all []Answer) []Answer {
	if len(all) < 2 {
		return all
	}
	last := make(map[netip.Addr]int, len(all))
	for i, a := range all {
		last[a.Addr] = i
	}
	i := -1
	return slices.DeleteFunc(all, func(a Answer) bool { i++; return last[a.Addr] != i })
}

func (s *Segment) write(frame []byte) {
	err := s.sockets.write(frame)
	if (err != nil) != s.warned {
		s.warned = err != nil
		if err != nil {
			s.log.Warn("failed to send a frame; further failures are not logged until a frame is sent", zap.String("interface", s.name), zap.Error(err))
		}
	}
}

// received returns the kernel's count of frames that arrived on the interface.
func (s *Segment) received() (uint64, error) {
	l, err := netlink.LinkByIndex(s.index)
	if err != nil || l.Attrs().Statistics == nil {
		return 0, err
	}
	return l.Attrs().Statistics.RxPackets, nil
}

// end ends all answers and closes the sockets.
func (s *Segment) end() {
	for _, h := range s.machine.Holdings() {
		s.callbacks.Answer(Answer{Addr: h.Addr})
	}
	s.Close()
}

// Close closes the sockets of a Segment that is never run. Run closes them by itself. Close must not be called while Run
// runs.
func (s *Segment) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.ended {
		s.ended, s.commands = true, nil
		s.sockets.close()
	}
}

func (s *Segment) closed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ended
}
