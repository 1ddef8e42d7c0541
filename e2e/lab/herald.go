package lab

import (
	"context"
	"errors"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/heraldlb/herald/e2e/lab/enclave"
)

// HeraldNamespace is the namespace of Herald's Leases, and PeersNamespace that of the peers' Secrets.
const (
	HeraldNamespace = "herald-system"
	PeersNamespace  = "herald-system-peers"
)

// StartCCM starts herald-ccm on the API server's host. The given arguments follow the required ones. Each call
// starts another replica.
func (c *ControlPlane) StartCCM(args ...string) (*Process, error) {
	p := c.process(enclave.Host{}, "herald-ccm", c.options.binary("herald-ccm"),
		append([]string{"--kubeconfig", c.Kubeconfig}, args...)...)
	return p, p.Start()
}

// StartSpeaker starts herald-speaker on a node. The given arguments follow the required ones.
func (l *Lab) StartSpeaker(n *Node, args ...string) (*Process, error) {
	p := l.process(n.Host, "herald-speaker-"+n.Name, l.options.binary("herald-speaker"),
		append([]string{"--kubeconfig", l.Kubeconfig, "--node-name", n.Name}, args...)...)
	p.Env = append(p.Env, "POD_NAME="+SpeakerPod(n))
	return p, p.Start()
}

// SpeakerPod is the pod name that a node's speaker gets in POD_NAME. The Pod exists only if a story creates it.
func SpeakerPod(n *Node) string { return "herald-speaker-" + n.Name }

// StartSpeakers starts herald-speaker on every node and returns them by the node's name.
func (l *Lab) StartSpeakers(args ...string) (map[string]*Process, error) {
	speakers := map[string]*Process{}
	var errs []error
	for _, n := range l.Nodes {
		p, err := l.StartSpeaker(n, args...)
		speakers[n.Name] = p
		errs = append(errs, err)
	}
	return speakers, errors.Join(errs...)
}

func (c *ControlPlane) createNamespace(ctx context.Context, name string) error {
	_, err := c.Client.CoreV1().Namespaces().Create(ctx,
		&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{})
	return err
}
