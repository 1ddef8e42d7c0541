package bgp

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/osrg/gobgp/v4/pkg/packet/bgp"
)

// Role is what one end of an external session is to the other end (RFC 9234 section 3). The empty Role is none.
type Role string

// The roles.
const (
	RoleProvider Role = "Provider"
	RoleRSServer Role = "RSServer"
	RoleRSClient Role = "RSClient"
	RoleCustomer Role = "Customer"
	RolePeer     Role = "Peer"
)

// roles are in the order of their numbers in the capability. The other end of each has the role at the same place in others.
var (
	roles  = []Role{RoleProvider, RoleRSServer, RoleRSClient, RoleCustomer, RolePeer}
	others = []Role{RoleCustomer, RoleRSClient, RoleRSServer, RoleProvider, RolePeer}
)

const (
	roleCapability bgp.BGPCapabilityCode = 9
	roleMismatch   uint8                 = 11 // a subcode of OPEN Message Error
	// onlyToCustomer is the type of the path attribute of section 5.
	onlyToCustomer bgp.BGPAttrType = 35
)

// other returns the role that the other end must have.
func (r Role) other() Role { return others[slices.Index(roles, r)] }

// capability returns the capability that offers the role (section 4.1).
func (r Role) capability() *bgp.CapUnknown {
	return bgp.NewCapUnknown(roleCapability, []byte{byte(slices.Index(roles, r))}) //nolint:gosec // Up to 4.
}

// errLayout ends a connection on which the role cannot be offered.
var errLayout = errors.New("the BGP role of this node cannot be offered: its OPEN has no room for it, or has another layout than that of gobgp v4.8.0")

// offer adds the role to an OPEN of gobgp's. It returns an error unless the OPEN has one optional parameter, with capabilities
// (RFC 5492 section 4), and room for another capability without the lengths of RFC 9072.
func (r Role) offer(open []byte) ([]byte, error) {
	if r == "" {
		return open, nil
	}
	capability, err := r.capability().Serialize()
	if err != nil {
		return nil, err
	}
	const version, lengthOfAll, kind, length, first = 19, 28, 29, 30, 31 // places in an OPEN
	size := len(open) + len(capability)
	if len(open) < first || int(binary.BigEndian.Uint16(open[16:])) != len(open) || open[18] != bgp.BGP_MSG_OPEN || open[version] != 4 ||
		int(open[lengthOfAll]) != len(open)-kind || open[kind] != bgp.BGP_OPT_CAPABILITY || int(open[length]) != len(open)-first ||
		size-kind >= 255 { // RFC 9072: 255 stands for lengths of two bytes.
		return nil, errLayout
	}
	with := append(slices.Clone(open), capability...)
	binary.BigEndian.PutUint16(with[16:], uint16(size)) //nolint:gosec // Less than 300.
	with[lengthOfAll] += byte(len(capability))
	with[length] += byte(len(capability))
	if got := rolesIn(with); len(got) != 1 || roleName(got[0]) != string(r) {
		return nil, errLayout // The capabilities have errors, or one of them is a role.
	}
	return with, nil
}

// rolesIn returns the numbers of the different roles in a message if it is an OPEN; 255 stands for a capability that is not valid.
func rolesIn(message []byte) (all []byte) {
	m, err := bgp.ParseBGPMessage(message)
	if err != nil {
		return nil // gobgp says so, too.
	}
	open, is := m.Body.(*bgp.BGPOpen)
	if !is {
		return nil
	}
	for _, parameter := range open.OptParams {
		capabilities, is := parameter.(*bgp.OptionParameterCapability)
		if !is {
			continue
		}
		for _, c := range capabilities.Capability {
			if number, is := roleIn(c); is && !slices.Contains(all, number) {
				all = append(all, number)
			}
		}
	}
	return all
}

// roleIn returns the number of the role if a capability offers one.
func roleIn(c bgp.ParameterCapabilityInterface) (number byte, is bool) {
	unknown, is := c.(*bgp.CapUnknown)
	switch {
	case !is || unknown.CapCode != roleCapability:
		return 0, false
	case len(unknown.CapValue) != 1:
		return 255, true
	}
	return unknown.CapValue[0], true
}

// fits reports whether a session is permitted if the router's OPEN has these roles (section 4.2). A router without roles is
// permitted.
func (r Role) fits(theirs []byte) bool {
	return r == "" || len(theirs) == 0 || len(theirs) == 1 && roleName(theirs[0]) == string(r.other())
}

func roleName(number byte) string {
	if int(number) < len(roles) {
		return string(roles[number])
	}
	return fmt.Sprintf("unknown (%d)", number)
}

func roleNames(numbers []byte) string {
	var names []string
	for _, n := range numbers {
		names = append(names, roleName(n))
	}
	return strings.Join(names, " and ")
}

// marks reports whether routes to the router get the attribute Only to Customer (section 5, egress rule 1): the router must not
// pass them on to its own providers and peers.
func (r Role) marks() bool { return r == RoleProvider || r == RolePeer || r == RoleRSServer }

// onlyToCustomers returns the attribute Only to Customer of routes that begin in an AS.
func onlyToCustomers(asn uint32) bgp.PathAttributeInterface {
	return bgp.NewPathAttributeUnknown(bgp.BGP_ATTR_FLAG_OPTIONAL|bgp.BGP_ATTR_FLAG_TRANSITIVE, onlyToCustomer, binary.BigEndian.AppendUint32(nil, asn))
}
