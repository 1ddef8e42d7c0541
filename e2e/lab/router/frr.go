package router

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/heraldlb/herald/e2e/lab/enclave"
)

// FRR is a router that runs zebra and bgpd, and bfdd if the configuration uses BFD.
type FRR struct {
	host              enclave.Host
	dir               string
	zebra, bfdd, bgpd *daemon
}

// StartFRR starts FRR with the given configuration and returns when it answers. Other users must be able to
// access dir, as in the enclave's /run. When ctx ends, FRR is killed; Stop ends it gracefully.
func StartFRR(ctx context.Context, host enclave.Host, dir, config string) (*FRR, error) {
	if err := newDirectory(dir, "frr.conf", config); err != nil {
		return nil, err
	}
	// FRR drops root before it creates its sockets.
	if err := os.Chmod(dir, 0o777); err != nil {
		return nil, err
	}
	f := &FRR{host: host, dir: dir}
	if err := f.start(ctx, strings.Contains(config, "\nbfd\n"), strings.Contains(config, frrPreserves)); err != nil {
		return nil, errors.Join(err, f.Kill())
	}
	return f, nil
}

// frrPreserves tells neighbours that the kernel forwards while bgpd restarts. zebra needs its own option, with which
// the routes that it finds in the kernel stay for 20 s.
const frrPreserves = " bgp graceful-restart preserve-fw-state"

func (f *FRR) start(ctx context.Context, bfd, preserves bool) (err error) {
	var retain []string
	if preserves {
		retain = []string{"--graceful_restart", "20"}
	}
	if f.zebra, err = f.daemon(ctx, "zebra", retain...); err != nil {
		return err
	}
	// If zebra were not ready yet, bgpd would retry only seconds later.
	if err := f.zebra.await(ctx, func(context.Context) error {
		_, err := os.Stat(f.path("zserv.api"))
		return err
	}); err != nil {
		return err
	}
	if bfd {
		if f.bfdd, err = f.daemon(ctx, "bfdd", "--bfdctl", f.path("bfdd.sock")); err != nil {
			return err
		}
		if err := f.bfdd.await(ctx, func(ctx context.Context) error {
			_, err := f.Show(ctx, "show bfd peers json")
			return err
		}); err != nil {
			return err
		}
	}
	if f.bgpd, err = f.daemon(ctx, "bgpd"); err != nil {
		return err
	}
	if err := f.bgpd.await(ctx, func(ctx context.Context) error {
		_, err := f.Show(ctx, "show bgp summary json")
		return err
	}); err != nil {
		return err
	}
	// bgpd continues without the lines that it does not understand. A test must not.
	if said := f.bgpd.output.String(); strings.Contains(said, "Config Failed") || strings.Contains(said, "Unknown command") {
		return fmt.Errorf("bgpd does not take its configuration: %s", said)
	}
	return nil
}

func (f *FRR) daemon(ctx context.Context, program string, more ...string) (*daemon, error) {
	return startDaemon(ctx, f.host, filepath.Join("/usr/lib/frr", program), append([]string{
		"-u", "frr", "-g", "frr", "-P", "0", "--log", "stdout", "--vty_socket", f.dir,
		"-f", f.path("frr.conf"), "-i", f.path(program + ".pid"), "-z", f.path("zserv.api"),
	}, more...)...)
}

func (f *FRR) path(file string) string { return filepath.Join(f.dir, file) }

// Show runs vtysh commands of any mode and returns their output.
func (f *FRR) Show(ctx context.Context, commands ...string) ([]byte, error) {
	args := []string{"--vty_socket", f.dir}
	for _, c := range commands {
		args = append(args, "-c", c)
	}
	out, err := f.host.Command(ctx, "vtysh", args...).CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("vtysh %q: %w: %s", commands[0], err, out)
	}
	return out, nil
}

// Stop implements Router.
func (f *FRR) Stop() error { return f.end(syscall.SIGTERM) }

// Kill implements Router.
func (f *FRR) Kill() error { return f.end(syscall.SIGKILL) }

func (f *FRR) end(signal syscall.Signal) error {
	var errs []error
	for _, d := range []*daemon{f.bgpd, f.bfdd, f.zebra} {
		if d != nil {
			errs = append(errs, d.end(signal))
		}
	}
	return errors.Join(errs...)
}

// families are FRR's names of the address families.
var families = []string{"ipv4", "ipv6"}

// Prefixes implements Router.
func (f *FRR) Prefixes(ctx context.Context) ([]netip.Prefix, error) {
	var all []netip.Prefix
	for _, family := range families {
		prefixes, err := f.prefixes(ctx, family)
		if err != nil {
			return nil, err
		}
		all = append(all, prefixes...)
	}
	slices.SortFunc(all, netip.Prefix.Compare)
	return all, nil
}

