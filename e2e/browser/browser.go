// Package browser controls a real Chromium, with which tests check web pages.
package browser

import (
	"context"
	_ "embed"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/performance"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
)

// program is the name of the program in Debian.
const program = "chromium"

// patience bounds each wait for a page.
const patience = time.Minute

// Page is a page in its own browser.
type Page struct {
	t   testing.TB
	ctx context.Context

	mu       sync.Mutex
	problems []string
}

// Open starts a browser, which ends with the test, and opens a page. Errors in the console of the page fail the test.
// Without Chromium the test is skipped, unless HERALD_REQUIRE_ROOT is set, which says that all tests must run.
func Open(t testing.TB, url string) *Page {
	t.Helper()
	path, err := exec.LookPath(program)
	if err != nil {
		if os.Getenv("HERALD_REQUIRE_ROOT") != "" {
			t.Fatalf("%v: e2e/lab/packages.sh browser installs it", err)
		}
		t.Skip(err)
	}
	allocator, end := chromedp.NewExecAllocator(context.WithoutCancel(t.Context()),
		chromedp.ExecPath(path), chromedp.UserDataDir(t.TempDir()), chromedp.Headless, chromedp.NoSandbox, chromedp.DisableGPU, chromedp.NoFirstRun,
		chromedp.Flag("disable-quic", true), chromedp.Flag("disable-background-networking", true), chromedp.Flag("disable-component-update", true),
		chromedp.Flag("disable-sync", true), chromedp.Flag("disable-dev-shm-usage", true), chromedp.Flag("disable-extensions", true))
	t.Cleanup(end)
	p := &Page{t: t}
	var closed context.CancelFunc
	p.ctx, closed = chromedp.NewContext(allocator, chromedp.WithListener(p.hear))
	t.Cleanup(closed)
	t.Cleanup(func() {
		if err := chromedp.Cancel(p.ctx); err != nil {
			t.Error("the browser:", err)
		}
		p.mu.Lock()
		defer p.mu.Unlock()
		for _, text := range p.problems {
			t.Error("the page says:", text)
		}
	})
	// The browser starts with the first call and ends with the context of that call.
	if err := chromedp.Do(p.ctx, chromedp.Navigate(url)); err != nil {
		t.Fatal(err)
	}
	return p
}

// hear records problems of the page: exceptions, and violations of its content security policy.
func (p *Page) hear(event any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch e := event.(type) {
	case *runtime.EventExceptionThrown:
		p.problems = append(p.problems, (&chromedp.ExceptionError{ExceptionDetails: e.ExceptionDetails}).Error())
	case *log.EventEntryAdded:
		if e.Entry.Level == log.EntryLevelError && e.Entry.Source != log.EntrySourceNetwork { // The command may end before the page.
			p.problems = append(p.problems, e.Entry.Text)
		}
	}
}

// Do runs actions of chromedp.
func (p *Page) Do(steps ...chromedp.Action[chromedp.Void]) {
	p.t.Helper()
	if err := p.do(steps...); err != nil {
		p.t.Fatal(err)
	}
}

func (p *Page) do(steps ...chromedp.Action[chromedp.Void]) error {
	ctx, cancel := context.WithTimeout(p.ctx, patience)
	defer cancel()
	return chromedp.Do(ctx, steps...)
}

// Evaluate returns the value of a JavaScript expression. It awaits promises.
func Evaluate[T any](p *Page, expression string) T {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.ctx, patience)
	defer cancel()
	value, err := chromedp.Run(ctx, chromedp.Evaluate[T](expression, chromedp.EvalAwaitPromise))
	if err != nil {
		p.t.Fatal(err)
	}
	return value
}

// Text returns the text of the element that a CSS selector finds, or "" if there is none.
func (p *Page) Text(selector string) string {
	p.t.Helper()
	return strings.Join(strings.Fields(Evaluate[string](p, fmt.Sprintf("document.querySelector(%q)?.textContent ?? ''", selector))), " ")
}

