package segment

import (
	"net/netip"
	"time"
)

// A stranger is a machine that is not a speaker and uses one of our addresses. An address is probed for strangers when it
// is new. An address without Defend is also probed when no previous owner is known. As long as a probe finds a stranger, no
// node takes the address. An address with Defend stays with its owner when a stranger comes later. An address without
// Defend is given up: the owner names the stranger as the reason, and all nodes leave the address alone until the stranger
// has been silent for a time.
//
// An address is conflicting after a stranger was found, until a later probe finds none or another node claims it. It is disputed if,
// besides, it is not to be defended: then its owner cedes it. It is doubtful if it has to be probed before this node takes it.
//
// contend (takeover.go) asks for the probes, speaker/strangers.go has speaker/responder send them, and released and receiveUpdate
// (claims.go) read the reason in a release.
const (
	recheck      = 10 * time.Second // before an address in conflict is probed again
	strangerTime = time.Minute      // of a stranger's silence before an address without Defend is used again
)

// check says whether a stranger uses an address.
type check uint8

const (
	unchecked check = iota
	checking
	free
	conflicting
)

// Checked tells the Machine whether a probe found a stranger that uses the address.
func (m *Machine) Checked(now Time, addr netip.Addr, stranger bool) {
	defer m.startInput(now)()
	a := m.addresses[addr]
	if a == nil || a.checked != checking {
		return
	}
	switch {
	case stranger:
		a.stranger = now
		a.probeLater(now)
	case a.stranger != 0 && !a.defended() && now-a.stranger < strangerTime:
		a.probeLater(now)
	default:
		a.checked, a.stranger = free, 0
	}
	m.touch(a)
}

// Conflict tells the Machine that a stranger uses an address, without a probe.
func (m *Machine) Conflict(now Time, addr netip.Addr) {
	defer m.startInput(now)()
	if a := m.addresses[addr]; a != nil {
		m.dispute(a)
	}
}

// dispute records a stranger, and leaves the address to it unless the address is to be defended.
func (m *Machine) dispute(a *address) {
	a.stranger = m.now
	m.leaveToStranger(a)
}

// leaveToStranger leaves an address that is not to be defended to a stranger that was seen lately.
func (m *Machine) leaveToStranger(a *address) {
	known := a.checked == conflicting || a.checked == checking // It will be probed again, or is being probed.
	if !a.defended() && !known && a.stranger != 0 && m.now-a.stranger < strangerTime {
		a.probeLater(m.now)
		m.touch(a)
	}
}

// probeLater makes this node leave the address alone until another probe, which it schedules.
func (a *address) probeLater(now Time) { a.checked, a.recheck = conflicting, now+recheck }

func (a *address) defended() bool { return a.want != nil && a.want.Defend }

// disputed reports whether this node leaves the address to a stranger.
func (a *address) disputed() bool { return a.checked == conflicting && !a.defended() }

// doubtful reports whether the address has to be probed before it is used.
func (a *address) doubtful() bool {
	if a.want.Defend {
		return a.want.New && a.highestTerm == 0
	}
	return a.highestTerm == 0 || a.checked == conflicting || a.checked == checking
}

// undisputed records that another node uses the address: that node found no stranger, or finds none any more.
func (a *address) undisputed() {
	if a.checked == conflicting {
		a.checked, a.stranger = unchecked, 0
	}
}

// cede gives up an address that a stranger uses. A node that hears the release does not take the address.
func (m *Machine) cede(a *address) {
	m.dropClaim(a, change{addr: a.Addr, stranger: true})
	m.event(Event{Kind: EventRelease, Addr: a.Addr, Text: "a stranger uses it"})
}