func (f *FRR) prefixes(ctx context.Context, family string) ([]netip.Prefix, error) {
	out, err := f.Show(ctx, "show bgp "+family+" unicast json")
	if err != nil {
		return nil, err
	}
	var overview struct {
		Routes map[netip.Prefix]json.RawMessage
	}
	if err := json.Unmarshal(out, &overview); err != nil {
		return nil, fmt.Errorf("FRR's %s routes: %w", family, err)
	}
	return slices.Collect(maps.Keys(overview.Routes)), nil
}

// Count implements Router.
func (f *FRR) Count(ctx context.Context) (int, error) {
	out, err := f.Show(ctx, "show bgp summary json")
	if err != nil {
		return 0, err
	}
	return countFRR(out)
}

func countFRR(out []byte) (n int, err error) {
	var summary map[string]struct {
		Peers map[string]struct{ PfxRcd int }
	}
	if err := json.Unmarshal(out, &summary); err != nil {
		return 0, fmt.Errorf("FRR's summary: %w", err)
	}
	for _, family := range summary {
		for _, p := range family.Peers {
			n += p.PfxRcd
		}
	}
	return n, nil
}

// Routes implements Router.
func (f *FRR) Routes(ctx context.Context) ([]Route, error) {
	var routes []Route
	for _, family := range families {
		prefixes, err := f.prefixes(ctx, family)
		if err != nil {
			return nil, err
		}
		// FRR prints communities only for single prefixes. Many commands fit into one command line.
		for some := range slices.Chunk(prefixes, 500) {
			var questions []string
			for _, prefix := range some {
				questions = append(questions, fmt.Sprintf("show bgp %s unicast %v json", family, prefix))
			}
			out, err := f.Show(ctx, questions...)
			if err != nil {
				return nil, err
			}
			found, err := parseFRR(out)
			if err != nil {
				return nil, fmt.Errorf("FRR's %s routes: %w", family, err)
			}
			routes = append(routes, found...)
		}
	}
	slices.SortStableFunc(routes, func(a, b Route) int { return a.Prefix.Compare(b.Prefix) })
	return routes, nil
}

// parseFRR reads a sequence of answers to "show bgp ... PREFIX json".
func parseFRR(out []byte) ([]Route, error) {
	var routes []Route
	for answers := json.NewDecoder(bytes.NewReader(out)); ; {
		var answer struct {
			Prefix netip.Prefix
			Paths  []struct {
				ASPath    struct{ Segments []struct{ List []uint32 } }
				Metric    *uint32
				LocPrf    *uint32
				Multipath bool
				Bestpath  struct{ Overall bool }
				Community struct{ List []string }
				Large     struct{ List []string } `json:"largeCommunity"`
				Extended  struct{ String string } `json:"extendedCommunity"`
				Nexthops  []struct {
					IP    netip.Addr
					Scope string
				}
			}
		}
		if err := answers.Decode(&answer); errors.Is(err, io.EOF) {
			return routes, nil
		} else if err != nil {
			return nil, err
		}
		for _, p := range answer.Paths {
			r := Route{
				Prefix: answer.Prefix, Best: p.Bestpath.Overall || p.Multipath,
				MED: p.Metric, LocalPreference: p.LocPrf, LargeCommunities: slices.Sorted(slices.Values(p.Large.List)),
			}
			for _, s := range p.ASPath.Segments {
				r.ASPath = append(r.ASPath, s.List...)
			}
			for _, c := range p.Community.List {
				r.Communities = append(r.Communities, cmp.Or(frrCommunities[strings.ToLower(c)], c))
			}
			slices.Sort(r.Communities)
			for c := range strings.FieldsSeq(p.Extended.String) {
				if strings.Count(c, ":") == 2 { // Other fields repeat the bandwidth for humans: "(1.000 Mbps)".
					r.ExtendedCommunities = append(r.ExtendedCommunities, strings.ToLower(c))
				}
			}
			slices.Sort(r.ExtendedCommunities)
			for _, n := range p.Nexthops {
				r.NextHops = append(r.NextHops, n.IP)
			}
			routes = append(routes, r)
		}
	}
}

// frrCommunities maps the names that FRR prints in JSON, in lower case, to their numbers.
var frrCommunities = map[string]string{
	"gracefulshutdown": "65535:0",
	"acceptown":        "65535:1",
	"llgrstale":        "65535:6",
	"nollgr":           "65535:7",
	"blackhole":        "65535:666",
	"noexport":         "65535:65281",
	"noadvertise":      "65535:65282",
	"localas":          "65535:65283",
	"nopeer":           "65535:65284",
}
