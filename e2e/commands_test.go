package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	herald "github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/e2e/lab"
	"github.com/heraldlb/herald/e2e/lab/enclave"
	"github.com/heraldlb/herald/e2e/lab/router"
)

// reader is a user who runs the commands of documents, in a folder that has what a clone of the repository has.
type reader struct {
	*cluster
	dir  string
	fill *strings.Replacer
	// left are the commands that the reader has not run.
	left []shown
	// set has for each document the commands on which its later ones depend.
	set map[string]string
}

// reads returns a reader of the commands. Pairs are placeholders and what stands for them.
func (c *cluster) reads(commands []shown, pairs ...string) *reader {
	c.t.Helper()
	r := &reader{cluster: c, dir: c.t.TempDir(), fill: strings.NewReplacer(pairs...), left: commands, set: map[string]string{}}
	for _, name := range []string{"manifests", "build"} {
		target, err := filepath.Abs(filepath.Join("..", name))
		c.must(err)
		c.must(os.Symlink(target, filepath.Join(r.dir, name)))
	}
	return r
}

// file writes a file into the folder of the reader.
func (r *reader) file(name, content string) {
	r.t.Helper()
	file := filepath.Join(r.dir, name)
	r.must(os.MkdirAll(filepath.Dir(file), 0o700))
	r.must(os.WriteFile(file, []byte(content), 0o600))
}

// shell runs a command and returns all that it writes.
func (r *reader) shell(ctx context.Context, s shown) (string, error) {
	script := fmt.Sprintf("cd %q\nexec 2>&1\n%s", r.dir, r.fill.Replace(r.set[s.document]+s.command))
	out, err := r.access.Shell(ctx, script)
	if err != nil {
		err = fmt.Errorf("%w\n%s", err, out)
	}
	return out, err
}

// runs runs a command until it succeeds. If the document shows an output, it runs the command until the output has those lines.
func (r *reader) runs(s shown) {
	r.t.Helper()
	if settles.MatchString(s.command) {
		r.set[s.document] += s.command + "\n"
	}
	r.eventually(s.shows(), func(ctx context.Context) error {
		out, err := r.shell(ctx, s)
		if s.output == "" {
			return err
		}
		return shows(s.output, out)
	})
}

// saysOf runs a command until its output has the part that the document shows next.
func (r *reader) saysOf(command string) {
	r.t.Helper()
	if len(r.left) == 0 || r.left[0].command != "" {
		r.t.Fatalf("the document does not go on with a part of the output of %s, but with %+v", command, r.left[:min(1, len(r.left))])
	}
	r.left[0].command = command
	r.does(command)
}

// does runs the next command that is left.
func (r *reader) does(command string) {
	r.t.Helper()
	if len(r.left) == 0 || r.left[0].command != command {
		r.t.Fatalf("the documents do not go on with %s, but with %+v", command, r.left[:min(1, len(r.left))])
	}
	r.runs(r.left[0])
	r.left = r.left[1:]
}

// prints waits until kubectl herald prints the lines of the code block of a document that has a text.
func (c *cluster) prints(document, text, command string) {
	c.t.Helper()
	block := blockOf(c.t, document, text)
	c.eventually(shown{document: document, line: lineOf(c.t, document, block), command: "kubectl herald " + command, output: block}.shows(), func(context.Context) error {
		said, _ := c.ask(strings.Fields(command)...)
		return shows(block, said)
	})
}

