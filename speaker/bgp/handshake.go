package bgp

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"time"

	"github.com/osrg/gobgp/v4/pkg/packet/bgp"
)

// handshake is the connection of a session. It sees the messages with which the session begins, until the first KEEPALIVE of the
// router: gobgp (v4.8.0) has no BGP role in its OPEN, and does not tell which NOTIFICATION it receives before a session is
// established. gobgp reads from one goroutine at a time, and its first message is its OPEN.
type handshake struct {
	*net.TCPConn
	status *status
	opened bool   // our OPEN is sent
	begun  bool   // the router has sent its first KEEPALIVE
	theirs []byte // the roles in the router's OPEN
	unread []byte // what gobgp has not read of the last message
}

// shake returns a connection as the handshake of this session.
func (s *status) shake(conn *net.TCPConn) *handshake { return &handshake{TCPConn: conn, status: s} }

// RemoteAddr is the router's address as the peer has it. gobgp looks for its neighbour by this address, and package net may
// remember an old name of the interface. The port does not matter.
func (h *handshake) RemoteAddr() net.Addr {
	return net.TCPAddrFromAddrPort(netip.AddrPortFrom(h.status.peer.Address, h.status.peer.port()))
}

func (h *handshake) Write(message []byte) (int, error) {
	if h.opened {
		return h.TCPConn.Write(message)
	}
	h.opened = true
	with, err := h.status.peer.Role.offer(message)
	if err != nil {
		h.status.because(fact, ThisNode, "%v", err)
	} else if _, err = h.TCPConn.Write(with); err == nil {
		h.status.opens(h)
		return len(message), nil
	}
	_ = h.Close() // gobgp (v4.8.0) does not close a connection that does not take its OPEN.
	return 0, err
}

func (h *handshake) Read(into []byte) (int, error) {
	if len(h.unread) == 0 && h.begun {
		return h.TCPConn.Read(into)
	}
	if len(h.unread) == 0 {
		if err := h.next(); err != nil {
			return 0, err
		}
	}
	n := copy(into, h.unread)
	h.unread = h.unread[n:]
	return n, nil
}

// errOpening ends a connection on which one end has sent a NOTIFICATION before the session was established.
var errOpening = errors.New("the BGP session is refused")

// next reads the next message.
func (h *handshake) next() error {
	m := make([]byte, bgp.BGP_HEADER_LENGTH, bgp.BGP_MAX_MESSAGE_LENGTH)
	if _, err := io.ReadFull(h.TCPConn, m); err != nil {
		return err
	}
	length := int(binary.BigEndian.Uint16(m[16:]))
	if length < bgp.BGP_HEADER_LENGTH || length > bgp.BGP_MAX_MESSAGE_LENGTH {
		h.unread, h.begun = m, true // gobgp refuses this.
		return nil
	}
	h.unread = m[:length]
	if _, err := io.ReadFull(h.TCPConn, h.unread[len(m):]); err != nil {
		return err
	}
	switch h.unread[18] {
	case bgp.BGP_MSG_OPEN:
		h.theirs = rolesIn(h.unread)
		if ours := h.status.peer.Role; !ours.fits(h.theirs) {
			h.status.because(fact, ThisNode, "spec.role is %s, so the router must have the BGP role %s, and it has %s (RFC 9234): correct spec.role or the router", ours, ours.other(), roleNames(h.theirs))
			h.refuse(bgp.BGP_ERROR_OPEN_MESSAGE_ERROR, roleMismatch)
			return errOpening
		}
	case bgp.BGP_MSG_KEEPALIVE:
		h.begun = true
	case bgp.BGP_MSG_NOTIFICATION:
		if length >= bgp.BGP_HEADER_LENGTH+2 {
			code, subcode, data := h.unread[19], h.unread[20], h.unread[21:]
			h.status.told(code, subcode, communication(code, subcode, data), h.theirs)
		}
		return errOpening
	}
	return nil
}

// refuse sends a NOTIFICATION. It leaves closing the connection to the caller or to gobgp.
func (h *handshake) refuse(code, subcode uint8) {
	m, _ := bgp.NewBGPNotificationMessage(code, subcode, nil).Serialize()
	_ = h.SetWriteDeadline(time.Now().Add(time.Second))
	_, _ = h.TCPConn.Write(m)
}
