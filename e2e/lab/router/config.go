package router

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// Config is the configuration of a router for tests, independent of the implementation. The router waits
// for its neighbours to connect, accepts all their routes, announces nothing, and installs the routes
// in its host's kernel.
type Config struct {
	ASN       uint32
	RouterID  netip.Addr
	Neighbors []Neighbor
	// MaximumPaths is the number of equally good paths that the kernel gets. 0 means one.
	MaximumPaths int
	// Networks are announced to all neighbours.
	Networks []netip.Prefix
	// GracefulRestart makes the kernel keep the routes when the daemon is killed, until the next daemon has learned
	// which routes stay (RFC 4724).
	GracefulRestart bool
	// Transit passes on the learned routes and does not install them in the kernel. It is for a daemon on a node.
	Transit bool
	BFD     BFD
}

// Neighbor is a peer that may connect: one address, or any address of a range.
type Neighbor struct {
	Address netip.Addr // A link-local address has its zone.
	Range   netip.Prefix
	// Unnumbered is the interface to the neighbour, in place of an address. The router sends Router Advertisements
	// there, and FRR waits for one from the neighbour.
	Unnumbered string
	ASN        uint32
	// Port is the port that the router connects to. 0 means that it waits for the neighbour.
	Port uint16
	// Password signs TCP segments (RFC 2385). It must be one word because of FRR. If it is empty nothing is signed.
	Password string
	// KeepOnNotification enables RFC 8538, which BIRD does not support.
	KeepOnNotification bool
	// MultihopTTL is the TTL for eBGP neighbours beyond this segment. 0 means that the neighbour is on the segment.
	MultihopTTL uint8
	// TTLSecurity is the number of hops of GTSM (RFC 5082). 0 means off.
	TTLSecurity uint8
	// Role is what the router is to the neighbour (RFC 9234), in the words of FRR. StrictRole: the neighbour must have a role.
	Role       string
	StrictRole bool
	// Source is this side's address. If it is not set, the router uses that of the interface.
	Source netip.Addr
	// BFD makes the router monitor the path to the neighbour by BFD, as Config.BFD configures it.
	BFD bool
	// BFDKeeps makes the router keep the routes of a gracefully restarting neighbour when BFD fails.
	BFDKeeps bool
	// Deaf makes BIRD discard the neighbour's routes.
	Deaf bool
	// NextHop, if set, replaces the neighbour's next hop for IPv4.
	NextHop netip.Addr
	// IPv4Only leaves out IPv6, which a session has to enable separately.
	IPv4Only bool
	// NoExtendedNextHop makes BIRD leave out the capability of RFC 8950 on an unnumbered session. FRR always has it.
	NoExtendedNextHop bool
}

// FRR returns the configuration for StartFRR.
func (c Config) FRR() string {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	line("router bgp %d", c.ASN)
	line(" bgp router-id %v", c.RouterID)
	line(" no bgp ebgp-requires-policy") // A test network does not need RFC 8212.
	line(" no bgp network import-check")
	line(" bgp long-lived-graceful-restart stale-time 60")
	if c.GracefulRestart {
		line(" bgp graceful-restart")
		line("%s", frrPreserves)
	}
	if slices.ContainsFunc(c.Neighbors, func(n Neighbor) bool { return n.KeepOnNotification }) {
		line(" bgp graceful-restart notification")
	}
	var names []string
	for i, n := range c.Neighbors {
		name := n.Address.WithZone("").String()
		switch {
		case n.Range.IsValid():
			name = fmt.Sprintf("range%d", i)
			line(" neighbor %s peer-group", name)
			line(" neighbor %s remote-as %d", name, n.ASN)
		case n.Unnumbered != "":
			name = n.Unnumbered
			line(" neighbor %s interface remote-as %d", name, n.ASN)
		default:
			line(" neighbor %s remote-as %d", name, n.ASN)
		}
		names = append(names, name)
		if zone := n.Address.Zone(); zone != "" {
			line(" neighbor %s interface %s", name, zone)
		}
		switch {
		case n.Port > 0:
			line(" neighbor %s port %d", name, n.Port)
			line(" neighbor %s timers connect 1", name)
		case !n.Range.IsValid():
			line(" neighbor %s passive", name)
		}
		if n.Password != "" {
			line(" neighbor %s password %s", name, n.Password)
		}
		if n.MultihopTTL > 0 {
			line(" neighbor %s ebgp-multihop %d", name, n.MultihopTTL)
		}
		if n.TTLSecurity > 0 {
			line(" neighbor %s ttl-security hops %d", name, n.TTLSecurity)
		}
		if n.Role != "" {
			strict := ""
			if n.StrictRole {
				strict = " strict-mode"
			}
			line(" neighbor %s local-role %s%s", name, n.Role, strict)
		}
		if n.Source.IsValid() {
			line(" neighbor %s update-source %v", name, n.Source)
		}
		if n.BFD {
			line(" neighbor %s bfd profile all", name)
			if n.BFDKeeps {
				line(" neighbor %s bfd check-control-plane-failure", name)
			}
		}
		if n.Range.IsValid() {
			line(" bgp listen range %v peer-group %s", n.Range, name) // The group must have its AS number by now.
		}
	}
	for _, family := range []string{"ipv4", "ipv6"} {
		line(" address-family %s unicast", family)
		for i, n := range c.Neighbors {
			if family == "ipv6" && n.IPv4Only {
				continue
			}
			line("  neighbor %s activate", names[i])
			line("  neighbor %s route-map networks out", names[i])
			if n.NextHop.IsValid() && family == "ipv4" {
				line("  neighbor %s route-map hop%d in", names[i], i)
			}
		}
		for _, network := range c.Networks {
			if network.Addr().Is4() == (family == "ipv4") {
				line("  network %v", network)
			}
		}
		if c.Transit {
			line("  table-map none")
		}
		line("  maximum-paths %d", max(c.MaximumPaths, 1))
		line("  maximum-paths ibgp %d", max(c.MaximumPaths, 1))
		line(" exit-address-family")
	}
	line("bgp as-path access-list own permit ^$")
	line("route-map networks permit 10")
	if !c.Transit {
		line(" match as-path own")
	}
	line("route-map none deny 10")
	for i, n := range c.Neighbors {
		if n.NextHop.IsValid() {
			line("route-map hop%d permit 10", i)
			line(" set ip next-hop %v", n.NextHop)
		}
	}
	c.frrBFD(line) // At the end, since bgpd does not know this block and applies its exit commands to its own blocks.
	return b.String()
}

