package bgp

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"time"

	"github.com/mdlayher/ndp"
)

// advertisePeriod is the time between two Router Advertisements to an unnumbered router. A router that has restarted learns
// within this time that this node is there.
const advertisePeriod = 5 * time.Second

// advertise sends a Router Advertisement to a router at a link-local address with a zone (RFC 4861 section 4.2). Its lifetime
// is zero: this node is not a default router. Most Router Advertisements go to all nodes, but this one goes only to that router:
// otherwise another node on the link would take this node for its router.
func advertise(router netip.Addr) (err error) {
	i, err := net.InterfaceByName(router.Zone())
	if err != nil {
		return err
	}
	i.Name = strconv.Itoa(i.Index) // Package net caches the index of a name for a minute, and the interface may be created again.
	conn, _, err := ndp.Listen(i, ndp.LinkLocal)
	if err != nil {
		return fmt.Errorf("open an ICMPv6 socket: %w", err)
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	return conn.WriteTo(&ndp.RouterAdvertisement{Options: []ndp.Option{
		&ndp.LinkLayerAddress{Direction: ndp.Source, Addr: i.HardwareAddr},
	}}, nil, router)
}
