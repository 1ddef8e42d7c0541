package router

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// BFD configures Bidirectional Forwarding Detection.
type BFD struct {
	// Peers are sessions that no routing protocol uses.
	Peers      []BFDPeer
	Multiplier int
	// Interval is the send and receive interval, in whole milliseconds. 0 means no BFD.
	Interval time.Duration
}

// BFDPeer is one session.
type BFDPeer struct {
	Address, Local netip.Addr
	// Interface is the interface to the peer. If it is empty, the peer is beyond other routers, and packets may
	// arrive with any TTL.
	Interface string
}

// BFDSession is the state of a session, with the same words for each implementation.
type BFDSession struct {
	Peer  netip.Addr
	State string // up, init, down
	// Transmit is the router's send interval. Detection is the time without a packet after which the router
	// declares the session down.
	Transmit, Detection time.Duration
	// RemoteDiagnostic is the peer's reason for its last state change, in FRR's words. BIRD does not report it.
	RemoteDiagnostic string
	// epoch and since do not change while the session is up, except that BIRD rounds since.
	epoch string
	since time.Duration // after midnight
}

// Stayed reports whether the session is up and has been up without interruption since the state before.
func (s BFDSession) Stayed(before BFDSession) bool {
	return s.State == "up" && s.epoch == before.epoch && (s.since-before.since).Abs() < 100*time.Millisecond
}

func (c Config) frrBFD(line func(string, ...any)) {
	if c.BFD.Interval == 0 {
		return
	}
	line("bfd")
	line(" profile all")
	for _, l := range c.BFD.FRRTiming() {
		line("  %s", l)
	}
	line(" exit")
	for _, p := range c.BFD.Peers {
		where := "interface " + p.Interface
		if p.Interface == "" {
			where = "multihop"
		}
		line(" peer %v local-address %v %s", p.Address, p.Local, where)
		if p.Interface == "" {
			line("  minimum-ttl 1")
		}
		for _, l := range c.BFD.FRRTiming() {
			line("  %s", l)
		}
		line(" exit")
	}
	line("exit")
}

// FRRTiming returns FRR's commands for the timing of a session.
func (b BFD) FRRTiming() []string {
	interval := b.Interval.Milliseconds()
	return []string{
		fmt.Sprint("detect-multiplier ", b.Multiplier),
		fmt.Sprint("receive-interval ", interval), fmt.Sprint("transmit-interval ", interval),
	}
}

func (c Config) birdBFD(line func(string, ...any)) {
	if c.BFD.Interval == 0 {
		return
	}
	line("protocol bfd bfd1 {")
	for _, where := range []string{`interface "*"`, "multihop"} {
		interval := c.BFD.Interval.Milliseconds()
		line("  %s { min rx interval %d ms; min tx interval %d ms; multiplier %d; };", where, interval, interval, c.BFD.Multiplier)
	}
	for _, p := range c.BFD.Peers {
		if p.Interface == "" {
			line("  neighbor %v local %v multihop on;", p.Address, p.Local)
		} else {
			line("  neighbor %v dev \"%s\" local %v;", p.Address, p.Interface, p.Local)
		}
	}
	line("}")
}

// BFD lists the sessions.
func (f *FRR) BFD(ctx context.Context) ([]BFDSession, error) {
	peers, err := f.Show(ctx, "show bfd peers json")
	if err != nil {
		return nil, err
	}
	counters, err := f.Show(ctx, "show bfd peers counters json")
	if err != nil {
		return nil, err
	}
	return parseFRRBFD(peers, counters)
}

func parseFRRBFD(peers, counters []byte) (sessions []BFDSession, err error) {
	var table []struct {
		ID               uint32
		Peer             netip.Addr
		Status           string
		RemoteDiagnostic string        `json:"remote-diagnostic"`
		Receive          time.Duration `json:"receive-interval"`
		Transmit         time.Duration `json:"transmit-interval"`
		RemoteReceive    time.Duration `json:"remote-receive-interval"`
		RemoteTransmit   time.Duration `json:"remote-transmit-interval"`
		RemoteMultiplier time.Duration `json:"remote-detect-multiplier"`
	}
	if err := json.Unmarshal(peers, &table); err != nil {
		return nil, fmt.Errorf("FRR's BFD peers: %w", err)
	}
	var counts []struct {
		Downs int `json:"session-down"`
	}
	if err := json.Unmarshal(counters, &counts); err != nil || len(counts) != len(table) {
		return nil, fmt.Errorf("FRR's counters of %d BFD peers: %w: %s", len(table), err, counters)
	}
	for i, p := range table {
		sessions = append(sessions, BFDSession{
			Peer: p.Peer, State: p.Status, RemoteDiagnostic: p.RemoteDiagnostic,
			Transmit:  max(p.Transmit, p.RemoteReceive) * time.Millisecond,
			Detection: p.RemoteMultiplier * max(p.Receive, p.RemoteTransmit) * time.Millisecond,
			epoch:     fmt.Sprint(p.ID, " ", counts[i].Downs),
		})
	}
	return sessions, nil
}

// BFD lists the sessions.
func (b *BIRD) BFD(ctx context.Context) ([]BFDSession, error) {
	out, err := b.Show(ctx, "bfd", "sessions")
	if err != nil {
		return nil, err
	}
	return parseBIRDBFD(out)
}

// parseBIRDBFD reads lines such as "198.18.0.1  eth0  Up  23:33:27.319  0.050  0.150" below a headline.
func parseBIRDBFD(out string) (sessions []BFDSession, err error) {
	for lines := bufio.NewScanner(strings.NewReader(out)); lines.Scan(); {
		fields := strings.Fields(lines.Text())
		if len(fields) != 6 {
			continue
		}
		peer, err := netip.ParseAddr(fields[0])
		if err != nil {
			continue
		}
		at, err := time.Parse("15:04:05.000", fields[3])
		if err != nil {
			return nil, fmt.Errorf("BIRD's BFD sessions: %q: %w", lines.Text(), err)
		}
		s := BFDSession{Peer: peer, State: strings.ToLower(fields[2]), since: at.Sub(at.Truncate(24 * time.Hour))}
		for _, n := range []struct {
			to   *time.Duration
			text string
		}{{&s.Transmit, fields[4]}, {&s.Detection, fields[5]}} {
			seconds, err := strconv.ParseFloat(n.text, 64)
			if err != nil {
				return nil, fmt.Errorf("BIRD's BFD sessions: %q: %w", lines.Text(), err)
			}
			*n.to = time.Duration(seconds * float64(time.Second)).Round(time.Millisecond)
		}
		sessions = append(sessions, s)
	}
	return sessions, nil
}

// Configure makes BIRD load a new configuration. BIRD does not restart protocols whose configuration is unchanged.
func (b *BIRD) Configure(ctx context.Context, config string) error {
	if err := os.WriteFile(filepath.Join(b.dir, "bird.conf"), []byte(config), 0o644); err != nil {
		return err
	}
	out, err := b.Do(ctx, "configure")
	if err == nil && !strings.Contains(out, "Reconfigured") {
		err = fmt.Errorf("BIRD does not take its configuration: %s", out)
	}
	return err
}
