package provider

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"

	"github.com/heraldlb/herald/api/client"
	herald "github.com/heraldlb/herald/api/v1alpha1"
)

// deadNodes marks the pods of a node as not ready as soon as its neighbours have seen it die. Kubernetes does the same
// about 45 s later, when the node lifecycle controller has missed the kubelet for long enough. Until then all other
// nodes keep sending connections to endpoints on the dead node. Marking the Node would have no effect, because that
// controller marks pods only when it changes the Node's condition itself.
//
// The goroutine run owns the incidents.
type deadNodes struct {
	kube    kubernetes.Interface
	events  record.EventRecorder
	log     *zap.Logger
	nodes   cache.SharedIndexInformer
	reports cache.SharedIndexInformer
	changed trigger
	metrics *deathMetrics
}

type deathMetrics struct {
	deaths  prometheus.Counter
	pods    prometheus.Counter
	refused *prometheus.CounterVec
}

func newDeathMetrics() *deathMetrics {
	m := &deathMetrics{
		deaths: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "herald_node_deaths_total", Help: "Deaths of nodes that enough neighbours witnessed, and whose pods were marked not ready.",
		}),
		pods: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "herald_node_death_pods_total", Help: "Pods that were marked not ready because their node died.",
		}),
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "herald_node_deaths_refused_total", Help: "Reported deaths of nodes upon which nothing was done, by reason.",
		}, []string{"reason"}),
	}
	for _, reason := range deathRefusals {
		m.refused.WithLabelValues(reason) // so that a rate starts at zero
	}
	return m
}

func newDeadNodes(kube kubernetes.Interface, nodes, reports cache.SharedIndexInformer, events record.EventRecorder, log *zap.Logger) *deadNodes {
	d := &deadNodes{
		kube: kube, events: events, log: log, nodes: nodes, reports: reports, changed: newTrigger(), metrics: newDeathMetrics(),
	}
	hit := d.changed.set
	// AddEventHandler fails only for a stopped informer.
	_, _ = d.nodes.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc: func(any) { hit() },
		UpdateFunc: func(before, after any) {
			if nodeReady(before.(*corev1.Node)) != nodeReady(after.(*corev1.Node)) {
				hit()
			}
		},
		DeleteFunc: func(any) { hit() },
	})
	_, _ = reports.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc: func(any) { hit() },
		UpdateFunc: func(before, after any) {
			if !slices.Equal(before.(*report).deaths, after.(*report).deaths) {
				hit()
			}
		},
		DeleteFunc: func(any) { hit() },
	})
	return d
}

func nodeReady(n *corev1.Node) bool {
	return slices.ContainsFunc(n.Status.Conditions, func(c corev1.NodeCondition) bool {
		return c.Type == corev1.NodeReady && c.Status == corev1.ConditionTrue
	})
}

func (d *deadNodes) run(ctx context.Context) error {
	marking, ctx := errgroup.WithContext(ctx)
	marking.Go(func() error { return d.watch(ctx, marking) })
	return marking.Wait()
}

// watch judges after every change, and starts marking the pods of the nodes that are dead.
func (d *deadNodes) watch(ctx context.Context, marking *errgroup.Group) error {
	if !cache.WaitForCacheSync(ctx.Done(), d.nodes.HasSynced, d.reports.HasSynced) {
		return ctx.Err()
	}
	known := newIncidents()
	running := map[string]context.CancelFunc{}
	defer func() {
		for _, cancel := range running {
			cancel()
		}
	}()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-d.changed:
		case <-timer.C:
		}
		now := time.Now()
		nodes := map[string]bool{}
		for _, n := range client.Items[*corev1.Node](d.nodes.GetStore()) {
			nodes[n.Name] = nodeReady(n)
		}
		verdicts := judge(now, nodes, client.Items[*report](d.reports.GetStore()))
		for node, cancel := range running {
			if !verdicts[node].witnessed {
				cancel() // The node was heard again, so its kubelet decides about its pods.
				delete(running, node)
			}
		}
		next := known.observe(now, verdicts)
		for _, reason := range next.refused {
			d.metrics.refused.WithLabelValues(reason).Inc()
		}
		for _, v := range next.act {
			mark, cancel := context.WithCancel(ctx)
			running[v.node] = cancel
			marking.Go(func() error { d.mark(mark, v); return nil })
		}
		timer.Stop()
		if next.again > 0 {
			timer.Reset(next.again)
		}
	}
}

