package provider

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"

	"go.uber.org/zap"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	coreinformers "k8s.io/client-go/informers/core/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/fake"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"
	servicehelper "k8s.io/cloud-provider/service/helpers"
	"k8s.io/utils/ptr"
	"pgregory.net/rapid"

	herald "github.com/heraldlb/herald/api/v1alpha1"
)

// The addresses that the other system may grant: those of the pool, and one that is in no pool.
var lentAddresses = []string{"198.51.100.0", "198.51.100.1", "198.51.100.2", "198.51.100.3", "203.0.113.1"}

const lentQuota = 3

// plane is an API server with Services, records, claims and grants. Leaders see each change of each object as late as the test likes.
type plane struct {
	*lender
	kube       kubernetes.Interface
	services   map[string]*corev1.Service
	records    *apiOf[herald.IPAllocation, *herald.IPAllocation]
	pools      cache.Store
	namespaces cache.Indexer
	writes     int
	// lose is what happens to the next write.
	lose loss
	// granted has every address that was ever granted, by claim.
	granted map[string]map[string]bool
	// moves has the UIDs of the Services that were edited, so that they may lose an address.
	moves map[types.UID]bool
	// had has the addresses of each Service.
	had map[types.UID][]netip.Addr

	leaders []*leader
	classes []string
	alone   bool // whether there never were two leaders of a class at a time
}

type loss int

const (
	nothing loss = iota
	request
	reply
)

var errLost = apierrors.NewInternalError(errors.New("the connection was lost"))

// lossy is the API of the records. It loses requests and answers.
type lossy struct{ *plane }

func (a lossy) do(write func() (*herald.IPAllocation, error)) (*herald.IPAllocation, error) {
	lost := a.lose
	a.lose = nothing
	if lost == request {
		return nil, errLost
	}
	rec, err := write()
	if lost == reply {
		return nil, errLost
	}
	return rec, err
}

func (a lossy) Get(ctx context.Context, name string, o metav1.GetOptions) (*herald.IPAllocation, error) {
	return a.records.Get(ctx, name, o)
}

func (a lossy) Create(ctx context.Context, rec *herald.IPAllocation, o metav1.CreateOptions) (*herald.IPAllocation, error) {
	return a.do(func() (*herald.IPAllocation, error) { return a.records.Create(ctx, rec, o) })
}

func (a lossy) Update(ctx context.Context, rec *herald.IPAllocation, o metav1.UpdateOptions) (*herald.IPAllocation, error) {
	return a.do(func() (*herald.IPAllocation, error) { return a.records.Update(ctx, rec, o) })
}

func (a lossy) UpdateStatus(ctx context.Context, rec *herald.IPAllocation, o metav1.UpdateOptions) (*herald.IPAllocation, error) {
	return a.do(func() (*herald.IPAllocation, error) { return a.records.UpdateStatus(ctx, rec, o) })
}

func (a lossy) Delete(ctx context.Context, name string, o metav1.DeleteOptions) error {
	_, err := a.do(func() (*herald.IPAllocation, error) { return nil, a.records.Delete(ctx, name, o) })
	return err
}

// Services returns the client with which leaders read Services.
func (p *plane) Services(string) typedcorev1.ServiceInterface { return servicesOf{nil, p} }

type servicesOf struct {
	typedcorev1.ServiceInterface
	*plane
}

func (s servicesOf) Get(_ context.Context, name string, _ metav1.GetOptions) (*corev1.Service, error) {
	if svc := s.services[name]; svc != nil {
		return svc.DeepCopy(), nil
	}
	return nil, apierrors.NewNotFound(corev1.Resource("services"), name)
}

// leader is a herald-ccm with caches of its own.
type leader struct {
	*Provider
	services, records cache.Indexer
	claims, answers   map[string]*unstructured.Unstructured
	queue             map[string]bool
	// served has the Services as the service controller has seen them last.
	served map[string]*corev1.Service
}

