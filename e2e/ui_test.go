package e2e

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"github.com/heraldlb/herald/e2e/browser"
	"github.com/heraldlb/herald/e2e/lab"
	"github.com/heraldlb/herald/e2e/lab/router"
)

// startUI runs kubectl herald ui until stop is called, and returns the address that it prints.
func (f *field) startUI() (url string, stop func()) {
	f.t.Helper()
	cmd := exec.CommandContext(context.WithoutCancel(f.ctx), filepath.Join(root(f.t), "build", "bin", "kubectl-herald"), "ui", "--kubeconfig", f.access.Kubeconfig)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	f.must(err)
	f.must(cmd.Start())
	ended := false
	stop = func() {
		if ended {
			return
		}
		ended = true
		if err := errors.Join(cmd.Process.Signal(syscall.SIGINT), cmd.Wait()); err != nil {
			f.t.Error("kubectl herald ui:", err)
		}
	}
	f.t.Cleanup(stop)
	line, err := bufio.NewReader(out).ReadString('\n')
	f.must(err)
	f.must(shows(blockOf(f.t, "docs/kubectl-herald.md", "Press Ctrl-C"), line))
	url = regexp.MustCompile(`http://127\.0\.0\.1:\d+/\w{26}/`).FindString(line)
	if url == "" {
		f.t.Fatalf("no address in %q", line)
	}
	return url, stop
}

// page is the data that kubectl herald ui sends to a browser.
type page struct {
	url   string
	mu    sync.Mutex
	parts map[string]string // The latest texts by part of the page.
}

// openPage opens a page without a browser, until the story ends.
func (f *field) openPage() *page {
	f.t.Helper()
	url, _ := f.startUI()
	p := &page{url: url, parts: map[string]string{}}
	ctx, cancel := context.WithCancel(f.ctx)
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url+"events", nil)
	f.must(err)
	response, err := http.DefaultClient.Do(r)
	f.must(err)
	var reading sync.WaitGroup
	reading.Go(func() {
		defer response.Body.Close()
		lines, name := bufio.NewReader(response.Body), ""
		for {
			line, err := lines.ReadString('\n')
			if err != nil {
				return
			}
			if event, ok := strings.CutPrefix(line, "event: "); ok {
				name = strings.TrimSpace(event)
			} else if data, ok := strings.CutPrefix(line, "data: "); ok {
				p.mu.Lock()
				p.parts[name] = texts([]byte(data))
				p.mu.Unlock()
			}
		}
	})
	f.t.Cleanup(func() { cancel(); reading.Wait() })
	return p
}

// texts returns the texts in JSON, without its escapes.
func texts(data []byte) string {
	var tree any
	if err := json.Unmarshal(data, &tree); err != nil {
		return err.Error()
	}
	return fmt.Sprint(tree)
}

// shows waits until a part of the page has this text.
func (p *page) shows(c *cluster, part, want string) {
	c.t.Helper()
	c.eventually(fmt.Sprintf("the %s of the page have %q", part, want), func(context.Context) error {
		p.mu.Lock()
		defer p.mu.Unlock()
		if !strings.Contains(p.parts[part], want) {
			return errors.New("they have " + p.parts[part])
		}
		return nil
	})
}

// traces waits until a click on a Service shows this text.
func (p *page) traces(c *cluster, service, want string) {
	c.t.Helper()
	c.eventually(fmt.Sprintf("a click on %s shows %q", service, want), func(ctx context.Context) error {
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, p.url+"trace?service="+service, nil)
		if err != nil {
			return err
		}
		response, err := http.DefaultClient.Do(r)
		if err != nil {
			return err
		}
		defer response.Body.Close()
		data, err := io.ReadAll(response.Body)
		if err == nil && !strings.Contains(texts(data), want) {
			err = errors.New("it shows " + string(data))
		}
		return err
	})
}

// TestWhatHappensIsSeenInTheBrowser is about kubectl herald ui: everything works, the speaker that owns an address is
// killed, and a machine without a speaker takes the address.
func TestWhatHappensIsSeenInTheBrowser(t *testing.T) {
	const address, six = "198.18.0.200", "2001:db8:18::200"
	// soon bounds how much later than kubectl herald status the page shows the same.
	const soon = 15 * time.Second
	f := withLab(t, lab.Options{Nodes: 3, Routers: []router.Kind{lab.FRR}})
	_, err := f.access.Kubectl(f.ctx, "apply", "-f", "../manifests/rbac/viewer.yaml")
	f.must(err)
	f.pool("segment", delay(0), address, six)
	f.announce()
	f.pod("pod-1", f.site.Nodes[0].Name)
	f.service("web", to8080, dualStack)
	f.routed(f.site.Routers[0], address, names(f.site)...)
	owner := f.answeredBy(address, names(f.site)...)
	f.comesToSay("status", 0, "Nothing needs attention.")

	url, stop := f.startUI()
	p := browser.Open(t, url)
	shows := func(selector string, want ...string) {
		t.Helper()
		if took := p.Shows(selector, want...); took > soon {
			t.Errorf("the page shows %q after %v", want, took)
		}
	}
	pictures := filepath.Join(root(t), "build", "ui")
	shows("#problems", "Nothing needs attention")
	shows("#services", "default/web", address, owner, f.site.Routers[0].Name, six)
	shows("#topology", "198.18.0.0/", f.site.Routers[0].Name, names(f.site)[0], names(f.site)[2])
	shows("#sessions", f.site.Routers[0].Name, "Established")
	shows("#pools", "segment", "1 used, 0 free of 1")
	p.Audit()
	p.Screenshots(pictures, "lab-well")

	f.must(f.speakers[owner].Kill())
	f.comesToSay("status", 2, "the speaker of node "+owner+" is silent")
	shows("#problems", "the speaker of node "+owner+" is silent")
	shows("#changes", address+" of default/web", owner+" (eth0) → ", " for "+owner+" (eth0)")
	shows("#services", "answers for "+owner)
	p.Until("dialog[open] h2", "default/web", chromedp.Click("#services a"))
	shows("dialog[open]", "default/web", "Next:", "Announced", address, "answers for "+owner+", whose speaker is silent")
	p.Screenshots(pictures, "lab-trace")
	p.Do(chromedp.KeyEvent(kb.Escape))
	p.Screenshots(pictures, "lab-silent")

	f.must(f.speakers[owner].Start())
	f.comesToSay("status", 0, "Nothing needs attention.")
	shows("#problems", "Nothing needs attention")

	f.must(f.site.Segment.Host.Script("ip addr add %s/32 dev eth0", address))
	f.comesToSay("verify "+address, 2, "a machine that is not a speaker answers") // The speakers hear the answer, too.
	f.comesToSay("status", 2, address+": a machine that is not a speaker uses it: ")
	shows("#problems", "1 thing needs attention", "Address conflict", address+": a machine that is not a speaker uses it: ")
	p.Screenshots(pictures, "lab-stranger")

	stop()
	shows("#reading", "kubectl herald ui has ended")
}
