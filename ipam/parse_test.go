package ipam_test

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/heraldlb/herald/ipam"
	"go4.org/netipx"
)

func TestParseAddresses(t *testing.T) {
	tests := map[string]struct {
		addresses, exclude []string
		want               []string // ranges
		wantErr            []string // parts of the message
	}{
		"block":            {addresses: []string{"198.51.100.0/26"}, want: []string{"198.51.100.0-198.51.100.63"}},
		"address":          {addresses: []string{"198.51.100.7"}, want: []string{"198.51.100.7-198.51.100.7"}},
		"range":            {addresses: []string{"198.51.100.7-198.51.100.9"}, want: []string{"198.51.100.7-198.51.100.9"}},
		"range with space": {addresses: []string{" 198.51.100.7 - 198.51.100.9 "}, want: []string{"198.51.100.7-198.51.100.9"}},
		"range of one":     {addresses: []string{"2001:db8::1-2001:db8::1"}, want: []string{"2001:db8::1-2001:db8::1"}},
		"block of one":     {addresses: []string{"198.51.100.7/32"}, want: []string{"198.51.100.7-198.51.100.7"}},
		"both families": {
			addresses: []string{"2001:db8:1::/112", "198.51.100.100-198.51.100.120", "198.51.100.0/26"},
			want:      []string{"198.51.100.0-198.51.100.63", "198.51.100.100-198.51.100.120", "2001:db8:1::-2001:db8:1::ffff"},
		},
		"neighbours do not overlap": {
			addresses: []string{"198.51.100.0/31", "198.51.100.2/31"}, want: []string{"198.51.100.0-198.51.100.3"}},
		"exclude": {
			addresses: []string{"198.51.100.0/24"},
			exclude:   []string{"198.51.100.0", "198.51.100.10-198.51.100.19", "198.51.100.16/30", "203.0.113.0/24", "198.51.100.255"},
			want:      []string{"198.51.100.1-198.51.100.9", "198.51.100.20-198.51.100.254"},
		},
		"exclude what is unusable": {
			addresses: []string{"240.0.0.0/4", "198.51.100.0/24", "::/63"},
			exclude:   []string{"255.255.255.255", "0.0.0.0-198.51.100.9", "::/64", "ff02::1"},
			want:      []string{"198.51.100.10-198.51.100.255", "240.0.0.0-255.255.255.254", "0:0:0:1::-::1:ffff:ffff:ffff:ffff"},
		},
		"exclude everything": {addresses: []string{"198.51.100.0/24"}, exclude: []string{"198.51.0.0/16"}},

		"nothing":       {wantErr: []string{"addresses is empty"}},
		"empty entry":   {addresses: []string{"198.51.100.0/24", " "}, wantErr: []string{`addresses[1] " "`, "is empty"}},
		"words":         {addresses: []string{"public"}, wantErr: []string{`addresses[0] "public"`, "is not an IP address"}},
		"leading zero":  {addresses: []string{"198.051.100.1"}, wantErr: []string{"is not an IP address"}},
		"open range":    {addresses: []string{"198.51.100.1-"}, wantErr: []string{`"" is not an IP address`}},
		"range of CIDR": {addresses: []string{"198.51.100.0/28-198.51.100.64/28"}, wantErr: []string{`"198.51.100.0/28" is not an IP address`}},
		"end before start": {
			addresses: []string{"198.51.100.9-198.51.100.7"},
			wantErr:   []string{`addresses[0] "198.51.100.9-198.51.100.7"`, "ends before it starts", "write 198.51.100.7-198.51.100.9"},
		},
		"mixed families": {
			addresses: []string{"198.51.100.9-2001:db8::1"}, wantErr: []string{"starts with IPv4 and ends with IPv6"}},
		"host bits": {
			addresses: []string{"198.51.100.70/26"},
			wantErr:   []string{`"198.51.100.70/26"`, "has host bits set", "write 198.51.100.64/26 for the block or 198.51.100.70 for the one address"},
		},
		"host bits of IPv6": {addresses: []string{"2001:db8::1/64"}, wantErr: []string{"write 2001:db8::/64"}},
		"long prefix":       {addresses: []string{"198.51.100.0/33"}, wantErr: []string{`"33" is not a prefix length`, "0 to 32"}},
		"signed prefix":     {addresses: []string{"198.51.100.0/+8"}, wantErr: []string{"is not a prefix length"}},
		"two slashes":       {addresses: []string{"198.51.100.0/24/24"}, wantErr: []string{"is not a prefix length"}},
		"zone":              {addresses: []string{"fe80::1%eth0"}, wantErr: []string{`the zone "eth0"`, "write fe80::1"}},
		"zone in CIDR":      {addresses: []string{"fe80::%eth0/64"}, wantErr: []string{`the zone "eth0"`}},
		"mapped":            {addresses: []string{"::ffff:198.51.100.7"}, wantErr: []string{"IPv4 address written as IPv6", "write 198.51.100.7"}},
		"mapped CIDR":       {addresses: []string{"::ffff:198.51.100.0/120"}, wantErr: []string{"IPv4 address written as IPv6"}},
		"around mapped":     {addresses: []string{"::/64"}, wantErr: []string{"::/64", "unspecified", "put ::/64 into exclude"}},
		"multicast":         {addresses: []string{"239.1.2.3"}, wantErr: []string{"224.0.0.0/4", "multicast"}},
		"into multicast":    {addresses: []string{"223.255.255.0-224.0.0.1"}, wantErr: []string{"multicast", "leave those out"}},
		"not all of multicast excluded": {
			addresses: []string{"223.0.0.0-224.0.0.255"}, exclude: []string{"224.0.0.0/24", "0.0.0.0/8", "::/0"},
			wantErr: []string{`addresses[0] "223.0.0.0-224.0.0.255"`, "put 224.0.0.0/4 into exclude"},
		},
		"exclude ends before it starts": {
			addresses: []string{"198.51.100.0/24"}, exclude: []string{"198.51.100.9-198.51.100.7"}, wantErr: []string{`exclude[0] "198.51.100.9-198.51.100.7"`, "ends before it starts"}},
		"IPv6 multicast": {addresses: []string{"ff02::1"}, wantErr: []string{"ff00::/8", "multicast"}},
		"loopback":       {addresses: []string{"127.0.0.1"}, wantErr: []string{"loopback"}},
		"IPv6 loopback":  {addresses: []string{"::1"}, wantErr: []string{"loopback"}},
		"unspecified":    {addresses: []string{"0.0.0.0"}, wantErr: []string{"this network"}},
		"everything":     {addresses: []string{"0.0.0.0/0"}, wantErr: []string{"leave those out"}},
		"broadcast":      {addresses: []string{"255.255.255.255"}, wantErr: []string{"broadcast"}},
		"overlap": {
			addresses: []string{"198.51.100.0/24", "203.0.113.1", "198.51.100.255"},
			wantErr:   []string{`addresses[2] "198.51.100.255" overlaps addresses[0] "198.51.100.0/24"`, "once"},
		},
		"the same twice": {addresses: []string{"2001:db8::1", "2001:db8::1"}, wantErr: []string{"addresses[1]", "overlaps addresses[0]"}},
		"bad exclude":    {addresses: []string{"198.51.100.0/24"}, exclude: []string{"198.51.100.9/24"}, wantErr: []string{"exclude[0]", "host bits"}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			set, err := ipam.ParseAddresses(tt.addresses, tt.exclude)
			if tt.wantErr != nil {
				if err == nil {
					t.Fatalf("got %v, want an error", set.Ranges())
				}
				for _, part := range tt.wantErr {
					if !strings.Contains(err.Error(), part) {
						t.Errorf("error %q lacks %q", err, part)
					}
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, spellRanges(set)); diff != "" {
				t.Errorf("ranges (-want +got):\n%s", diff)
			}
		})
	}
}

