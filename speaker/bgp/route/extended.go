package route

import (
	"fmt"
	"strings"
)

// ExtendedCommunity is an extended community (RFC 4360): eight bytes, the first of which are its type and subtype.
type ExtendedCommunity uint64

// Types and subtypes of extended communities (https://www.iana.org/assignments/bgp-extended-communities).
const (
	typeAS2 = 0x00 // RFC 4360 §3.1: an AS number of two bytes, and a number of four
	typeAS4 = 0x02 // RFC 5668 §2: an AS number of four bytes, and a number of two

	subtypeRouteTarget  = 0x02 // RFC 4360 §4
	subtypeSiteOfOrigin = 0x03 // RFC 4360 §5, there called route origin
)

// subtypes has the kinds of extended communities that have a text form, by prefix.
var subtypes = map[string]uint64{"rt": subtypeRouteTarget, "soo": subtypeSiteOfOrigin}

// ParseExtendedCommunity parses a route target, "rt:64512:100", or a site of origin, "soo:64512:100". The number has 32 bits
// after an AS number up to 65535, and 16 bits after a larger AS number.
func ParseExtendedCommunity(text string) (ExtendedCommunity, error) {
	kind, rest, _ := strings.Cut(text, ":")
	subtype := subtypes[kind]
	if subtype == 0 {
		return 0, fmt.Errorf("extended community %q: write rt:64512:100 or soo:64512:100", text)
	}
	numbers, err := colonSeparated(rest, 2, 32)
	if err != nil {
		return 0, fmt.Errorf("extended community %q: %w; write %s:64512:100", text, err, kind)
	}
	as, number := uint64(numbers[0]), uint64(numbers[1])
	switch {
	case as <= 0xFFFF:
		return ExtendedCommunity(typeAS2<<56 | subtype<<48 | as<<32 | number), nil
	case number <= 0xFFFF:
		return ExtendedCommunity(typeAS4<<56 | subtype<<48 | as<<16 | number), nil
	}
	return 0, fmt.Errorf("extended community %q: after an AS number above 65535 there is room for a number up to 65535", text)
}

// String returns the form that ParseExtendedCommunity accepts, or the number of a community without such a form.
func (c ExtendedCommunity) String() string {
	kind := ""
	for name, subtype := range subtypes {
		if uint64(c)>>48&0xFF == subtype {
			kind = name
		}
	}
	switch {
	case kind != "" && c>>56 == typeAS2:
		return fmt.Sprintf("%s:%d:%d", kind, c>>32&0xFFFF, c&0xFFFFFFFF)
	case kind != "" && c>>56 == typeAS4:
		return fmt.Sprintf("%s:%d:%d", kind, c>>16&0xFFFFFFFF, c&0xFFFF)
	}
	return fmt.Sprintf("%#016x", uint64(c))
}