func (l *leader) OnAdd(o any, _ bool) { l.queue[o.(*corev1.Service).Name] = true }
func (l *leader) OnUpdate(_, o any)   { l.OnAdd(o, false) }
func (l *leader) OnDelete(any)        {}

// start starts a leader, whose caches are up to date at first.
func (p *plane) start(class string) {
	informer := serviceInformer{coreinformers.NewServiceInformer(p.kube, "", 0, cache.Indexers{cache.NamespaceIndex: cache.MetaNamespaceIndexFunc})}
	l := &leader{
		services: informer.GetIndexer(), records: cache.NewIndexer(cache.MetaNamespaceKeyFunc, recordIndexers),
		claims: map[string]*unstructured.Unstructured{}, answers: map[string]*unstructured.Unstructured{}, queue: map[string]bool{}, served: map[string]*corev1.Service{},
	}
	l.Provider = wire(dependencies{
		class: class, services: informer, kube: p.kube, namespaces: corelisters.NewNamespaceLister(p.namespaces),
		records: lossy{p}, recordCache: l.records, poolCache: p.pools, events: &record.FakeRecorder{}, log: zap.NewNop(),
	})
	l.Provider.services.api = p
	l.projection.handler = l
	for _, name := range p.names() {
		p.deliver(l, name)
	}
	l.rebuild()
	l.projection.open()
	p.alone = p.alone && !slices.ContainsFunc(p.leaders, func(o *leader) bool { return o.Provider.claims.class == class })
	p.leaders = append(p.leaders, l)
}

func (p *plane) stop(l *leader) {
	l.changes.queue.ShutDown()
	l.others.queue.ShutDown()
	p.leaders = slices.DeleteFunc(p.leaders, func(o *leader) bool { return o == l })
}

// names lists the objects that there are or that a leader believes there are: a letter for the kind, and the name.
func (p *plane) names() []string {
	all := map[string]bool{}
	add := func(kind string, names []string) {
		for _, name := range names {
			all[kind+name] = true
		}
	}
	add("s", slices.Collect(maps.Keys(p.services)))
	add("r", p.records.cache.ListKeys())
	add("c", slices.Collect(maps.Keys(p.lender.claims)))
	add("a", slices.Collect(maps.Keys(p.lender.answers)))
	for _, l := range p.leaders {
		for _, key := range l.services.ListKeys() {
			add("s", []string{strings.TrimPrefix(key, "default/")})
		}
		add("r", l.records.ListKeys())
		add("c", slices.Collect(maps.Keys(l.claims)))
		add("a", slices.Collect(maps.Keys(l.answers)))
	}
	return slices.Sorted(maps.Keys(all))
}

// deliver brings one object, as it is now, into the caches of a leader.
func (p *plane) deliver(l *leader, object string) {
	name := object[1:]
	switch object[0] {
	case 's':
		was, is := l.Provider.services.named("default", name), p.services[name]
		switch {
		case is == nil && was != nil:
			_ = l.services.Delete(was)
			l.projection.OnDelete(was)
		case is != nil && was == nil:
			_ = l.services.Add(is)
			l.projection.OnAdd(is, false)
		case is != nil && was != is:
			_ = l.services.Update(is)
			l.projection.OnUpdate(was, is)
		}
	case 'r':
		if is, exists, _ := p.records.cache.GetByKey(name); exists {
			_ = l.records.Add(is)
		} else if was, known, _ := l.records.GetByKey(name); known {
			_ = l.records.Delete(was)
		}
		l.changes.queue.Add(name)
	case 'c':
		bring(l.claims, p.lender.claims, name)
	case 'a':
		bring(l.answers, p.lender.answers, name)
	}
}

func bring(to, from map[string]*unstructured.Unstructured, name string) {
	if from[name] == nil {
		delete(to, name)
	} else {
		to[name] = from[name]
	}
}

