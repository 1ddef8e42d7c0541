package link

import (
	"net"
	"strconv"

	"github.com/mdlayher/ndp"
)

// OpenNDP opens an ICMPv6 socket on an interface, which it names by its index: package net remembers the index of a name for
// a minute, and an interface that was removed and made again has another one.
func OpenNDP(i *net.Interface, address ndp.Addr) (*ndp.Conn, error) {
	byIndex := *i
	byIndex.Name = strconv.Itoa(i.Index)
	conn, _, err := ndp.Listen(&byIndex, address)
	return conn, err
}