// Shows waits until the element contains all texts in this order, and returns how long that took.
func (p *Page) Shows(selector string, want ...string) time.Duration {
	p.t.Helper()
	began := time.Now()
	for {
		text := p.Text(selector)
		rest, all := text, true
		for _, w := range want {
			_, after, ok := strings.Cut(rest, w)
			rest, all = after, all && ok
		}
		if all && text != "" {
			return time.Since(began)
		}
		if time.Since(began) > patience {
			p.t.Fatalf("%s does not come to show %q; it shows %q", selector, want, text)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// Until runs actions of chromedp, and waits until the element that the selector finds shows the text. It repeats the
// actions when nothing happens, as a user does: an element may be replaced after an action has found it.
func (p *Page) Until(selector, want string, steps ...chromedp.Action[chromedp.Void]) {
	p.t.Helper()
	began := time.Now()
	for {
		failed := p.do(steps...)
		for tried := time.Now(); time.Since(tried) < 5*time.Second; time.Sleep(50 * time.Millisecond) {
			if strings.Contains(p.Text(selector), want) {
				return
			}
		}
		if time.Since(began) > patience {
			p.t.Fatalf("%s does not come to show %q; it shows %q, and what was done last has the error %v", selector, want, p.Text(selector), failed)
		}
	}
}

// Comes waits until a JavaScript expression is true.
func (p *Page) Comes(expression string) {
	p.t.Helper()
	for began := time.Now(); !Evaluate[bool](p, expression); time.Sleep(50 * time.Millisecond) {
		if time.Since(began) > patience {
			p.t.Fatalf("it does not come to be that %s", expression)
		}
	}
}

// Busy returns how much CPU time the page's thread uses while do runs.
func (p *Page) Busy(do func()) time.Duration {
	p.t.Helper()
	before := p.busy()
	do()
	return p.busy() - before
}

func (p *Page) busy() (total time.Duration) {
	p.t.Helper()
	p.Do(chromedp.Func(func(ctx context.Context, t *chromedp.Target) error {
		if _, err := cdp.Call(ctx, t, performance.Enable, performance.EnableParams{TimeDomain: performance.EnableTimeDomainThreadTicks}); err != nil {
			return err
		}
		r, err := cdp.Call(ctx, t, performance.GetMetrics, cdp.Empty{})
		if err != nil {
			return err
		}
		for _, m := range r.Metrics {
			if m.Name == "TaskDuration" {
				total = time.Duration(m.Value * float64(time.Second))
			}
		}
		return nil
	}))
	return total
}

// look sets the width and the colour scheme of the page.
func (p *Page) look(width int64, scheme string) {
	p.t.Helper()
	p.Do(chromedp.Func(func(ctx context.Context, t *chromedp.Target) error {
		_, err := cdp.Call(ctx, t, emulation.SetDeviceMetricsOverride, emulation.SetDeviceMetricsOverrideParams{Width: width, Height: 900, DeviceScaleFactor: 1})
		if err != nil {
			return err
		}
		_, err = cdp.Call(ctx, t, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}}})
		return err
	}))
}

// looks are the widths and colour schemes in which the page is checked.
var looks = []struct {
	name   string
	width  int64
	scheme string
}{{"desktop-light", 1440, "light"}, {"desktop-dark", 1440, "dark"}, {"phone-light", 390, "light"}, {"phone-dark", 390, "dark"}}

// Screenshots writes pictures of the page on a desktop and on a phone, light and dark, into a directory. They show the
// visible part while a dialog is open, and otherwise the whole page.
func (p *Page) Screenshots(dir, name string) {
	p.t.Helper()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		p.t.Fatal(err)
	}
	for _, look := range looks {
		p.look(look.width, look.scheme)
		whole := !Evaluate[bool](p, "document.querySelector('dialog[open]') !== null")
		params := page.CaptureScreenshotParams{CaptureBeyondViewport: &whole}
		if whole {
			height := Evaluate[float64](p, "document.documentElement.scrollHeight")
			params.Clip = &page.Viewport{Width: float64(look.width), Height: height, Scale: 1}
		}
		var picture []byte
		p.Do(chromedp.Func(func(ctx context.Context, t *chromedp.Target) error {
			r, err := cdp.Call(ctx, t, page.CaptureScreenshot, params)
			picture = r.Data
			return err
		}))
		if err := os.WriteFile(filepath.Join(dir, name+"-"+look.name+".png"), picture, 0o644); err != nil {
			p.t.Fatal(err)
		}
	}
}

//go:embed audit.js
var audit string

// Audit checks accessibility: names of controls and images, the order of headings, headings of tables, labels that exist,
// and contrast, light and dark.
func (p *Page) Audit() {
	p.t.Helper()
	for _, look := range looks {
		p.look(look.width, look.scheme)
		for _, finding := range Evaluate[[]string](p, audit) {
			p.t.Errorf("%s: %s", look.name, finding)
		}
	}
}
