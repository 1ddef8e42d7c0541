package lab

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/heraldlb/herald/e2e/lab/enclave"
)

// Port is a host on a segment, with its port of the switch: a [Node], a [Router] or a [Client]. Faults happen at
// the switch, so the host itself has no part in them.
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

// Cut pulls the host's cable: it has no carrier and reaches nobody on the segment, nor the API server. What runs on it
// goes on.
func (c *Cable) Cut() error { return c.atSwitch("ip link set %s down") }

// Isolate is what a broken switch does: the host keeps its carrier and every frame is lost.
func (c *Cable) Isolate() error { return c.atSwitch("ip link set %s nomaster") }

// Direction is one of the two in which a cable carries frames.
type Direction string

const (
	// FromHost are the frames that the host sends.
	FromHost Direction = "from the host"
	// ToHost are the frames that the host is to receive.
	ToHost Direction = "to the host"
	// Both directions.
	Both Direction = "both"
)

// Loss loses that many percent of the frames, at random.
func (c *Cable) Loss(percent int, direction Direction) error {
	port, err := c.switchPort()
	if err != nil {
		return err
	}
	if percent < 1 || percent > 100 {
		return fmt.Errorf("lose %d percent of the frames at %s: choose 1 to 100", percent, port)
	}
	// The kernel may lack netem; nftables is there for kube-proxy.
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
	return drop(port, rules...)
}

// OneWay loses all frames of one direction; those of the other arrive.
func (c *Cable) OneWay(lost Direction) error { return c.Loss(100, lost) }

// Heal undoes all faults of the host. Those between two hosts are undone once both are healed. Taking an interface
// down makes the kernel drop IPv6 routes, but that is done to the switch's end of the cable, so the host's own stay.
func (c *Cable) Heal() error {
	// A table that is added first can be deleted whether there was one or not.
	return c.atSwitch(`
		nft 'add table bridge %[1]s; delete table bridge %[1]s'
		ip link set %[1]s master %[2]s
		ip link set %[1]s up
	`, c.bridge)
}

// atSwitch runs a script that has the host's port as its first argument.
func (c *Cable) atSwitch(script string, args ...any) error {
	port, err := c.switchPort()
	if err != nil {
		return err
	}
	return enclave.Host{}.Script(script, append([]any{port}, args...)...)
}

// FilterBetween loses everything between any two of the hosts. Others, such as clients, and the API server reach all
// of them.
func FilterBetween(hosts ...Port) error { return filter(hosts, hosts, "") }

// FilterMulticast loses the speakers' multicast between any two of the hosts, and nothing else: frames to the Ethernet
// addresses of 224.0.0.254 (RFC 1112, section 6.4) and of ff02::114 (RFC 2464, section 7). A switch looks at nothing else:
// frames to the groups that are addressed to one host's MAC arrive.
func FilterMulticast(hosts ...Port) error {
	return filter(hosts, hosts, "ether daddr 01:00:5e:00:00:fe", "ether daddr 33:33:00:00:01:14")
}

// Split divides the segment: everything between the two groups is lost. A host of neither reaches both, and so does
// the API server, which is on the switch itself.
func Split(a, b []Port) error { return errors.Join(filter(a, b, ""), filter(b, a, "")) }

// Heal undoes the faults of all the hosts.
func Heal(hosts ...Port) error {
	var errs []error
	for _, h := range hosts {
		errs = append(errs, h.Heal())
	}
	return errors.Join(errs...)
}

// filter drops the frames that match any of the matches and go from a host of the first group to one of the second.
func filter(from, to []Port, matches ...string) error {
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
		var rules []string
		for _, m := range matches {
			rules = append(rules, fmt.Sprintf("between iifname %s oifname { %s } %s", quoted(port), strings.Join(others, ", "), m))
		}
		if err := drop(port, rules...); err != nil {
			return err
		}
	}
	return nil
}

// drop adds rules that drop frames to the port's own table, which Heal deletes. Each begins with the name of its chain.
func drop(port string, rules ...string) error {
	var script strings.Builder
	fmt.Fprintf(&script, `
		add table bridge %[1]s
		add chain bridge %[1]s from { type filter hook prerouting priority -300; }
		add chain bridge %[1]s between { type filter hook forward priority 0; }
		add chain bridge %[1]s to { type filter hook postrouting priority 0; }
	`, port)
	for _, r := range rules {
		fmt.Fprintf(&script, "add rule bridge %s %s drop\n", port, r)
	}
	return enclave.Host{}.Script("nft '%s'", &script)
}

func quoted(name string) string { return `"` + name + `"` }