// varying are the parts of outputs that differ between clusters.
var varying = []struct {
	like *regexp.Regexp
	as   string
}{
	{regexp.MustCompile(`127\.0\.0\.1:\d+/[A-Z2-7]{26}/`), "PAGE"},
	{regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}`), "UID"},
	{regexp.MustCompile(`\b10\.96\.\d+\.\d+\b`), "CLUSTER-IP"},
	{regexp.MustCompile(`:3\d{4}/`), ":PORT/"},
	{regexp.MustCompile(`\b(\d+(h|m|s))+\b( \(x\d+ over T\))?`), "T"},
	{regexp.MustCompile(`\b\d+(\.\d+)?ms\b`), "T"},
	{regexp.MustCompile(`\b\d+ (packets )?sent, \d+ received`), "N ${1}sent, N received"},
	{regexp.MustCompile(`\bnode \S+ owns it`), "node N owns it"}, // the first candidate, or one that learns of the Service 50 ms earlier
	{regexp.MustCompile(`average of \d+`), "average of N"},
	{regexp.MustCompile(`\bv1\.\d+\.\d+`), "VERSION"},
}

func lines(output string) (all []string) {
	for line := range strings.Lines(output) {
		for _, v := range varying {
			line = v.like.ReplaceAllString(line, v.as)
		}
		if line = strings.Join(strings.Fields(line), " "); !slices.Contains([]string{"", "...", "…"}, line) {
			all = append(all, line)
		}
	}
	return all
}

// shows checks that an output has the lines that a document shows, in their order. A document may leave out others.
func shows(document, output string) error {
	rest := lines(output)
	for _, line := range lines(document) {
		i := slices.Index(rest, line)
		if i < 0 {
			return fmt.Errorf("the command does not print the line %q, or not after those before it. It prints:\n%s", line, output)
		}
		rest = rest[i+1:]
	}
	return nil
}

// nginx is a program for the lab that serves at port 80, as nginx does.
func nginx(t testing.TB) map[string]string {
	t.Helper()
	app, err := filepath.Abs("../build/bin/app")
	if err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(t.TempDir(), "nginx")
	if err := os.WriteFile(program, []byte("#!/bin/sh\nPORT=80 exec "+app+"\n"), 0o755); err != nil { //nolint:gosec // It is a program.
		t.Fatal(err)
	}
	return map[string]string{"nginx": program}
}

// TestShownCommands runs the commands of all documents in one cluster, in the order in which they stand. The pool and the Service
// are those of README.md, which is the first document. places has the commands that need another cluster.
func TestShownCommands(t *testing.T) {
	f := withLab(t, lab.Options{Nodes: 2, Routers: []router.Kind{lab.FRR}, Images: nginx(t)}).field
	tor, node := f.site.Routers[0], f.site.Nodes[0]
	f.kubectl("apply", "-f", "../manifests/rbac/viewer.yaml")
	f.must(f.access.Apply(f.ctx, fmt.Sprintf(`apiVersion: herald.dev/v1alpha1
kind: BGPPeer
metadata: {name: tor-a}
spec: {localASN: %d, peerASN: %d, address: %v, holdTime: 3s}
---
apiVersion: herald.dev/v1alpha1
kind: BGPAdvertisement
metadata: {name: all}
---
apiVersion: herald.dev/v1alpha1
kind: IPPool
metadata: {name: old-pool}
spec: {addresses: [203.0.113.16/28], autoAssign: false}
---
apiVersion: herald.dev/v1alpha1
kind: IPAllocation
metadata: {name: 198.18.0.240}
spec: {address: 198.18.0.240}
`, lab.NodeASN, tor.ASN, tor.IPv4)))
	f.service("moved", annotated(herald.AnnotationPool, "old-pool"))
	f.holds("moved", "203.0.113.16")
	r := f.reads(placed(t)[inLab],
		"renumber NAMESPACE/NAME", "renumber default/moved", "service NAMESPACE/NAME", "service default/web", "service NAME", "service web",
		"pools NAME", "pools segment", "peers NAME", "peers tor-a", "bgppeers.herald.dev NAME", "bgppeers.herald.dev tor-a",
		"clusterrolebinding NAME", "clusterrolebinding team", "NODE-ADDRESS", node.IPv4.String(), "NODE", node.Name, "node-3", node.Name, "ADDRESS", "198.18.0.200",
		"198.51.100.7", "198.18.0.200", ":9000", ":80", "FILE", "pools.yaml", "/tmp/", "./", "$@", "status")
	for _, name := range []string{"pools.yaml", "herald.yaml"} {
		r.file(name, "apiVersion: herald.dev/v1alpha1\nkind: IPPool\nmetadata: {name: other}\nspec: {addresses: [203.0.113.0/28]}\n")
	}
	// Some commands do not run where the user of kubectl is.
	on := []struct {
		like *regexp.Regexp
		host enclave.Host
	}{
		{regexp.MustCompile(`^curl http://ADDRESS|^ip neigh `), f.site.Segment.Host},
		{regexp.MustCompile(`^curl http://(127|198)|^ip (-6 )?rule `), node.Host},
		{regexp.MustCompile(`^ip route |^sysctl `), tor.Host},
	}
	done := map[string]bool{}
	for _, s := range r.left {
		if done[s.command] {
			continue
		}
		done[s.command] = true
		t.Run(s.where(), func(t *testing.T) {
			r := *r
			r.cluster = r.within(t)
			for _, o := range on {
				if o.like.MatchString(s.command) {
					r.eventually(s.shows(), func(ctx context.Context) error {
						out, err := o.host.Command(ctx, "sh", "-ec", r.fill.Replace(s.command)).CombinedOutput()
						if err != nil {
							err = fmt.Errorf("%w\n%s", err, out)
						}
						return err
					})
					return
				}
			}
			r.runs(s)
		})
	}
}

