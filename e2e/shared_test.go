package e2e

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	herald "github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/e2e/lab"
	"github.com/heraldlb/herald/e2e/lab/router"
)

// TestServicesShareAnAddress runs two Services on one address, each with its own port and its own pod. Whatever
// happens to one of them, clients of the other one must not notice.
func TestServicesShareAnAddress(t *testing.T) {
	f := withHerald(t, lab.Options{Routers: []router.Kind{lab.BIRD}})
	sharing := annotated(herald.AnnotationSharingKey, "front")
	const address, webTarget, mailTarget = "198.18.0.200", "198.18.0.200:9000", "198.18.0.200:25"
	all := names(f.site)
	clients := []*lab.Client{f.site.Segment, f.site.Outside}
	f.announce()
	f.pool("segment", delay(0), "198.18.0.200-198.18.0.250")
	f.service("web", to8080, sharing)
	f.holds("web", address)
	f.pod("pod-1", all[0])
	f.pod("pod-2", all[1])
	_, err := f.access.Kubectl(f.ctx, "label", "--overwrite", "pod", "pod-2", "app=mail")
	f.must(err)

	t.Run("a second one joins", func(t *testing.T) {
		f := f.within(t)
		f.served("web")
		undisturbed := f.undisturbed(address, webTarget)
		f.service("mail", to8080, sharing, func(svc *corev1.Service) {
			svc.Spec.Selector = map[string]string{"app": "mail"}
			svc.Spec.Ports[0].Port = 25
		})
		for target, pod := range map[string]string{webTarget: "pod-1", mailTarget: "pod-2"} {
			for _, from := range clients {
				if r := f.reached(from, target); r.Pod != pod {
					t.Errorf("%s asks %s and %+v answers, want %s", from.Host.Name, target, r, pod)
				}
			}
		}
		undisturbed.judge()
	})
	// Neither Service affects the other one, whichever a speaker learned last.
	for _, part := range []struct{ lost, pod, stays, target, lostTarget string }{
		{"mail", "pod-2", "web", webTarget, mailTarget},
		{"web", "pod-1", "mail", mailTarget, webTarget},
	} {
		t.Run(part.lost+" has no endpoint for a while", func(t *testing.T) {
			f := f.within(t)
			f.served(part.stays)
			undisturbed := f.undisturbed(address, part.target)
			f.must(f.access.SetReady(f.ctx, "default", part.pod, false))
			for _, from := range clients {
				f.must(from.EventuallySilent(f.ctx, part.lostTarget))
			}
			f.must(f.access.SetReady(f.ctx, "default", part.pod, true))
			for _, from := range clients {
				f.reached(from, part.lostTarget)
			}
			undisturbed.judge()
		})
	}
	t.Run("mail is deleted", func(t *testing.T) {
		f := f.within(t)
		f.served("web")
		undisturbed := f.undisturbed(address, webTarget)
		f.remove("mail")
		f.gone("mail")
		f.holds("web", address)
		for _, from := range clients {
			f.must(from.EventuallySilent(f.ctx, mailTarget))
		}
		undisturbed.judge()
	})
	t.Run("web is deleted, the last one", func(t *testing.T) {
		f := f.within(t)
		f.remove("web")
		f.answeredBy(address)
		for _, r := range f.site.Routers {
			f.routed(r, address)
		}
	})
}

// undisturbed checks that nothing happens to an address: it is announced neither again nor by other nodes, and
// continuous requests to one of its Services are all answered.
type undisturbed struct {
	f       *field
	address netip.Addr
	owner   string
	claims  map[string]time.Time
	routes  map[string]string
	since   time.Time
	referee *referee
	openers []*lab.Opener // from the segment, and from behind the router
}

func (f *field) undisturbed(address, target string) *undisturbed {
	f.t.Helper()
	all := names(f.site)
	u := &undisturbed{f: f, address: netip.MustParseAddr(address), owner: f.answeredBy(address, all...)}
	for _, r := range f.site.Routers {
		f.routed(r, address, all...)
	}
	u.referee = f.referee(address)
	began := time.Now()
	f.eventually("the owner has announced it as often as it does", func(context.Context) error {
		// The owner's last two announcements are a second apart.
		if now := time.Now(); now.Sub(began) < 1500*time.Millisecond || u.announcements(now.Add(-1500*time.Millisecond)) > 0 {
			return errors.New("it announces it still")
		}
		return nil
	})
	f.eventually("the owner alone reports that it claims it", func(context.Context) error {
		u.claims = u.claimed()
		if _, ok := u.claims[u.owner]; !ok || len(u.claims) != 1 {
			return fmt.Errorf("it is claimed by %v, and %s answers", u.claims, u.owner)
		}
		return nil
	})
	u.routes, u.since = u.learned(), time.Now()
	for _, from := range []*lab.Client{f.site.Segment, f.site.Outside} {
		f.reached(from, target)
		patient := *from
		patient.Timeout = 5 * time.Second // Like a user's client; see underLoad.
		u.openers = append(u.openers, patient.Open(f.ctx, target, 50*time.Millisecond))
	}
	return u
}

// announcements returns the number of gratuitous ARP packets since the given time.
func (u *undisturbed) announcements(since time.Time) (n int) {
	for _, p := range u.referee.watch.Claims(u.address, since) {
		if p.Kind == lab.Announcement {
			n++
		}
	}
	return n
}

// claimed returns the nodes that claim the address, and since when they do.
func (u *undisturbed) claimed() map[string]time.Time {
	u.f.t.Helper()
	statuses, err := u.f.herald.SpeakerStatuses.List(u.f.ctx, metav1.ListOptions{})
	u.f.must(err)
	claims := map[string]time.Time{}
	for _, o := range statuses.Items {
		for _, c := range o.Status.Claims {
			if c.Address == u.address.String() {
				since, err := time.Parse(time.RFC3339, c.Since)
				u.f.must(err)
				claims[o.Name] = since
			}
		}
	}
	return claims
}

// learned returns when each router learned its routes to the address.
func (u *undisturbed) learned() map[string]string {
	u.f.t.Helper()
	learned := map[string]string{}
	for _, r := range u.f.site.Routers {
		routes, err := r.Routes(u.f.ctx)
		u.f.must(err)
		for _, route := range routes {
			if route.Prefix.Addr() == u.address {
				learned[fmt.Sprint(r.Name, " via ", route.NextHops)] = route.Learned
			}
		}
	}
	return learned
}

func (u *undisturbed) judge() {
	u.f.t.Helper()
	for _, o := range u.openers {
		attempts := o.Stop()
		u.f.t.Log(attempts)
		if attempts.Failed() > 0 || len(attempts) == 0 {
			u.f.t.Errorf("%v: %v", attempts, attempts.Errors())
		}
	}
	// An owner repeats its announcement, two packets, every minute.
	if n, due := u.announcements(u.since), 2*(1+int(time.Since(u.since)/time.Minute)); n > due {
		u.f.t.Errorf("%s was announced anew: %d gratuitous ARP packets, and %d may have been due", u.address, n, due)
	}
	if now := u.claimed(); !maps.EqualFunc(now, u.claims, time.Time.Equal) || len(now) != 1 {
		u.f.t.Errorf("%s is claimed by %v, want it as it was: %v, by one", u.address, now, u.claims)
	}
	if now := u.learned(); !maps.Equal(now, u.routes) || len(now) != len(u.f.site.Routers)*len(u.f.site.Nodes) {
		u.f.t.Errorf("routers learned %v, want it as it was: %v, from every node", now, u.routes)
	}
	u.referee.judge(u.owner)
}
