package report

import (
	"fmt"
	"maps"
	"net"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"
)

// proxyConfig has the fields of the KubeProxyConfiguration that Herald depends on.
type proxyConfig struct {
	Kind               string `json:"kind"`
	Mode               string `json:"mode"`
	HealthzBindAddress string `json:"healthzBindAddress"`
	MetricsBindAddress string `json:"metricsBindAddress"`
	IPVS               struct {
		StrictARP     bool            `json:"strictARP"`
		MinSyncPeriod metav1.Duration `json:"minSyncPeriod"`
	} `json:"ipvs"`
	IPTables struct {
		MinSyncPeriod metav1.Duration `json:"minSyncPeriod"`
	} `json:"iptables"`
	NFTables struct {
		MinSyncPeriod metav1.Duration `json:"minSyncPeriod"`
	} `json:"nftables"`
}

// The ports at which speakers query kube-proxy by default.
const (
	healthzPort = "10256"
	metricsPort = "10249"
)

// proxy checks the configuration of kube-proxy, as far as the API shows it.
func (p *preflight) proxy() {
	before := len(p.Problems) + len(p.Warnings)
	found, config, runs := p.proxyFound()
	switch {
	case p.replaced():
	case config != nil:
		p.configured(found, config)
		if !runs && p.may(kubeProxy, "whether kube-proxy runs", "daemonsets.apps", "pods") {
			p.warn(kubeProxy, nil, "there is a %s and no pod of kube-proxy, which Herald needs: if it runs as a process of the nodes, see that it has this configuration; if something replaces it, Herald is not tested with that", found)
		}
		if len(p.Problems)+len(p.Warnings) == before {
			mode := config.Mode
			if mode == "" {
				mode = "iptables, the default"
			}
			p.fine(kubeProxy, "kube-proxy: the mode is %s (%s)", mode, found)
		}
	case found != "":
		p.unchecked(kubeProxy, "kube-proxy runs (%s), and its mode is not known: in ipvs mode it needs strictARP", found)
	case slices.ContainsFunc(p.Nodes, func(n *corev1.Node) bool { return strings.Contains(n.Status.NodeInfo.KubeletVersion, "+k3s") }):
		p.unchecked(kubeProxy, "kube-proxy runs inside of k3s, and its mode is not known: see --kube-proxy-arg in the configuration of k3s; in ipvs mode it needs --ipvs-strict-arp")
	case p.may(kubeProxy, "whether kube-proxy runs, and in which mode", "configmaps in kube-system", "daemonsets.apps", "pods"):
		p.unchecked(kubeProxy, "there is neither a ConfigMap kube-system/kube-proxy nor a pod of kube-proxy, which Herald needs: if it runs as a process of the nodes, see that it has strictARP in ipvs mode; if something replaces it, Herald is not tested with that")
	}
	var silent []string
	working := p.working()
	for _, s := range working {
		if s.Status.Problem != "" && !p.excludes(s) {
			silent = append(silent, s.Name)
			p.problem(kubeProxy, []string{s.Name}, "node %s announces nothing: %s", s.Name, s.Status.Problem)
		}
	}
	if n := len(working) - len(silent); n > 0 && p.may(kubeProxy, "whether the speakers that report that their nodes can forward are still running", speakerLeases) {
		p.fine(kubeProxy, "%s that %s can forward", count(n, "speaker reports", "speakers report"), map[bool]string{true: "its node", false: "their nodes"}[n == 1])
	}
}

// proxyFound looks for kube-proxy and its configuration: in the ConfigMap of kubeadm, or in the arguments of its pods. runs
// reports whether there are such pods.
func (p *preflight) proxyFound() (where string, config *proxyConfig, runs bool) {
	where, config = p.proxyRuns()
	for _, o := range p.ProxyConfigs {
		for _, key := range slices.Sorted(maps.Keys(o.Data)) {
			var c proxyConfig
			if err := yaml.Unmarshal([]byte(o.Data[key]), &c); err == nil && c.Kind == "KubeProxyConfiguration" {
				return "ConfigMap " + nameOf(o), &c, where != ""
			}
		}
	}
	return where, config, where != ""
}

