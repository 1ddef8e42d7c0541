package provider

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	gocmp "github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	servicehelper "k8s.io/cloud-provider/service/helpers"

	herald "github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/ipam"
)

const (
	v4 = corev1.IPv4Protocol
	v6 = corev1.IPv6Protocol
)

var sameAddress = gocmp.Comparer(func(x, y netip.Addr) bool { return x == y })

// wish has the parts of a Service in which a user asks for addresses.
type wish struct {
	families []corev1.IPFamily
	policy   corev1.IPFamilyPolicy // empty: not set
	pool     string
	ips      string
	ip       string // spec.loadBalancerIP
}

// service returns the Service default/uid with a wish, as the API server returns it.
func service(uid string, w wish) *corev1.Service {
	svc := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: uid, UID: types.UID(uid), Annotations: map[string]string{}},
		Spec:       corev1.ServiceSpec{Type: corev1.ServiceTypeLoadBalancer, IPFamilies: w.families, LoadBalancerIP: w.ip},
	}
	if w.policy != "" {
		svc.Spec.IPFamilyPolicy = &w.policy
	}
	if w.pool != "" {
		svc.Annotations[herald.AnnotationPool] = w.pool
	}
	if w.ips != "" {
		svc.Annotations[herald.AnnotationIPs] = w.ips
	}
	return svc
}

func addresses(texts ...string) (all []netip.Addr) {
	for _, t := range texts {
		all = append(all, netip.MustParseAddr(t))
	}
	return all
}

