package migrate

import (
	"slices"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"

	herald "github.com/heraldlb/herald/api/v1alpha1"
)

// TestServicesKeepTheirAddresses has Services with addresses that herald-ccm would move, or would not share, if the user
// did not follow the report.
func TestServicesKeepTheirAddresses(t *testing.T) {
	const (
		service = "\n---\napiVersion: v1\nkind: Service\nmetadata: "
		open    = "apiVersion: metallb.io/v1beta1\nkind: IPAddressPool\nmetadata: {name: open, namespace: m}\nspec: {addresses: [192.0.2.0/28, '2001:db8::/64']}"
		closed  = "apiVersion: metallb.io/v1beta1\nkind: IPAddressPool\nmetadata: {name: vip, namespace: m}\nspec: {addresses: [192.0.2.0/28, '2001:db8::/64'], autoAssign: false}"
		teamA   = "apiVersion: metallb.io/v1beta1\nkind: IPAddressPool\nmetadata: {name: team, namespace: m}\nspec: {addresses: [192.0.2.0/28], serviceAllocation: {namespaces: [a]}}"
		dhcp    = "apiVersion: apps/v1\nkind: DaemonSet\nmetadata: {name: k, namespace: kube-system}\nspec: {template: {spec: {containers: [{name: k, image: kube-vip, env: [{name: svc_enable, value: 'true'}, {name: vip_arp, value: 'true'}, {name: vip_interface, value: eth0}]}]}}}"
		global  = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: kubevip, namespace: kube-system}\ndata: {cidr-global: 192.0.2.0/28}"
	)
	has := func(spec string, addresses ...string) string {
		return "\nspec: {type: LoadBalancer" + spec + "}\nstatus: {loadBalancer: {ingress: [{ip: '" + strings.Join(addresses, "'}, {ip: '") + "'}]}}"
	}
	server := schemas(t)
	for _, c := range []struct {
		name, objects string
		source        *Source
		said          []string // in the report
		unsaid        []string
		written       []string
		unwritten     []string
		checked       string // at the end of the output of --check
	}{
		{
			name: "an address that is in no pool", source: &kubeVIP, objects: dhcp + service + "{name: web, namespace: a}" + has("", "192.0.2.3"),
			said: []string{"Service a/web: it has 192.0.2.3, which is in no IPPool that is written"},
		},
		{
			name: "an address at the end of a prefix", source: &kubeVIP, objects: global + service + "{name: web, namespace: a}" + has("", "192.0.2.0"),
			unsaid: []string{"Service a/web"}, unwritten: []string{"exclude"},
		},
		{
			name: "an address at the end of a prefix whose ends are skipped", source: &kubeVIP, objects: strings.Replace(global, "\ndata: {", "\ndata: {skip-end-ips-in-cidr: 'true', ", 1) + service + "{name: web, namespace: a}" + has("", "192.0.2.0"),
			said: []string{"Service a/web: it has 192.0.2.0, which is in no IPPool"}, written: []string{"  exclude:\n  - 192.0.2.0\n  - 192.0.2.15\n"},
		},
		{
			name: "an address in a pool that serves it", source: &metalLB, objects: open + service + "{name: web, namespace: a}" + has("", "192.0.2.3"),
			unsaid: []string{"Service a/web", "kubectl annotate"},
		},
		{
			name: "addresses of a pool that no longer serves who does not ask", source: &metalLB, objects: closed + service + "{name: web, namespace: a}" + has("", "192.0.2.3", "2001:DB8::7"),
			said: []string{"Service a/web: it has 192.0.2.3 of IPPool vip, which serves only Services that ask for it", "kubectl annotate service -n a web herald.dev/ips=192.0.2.3,2001:db8::7\n"},
		},
		{
			name: "an address that is asked for", source: &metalLB, objects: closed + service + "{name: web, namespace: a}" + has(", loadBalancerIP: 192.0.2.3", "192.0.2.3"),
			unsaid: []string{"Service a/web", "kubectl annotate"},
		},
		{
			name: "an address of another namespace's pool", source: &metalLB, objects: teamA + service + "{name: web, namespace: b}" + has("", "192.0.2.3"),
			said: []string{"Service b/web: it has 192.0.2.3 of IPPool team, which does not select it"},
		},
		{
			name: "an address of a pool whose selectors cannot be written", source: &metalLB,
			objects: strings.Replace(teamA, "namespaces: [a]", "namespaces: [a], namespaceSelectors: [{matchLabels: {team: b, stage: live}}, {matchLabels: {team: c, stage: live}}]", 1) +
				service + "{name: web, namespace: b}" + has("", "192.0.2.3"),
			said: []string{"spec.namespaces of the IPPool is left out, too", "write [a] with the selector"}, unsaid: []string{"Service b/web"}, written: []string{"disabled: true"}, unwritten: []string{"namespaces:"},
		},
		{
			name: "Services of something else", source: &metalLB, objects: strings.TrimPrefix(service, "\n---\n") + "{name: web, namespace: a}" + has("", "192.0.2.3"),
			unsaid: []string{"web"},
		},
		{
			name: "an address of a pool that it does not name", source: &metalLB, objects: open + service + "{name: web, namespace: a, annotations: {metallb.io/address-pool: new}}" + has("", "192.0.2.3"),
			said: []string{"Service a/web: it has 192.0.2.3 of IPPool open, and names IPPool new"},
		},
		{
			name: "an address that two namespaces share", source: &metalLB,
			objects: open + service + "{name: tcp, namespace: a, annotations: {metallb.io/allow-shared-ip: dns}}" + has("", "192.0.2.3") +
				service + "{name: udp, namespace: b, annotations: {metallb.io/allow-shared-ip: dns}}" + has("", "192.0.2.3"),
			said:    []string{"Service b/udp: it shares 192.0.2.3 with a Service of another namespace, Service a/tcp: so IPPool open has spec.shareAcrossNamespaces"},
			written: []string{"shareAcrossNamespaces: true"},
		},
		{
			name: "one key and an address for each", source: &metalLB,
			objects: open + service + "{name: tcp, namespace: a, annotations: {metallb.io/allow-shared-ip: dns}}" + has("", "192.0.2.3") +
				service + "{name: udp, namespace: b, annotations: {metallb.io/allow-shared-ip: dns}}" + has("", "192.0.2.4"),
			said:      []string{"Service b/udp: it has the sharing key of a Service of another namespace, Service a/tcp"},
			unwritten: []string{"shareAcrossNamespaces"},
		},
		{
			name: "an address that is shared without a key", source: &kubeVIP,
			objects: global + service + "{name: tcp, namespace: a}" + has("", "192.0.2.3") + service + "{name: udp, namespace: a}" + has("", "192.0.2.3"),
			said: []string{
				"Service a/tcp: it shares 192.0.2.3 with other Services", "kubectl annotate service -n a tcp herald.dev/sharing-key=192.0.2.3\n",
				"Service a/udp: it shares 192.0.2.3 with other Services", "kubectl annotate service -n a udp herald.dev/sharing-key=192.0.2.3\n",
			},
			unwritten: []string{"shareAcrossNamespaces"},
		},
		{
			name: "an address that is shared with different keys", source: &metalLB,
			objects: open + service + "{name: tcp, namespace: a, annotations: {metallb.io/allow-shared-ip: dns}}" + has("", "192.0.2.3") + service + "{name: udp, namespace: a}" + has("", "192.0.2.3"),
			said:    []string{"Service a/udp: it shares 192.0.2.3 with Service a/tcp, which has another sharing key, or none"},
			checked: "Addresses that Services keep, once they have the annotations that the import names: 1 of 2\n",
		},
		{
			name: "an address of a Service of another class", source: &metalLB, objects: open + service + "{name: web, namespace: a}" + has(", loadBalancerClass: metallb.io/metallb", "192.0.2.3"),
			said: []string{"spec.loadBalancerClass metallb.io/metallb cannot be changed"}, checked: "Addresses that Services keep: 0 of 1\n",
		},
		{
			name: "an address of no pool that is shared with different keys", source: &kubeVIP,
			objects: dhcp + service + "{name: tcp, namespace: a}" + has("", "192.0.2.3") + service + "{name: udp, namespace: a}" + has("", "192.0.2.3", "192.0.2.4"),
			checked: "Addresses that Services keep, once they have the annotations that the import names: 0 of 3\n",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := c.source.Translate(objects(t, c.objects))
			text, err := r.YAML()
			if err != nil {
				t.Fatal(err)
			}
			server.accept(t, text)
			missing := func(in string, all []string) []string {
				return slices.DeleteFunc(slices.Clone(all), func(s string) bool { return strings.Contains(in, s) })
			}
			if m := missing(r.Text(), c.said); len(m) > 0 {
				t.Errorf("not said: %q\n%s", m, r.Text())
			}
			if m := missing(r.Text(), c.unsaid); len(m) < len(c.unsaid) {
				t.Errorf("only %q of %q is not said\n%s", m, c.unsaid, r.Text())
			}
			if !strings.HasSuffix(r.Check(), c.checked) {
				t.Errorf("the check does not end with %q:\n%s", c.checked, r.Check())
			}
			if m := missing(text, c.written); len(m) > 0 {
				t.Errorf("not written: %q\n%s", m, text)
			}
			if m := missing(text, c.unwritten); len(m) < len(c.unwritten) {
				t.Errorf("only %q of %q is not written\n%s", m, c.unwritten, text)
			}
		})
	}
}

