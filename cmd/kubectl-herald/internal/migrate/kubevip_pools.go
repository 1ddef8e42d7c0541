package migrate

import (
	"net/netip"
	"slices"
	"strings"

	"go4.org/netipx"
	"k8s.io/apimachinery/pkg/runtime"

	herald "github.com/heraldlb/herald/api/v1alpha1"
)

// configMap translates the ConfigMap into an IPPool for each namespace, and one for all.
func (k *kubevip) configMap(i *item) {
	for _, key := range sortedKeys(i.u.Object) {
		if !slices.Contains([]string{"apiVersion", "kind", "metadata", "data", "immutable"}, key) {
			i.unknown(key)
		}
	}
	var data map[string]string
	if !i.read("data", i.u.Object["data"], &data) {
		return
	}
	pools := map[string]*herald.IPPool{}
	var objects []runtime.Object
	for _, key := range sortedKeys(data) {
		value := data[key]
		what, namespace, found := strings.Cut(key, "-")
		switch {
		case key == "skip-end-ips-in-cidr": // It is read with the prefixes.
		case key == "search-order":
			i.approximated("data.%s: an IPPool gives out the lowest address that was never in use", key)
		case strings.HasPrefix(key, "allow-share-"):
			i.cannot("data.%s: Services of Herald's share an address by the annotation %s: give it to those that are to share one", key, herald.AnnotationSharingKey)
		case found && what == "interface":
			i.approximated("data.%s: a pool of Herald's knows no interface: name %s in spec.interfaces of an L2Advertisement with spec.namespaceSelector, or leave it out where its subnet holds the addresses", key, value)
		case found && (what == "cidr" || what == "range"):
			if what == "range" && data["cidr-"+namespace] != "" {
				i.approximated("data.%s: kube-vip takes cidr-%s, and so does the IPPool", key, namespace)
				continue
			}
			if what == "range" && namespace != "global" && data["cidr-global"] != "" {
				i.approximated("data.%s: kube-vip never takes it as long as there is a cidr-global, and no IPPool is written for it", key)
				continue
			}
			p := k.pool(i, key, namespace, value, data["skip-end-ips-in-cidr"] == "true")
			if p != nil && pools[p.Name] == nil {
				pools[p.Name] = p
				objects = append(objects, p)
			}
		default:
			i.unknown("data." + key)
		}
	}
	if len(objects) > 1 && pools["global"] != nil {
		i.approximated("data: Services of a namespace with an IPPool of its own get addresses of the global one when theirs has none left: give the global one a namespaceSelector if they must not")
	}
	i.becomes(objects...)
}

func (k *kubevip) pool(i *item, key, namespace, value string, skipEnds bool) *herald.IPPool {
	p := newIPPool(namespace)
	if namespace != "global" {
		p.Spec.Namespaces, p.Spec.Priority = []string{namespace}, 1
	}
	var texts []string
	for text := range strings.SplitSeq(value, ",") {
		if r, err := rangeOf(text); err == nil && (r.From().IsUnspecified() || r.To().IsUnspecified()) {
			i.cannot("data.%s: %s asks for addresses by DHCP, which Herald does not do: give a range that no DHCP server has", key, strings.TrimSpace(text))
			continue
		}
		if prefix, err := netip.ParsePrefix(strings.TrimSpace(text)); skipEnds && err == nil && prefix.Addr().Is4() && prefix.Bits() < 31 {
			excludeEnds(p, netipx.RangeOfPrefix(prefix.Masked()))
		}
		texts = append(texts, text)
	}
	p.Spec.Addresses = i.addresses("data."+key, texts)
	if len(p.Spec.Addresses) == 0 {
		return nil
	}
	return p
}
