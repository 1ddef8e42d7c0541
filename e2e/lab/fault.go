package lab

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/heraldlb/herald/e2e/lab/enclave"
)

// Port is a host on a segment, with its port at the switch: a [Node], a [Router] or a [Client]. Faults happen at
// the switch; nothing changes on the host itself.
type Port interface {
	switchPort() (string, error)
	Heal() error
}

var _ = []Port{(*Node)(nil), (*Router)(nil), (*Client)(nil), (*SecondInterface)(nil)}

// Cable connects a host to a switch.
type Cable struct {
	port   string // The switch's end.
	bridge string // The switch.
}

func (c *Cable) switchPort() (string, error) {
	if c.port == "" {
		return "", errors.New("the host is not on the segment")
	}
	return c.port, nil
}

// Cut unplugs the host's cable: the host has no carrier and reaches neither the segment nor the API server. Its
// programs keep running.
func (c *Cable) Cut() error { return c.atSwitch("ip link set %s down") }

// Isolate acts like a broken switch: the host keeps its carrier, but every frame is lost.
func (c *Cable) Isolate() error { return c.atSwitch("ip link set %s nomaster") }

// Direction says in which direction of a cable frames are lost.
type Direction string

const (
	// FromHost means the frames that the host sends.
	FromHost Direction = "from the host"
	// ToHost means the frames that are sent to the host.
	ToHost Direction = "to the host"
	// Both means both directions.
	Both Direction = "both"
)

// Loss drops the given percentage of the frames at random.
func (c *Cable) Loss(percent int, direction Direction) error {
	port, err := c.switchPort()
	if err != nil {
		return err
	}
	if percent < 1 || percent > 100 {
		return fmt.Errorf("lose %d percent of the frames at %s: choose 1 to 100", percent, port)
	}
	// The kernel may lack netem. It has nftables because kube-proxy needs it.
	lost := fmt.Sprintf("numgen random mod 100 < %d", percent)
	if percent == 100 {
		lost = ""
	}
	var rules []string
	if direction != ToHost {
		rules = append(rules, fmt.Sprintf("from iifname %s %s", quoted(port), lost))
	}
	if direction != FromHost {
		rules = append(rules, fmt.Sprintf("to oifname %s %s", quoted(port), lost))
	}
	return drop(map[string][]string{port: rules})
}

// OneWay drops all frames in one direction. Frames in the other direction arrive.
func (c *Cable) OneWay(lost Direction) error { return c.Loss(100, lost) }

// Heal undoes all faults of the host. A fault between two hosts ends once both are healed. When an interface goes
// down, the kernel drops its IPv6 routes; the host keeps its routes because faults take down the switch's end.
func (c *Cable) Heal() error {
	return c.atSwitch(`
		nft '%[3]s'
		ip link set %[1]s master %[2]s
		ip link set %[1]s up
	`, c.bridge, withoutTable(c.port))
}

// atSwitch runs a script with the host's port as its first argument.
func (c *Cable) atSwitch(script string, args ...any) error {
	port, err := c.switchPort()
	if err != nil {
		return err
	}
	return enclave.Host{}.Script(script, append([]any{port}, args...)...)
}

// FilterBetween drops all frames between any two of the hosts. Other hosts, such as clients, and the API server reach
// all of them.
func FilterBetween(hosts ...Port) error { return filter(hosts, hosts, "") }

// FilterMulticast drops only the speakers' multicast between any two of the hosts: frames to the Ethernet addresses of
// 224.0.0.254 (RFC 1112, section 6.4) and of ff02::114 (RFC 2464, section 7). Like a switch, it looks only at Ethernet
// addresses: packets to the groups in frames to one host's MAC arrive.
func FilterMulticast(hosts ...Port) error {
	return filter(hosts, hosts, "ether daddr 01:00:5e:00:00:fe", "ether daddr 33:33:00:00:01:14")
}

// Split drops all frames between two groups of hosts. Hosts that are in neither group reach both, and so does the API
// server, which is on the switch itself.
func Split(a, b []Port) error {
	rules := map[string][]string{}
	if err := errors.Join(between(rules, a, b, ""), between(rules, b, a, "")); err != nil {
		return err
	}
	return drop(rules)
}

// Heal undoes the faults of all the hosts. Frames between them pass again at once, not for one host after the other.
func Heal(hosts ...Port) error {
	var script strings.Builder
	for _, h := range hosts {
		port, err := h.switchPort()
		if err != nil {
			return err
		}
		script.WriteString(withoutTable(port))
	}
	errs := []error{enclave.Host{}.Script("nft '%s'", &script)}
	for _, h := range hosts {
		errs = append(errs, h.Heal())
	}
	return errors.Join(errs...)
}

// filter drops the frames from a host in from to a host in to that satisfy any of the matches.
func filter(from, to []Port, matches ...string) error {
	rules := map[string][]string{}
	if err := between(rules, from, to, matches...); err != nil {
		return err
	}
	return drop(rules)
}

// between adds the rules for the frames from a host in from to a host in to that satisfy any of the matches.
func between(rules map[string][]string, from, to []Port, matches ...string) error {
	var receivers []string
	for _, h := range to {
		port, err := h.switchPort()
		if err != nil {
			return err
		}
		receivers = append(receivers, quoted(port))
	}
	for _, h := range from {
		port, err := h.switchPort()
		if err != nil {
			return err
		}
		others := slices.DeleteFunc(slices.Clone(receivers), func(r string) bool { return r == quoted(port) })
		if len(others) == 0 {
			continue
		}
		for _, m := range matches {
			rules[port] = append(rules[port], fmt.Sprintf("between iifname %s oifname { %s } %s", quoted(port), strings.Join(others, ", "), m))
		}
	}
	return nil
}

// drop adds rules to the table of each port, which Heal deletes. Each rule begins with the name of its chain, and drops the
// frames that match. All rules begin to apply at once.
func drop(rules map[string][]string) error {
	if len(rules) == 0 {
		return nil
	}
	var script strings.Builder
	for port, all := range rules {
		fmt.Fprintf(&script, `
			add table bridge %[1]s
			add chain bridge %[1]s from { type filter hook prerouting priority -300; }
			add chain bridge %[1]s between { type filter hook forward priority 0; }
			add chain bridge %[1]s to { type filter hook postrouting priority 0; }
		`, port)
		for _, r := range all {
			fmt.Fprintf(&script, "add rule bridge %s %s drop\n", port, r)
		}
	}
	return enclave.Host{}.Script("nft '%s'", &script)
}

// withoutTable returns the commands that delete the table of a port. The table may not exist. Adding it first makes the
// delete succeed in any case.
func withoutTable(port string) string {
	return fmt.Sprintf("add table bridge %[1]s; delete table bridge %[1]s; ", port)
}

func quoted(name string) string { return `"` + name + `"` }
