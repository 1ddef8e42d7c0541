package lab

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"slices"
	"strconv"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	applycorev1 "k8s.io/client-go/applyconfigurations/core/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/heraldlb/herald/e2e/lab/enclave"
)

const (
	// restartDelay is the time between the end of a container and its restart.
	restartDelay = time.Second
)

// pod runs one Pod object, identified by its UID, on a node.
type pod struct {
	client          kubernetes.Interface
	node            *Node
	namespace, name string
	uid             types.UID
	number          int  // Host number in the node's pod ranges.
	onHost          bool // The pod has the node's network.
	cancel          context.CancelFunc
	updates         chan *corev1.Pod // The newest object that run has not received yet; capacity one.
	process         *Process

	// The following belong to run's goroutine.
	object   *corev1.Pod
	state    podState
	reported podState         // The state in the last status written to the API.
	since    metav1.Time      // When readiness last changed.
	restart  <-chan time.Time // Fires when it is time to restart an ended process.
}

// podState is the state that the Pod's status reports. The zero podState is that of a pod that run has not begun.
type podState struct {
	phase     corev1.PodPhase
	listening bool // The process accepts connections.
	ready     bool
	restarts  int32
	problem   string // Why the process could not be started.
}

// podHost returns the network namespace of a pod.
func podHost(uid types.UID) enclave.Host { return enclave.Host{Name: "pod-" + string(uid[:8])} }

// podCable returns the name of the node's end of the pod's cable.
func podCable(uid types.UID) string { return "pod" + string(uid[:8]) }

// tell passes the newest object to run. Only the kubelet's goroutine calls it.
func (p *pod) tell(o *corev1.Pod) {
	select {
	case <-p.updates: // Drop an outdated object.
	default:
	}
	p.updates <- o
}

// run runs the pod until it is deleted. ctx ends when the Pod is deleted by force or the kubelet ends. A pod
// that is already being deleted is not started: the API server updates the object once more when it deletes it,
// and the kubelet may receive that update after the pod has ended.
func (p *pod) run(ctx context.Context) {
	p.object = <-p.updates
	if p.object.DeletionTimestamp == nil {
		p.begin()
	}
	for p.object.DeletionTimestamp == nil && ctx.Err() == nil {
		p.observe()
		p.report(ctx)
		p.wait(ctx)
	}
	p.end(ctx)
}

// begin makes the pod's namespace and starts its process.
func (p *pod) begin() {
	p.state.phase, p.since = corev1.PodPending, metav1.Now()
	var err error
	if !p.onHost {
		err = p.connect()
	}
	switch image := p.object.Spec.Containers[0].Image; {
	case err != nil:
	case len(p.object.Spec.Containers) > 1:
		err = errors.New("a pod of the lab has one container only")
	case p.process.Path == "":
		err = fmt.Errorf("image %q is unknown: name its program in Options.Images", image)
	default:
		err = p.process.Start()
	}
	if err != nil {
		p.state.problem = err.Error()
		return
	}
	p.state.phase = corev1.PodRunning
}

// connect does the work of the CNI plugin ptp: it lays a cable to the node, and the node's end is the gateway.
// There is no bridge. Packets between pods of a node therefore pass the node's Service rules in both directions.
func (p *pod) connect() error {
	host, outer := podHost(p.uid), podCable(p.uid)
	if _, err := enclave.NewHost(host.Name); err != nil {
		return err
	}
	if err := enclave.Connect(p.node.Host, outer, host, eth0); err != nil {
		return err
	}
	gateway4, gateway6 := podAddress(p.node.Number, 1)
	v4, v6 := p.addresses()
	if err := p.node.Host.Script(`
		ip addr add %[1]s/32 dev %[5]s
		ip addr add %[2]s/128 dev %[5]s nodad
		ip route add %[3]s dev %[5]s
		ip route add %[4]s dev %[5]s
	`, gateway4.Addr(), gateway6.Addr(), v4, v6, outer); err != nil {
		return err
	}
	return host.Script(`
		ip addr add %[3]s/32 dev eth0
		ip addr add %[4]s/128 dev eth0 nodad
		ip route add %[1]s dev eth0
		ip route add %[2]s dev eth0
		ip route add default via %[1]s
		ip route add default via %[2]s
	`, gateway4.Addr(), gateway6.Addr(), v4, v6)
}