// edit changes a Service.
func (p *plane) edit(name string, change func(*corev1.Service)) {
	svc := p.services[name].DeepCopy()
	change(svc)
	p.writes++
	svc.ResourceVersion = strconv.Itoa(p.writes)
	p.services[name] = svc
	if svc.DeletionTimestamp != nil && len(svc.Finalizers) == 0 {
		delete(p.services, name)
	}
}

// sync does what the service controller does with one Service.
func (p *plane) sync(ctx context.Context, l *leader, name string) {
	delete(l.queue, name)
	svc := l.Provider.services.named("default", name)
	if svc != nil && l.Provider.services.ofAnother(svc) {
		return
	}
	if svc == nil || !l.Provider.services.wants(svc) {
		last := svc
		if last == nil {
			if last = l.served[name]; last == nil {
				return
			}
		}
		if l.loadBalancers.EnsureLoadBalancerDeleted(ctx, "", last) != nil {
			l.queue[name] = true
			return
		}
		delete(l.served, name)
		if is := p.services[name]; is != nil && is.UID == last.UID && is.DeletionTimestamp != nil {
			p.edit(name, func(svc *corev1.Service) { svc.Finalizers = nil })
		}
		return
	}
	l.served[name] = svc
	status, err := l.loadBalancers.EnsureLoadBalancer(ctx, "", svc, nil)
	if err != nil {
		return
	}
	if is := p.services[name]; is != nil && is.UID == svc.UID && !servicehelper.LoadBalancerStatusEqual(&is.Status.LoadBalancer, status) {
		p.edit(name, func(svc *corev1.Service) {
			svc.Status.LoadBalancer = *status
			svc.Finalizers = []string{servicehelper.LoadBalancerCleanupFinalizer}
		})
	}
}

// reconcile does the work in the queue of the reconciler.
func (l *leader) reconcile(ctx context.Context) {
	for range l.changes.queue.Len() {
		name, _ := l.changes.queue.Get()
		l.changes.queue.Done(name)
		if l.reconciler.reconcile(ctx, name) != nil {
			l.changes.queue.Add(name)
		}
	}
}

// claim compares the claims with those that are needed, as the caches of the leader have them.
func (p *plane) claim(ctx context.Context, l *leader) {
	var asked []Claim
	var granted []grant
	for _, name := range slices.Sorted(maps.Keys(l.claims)) {
		asked = append(asked, readClaim(l.claims[name]))
	}
	for _, name := range slices.Sorted(maps.Keys(l.answers)) {
		granted = append(granted, grantOf(l.answers[name]))
	}
	lost := p.lose == request // Claims are written by several goroutines. All of their writes are lost.
	p.lender.refuses = func(string, string) error {
		if lost {
			return errLost
		}
		return nil
	}
	p.writes++
	p.lender.now = int64(p.writes)
	_, _ = l.Provider.claims.sync(ctx, p.lender, "v1beta2", asked, granted)
}

func (p *plane) grant(claim, address string) {
	if p.granted[claim] == nil {
		p.granted[claim] = map[string]bool{}
	}
	p.granted[claim][address] = true
	p.lender.grants(claim, address)
	bound := p.lender.claims[claim].DeepCopy()
	p.lender.version++
	bound.SetResourceVersion(strconv.Itoa(p.lender.version))
	p.lender.claims[claim] = bound
}

