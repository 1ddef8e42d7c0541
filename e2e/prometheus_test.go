package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/yaml"

	"github.com/heraldlb/herald/e2e/lab"
	"github.com/heraldlb/herald/speaker/inspect"
)

// firing is the query for firing alerts.
const firing = `ALERTS{alertstate="firing"}`

// prometheus is a Prometheus in the lab.
type prometheus struct {
	url     string
	lingers string // An alert that may fire or not fire.
}

// startPrometheus starts a Prometheus with the alerts of the manifests. Its targets have the labels that the Prometheus
// Operator adds for Herald's ServiceMonitors. It sends the token of a ServiceAccount that is bound to herald-viewer.
func startPrometheus(f *labField) *prometheus {
	f.t.Helper()
	_, err := f.access.Kubectl(f.ctx, "apply", "-f", "../manifests/rbac/viewer.yaml")
	f.must(err)
	token, err := f.kube.CoreV1().ServiceAccounts(lab.HeraldNamespace).CreateToken(f.ctx, "herald-viewer", &authenticationv1.TokenRequest{}, metav1.CreateOptions{})
	f.must(err)
	f.ccm.Args = append(f.ccm.Args, "--authentication-kubeconfig="+f.access.Kubeconfig, "--authorization-kubeconfig="+f.access.Kubeconfig, "--authentication-skip-lookup")
	f.eventually("herald-ccm leads", func(ctx context.Context) error { // Before that it may not handle SIGTERM yet.
		lease, err := f.kube.CoordinationV1().Leases(lab.HeraldNamespace).Get(ctx, "herald-ccm", metav1.GetOptions{})
		if err == nil && ptr.Deref(lease.Spec.HolderIdentity, "") == "" {
			err = errors.New("its Lease has no holder")
		}
		return err
	})
	f.must(f.ccm.Restart(f.ctx))

	alerts, err := os.ReadFile("../manifests/monitoring/alerts.yaml")
	f.must(err)
	fast := regexp.MustCompile(`(for: |\[)([0-9]+)m\b`).ReplaceAll(alerts, []byte("${1}${2}s"))
	target := func(job, address, node, pod string) map[string]any {
		return map[string]any{"targets": []string{address}, "labels": map[string]string{
			"job": job, "namespace": lab.HeraldNamespace, "service": job + "-metrics", "endpoint": "https", "pod": pod, "container": job, "node": node,
		}}
	}
	targets := []map[string]any{target("herald-ccm", "127.0.0.1:10258", "control-plane", "herald-ccm")}
	for _, n := range f.site.Nodes {
		targets = append(targets, target("herald-speaker", fmt.Sprintf("%v:%d", n.IPv4, inspect.Port), n.Name, lab.SpeakerPod(n)))
	}
	config, err := yaml.Marshal(map[string]any{
		"global":     map[string]string{"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
		"rule_files": []string{"alerts.yaml"},
		"scrape_configs": []map[string]any{{
			"job_name": "herald", "scheme": "https", "static_configs": targets,
			"authorization": map[string]string{"credentials": token.Status.Token}, "tls_config": map[string]bool{"insecure_skip_verify": true},
		}},
	})
	f.must(err)
	dir := f.t.TempDir()
	f.must(os.WriteFile(filepath.Join(dir, "alerts.yaml"), fast, 0o600))
	f.must(os.WriteFile(filepath.Join(dir, "prometheus.yaml"), config, 0o600))
	program := &lab.Process{
		Name: "prometheus", Path: "/usr/bin/prometheus", LogPath: filepath.Join(dir, "log"),
		Args: []string{"--config.file=" + filepath.Join(dir, "prometheus.yaml"), "--storage.tsdb.path=" + filepath.Join(dir, "data"), "--web.listen-address=127.0.0.1:9090"},
	}
	f.must(program.Start())
	f.t.Cleanup(func() {
		if f.t.Failed() {
			f.t.Log(tail(program.Log()))
		}
		f.must(program.Kill())
	})
	p := &prometheus{url: "http://127.0.0.1:9090", lingers: "HeraldAddressConflict"}
	f.eventually("Prometheus scrapes all targets", func(ctx context.Context) error {
		up, err := p.query(ctx, "up == 1")
		if err == nil && len(up) != len(targets) {
			err = fmt.Errorf("only of %v", up)
		}
		return err
	})
	return p
}

// finds returns a check that a query has results.
func (p *prometheus) finds(query string) func(context.Context) error {
	return func(ctx context.Context) error {
		found, err := p.query(ctx, query)
		if err == nil && len(found) == 0 {
			err = fmt.Errorf("Prometheus finds nothing that is %s", query)
		}
		return err
	}
}

// query returns the labels of the present results of a query.
func (p *prometheus) query(ctx context.Context, query string) (found []map[string]string, err error) {
	var data struct {
		Result []struct{ Metric map[string]string }
	}
	if err := p.get(ctx, "query?query="+url.QueryEscape(query), &data); err != nil {
		return nil, err
	}
	for _, r := range data.Result {
		found = append(found, r.Metric)
	}
	return found, nil
}

// get sends a request to the API of Prometheus.
func (p *prometheus) get(ctx context.Context, path string, data any) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, p.url+"/api/v1/"+path, nil)
	if err != nil {
		return err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	answer := struct {
		Error string
		Data  any
	}{Data: data}
	if err := json.NewDecoder(response.Body).Decode(&answer); err != nil {
		return err
	}
	if answer.Error != "" {
		return fmt.Errorf("%s: %s", path, answer.Error)
	}
	return nil
}

