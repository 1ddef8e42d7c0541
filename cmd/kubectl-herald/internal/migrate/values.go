package migrate

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"go4.org/netipx"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	herald "github.com/heraldlb/herald/api/v1alpha1"
)

// rangeOf reads a prefix, of which host bits are dropped as Go does, a range, or an address.
func rangeOf(text string) (netipx.IPRange, error) {
	text = strings.TrimSpace(text)
	if from, to, ok := strings.Cut(text, "-"); ok {
		a, err := addressOf(from)
		if err != nil {
			return netipx.IPRange{}, err
		}
		b, err := addressOf(to)
		if err != nil {
			return netipx.IPRange{}, err
		}
		r := netipx.IPRangeFrom(a, b)
		if !r.IsValid() {
			return r, fmt.Errorf("%q is no range: it goes from the lower address to the higher one, of one family", text)
		}
		return r, nil
	}
	if strings.Contains(text, "/") {
		p, err := netip.ParsePrefix(text)
		if err != nil || p.Addr().Is4In6() {
			return netipx.IPRange{}, fmt.Errorf("%q is no prefix", text)
		}
		return netipx.RangeOfPrefix(p.Masked()), nil
	}
	a, err := addressOf(text)
	return netipx.IPRangeFrom(a, a), err
}

func addressOf(text string) (netip.Addr, error) {
	a, err := netip.ParseAddr(strings.TrimSpace(text))
	if err != nil || a.Zone() != "" {
		return netip.Addr{}, fmt.Errorf("%q is no address", text)
	}
	return a.Unmap(), nil
}

// written is a range as Herald writes it.
func written(r netipx.IPRange) herald.AddressRange {
	if r.From() == r.To() {
		return herald.AddressRange(r.From().String())
	}
	if p, ok := r.Prefix(); ok {
		return herald.AddressRange(p.String())
	}
	return herald.AddressRange(r.From().String() + "-" + r.To().String())
}

// addresses writes ranges of a pool. Where they overlap they are joined.
func (i *item) addresses(field string, texts []string) (all []herald.AddressRange) {
	var ranges []netipx.IPRange
	for n, text := range texts {
		r, err := rangeOf(text)
		if err != nil {
			i.cannot("%s[%d]: %v: correct it", field, n, err)
			continue
		}
		ranges = append(ranges, r)
	}
	var set netipx.IPSetBuilder
	overlap := false
	for n, r := range ranges {
		overlap = overlap || slices.ContainsFunc(ranges[:n], r.Overlaps)
		set.AddRange(r)
	}
	if joined, err := set.IPSet(); overlap && err == nil {
		i.approximated("%s: entries overlap, and are written as one", field)
		ranges = joined.Ranges()
	}
	for _, r := range ranges {
		all = append(all, written(r))
	}
	return all
}

// requested writes the addresses that a Service asks for, and says how many of each family they are at most.
func (s *service) requested(annotation, text string) map[string]string {
	var v4, v6 int
	var list []string
	for part := range strings.SplitSeq(text, ",") {
		a, err := addressOf(part)
		switch {
		case err != nil:
			s.cannot("%s: %v: give the Service %s by hand", annotation, err, herald.AnnotationIPs)
			return nil
		case slices.Contains(list, a.String()):
			continue
		case a.Is4():
			v4++
		default:
			v6++
		}
		list = append(list, a.String())
	}
	wanted := map[string]string{herald.AnnotationIPs: strings.Join(list, ",")}
	switch {
	case max(v4, v6) > 16:
		s.cannot("%s: a Service has at most 16 addresses of each family, and this one asks for %d: ask for fewer", annotation, max(v4, v6))
		return nil
	case v4 > 0 && v6 > 0 && v4 != v6:
		s.approximated("%s: a Service has as many addresses of each family: besides those that it asks for, this one gets others", annotation)
	}
	if max(v4, v6) > 1 {
		wanted[herald.AnnotationAddresses] = strconv.Itoa(max(v4, v6))
	}
	return wanted
}

// anyOf is several selectors of which one has to match, as alternatives that Herald's objects can have one of each. One that
// is nil selects all.
func anyOf(list []metav1.LabelSelector) []*metav1.LabelSelector {
	if len(list) == 0 {
		return []*metav1.LabelSelector{nil}
	}
	key, values := "", []string{}
	for _, s := range list {
		k, v, simple := oneOf(s)
		switch {
		case selectsAll(s):
			return []*metav1.LabelSelector{nil}
		case !simple || key != "" && k != key:
			var all []*metav1.LabelSelector
			for n := range list {
				all = append(all, list[n].DeepCopy())
			}
			return all
		}
		key, values = k, append(values, v...)
	}
	if len(list) == 1 {
		return []*metav1.LabelSelector{list[0].DeepCopy()}
	}
	slices.Sort(values)
	return []*metav1.LabelSelector{{MatchExpressions: []metav1.LabelSelectorRequirement{
		{Key: key, Operator: metav1.LabelSelectorOpIn, Values: slices.Compact(values)},
	}}}
}

func selectsAll(s metav1.LabelSelector) bool { return len(s.MatchLabels)+len(s.MatchExpressions) == 0 }

