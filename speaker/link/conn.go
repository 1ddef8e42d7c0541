package link

import (
	"net"
	"strconv"

	"github.com/mdlayher/ndp"
)

// OpenNDP opens an ICMPv6 socket on an interface. It passes the index of the interface instead of the name, because package
// net caches the index of a name for a minute, and an interface that was removed and created again has another index.
func OpenNDP(i *net.Interface, address ndp.Addr) (*ndp.Conn, error) {
	byIndex := *i
	byIndex.Name = strconv.Itoa(i.Index)
	conn, _, err := ndp.Listen(&byIndex, address)
	return conn, err
}
