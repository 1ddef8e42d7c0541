package e2e

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/heraldlb/herald/api/client"
	"github.com/heraldlb/herald/e2e/lab"
)

// installation is a lab in which Herald is installed as users do it: its programs run as the pods in the API server
// specify, with the command, user, capabilities and token of the container.
type installation struct {
	*field
	lab *lab.Lab
}

func (i installation) within(t testing.TB) installation {
	return installation{i.field.within(t), i.lab}
}

// pods waits until a program has one pod on each node and fits accepts all of them. It returns them in the nodes' order.
func (i installation) pods(program string, fits func(*corev1.Pod) bool) (pods []corev1.Pod) {
	i.t.Helper()
	i.eventually("pods of "+program, func(ctx context.Context) error {
		list, err := i.kube.CoreV1().Pods(lab.HeraldNamespace).List(ctx, metav1.ListOptions{LabelSelector: "app.kubernetes.io/name=" + program})
		if err != nil {
			return err
		}
		pods = list.Items
		slices.SortFunc(pods, func(a, b corev1.Pod) int { return strings.Compare(a.Spec.NodeName, b.Spec.NodeName) })
		var on []string
		for _, p := range pods {
			if p.DeletionTimestamp == nil && (fits == nil || fits(&p)) {
				on = append(on, p.Spec.NodeName)
			}
		}
		if len(on) != len(pods) || !slices.Equal(on, names(i.site)) {
			return fmt.Errorf("of %d pods those on %q fit", len(pods), on)
		}
		return nil
	})
	return pods
}

// start runs the containers of a program's pods, as kubelets and container runtimes would.
func (i installation) start(program string, fits ...func(*corev1.Pod) bool) (started []*lab.Process) {
	i.t.Helper()
	fits = append(fits, nil)
	for _, pod := range i.pods(program, fits[0]) {
		container := pod.Spec.Containers[0]
		kubeconfig := filepath.Join(i.lab.Dir(), "kubeconfig-"+pod.Name)
		i.must(os.WriteFile(kubeconfig, []byte(i.kubeconfig(i.token(pod.Spec.ServiceAccountName, &pod))), 0o644)) // Readable by others than root.
		args := slices.Concat(container.Args, []string{"--kubeconfig", kubeconfig})
		if program == "herald-ccm" {
			args = append(args, "--authentication-kubeconfig", kubeconfig, "--authorization-kubeconfig", kubeconfig)
		}
		p := &lab.Process{
			Name: pod.Name, Host: i.lab.Node(pod.Spec.NodeName).Host,
			Path: "/bin/sh", Args: append([]string{"-c", confinement(&pod), "sh", i.lab.Program(container.Command[0])}, args...),
			Env:     []string{"POD_NAMESPACE=" + pod.Namespace, "NODE_NAME=" + pod.Spec.NodeName, "POD_NAME=" + pod.Name},
			LogPath: filepath.Join(i.lab.Dir(), "logs", pod.Name+".log"),
		}
		i.must(p.Start())
		i.t.Cleanup(func() { _ = p.Kill() })
		started = append(started, p)
	}
	return started
}

// confinement returns a shell script that runs its arguments with the rights of the pod's container. The script opens
// the program before it drops its own rights, which it may need to access the program's folder.
func confinement(pod *corev1.Pod) string {
	capabilities := "-all"
	for _, c := range pod.Spec.Containers[0].SecurityContext.Capabilities.Add {
		capabilities += ",+" + strings.ToLower(string(c))
	}
	return fmt.Sprintf(`exec 3<"$1"; shift; exec setpriv --reuid=%[1]d --regid=%[1]d --clear-groups --inh-caps=-all --bounding-set=%[2]s --no-new-privs /proc/self/fd/3 "$@"`,
		*pod.Spec.SecurityContext.RunAsUser, capabilities)
}

// token returns a token of one of Herald's ServiceAccounts: the token that the kubelet would mount into the pod, or, if
// pod is nil, one that is not bound to a pod.
func (i installation) token(account string, pod *corev1.Pod) string {
	i.t.Helper()
	return i.tokenIn(lab.HeraldNamespace, account, pod)
}

// tokenIn returns a token of a ServiceAccount in any namespace.
func (c *cluster) tokenIn(namespace, account string, pod *corev1.Pod) string {
	c.t.Helper()
	request := &authenticationv1.TokenRequest{}
	if pod != nil {
		request.Spec.BoundObjectRef = &authenticationv1.BoundObjectReference{APIVersion: "v1", Kind: "Pod", Name: pod.Name, UID: pod.UID}
	}
	request, err := c.kube.CoreV1().ServiceAccounts(namespace).CreateToken(c.ctx, account, request, metav1.CreateOptions{})
	c.must(err)
	return request.Status.Token
}

