package migrate

import (
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// kubeVIPEnvironment has the variables of kube-vip.
type kubeVIPEnvironment struct {
	// text has the values of the variables by name. It is empty for variables that take their value
	// from another object.
	text map[string]string
	// password is the name of the Secret with bgp_peerpass, if there is one.
	password string
}

// yes reports whether the value of a variable is true.
func (e *kubeVIPEnvironment) yes(name string) bool {
	on, err := strconv.ParseBool(e.text[name])
	return err == nil && on
}

// kubeVIPRead are the variables that are translated.
var kubeVIPRead = []string{
	"vip_arp", "svc_enable", "svc_namespace", "config_file", "vip_interface", "vip_servicesinterface", "lb_class_only", "lb_class_name", "bgp_enable", "bgp_as", "bgp_peers", "bgp_peeraddress", "bgp_peeras", "bgp_peerpass",
	"bgp_multihop", "bgp_sourceif", "bgp_sourceip", "bgp_hold_time", "bgp_keepalive_interval", "bgp_routerid", "mpbgp_nexthop", "mpbgp_ipv4", "mpbgp_ipv6",
}

// kubeVIPIdle matches the variables that have no counterpart and need none.
var kubeVIPIdle = regexp.MustCompile(`^(vip_(lease.*|renewdeadline|retryperiod|loglevel|leaderelection|nodename|arpRate|cidr|subnet|singlenode|startleader|interfaceloglobal)` +
	`|svc_(election|leasename)|port|address|vip_address|cp_.*|lb_(enable|port|fwdmethod|class_legacy_handling)|prometheus_server|kubernetes_addr|k8s_config_file|dns_mode` +
	`|health_check_port|backend_health_check_interval|enable_endpoints|enable_node_labeling|annotation|bgp_routerinterface)$`)

// kubeVIPWithout has the variables of features that Herald does not have.
var kubeVIPWithout = map[string]string{
	"vip_ddns": "dynamic DNS", "vip_wireguard": "WireGuard", "vip_routingtable": "routes in a table of the node", "enable_upnp": "UPnP", "egress_podcidr": "egress",
	"egress_servicecidr": "egress", "egress_withnftables": "egress", "egress_clean": "egress", "mirror_dest_interface": "mirroring of traffic", "zebra_enable": "Zebra",
	"enable_service_security": "filters on nodes: use NetworkPolicies", "disable_service_updates": "Services whose status it leaves alone",
}

// environment reads the variables of the kube-vip containers.
func (k *kubevip) environment(i *item, containers []kubeVIPContainer) *kubeVIPEnvironment {
	env := &kubeVIPEnvironment{text: map[string]string{}}
	for _, c := range containers {
		if !c.ours() {
			continue
		}
		for _, e := range c.Env {
			env.add(i, e)
		}
		if len(c.EnvFrom) > 0 {
			i.cannot("envFrom: the import does not read the objects that have these variables: write them into the DaemonSet, and import again")
		}
		for _, a := range c.Args {
			if strings.HasPrefix(a, "-") {
				i.cannot("args: the import does not read flags, such as %s: write variables in their place, and import again", strings.SplitN(a, "=", 2)[0])
				break
			}
		}
	}
	return env
}

// add stores a variable, and notes if its value cannot be read.
func (e *kubeVIPEnvironment) add(i *item, v kubeVIPVariable) {
	e.text[v.Name] = v.Value
	switch from := v.ValueFrom; {
	case from == nil || !slices.Contains(kubeVIPRead, v.Name):
	case from.SecretKeyRef != nil && v.Name == "bgp_peerpass":
		e.password = from.SecretKeyRef.Name
	case from.FieldRef == nil:
		i.cannot("%s: the import does not read the object that has its value: write the value into the DaemonSet, and import again", v.Name)
	case v.Name != "bgp_routerid": // By default it is the address of the node.
		i.approximated("%s: each node has a value of its own, %s, and the import leaves it out", v.Name, from.FieldRef.FieldPath)
	}
}

// report notes the variables that have no counterpart.
func (e *kubeVIPEnvironment) report(i *item) {
	if e.text["config_file"] != "" {
		i.cannot("config_file: the import does not read the file: write what it says into variables of the DaemonSet, and import again")
	}
	if e.yes("cp_enable") {
		i.cannot("cp_enable: Herald gives the API servers no address: keep kube-vip for it, with svc_enable false")
	}
	for _, name := range sortedKeys(e.text) {
		switch without := kubeVIPWithout[name]; {
		case without != "" && e.text[name] != "" && e.text[name] != "false":
			i.cannot("%s: Herald has no %s", name, without)
		case without == "" && !kubeVIPIdle.MatchString(name) && !slices.Contains(kubeVIPRead, name) && !strings.HasPrefix(name, "vip_routing"):
			i.cannot("%s: Herald's import does not know this variable: look what it does", name)
		}
	}
}
