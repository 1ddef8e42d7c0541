package router

import (
	"bufio"
	"context"
	"fmt"
	"math"
	"net/netip"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/heraldlb/herald/e2e/lab/enclave"
)

// BIRD is a router that runs BIRD 2.
type BIRD struct {
	host   enclave.Host
	dir    string
	daemon *daemon
}

// StartBIRD starts BIRD with the given configuration and returns when it answers. When ctx ends, BIRD
// is killed; Stop ends it gracefully.
func StartBIRD(ctx context.Context, host enclave.Host, dir, config string) (*BIRD, error) {
	if err := newDirectory(dir, "bird.conf", config); err != nil {
		return nil, err
	}
	b := &BIRD{host: host, dir: dir}
	args := []string{"-f", "-c", filepath.Join(dir, "bird.conf"), "-s", b.socket(), "-P", filepath.Join(dir, "bird.pid")}
	if strings.Contains(config, birdRecovers) {
		args = append(args, "-R")
	}
	var err error
	b.daemon, err = startDaemon(ctx, host, "/usr/sbin/bird", args...)
	if err != nil {
		return nil, err
	}
	if err := b.daemon.await(ctx, func(ctx context.Context) error { _, err := b.Show(ctx, "status"); return err }); err != nil {
		_ = b.Kill()
		return nil, err
	}
	return b, nil
}

// birdRecovers makes the kernel protocol keep its routes until a recovery ends. Each start is then a recovery.
const birdRecovers = "  graceful restart on;\n  persist;"

func (b *BIRD) socket() string { return filepath.Join(b.dir, "bird.ctl") }

// Show runs birdc show.
func (b *BIRD) Show(ctx context.Context, what ...string) (string, error) {
	return b.Do(ctx, append([]string{"show"}, what...)...)
}

// Do runs birdc.
func (b *BIRD) Do(ctx context.Context, command ...string) (string, error) {
	out, err := b.host.Command(ctx, "birdc", append([]string{"-s", b.socket()}, command...)...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("birdc %v: %w: %s", command, err, out)
	}
	return string(out), nil
}

// Stop implements Router.
func (b *BIRD) Stop() error { return b.daemon.end(syscall.SIGTERM) }

// Kill implements Router.
func (b *BIRD) Kill() error { return b.daemon.end(syscall.SIGKILL) }

// Routes implements Router.
func (b *BIRD) Routes(ctx context.Context) ([]Route, error) {
	return b.routes(ctx, "all")
}

// Prefixes implements Router.
func (b *BIRD) Prefixes(ctx context.Context) ([]netip.Prefix, error) {
	routes, err := b.routes(ctx, "primary")
	var prefixes []netip.Prefix
	for _, r := range routes {
		prefixes = append(prefixes, r.Prefix)
	}
	return prefixes, err
}

// Count implements Router.
func (b *BIRD) Count(ctx context.Context) (int, error) {
	out, err := b.Show(ctx, "route", "count", "where", "source", "=", "RTS_BGP")
	if err != nil {
		return 0, err
	}
	return countBIRD(out)
}

// countBIRD adds up the first numbers of lines such as "10000 of 10002 routes for 10002 networks in table master4".
func countBIRD(out string) (sum int, err error) {
	for line := range strings.Lines(out) {
		if !strings.Contains(line, " in table ") {
			continue
		}
		n, err := strconv.Atoi(strings.Fields(line)[0])
		if err != nil {
			return 0, fmt.Errorf("BIRD's count: %q: %w", line, err)
		}
		sum += n
	}
	return sum, nil
}

func (b *BIRD) routes(ctx context.Context, which string) ([]Route, error) {
	out, err := b.Show(ctx, "route", which, "where", "source", "=", "RTS_BGP")
	if err != nil {
		return nil, err
	}
	routes, err := parseBIRD(out)
	if err != nil {
		return nil, fmt.Errorf("BIRD's routes: %w", err)
	}
	slices.SortStableFunc(routes, func(a, b Route) int { return a.Prefix.Compare(b.Prefix) })
	return routes, nil
}