func (c *cluster) kubeconfig(token string) string {
	return fmt.Sprintf(`
apiVersion: v1
kind: Config
clusters: [{name: lab, cluster: {server: "https://%s", certificate-authority-data: %s}}]
users: [{name: pod, user: {token: %s}}]
contexts: [{name: pod, context: {cluster: lab, user: pod}}]
current-context: pod
`, strings.TrimPrefix(c.access.Config.Host, "https://"), base64.StdEncoding.EncodeToString(c.access.Config.CAData), token)
}

// as returns the cluster with clients that use a token.
func (c *cluster) as(token string) *cluster {
	c.t.Helper()
	config := rest.AnonymousClientConfig(c.access.Config)
	config.BearerToken = token
	o := *c
	var err error
	o.kube, err = kubernetes.NewForConfig(config)
	c.must(err)
	o.herald, err = client.New(config)
	c.must(err)
	return &o
}

// refusals returns the API server's counts of refused requests: those that the authorizers denied, and those that
// admission denied.
func (i installation) refusals() []string {
	i.t.Helper()
	text, err := i.kube.CoreV1().RESTClient().Get().AbsPath("/metrics").DoRaw(i.ctx)
	i.must(err)
	var counts []string
	for line := range bytes.Lines(text) {
		if refusal.Match(line) {
			counts = append(counts, string(line))
		}
	}
	return counts
}

var refusal = regexp.MustCompile(`^(authorization_attempts_total\{result="(denied|no-opinion|error)"|apiserver_request_total\{.*code="403")`)

// metricsAreForThoseWhoMay checks access to the metrics of the herald-ccms, and that those of the leader have the pool.
func (i installation) metricsAreForThoseWhoMay(pool string, ccms ...*lab.Process) {
	i.t.Helper()
	i.kubectl("create", "serviceaccount", "prometheus", "-n", lab.HeraldNamespace)
	i.kubectl("create", "clusterrole", "prometheus", "--verb=get", "--non-resource-url=/metrics")
	i.kubectl("create", "clusterrolebinding", "prometheus", "--clusterrole=prometheus", "--serviceaccount="+lab.HeraldNamespace+":prometheus")
	for _, ask := range []struct {
		path, token string
		want        int
	}{
		{"/healthz", "", http.StatusOK},
		{"/metrics", "", http.StatusForbidden},
		{"/metrics", i.token("herald-speaker", nil), http.StatusForbidden},
		{"/metrics", i.token("prometheus", nil), http.StatusOK},
	} {
		i.eventually(fmt.Sprintf("%s with %d", ask.path, ask.want), func(ctx context.Context) error {
			status, _, err := askCCM(ctx, ccms[0], ask.path, ask.token)
			if err == nil && status != ask.want {
				err = fmt.Errorf("it is %d", status)
			}
			return err
		})
	}
	token := i.token("prometheus", nil)
	i.eventually("the leader tells of pool "+pool, func(ctx context.Context) error {
		series := []string{fmt.Sprintf("herald_pool_assigned{family=\"IPv4\",pool=%q} 1\n", pool), "herald_allocation_duration_seconds_count 1\n"}
		for _, ccm := range ccms {
			_, body, err := askCCM(ctx, ccm, "/metrics", token)
			if err != nil || !slices.ContainsFunc(series, func(s string) bool { return !strings.Contains(body, s) }) {
				return err
			}
		}
		return fmt.Errorf("neither of them says %q", series)
	})
}

// askCCM sends a request to one herald-ccm.
func askCCM(ctx context.Context, ccm *lab.Process, path, token string) (status int, body string, err error) {
	node := &lab.Client{Host: ccm.Host}
	// Its certificate is self-signed.
	transport := &http.Transport{DialContext: node.Dial, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}} //nolint:gosec // As Prometheus does.
	defer transport.CloseIdleConnections()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://127.0.0.1:10258"+path, nil)
	if err != nil {
		return 0, "", err
	}
	if token != "" {
		request.Header.Set("Authorization", "Bearer "+token)
	}
	response, err := transport.RoundTrip(request)
	if err != nil {
		return 0, "", err
	}
	defer response.Body.Close()
	content, err := io.ReadAll(response.Body)
	return response.StatusCode, string(content), err
}
