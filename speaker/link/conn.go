package link

import (
	"net"
	"strconv"

	"github.com/mdlayher/ndp"
)

// OpenNDP opens an ICMPv6 socket on an interface. Package net remembers for a minute which name each index had, so the
// socket names the interface by its index: one that was removed and made again has another.
func OpenNDP(i *net.Interface, address ndp.Addr) (*ndp.Conn, error) {
	byIndex := *i
	byIndex.Name = strconv.Itoa(i.Index)
	conn, _, err := ndp.Listen(&byIndex, address)
	return conn, err
}
