package e2e

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/heraldlb/herald/e2e/lab"
	"github.com/heraldlb/herald/e2e/lab/enclave"
)

// losses lists the open and the failed connections in the nodes' connection tracking tables, and the kernels' counters of
// lost packets.
func (f *field) losses(failed lab.Attempts) string {
	var b strings.Builder
	var from []netip.AddrPort
	for _, a := range failed {
		if again, is := errors.AsType[*lab.SentAgainError](a.Err); is {
			from = append(from, netip.MustParseAddrPort(again.From.String()))
		}
	}
	tell := func(lines []string, err error) {
		if err != nil {
			lines = append(lines, err.Error())
		}
		for _, line := range lines {
			fmt.Fprintln(&b, line)
		}
	}
	hosts := []enclave.Host{f.site.Segment.Host}
	if f.site.Outside != nil {
		hosts = append(hosts, f.site.Outside.Host)
	}
	for _, r := range f.site.Routers {
		hosts = append(hosts, r.Host)
	}
	for _, n := range f.site.Nodes {
		hosts = append(hosts, n.Host)
		all, err := n.Connections()
		var lines []string
		for _, c := range all {
			if !c.Over() || slices.Contains(from, c.From) {
				lines = append(lines, c.String())
			}
		}
		tell(lines, err)
	}
	for _, h := range hosts {
		tell(lab.Losses(h))
	}
	tell(lab.LossesOf("app"))
	return b.String()
}
