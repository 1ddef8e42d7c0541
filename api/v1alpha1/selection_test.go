package v1alpha1_test

import (
	"slices"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	herald "github.com/heraldlb/herald/api/v1alpha1"
)

func matching(key, value string) *metav1.LabelSelector {
	return &metav1.LabelSelector{MatchLabels: map[string]string{key: value}}
}

func TestSelection(t *testing.T) {
	none, front := map[string]string(nil), map[string]string{"tier": "front"}
	type asked struct {
		pool                                 string
		poolLabels, service, namespace, node map[string]string
	}
	type answer struct{ pool, service, node bool }
	for _, story := range []struct {
		name      string
		selection herald.Selection
		asked     asked
		want      answer
	}{
		{"empty selects all", herald.Selection{}, asked{pool: "public"}, answer{true, true, true}},
		{"empty selects all that have labels", herald.Selection{}, asked{"public", front, front, front, front}, answer{true, true, true}},
		{"empty selectors select all", herald.Selection{
			PoolSelector: &metav1.LabelSelector{}, ServiceSelector: &metav1.LabelSelector{},
			NamespaceSelector: &metav1.LabelSelector{}, NodeSelector: &metav1.LabelSelector{},
		}, asked{pool: "public"}, answer{true, true, true}},
		{"an empty list of pools is none", herald.Selection{Pools: []string{}}, asked{pool: "public"}, answer{true, true, true}},

		{"the pool is named", herald.Selection{Pools: []string{"other", "public"}}, asked{pool: "public"}, answer{true, true, true}},
		{"other pools are named", herald.Selection{Pools: []string{"other"}}, asked{pool: "public", poolLabels: front}, answer{false, true, true}},
		{"the pool's labels", herald.Selection{PoolSelector: matching("tier", "front")}, asked{pool: "public", poolLabels: front}, answer{true, true, true}},
		{"other labels of pools", herald.Selection{PoolSelector: matching("tier", "back")}, asked{pool: "public", poolLabels: front}, answer{false, true, true}},
		{"a pool without labels", herald.Selection{PoolSelector: matching("tier", "front")}, asked{pool: "public", poolLabels: none}, answer{false, true, true}},
		{"named besides labels", herald.Selection{Pools: []string{"public"}, PoolSelector: matching("tier", "back")}, asked{pool: "public", poolLabels: front}, answer{true, true, true}},
		{"labels besides names", herald.Selection{Pools: []string{"other"}, PoolSelector: matching("tier", "front")}, asked{pool: "public", poolLabels: front}, answer{true, true, true}},
		{"neither named nor labels", herald.Selection{Pools: []string{"other"}, PoolSelector: matching("tier", "back")}, asked{pool: "public", poolLabels: front}, answer{false, true, true}},
		{"an empty selector besides names selects all", herald.Selection{Pools: []string{"other"}, PoolSelector: &metav1.LabelSelector{}}, asked{pool: "public"}, answer{true, true, true}},

		{"the Service's labels", herald.Selection{ServiceSelector: matching("tier", "front")}, asked{pool: "public", service: front}, answer{true, true, true}},
		{"they are not the namespace's", herald.Selection{ServiceSelector: matching("tier", "front")}, asked{pool: "public", namespace: front, node: front}, answer{true, false, true}},
		{"the namespace's labels", herald.Selection{NamespaceSelector: matching("tier", "front")}, asked{pool: "public", namespace: front}, answer{true, true, true}},
		{"they are not the Service's", herald.Selection{NamespaceSelector: matching("tier", "front")}, asked{pool: "public", service: front, node: front}, answer{true, false, true}},
		{"Service and namespace narrow each other", herald.Selection{ServiceSelector: matching("tier", "front"), NamespaceSelector: matching("tier", "back")},
			asked{pool: "public", service: front, namespace: front}, answer{true, false, true}},
		{"the node's labels", herald.Selection{NodeSelector: matching("tier", "front")}, asked{pool: "public", node: front}, answer{true, true, true}},
		{"they are nobody else's", herald.Selection{NodeSelector: matching("tier", "front")}, asked{"public", front, front, front, none}, answer{true, true, false}},
	} {
		t.Run(story.name, func(t *testing.T) {
			c, err := story.selection.Compile()
			if err != nil {
				t.Fatal(err)
			}
			a := story.asked
			got := answer{c.Pool(a.pool, a.poolLabels), c.Service(a.service, a.namespace), c.Node(a.node)}
			if got != story.want {
				t.Errorf("selected: %+v, want %+v", got, story.want)
			}
		})
	}
}

func TestSelectPeers(t *testing.T) {
	peer := func(name, rack string) *herald.BGPPeer {
		return &herald.BGPPeer{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"rack": rack}}}
	}
	peers := []*herald.BGPPeer{peer("b", "1"), peer("c", "2"), peer("a", "1")}
	for _, story := range []struct {
		name string
		spec herald.BGPAdvertisementSpec
		want []string
	}{
		{"neither is all", herald.BGPAdvertisementSpec{}, []string{"a", "b", "c"}},
		{"an empty list of names is none", herald.BGPAdvertisementSpec{Peers: []string{}}, []string{"a", "b", "c"}},
		{"named", herald.BGPAdvertisementSpec{Peers: []string{"c", "nobody"}}, []string{"c"}},
		{"by labels", herald.BGPAdvertisementSpec{PeerSelector: matching("rack", "1")}, []string{"a", "b"}},
		{"named besides labels", herald.BGPAdvertisementSpec{Peers: []string{"c", "b"}, PeerSelector: matching("rack", "1")}, []string{"a", "b", "c"}},
		{"an empty selector besides names is all", herald.BGPAdvertisementSpec{Peers: []string{"c"}, PeerSelector: &metav1.LabelSelector{}}, []string{"a", "b", "c"}},
		{"nobody", herald.BGPAdvertisementSpec{PeerSelector: matching("rack", "3")}, nil},
	} {
		t.Run(story.name, func(t *testing.T) {
			if got, err := story.spec.SelectPeers(peers); err != nil || !slices.Equal(got, story.want) {
				t.Errorf("selected: %v, %v, want %v", got, err, story.want)
			}
		})
	}
}

func TestCompileNamesTheField(t *testing.T) {
	wrong := &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{Key: "tier", Operator: "Near"}}}
	for field, s := range map[string]herald.Selection{
		"poolSelector":      {PoolSelector: wrong},
		"serviceSelector":   {ServiceSelector: wrong},
		"namespaceSelector": {NamespaceSelector: wrong},
		"nodeSelector":      {NodeSelector: wrong},
	} {
		if _, err := s.Compile(); err == nil || !strings.HasPrefix(err.Error(), "spec."+field+": ") || !strings.Contains(err.Error(), "Near") {
			t.Errorf("%s: %v", field, err)
		}
	}
	ad := herald.BGPAdvertisementSpec{PeerSelector: wrong}
	if _, err := ad.SelectPeers(nil); err == nil || !strings.HasPrefix(err.Error(), "spec.peerSelector: ") {
		t.Errorf("peerSelector: %v", err)
	}
}