func (p *pod) addresses() (v4, v6 netip.Addr) {
	if p.onHost {
		return p.node.IPv4, p.node.IPv6
	}
	prefix4, prefix6 := podAddress(p.node.Number, p.number)
	return prefix4.Addr(), prefix6.Addr()
}

// field returns the value of a field of the pod that an environment variable refers to, or "" for a field that the lab does
// not know.
func (p *pod) field(path string) string {
	address, _ := p.addresses()
	return map[string]string{
		"metadata.name": p.name, "metadata.namespace": p.namespace, "spec.nodeName": p.node.Name,
		"status.hostIP": p.node.IPv4.String(), "status.podIP": address.String(),
	}[path]
}

// observe updates state from the process and the condition ReadyGate.
func (p *pod) observe() {
	if p.state.phase != corev1.PodRunning {
		return
	}
	if p.process.Running() {
		p.state.listening = p.state.listening || p.listens()
	} else {
		p.state.listening = false
		p.judge()
	}
	ready := p.state.listening && p.gateOpen()
	if ready != p.state.ready {
		p.state.ready, p.since = ready, metav1.Now()
	}
}

// gateOpen reports whether the ReadyGate lets the pod be ready: if the Pod has the gate, its condition must be true.
func (p *pod) gateOpen() bool {
	for _, c := range p.object.Status.Conditions {
		if c.Type == ReadyGate {
			return c.Status == corev1.ConditionTrue
		}
	}
	return !slices.ContainsFunc(p.object.Spec.ReadinessGates, func(g corev1.PodReadinessGate) bool { return g.ConditionType == ReadyGate })
}

// judge applies the restart policy to a process that has ended.
func (p *pod) judge() {
	policy := p.object.Spec.RestartPolicy
	switch failed := p.process.Err() != nil; {
	case p.restart != nil:
	case policy == corev1.RestartPolicyAlways || policy == corev1.RestartPolicyOnFailure && failed:
		p.restart = time.After(restartDelay)
	case failed:
		p.state.phase = corev1.PodFailed
	default:
		p.state.phase = corev1.PodSucceeded
	}
}

// listens reports whether the first container port accepts connections. A pod without a container port counts as
// listening.
func (p *pod) listens() bool {
	ports := p.object.Spec.Containers[0].Ports
	if len(ports) == 0 {
		return true
	}
	v4, _ := p.addresses()
	target := net.JoinHostPort(v4.String(), strconv.Itoa(int(ports[0].ContainerPort)))
	return p.process.Host.Do(func() error {
		conn, err := net.DialTimeout("tcp", target, requestTimeout)
		if err != nil {
			return err
		}
		return conn.Close()
	}) == nil
}

// exitCode returns the exit code in the convention of shells: 128 plus the signal if a signal ended the program.
func exitCode(err error) int32 {
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		return 1
	}
	if status, ok := exit.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		return 128 + int32(status.Signal())
	}
	return int32(exit.ExitCode())
}

// wait waits for the next event of the pod.
func (p *pod) wait(ctx context.Context) {
	var again <-chan time.Time
	var ended <-chan struct{}
	if p.process.Running() {
		ended = p.process.Ended()
	}
	if p.state != p.reported || ended != nil && !p.state.listening {
		again = time.After(tick)
	}
	select {
	case p.object = <-p.updates:
	case <-again:
	case <-ended:
	case <-p.restart:
		p.restart = nil
		p.state.restarts++
		if err := p.process.Start(); err != nil {
			p.state.phase, p.state.problem = corev1.PodFailed, err.Error()
		}
	case <-ctx.Done():
	}
}

