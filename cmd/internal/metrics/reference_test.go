package metrics

import (
	"crypto/ed25519"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	"k8s.io/client-go/dynamic/fake"
	"k8s.io/client-go/informers"
	kubefake "k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/record"

	"github.com/heraldlb/herald/api/client"
	"github.com/heraldlb/herald/provider"
	"github.com/heraldlb/herald/speaker"
)

// catalogue is a Registerer that stores the descriptions of metrics.
type catalogue struct{ metrics map[string]metric }

type metric struct{ labels, help string }

var description = regexp.MustCompile(`fqName: "(.*)", help: "(.*)", unit: ".*", constLabels: {(?:(\w+)=.*)?}, variableLabels: {(.*)}}$`)

func (c *catalogue) Register(from prometheus.Collector) error {
	descs := make(chan *prometheus.Desc)
	go func() {
		defer close(descs)
		from.Describe(descs)
	}()
	for d := range descs {
		m := description.FindStringSubmatch(d.String())
		if m == nil {
			return fmt.Errorf("%v is not understood", d)
		}
		var labels []string
		for l := range strings.SplitSeq(strings.Trim(m[3]+","+m[4], ","), ",") {
			if l != "" {
				labels = append(labels, "`"+l+"`")
			}
		}
		c.metrics[m[1]] = metric{strings.Join(labels, ", "), strings.ReplaceAll(m[2], `\"`, `"`)}
	}
	return nil
}

func (c *catalogue) MustRegister(all ...prometheus.Collector) {
	for _, one := range all {
		if err := c.Register(one); err != nil {
			panic(err)
		}
	}
}

func (c *catalogue) Unregister(prometheus.Collector) bool { return false }

// TestTheReferenceIsComplete compares docs/monitoring.md with the descriptions of the programs' metrics. The story of the
// alerts checks their types.
func TestTheReferenceIsComplete(t *testing.T) {
	set, err := client.New(&rest.Config{Host: "http://127.0.0.1:1"})
	if err != nil {
		t.Fatal(err)
	}
	kube := kubefake.NewClientset()
	shared := informers.NewSharedInformerFactory(kube, 0).Core().V1()
	ccm, one := &catalogue{map[string]metric{}}, &catalogue{map[string]metric{}}
	for _, c := range []*catalogue{ccm, one} {
		c.MustRegister(BuildInfo(), Unreadable(set))
	}
	provider.New(provider.Config{
		Kube: kube, Herald: set, Dynamic: fake.NewSimpleDynamicClient(client.Scheme), Services: shared.Services(), Namespaces: shared.Namespaces(),
		Events: &record.FakeRecorder{}, Many: &record.FakeRecorder{}, MarkPodsOnDeadNodes: true, Metrics: ccm, Log: zap.NewNop(),
	})
	if _, err := speaker.New(speaker.Config{
		Kube: kube, Herald: set, Events: &record.FakeRecorder{}, Node: "n", Namespace: "h", PeersNamespace: "p",
		Key: make(ed25519.PrivateKey, ed25519.PrivateKeySize), Metrics: one, Log: zap.NewNop(),
	}); err != nil {
		t.Fatal(err)
	}
	const path = "../../../docs/monitoring.md"
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	_, text, _ := strings.Cut(string(content), "\n## Metrics\n")
	ofCCM, ofSpeaker, _ := strings.Cut(text, "\n### Of each speaker\n")
	row := regexp.MustCompile("(?m)^\\| `(herald_\\w+)` \\| (gauge|counter|histogram|summary) \\| (.*) \\| (.*) \\|$")
	for program, c := range map[string]struct {
		*catalogue
		text string
	}{"herald-ccm": {ccm, ofCCM}, "herald-speaker": {one, ofSpeaker}} {
		documented := map[string]metric{}
		for _, m := range row.FindAllStringSubmatch(c.text, -1) {
			documented[m[1]] = metric{strings.TrimSpace(m[3]), m[4]}
			if _, is := c.metrics[m[1]]; !is {
				t.Errorf("%s has %s, which is not a metric of %s", path, m[1], program)
			}
			if counts := strings.HasSuffix(m[1], "_total"); counts != (m[2] == "counter") {
				t.Errorf("%s: a %s does not end so", m[1], m[2])
			}
		}
		var missing []string
		for name, m := range c.metrics {
			if documented[name] != m {
				missing = append(missing, fmt.Sprintf("| `%s` | | %s | %s |", name, m.labels, m.help))
			}
		}
		slices.Sort(missing)
		if len(missing) > 0 {
			t.Errorf("%s does not have these of %s, or says something else of them:\n%s", path, program, strings.Join(missing, "\n"))
		}
	}
}
