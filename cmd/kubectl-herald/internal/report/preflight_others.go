package report

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// balancer is another load balancer for Services.
type balancer struct {
	name  string
	image string // A part of the image name of the program that assigns addresses.
	group string // The API group of its custom resources.
	// leaves returns why the program in this container ignores Services without a class; empty if it does not.
	leaves func(c *corev1.Container) string
	cure   string // How to make it ignore them.
}

var balancers = []balancer{
	{"MetalLB", "metallb/controller", "metallb.io", func(c *corev1.Container) string {
		return whenSet("--lb-class", value(slices.Concat(c.Command, c.Args), "lb-class"))
	}, "give its controller and its speakers --lb-class"},
	{"MetalLB", "metallb-controller", "metallb.io", func(c *corev1.Container) string {
		return whenSet("--lb-class", value(slices.Concat(c.Command, c.Args), "lb-class"))
	}, "give its controller and its speakers --lb-class"},
	{"kube-vip's cloud provider", "kube-vip-cloud-provider", "", func(c *corev1.Container) string {
		return whenTrue("KUBEVIP_ENABLE_LOADBALANCERCLASS", env(c, "KUBEVIP_ENABLE_LOADBALANCERCLASS"))
	}, "set its KUBEVIP_ENABLE_LOADBALANCERCLASS"},
	{"kube-vip", "kube-vip/kube-vip", "", func(c *corev1.Container) string {
		if env(c, "svc_enable") != "true" && !slices.Contains(slices.Concat(c.Command, c.Args), "--services") {
			return "it serves the control plane alone"
		}
		return whenTrue("lb_class_only", env(c, "lb_class_only"))
	}, "set its lb_class_only"},
	{"PureLB", "purelb/allocator", "purelb.io", nil, "uninstall it"},
	{"OpenELB", "openelb", "network.kubesphere.io", nil, "uninstall it"},
	{"k3s' servicelb", "klipper-lb", "", nil, "start the servers of k3s with --disable=servicelb"},
}

func whenSet(what, value string) string {
	if value == "" {
		return ""
	}
	return what + " is " + quoted(value)
}

func whenTrue(what, value string) string {
	if value != "true" {
		return ""
	}
	return what + " is set"
}

// env returns the value of an environment variable that is set directly in the container.
func env(c *corev1.Container, name string) string {
	for _, e := range c.Env {
		if e.Name == name {
			return e.Value
		}
	}
	return ""
}

// others looks for other load balancers, which would serve the Services that Herald serves.
func (p *preflight) others() {
	before := len(p.Problems) + len(p.Warnings)
	running := map[string]bool{}
	rivals := func(name, where, leaves, cure string) {
		if running[name] && name == "k3s' servicelb" {
			return // It has a DaemonSet for each Service.
		}
		running[name] = true
		switch {
		case !p.ccm.Classless:
			p.fine(loadBalancers, "%s is there, too (%s): herald-ccm with --serve-classless=false leaves the Services without a class to it", name, where)
		case leaves != "":
			p.fine(loadBalancers, "%s is there, too (%s), and leaves Services without a class alone: %s", name, where, leaves)
		default:
			p.problem(loadBalancers, nil, "%s (%s) serves Services without a class, as herald-ccm does, and both would write their addresses: %s, or start herald-ccm with --serve-classless=false", name, where, cure)
		}
	}
	for _, w := range p.workloads() {
		for i := range w.spec.Containers {
			c := &w.spec.Containers[i]
			for _, b := range balancers {
				if !strings.Contains(c.Image, b.image) {
					continue
				}
				leaves := ""
				if b.leaves != nil {
					leaves = b.leaves(c)
				}
				rivals(b.name, w.name, leaves, b.cure)
				break
			}
		}
	}
	if len(p.CiliumPools) > 0 {
		rivals("Cilium's LB IPAM", "CiliumLoadBalancerIPPool "+some(p.CiliumPools), "", "start Cilium with defaultLBServiceIPAM=none, or delete its pools")
	}
	if !running["k3s' servicelb"] && p.ccm.Classless {
		var likely []string
		for _, n := range p.Nodes {
			var args []string
			if err := json.Unmarshal([]byte(n.Annotations["k3s.io/node-args"]), &args); err == nil && slices.Contains(args, "server") && !disablesServiceLB(args) {
				likely = append(likely, n.Name)
			}
		}
		if len(likely) > 0 {
			p.problem(loadBalancers, likely, "k3s' servicelb is not disabled on %s, and would serve each Service of type LoadBalancer: start the servers of k3s with --disable=servicelb", some(likely))
		}
	}
	p.clouds()
	if p.may(loadBalancers, "whether other load balancers run", "daemonsets.apps", "deployments.apps", "pods") {
		for _, b := range balancers {
			if b.group != "" && p.servesGroup(b.group) && !running[b.name] {
				running[b.name] = true // It may have several images.
				p.warn(loadBalancers, nil, "the API group %s of %s is there, and nothing that runs is known as its controller: delete its CustomResourceDefinitions if it is uninstalled", b.group, b.name)
			}
		}
		if len(p.Problems)+len(p.Warnings) == before && len(running) == 0 {
			p.fine(loadBalancers, "no other load balancer is found")
		}
	}
	p.may(loadBalancers, "whether Cilium gives out addresses", "ciliumloadbalancerippools.cilium.io")
}