// TestShownInstallations runs the commands that install, upgrade and remove Herald. A cluster gets Herald in one way only, so
// each way that begins with a namespace begins a cluster. No kubelet starts the pods, and there is no herald-ccm.
func TestShownInstallations(t *testing.T) {
	t.Parallel()
	first := regexp.MustCompile(`^kubectl create namespace |--create-namespace`)
	const manifests, service = "kubectl apply -f manifests/herald.yaml\n", "kubectl create service loadbalancer web --tcp=80 --dry-run=client -o yaml | kubectl apply -f -\n"
	before := map[string]string{ // What a command needs that a user has.
		"kubectl delete service NAME": service,
		"kubectl patch service NAME":  service,
		"for pool in $(":              "kubectl create -f - <<EOF\napiVersion: herald.dev/v1alpha1\nkind: IPPool\nmetadata: {name: public}\nspec: {addresses: [203.0.113.0/28]}\nEOF\n",
		"kubectl -n herald-system":    manifests,
	}
	var r *reader
	for _, s := range placed(t)[onPlane] {
		if r == nil || first.MatchString(s.command) {
			ctx, plane := startControlPlaneWith(t, lab.ControlPlaneOptions{Bare: true, Controllers: true})
			t.Cleanup(func() {
				for _, p := range plane.Processes() {
					if t.Failed() {
						t.Log(p.Name, tail(p.Log()))
					}
				}
			})
			now := clusterOf(t, ctx, &plane.Access).reads(nil, "REGISTRY", "registry.example.com", "=TAG", "=v1", ":TAG", ":v1",
				"$(git describe --tags --always --dirty)", "v1", "service NAME", "service web", "-n NAMESPACE", "-n default")
			if r != nil {
				now.set = r.set
			}
			r = now
		}
		for begin, commands := range before {
			if strings.HasPrefix(s.command, begin) {
				r.runs(shown{document: s.document, line: s.line, command: commands})
			}
		}
		r.runs(s)
	}
}

// TestShownCommandsOnKind runs the commands that are about the pods of Herald and of kube-proxy.
func TestShownCommandsOnKind(t *testing.T) {
	f := onlyOnKind(t)
	node := f.site.Nodes[len(f.site.Nodes)-1]
	r := f.reads(placed(t)[onKubelets])
	for _, s := range r.left {
		namespace, daemons, label := "herald-system", "herald-speaker", "app.kubernetes.io/name"
		if strings.Contains(s.command, "kube-system") {
			namespace, daemons, label = "kube-system", "kube-proxy", "k8s-app"
		}
		f.kubectl("rollout", "status", "-n", namespace, "daemonset/"+daemons, "--timeout=1m")
		pod := f.kubectl("get", "pods", "-n", namespace, "-o", "name", "-l", label+"="+daemons, "--field-selector", "spec.nodeName="+node.Name)
		if strings.HasSuffix(s.command, "--previous") {
			f.must(lab.Resident{Program: daemons, Host: node.Host}.Kill())
		}
		r.fill = strings.NewReplacer("describe pod POD", "describe "+strings.TrimSpace(pod), "POD", strings.TrimSpace(pod), "| grep 'left out'", "| grep herald") // Nothing is left out here.
		r.runs(s)
	}
}

// metalLBOfTheDocument is what docs/moving.md imports.
const metalLBOfTheDocument = `apiVersion: metallb.io/v1beta1
kind: IPAddressPool
metadata: {name: first-pool, namespace: metallb-system}
spec: {addresses: [192.168.1.0/24]}
---
apiVersion: metallb.io/v1beta1
kind: BGPPeer
metadata: {name: tor, namespace: metallb-system}
spec: {myASN: 64512, peerASN: 64500, peerAddress: 10.0.0.1%s}
`

