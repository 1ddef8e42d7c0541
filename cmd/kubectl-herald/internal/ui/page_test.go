package ui

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	herald "github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/cmd/kubectl-herald/internal/report"
	"github.com/heraldlb/herald/e2e/browser"
)

const artefacts = "../../../../build/ui"

// troubled adds a session that is down, a stranger, a Service that waits, and a node whose speaker is silent.
func troubled(o *report.Objects) {
	st := &o.Speakers[2].Status
	st.Sessions[1].State, st.Sessions[1].Reason, st.Sessions[1].BFD, st.Sessions[1].BFDReason = "Down", "no answer from the router", "Down", "the detection time has passed"
	st.Established = "1/2"
	o.Speakers[0].Status.Conflicts = []herald.SpeakerConflict{{Address: address(0), Interface: "eth0", MAC: "02:00:5e:00:53:99", At: time.Now().Format(time.RFC3339)}}
	o.Services = append(o.Services, &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "checkout", UID: "checkout"},
		Spec:       corev1.ServiceSpec{Type: corev1.ServiceTypeLoadBalancer, IPFamilies: []corev1.IPFamily{corev1.IPv4Protocol}},
	})
	silent := metav1.NewMicroTime(time.Now().Add(-5 * time.Minute))
	for _, l := range o.Leases {
		if l.Name == "speaker-"+nodes[3] {
			l.Spec.RenewTime = &silent
		}
	}
	for _, s := range o.Speakers[:3] {
		s.Status.Interfaces[0].Hears = []string{}
		for _, other := range nodes[:3] {
			if other != s.Name {
				s.Status.Interfaces[0].Hears = append(s.Status.Interfaces[0].Hears, other)
			}
		}
		s.Status.Interfaces[0].Neighbours = 2
	}
}

// TestThePage opens the page of a healthy cluster, and then adds problems.
func TestThePage(t *testing.T) {
	var trouble, moved atomic.Bool
	c := &cluster{
		services: 12,
		owner: func(i int) string {
			if moved.Load() && i%4 == 3 {
				return nodes[0]
			}
			return nodes[i%4]
		},
		edit: func(o *report.Objects) {
			if trouble.Load() {
				troubled(o)
			}
		},
	}
	p := browser.Open(t, serve(t, c.source()).url(""))
	p.Shows("#problems", "Nothing needs attention")
	p.Shows("#cluster", "production")
	p.Shows("#services", "default/service-000", "198.51.100.0", "rack1-n1", "tor-a from 4 nodes")
	p.Shows("#pools", "public", "IPv4", "12 used, 16 cooling, 996 free of 1,024", "2⁵³ or more")
	p.Shows("#topology", "198.51.100.0/22", "tor-a", "rack1-n1", "owns 3 addresses", "198.51.100.0")
	p.Shows("#changes", "None since")
	p.Audit()
	p.Screenshots(artefacts, "well")

	trouble.Store(true)
	moved.Store(true)
	p.Shows("#problems", "5 things need attention", "Address conflict", "198.51.100.0", "Silent speaker", "Service pending", "shop/checkout waits for an address", "BFD down")
	p.Shows("#changes", "Session of rack2-n1 with tor-b is Down: no answer from the router", "and 2 other addresses: rack2-n2 (eth0) → rack1-n1 (eth0) (highest rank)")
	p.Shows("#said", "5 problems")
	p.Shows("#topology", "✗ speaker is silent")
	p.Audit()
	p.Screenshots(artefacts, "troubled")

	// with the keyboard only
	p.Until("dialog[open] h2", "shop/checkout", chromedp.Focus(`a[data-key="shop/checkout"]`), chromedp.KeyEvent(kb.Enter))
	p.Shows("dialog[open]", "Next:", "made up for shop/checkout", "Asks for", "IPv4", "Pools", "public IPv4")
	p.Audit()
	p.Screenshots(artefacts, "trace")
	time.Sleep(pause + time.Second) // The page below the dialog is rendered again.
	p.Do(chromedp.KeyEvent(kb.Escape))
	p.Comes("!document.querySelector('dialog').open && location.hash === ''") // The event comes after the closing.
	p.Comes("document.activeElement.dataset.key === 'shop/checkout'")
	p.Do(chromedp.SendKeys("#filter", "rack1-n2 shop"))
	p.Shows("#count", "1 of 13 Services")
	if at := browser.Evaluate[string](p, "document.activeElement.id"); at != "filter" {
		t.Errorf("the focus is on %s", at)
	}
}

// TestAnExcludedNodeIsNoProblem has a node that the label excludes, as kubeadm does with the nodes of the control plane.
func TestAnExcludedNodeIsNoProblem(t *testing.T) {
	c := &cluster{services: 3, owner: func(int) string { return nodes[1] }, edit: func(o *report.Objects) {
		o.Nodes[0].Labels = map[string]string{corev1.LabelNodeExcludeBalancers: ""}
		o.Speakers[0].Status.Problem = "the node has the label " + corev1.LabelNodeExcludeBalancers
	}}
	p := browser.Open(t, serve(t, c.source()).url(""))
	p.Shows("#problems", "Nothing needs attention")
	p.Shows("#nodes", "excluded by its label: announces nothing")
	p.Shows("#topology", "excluded by its label")
}

