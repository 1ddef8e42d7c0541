package v1alpha1_test

import (
	"net/netip"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/util/validation"
	"pgregory.net/rapid"

	herald "github.com/heraldlb/herald/api/v1alpha1"
)

func TestAllocationName(t *testing.T) {
	for address, name := range map[string]string{
		"198.51.100.7":         "198.51.100.7",
		"203.0.113.255":        "203.0.113.255",
		"2001:db8::7":          "2001-0db8-0000-0000-0000-0000-0000-0007",
		"2001:DB8:0:0::7":      "2001-0db8-0000-0000-0000-0000-0000-0007",
		"2001:db8:a:b:c:d:e:f": "2001-0db8-000a-000b-000c-000d-000e-000f",
	} {
		a := netip.MustParseAddr(address)
		if got := herald.AllocationName(a); got != name {
			t.Errorf("%s is named %s, want %s", address, got, name)
		}
		if got, err := herald.ParseAllocationName(name); err != nil || got != a {
			t.Errorf("%s is the name of %s (%v), want %s", name, got, err, a)
		}
	}
}

// One address has one name: any other spelling is refused, and the refusal shows how it is done.
func TestOtherSpellingsAreNoNames(t *testing.T) {
	for _, name := range []string{
		"", "web", "198.51.100", "198.51.100.07", "198.51.100.256", "198-51-100-7", " 198.51.100.7", "198.51.100.0/24",
		"2001--7", "2001-db8-0-0-0-0-0-7", "2001:0db8:0000:0000:0000:0000:0000:0007", "2001-0DB8-0000-0000-0000-0000-0000-0007",
		"2001-0db8-0000-0000-0000-0000-0000", "2001-0db8-0000-0000-0000-0000-0000-0007-0008", "2001-0db8-0000-0000-0000-0000-198.51.100.7",
	} {
		got, err := herald.ParseAllocationName(name)
		if err == nil {
			t.Errorf("%q is taken for %s", name, got)
			continue
		}
		for _, says := range []string{"198.51.100.7", "2001-0db8-0000-0000-0000-0000-0000-0007"} {
			if !strings.Contains(err.Error(), says) {
				t.Errorf("%q does not say %s", err, says)
			}
		}
	}
}

func TestAddressesAndNamesAreOneToOne(t *testing.T) {
	address := rapid.Custom(func(t *rapid.T) netip.Addr {
		bytes := rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "bytes")
		if rapid.Bool().Draw(t, "IPv4") {
			bytes = bytes[:4]
		}
		a, _ := netip.AddrFromSlice(bytes)
		return a
	})
	rapid.Check(t, func(t *rapid.T) {
		a, b := address.Draw(t, "a"), address.Draw(t, "b")
		name := herald.AllocationName(a)
		if problems := validation.IsDNS1123Subdomain(name); len(problems) > 0 {
			t.Fatalf("%s is not the name of an object: %v", name, problems)
		}
		if back, err := herald.ParseAllocationName(name); err != nil || back != a {
			t.Fatalf("%s is named %s, which is the name of %s (%v)", a, name, back, err)
		}
		if (a == b) != (name == herald.AllocationName(b)) {
			t.Fatalf("%s and %s are both named %s", a, b, name)
		}
	})
}

func FuzzParseAllocationName(f *testing.F) {
	for _, name := range []string{"198.51.100.7", "2001-0db8-0000-0000-0000-0000-0000-0007", "2001--7", "::1", "-", "0000-0000-0000-0000-0000-ffff-c633-6407"} {
		f.Add(name)
	}
	f.Fuzz(func(t *testing.T, name string) {
		address, err := herald.ParseAllocationName(name)
		switch {
		case err == nil && (!address.IsValid() || herald.AllocationName(address) != name):
			t.Fatalf("%q is taken for %s, whose name is %q", name, address, herald.AllocationName(address))
		case err != nil && address.IsValid():
			t.Fatalf("%q is refused and yet is %s", name, address)
		}
	})
}
