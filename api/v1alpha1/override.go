package v1alpha1

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// ServiceOverride is a setting of a BGPAdvertisement that a Service overrides.
//
// +kubebuilder:validation:Enum=Announce;Communities;LocalPreference;MED;Prepend
type ServiceOverride string

// The service overrides. OverrideAnnotations has their annotations.
const (
	OverrideAnnounce        ServiceOverride = "Announce"
	OverrideCommunities     ServiceOverride = "Communities"
	OverrideLocalPreference ServiceOverride = "LocalPreference"
	OverrideMED             ServiceOverride = "MED"
	OverridePrepend         ServiceOverride = "Prepend"
)

const (
	// AnnotationBGPAnnounce on a Service says whether its addresses are announced to routers, "true" or "false".
	AnnotationBGPAnnounce = "herald.dev/bgp-announce"
	// AnnotationBGPCommunities on a Service lists the communities of its routes, separated by commas. If it is empty, they
	// have none.
	AnnotationBGPCommunities = "herald.dev/bgp-communities"
	// AnnotationBGPLocalPreference, AnnotationBGPMED and AnnotationBGPPrepend on a Service are numbers as in the
	// BGPAdvertisement.
	AnnotationBGPLocalPreference = "herald.dev/bgp-local-preference"
	AnnotationBGPMED             = "herald.dev/bgp-med"
	AnnotationBGPPrepend         = "herald.dev/bgp-prepend"
)

// OverrideAnnotations has the annotations by which a Service overrides settings.
var OverrideAnnotations = map[string]ServiceOverride{
	AnnotationBGPAnnounce: OverrideAnnounce, AnnotationBGPCommunities: OverrideCommunities,
	AnnotationBGPLocalPreference: OverrideLocalPreference, AnnotationBGPMED: OverrideMED, AnnotationBGPPrepend: OverridePrepend,
}

// Overrides are the settings that a Service overrides, if the BGPAdvertisement permits that.
//
// +kubebuilder:object:generate=false
type Overrides struct {
	Silent               bool         // It is not announced.
	Communities          *[]Community // nil: those of the BGPAdvertisement
	LocalPreference, MED *uint32
	Prepend              *uint8
}

// ParseOverrides reads the annotations of a Service. It returns nil if the Service has none of these. Invalid values are left
// out, and each error names the annotation and the remedy.
func ParseOverrides(annotations map[string]string) (*Overrides, []error) {
	var o Overrides
	var errs []error
	some := false
	for _, key := range slices.Sorted(maps.Keys(OverrideAnnotations)) {
		text, given := annotations[key]
		if !given {
			continue
		}
		some = true
		if err := o.read(OverrideAnnotations[key], strings.TrimSpace(text)); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", key, err))
		}
	}
	if !some {
		return nil, nil
	}
	return &o, errs
}

func (o *Overrides) read(what ServiceOverride, text string) (err error) {
	switch what {
	case OverrideAnnounce:
		switch text {
		case "true", "false":
			o.Silent = text == "false"
		default:
			err = fmt.Errorf("%.64q is neither true nor false", text)
		}
	case OverrideCommunities:
		o.Communities, err = parseCommunities(text)
	case OverrideLocalPreference:
		o.LocalPreference, err = parseNumber(text)
	case OverrideMED:
		o.MED, err = parseNumber(text)
	case OverridePrepend:
		var n uint64
		if n, err = strconv.ParseUint(text, 10, 8); err != nil || n > maxPrepend {
			return fmt.Errorf("%.64q is not a number from 0 to %d", text, maxPrepend)
		}
		o.Prepend = new(uint8(n))
	}
	return err
}

const (
	// maxPrepend and maxCommunities are the bounds of a BGPAdvertisement.
	maxPrepend, maxCommunities = 16, 32
	// maxCommunitiesText is the maximum length of a list of communities, in bytes. The longest community has 32. Every speaker
	// reads the annotation often, and the API server permits 256 KiB.
	maxCommunitiesText = 2048
)

func parseNumber(text string) (*uint32, error) {
	n, err := strconv.ParseUint(text, 10, 32)
	if err != nil {
		return nil, fmt.Errorf("%.64q is not a number from 0 to 4294967295", text)
	}
	return new(uint32(n)), nil
}

func parseCommunities(text string) (*[]Community, error) {
	if len(text) > maxCommunitiesText {
		return nil, fmt.Errorf("the list has %d bytes: give at most %d communities, in at most %d bytes", len(text), maxCommunities, maxCommunitiesText)
	}
	all := []Community{}
	for part := range strings.SplitSeq(text, ",") {
		c := Community(strings.TrimSpace(part))
		switch {
		case c == "", slices.Contains(all, c):
		case !c.valid():
			return nil, fmt.Errorf("%.64q is not a community: write 64512:100, 64512:1:100, rt:64512:100, soo:64512:100 or a name such as no-export", string(c))
		case len(all) == maxCommunities:
			return nil, fmt.Errorf("there are more than %d communities: give at most %[1]d", maxCommunities)
		default:
			all = append(all, c)
		}
	}
	return &all, nil
}

var (
	communityNames = []Community{"no-export", "no-advertise", "no-export-subconfed", "no-peer", "blackhole", "graceful-shutdown", "accept-own", "no-llgr"}
	communityForm  = regexp.MustCompile(`^(?:(rt|soo):)?(0|[1-9][0-9]{0,9}):(0|[1-9][0-9]{0,9})(?::(0|[1-9][0-9]{0,9}))?$`)
)

// valid reports whether c is valid by the validation rule of Community.
func (c Community) valid() bool {
	if slices.Contains(communityNames, c) {
		return true
	}
	parts := communityForm.FindStringSubmatch(string(c))
	if parts == nil {
		return false
	}
	within := func(text string, most uint64) bool {
		n, err := strconv.ParseUint(text, 10, 64)
		return err == nil && n <= most
	}
	const short, long = 1<<16 - 1, 1<<32 - 1
	kind, x, y, z := parts[1], parts[2], parts[3], parts[4]
	switch {
	case kind != "":
		return z == "" && within(x, long) && (within(x, short) && within(y, long) || within(y, short))
	case z != "":
		return within(x, long) && within(y, long) && within(z, long)
	}
	return within(x, short) && within(y, short)
}