// check checks what holds at every moment.
func (p *plane) check(t *rapid.T) {
	by := map[string]*herald.IPAllocation{}
	for _, key := range slices.Sorted(slices.Values(p.records.cache.ListKeys())) {
		rec, _ := p.records.get(key)
		if other := by[rec.Spec.Claim]; p.alone && other != nil {
			t.Fatalf("%s and %s are recorded for one claim, %s", rec.Name, other.Name, rec.Spec.Claim)
		}
		by[rec.Spec.Claim] = rec
		for i, o := range rec.Spec.Owners {
			for _, other := range rec.Spec.Owners[:i] {
				if o.Sharing == nil || other.Sharing == nil || o.Sharing.Key != other.Sharing.Key {
					t.Fatalf("%s is recorded for %s and %s, which do not share", rec.Name, o.Name, other.Name)
				}
			}
		}
		if !p.alone {
			continue
		}
		if !p.granted[rec.Spec.Claim][rec.Spec.Address] {
			t.Fatalf("%s was never granted for claim %q", rec.Name, rec.Spec.Claim)
		}
		if p.lender.claims[rec.Spec.Claim] == nil {
			t.Fatalf("claim %s of %s is gone", rec.Spec.Claim, rec.Name)
		}
	}
	if !p.alone {
		return
	}
	for _, name := range slices.Sorted(maps.Keys(p.services)) {
		svc := p.services[name]
		has := Carried(svc)
		for _, a := range p.had[svc.UID] {
			if !slices.Contains(has, a) && !p.moves[svc.UID] && svc.DeletionTimestamp == nil {
				t.Fatalf("%s has lost %s", svc.Name, a)
			}
		}
		p.had[svc.UID] = has
	}
}

// settle stops all leaders but one of each class, and lets everything happen until nothing changes. The other system answers all claims.
func (p *plane) settle(t *rapid.T) {
	ctx := context.Background()
	for _, class := range p.classes {
		of := slices.DeleteFunc(slices.Clone(p.leaders), func(l *leader) bool { return l.Provider.claims.class != class })
		if len(of) == 0 {
			p.start(class)
		}
		for _, l := range of[min(1, len(of)):] {
			p.stop(l)
		}
	}
	state := func() string {
		text := fmt.Sprint(slices.Sorted(maps.Keys(p.lender.claims)), p.names())
		for _, name := range slices.Sorted(maps.Keys(p.services)) {
			text += fmt.Sprint(name, p.services[name].UID, Carried(p.services[name]))
		}
		for _, key := range slices.Sorted(slices.Values(p.records.cache.ListKeys())) {
			o, _, _ := p.records.cache.GetByKey(key)
			text += fmt.Sprint(o.(*herald.IPAllocation).Spec)
		}
		return text
	}
	for same, rounds, last := 0, 0, ""; same < 4; rounds++ {
		if rounds == 60 {
			t.Fatalf("nothing settles: %s\n%s", last, state())
		}
		for _, claim := range p.lender.names() {
			c := readClaim(p.lender.claims[claim])
			if a := p.lender.answers[claim]; a == nil || p.unusable(c, a) {
				free := slices.DeleteFunc(slices.Clone(lentAddresses[:4]), func(a string) bool {
					_, err := p.records.get(a)
					return err == nil || slices.ContainsFunc(slices.Collect(maps.Values(p.lender.answers)), func(u *unstructured.Unstructured) bool { return grantOf(u).address == a })
				})
				if len(free) > 0 {
					p.grant(claim, free[0])
				}
			}
		}
		for _, l := range p.leaders {
			for _, object := range p.names() {
				p.deliver(l, object)
			}
			for name := range p.services {
				l.queue[name] = true
			}
			p.claim(ctx, l)
			l.waiting.serve()
			for _, name := range slices.Sorted(maps.Keys(l.queue)) {
				p.sync(ctx, l, name)
			}
			l.reconcile(ctx)
		}
		p.check(t)
		same++
		if now := state(); now != last {
			same, last = 0, now
		}
	}
	asked, leave := 0, false
	for _, svc := range p.services {
		asked += countWanted(svc)
		leave = leave || svc.Annotations[herald.AnnotationRenumber] != ""
	}
	for _, svc := range p.services {
		if asked <= lentQuota && !leave && len(Carried(svc)) != countWanted(svc) {
			t.Fatalf("%s has %v and wants %d: %v, claimed are %v", svc.Name, Carried(svc), countWanted(svc), p.holders(), p.lender.names())
		}
	}
	named := map[string]bool{}
	for _, o := range p.records.cache.List() {
		rec := o.(*herald.IPAllocation)
		named[rec.Spec.Claim] = true
		if released(rec) {
			t.Fatalf("%s stays, though it is released", rec.Name)
		}
	}
	open := 0
	for name, u := range p.lender.claims {
		c := readClaim(u)
		svc := p.services[c.Owner.Name]
		if named[name] {
			continue
		}
		if svc == nil || string(svc.UID) != c.Owner.UID {
			t.Fatalf("claim %s is not needed: %v, %v", name, svc, p.holders())
		}
		want := countWanted(svc)
		if left, err := netip.ParseAddr(svc.Annotations[herald.AnnotationRenumber]); err == nil && slices.Contains(Carried(svc), left) {
			want++ // It waits for an address that takes the place of this one, also in the quota.
		} else {
			open++
		}
		if len(Carried(svc)) >= want {
			t.Fatalf("claim %s is not needed: %v, %v", name, svc, p.holders())
		}
	}
	if n := len(p.records.cache.ListKeys()); open > 0 && n+open > lentQuota {
		t.Fatalf("%d addresses are recorded and %d claimed, and the quota is %d", n, open, lentQuota)
	}
}

