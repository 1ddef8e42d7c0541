package route

import (
	"slices"
	"testing"
)

func TestParseCommunity(t *testing.T) {
	for text, want := range map[string]Community{
		"64512:100":           64512<<16 | 100,
		"0:0":                 0,
		"65535:65535":         0xFFFFFFFF,
		"65535:65281":         NoExport,
		"no-export":           NoExport,
		"no-advertise":        NoAdvertise,
		"no-export-subconfed": NoExportSubconfed,
		"local-as":            NoExportSubconfed,
		"no-peer":             NoPeer,
		"blackhole":           Blackhole,
		"graceful-shutdown":   GracefulShutdown,
		"accept-own":          AcceptOwn,
		"llgr-stale":          LLGRStale,
		"no-llgr":             NoLLGR,
	} {
		got, err := ParseCommunity(text)
		if err != nil || got != want {
			t.Errorf("ParseCommunity(%q) = %#x, %v, want %#x", text, uint32(got), err, uint32(want))
		}
	}
	for _, text := range []string{"", ":", "1", "1:2:3", "65536:1", "1:65536", "-1:1", "+1:1", "01:1", " 1:1", "1:1 ", "1:x", "No-Export", "no_export"} {
		if got, err := ParseCommunity(text); err == nil {
			t.Errorf("ParseCommunity(%q) = %v, want an error", text, got)
		}
	}
}

func TestParseLargeCommunity(t *testing.T) {
	if got, err := ParseLargeCommunity("4294967295:0:7"); err != nil || got != (LargeCommunity{4294967295, 0, 7}) {
		t.Errorf("got %v, %v", got, err)
	}
	for _, text := range []string{"", "1:2", "1:2:3:4", "4294967296:1:1", "1:-1:1", "1:01:1", "a:b:c"} {
		if got, err := ParseLargeCommunity(text); err == nil {
			t.Errorf("ParseLargeCommunity(%q) = %v, want an error", text, got)
		}
	}
}

func TestParseExtendedCommunity(t *testing.T) {
	for text, want := range map[string]ExtendedCommunity{
		"rt:64512:100":         0x0002_FC00_0000_0064,
		"rt:65535:4294967295":  0x0002_FFFF_FFFF_FFFF,
		"soo:64512:100":        0x0003_FC00_0000_0064,
		"rt:65536:1":           0x0202_0001_0000_0001,
		"soo:4200000000:65535": 0x0203_FA56_EA00_FFFF,
	} {
		if got, err := ParseExtendedCommunity(text); err != nil || got != want || got.String() != text {
			t.Errorf("ParseExtendedCommunity(%q) = %#x, %v, printed as %v, want %#x", text, uint64(got), err, got, uint64(want))
		}
	}
	for _, text := range []string{"", "rt", "rt:1", "rt:1:2:3", "rt:65536:65536", "rt:4294967296:1", "rt:01:1", "soo:1:x", "color:1:1", "64512:1:2"} {
		if got, err := ParseExtendedCommunity(text); err == nil {
			t.Errorf("ParseExtendedCommunity(%q) = %v, want an error", text, got)
		}
	}
}

func TestAddCommunitiesTellsTheKindsApart(t *testing.T) {
	var got Attributes
	err := got.AddCommunities("no-export", "64512:1:2", "64512:100", "rt:64512:7")
	if err != nil || !slices.Equal(got.Communities, []Community{NoExport, 64512<<16 | 100}) ||
		!slices.Equal(got.LargeCommunities, []LargeCommunity{{64512, 1, 2}}) || !slices.Equal(got.ExtendedCommunities, []ExtendedCommunity{0x0002_FC00_0000_0007}) {
		t.Errorf("got %+v, %v", got, err)
	}
	for _, text := range []string{"64512:1:x", "nonsense", "rt:1"} {
		if err := new(Attributes).AddCommunities("no-export", text); err == nil {
			t.Errorf("%q was accepted", text)
		}
	}
}

func FuzzParseCommunity(f *testing.F) {
	for _, text := range []string{"64512:100", "no-export", "local-as", "65535:666", "1:2:3", ""} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		c, err := ParseCommunity(text)
		if err != nil {
			return
		}
		if again, err := ParseCommunity(c.String()); err != nil || again != c {
			t.Errorf("%q is %#x, which prints as %q and reads back as %#x, %v", text, uint32(c), c, uint32(again), err)
		}
	})
}

func FuzzParseExtendedCommunity(f *testing.F) {
	for _, text := range []string{"rt:64512:100", "soo:4200000000:1", "rt:1:2:3", ""} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if c, err := ParseExtendedCommunity(text); err == nil && c.String() != text {
			t.Errorf("%q prints as %q", text, c)
		}
	})
}

func FuzzParseLargeCommunity(f *testing.F) {
	for _, text := range []string{"64512:1:2", "4294967295:0:0", "1:2", ""} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if c, err := ParseLargeCommunity(text); err == nil && c.String() != text {
			t.Errorf("%q prints as %q", text, c)
		}
	})
}