// TestGivenObjects checks that objects of the user replace the translation, so that only what is wrong with Services is
// left, judged by these objects.
func TestGivenObjects(t *testing.T) {
	const routerID = "\n---\n{apiVersion: metallb.io/v1beta2, kind: BGPPeer, metadata: {name: tor, namespace: m}, spec: {myASN: 64512, peerASN: 64513, peerAddress: 198.18.0.1, routerID: 192.0.2.9}}"
	shared := "{apiVersion: v1, kind: Service, metadata: {name: NAME, namespace: SPACE, annotations: {metallb.io/allow-shared-ip: k}}, spec: {type: LoadBalancer}, status: {loadBalancer: {ingress: [{ip: 192.0.2.3}]}}}"
	services := "\n---\n" + strings.NewReplacer("NAME", "tcp", "SPACE", "a").Replace(shared) + "\n---\n" + strings.NewReplacer("NAME", "udp", "SPACE", "b").Replace(shared)
	for _, c := range []struct {
		name   string
		change func(*herald.IPPool)
		want   string
	}{
		{"a pool with the addresses", func(p *herald.IPPool) { p.Spec.ShareAcrossNamespaces = true }, ""},
		{"a pool that does not share", func(*herald.IPPool) {}, "Service b/udp: it shares 192.0.2.3 with a Service of another namespace, Service a/tcp: write shareAcrossNamespaces: true in the spec of IPPool given"},
		{"a pool of other addresses", func(p *herald.IPPool) { p.Spec.Addresses = []herald.AddressRange{"203.0.113.0/24"} }, "Service a/tcp: it has 192.0.2.3, which is in no IPPool that is written"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := newIPPool("given")
			p.Spec.Addresses = []herald.AddressRange{"192.0.2.0/24"}
			c.change(p)
			was := p.DeepCopy()
			all := objects(t, strings.TrimPrefix(routerID+services, "\n---\n"))
			if translated := metalLB.Translate(all); !strings.Contains(translated.Text(), "spec.routerID") {
				t.Errorf("the translation does not say what it lacks:\n%s", translated.Text())
			}
			r := metalLB.Replace(all, []runtime.Object{p})
			if len(r.Objects) != 1 || r.Objects[0] != runtime.Object(p) || !equality.Semantic.DeepEqual(was, p) {
				t.Errorf("the objects are %v", r.Objects)
			}
			if text := r.Check(); strings.Contains(text, "spec.routerID") || !strings.Contains(text, c.want) || r.Good() != (c.want == "") {
				t.Errorf("want %q in\n%s", c.want, text)
			}
			if got := r.Wanted[types.NamespacedName{Namespace: "b", Name: "udp"}][herald.AnnotationSharingKey]; got != "k" {
				t.Errorf("the Service wants the sharing key %q", got)
			}
		})
	}
}
