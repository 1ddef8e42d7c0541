// Package vrrp measures keepalived, for comparison with Herald on L2: how long a client cannot open a connection when
// the node that holds an address fails or keepalived stops there. The client, the measurement and the segment are those
// of package lab.
//
// keepalived has the configuration that users choose for short outages: VRRPv3 (RFC 9568) with an advertisement every
// 100 ms, one virtual router, no preemption, and defaults for everything else.
package vrrp

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/heraldlb/herald/e2e/lab"
)

const (
	program = "/usr/sbin/keepalived"
	// sample is the largest number of addresses that the client opens connections to. The worst gap counts.
	sample = 20
	// settle is the least time for which the client continues after the fault.
	settle = 2 * time.Second
)

// priorities are the priorities of the nodes. A backup with a lower priority waits longer before it becomes master
// (RFC 9568, section 6.1). With these priorities the waits differ by 20 ms. With adjacent priorities they would differ
// by less than 1 ms: two backups would become master and announce the addresses, and the client would keep the last,
// wrong announcement.
var priorities = []int{200, 150, 100}

// Fault is what happens to the node that has the addresses.
type Fault string

const (
	// Cut unplugs the node's cable.
	Cut Fault = "cut"
	// Stop ends keepalived on the node gracefully (SIGTERM).
	Stop Fault = "stop"
)

// VirtualRouter is a set of keepalived processes, one on each node of a site, that share addresses of one family.
type VirtualRouter struct {
	site      *lab.Site
	addresses []netip.Addr
	programs  []*lab.Process // All apps and daemons, in the order of their start.
	daemons   []*lab.Process // keepalived by index of the node.
}

// Start starts keepalived and an app that answers on the addresses on each node. It returns when one node is the
// master. Files are in the folder dir.
func Start(ctx context.Context, site *lab.Site, dir string, addresses []netip.Addr) (*VirtualRouter, error) {
	v := &VirtualRouter{site: site, addresses: addresses}
	if err := v.start(ctx, dir); err != nil {
		return nil, errors.Join(err, v.Close())
	}
	return v, nil
}

func (v *VirtualRouter) start(ctx context.Context, dir string) error {
	if len(v.site.Nodes) > len(priorities) {
		return fmt.Errorf("a virtual router of %d nodes: choose at most %d", len(v.site.Nodes), len(priorities))
	}
	for i, n := range v.site.Nodes {
		app, err := n.StartApp(ctx, dir)
		if err != nil {
			return err
		}
		v.programs = append(v.programs, app)
		path := filepath.Join(dir, n.Name)
		if err := os.WriteFile(path+".conf", []byte(config(priorities[i], v.addresses)), 0o600); err != nil {
			return err
		}
		daemon := &lab.Process{
			Name: "keepalived-" + n.Name, Host: n.Host, Path: program, LogPath: path + ".log",
			Args: []string{"--vrrp", "--dont-fork", "--log-console", "--use-file", path + ".conf", "--pid", path + ".pid", "--vrrp_pid", path + "-vrrp.pid"},
		}
		if err := daemon.Start(); err != nil {
			return fmt.Errorf("%w; keepalived is installed by `e2e/lab/packages.sh bench`", err)
		}
		v.programs, v.daemons = append(v.programs, daemon), append(v.daemons, daemon)
	}
	_, err := v.settled(ctx)
	return err
}

// config returns the configuration of a node with the given priority. An advertisement has room for 255 addresses
// (RFC 9568, section 5.2.5), so config excludes all but one. That one is link-local for IPv6 (section 5.2.9).
func config(priority int, addresses []netip.Addr) string {
	advertised, others := addresses[0].String(), addresses[1:]
	if addresses[0].Is6() {
		advertised, others = "fe80::5e00:53", addresses
	}
	var b strings.Builder
	fmt.Fprintf(&b, `global_defs {
	vrrp_version 3
}
vrrp_instance herald {
	state BACKUP
	nopreempt
	interface eth0
	virtual_router_id 51
	priority %d
	advert_int 0.1
	virtual_ipaddress {
		%s
	}
`, priority, advertised)
	if len(others) > 0 {
		b.WriteString("\tvirtual_ipaddress_excluded {\n")
		for _, a := range others {
			fmt.Fprintf(&b, "\t\t%s\n", a)
		}
		b.WriteString("\t}\n")
	}
	b.WriteString("}\n")
	return b.String()
}

// Measure causes the fault on the present master in each of the given number of rounds. For each round it returns the
// longest time for which the client could not reach one of a sample of the addresses. The node recovers before the next
// round.
func (v *VirtualRouter) Measure(ctx context.Context, fault Fault, rounds int) (gaps lab.Durations, err error) {
	var targets []string
	for _, a := range lab.Sample(v.addresses, sample) {
		targets = append(targets, netip.AddrPortFrom(a, lab.AppPort).String())
	}
	for range rounds {
		master, err := v.settled(ctx)
		if err != nil {
			return gaps, err
		}
		node, daemon := v.site.Nodes[master], v.daemons[master]
		fail, recover := node.Cut, node.Heal
		if fault == Stop {
			fail, recover = func() error { return daemon.Stop(ctx) }, daemon.Start
		}
		gap, _, err := lab.Outage(ctx, v.site.Segment, targets, fail, settle)
		if err := errors.Join(err, recover()); err != nil {
			return gaps, fmt.Errorf("%s of %s: %w", fault, node.Name, err)
		}
		gaps = append(gaps, gap)
	}
	return gaps, nil
}

var entered = regexp.MustCompile(`Entering (\w+) STATE`)

// settled waits until one node is the master and the others are backups, and returns the index of the master.
func (v *VirtualRouter) settled(ctx context.Context) (master int, err error) {
	err = lab.Eventually(ctx, func(ctx context.Context) error {
		var states []string
		for _, d := range v.daemons {
			state := "none"
			if all := entered.FindAllStringSubmatch(d.Log(), -1); len(all) > 0 && d.Running() {
				state = all[len(all)-1][1]
			}
			states = append(states, state)
		}
		master = slices.Index(states, "MASTER")
		others := slices.DeleteFunc(slices.Clone(states), func(s string) bool { return s == "BACKUP" })
		if master < 0 || len(others) != 1 {
			return fmt.Errorf("keepalived on the nodes is %v, want one MASTER and else BACKUP", states)
		}
		last := v.addresses[len(v.addresses)-1]
		macs, err := v.site.Segment.Ask(ctx, last)
		if err == nil && (len(macs) != 1 || v.site.NodeByMAC(macs[0]) != v.site.Nodes[master]) {
			err = fmt.Errorf("%s is answered by %v, want %s", last, macs, v.site.Nodes[master].Name)
		}
		return err
	})
	return master, err
}

// Close ends the programs that Start started.
func (v *VirtualRouter) Close() error {
	var errs []error
	for _, p := range slices.Backward(v.programs) {
		errs = append(errs, p.Stop(context.Background()))
	}
	return errors.Join(errs...)
}