// TestShownMoves runs the commands that move a cluster from MetalLB, as docs/moving.md shows them. The story plays the scheduler,
// the kubelets and the speakers.
func TestShownMoves(t *testing.T) {
	t.Parallel()
	ctx, plane := startControlPlane(t, true)
	c := clusterOf(t, ctx, &plane.Access)
	c.withNodes("n1", "n2")
	c.must(c.access.Apply(ctx, metalLBKinds()+"---\n"+metalLBWorkloads))
	c.eventually("MetalLB's objects", func(ctx context.Context) error {
		return c.access.Apply(ctx, fmt.Sprintf(metalLBOfTheDocument, ", dualStackAddressFamily: true")+`---
apiVersion: metallb.io/v1beta1
kind: L2Advertisement
metadata: {name: example, namespace: metallb-system}
---
apiVersion: metallb.io/v1beta1
kind: BGPAdvertisement
metadata: {name: example, namespace: metallb-system}
`)
	})
	c.kubelets()
	c.podOn("n1", "web")
	_, err := plane.StartCCM("--secure-port=0")
	c.must(err)
	var claims []herald.SpeakerClaim
	for i := range 11 {
		name, address := fmt.Sprint("web-", i), fmt.Sprint("192.168.1.", 100+i)
		c.service(name)
		c.must(setStatus(c, name, address))
		claims = append(claims, herald.SpeakerClaim{Address: address, Interface: "eth0"})
	}
	c.reports("n1", func(s *herald.SpeakerStatusStatus) {
		s.Interfaces = []herald.SpeakerInterface{{Name: "eth0", State: herald.SegmentMember, Subnets: []string{"192.168.1.0/24"}}}
		s.Claims, s.L2Addresses = claims, int32(len(claims))
	})

	r := c.reads(placed(t)[besideMetalLB])
	r.file("metallb.yaml", fmt.Sprintf(metalLBOfTheDocument, ", disableMP: true, passwordSecret: {name: tor}")+`---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: default, annotations: {metallb.io/loadBalancerIPs: 192.168.1.100}}
spec: {type: LoadBalancer}
`)
	r.file("metallb/pool.yaml", strings.Split(metalLBOfTheDocument, "---\n")[0])
	for _, s := range r.left {
		check, plan := s.output != "" && strings.HasSuffix(s.command, "--check"), s.output != "" && strings.HasSuffix(s.command, "takeover metallb")
		if check {
			c.service("db")
			c.must(setStatus(c, "db", "192.168.7.20"))
		}
		if plan {
			c.comesToSay("takeover metallb --next", 0, "controller: done")
		}
		r.runs(s)
		if check {
			c.remove("db")
			c.gone("db")
		}
	}
}

// TestShownOutputs runs the commands of docs/troubleshooting.md and docs/addresses.md whose output they show.
func TestShownOutputs(t *testing.T) {
	f := withLab(t, lab.Options{Nodes: 2, Routers: []router.Kind{lab.FRR}}).field
	of := map[string][]shown{}
	for _, s := range placed(t)[compared] {
		of[s.document] = append(of[s.document], s)
	}
	for _, page := range []struct {
		document string
		story    func(*field, *reader)
	}{
		{"docs/troubleshooting.md", troubleshoots},
		{"docs/addresses.md", assigns},
	} {
		t.Run(page.document, func(t *testing.T) {
			f := f.within(t)
			r := f.reads(of[page.document])
			page.story(f, r)
			for _, s := range r.left {
				t.Errorf("%s: no story runs %q, which prints\n%s\nadd it to TestShownOutputs", s.where(), s.command, s.output)
			}
		})
		delete(of, page.document)
	}
	for _, commands := range of {
		for _, s := range commands {
			t.Errorf("%s: nothing compares this with what a command prints: add a story of %s to TestShownOutputs, or compare it elsewhere by prints:\n%s", s.where(), s.document, s.block)
		}
	}
}

