package provider

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"

	herald "github.com/heraldlb/herald/api/v1alpha1"
)

// maxSuggestions is the most unknown annotations of a Service for which a similar known one is suggested. A Service may
// have thousands of annotations.
const maxSuggestions = 16

// annotationPrefix is the prefix of the keys of Herald's annotations.
const annotationPrefix = "herald.dev/"

// serviceAnnotations are the annotations of a Service that Herald reads.
var serviceAnnotations = []string{
	herald.AnnotationPool, herald.AnnotationIPs, herald.AnnotationAddresses,
	herald.AnnotationSharingKey, herald.AnnotationReclaim, herald.AnnotationRenumber,
	herald.AnnotationBGPAnnounce, herald.AnnotationBGPCommunities, herald.AnnotationBGPLocalPreference, herald.AnnotationBGPMED, herald.AnnotationBGPPrepend,
}

// writtenByOthers are annotations that other load balancers write themselves. They are not requests of a user.
var writtenByOthers = []string{"ip-allocated-from-pool", "allocated-by", "allocated-from", "announcing-IPv4", "announcing-IPv6", "vipHost"}

// AnnotationWarnings returns a warning for each annotation of a Service that has no effect although its author may expect
// one. A warning says what to write instead.
func AnnotationWarnings(svc *corev1.Service) (list []string) {
	_, errs := herald.ParseOverrides(svc.Annotations)
	for _, err := range errs {
		list = append(list, err.Error())
	}
	unknown := 0
	for _, key := range slices.Sorted(maps.Keys(svc.Annotations)) {
		switch {
		case !strings.HasPrefix(key, annotationPrefix) || slices.Contains(serviceAnnotations, key):
		case key == herald.AnnotationQuota:
			list = append(list, key+" belongs on the Namespace")
		case unknown == maxSuggestions:
			list = append(list, shown(key)+" is not known: remove it")
		default:
			unknown++
			list = append(list, fmt.Sprintf("%s is not known: write %s, or remove it", shown(key), nearest(key)))
		}
		if text := foreignWarning(svc, key); text != "" {
			list = append(list, text)
		}
	}
	return list
}

// foreignWarning returns a warning if an annotation of another load balancer has no effect. It returns "" if the annotation
// has an effect, or belongs to no load balancer that is known here.
func foreignWarning(svc *corev1.Service, key string) string {
	for _, b := range foreignBalancers {
		for _, prefix := range b.prefixes {
			name, of := strings.CutPrefix(key, prefix)
			if !of || slices.Contains(writtenByOthers, name) {
				continue
			}
			own := b.counterparts[name]
			_, said := svc.Annotations[own]
			from := Written(svc, own)
			switch {
			case own != "" && said && svc.Annotations[from] == svc.Annotations[key]: // It is read, or has the same value.
				return ""
			case own != "" && said:
				return fmt.Sprintf("%s has no effect beside %s: remove it", shown(key), from)
			case own != "":
				return fmt.Sprintf("%s is of another load balancer: write %s", shown(key), own)
			case name == "sharing-cross-namespace":
				return fmt.Sprintf("%s is of another load balancer: write spec.shareAcrossNamespaces of the IPPool", shown(key))
			}
			return fmt.Sprintf("%s is of another load balancer and has no counterpart: remove it", shown(key))
		}
	}
	return ""
}

// shown returns the key of an annotation for a message. The API server allows no control characters in keys.
func shown(key string) string {
	if len(key) > maxQuoted {
		return key[:maxQuoted] + "..."
	}
	return key
}

// nearest returns the known annotation that is most similar to a key.
func nearest(key string) string {
	return slices.MinFunc(serviceAnnotations, func(x, y string) int { return cmp.Compare(edits(key, x), edits(key, y)) })
}

// edits returns the least number of characters to insert, delete or replace to turn one text into the other (the
// Levenshtein distance).
func edits(from, to string) int {
	row := make([]int, len(to)+1) // row[j]: from what was read of from to to[:j]
	for j := range row {
		row[j] = j
	}
	for i := range len(from) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(to) {
			replace := diagonal
			if from[i] != to[j] {
				replace++
			}
			diagonal = row[j+1]
			row[j+1] = min(replace, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(to)]
}

// annotationHandler writes an event on a Service of ours that has annotations without effect, once for each change of them.
// After a restart it writes no event again for a Service that has addresses.
func annotationHandler(s *services, events record.EventRecorder) cache.ResourceEventHandler {
	warning := func(svc *corev1.Service) string {
		if !s.wants(svc) {
			return ""
		}
		return someOf(AnnotationWarnings(svc))
	}
	tell := func(svc *corev1.Service, text string) {
		if text != "" {
			events.Event(svc, corev1.EventTypeWarning, herald.EventAnnotationWithoutEffect, text)
		}
	}
	return cache.ResourceEventHandlerDetailedFuncs{
		AddFunc: func(o any, initial bool) {
			if svc := o.(*corev1.Service); !initial || len(svc.Status.LoadBalancer.Ingress) == 0 {
				tell(svc, warning(svc))
			}
		},
		UpdateFunc: func(before, after any) {
			is := after.(*corev1.Service)
			if text := warning(is); text != warning(before.(*corev1.Service)) {
				tell(is, text)
			}
		},
	}
}
