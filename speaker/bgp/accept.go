package bgp

import (
	"net"
	"reflect"
	"unsafe"

	"github.com/osrg/gobgp/v4/pkg/server"
)

// accept has a gobgp server that does not run yet take its connections from a channel.
//
// gobgp (v4.8.0) has such a channel for its listeners. But every server has listeners of its own, and two servers cannot
// listen on one port. So ours listen elsewhere, and the channel is put where gobgp's would be, before anything reads it.
// There is no other way in. A gobgp without the field fails every test of passive peers, and says so here.
func accept(s *server.BgpServer, from chan net.Conn) {
	field := reflect.ValueOf(s).Elem().FieldByName("acceptCh")
	if !field.IsValid() || field.Type() != reflect.TypeOf(from) {
		panic("gobgp takes accepted connections in another way than that of v4.8.0")
	}
	*(*chan net.Conn)(unsafe.Pointer(field.UnsafeAddr())) = from //nolint:gosec // See above.
}
