package segment

import "math"

// This file decides whether this node is cut off from its segment. setStatus and remove (neighbour.go) note the number of frames from
// which on it counts. The result is used in ownership.go, which does not announce and gives addresses up, and in takeover.go, which
// chooses between even and odd terms.

// notCounted stands for a number of frames that is not known yet.
const notCounted = math.MaxUint64

// Received tells the Machine how many frames of any kind have arrived on the interface so far. A node that hears no other
// speaker and receives nothing at all is cut off, and does not announce.
func (m *Machine) Received(now Time, frames uint64) {
	defer m.startInput(now)()
	m.received = frames
	if m.receivedBefore == notCounted {
		m.receivedBefore = frames
	}
	m.updateCutOff()
}

// NeedsReceived reports whether Received matters now.
func (m *Machine) NeedsReceived() bool {
	return m.cutOff || m.living > 0 && m.statuses[alive] == 0
}

// updateCutOff decides whether this node counts as cut off: it hears no other speaker and receives nothing at all. Then it may be
// cut off from its segment, or unable to receive, and does not announce. If it receives any frame, it is neither.
func (m *Machine) updateCutOff() {
	cutOff := m.living == 0 && m.received <= m.receivedBefore
	if cutOff == m.cutOff {
		return
	}
	m.cutOff, m.cutOffSince = cutOff, m.now
	for a := range m.owned {
		m.touch(a)
	}
}

// hearsOthers reports whether this node is not cut off, as far as it knows. A suspected neighbour is not proof, because a
// node that is cut off suspects all others, one after the other. If the owner seems to be dead, another node must have been
// heard after this node missed the owner's beat: see receiveSuspect. An earlier beat is not enough, because a node that
// owns nothing sends only one beat a second.
func (m *Machine) hearsOthers(a *address) bool {
	return m.lastHeard >= a.ownerMissing && m.statuses[alive]+m.statuses[silent] > 0
}

// othersHearOneAnother reports whether some of the expected speakers hear others. The callers know that this node has heard none of
// them, so only this node is cut off.
func (m *Machine) othersHearOneAnother() bool {
	for _, e := range m.expected {
		if e.Hears {
			return true
		}
	}
	return false
}
