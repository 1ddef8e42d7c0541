package segment

import (
	"bytes"
	"crypto/ed25519"
	"time"
)

// twin is another interface of this node on the same segment, which has the lower MAC and speaks for the node. The interface
// with the higher MAC owns nothing and sends nothing as long as it hears the other one. Without this rule both would have
// the same rank for every address, and would hear each other as strangers.
type twin struct {
	id       ID
	sequence uint64 // of its last Hello
	until    Time   // it counts until then
}

// twinTime is how long a Hello of the other interface counts. After half of this time, a beat of that interface makes this
// one ask for its Hello.
const twinTime = 4 * time.Second

// shadowed reports whether another interface of this node speaks for it.
func (m *Machine) shadowed() bool { return m.now < m.twin.until }

// receiveTwin handles a frame in this node's own name: it is from another interface of this node, or forged.
func (m *Machine) receiveTwin(k kind, r *reader, e envelope, frame []byte) Drop {
	if k != kindHello || e.boot != m.config.Boot || bytes.Compare(e.mac[:], m.iface.MAC[:]) >= 0 {
		return DropOwn
	}
	if e.sequence <= m.twin.sequence {
		return DropReplay
	}
	if !m.newSenders.allow(m.now) || !m.verifies.allow(m.now) {
		return DropRate
	}
	body := len(r.b) - signatureSize
	public, _ := m.config.Key.Public().(ed25519.PublicKey)
	if !ed25519.Verify(public, frame[:len(frame)-signatureSize], r.b[body:]) {
		return DropSignature
	}
	r.b = r.b[:body]
	h, err := r.hello()
	if err != nil {
		return DropMalformed
	}
	before := m.shadowed()
	m.twin = twin{id: idOf(e.cluster, e.boot, e.node, e.mac), sequence: e.sequence, until: m.now + twinTime}
	if h.flags&(flagLeaving|flagReplaced) != 0 {
		m.twin.until = m.now
	}
	if before != m.shadowed() {
		m.touchAll()
	}
	return ""
}

// detectTwinEnd starts to listen when the other interface has fallen silent.
func (m *Machine) detectTwinEnd() {
	if m.twin.until != 0 && !m.shadowed() {
		m.twin.until = 0
		m.listen("the other interface of this node on the segment is silent")
	}
}
