package bgp

import (
	"net"
	"reflect"
	"time"
	"unsafe"

	"github.com/osrg/gobgp/v4/pkg/server"
)

// accept makes a gobgp server that does not run yet take its connections from a channel.
//
// gobgp (v4.8.0) has such a channel for its listeners. But every server has its own listeners, and two servers cannot listen
// on one port. Therefore this package has its own listeners. It also connects by itself, see dial.go. It replaces gobgp's channel
// before anything reads it. gobgp offers no other way. With a gobgp without this field, accept panics and every test fails.
func accept(s *server.BgpServer, from chan net.Conn) {
	field := reflect.ValueOf(s).Elem().FieldByName("acceptCh")
	if !field.IsValid() || field.Type() != reflect.TypeOf(from) {
		panic("gobgp takes accepted connections in another way than that of v4.8.0")
	}
	*(*chan net.Conn)(unsafe.Pointer(field.UnsafeAddr())) = from //nolint:gosec // See above.
}

// queueOf returns the channel with what a gobgp server has queued for its one neighbour.
//
// gobgp (v4.8.0) closes this queue when the neighbour is gone, and does not empty it. The goroutine of the queue would then wait
// for ever, with all that is left.
func queueOf(s *server.BgpServer) (queue reflect.Value) {
	neighbours := reflect.ValueOf(s).Elem().FieldByName("neighborMap")
	for _, address := range neighbours.MapKeys() {
		field := neighbours.MapIndex(address).Elem().FieldByName("fsm").Elem().FieldByName("outgoingCh")
		readable := reflect.NewAt(field.Type(), unsafe.Pointer(field.UnsafeAddr())).Elem() //nolint:gosec // See above.
		queue = readable.MethodByName("Out").Call(nil)[0]
	}
	return queue
}

// empty reads a queue until it is closed, which takes a moment.
func empty(queue reflect.Value) {
	if !queue.IsValid() {
		return
	}
	cases := []reflect.SelectCase{{Dir: reflect.SelectRecv, Chan: queue}, {Dir: reflect.SelectRecv, Chan: reflect.ValueOf(time.After(time.Second))}}
	for {
		if chosen, _, open := reflect.Select(cases); chosen == 1 || !open {
			return
		}
	}
}