func spellRanges(set *netipx.IPSet) []string {
	var out []string
	for _, r := range set.Ranges() {
		out = append(out, r.String())
	}
	return out
}

// FuzzParseAddresses checks that accepted addresses can be formatted and parsed again with the same
// result, include none that is excluded or unusable, and fit a pool.
func FuzzParseAddresses(f *testing.F) {
	f.Add("198.51.100.0/26", "198.51.100.100 - 198.51.100.120", "198.51.100.7")
	f.Add("2001:db8:1::/112", "198.51.100.1", "2001:db8:1::-2001:db8:1::ff")
	f.Add("198.51.100.9-198.51.100.1", "::ffff:198.51.100.1", "fe80::1%eth0")
	f.Add("198.51.100.1/24", "0.0.0.0/0", "ff00::/8")
	f.Add("240.0.0.0/4", "198.51.100.0/24", "255.255.255.255")
	f.Add("198.51.100.0/24", "2001:db8::/64", "")
	f.Add("198.51.100.0/-1", "--", "/")
	f.Fuzz(func(t *testing.T, x, y, excluded string) {
		var exclude []string
		if excluded != "" {
			exclude = append(exclude, excluded)
		}
		set, err := ipam.ParseAddresses([]string{x, y}, exclude)
		if err != nil {
			if set != nil {
				t.Fatalf("both %v and %v", set.Ranges(), err)
			}
			return
		}
		for _, r := range set.Ranges() {
			for _, addr := range []netip.Addr{r.From(), r.To()} {
				if addr.Zone() != "" || addr.Is4In6() || addr.IsMulticast() || addr.IsLoopback() || addr.IsUnspecified() {
					t.Fatalf("accepted %s from %q, %q", addr, x, y)
				}
			}
		}
		if excluded != "" {
			out, err := ipam.ParseRange(excluded)
			if err != nil {
				t.Fatalf("exclude %q was read, but not as a range: %v", excluded, err)
			}
			if set.OverlapsRange(out) {
				t.Fatalf("%v holds some of the excluded %v", set.Ranges(), out)
			}
		}
		if len(set.Ranges()) == 0 {
			return
		}
		again, err := ipam.ParseAddresses(spellRanges(set), nil)
		if err != nil {
			t.Fatalf("%v cannot be read again: %v", set.Ranges(), err)
		}
		if !again.Equal(set) {
			t.Fatalf("read again, %v is %v", set.Ranges(), again.Ranges())
		}
		a := ipam.New()
		a.SetPools([]ipam.Pool{{Name: "p", Addresses: set, AutoAssign: true}})
		lowest := set.Ranges()[0].From()
		got, err := a.Allocate(ipam.Request{Owner: owner("a"), Families: []ipam.Family{ipam.FamilyOf(lowest)}})
		if err != nil || got[0].Address != lowest {
			t.Fatalf("from %v got %v, %v", set.Ranges(), got, err)
		}
	})
}

func TestAvoidBuggy(t *testing.T) {
	for addresses, want := range map[string][]string{
		"198.51.100.0/24":               {"198.51.100.1-198.51.100.254"},
		"198.51.100.7":                  {"198.51.100.7-198.51.100.7"},
		"198.51.100.0":                  nil,
		"198.51.100.254-198.51.102.1":   {"198.51.100.254-198.51.100.254", "198.51.101.1-198.51.101.254", "198.51.102.1-198.51.102.1"},
		"223.255.255.255":               nil,
		"2001:db8::ff-2001:db8::1:0":    {"2001:db8::ff-2001:db8::1:0"},
		"198.51.100.255-198.51.101.255": {"198.51.101.1-198.51.101.254"},
	} {
		set, err := ipam.ParseAddresses([]string{addresses}, nil)
		if err != nil {
			t.Fatal(err)
		}
		if set, err = ipam.AvoidBuggy(set); err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, r := range set.Ranges() {
			got = append(got, r.String())
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", addresses, diff)
		}
	}
}
