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

// maxSuggestions is for how many unknown annotations of a Service the known one is looked for that was meant. A Service may
// have thousands.
const maxSuggestions = 16

// annotationPrefix is what the keys of Herald's annotations begin with.
const annotationPrefix = "herald.dev/"

// serviceAnnotations are the annotations of a Service that Herald reads.
var serviceAnnotations = []string{
	herald.AnnotationPool, herald.AnnotationIPs, herald.AnnotationAddresses,
	herald.AnnotationSharingKey, herald.AnnotationReclaim, herald.AnnotationRenumber,
	herald.AnnotationBGPAnnounce, herald.AnnotationBGPCommunities, herald.AnnotationBGPLocalPreference, herald.AnnotationBGPMED, herald.AnnotationBGPPrepend,
}

// writtenByOthers are annotations that other load balancers write themselves. A user asks for nothing by them.
var writtenByOthers = []string{"ip-allocated-from-pool", "allocated-by", "allocated-from", "announcing-IPv4", "announcing-IPv6", "vipHost"}

// AnnotationWarnings lists the annotations of a Service that have no effect though somebody may expect one, with what to
// write in their place.
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

// foreignWarning says of an annotation of another load balancer that it has no effect; empty: it has, or is of none.
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
			case own != "" && said && svc.Annotations[from] == svc.Annotations[key]: // Or it is the one that is read.
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

// shown returns the key of an annotation for a message. The API server lets no control characters into keys.
func shown(key string) string {
	if len(key) > maxQuoted {
		return key[:maxQuoted] + "..."
	}
	return key
}

// nearest returns the annotation that takes the fewest edits to write in place of a key.
func nearest(key string) string {
	return slices.MinFunc(serviceAnnotations, func(x, y string) int { return cmp.Compare(edits(key, x), edits(key, y)) })
}

// edits is the least number of characters to insert, delete or replace that makes one text of another (Levenshtein's
// distance).
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

// annotationHandler writes an event on a Service of ours when it has annotations without effect, once for each change of
// these. After a restart nothing is said again of a Service that has addresses.
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
