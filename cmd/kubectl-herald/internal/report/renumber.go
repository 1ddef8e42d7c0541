package report

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	herald "github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/ipam"
	"github.com/heraldlb/herald/provider"
)

// Renumbered says which addresses a Service that has some would be given in their place. The error says why it would keep those that it
// has. Renumbered needs what Plan needs, except for Services.
func Renumbered(o *Objects, svc *corev1.Service, ccm *CCM) (string, error) {
	if !ccm.Serves(svc) {
		return "", fmt.Errorf("herald-ccm does not serve it: kubectl herald explain service %s/%s says which load balancer does", svc.Namespace, svc.Name)
	}
	o.sort()
	asking := ccm.Foreign.Read(svc).DeepCopy()
	if asking.Annotations == nil {
		asking.Annotations = map[string]string{}
	}
	asking.Annotations[herald.AnnotationRenumber] = strings.Join(Addresses(svc), ",")
	var namespace *corev1.Namespace
	if i := slices.IndexFunc(o.Namespaces, func(n *corev1.Namespace) bool { return n.Name == svc.Namespace }); i >= 0 {
		namespace = o.Namespaces[i]
	}
	req, err := provider.RequestOf(asking, namespace, ccm.Quota)
	if err != nil {
		return "", err
	}
	if o.Grants != nil {
		req.Granted, req.Claimed = o.Grants.Of(req.Owner), o.Grants.Claimed(req.Owner)
	}
	held := o.held()
	pools, _ := poolsInForce(o.Pools, nil, held)
	a, err := ipam.Rebuilt(pools, held, o.occupied())
	if err != nil {
		return "", err
	}
	given, err := a.Allocate(req)
	if err != nil {
		return "", errors.New(provider.Words(err))
	}
	certain := true
	var gets []string
	for _, al := range given {
		gets = append(gets, fmt.Sprintf("%s of pool %s", al.Address, al.Pool))
		for _, p := range o.Pools {
			certain = certain && (p.Name != al.Pool || p.Spec.AddressOrder == herald.OrderLowest)
		}
	}
	old := strings.Join(Addresses(svc), ", ")
	text := fmt.Sprintf("%s/%s would leave %s, and get %s.", svc.Namespace, svc.Name, old, strings.Join(gets, " and "))
	if !certain {
		text += " It may get another address of the pool: the one that has been free for the longest time, which only herald-ccm knows."
	}
	return text + fmt.Sprintf("\nConnections to %s would break off. Nothing was changed.\n", old), nil
}