func TestTranslate(t *testing.T) {
	four, both, six := []corev1.IPFamily{v4}, []corev1.IPFamily{v4, v6}, []corev1.IPFamily{v6}
	for _, story := range []struct {
		name string
		wish wish
		want ipam.Request // without the owner
	}{
		{"nothing special", wish{families: four}, ipam.Request{Families: []ipam.Family{ipam.IPv4}, RequireAll: true}},
		{"IPv6", wish{families: six}, ipam.Request{Families: []ipam.Family{ipam.IPv6}, RequireAll: true}},
		{"the order of families is the user's", wish{families: []corev1.IPFamily{v6, v4}, policy: corev1.IPFamilyPolicyRequireDualStack},
			ipam.Request{Families: []ipam.Family{ipam.IPv6, ipam.IPv4}, RequireAll: true}},
		{"one of two may be missing", wish{families: both, policy: corev1.IPFamilyPolicyPreferDualStack},
			ipam.Request{Families: []ipam.Family{ipam.IPv4, ipam.IPv6}}},
		{"single stack", wish{families: four, policy: corev1.IPFamilyPolicySingleStack},
			ipam.Request{Families: []ipam.Family{ipam.IPv4}, RequireAll: true}},
		{"a pool", wish{families: four, pool: "public"}, ipam.Request{Families: []ipam.Family{ipam.IPv4}, RequireAll: true, Pool: "public"}},
		{"an address", wish{families: four, ips: "198.51.100.7"},
			ipam.Request{Families: []ipam.Family{ipam.IPv4}, RequireAll: true, Addresses: addresses("198.51.100.7")}},
		{"an address of each family, with spaces", wish{families: both, ips: " 2001:DB8::7 ,198.51.100.7"},
			ipam.Request{Families: []ipam.Family{ipam.IPv4, ipam.IPv6}, RequireAll: true, Addresses: addresses("2001:db8::7", "198.51.100.7")}},
		{"an address of one of two families", wish{families: both, ips: "2001:db8::7"},
			ipam.Request{Families: []ipam.Family{ipam.IPv4, ipam.IPv6}, RequireAll: true, Addresses: addresses("2001:db8::7")}},
		{"spec.loadBalancerIP", wish{families: four, ip: "198.51.100.7"},
			ipam.Request{Families: []ipam.Family{ipam.IPv4}, RequireAll: true, Addresses: addresses("198.51.100.7")}},
		{"the annotation goes before spec.loadBalancerIP", wish{families: four, ips: "198.51.100.8", ip: "198.51.100.7"},
			ipam.Request{Families: []ipam.Family{ipam.IPv4}, RequireAll: true, Addresses: addresses("198.51.100.8")}},
	} {
		t.Run(story.name, func(t *testing.T) {
			got, err := translate(service("web", story.wish))
			if err != nil {
				t.Fatal(err)
			}
			story.want.Count = 1
			story.want.Owner, story.want.Subject = ipam.Owner{Namespace: "default", Name: "web", UID: "web"}, ipam.Subject{Namespace: "default"}
			if diff := gocmp.Diff(story.want, got, sameAddress); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestTranslateNamesWhatIsWrong(t *testing.T) {
	four, both := []corev1.IPFamily{v4}, []corev1.IPFamily{v4, v6}
	for _, story := range []struct {
		name string
		wish wish
		says []string // the field, the error and the remedy
	}{
		{"no address", wish{families: four, ips: "web.example"}, []string{"annotation herald.dev/ips", `"web.example"`, "is not an IP address", "write addresses"}},
		{"a prefix", wish{families: four, ips: "198.51.100.0/24"}, []string{"annotation herald.dev/ips", `"198.51.100.0/24"`}},
		{"a comma too many", wish{families: four, ips: "198.51.100.7,"}, []string{"annotation herald.dev/ips", `""`}},
		{"blank", wish{families: four, ips: " "}, []string{"annotation herald.dev/ips", `""`}},
		{"a link's own address", wish{families: both, ips: "fe80::7%eth0"}, []string{"annotation herald.dev/ips", `"fe80::7%eth0"`, "is not an IP address"}},
		{"semicolons", wish{families: both, ips: "198.51.100.7;2001:db8::7"}, []string{`"198.51.100.7;2001:db8::7"`, "separated by commas"}},
		{"spec.loadBalancerIP", wish{families: four, ip: "x"}, []string{"spec.loadBalancerIP", `"x"`}},
		{"a family the Service has not", wish{families: four, ips: "2001:db8::7"}, []string{"annotation herald.dev/ips", "2001:db8::7 is IPv6", "spec.ipFamilies is [IPv4]", "add the family"}},
		{"two of one family", wish{families: both, ips: "198.51.100.7,198.51.100.8"}, []string{"annotation herald.dev/ips", "more than 1 IPv4 addresses", "herald.dev/addresses"}},
	} {
		t.Run(story.name, func(t *testing.T) {
			_, err := translate(service("web", story.wish))
			if err == nil {
				t.Fatal("accepted")
			}
			for _, want := range story.says {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%q does not say %q", err, want)
				}
			}
		})
	}
}

// TestAnAnnotationListsAsManyAddressesAsAServiceMayHave is about a Service of two families, which may have 16
// addresses of each. It can ask for all of them, and leave all of them.
func TestAnAnnotationListsAsManyAddressesAsAServiceMayHave(t *testing.T) {
	var all []string
	for i := range 16 {
		all = append(all, fmt.Sprintf("198.51.100.%d", i), fmt.Sprintf("2001:db8::%x", i))
	}
	svc := service("web", wish{families: []corev1.IPFamily{v4, v6}, ips: strings.Join(all, ",")})
	svc.Annotations[herald.AnnotationAddresses], svc.Annotations[herald.AnnotationRenumber] = "16", strings.Join(all, ",")
	req, err := translate(svc)
	if err != nil || len(req.Addresses) != 32 || len(req.Leave) != 32 {
		t.Errorf("it asks for %d addresses and leaves %d (%v), want 32 and 32", len(req.Addresses), len(req.Leave), err)
	}
}

// TestTranslateBoundsWhatAUserWrites checks that input is refused with a short message if the schema of a record
// would refuse it, or if it would fill events and the ledger.
func TestTranslateBoundsWhatAUserWrites(t *testing.T) {
	list := func(n int) string { return strings.TrimSuffix(strings.Repeat("198.51.100.7,", n), ",") }
	for _, story := range []struct {
		name, key, value string
		says             string // empty: it is accepted
	}{
		{"a long text", herald.AnnotationIPs, strings.Repeat("x", 250<<10), "is not an IP address"},
		{"a terminal escape", herald.AnnotationIPs, "\x1b[2J", "is not an IP address"},
		{"17 addresses to ask for", herald.AnnotationIPs, list(17), "more than 16 IPv4 addresses"},
		{"16 addresses to leave", herald.AnnotationRenumber, list(16), ""},
		{"17 addresses to leave", herald.AnnotationRenumber, list(17), "more than 16 IPv4 addresses"},
		{"a long reclaim policy", herald.AnnotationReclaim, strings.Repeat("é", 1000), "is not a reclaim policy"},
		{"no addresses", herald.AnnotationAddresses, "0", "write one from 1 to 16"},
		{"17 addresses", herald.AnnotationAddresses, "17", "write one from 1 to 16"},
		{"no number of addresses", herald.AnnotationAddresses, "two", "is not a number of addresses"},
		{"16 addresses", herald.AnnotationAddresses, "16", ""},
		{"a long pool", herald.AnnotationPool, strings.Repeat("x", 254), "is too long"},
		{"a sharing key of 253 bytes", herald.AnnotationSharingKey, strings.Repeat("k", 253), ""},
		{"a sharing key of 254 bytes", herald.AnnotationSharingKey, strings.Repeat("k", 254), "write a key of 253 at most"},
		{"a sharing key with a line end", herald.AnnotationSharingKey, "a\nb", "has control characters"},
	} {
		t.Run(story.name, func(t *testing.T) {
			svc := service("web", wish{families: []corev1.IPFamily{v4}})
			svc.Annotations[story.key] = story.value
			_, err := translate(svc)
			if story.says == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), story.says) || !strings.Contains(err.Error(), story.key) {
				t.Fatalf("%.300v, want %q", err, story.says)
			}
			if len(err.Error()) > 400 || strings.ContainsFunc(err.Error(), unicode.IsControl) || !utf8.ValidString(err.Error()) {
				t.Errorf("the message is long or has control characters: %.500q", err.Error())
			}
		})
	}
}

// FuzzTranslateIPs checks that any text of the annotation is either refused, with the name of the annotation, or
// becomes a request that does not contradict itself.
func FuzzTranslateIPs(f *testing.F) {
	for _, text := range []string{"198.51.100.7", "2001:db8::7", "198.51.100.7, 2001:db8::7", "198.51.100.7,198.51.100.8", "::ffff:198.51.100.7", "fe80::1%eth0", "fe80::1%a\nb", ",", "\x00"} {
		for families := range uint8(3) {
			f.Add(text, families)
		}
	}
	f.Fuzz(func(t *testing.T, text string, families uint8) {
		offered := [][]corev1.IPFamily{{v4}, {v6}, {v6, v4}}[families%3]
		req, err := translate(service("web", wish{families: offered, ips: text}))
		if err != nil {
			if !strings.HasPrefix(err.Error(), "annotation herald.dev/ips: ") || strings.ContainsAny(err.Error(), "\n\x00") {
				t.Fatalf("%q: %q does not name the annotation, or is not one printable line", text, err)
			}
			return
		}
		if (text == "") != (len(req.Addresses) == 0) || len(req.Addresses) > len(offered) {
			t.Fatalf("%q becomes %v", text, req.Addresses)
		}
		for i, written := range strings.Split(text, ",") {
			if text == "" {
				break
			}
			if address, err := netip.ParseAddr(strings.TrimSpace(written)); err != nil || address != req.Addresses[i] {
				t.Fatalf("%q is read as %s", written, req.Addresses[i])
			}
		}
		// The only error of the allocator is IPv4 written as IPv6, and the error says so.
		_, err = ipam.New().Allocate(req)
		odd := false
		for _, a := range req.Addresses {
			odd = odd || a.Is4In6()
		}
		if errors.Is(err, ipam.ErrInvalid) != odd {
			t.Fatalf("%q: %v", text, err)
		}
	})
}

func TestStatusIsWhatIsCarried(t *testing.T) {
	given := []ipam.Allocation{{Address: netip.MustParseAddr("2001:db8::7")}, {Address: netip.MustParseAddr("198.51.100.7")}}
	svc := service("web", wish{})
	svc.Status.LoadBalancer = *status(given)
	if diff := gocmp.Diff(addresses("2001:db8::7", "198.51.100.7"), Carried(svc), sameAddress); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	// The API server fills in missing fields, which the service controller would take for a change.
	for _, i := range svc.Status.LoadBalancer.Ingress {
		if i.IPMode == nil || *i.IPMode != corev1.LoadBalancerIPModeVIP {
			t.Errorf("%s has no mode of its own", i.IP)
		}
	}
	if !servicehelper.LoadBalancerStatusEqual(status(given), &svc.Status.LoadBalancer) {
		t.Error("the same addresses make another status")
	}
	svc.Status.LoadBalancer.Ingress = append(svc.Status.LoadBalancer.Ingress, corev1.LoadBalancerIngress{Hostname: "web.example"})
	if n := len(Carried(svc)); n != 2 {
		t.Errorf("%d addresses with a hostname among them, want 2", n)
	}
}
