package lab

import (
	"context"
	"fmt"
	"path/filepath"
	"sync"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
)

// kubelet simulates the kubelet of one node: a pod is one process in its own network namespace.
// It implements the parts of a Pod that matter to Services: the node, the addresses, readiness and
// termination. There are no volumes, probes, resources or images. A pod is ready once it listens on
// its first container port, unless the condition [ReadyGate] prevents that. A pod with hostNetwork runs in
// the node's network namespace. The kubelet runs in the lab's own process, and therefore reports even while
// the node is cut off.
type kubelet struct {
	node   *Node
	client kubernetes.Interface
	images map[string]string // Paths of programs by image name.
	logs   string            // Folder of the pods' logs.

	events chan podEvent
	// The following belong to run's goroutine.
	pods    map[types.UID]*pod
	numbers map[int]bool // Host numbers in use in the pod ranges.
	work    sync.WaitGroup
}

// podEvent says that a Pod was created or changed to object, or is gone from the API.
type podEvent struct {
	object *corev1.Pod
	gone   bool
}

// firstPod is the lowest host number of pods. Number 1 is the node's end.
const firstPod = 10

func newKubelet(n *Node, client kubernetes.Interface, images map[string]string, logs string) *kubelet {
	return &kubelet{
		node: n, client: client, images: images, logs: logs,
		events: make(chan podEvent), pods: map[types.UID]*pod{}, numbers: map[int]bool{},
	}
}

// run runs the node's pods until ctx ends, and then ends them.
func (k *kubelet) run(ctx context.Context) error {
	defer k.work.Wait()
	factory := informers.NewSharedInformerFactoryWithOptions(k.client, 0, informers.WithTweakListOptions(func(o *metav1.ListOptions) {
		o.FieldSelector = fields.OneTermEqualSelector("spec.nodeName", k.node.Name).String()
	}))
	informer := factory.Core().V1().Pods().Informer()
	_, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(o any) { k.send(ctx, o, false) },
		UpdateFunc: func(_, o any) { k.send(ctx, o, false) },
		DeleteFunc: func(o any) { k.send(ctx, o, true) },
	})
	if err != nil {
		return fmt.Errorf("kubelet of %s: %w", k.node.Name, err)
	}
	k.work.Go(func() { informer.Run(ctx.Done()) })
	ended := make(chan *pod)
	for {
		select {
		case <-ctx.Done():
			return nil
		case e := <-k.events:
			k.sync(ctx, e, ended)
		case p := <-ended:
			delete(k.pods, p.uid)
			delete(k.numbers, p.number)
		}
	}
}

func (k *kubelet) send(ctx context.Context, o any, gone bool) {
	if d, ok := o.(cache.DeletedFinalStateUnknown); ok {
		o = d.Obj
	}
	select {
	case k.events <- podEvent{object: o.(*corev1.Pod), gone: gone}:
	case <-ctx.Done():
	}
}

func (k *kubelet) sync(ctx context.Context, e podEvent, ended chan<- *pod) {
	p, known := k.pods[e.object.UID]
	switch {
	case e.gone && known:
		p.cancel() // Deleted by force.
	case e.gone:
	case known:
		p.tell(e.object)
	case e.object.Status.Phase == corev1.PodSucceeded || e.object.Status.Phase == corev1.PodFailed:
	default:
		p := k.newPod(e.object)
		alive, cancel := context.WithCancel(ctx)
		p.cancel = cancel
		k.pods[p.uid] = p
		k.work.Go(func() {
			defer cancel()
			p.run(alive)
			select {
			case ended <- p:
			case <-ctx.Done():
			}
		})
	}
}

func (k *kubelet) newPod(o *corev1.Pod) *pod {
	p := &pod{
		client: k.client, node: k.node, namespace: o.Namespace, name: o.Name, uid: o.UID, number: firstPod,
		onHost: o.Spec.HostNetwork, updates: make(chan *corev1.Pod, 1),
	}
	for k.numbers[p.number] {
		p.number++
	}
	k.numbers[p.number] = true
	container := o.Spec.Containers[0]
	p.process = &Process{
		Name: fmt.Sprintf("pod-%s-%s", o.Namespace, o.Name), Host: podHost(o.UID),
		Path: k.images[container.Image], Args: append(container.Command, container.Args...),
		Env: []string{"POD_NAME=" + o.Name, "POD_NAMESPACE=" + o.Namespace, "NODE_NAME=" + k.node.Name},
	}
	if p.onHost {
		p.process.Host = k.node.Host
	}
	p.process.LogPath = filepath.Join(k.logs, p.process.Name+".log")
	for _, e := range container.Env {
		value := e.Value
		if e.ValueFrom != nil && e.ValueFrom.FieldRef != nil {
			value = p.field(e.ValueFrom.FieldRef.FieldPath)
		}
		p.process.Env = append(p.process.Env, e.Name+"="+value)
	}
	p.tell(o)
	return p
}
