package report

import (
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	herald "github.com/heraldlb/herald/api/v1alpha1"
)

// annotations are those of a Service that Herald reads.
var annotations = []string{
	herald.AnnotationPool, herald.AnnotationIPs, herald.AnnotationAddresses, herald.AnnotationSharingKey, herald.AnnotationReclaim, herald.AnnotationRenumber,
}

// foreign are the annotations of other load balancers by their prefixes, and alike those that mean the same as one of ours.
var (
	foreign = []struct{ prefix, product string }{
		{"metallb.io/", "MetalLB"}, {"metallb.universe.tf/", "MetalLB"}, {"lbipam.cilium.io/", "Cilium"}, {"io.cilium/", "Cilium"},
		{"kube-vip.io/", "kube-vip"}, {"purelb.io/", "PureLB"}, {"lb.kubesphere.io/", "OpenELB"}, {"eip.openelb.kubesphere.io/", "OpenELB"},
	}
	alike = map[string]string{
		"metallb.io/address-pool": herald.AnnotationPool, "metallb.universe.tf/address-pool": herald.AnnotationPool,
		"metallb.io/loadBalancerIPs": herald.AnnotationIPs, "metallb.universe.tf/loadBalancerIPs": herald.AnnotationIPs,
		"metallb.io/allow-shared-ip": herald.AnnotationSharingKey, "metallb.universe.tf/allow-shared-ip": herald.AnnotationSharingKey,
		"lbipam.cilium.io/ips": herald.AnnotationIPs, "io.cilium/lb-ipam-ips": herald.AnnotationIPs,
		"lbipam.cilium.io/sharing-key": herald.AnnotationSharingKey, "io.cilium/lb-ipam-sharing-key": herald.AnnotationSharingKey,
		"kube-vip.io/loadbalancerIPs": herald.AnnotationIPs, "purelb.io/addresses": herald.AnnotationIPs, "purelb.io/service-group": herald.AnnotationPool,
	}
)

// ignored are the annotations of a Service that its author may believe Herald to read.
func ignored(svc *corev1.Service) []string {
	lines := []string{}
	for _, key := range slices.Sorted(maps.Keys(svc.Annotations)) {
		if strings.HasPrefix(key, herald.GroupVersion.Group+"/") && !slices.Contains(annotations, key) {
			lines = append(lines, unknown(key))
		}
		for _, f := range foreign {
			if !strings.HasPrefix(key, f.prefix) {
				continue
			}
			line := "annotation " + quoted(key) + " is of " + f.product + ", and Herald does not read it"
			switch ours, same := alike[key]; {
			case same && svc.Annotations[ours] != "":
				continue // It says both.
			case same:
				line += ": use " + ours
			default:
				line += ": remove it if " + f.product + " does not serve the Service"
			}
			lines = append(lines, line)
		}
	}
	return lines
}

// unknown is a line about an annotation of ours that does not exist.
func unknown(key string) string {
	line := "annotation " + quoted(key) + " is not known"
	if key == herald.AnnotationQuota {
		return line + " on a Service: set it on the namespace"
	}
	const close = 3
	best, least := "", close
	for _, known := range annotations {
		if d := distance(key, known); d < least {
			best, least = known, d
		}
	}
	if best != "" {
		return line + ": write " + best
	}
	return line + ": the annotations of a Service are " + strings.Join(annotations, ", ")
}

// distance is how many bytes have to be inserted, deleted or replaced to make one text the other (Levenshtein).
func distance(x, y string) int {
	row := make([]int, len(y)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(x) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(y) {
			change := diagonal
			if x[i] != y[j] {
				change++
			}
			diagonal = row[j+1]
			row[j+1] = min(change, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(y)]
}
