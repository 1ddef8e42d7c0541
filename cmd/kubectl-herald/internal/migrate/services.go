package migrate

import (
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"

	herald "github.com/heraldlb/herald/api/v1alpha1"
)

// service is a Service of type LoadBalancer.
type service struct {
	*item
	// class is spec.loadBalancerClass.
	class string
	// wanted are the annotations of Herald that the Service needs.
	wanted map[string]string
	// lost are the addresses in its status that it would not keep.
	lost []netip.Addr
}

// services returns the Services of type LoadBalancer.
func (t *translation) services() []*service {
	for _, i := range t.of("", "Service") {
		kind, _, _ := unstructured.NestedString(i.u.Object, "spec", "type")
		if kind != string(corev1.ServiceTypeLoadBalancer) {
			t.Others++
			continue
		}
		if !i.metadata() {
			continue
		}
		class, _, _ := unstructured.NestedString(i.u.Object, "spec", "loadBalancerClass")
		t.served = append(t.served, &service{item: i, class: class, wanted: map[string]string{}})
	}
	return t.served
}

// annotations translates annotations of Services. given returns those of a Service by name; one is called
// for each.
func (t *translation) annotations(given func(*service) map[string]string, one func(s *service, name, value string)) {
	for _, s := range t.services() {
		annotations := given(s)
		for _, name := range sortedKeys(annotations) {
			one(s, name, annotations[name])
		}
		s.bound()
	}
}

// given returns the annotations of the Service with a prefix, by the part of the key after the prefix.
func (s *service) given(prefix string) map[string]string {
	given := map[string]string{}
	for key, value := range s.u.GetAnnotations() {
		if name, ok := strings.CutPrefix(key, prefix); ok {
			given[name] = value
		}
	}
	return given
}

// want adds an annotation of Herald that the Service needs, unless its value is empty.
func (s *service) want(annotation, value string) {
	if value != "" {
		s.wanted[annotation] = value
	}
}

// wants adds annotations of Herald that the Service needs.
func (s *service) wants(annotations map[string]string) { maps.Copy(s.wanted, annotations) }

// requested returns annotations for the addresses that a Service asks for, and for their number, which is
// the larger of the numbers of both families.
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

// boundElsewhere reports whether the class of the Service is not Herald's.
func (s *service) boundElsewhere() bool { return s.class != "" && s.class != herald.LoadBalancerClass }

// bound notes what to do with a class that binds the Service to the other load balancer.
func (s *service) bound() {
	if s.boundElsewhere() {
		s.cannot("spec.loadBalancerClass %s cannot be changed while the Service is there: create the Service again without it, or start herald-ccm with --load-balancer-class=%s once nothing else serves this class, and with --serve-classless=false if something else serves Services without a class", s.class, s.class)
	}
}

// annotate adds the command that sets Herald's annotations on the Service, if it needs any.
func (s *service) annotate() {
	if len(s.wanted) == 0 {
		return
	}
	words := []string{"kubectl", "annotate", "service"}
	if s.u.GetNamespace() != "" {
		words = append(words, "-n", quoted(s.u.GetNamespace()))
	}
	words = append(words, quoted(s.u.GetName()))
	var keys []string
	for _, key := range sortedKeys(s.wanted) {
		words = append(words, quoted(key+"="+s.wanted[key]))
		keys = append(keys, key)
	}
	s.t.Annotations = append(s.t.Annotations, strings.Join(words, " "))
	if s.t.Wanted == nil {
		s.t.Wanted = map[types.NamespacedName]map[string]string{}
	}
	s.t.Wanted[types.NamespacedName{Namespace: s.u.GetNamespace(), Name: s.u.GetName()}] = s.wanted
	s.translated("%s", strings.Join(keys, ", "))
}

// quoted quotes a word for a shell.
func quoted(text string) string {
	plain := func(r rune) bool {
		return strings.ContainsRune("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_./=:,", r)
	}
	if text != "" && !strings.ContainsFunc(text, func(r rune) bool { return !plain(r) }) {
		return text
	}
	return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'"
}