// end ends the process, removes the namespace and then deletes the object, as a kubelet does.
func (p *pod) end(ctx context.Context) {
	deleted := p.object.DeletionTimestamp != nil && ctx.Err() == nil
	if grace := p.object.DeletionGracePeriodSeconds; deleted && grace != nil {
		stopping, cancel := context.WithTimeout(ctx, time.Duration(*grace)*time.Second)
		defer cancel()
		_ = p.process.Stop(stopping) // Stop kills a process that does not end in time; its error does not matter here.
	}
	_ = p.process.Kill()
	if !p.onHost {
		// The kernel would remove the cable with the namespace, but some time later. Until then the node's route to the
		// pod's address would lead there, and the next pod may get the same address.
		_ = p.node.Host.Script("ip link delete %s", podCable(p.uid))
		_ = podHost(p.uid).Remove()
	}
	if !deleted {
		return
	}
	now := int64(0)
	_ = Eventually(ctx, func(ctx context.Context) error {
		err := p.client.CoreV1().Pods(p.namespace).Delete(ctx, p.name, metav1.DeleteOptions{
			GracePeriodSeconds: &now, Preconditions: &metav1.Preconditions{UID: &p.uid},
		})
		if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
			return nil
		}
		return err
	})
}

// report writes the status if it has changed since the last write. A failed write is repeated by the next call.
func (p *pod) report(ctx context.Context) {
	if p.state == p.reported {
		return
	}
	_, err := p.client.CoreV1().Pods(p.namespace).ApplyStatus(ctx, p.status(), metav1.ApplyOptions{FieldManager: "kubelet", Force: true})
	if err == nil || apierrors.IsNotFound(err) {
		p.reported = p.state
	}
}

func (p *pod) status() *applycorev1.PodApplyConfiguration {
	s := p.state
	container := p.object.Spec.Containers[0]
	state := applycorev1.ContainerState()
	switch {
	case s.problem != "":
		state.WithWaiting(applycorev1.ContainerStateWaiting().WithReason("CannotStart").WithMessage(s.problem))
	case s.phase == corev1.PodRunning:
		state.WithRunning(applycorev1.ContainerStateRunning().WithStartedAt(p.since))
	case s.phase == corev1.PodFailed:
		state.WithTerminated(applycorev1.ContainerStateTerminated().WithReason("Error").WithExitCode(exitCode(p.process.Err())))
	default:
		state.WithTerminated(applycorev1.ContainerStateTerminated().WithReason("Completed").WithExitCode(0))
	}
	v4, v6 := p.addresses()
	status := applycorev1.PodStatus().
		WithPhase(s.phase).
		WithHostIP(p.node.IPv4.String()).
		WithHostIPs(applycorev1.HostIP().WithIP(p.node.IPv4.String()), applycorev1.HostIP().WithIP(p.node.IPv6.String())).
		WithPodIP(v4.String()).
		WithPodIPs(applycorev1.PodIP().WithIP(v4.String()), applycorev1.PodIP().WithIP(v6.String())).
		WithStartTime(p.object.CreationTimestamp).
		WithContainerStatuses(applycorev1.ContainerStatus().
			WithName(container.Name).WithImage(container.Image).WithImageID(container.Image).
			WithReady(s.ready).WithStarted(s.listening).WithRestartCount(s.restarts).WithState(state))
	for kind, is := range map[corev1.PodConditionType]bool{
		corev1.PodInitialized: true, corev1.ContainersReady: s.ready, corev1.PodReady: s.ready,
	} {
		truth := corev1.ConditionFalse
		if is {
			truth = corev1.ConditionTrue
		}
		status.WithConditions(applycorev1.PodCondition().WithType(kind).WithStatus(truth).WithLastTransitionTime(p.since))
	}
	return applycorev1.Pod(p.name, p.namespace).WithUID(p.uid).WithStatus(status)
}
