package segment

import (
	"net/netip"
	"time"
)

// A stranger is a machine that is no speaker and uses one of our addresses. An address is probed for strangers when it is
// new, and, where it is not to be defended, when nobody is known to have had it. While one is found, nobody takes the
// address. An address that is to be defended stays with its owner when a stranger comes later. Of the others the
// owner says so when it gives them up, and all nodes leave them alone until the stranger has been silent for a time.
const (
	recheck      = 10 * time.Second // before an address in conflict is probed again
	strangerTime = time.Minute      // of a stranger before an address is used again that is not to be defended
)

// check says whether a stranger uses an address.
type check uint8

const (
	unchecked check = iota
	checking
	free
	conflicting
)

// Checked tells whether a probe found a stranger that uses the address.
func (m *Machine) Checked(now Time, addr netip.Addr, stranger bool) {
	defer m.begin(now)()
	a := m.addresses[addr]
	if a == nil || a.checked != checking {
		return
	}
	switch {
	case stranger:
		a.stranger = now
		a.conflict(now)
	case a.stranger != 0 && !a.defended() && now-a.stranger < strangerTime:
		a.conflict(now)
	default:
		a.checked, a.stranger = free, 0
	}
	m.touch(a)
}

// Conflict tells that a stranger uses an address, though nobody has asked for it.
func (m *Machine) Conflict(now Time, addr netip.Addr) {
	defer m.begin(now)()
	if a := m.addresses[addr]; a != nil {
		m.dispute(a)
	}
}

// dispute notes a stranger, and leaves the address to it unless it is to be defended.
func (m *Machine) dispute(a *address) {
	a.stranger = m.now
	m.judgeStranger(a)
}

// judgeStranger leaves an address that is not to be defended to a stranger that was seen lately.
func (m *Machine) judgeStranger(a *address) {
	known := a.checked == conflicting || a.checked == checking // It is probed again then, or at the moment.
	if !a.defended() && !known && a.stranger != 0 && m.now-a.stranger < strangerTime {
		a.conflict(m.now)
		m.touch(a)
	}
}

// conflict has the address probed again in a while.
func (a *address) conflict(now Time) { a.checked, a.recheck = conflicting, now+recheck }

func (a *address) defended() bool { return a.want != nil && a.want.Defend }

// disputed reports whether the address is to be left to a stranger.
func (a *address) disputed() bool { return a.checked == conflicting && !a.defended() }

// doubtful reports whether the address has to be probed before it is used.
func (a *address) doubtful() bool {
	if a.want.Defend {
		return a.want.New && a.seen == 0
	}
	return a.seen == 0 || a.checked == conflicting || a.checked == checking
}

// undisputed notes that another node uses the address: it has not found a stranger, or not any more.
func (a *address) undisputed() {
	if a.checked == conflicting {
		a.checked, a.stranger = unchecked, 0
	}
}

// cede gives an address up that a stranger uses. Whoever hears that does not take it.
func (m *Machine) cede(a *address) {
	m.disown(a, change{addr: a.Addr, stranger: true})
	m.event(Event{Kind: EventRelease, Addr: a.Addr, Text: "a stranger uses it"})
}