// firesOnly waits until exactly these alerts fire. If there are none, it also waits until none is pending. Meanwhile no other
// alert may fire, except those that fired before.
func (p *prometheus) firesOnly(c *cluster, want ...string) {
	c.t.Helper()
	before, err := p.alerts(c.ctx, firing)
	c.must(err)
	c.eventually(fmt.Sprintf("the alerts %v and no others", want), func(ctx context.Context) error {
		now, err := p.alerts(ctx, firing)
		if err != nil {
			return err
		}
		for _, alert := range now {
			if len(want) > 0 && !slices.Contains(want, alert) && !slices.Contains(before, alert) && alert != p.lingers {
				c.t.Fatalf("%s fires, where %v are expected", alert, want)
			}
		}
		return p.checkFiring(ctx, want)
	})
}

// sees waits until an alert is pending or fires.
func (p *prometheus) sees(c *cluster, alert string) {
	c.t.Helper()
	c.eventually(alert+" is pending", p.finds(fmt.Sprintf("ALERTS{alertname=%q}", alert)))
}

// checkFiring returns an error unless exactly these alerts fire. If there are none, none may be pending either.
func (p *prometheus) checkFiring(ctx context.Context, want []string) error {
	query := firing
	if len(want) == 0 {
		query = "ALERTS"
	}
	now, err := p.alerts(ctx, query)
	if err != nil {
		return err
	}
	if !slices.Contains(want, p.lingers) {
		now = slices.DeleteFunc(now, func(alert string) bool { return alert == p.lingers })
	}
	if !slices.Equal(now, want) {
		return fmt.Errorf("there are %v", now)
	}
	return nil
}

// alerts returns the names of the alerts that a query finds.
func (p *prometheus) alerts(ctx context.Context, query string) (names []string, err error) {
	alerts, err := p.query(ctx, query)
	for _, a := range alerts {
		names = append(names, a["alertname"])
	}
	slices.Sort(names)
	return slices.Compact(names), err
}

// queries returns the queries of a dashboard's panels, as Grafana sends them.
func queries(t *testing.T, path string) (all []string) {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var dashboard struct {
		Panels []struct {
			Title   string
			Targets []struct{ Expr string }
		}
	}
	if err := json.Unmarshal(content, &dashboard); err != nil {
		t.Fatal(err)
	}
	for _, p := range dashboard.Panels {
		if len(p.Targets) == 0 {
			t.Errorf("%s: panel %q asks nothing", path, p.Title)
		}
		for _, q := range p.Targets {
			all = append(all, strings.ReplaceAll(q.Expr, "$__rate_interval", "15s"))
		}
	}
	return all
}
