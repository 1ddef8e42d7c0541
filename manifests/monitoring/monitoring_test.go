// Package monitoring holds the tests of what Prometheus and Grafana are given.
package monitoring

import (
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"
)

// rules is the form of a file of rules.
type rules struct {
	Groups []struct {
		Name  string
		Rules []struct {
			Alert, Expr, For    string
			Labels, Annotations map[string]string
		}
	}
}

// tests is the form of a file for `promtool test rules`.
type tests struct {
	Tests []struct {
		AlertRuleTest []struct {
			Alertname string
			ExpAlerts []any `json:"exp_alerts"`
		} `json:"alert_rule_test"`
	}
}

func read(t *testing.T, path string, into any) {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := yaml.Unmarshal(content, into); err != nil {
		t.Fatal(err)
	}
}

// TestAlerts runs the tests of the alerts, and looks that each alert has them.
func TestAlerts(t *testing.T) {
	promtool(t, "check", "rules", "alerts.yaml")
	promtool(t, "test", "rules", "alerts_test.yaml")

	var all tests
	read(t, "alerts_test.yaml", &all)
	fires, silent := map[string]bool{}, map[string]bool{}
	for _, story := range all.Tests {
		for _, c := range story.AlertRuleTest {
			if len(c.ExpAlerts) > 0 {
				fires[c.Alertname] = true
			} else {
				silent[c.Alertname] = true
			}
		}
	}
	var r rules
	read(t, "alerts.yaml", &r)
	for _, g := range r.Groups {
		for _, a := range g.Rules {
			if !fires[a.Alert] || !silent[a.Alert] {
				t.Errorf("%s: in alerts_test.yaml it fires: %v, and it does not: %v; want both", a.Alert, fires[a.Alert], silent[a.Alert])
			}
			delete(fires, a.Alert)
		}
	}
	if len(fires) > 0 {
		t.Errorf("alerts_test.yaml has alerts that there are not: %v", fires)
	}
}

// TestEveryAlertSaysWhatToDo looks for a severity and texts of each alert, and for the section of the runbook that it names.
func TestEveryAlertSaysWhatToDo(t *testing.T) {
	const path, url = "../../docs/monitoring.md", "https://github.com/heraldlb/herald/blob/main/docs/monitoring.md#"
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	sections := map[string]string{}
	for part := range strings.SplitSeq(string(content), "\n### ") {
		if name, text, _ := strings.Cut(part, "\n"); strings.HasPrefix(name, "Herald") {
			sections[name], _, _ = strings.Cut(text, "\n#")
		}
	}
	var r rules
	read(t, "alerts.yaml", &r)
	for _, g := range r.Groups {
		for _, a := range g.Rules {
			if !slices.Contains([]string{"warning", "critical"}, a.Labels["severity"]) {
				t.Errorf("%s: the severity is %q", a.Alert, a.Labels["severity"])
			}
			for _, name := range []string{"summary", "description"} {
				if !strings.HasSuffix(a.Annotations[name], ".") {
					t.Errorf("%s: %s is not a sentence: %q", a.Alert, name, a.Annotations[name])
				}
			}
			if a.Annotations["runbook_url"] != url+strings.ToLower(a.Alert) {
				t.Errorf("%s: runbook_url is %q", a.Alert, a.Annotations["runbook_url"])
			}
			for _, part := range []string{"**Meaning.**", "**Effect.**", "**Cause.**", "**Cure.**", "kubectl "} {
				if !strings.Contains(sections[a.Alert], part) {
					t.Errorf("%s: its section in %s has no %s", a.Alert, path, part)
				}
			}
			delete(sections, a.Alert)
		}
	}
	for name := range sections {
		t.Errorf("%s has a section about %s, which is not an alert", path, name)
	}
}

// promtool runs it in this folder. It is Debian's package prometheus, which `make packages` installs.
func promtool(t *testing.T, args ...string) {
	t.Helper()
	if _, err := exec.LookPath("promtool"); err != nil && os.Getenv("HERALD_REQUIRE_ROOT") == "" {
		t.Skip("there is no promtool: run make packages")
	}
	if out, err := exec.Command("promtool", args...).CombinedOutput(); err != nil {
		t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}