func troubleshoots(f *field, r *reader) {
	const explain = "kubectl herald explain service default/web"
	f.service("web", to8080)
	r.does("kubectl get service web")
	r.does("kubectl events -n default --for service/web")
	f.pod("pod-1", f.site.Nodes[0].Name)
	f.pool("segment", delay(0), "198.18.0.200")
	f.holds("web", "198.18.0.200")
	f.service("second", to8080)
	r.does("kubectl events -n default --for service/second")
	r.does("kubectl herald pools")
	f.edit("second", annotated("herald.dev/ip", "198.18.0.201"))
	r.saysOf("kubectl events -n default --for service/second")
	f.remove("second")

	r.does(explain)
	f.must(f.access.Apply(f.ctx, "apiVersion: herald.dev/v1alpha1\nkind: L2Advertisement\nmetadata: {name: segment}\nspec: {interfaces: [eth9]}\n"))
	r.saysOf(explain)
	f.kubectl("patch", "l2advertisement", "segment", "--type=merge", "-p", `{"spec":{"interfaces":null}}`)
	f.edit("web", local, func(svc *corev1.Service) { svc.Spec.Selector = map[string]string{"app": "none"} })
	r.saysOf(explain)
	f.edit("web", func(svc *corev1.Service) {
		svc.Spec.Selector, svc.Spec.ExternalTrafficPolicy = map[string]string{"app": "pod"}, corev1.ServiceExternalTrafficPolicyCluster
	})
	r.saysOf(explain)

	f.must(f.access.Apply(f.ctx, "apiVersion: herald.dev/v1alpha1\nkind: BGPPeer\nmetadata: {name: tor-a}\n"+
		"spec: {localASN: 64512, peerASN: 64500, address: 198.18.0.9, passwordSecret: {name: tor-a}}\n"))
	r.does("kubectl get bgppeers.herald.dev -o wide")
	f.kubectl("create", "secret", "generic", "tor-a", "-n", lab.PeersNamespace, "--type=kubernetes.io/basic-auth", "--from-literal=password=change-me")
	r.does("kubectl herald status")

	r.saysOf(`kubectl patch ippools.herald.dev segment --type=merge -p '{"spec":{"addresses":["198.18.0.250-198.18.0.200"]}}'`)
	r.saysOf("kubectl create -f - <<EOF\napiVersion: herald.dev/v1alpha1\nkind: IPPool\nmetadata: {name: other}\nspec: {adresses: [198.18.0.200]}\nEOF")

	f.remove("web")
	f.gone("web")
	f.kubectl("delete", "ippools.herald.dev,l2advertisements.herald.dev,bgppeers.herald.dev", "--all", "--timeout=30s")
}

func assigns(f *field, r *reader) {
	port := func(protocol corev1.Protocol, number int32) func(*corev1.Service) {
		return func(svc *corev1.Service) {
			svc.Spec.Ports = []corev1.ServicePort{{Port: number, Protocol: protocol, TargetPort: intstr.FromInt32(8080)}}
		}
	}
	dns := annotated(herald.AnnotationSharingKey, "dns")
	f.announce()
	f.pool("public", func(s *herald.IPPoolSpec) { s.Quota = &herald.AddressQuota{IPv4: new(int64(6))} }, "198.18.0.192/28", "2001:db8:1::/112")
	f.pool("vip", func(s *herald.IPPoolSpec) { s.AutoAssign, s.ReclaimPolicy = new(bool), herald.ReclaimRetain }, "198.18.0.240-198.18.0.243")
	served := func(name, address string, edit ...func(*corev1.Service)) {
		f.service(name, append([]func(*corev1.Service){to8080}, edit...)...)
		f.has(name, address)
	}
	served("web", "198.18.0.192")
	served("dns-tcp", "198.18.0.193", dns, port(corev1.ProtocolTCP, 53))
	served("dns-udp", "198.18.0.193", dns, port(corev1.ProtocolUDP, 53))
	served("dns-old", "198.18.0.194", dns, port(corev1.ProtocolTCP, 53))
	shop := func() {
		served("shop", "198.18.0.240", annotated(herald.AnnotationPool, "vip"), port(corev1.ProtocolTCP, 443))
	}
	shop()
	r.does("kubectl get ipallocations")
	r.does("kubectl get services")
	r.does("kubectl get ipallocation 198.18.0.193 -o yaml")
	r.does("kubectl events --for service/dns-old")
	f.remove("shop")
	r.does("kubectl get ipallocation 198.18.0.240")
	shop()
	r.does("kubectl get service shop")

	f.kubectl("apply", "-f", "testdata/ipam/ipaddressclaims.yaml", "-f", "testdata/ipam/ipaddresses.yaml")
	f.must(f.access.Apply(f.ctx, blockOf(f.t, "docs/addresses.md", "externalPoolRef: {apiGroup")))
	f.service("lent", fromPool("corp"))
	r.does("kubectl get ipaddressclaims -n herald-system")
	f.remove("lent")
	f.gone("lent")
	f.kubectl("delete", "ippools.herald.dev", "corp", "--timeout=30s")

	f.must(f.access.Apply(f.ctx, blockOf(f.t, "docs/addresses.md", "name: mail")))
	served("mail", "198.18.0.200")
	// The plan goes on after the address whose record is the youngest, and records are stamped with whole seconds.
	reserved, err := f.herald.Allocations.Get(f.ctx, "198.18.0.200", metav1.GetOptions{})
	f.must(err)
	f.eventually("a younger record", func(context.Context) error {
		if time.Now().Before(reserved.CreationTimestamp.Add(time.Second)) {
			return errors.New("not yet")
		}
		return nil
	})
	served("more-1", "198.18.0.195")
	served("more-2", "198.18.0.196")
	f.service("more-3", to8080)
	r.does("kubectl events --for service/more-3")
	r.does("kubectl herald explain service more-3")
	r.does("kubectl herald explain service web")
	r.file("pool.yaml", "apiVersion: herald.dev/v1alpha1\nkind: IPPool\nmetadata: {name: public}\nspec: {addresses: [198.18.0.194-198.18.0.207, \"2001:db8:1::/112\"], quota: {ipv4: 8}}\n")
	r.does("kubectl herald plan -f pool.yaml")
	f.kubectl("apply", "--server-side", "--force-conflicts", "-f", filepath.Join(r.dir, "pool.yaml"))
	f.has("more-3", "198.18.0.197")
	r.does("kubectl events --for service/web")
	r.does("kubectl herald renumber default/web")
	r.does("kubectl herald pools public")
	f.kubectl("delete", "ippools.herald.dev", "vip", "--wait=false")
	r.does("kubectl herald pools vip")
	r.does("kubectl get ippools.herald.dev")
	r.does("kubectl get bgppeers.herald.dev")
	r.does("kubectl get l2advertisements.herald.dev")
}

