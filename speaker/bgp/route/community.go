package route

import (
	"cmp"
	"fmt"
	"strconv"
	"strings"
)

// Community is a standard community (RFC 1997): an AS number and a value of sixteen bits each.
type Community uint32

// Well-known communities (https://www.iana.org/assignments/bgp-well-known-communities).
const (
	GracefulShutdown  Community = 0xFFFF0000 // RFC 8326
	AcceptOwn         Community = 0xFFFF0001 // RFC 7611
	LLGRStale         Community = 0xFFFF0006 // RFC 9494
	NoLLGR            Community = 0xFFFF0007 // RFC 9494
	Blackhole         Community = 0xFFFF029A // RFC 7999
	NoExport          Community = 0xFFFFFF01 // RFC 1997
	NoAdvertise       Community = 0xFFFFFF02 // RFC 1997
	NoExportSubconfed Community = 0xFFFFFF03 // RFC 1997; routers also call it local-as
	NoPeer            Community = 0xFFFFFF04 // RFC 3765
)

// wellKnown lists the names that are accepted. If a value has several names, the first is printed.
var wellKnown = []struct {
	name  string
	value Community
}{
	{"graceful-shutdown", GracefulShutdown},
	{"accept-own", AcceptOwn},
	{"llgr-stale", LLGRStale},
	{"no-llgr", NoLLGR},
	{"blackhole", Blackhole},
	{"no-export", NoExport},
	{"no-advertise", NoAdvertise},
	{"no-export-subconfed", NoExportSubconfed},
	{"local-as", NoExportSubconfed},
	{"no-peer", NoPeer},
}

// ParseCommunity parses "64512:100" or the name of a well-known community, such as "no-export".
func ParseCommunity(text string) (Community, error) {
	for _, w := range wellKnown {
		if w.name == text {
			return w.value, nil
		}
	}
	numbers, err := colonSeparated(text, 2, 16)
	if err != nil {
		return 0, fmt.Errorf("community %q: %w; write 64512:100 or a well-known name such as no-export", text, err)
	}
	return Community(numbers[0]<<16 | numbers[1]), nil
}

// String returns the well-known name or the two numbers, in the form that ParseCommunity accepts.
func (c Community) String() string {
	for _, w := range wellKnown {
		if w.value == c {
			return w.name
		}
	}
	return fmt.Sprintf("%d:%d", c>>16, c&0xFFFF)
}

// LargeCommunity is a large community (RFC 8092), which has room for a four-byte AS number.
type LargeCommunity struct {
	Global, Local1, Local2 uint32
}

// ParseLargeCommunity parses "4200000000:1:2" (RFC 8092 §5).
func ParseLargeCommunity(text string) (LargeCommunity, error) {
	numbers, err := colonSeparated(text, 3, 32)
	if err != nil {
		return LargeCommunity{}, fmt.Errorf("large community %q: %w; write 4200000000:1:2", text, err)
	}
	return LargeCommunity{numbers[0], numbers[1], numbers[2]}, nil
}

// String returns the three numbers, in the form that ParseLargeCommunity accepts.
func (c LargeCommunity) String() string {
	return fmt.Sprintf("%d:%d:%d", c.Global, c.Local1, c.Local2)
}

func (c LargeCommunity) compare(d LargeCommunity) int {
	return cmp.Or(cmp.Compare(c.Global, d.Global), cmp.Compare(c.Local1, d.Local1), cmp.Compare(c.Local2, d.Local2))
}

// AddCommunities adds communities of all kinds. A text that begins with "rt:" or "soo:" is an extended community, and a text
// with two colons is a large one.
func (a *Attributes) AddCommunities(texts ...string) error {
	for _, text := range texts {
		kind, _, _ := strings.Cut(text, ":")
		switch {
		case subtypes[kind] != 0:
			c, err := ParseExtendedCommunity(text)
			if err != nil {
				return err
			}
			a.ExtendedCommunities = append(a.ExtendedCommunities, c)
		case strings.Count(text, ":") == 2:
			c, err := ParseLargeCommunity(text)
			if err != nil {
				return err
			}
			a.LargeCommunities = append(a.LargeCommunities, c)
		default:
			c, err := ParseCommunity(text)
			if err != nil {
				return err
			}
			a.Communities = append(a.Communities, c)
		}
	}
	return nil
}

func colonSeparated(text string, count, bits int) ([]uint32, error) {
	fields := strings.Split(text, ":")
	if len(fields) != count {
		return nil, fmt.Errorf("not %d numbers with colons between them", count)
	}
	numbers := make([]uint32, count)
	for i, field := range fields {
		n, err := strconv.ParseUint(field, 10, bits)
		if err != nil {
			return nil, fmt.Errorf("%q is not a number of %d bits", field, bits)
		}
		// RFC 8092 §5: no leading zeros. This also makes the printed form equal to the input.
		if strconv.FormatUint(n, 10) != field {
			return nil, fmt.Errorf("%q has leading zeros", field)
		}
		numbers[i] = uint32(n)
	}
	return numbers, nil
}