// BIRD returns the configuration for StartBIRD.
func (c Config) BIRD() string {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	line("router id %v;", c.RouterID)
	line("protocol device {}")
	c.birdBFD(line)
	for _, family := range []string{"ipv4", "ipv6"} {
		line("protocol kernel kernel_%s {", family)
		line("  %s { import none; export where source = RTS_BGP && %t; };", family, !c.Transit)
		if c.GracefulRestart {
			line("%s", birdRecovers)
		}
		if c.MaximumPaths > 1 {
			line("  merge paths on limit %d;", c.MaximumPaths)
		}
		line("}")
	}
	for _, family := range []string{"ipv4", "ipv6"} {
		line("protocol static networks_%s {", family)
		line("  %s;", family)
		for _, network := range c.Networks {
			if network.Addr().Is4() == (family == "ipv4") {
				line("  route %v blackhole;", network)
			}
		}
		line("}")
	}
	for i, n := range c.Neighbors {
		line("protocol bgp neighbor%d {", i)
		if n.Source.IsValid() {
			line("  local %v as %d;", n.Source, c.ASN)
		} else {
			line("  local as %d;", c.ASN)
		}
		switch {
		case n.Unnumbered != "":
			line("  neighbor range fe80::/10 as %d;", n.ASN)
			line("  interface \"%s\";", n.Unnumbered)
			line("  dynamic name \"neighbor%d_\";", i)
		case n.Range.IsValid():
			line("  neighbor range %v as %d;", n.Range, n.ASN)
			line("  dynamic name \"neighbor%d_\";", i)
		case n.Port > 0:
			line("  neighbor %v port %d as %d;", n.Address, n.Port, n.ASN)
			line("  connect delay time 1;")
			line("  connect retry time 1;")
		default:
			line("  neighbor %v as %d;", n.Address, n.ASN)
			line("  passive on;")
		}
		if n.Password != "" {
			line("  password \"%s\";", n.Password)
		}
		if n.TTLSecurity > 0 {
			line("  ttl security on;")
		}
		if n.Role != "" {
			line("  local role %s;", strings.ReplaceAll(n.Role, "-", "_"))
		}
		if n.StrictRole {
			line("  require roles on;")
		}
		switch {
		case n.BFDKeeps:
			line("  bfd graceful;")
		case n.BFD:
			line("  bfd on;")
		}
		switch {
		case n.MultihopTTL > 0:
			line("  multihop %d;", n.MultihopTTL)
		case n.TTLSecurity > 1:
			line("  multihop %d;", n.TTLSecurity)
		case n.ASN == c.ASN:
			line("  direct;") // Otherwise iBGP is multihop and next hops are recursive.
		}
		if c.GracefulRestart {
			line("  graceful restart on;")
		}
		line("  error wait time 1, 2;") // The default is a minute and more without a session after an error.
		extended := ""
		if n.Unnumbered != "" && !n.NoExtendedNextHop {
			extended = " extended next hop on;"
		}
		accept := "import all;"
		if n.Deaf {
			accept = "import none;"
		}
		export, hop := "export where source = RTS_STATIC;", ""
		if c.Transit {
			export = "export where source ~ [ RTS_STATIC, RTS_BGP ];"
		}
		if n.NextHop.IsValid() {
			hop = fmt.Sprintf(" import filter { gw = %v; accept; };", n.NextHop)
		}
		line("  ipv4 { %s %s%s%s };", accept, export, extended, hop)
		if !n.IPv4Only {
			line("  ipv6 { %s %s };", accept, export)
		}
		line("}")
		if n.Unnumbered != "" {
			line("protocol radv advertise%d { interface \"%s\" { max ra interval 4; }; }", i, n.Unnumbered)
		}
	}
	return b.String()
}