// markWorkers is the number of pods of a node that are marked at once.
const markWorkers = 16

// mark marks the ready pods of a dead node, each once. If the kubelet is alive after all, it sets them back to ready,
// and mark does not overrule it.
func (d *deadNodes) mark(ctx context.Context, v verdict) {
	d.metrics.deaths.Inc()
	by := strings.Join(v.witnesses, " and ")
	if len(v.witnesses) > 2 {
		by = fmt.Sprintf("%s and %d others", v.witnesses[0], len(v.witnesses)-1)
	}
	d.log.Warn("a node is dead: marking its pods not ready", zap.String("node", v.node), zap.Strings("witnesses", v.witnesses))
	var pods *corev1.PodList
	err := persist(ctx, func() (err error) {
		pods, err = d.kube.CoreV1().Pods(metav1.NamespaceAll).List(ctx, metav1.ListOptions{
			FieldSelector: fields.OneTermEqualSelector("spec.nodeName", v.node).String(),
		})
		return err
	})
	if err != nil {
		d.log.Error("failed to list the pods of a dead node: they stay ready until Kubernetes notices that its kubelet is gone", zap.String("node", v.node), zap.Error(err))
		return
	}
	var marked atomic.Int64
	workers, inner := errgroup.WithContext(ctx)
	workers.SetLimit(markWorkers)
	for i := range pods.Items {
		pod := &pods.Items[i]
		if pod.Spec.NodeName != v.node || pod.DeletionTimestamp != nil || !podReady(pod) {
			continue
		}
		workers.Go(func() error {
			err := d.markPod(inner, pod, fmt.Sprintf("node %s is dead, as %s witnessed", v.node, by))
			switch {
			case err == nil:
				marked.Add(1)
				d.metrics.pods.Inc()
			case apierrors.IsNotFound(err), apierrors.IsConflict(err), inner.Err() != nil: // The pod was replaced, or the node is alive.
			default:
				d.log.Warn("failed to mark a pod of a dead node as not ready", zap.String("pod", pod.Namespace+"/"+pod.Name), zap.Error(err))
			}
			return nil // The other pods are marked nevertheless.
		})
	}
	_ = workers.Wait() // The workers return no error.
	if o, exists, err := d.nodes.GetStore().GetByKey(v.node); err == nil && exists {
		n := o.(*corev1.Node)
		d.events.Eventf(&corev1.ObjectReference{APIVersion: "v1", Kind: "Node", Name: n.Name, UID: n.UID}, corev1.EventTypeWarning, herald.EventNodeDeathWitnessed,
			"%s reported that the node died: %d of its pods were marked not ready", by, marked.Load())
	}
}

// markPod does to one pod what the node lifecycle controller does: it sets the condition Ready to False, and changes
// nothing else.
func (d *deadNodes) markPod(ctx context.Context, pod *corev1.Pod, message string) error {
	patch, err := json.Marshal(map[string]any{
		"metadata": map[string]any{"uid": pod.UID}, // Not one of this name that was made since.
		"status": map[string]any{"conditions": []corev1.PodCondition{{
			Type: corev1.PodReady, Status: corev1.ConditionFalse, Reason: "NodeNotReady", Message: message, LastTransitionTime: metav1.Now(),
		}}},
	})
	if err != nil {
		return err
	}
	return persist(ctx, func() error {
		_, err := d.kube.CoreV1().Pods(pod.Namespace).Patch(ctx, pod.Name, types.StrategicMergePatchType, patch, metav1.PatchOptions{}, "status")
		return err
	})
}

func podReady(pod *corev1.Pod) bool {
	return slices.ContainsFunc(pod.Status.Conditions, func(c corev1.PodCondition) bool {
		return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
	})
}

// persist repeats a request that fails for a reason that may pass, for up to half a minute. After that Kubernetes
// itself acts.
func persist(ctx context.Context, request func() error) error {
	var last error
	err := wait.ExponentialBackoffWithContext(ctx, wait.Backoff{Duration: 50 * time.Millisecond, Factor: 2, Jitter: 0.2, Steps: 10}, func(context.Context) (bool, error) {
		last = request()
		if apierrors.IsNotFound(last) || apierrors.IsConflict(last) || apierrors.IsForbidden(last) || apierrors.IsInvalid(last) {
			return false, last
		}
		return last == nil, nil
	})
	if err != nil && last != nil {
		return last
	}
	return err
}
