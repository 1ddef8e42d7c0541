// Package vrrp measures keepalived as a yardstick for Herald on L2: how long a client cannot open a connection when
// the node that has an address fails or is stopped. The client, the measurement and the segment are the lab's own.
//
// keepalived runs as users run it for a short outage: VRRPv3 (RFC 9568) with an advertisement every 100 ms, one
// virtual router, no preemption, and defaults for all else.
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
	// sample is how many of the addresses the client asks. The gap is that of the worst.
	sample = 20
	// settle is how long the client goes on after the fault at least.
	settle = 2 * time.Second
)

// priorities of the nodes are as far apart as they are because a backup waits the longer the lower its priority is
// (RFC 9568, section 6.1). Here that is 20 ms. With neighbouring priorities it is less than one, so two backups at a time
// become master and announce the addresses, and the client keeps what the wrong one announced last.
var priorities = []int{200, 150, 100}

// Fault is what happens to the node that has the addresses.
type Fault string

const (
	// Cut pulls its cable.
	Cut Fault = "cut"
	// Stop ends keepalived on it in good order (SIGTERM).
	Stop Fault = "stop"
)

// VirtualRouter is keepalived on each node of a site, which has addresses of one family in common.
type VirtualRouter struct {
	site      *lab.Site
	addresses []netip.Addr
	programs  []*lab.Process // The apps are first.
	daemons   []*lab.Process // By node.
}

// Start starts keepalived, and an app that answers on the addresses, on each node, and waits until one node is the
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

// config is for a node of the priority. An advertisement has room for 255 addresses (RFC 9568, section 5.2.5), so all
// but one are left out of it. That one is link-local if the family is IPv6 (section 5.2.9).
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

// Measure brings the fault about that many times, each time to the node that is the master then, and returns how
// long the client could not reach the worst of a sample of the addresses. The node is well again before the next.
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

// settled waits until one node is the master and the others are its backups, and returns the number of the master.
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

// Close ends all that Start started.
func (v *VirtualRouter) Close() error {
	var errs []error
	for _, p := range slices.Backward(v.programs) {
		errs = append(errs, p.Stop(context.Background()))
	}
	return errors.Join(errs...)
}