func (p *plane) holders() []string { return (&world{recordsAPI: p.records}).holders() }

func countWanted(svc *corev1.Service) int {
	n, _ := countOf(svc)
	return n
}

// unusable reports whether the address that is granted for a claim cannot be given, or is recorded for another claim.
func (p *plane) unusable(c Claim, answer *unstructured.Unstructured) bool {
	address := grantOf(answer).address
	rec, err := p.records.get(address)
	for name, other := range p.lender.answers {
		if grantOf(other).address == address && name < c.Name {
			return err != nil || rec.Spec.Claim != c.Name
		}
	}
	return address == lentAddresses[4] || err == nil && rec.Spec.Claim != c.Name
}

func testGrants(t *testing.T, leaders int, classes ...string) {
	kube := fake.NewClientset()
	rapid.Check(t, func(t *rapid.T) {
		ctx := context.Background()
		p := &plane{
			lender: newLender(), kube: kube, services: map[string]*corev1.Service{}, alone: true, granted: map[string]map[string]bool{},
			records: &apiOf[herald.IPAllocation, *herald.IPAllocation]{kind: "ipallocations", cache: cache.NewIndexer(cache.MetaNamespaceKeyFunc, recordIndexers), changed: func(string) {}},
			pools:   cache.NewStore(cache.MetaNamespaceKeyFunc), namespaces: cache.NewIndexer(cache.MetaNamespaceKeyFunc, nil),
			moves: map[types.UID]bool{}, had: map[types.UID][]netip.Addr{}, classes: classes,
		}
		defer func() {
			for len(p.leaders) > 0 {
				p.stop(p.leaders[0])
			}
		}()
		_ = p.namespaces.Add(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "default"}})
		o := &herald.IPPool{ObjectMeta: metav1.ObjectMeta{Name: "lent", UID: "lent", Generation: 1}}
		lent(func(o *herald.IPPool) { o.Spec.Quota = &herald.AddressQuota{IPv4: ptr.To[int64](lentQuota)} })(o)
		_ = p.pools.Add(o)
		p.start(classes[0])
		name := func() string { return rapid.SampledFrom([]string{"a", "b", "c", "d"}).Draw(t, "name") }
		one := func() *leader { return p.leaders[rapid.IntRange(0, len(p.leaders)-1).Draw(t, "leader")] }
		live := func(name string) bool { return p.services[name] != nil && p.services[name].DeletionTimestamp == nil }
		t.Repeat(map[string]func(*rapid.T){
			"create": func(t *rapid.T) {
				name := name()
				if p.services[name] != nil {
					return
				}
				p.writes++
				svc := service(name, four)
				svc.UID, svc.ResourceVersion = types.UID(name+strconv.Itoa(p.writes)), strconv.Itoa(p.writes)
				svc.CreationTimestamp, svc.Spec.LoadBalancerClass = metav1.Unix(int64(p.writes), 0), &classes[int(name[0])%len(classes)]
				if rapid.Bool().Draw(t, "shares") {
					sharingPort(svc, int32(p.writes))
				}
				p.services[name] = svc
			},
			"delete": func(*rapid.T) {
				if name := name(); live(name) {
					p.edit(name, deleted)
				}
			},
			"count": func(t *rapid.T) {
				if name := name(); live(name) {
					p.edit(name, func(svc *corev1.Service) {
						svc.Annotations[herald.AnnotationAddresses] = rapid.SampledFrom([]string{"1", "2", "3"}).Draw(t, "count")
					})
					p.moves[p.services[name].UID] = true
				}
			},
			"renumber": func(t *rapid.T) {
				if name := name(); live(name) {
					p.edit(name, func(svc *corev1.Service) {
						svc.Annotations[herald.AnnotationRenumber] = rapid.SampledFrom(lentAddresses).Draw(t, "leave")
					})
					p.moves[p.services[name].UID] = true
				}
			},
			"grant": func(t *rapid.T) {
				if claims := p.lender.names(); len(claims) > 0 {
					p.grant(rapid.SampledFrom(claims).Draw(t, "claim"), rapid.SampledFrom(lentAddresses).Draw(t, "address"))
				}
			},
			"withdraw": func(t *rapid.T) {
				if len(p.lender.answers) > 0 {
					delete(p.lender.answers, rapid.SampledFrom(slices.Sorted(maps.Keys(p.lender.answers))).Draw(t, "answer"))
				}
			},
			"deliver": func(t *rapid.T) {
				l := one()
				if names := p.names(); len(names) > 0 {
					p.deliver(l, rapid.SampledFrom(names).Draw(t, "object"))
				}
			},
			"deliver all": func(*rapid.T) {
				l := one()
				for _, object := range p.names() {
					p.deliver(l, object)
				}
			},
			"sync":      func(*rapid.T) { p.sync(ctx, one(), name()) },
			"wait":      func(*rapid.T) { one().waiting.serve() },
			"reconcile": func(*rapid.T) { one().reconcile(ctx) },
			"claim":     func(*rapid.T) { p.claim(ctx, one()) },
			"claim too": func(*rapid.T) { p.claim(ctx, one()) },
			"lose":      func(t *rapid.T) { p.lose = rapid.SampledFrom([]loss{request, reply}).Draw(t, "what") },
			"restart": func(t *rapid.T) {
				class := rapid.SampledFrom(classes).Draw(t, "class")
				of := slices.DeleteFunc(slices.Clone(p.leaders), func(l *leader) bool { return l.Provider.claims.class != class })
				if len(p.leaders) > 1 && len(of) > 0 && (len(of) == leaders || rapid.Bool().Draw(t, "stop")) {
					p.stop(of[0])
					of = of[1:]
				}
				if len(p.leaders) == 1 && len(of) == leaders {
					p.stop(of[0])
					of = nil
				}
				if len(of) < leaders {
					p.start(class)
				}
			},
			"": p.check,
		})
		p.lose = nothing
		p.settle(t)
	})
}

// TestGrantsWithDelays has one herald-ccm at a time, which sees each change late and in any order, and another system that
// grants and withdraws what it likes.
func TestGrantsWithDelays(t *testing.T) { testGrants(t, 1, herald.LoadBalancerClass) }

// TestGrantsWithTwoLeaders is the same with an old leader that still writes while a new one starts.
func TestGrantsWithTwoLeaders(t *testing.T) { testGrants(t, 2, herald.LoadBalancerClass) }

// TestGrantsWithTwoClasses is the same with two herald-ccm of different classes and one pool.
func TestGrantsWithTwoClasses(t *testing.T) {
	testGrants(t, 1, herald.LoadBalancerClass, "example.com/second")
}