// parseBIRD reads the output of "show route all". A path begins with a line whose first column is the
// prefix, or blank if the prefix is the same as above. The attributes follow, each indented by a tab.
func parseBIRD(out string) ([]Route, error) {
	var routes []Route
	var prefix netip.Prefix
	for lines := bufio.NewScanner(strings.NewReader(out)); lines.Scan(); {
		line := lines.Text()
		attribute, indented := strings.CutPrefix(line, "\t")
		if indented {
			if len(routes) == 0 {
				return nil, fmt.Errorf("an attribute before any route: %q", line)
			}
			if err := routes[len(routes)-1].readBIRD(attribute); err != nil {
				return nil, fmt.Errorf("route %v: %q: %w", prefix, attribute, err)
			}
			continue
		}
		first, rest, _ := strings.Cut(line, " ")
		if first != "" {
			p, err := netip.ParsePrefix(first)
			if err != nil {
				continue // It is the greeting or the name of a table.
			}
			prefix = p
		}
		if strings.Contains(rest, "[") {
			_, source, _ := strings.Cut(rest, "[") // neighbor0 15:19:54.477] * ...
			source, _, _ = strings.Cut(source, "]")
			_, learned, _ := strings.Cut(source, " ")
			routes = append(routes, Route{Prefix: prefix, Best: strings.Contains(rest, "] * "), Learned: learned})
		}
	}
	return routes, nil
}

func (r *Route) readBIRD(attribute string) error {
	name, value, _ := strings.Cut(attribute, ": ")
	switch name {
	case "BGP.next_hop":
		for field := range strings.FieldsSeq(value) {
			hop, err := netip.ParseAddr(field)
			if err != nil {
				return err
			}
			if hop.IsUnspecified() {
				continue // The only next hop is the link-local one that follows.
			}
			r.NextHops = append(r.NextHops, hop)
		}
	case "BGP.as_path":
		for field := range strings.FieldsSeq(value) {
			n, err := parse32(field)
			if err != nil {
				return err
			}
			r.ASPath = append(r.ASPath, *n)
		}
	case "BGP.med":
		return assign(&r.MED, value)
	case "BGP.local_pref":
		return assign(&r.LocalPreference, value)
	case "BGP.community":
		r.Communities = birdTuples(value)
	case "BGP.large_community":
		r.LargeCommunities = birdTuples(value)
	case "BGP.ext_community":
		for _, tuple := range birdTuples(value) {
			c, err := birdExtended(tuple)
			if err != nil {
				return err
			}
			r.ExtendedCommunities = append(r.ExtendedCommunities, c)
		}
		slices.Sort(r.ExtendedCommunities)
	}
	return nil
}

// birdExtended turns "ro:64512:100" into soo:64512:100, and "unknown0x4004:64512:1249125376" into lb:64512:4000000. BIRD
// does not know the link bandwidth community, and prints its float as a 32-bit integer.
func birdExtended(tuple string) (string, error) {
	kind, rest, _ := strings.Cut(tuple, ":")
	switch kind {
	case "ro":
		return "soo:" + rest, nil
	case "unknown0x4004":
		as, bits, _ := strings.Cut(rest, ":")
		n, err := parse32(bits)
		if err != nil {
			return "", err
		}
		return fmt.Sprintf("lb:%s:%.0f", as, math.Float32frombits(*n)), nil
	}
	return tuple, nil
}

// birdTuples turns "(64512,100) (64512, 1, 2)" into 64512:100 and 64512:1:2.
func birdTuples(value string) []string {
	var tuples []string
	for tuple := range strings.SplitSeq(value, ")") {
		if tuple = strings.TrimLeft(tuple, " ("); tuple != "" {
			tuples = append(tuples, strings.ReplaceAll(strings.ReplaceAll(tuple, " ", ""), ",", ":"))
		}
	}
	slices.Sort(tuples)
	return tuples
}

func assign(to **uint32, value string) (err error) {
	*to, err = parse32(value)
	return err
}

func parse32(value string) (*uint32, error) {
	n, err := strconv.ParseUint(strings.TrimSpace(value), 10, 32)
	if err != nil {
		return nil, err
	}
	v := uint32(n)
	return &v, nil
}