// TestShownPlans is about the outputs of docs/kubectl-herald.md that are about pools.
func TestShownPlans(t *testing.T) {
	const document = "docs/kubectl-herald.md"
	c, _, _ := withCCM(t)
	c.must(c.access.Apply(c.ctx, "{apiVersion: v1, kind: Namespace, metadata: {name: team-red}}"))
	c.pool("public", delay(time.Hour), "198.51.100.0/26", "2001:db8::/112")
	c.service("web", annotated(herald.AnnotationIPs, "198.51.100.33"))
	c.has("web", "198.51.100.33")
	c.must(c.access.Apply(c.ctx, "{apiVersion: herald.dev/v1alpha1, kind: IPAllocation, metadata: {name: 198.51.100.30}, spec: {address: 198.51.100.30}}"))
	for i := range 22 {
		c.in("team-red").service(fmt.Sprint("web-", i))
		if i < 7 {
			c.service(fmt.Sprint("web-", i))
		}
	}
	c.service("dual", dualStack)
	used := func(ipv4 int64) {
		c.eventually(fmt.Sprint(ipv4, " addresses in use"), func(ctx context.Context) error {
			p, err := c.herald.Pools.Get(ctx, "public", metav1.GetOptions{})
			if err == nil && (p.Status.IPv4 == nil || p.Status.IPv4.Assigned != ipv4 || p.Status.IPv6 == nil || p.Status.IPv6.Assigned != 1) {
				err = fmt.Errorf("there are %+v", p.Status)
			}
			return err
		})
	}
	used(32)
	c.in("team-red").remove("web-0")
	c.in("team-red").remove("web-1")
	used(30)
	c.prints(document, "cooling", "pools public")
	c.service("vip", annotated(herald.AnnotationPool, "gold"))
	c.event("Service", "vip", "SyncLoadBalancerFailed", `there is no pool "gold"`)
	c.prints(document, "+ gold", "plan -f "+file(t, `apiVersion: herald.dev/v1alpha1
kind: IPPool
metadata: {name: public}
spec: {addresses: [198.51.100.0/27, "2001:db8::/112"], reuseDelay: 1h}
---
apiVersion: herald.dev/v1alpha1
kind: IPPool
metadata: {name: gold}
spec: {addresses: [198.51.100.16-198.51.100.40]}
`))
}

// has waits until a Service has an address.
func (c *cluster) has(name, address string) {
	c.t.Helper()
	c.eventually(name+" with "+address, func(context.Context) error {
		if has := addresses(c.get(name)); !slices.Equal(has, []string{address}) {
			return fmt.Errorf("it has %v", has)
		}
		return nil
	})
}