// TestALateReadingIsLost advances the clock of the page, as if the reading hung.
func TestALateReadingIsLost(t *testing.T) {
	p := browser.Open(t, serve(t, (&cluster{services: 3}).source()).url(""))
	p.Until("#reading[data-state=live]", "Read")
	browser.Evaluate[bool](p, `globalThis.ahead = 120000, globalThis.now = Date.now, Date.now = () => now() + ahead, true`)
	p.Until("#reading[data-state=lost]", "Last read 2 min ago")
	browser.Evaluate[bool](p, `globalThis.ahead = 0, true`)
	p.Until("#reading[data-state=live]", "Read")
}

// TestHostileTextIsText has markup and control characters in everything that users and nodes may write.
func TestHostileTextIsText(t *testing.T) {
	const markup = `<img src=x onerror="document.title='broken'"><script>document.title='broken'</script>`
	c := &cluster{services: 3, edit: func(o *report.Objects) {
		o.Services[0].Name, o.Services[0].UID = markup, "hostile"
		o.Services = append(o.Services, &corev1.Service{
			ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "x\u202egnp.exe\x1b[2J"}, Spec: corev1.ServiceSpec{Type: corev1.ServiceTypeLoadBalancer},
		})
		o.Pools[0].Name = markup
		o.Pools[0].Status.Conditions = append(o.Pools[0].Status.Conditions, metav1.Condition{Type: "Ready", Status: metav1.ConditionFalse, Reason: markup, Message: markup})
		o.Speakers[0].Status.Problem = markup
		o.Speakers[1].Status.Sessions[0].State, o.Speakers[1].Status.Sessions[0].Reason = markup, markup
		o.Speakers[1].Status.Claims[0].DeputyFor = markup
		o.Speakers[2].Status.Interfaces[0].Subnets = []string{markup}
	}}
	s := serve(t, c.source())
	p := browser.Open(t, s.url("#default/x"))
	p.Shows("dialog[open]", "there is no Service default/x")
	p.Do(chromedp.KeyEvent(kb.Escape))
	p.Shows("#problems", "<img src=x onerror=")
	p.Shows("#services", "x�gnp.exe�[2J", "default/<img src=x")
	p.Shows("#pools", "<img src=x")
	p.Until("dialog[open] h2", "default/<img src=x", chromedp.Click(`a[data-key^="default/<img"]`))
	p.Shows("dialog[open]", "default/<img src=x", "Next:")
	for expression, want := range map[string]string{
		"document.title.replace(/\\d+/, 'n')": "(n) Herald",
		"String(document.querySelectorAll('img').length + document.querySelectorAll('script').length)": "2", // Those of the page.
		"String(/[\\u0000-\\u0008\\u000b-\\u001f\\u007f\\u202e]/.test(document.body.textContent))":     "false",
		"document.referrer": "",
	} {
		if got := browser.Evaluate[string](p, expression); got != want {
			t.Errorf("%s is %q, want %q", expression, got, want)
		}
	}
}

// TestAThousandServices measures the cost of the page when the addresses of all Services move, and when the user types into
// the filter. It measures processor time, so that the result does not depend on other programs.
func TestAThousandServices(t *testing.T) {
	const bound = 200 * time.Millisecond
	var owner atomic.Int32
	c := &cluster{services: 1000, owner: func(i int) string { return nodes[(i+int(owner.Load()))%4] }}
	p := browser.Open(t, serve(t, c.source()).url(""))
	p.Shows("#count", "1,000 Services")
	if rows := browser.Evaluate[int](p, "document.querySelectorAll('#services tbody tr').length"); rows != 100 {
		t.Errorf("%d rows", rows)
	}
	// Polling for text costs time as well, so the test does not poll. It observes the page before the next reading can
	// come.
	browser.Evaluate[bool](p, `globalThis.moved = new Promise((done) => {
		const observer = new MutationObserver(() => { observer.disconnect(); requestAnimationFrame(() => setTimeout(() => done(true))); });
		observer.observe(document.querySelector("#changes .content"), { childList: true });
	}), true`)
	moved := p.Busy(func() {
		owner.Store(1)
		browser.Evaluate[bool](p, "moved")
	})
	p.Shows("#changes", "and 249 other addresses: rack1-n1 (eth0) → rack1-n2 (eth0)")
	filtered := p.Busy(func() {
		browser.Evaluate[bool](p, `new Promise((done) => {
			const filter = document.getElementById("filter");
			filter.value = "service-99";
			filter.dispatchEvent(new Event("input"));
			requestAnimationFrame(() => setTimeout(() => done(true)));
		})`)
	})
	p.Shows("#count", "10 of 1,000 Services")
	t.Logf("the page is busy for %v while 1,000 addresses move, and for %v to filter", moved, filtered)
	if moved > bound || filtered > bound {
		t.Errorf("the page is busy for %v while 1,000 addresses move, and for %v to filter: want less than %v", moved, filtered, bound)
	}
}
