package bgp

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

func TestParseCommunitiesTellsTheKindsApart(t *testing.T) {
	standard, large, err := ParseCommunities("no-export", "64512:1:2", "64512:100")
	if err != nil || !slices.Equal(standard, []Community{NoExport, 64512<<16 | 100}) || !slices.Equal(large, []LargeCommunity{{64512, 1, 2}}) {
		t.Errorf("got %v, %v, %v", standard, large, err)
	}
	for _, text := range []string{"64512:1:x", "nonsense"} {
		if _, _, err := ParseCommunities("no-export", text); err == nil {
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