// disjoint reports whether nothing can match both selectors, as far as that can be seen.
func disjoint(a, b *metav1.LabelSelector) bool {
	if a == nil || b == nil {
		return false
	}
	k, v, ok := oneOf(*a)
	l, w, also := oneOf(*b)
	return ok && also && k == l && !slices.ContainsFunc(v, func(value string) bool { return slices.Contains(w, value) })
}

// oneOf reads a selector that wants one label to have one of some values.
func oneOf(s metav1.LabelSelector) (key string, values []string, ok bool) {
	switch {
	case len(s.MatchLabels) == 1 && len(s.MatchExpressions) == 0:
		for k, v := range s.MatchLabels {
			return k, []string{v}, true
		}
	case len(s.MatchLabels) == 0 && len(s.MatchExpressions) == 1 && s.MatchExpressions[0].Operator == metav1.LabelSelectorOpIn:
		return s.MatchExpressions[0].Key, s.MatchExpressions[0].Values, true
	}
	return "", nil, false
}

// keysOf adds the labels that selectors look at.
func keysOf(keys map[string]bool, list ...metav1.LabelSelector) {
	for _, s := range list {
		for k := range s.MatchLabels {
			keys[k] = true
		}
		for _, e := range s.MatchExpressions {
			keys[e.Key] = true
		}
	}
}

// numbered is the name of the nth of several objects that one object becomes.
func numbered(name string, n int) string {
	if n == 0 {
		return name
	}
	return name + "-" + strconv.Itoa(n+1)
}

// seconds writes a time of BGP in whole seconds within bounds, and says so if that changes it.
func (i *item) seconds(field string, d *metav1.Duration, least, most time.Duration) *metav1.Duration {
	if d == nil {
		return nil
	}
	fits := min(max(d.Truncate(time.Second), least), most)
	if fits != d.Duration {
		i.approximated("%s: %v is not possible, and %v is written", field, d.Duration, fits)
	}
	return &metav1.Duration{Duration: fits}
}

// timers writes a hold time and how often a sign of life is sent.
func (i *item) timers(p *herald.BGPPeerSpec, holdField, keepaliveField string, hold, keepalive *metav1.Duration) {
	if hold == nil && keepalive != nil && keepalive.Duration > 0 {
		hold = &metav1.Duration{Duration: min(3*keepalive.Duration, 65535*time.Second)}
	}
	if hold != nil && hold.Duration == 0 {
		i.approximated("%s: a session without a hold time keeps routes to dead nodes, and Herald offers none: the hold time is 90s", holdField)
		hold, keepalive = nil, nil
	}
	p.HoldTime = i.seconds(holdField, hold, 3*time.Second, 65535*time.Second)
	switch {
	case keepalive == nil:
	case keepalive.Duration < time.Second || p.HoldTime == nil || keepalive.Truncate(time.Second) >= p.HoldTime.Duration:
		i.approximated("%s: %v is not possible with this hold time: a third of the hold time is used", keepaliveField, keepalive.Duration)
	default:
		p.KeepaliveTime = i.seconds(keepaliveField, keepalive, time.Second, 21845*time.Second)
	}
}

// secretNamespace is where herald-speaker reads the passwords of sessions.
const secretNamespace = "herald-system-peers"

// secret refers to a Secret that the other load balancer has.
func (i *item) secret(p *herald.BGPPeerSpec, field, namespace, name string) {
	if name == "" {
		return
	}
	p.PasswordSecret = &herald.SecretReference{Name: name}
	i.approximated("%s: Herald reads Secrets of type kubernetes.io/basic-auth in the namespace %s: put Secret %s/%s there, with its password under the key password", field, secretNamespace, namespace, name)
}

// clearText refers to a Secret that has yet to be made, for a password that stands in the other's object.
func (i *item) clearText(p *herald.BGPPeerSpec, field, peer string) {
	p.PasswordSecret = &herald.SecretReference{Name: peer}
	i.cannot("%s: there is a password in clear text, which is not written: kubectl create secret generic %s -n %s --type=kubernetes.io/basic-auth --from-file=password=FILE, and change the password, for whoever may read the object knows it", field, peer, secretNamespace)
}

// routerAddress writes the address of a router.
func (i *item) routerAddress(field, text, device string) (string, bool) {
	a, err := addressOf(text)
	switch {
	case err != nil:
		i.cannot("%s: %v: correct it", field, err)
		return "", false
	case a.IsLinkLocalUnicast() && a.Is6() && device == "":
		i.cannot("%s: %s is a link-local address, for which Herald needs the interface: write the BGPPeer by hand, with spec.interface", field, a)
		return "", false
	}
	return a.String(), true
}

// communityOf reads a standard or a large community in numbers.
func communityOf(text string) (herald.Community, error) {
	parts := strings.Split(text, ":")
	bits := map[int]int{2: 16, 3: 32}[len(parts)]
	if bits == 0 {
		return "", fmt.Errorf("%q is no community such as 64512:100", text)
	}
	for n, part := range parts {
		value, err := strconv.ParseUint(part, 10, bits)
		if err != nil {
			return "", fmt.Errorf("%q is no community such as 64512:100", text)
		}
		parts[n] = strconv.FormatUint(value, 10)
	}
	return herald.Community(strings.Join(parts, ":")), nil
}