// withoutBalancer are providers in the provider IDs of nodes that have no load balancer, or one that has its own check.
var withoutBalancer = []string{"k3s", "rke2", "kind", "metal3"}

// clouds looks for cloud providers, whose service controllers also serve Services without a class.
func (p *preflight) clouds() {
	of := map[string][]string{}
	for _, n := range p.Nodes {
		if name, _, ok := strings.Cut(n.Spec.ProviderID, "://"); ok && !slices.Contains(withoutBalancer, name) {
			of[name] = append(of[name], n.Name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(of)) {
		if p.ccm.Classless {
			p.warn(loadBalancers, of[name], "%s of the cloud provider %s, whose cloud controller manager may serve Services without a class, too: start that with --controllers=*,-service-lb-controller, or herald-ccm with --serve-classless=false", subject(of[name], "is", "are"), name)
		}
	}
}

func disablesServiceLB(args []string) bool {
	for i, a := range args {
		list, ok := strings.CutPrefix(a, "--disable=")
		if a == "--disable" && i+1 < len(args) {
			list, ok = args[i+1], true
		}
		if ok && slices.Contains(strings.Split(list, ","), "servicelb") {
			return true
		}
	}
	return false
}

// services checks the Services with addresses that Herald has not assigned, and what will happen to these addresses.
func (p *preflight) services() {
	if !p.may(servicesServed, "which Services have addresses, and whether they would keep them", "services", "ippools.herald.dev", "ipallocations.herald.dev", "namespaces") {
		return
	}
	recorded := map[string]bool{}
	for _, rec := range p.Allocations {
		for _, o := range rec.Spec.Owners {
			recorded[o.Namespace+"/"+o.Name+" "+rec.Spec.Address] = true
		}
	}
	waits := map[string]string{}
	for _, w := range p.plan.Waiting {
		waits[w.Service] = w.Reason
	}
	gets := map[string][]string{}
	for _, s := range p.plan.Served {
		for _, a := range s.Addresses {
			gets[s.Service] = append(gets[s.Service], a.Address)
		}
	}
	kept, ours, others := map[string][]string{}, 0, map[string]int{}
	slices.SortFunc(p.Services, byName)
	for _, svc := range p.Services {
		if svc.Spec.Type != corev1.ServiceTypeLoadBalancer {
			continue
		}
		if !p.ccm.Serves(svc) {
			others[elsewhere(svc)]++
			continue
		}
		ours++
		name, writer := nameOf(svc), writerOf(svc)
		var foreign []string
		for _, a := range Addresses(svc) {
			if !recorded[name+" "+a] {
				foreign = append(foreign, a)
			}
		}
		lost := slices.DeleteFunc(slices.Clone(foreign), func(a string) bool { return slices.Contains(gets[name], a) })
		has := fmt.Sprintf("%s has %s, which %s wrote", name, strings.Join(foreign, ", "), writer)
		switch {
		case len(foreign) == 0:
		case len(lost) == 0:
			kept[writer] = append(kept[writer], name)
		case len(p.plan.Pools) == 0:
			p.unchecked(servicesServed, "%s: there are no pools, so what becomes of it is not known: give those that you are going to apply with -f", has)
		case waits[name] != "":
			p.problem(servicesServed, nil, "%s, and would wait with Herald: %s", has, waits[name])
		default:
			p.problem(servicesServed, nil, "%s, and would be given %s by Herald: give a pool the addresses that it has, or give the Service a class of the other load balancer", has, cmp.Or(strings.Join(gets[name], ", "), "others"))
		}
	}
	for _, writer := range slices.Sorted(maps.Keys(kept)) {
		p.fine(servicesServed, "%s addresses that %s wrote, and would keep them with Herald: %s", count(len(kept[writer]), "Service has", "Services have"), writer, some(kept[writer]))
	}
	for _, class := range slices.Sorted(maps.Keys(others)) {
		p.fine(servicesServed, "Herald leaves %s of type LoadBalancer to others: %s", count(others[class], "Service", "Services"), class)
	}
	p.fine(servicesServed, "%s of type LoadBalancer would be served by Herald", count(ours, "Service", "Services"))
}

// elsewhere says why herald-ccm does not serve a Service.
func elsewhere(svc *corev1.Service) string {
	if svc.Spec.LoadBalancerClass == nil {
		return "without a class (--serve-classless=false)"
	}
	return "class " + quoted(*svc.Spec.LoadBalancerClass)
}

// traces are annotations that load balancers write on the Services that they serve.
var traces = []struct{ annotation, of string }{
	{"metallb.io/ip-allocated-from-pool", "MetalLB"}, {"metallb.universe.tf/ip-allocated-from-pool", "MetalLB"}, {"purelb.io/allocated-by", "PureLB"},
	{"kube-vip.io/vipHost", "kube-vip"}, {"kube-vip.io/loadbalancerIPs", "kube-vip"},
}

// writerOf returns who wrote the addresses in the status of a Service, as far as managed fields and annotations show it.
func writerOf(svc *corev1.Service) string {
	who := "somebody"
	for _, m := range svc.ManagedFields {
		if m.Subresource == "status" && m.FieldsV1 != nil && strings.Contains(m.FieldsV1.GetRawString(), `"f:loadBalancer"`) {
			who = quoted(m.Manager)
		}
	}
	for _, t := range traces {
		if _, ok := svc.Annotations[t.annotation]; ok {
			return t.of + " (as " + who + ")"
		}
	}
	return who
}
