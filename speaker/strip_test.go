package speaker

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/cache"

	herald "github.com/heraldlb/herald/api/v1alpha1"
)

func TestWhichChangesConcernAllServices(t *testing.T) {
	meta := func(generation int64, label string) metav1.ObjectMeta {
		return metav1.ObjectMeta{Name: "o", Generation: generation, Labels: map[string]string{"l": label}}
	}
	node := func(label, address string, heartbeat time.Time) *corev1.Node {
		return &corev1.Node{ObjectMeta: meta(0, label), Status: corev1.NodeStatus{
			Addresses:  []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: address}},
			Conditions: []corev1.NodeCondition{{LastHeartbeatTime: metav1.NewTime(heartbeat)}},
		}}
	}
	isReady := func(o *corev1.Node) *corev1.Node {
		o.Status.Conditions = append(o.Status.Conditions, corev1.NodeCondition{Type: corev1.NodeReady, Status: corev1.ConditionTrue})
		return o
	}
	tainted := func(o *corev1.Node, key string) *corev1.Node {
		o.Spec.Taints = []corev1.Taint{{Key: key}}
		return o
	}
	secret := func(key, value string) *corev1.Secret {
		return &corev1.Secret{ObjectMeta: meta(0, ""), Data: map[string][]byte{key: []byte(value)}}
	}
	pool := func(generation int64, label string, assigned int64) *herald.IPPool {
		return &herald.IPPool{ObjectMeta: meta(generation, label), Status: herald.IPPoolStatus{IPv4: &herald.PoolUsage{Assigned: assigned}}}
	}
	made := func(uid types.UID) *herald.IPPool {
		o := pool(1, "", 0)
		o.UID = uid
		return o
	}
	for _, story := range []struct {
		name          string
		before, after any
		want          bool
	}{
		{"a new object", nil, pool(1, "", 0), true},
		{"an object gone", pool(1, "", 0), nil, true},
		{"a pool's spec", pool(1, "", 0), pool(2, "", 0), true},
		{"a pool that was deleted and created again while nobody watched", made("a"), made("b"), true},
		{"a pool's labels", pool(1, "a", 0), pool(1, "b", 0), true},
		{"a pool's status", pool(1, "", 0), pool(1, "", 1), false},
		{"a node's labels", node("a", "198.18.0.1", noon), node("b", "198.18.0.1", noon), true},
		{"a node's addresses", node("", "198.18.0.1", noon), node("", "198.18.0.2", noon), true},
		{"a node's heartbeat", node("", "198.18.0.1", noon), node("", "198.18.0.1", noon.Add(time.Minute)), false},
		{"a node becomes Ready", node("", "198.18.0.1", noon), isReady(node("", "198.18.0.1", noon)), true},
		{"a node is drained", node("", "198.18.0.1", noon), tainted(node("", "198.18.0.1", noon), corev1.TaintNodeOutOfService), true},
		{"a node is cordoned", node("", "198.18.0.1", noon), tainted(node("", "198.18.0.1", noon), corev1.TaintNodeUnschedulable), false},
		{"a namespace's labels", &corev1.Namespace{ObjectMeta: meta(0, "a")}, &corev1.Namespace{ObjectMeta: meta(0, "b")}, true},
		{"a namespace's phase", &corev1.Namespace{ObjectMeta: meta(0, "")},
			&corev1.Namespace{ObjectMeta: meta(0, ""), Status: corev1.NamespaceStatus{Phase: corev1.NamespaceTerminating}}, false},
		{"a password", secret("password", "a"), secret("password", "b"), true},
		{"another key of a Secret", secret("username", "a"), secret("username", "b"), false},
		{"an advertisement's spec", &herald.L2Advertisement{ObjectMeta: meta(1, "")}, &herald.L2Advertisement{ObjectMeta: meta(2, "")}, true},
		{"a peer's annotation", &herald.BGPPeer{ObjectMeta: meta(1, "")}, &herald.BGPPeer{ObjectMeta: metav1.ObjectMeta{
			Name: "o", Generation: 1, Labels: map[string]string{"l": ""}, Annotations: map[string]string{"note": "x"},
		}}, false},
	} {
		if got := matters(story.before, story.after); got != story.want {
			t.Errorf("%s: %v, want %v", story.name, got, story.want)
		}
	}
}

func TestStripDropsWhatIsLarge(t *testing.T) {
	svc := serviceWith("198.51.100.7")
	node := &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Annotations: map[string]string{"a": "b"}},
		Status: corev1.NodeStatus{
			Addresses:  []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: "198.18.0.1"}},
			Images:     []corev1.ContainerImage{{Names: []string{"large"}}},
			Conditions: []corev1.NodeCondition{{Type: corev1.NodeDiskPressure}, {Type: corev1.NodeReady, Status: corev1.ConditionTrue, Message: "long"}},
		},
	}
	own := node.DeepCopy()
	own.Name = "n1"
	if _, err := watched(t).strip(own); err != nil || own.Annotations["a"] != "b" || own.Status.Images != nil {
		t.Errorf("this node, whose annotations BGPPeers refer to: %+v, %v", own, err)
	}
	eps := slice("web-a", web, endpoint("n1", new(true)))
	for _, o := range []any{svc, node, eps} {
		if _, err := strip(o); err != nil {
			t.Fatal(err)
		}
	}
	if svc.Annotations != nil || svc.ManagedFields != nil || svc.Spec.Ports != nil || svc.Spec.Selector != nil {
		t.Errorf("Service: %+v", svc)
	}
	if node.Annotations != nil || node.Status.Images != nil || len(node.Status.Addresses) != 1 || len(node.Status.Conditions) != 1 || node.Status.Conditions[0].Message != "" {
		t.Errorf("Node: %+v", node)
	}
	if eps.Ports != nil || eps.Endpoints[0].Addresses != nil || eps.Endpoints[0].Conditions.Serving != nil {
		t.Errorf("EndpointSlice: %+v", eps)
	}
	tombstone := cache.DeletedFinalStateUnknown{Key: "default/web"}
	if got, err := strip(tombstone); got != any(tombstone) || err != nil {
		t.Errorf("a tombstone becomes %v, %v", got, err)
	}
}