// proxyRuns looks for the pods of kube-proxy. config is nil if their arguments do not have the configuration.
func (p *preflight) proxyRuns() (where string, config *proxyConfig) {
	for _, w := range p.workloads() {
		for _, c := range w.spec.Containers {
			args := slices.Concat(c.Command, c.Args)
			if !strings.Contains(c.Image, "kube-proxy") && !slices.ContainsFunc(args, func(a string) bool { return a == "kube-proxy" || strings.HasSuffix(a, "/kube-proxy") }) {
				continue
			}
			if value(args, "config") != "" {
				return w.name, nil
			}
			var of proxyConfig
			of.Mode, of.HealthzBindAddress, of.MetricsBindAddress = value(args, "proxy-mode"), value(args, "healthz-bind-address"), value(args, "metrics-bind-address")
			of.IPVS.StrictARP = slices.Contains(args, "--ipvs-strict-arp") || value(args, "ipvs-strict-arp") == "true"
			for flag, to := range map[string]*metav1.Duration{
				"ipvs-min-sync-period": &of.IPVS.MinSyncPeriod, "iptables-min-sync-period": &of.IPTables.MinSyncPeriod, "nftables-min-sync-period": &of.NFTables.MinSyncPeriod,
			} {
				to.Duration, _ = time.ParseDuration(value(args, flag)) // kube-proxy does not start with an invalid value.
			}
			return w.name, &of
		}
	}
	return "", nil
}

// value returns the value of a flag in arguments.
func value(args []string, flag string) string {
	for i, a := range args {
		if v, ok := strings.CutPrefix(a, "--"+flag+"="); ok {
			return v
		}
		if a == "--"+flag && i+1 < len(args) && !strings.HasPrefix(args[i+1], "--") {
			return args[i+1]
		}
	}
	return ""
}

// configured checks a configuration.
func (p *preflight) configured(where string, c *proxyConfig) {
	period := c.IPTables.MinSyncPeriod.Duration
	switch c.Mode {
	case "ipvs":
		period = c.IPVS.MinSyncPeriod.Duration
		if !c.IPVS.StrictARP {
			p.problem(kubeProxy, nil, "kube-proxy is in ipvs mode without strictARP (%s), so every node answers ARP for every address: set ipvs.strictARP: true, or mode: nftables, and restart kube-proxy", where)
		}
	case "nftables":
		period = c.NFTables.MinSyncPeriod.Duration
	}
	if period > time.Second {
		p.warn(kubeProxy, nil, "kube-proxy writes its rules every %s at most (minSyncPeriod, %s), so a node may announce an address before it can forward for it: set 1s", period, where)
	}
	for _, x := range []struct{ what, address, port, flag, otherwise string }{
		{"its health", c.HealthzBindAddress, healthzPort, "--kube-proxy-healthz", "a speaker that cannot ask announces nothing"},
		{"its metrics", c.MetricsBindAddress, metricsPort, "--kube-proxy-metrics", "a new address is announced after three seconds only"},
	} {
		host, port, err := net.SplitHostPort(x.address)
		local := host == "127.0.0.1" || host == "0.0.0.0" || host == "::" || host == ""
		if x.address == "" || err == nil && local && port == x.port {
			continue
		}
		p.warn(kubeProxy, nil, "kube-proxy serves %s at %s (%s), where speakers do not ask: %s: have it serve at 127.0.0.1:%s, or start herald-speaker with %s", x.what, quoted(x.address), where, x.otherwise, x.port, x.flag)
	}
}

// replaced reports whether Cilium replaces kube-proxy, and notes this.
func (p *preflight) replaced() bool {
	for _, o := range p.ProxyConfigs {
		switch o.Data["kube-proxy-replacement"] {
		case "true", "strict":
		default:
			continue
		}
		where := "ConfigMap " + nameOf(o)
		if address := o.Data["kube-proxy-replacement-healthz-bind-address"]; !strings.HasSuffix(address, ":"+healthzPort) {
			p.problem(kubeProxy, nil, "Cilium replaces kube-proxy (%s) and does not serve its health on port %s, so speakers announce nothing: install Cilium with kubeProxyReplacementHealthzBindAddr=0.0.0.0:%[2]s", where, healthzPort)
		}
		p.warn(kubeProxy, nil, "Cilium replaces kube-proxy (%s): Herald is not tested with that", where)
		return true
	}
	return false
}

// workload is an object that runs containers.
type workload struct {
	name string // for example, DaemonSet kube-system/kube-proxy
	spec *corev1.PodSpec
}

// workloads returns the DaemonSets, the Deployments and the static pods.
func (p *preflight) workloads() (all []workload) {
	for _, o := range p.DaemonSets {
		all = append(all, workload{"DaemonSet " + nameOf(o), &o.Spec.Template.Spec})
	}
	for _, o := range p.Deployments {
		all = append(all, workload{"Deployment " + nameOf(o), &o.Spec.Template.Spec})
	}
	for _, o := range p.Pods {
		if o.Annotations[corev1.MirrorPodAnnotationKey] != "" {
			all = append(all, workload{fmt.Sprintf("pod %s of node %s", nameOf(o), o.Spec.NodeName), &o.Spec})
		}
	}
	return all
}
