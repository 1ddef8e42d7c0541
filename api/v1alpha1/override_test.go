package v1alpha1_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	herald "github.com/heraldlb/herald/api/v1alpha1"
)

func TestParseOverrides(t *testing.T) {
	const announce, communities, preference, med, prepend = herald.AnnotationBGPAnnounce, herald.AnnotationBGPCommunities,
		herald.AnnotationBGPLocalPreference, herald.AnnotationBGPMED, herald.AnnotationBGPPrepend
	for _, story := range []struct {
		key, text string
		want      *herald.Overrides
		err       string
	}{
		{"herald.dev/pool", "public", nil, ""},
		{announce, "false", &herald.Overrides{Silent: true}, ""},
		{announce, "true", &herald.Overrides{}, ""},
		{announce, "no", &herald.Overrides{}, `herald.dev/bgp-announce: "no" is neither true nor false`},
		{communities, "64512:100, no-export,rt:64512:7,64512:100", &herald.Overrides{Communities: &[]herald.Community{"64512:100", "no-export", "rt:64512:7"}}, ""},
		{communities, "", &herald.Overrides{Communities: &[]herald.Community{}}, ""},
		{communities, "64512:100, 65536:1", &herald.Overrides{}, `herald.dev/bgp-communities: "65536:1" is not a community: write 64512:100`},
		{communities, strings.Repeat("x", 200), &herald.Overrides{}, `xxx" is not a community`},
		{communities, numbered(32) + ",64512:1,,no-export", &herald.Overrides{}, "herald.dev/bgp-communities: there are more than 32 communities: give at most 32"},
		{communities, numbered(220), &herald.Overrides{}, "herald.dev/bgp-communities: the list has 2091 bytes: give at most 32 communities, in at most 2048 bytes"},
		{communities, strings.Repeat(",", 2049), &herald.Overrides{}, "the list has 2049 bytes"},
		{preference, "0", &herald.Overrides{LocalPreference: new(uint32(0))}, ""},
		{preference, "4294967296", &herald.Overrides{}, `"4294967296" is not a number from 0 to 4294967295`},
		{med, "10", &herald.Overrides{MED: new(uint32(10))}, ""},
		{med, "-1", &herald.Overrides{}, `herald.dev/bgp-med: "-1" is not a number`},
		{prepend, "16", &herald.Overrides{Prepend: new(uint8(16))}, ""},
		{prepend, "17", &herald.Overrides{}, `herald.dev/bgp-prepend: "17" is not a number from 0 to 16`},
	} {
		got, errs := herald.ParseOverrides(map[string]string{story.key: story.text})
		if diff := cmp.Diff(story.want, got); diff != "" {
			t.Errorf("%s=%q (-want +got):\n%s", story.key, story.text, diff)
		}
		switch {
		case story.err == "" && len(errs) > 0, story.err != "" && len(errs) != 1:
			t.Errorf("%s=%q: %v", story.key, story.text, errs)
		case story.err != "" && (!strings.Contains(errs[0].Error(), story.err) || len(errs[0].Error()) > 300):
			t.Errorf("%s=%q: %v, want %q", story.key, story.text, errs[0], story.err)
		}
	}
}

// Of a list that is too long, nothing after the first community too many is read.
func TestTheRestOfTooManyCommunitiesIsNotRead(t *testing.T) {
	_, errs := herald.ParseOverrides(map[string]string{herald.AnnotationBGPCommunities: numbered(33) + ",nonsense"})
	if len(errs) != 1 || !strings.Contains(errs[0].Error(), "more than 32") {
		t.Errorf("%v, want that there are more than 32", errs)
	}
}

// numbered lists so many communities.
func numbered(n int) string {
	var list []string
	for i := range n {
		list = append(list, fmt.Sprintf("64512:%d", i+1))
	}
	return strings.Join(list, ",")
}

// A Service may write what a BGPAdvertisement may.
func TestCommunitiesOfServicesAreThoseOfTheSchema(t *testing.T) {
	for _, k := range kinds(t) {
		if k.name != "BGPAdvertisement" {
			continue
		}
		for _, text := range []string{
			"64512:100", "0:0", "65535:65535", "65536:1", "1:65536", "01:1", "1:2:3", "4294967295:0:4294967295", "4294967296:1:1", "1:2:3:4", "1:", ":", "x", "No-Export",
			"no-export", "no-advertise", "no-export-subconfed", "no-peer", "blackhole", "graceful-shutdown", "accept-own", "no-llgr", "llgr-stale", "local-as",
			"rt:64512:100", "rt:65535:4294967295", "rt:65536:65535", "rt:65536:65536", "rt:4294967295:1", "rt:4294967296:1", "soo:1:1", "soo:01:1", "rt:1", "rt:1:2:3", "color:1:1",
		} {
			_, errs := herald.ParseOverrides(map[string]string{herald.AnnotationBGPCommunities: text})
			refused := k.invalid(map[string]any{"spec": map[string]any{"communities": []any{text}}})
			if (len(errs) > 0) != (len(refused) > 0) {
				t.Errorf("%q: of a Service %v, of a BGPAdvertisement %v", text, errs, refused)
			}
		}
	}
}

func FuzzParseOverrides(f *testing.F) {
	for _, text := range []string{"false", "64512:100, no-export", "rt:64512:100", "17", "4294967295", ""} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		for key := range herald.OverrideAnnotations {
			if o, errs := herald.ParseOverrides(map[string]string{key: text}); o == nil || len(errs) > 1 {
				t.Errorf("%s=%q: %+v, %v", key, text, o, errs)
			}
		}
	})
}
