package bgp

import (
	"net"
	"reflect"
	"unsafe"

	"github.com/osrg/gobgp/v4/pkg/server"
)

// accept makes a gobgp server that does not run yet take its connections from a channel.
//
// gobgp (v4.8.0) has such a channel for its listeners. But every server has its own listeners, and two servers cannot listen
// on one port. Therefore this package has its own listeners, and replaces gobgp's channel before anything reads it. gobgp
// offers no other way. With a gobgp without this field, accept panics and every test of passive peers fails.
func accept(s *server.BgpServer, from chan net.Conn) {
	field := reflect.ValueOf(s).Elem().FieldByName("acceptCh")
	if !field.IsValid() || field.Type() != reflect.TypeOf(from) {
		panic("gobgp takes accepted connections in another way than that of v4.8.0")
	}
	*(*chan net.Conn)(unsafe.Pointer(field.UnsafeAddr())) = from //nolint:gosec // See above.
}
