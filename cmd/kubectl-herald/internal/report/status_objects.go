package report

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	herald "github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/ipam"
	"github.com/heraldlb/herald/provider"
)

// ccmLease is the name of herald-ccm's Lease, unless the flag --leader-elect-resource-name sets another.
const ccmLease = "herald-ccm"

// controllerProblem adds a problem if herald-ccm does not work, according to its Lease.
func (n *Network) controllerProblem(now time.Time, add addProblem) {
	if n.leases == nil {
		return
	}
	why := "has no Lease in the namespace of Herald (--herald-namespace)"
	for _, l := range n.leases {
		if l.Name == ccmLease {
			why = expired(l, now)
		}
	}
	if why != "" {
		add(ccmSilent, "", []string{}, "herald-ccm %s: no Service is given an address, and no condition brought up to date, while it does not run: see its pods", why)
	}
}

// pendingServices adds the Services that do not have what they ask for.
func (n *Network) pendingServices(ccm *CCM, add addProblem) {
	for _, name := range slices.Sorted(maps.Keys(n.services)) {
		if why := n.pending(n.services[name], ccm); why != "" {
			add(servicePending, "", []string{}, "%s %s: kubectl herald explain service %[1]s says why", name, why)
		}
	}
}

// pending says what a Service lacks; empty if it has what it asks for, or if Herald has nothing to do with it.
func (n *Network) pending(svc *corev1.Service, ccm *CCM) string {
	switch {
	case svc.DeletionTimestamp != nil:
		return ""
	case ccm.announces(svc, maps.Values(n.pools)):
		if slices.ContainsFunc(provider.Carried(svc), func(a netip.Addr) bool { return !n.recordedFor(a, svc) }) {
			return "has addresses from its controller that Herald does not announce"
		}
		return ""
	case !ccm.Serves(svc):
		return ""
	}
	switch req, err := provider.RequestOf(ccm.Foreign.Read(svc), n.namespaces[svc.Namespace], ccm.Quota); {
	case len(Addresses(svc)) == 0:
		return "waits for an address"
	case err != nil:
		return "keeps what it has: " + Clean(err.Error())
	case !met(&req, provider.Carried(svc)):
		return "does not have the addresses that it asks for"
	}
	return ""
}

// recordedFor reports whether the record of an address names a Service.
func (n *Network) recordedFor(address netip.Addr, svc *corev1.Service) bool {
	return slices.ContainsFunc(n.records, func(rec *herald.IPAllocation) bool {
		return addressOf(rec) == address && rec.Spec.ReleasedAt == nil && slices.ContainsFunc(rec.Spec.Owners, func(o herald.AllocationOwner) bool { return o.UID == svc.UID })
	})
}

// met reports whether these addresses are what a Service asks for.
func met(req *ipam.Request, has []netip.Addr) bool {
	for _, a := range req.Addresses {
		if !slices.Contains(has, a) {
			return false
		}
	}
	for _, f := range req.Families {
		n := 0
		for _, a := range has {
			if ipam.FamilyOf(a) == f {
				n++
			}
		}
		if req.RequireAll && n < max(req.Count, 1) {
			return false
		}
	}
	return true
}

// outOfRange adds the addresses in use that are in no pool or in another pool now. It returns the pools that they are from.
func (n *Network) outOfRange(add addProblem) map[string]bool {
	from := map[string]bool{}
	for _, rec := range n.records {
		c := outOfRange(rec)
		if c == nil || rec.Spec.ReleasedAt != nil {
			continue
		}
		see := "kubectl describe ipallocations.herald.dev " + rec.Name
		for _, o := range rec.Spec.Owners {
			if o.UID != "" {
				see = fmt.Sprintf("kubectl herald explain service %s/%s says what to do", o.Namespace, o.Name)
				break
			}
		}
		add(outOfItsRange, rec.Spec.Address, []string{}, "%s: %s", c.Message, see)
		from[rec.Spec.Pool] = true
	}
	return from
}

// configurationProblems adds the problems in the conditions of the configuration objects, one for each object. outOfRange
// has the pools whose addresses are already reported as out of range.
func (n *Network) configurationProblems(outOfRange map[string]bool, add addProblem) {
	report := func(kind, name, see string, conditions []metav1.Condition, known func(attention) bool) {
		all := slices.DeleteFunc(attentionOf(conditions), known)
		if len(all) == 0 {
			return
		}
		slices.SortStableFunc(all, func(x, y attention) int {
			return cmp.Compare(slices.Index(conditionsByGravity, y.Type), slices.Index(conditionsByGravity, x.Type))
		})
		text := fmt.Sprintf("%s %s: %s is not True (%s): %s", kind, name, all[0].Type, all[0].Reason, all[0].Message)
		if len(all) > 1 {
			var types []string
			for _, a := range all[1:] {
				types = append(types, a.Type)
			}
			text += "; not True either: " + strings.Join(types, ", ")
		}
		add(conditionFalse, "", []string{}, "%s: %s", text, see)
	}
	for _, name := range slices.Sorted(maps.Keys(n.pools)) {
		report("IPPool", name, "kubectl herald pools "+name, n.pools[name].Status.Conditions, func(a attention) bool {
			switch a.Type {
			case herald.PoolReady:
				return a.Reason == herald.ReasonDisabled || a.Reason == herald.ReasonExhausted // Somebody wants it to be so, or may.
			case herald.PoolAddressesAvailable:
				return true // The waiting Services are already reported.
			case herald.PoolInRange:
				return outOfRange[name]
			}
			return false
		})
	}
	none := func(attention) bool { return false }
	for _, o := range n.l2 {
		report("L2Advertisement", o.Name, "kubectl describe l2advertisements.herald.dev "+o.Name, o.Status.Conditions, none)
	}
	for _, o := range n.bgp {
		report("BGPAdvertisement", o.Name, "kubectl describe bgpadvertisements.herald.dev "+o.Name, o.Status.Conditions, none)
	}
	for _, o := range n.peers {
		report("BGPPeer", o.Name, "kubectl describe bgppeers.herald.dev "+o.Name, o.Status.Conditions, func(a attention) bool {
			return a.Type != herald.ConditionAccepted // The speakers report the states of the sessions.
		})
	}
}

// conditionsByGravity are types of conditions, the gravest last. Types that are not in the list come after them.
var conditionsByGravity = []string{herald.PoolInRange, herald.PoolExclusive, herald.PoolAddressesAvailable, herald.ConditionAnnounced, herald.PoolReady, herald.ConditionAccepted}
