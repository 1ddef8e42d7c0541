package segment

import (
	"bytes"
	"crypto/ed25519"
)

// receiveSigned verifies a frame in an envelope: docs/l2-protocol.md, "What is authenticated". Cheap checks come before
// the signature.
func (m *Machine) receiveSigned(k kind, r *reader, from MAC, frame []byte) Drop {
	e := r.envelope()
	if r.failed || len(r.b) < signatureSize {
		return DropMalformed
	}
	if e.cluster != m.cluster() {
		return DropCluster
	}
	if e.mac != from {
		return DropSource
	}
	if e.node == m.config.Node {
		return m.receiveTwin(k, r, e, frame)
	}
	id, known := m.identities[e.node]
	if !known || id.Boot != e.boot {
		m.needKey(e, known)
		if known && m.neighbours[e.node] != nil {
			return DropOldBoot
		}
		return DropUnknownKey
	}
	n := m.neighbours[e.node]
	if n != nil && n.boot == e.boot && n.mac != e.mac && n.living() && bytes.Compare(n.mac[:], e.mac[:]) < 0 {
		return DropSource // A second interface on the segment: the one with the lower MAC speaks.
	}
	if n != nil && (n.boot != e.boot || n.mac != e.mac) {
		n = nil
	}
	if n == nil && k != kindHello {
		m.askUnknown(idOf(e.cluster, e.boot, e.node, e.mac))
		return DropUnknownNode
	}
	if n != nil && n.window.seen(e.sequence) || n == nil && m.ended[source{e.node, e.mac}].replays(e) {
		return DropReplay
	}
	if n != nil && !n.verifies.allow(m.now) || n == nil && !m.newSenders.allow(m.now) || !m.verifies.allow(m.now) {
		return DropRate
	}
	body := len(r.b) - signatureSize
	m.verified++
	if !ed25519.Verify(id.Key, frame[:len(frame)-signatureSize], r.b[body:]) {
		return DropSignature
	}
	r.b = r.b[:body]
	return m.receiveVerified(k, r, e, n)
}

func (m *Machine) receiveVerified(k kind, r *reader, e envelope, n *neighbour) Drop {
	switch k {
	case kindHello:
		h, err := r.hello()
		if err != nil {
			return DropMalformed
		}
		if n == nil {
			n = m.meet(e)
		}
		n.window.note(e.sequence)
		m.receiveHello(n, h)
	case kindUpdate:
		u, err := r.update()
		if err != nil {
			return DropMalformed
		}
		n.window.note(e.sequence)
		m.receiveUpdate(n, u)
	case kindPage:
		p, err := r.page()
		if err != nil {
			return DropMalformed
		}
		n.window.note(e.sequence)
		m.receivePage(n, p)
	case kindFormer:
		f, err := r.former()
		if err != nil {
			return DropMalformed
		}
		n.window.note(e.sequence)
		m.receiveFormer(f)
	}
	return ""
}

// keyQuestion is a question for the identity of the sender of a frame.
type keyQuestion struct {
	at   Time
	boot uint64
	id   ID
}

// needKey asks for the Identity of a frame's sender, but not too often. The rate of questions about names that are not known
// is limited.
func (m *Machine) needKey(e envelope, known bool) {
	if q, ok := m.askedKeys[e.node]; ok && m.now-q.at < keyAskPeriod || !known && !m.keys.allow(m.now) {
		return
	}
	if len(m.askedKeys) > 4096 {
		clear(m.askedKeys)
	}
	m.askedKeys[e.node] = keyQuestion{at: m.now, boot: e.boot, id: idOf(e.cluster, e.boot, e.node, e.mac)}
	m.out.Keys = append(m.out.Keys, e.node)
}

// window is the anti-replay window of RFC 4303, section 3.4.3, 64 frames wide.
type window struct {
	high uint64
	bits uint64
}

// seen reports whether the number has arrived before, or is too old to tell.
func (w window) seen(n uint64) bool {
	if n > w.high {
		return false
	}
	return w.high-n >= 64 || w.bits&(1<<(w.high-n)) != 0
}

func (w *window) note(n uint64) {
	if n > w.high {
		if shift := n - w.high; shift < 64 {
			w.bits = w.bits<<shift | 1
		} else {
			w.bits = 1
		}
		w.high = n
		return
	}
	w.bits |= 1 << (w.high - n)
}
