package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/heraldlb/herald/e2e/lab"
)

// TestSegmentsAreVerified is about kubectl herald status and verify: everything works, a machine without a speaker has
// the address, the kernel of a node has it, and a speaker is killed.
func TestSegmentsAreVerified(t *testing.T) {
	const address, six, document = "198.18.0.200", "2001:db8:18::200", "docs/kubectl-herald.md"
	f := withLab(t, lab.Options{Nodes: 3})
	_, err := f.access.Kubectl(f.ctx, "apply", "-f", "../manifests/rbac/viewer.yaml")
	f.must(err)
	f.pool("segment", delay(0), address, six)
	f.announce()
	f.pod("pod-1", f.site.Nodes[0].Name)
	says := func(command string, code int, want ...string) { t.Helper(); f.comesToSay(command, code, want...) }
	says("status", 0, "k8s-node1 eth0 Member 2", "k8s-node2 eth0 Member 2", "k8s-node3 eth0 Member 2") // So the rank of the nodes decides who owns an address.
	f.service("web", to8080, dualStack)
	owner := f.answeredBy(address, names(f.site)...)

	says("status --addresses", 0, "Nothing needs attention.", owner+" eth0 Member 2", "2 addresses on segments: 2 owned.", address+" default/web eth0 "+owner, six+" default/web eth0 ")
	says("verify", 0, "Asked for 2 addresses from 3 nodes.", "Nobody but its owner answers for an address, and every owner does.")

	says("verify "+address+" --from "+owner, 2, "node "+owner+" owns it and does not hear itself, and no other node was asked on the segment of its eth0")

	t.Run("for programs", func(t *testing.T) {
		f := f.within(t)
		var status struct {
			Problems  []struct{ Kind string }
			Addresses []struct{ Address, State string }
		}
		said, _ := f.ask("status", "-o", "json")
		f.must(json.Unmarshal([]byte(said), &status))
		if len(status.Problems) != 0 || len(status.Addresses) != 2 || status.Addresses[0].State != "Owned" {
			t.Errorf("%+v in\n%s", status, said)
		}
		var verified struct {
			Speakers, Addresses int
			Findings, Unasked   []struct{}
		}
		// A node that waits for CPU time may answer late.
		f.eventually("verify finds nothing", func(context.Context) error {
			said, _ := f.ask("verify", address, "--from", without(names(f.site), owner)[0], "-o", "json")
			verified.Findings, verified.Unasked = nil, nil
			f.must(json.Unmarshal([]byte(said), &verified))
			if verified.Speakers != 1 || verified.Addresses != 1 || verified.Findings == nil || len(verified.Findings)+len(verified.Unasked) != 0 {
				return fmt.Errorf("%+v in\n%s", verified, said)
			}
			return nil
		})
	})

	f.must(f.site.Segment.Host.Script("ip addr add %s/32 dev eth0", address))
	says("verify "+address, 2, address+": a machine that is not a speaker answers, with ", "node "+owner+" owns it")
	says("status", 2, address+": a machine that is not a speaker uses it: ")
	says("explain service default/web", 0, "✗ "+address+" a machine that is not a speaker uses it: ", "Next: "+address+" a machine that is not a speaker uses it: ")
	f.must(f.site.Segment.Host.Script("ip addr del %s/32 dev eth0", address))
	says("verify", 0, "Nobody but its owner answers")

	var other *lab.Node
	for _, n := range f.site.Nodes {
		if n.Name != owner {
			other = n
		}
	}
	f.must(other.Host.Script("ip addr add %s/32 dev lo", address)) // Linux answers for it on every interface.
	f.prints(document, "eth0) heard", "verify "+address)
	f.must(other.Host.Script("ip addr del %s/32 dev lo", address))
	says("verify", 0, "Nobody but its owner answers")

	f.must(f.speakers[other.Name].Kill())
	f.must(f.site.Segment.Host.Script("ip addr add %s/32 dev eth0", address))
	f.prints(document, "ADDRESS           SERVICE", "status --addresses")
	f.must(f.site.Segment.Host.Script("ip addr del %s/32 dev eth0", address))
	says("verify", 2, "Asked for 2 addresses from 2 nodes.", "node "+other.Name+" could not be asked: ")
	if said, code := f.ask("verify", "--from", "nowhere"); code != 1 || !strings.Contains(said, `there is no node "nowhere"`) {
		t.Errorf("exit code %d: %s", code, said)
	}
}
