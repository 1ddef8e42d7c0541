package link

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"

	"github.com/mdlayher/ndp"
	"golang.org/x/net/ipv6"
)

const (
	// The number of the first Router Solicitations, and the time between two of them (RFC 4861 section 10).
	maxSolicitations     = 3
	solicitationInterval = 4 * time.Second
	// SolicitationPeriod is the time between two Router Solicitations after the first ones.
	SolicitationPeriod = time.Minute
	// maxAdvertisements bounds how many advertisements are read in a second, because each read costs a system call.
	maxAdvertisements = 100
)

// HearRouters listens for Router Advertisements on the link of an interface (RFC 4861 section 6.1.2) until ctx ends. For each
// of them it calls heard with the link-local address of the router, without a zone. It ignores the advertisements of this
// machine. It sends Router Solicitations, three at first (section 6.3.7) and then one every [SolicitationPeriod], so that it
// hears routers again as long as they are present. It needs the capability NET_RAW.
//
// It returns an error when heard returns one, and in a flood of advertisements, because it may then have missed a router.
//
// HearRouters identifies routers for certain. [Routers] also returns neighbours that only forward packets, once the kernel
// has asked for their MAC addresses.
func HearRouters(ctx context.Context, i Interface, heard func(netip.Addr) error) (err error) {
	device, err := net.InterfaceByName(i.Name)
	if err != nil {
		return fmt.Errorf("interface %s: %w", i.Name, err)
	}
	conn, err := OpenNDP(device, ndp.LinkLocal)
	if err != nil {
		return fmt.Errorf("open an ICMPv6 socket on %s, which needs a link-local address there and the capability NET_RAW: %w", i.Name, err)
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	defer context.AfterFunc(ctx, func() { _ = conn.SetReadDeadline(time.Unix(1, 0)) })()
	var only ipv6.ICMPFilter
	only.SetAll(true)
	only.Accept(ipv6.ICMPTypeRouterAdvertisement)
	if err := errors.Join(conn.SetICMPFilter(&only), conn.SetControlMessage(ipv6.FlagHopLimit, true)); err != nil {
		return fmt.Errorf("filter ICMPv6 on %s: %w", i.Name, err)
	}
	var own map[netip.Addr]bool
	buffer := make([]byte, 16) // Only the header is read: the sender is all that matters.
	solicitations, received := 0, 0
	var solicit, second time.Time // when the next solicitation is due, and when received began to count
	for {
		now := time.Now()
		if !now.Before(solicit) {
			if own, err = addressesOf(device); err != nil {
				return fmt.Errorf("the addresses of %s: %w", i.Name, err)
			}
			if err := conn.WriteTo(&ndp.RouterSolicitation{}, nil, netip.IPv6LinkLocalAllRouters()); err != nil {
				return fmt.Errorf("send a Router Solicitation on %s: %w", i.Name, err)
			}
			solicitations++
			solicit = now.Add(pauseAfter(solicitations))
			if err := conn.SetReadDeadline(solicit); err != nil {
				return fmt.Errorf("wait for Router Advertisements on %s: %w", i.Name, err)
			}
		}
		if ctx.Err() != nil {
			return nil // Check this last: SetReadDeadline may have replaced the deadline of ctx.
		}
		_, control, from, err := conn.ReadRaw(buffer)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			continue
		}
		if err != nil {
			return fmt.Errorf("receive Router Advertisements on %s: %w", i.Name, err)
		}
		if now.Sub(second) > time.Second {
			second, received = now, 0
		}
		if received++; received > maxAdvertisements {
			return fmt.Errorf("more than %d Router Advertisements a second come on %s: find the machine that sends them", maxAdvertisements, i.Name)
		}
		if from = from.WithZone(""); control != nil && control.HopLimit == ndp.HopLimit && from.IsLinkLocalUnicast() && !own[from] {
			if err := heard(from); err != nil {
				return err
			}
		}
	}
}

// pauseAfter returns the time until the next Router Solicitation, after this many of them.
func pauseAfter(solicitations int) time.Duration {
	if solicitations < maxSolicitations {
		return solicitationInterval
	}
	return SolicitationPeriod
}

func addressesOf(device *net.Interface) (map[netip.Addr]bool, error) {
	all, err := device.Addrs()
	own := map[netip.Addr]bool{}
	for _, a := range all {
		if n, ok := a.(*net.IPNet); ok {
			address, _ := netip.AddrFromSlice(n.IP)
			own[address.Unmap()] = true
		}
	}
	return own, err
}
