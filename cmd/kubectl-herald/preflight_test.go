package main

import (
	"errors"
	"strings"
	"sync"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// servedBy adds discovery to content, for an API server that serves these resources: their names, by group and version
// such as networking.k8s.io/v1.
func servedBy(resources map[string][]string, content map[string]any) map[string]any {
	content["/version"] = map[string]any{"major": "1", "minor": "36", "gitVersion": "v1.36.3"}
	content["/api"] = map[string]any{"kind": "APIVersions", "versions": []string{"v1"}}
	groups := []any{}
	for groupVersion, names := range resources {
		list := metav1.APIResourceList{TypeMeta: metav1.TypeMeta{Kind: "APIResourceList", APIVersion: "v1"}, GroupVersion: groupVersion}
		for _, name := range names {
			list.APIResources = append(list.APIResources, metav1.APIResource{Name: name})
		}
		group, version, named := strings.Cut(groupVersion, "/")
		if !named {
			content["/api/"+groupVersion] = list
			continue
		}
		content["/apis/"+groupVersion] = list
		groups = append(groups, map[string]any{"name": group, "versions": []any{map[string]any{"groupVersion": groupVersion, "version": version}}})
	}
	content["/apis"] = map[string]any{"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}
	return content
}

// TestPreflightOfSpeakersThatAreGone has two SpeakerStatuses of speakers that have not renewed their Leases for years.
func TestPreflightOfSpeakersThatAreGone(t *testing.T) {
	const status = ", uid: a}, status: {interfaces: [{name: eth0, state: Member, neighbours: 1, "
	const expired = "namespace: own}, spec: {holderIdentity: x, leaseDurationSeconds: 30, renewTime: '2020-01-01T00:00:00.000000Z'}}"
	content := servedBy(map[string][]string{"v1": {"nodes", "pods", "services", "namespaces"}, "herald.dev/v1alpha1": {"speakerstatuses", "ippools"}}, map[string]any{
		"/api/v1/nodes": listed(t, "v1", "Node", "{metadata: {name: n1}}", "{metadata: {name: n2}}"),
		"/apis/herald.dev/v1alpha1/speakerstatuses": listed(t, "herald.dev/v1alpha1", "SpeakerStatus",
			"{metadata: {name: n1"+status+"subnets: [198.51.100.1/24], hears: [n2]}]}}", "{metadata: {name: n2"+status+"subnets: [198.51.100.2/24], hears: [n1]}]}}"),
		"/apis/coordination.k8s.io/v1/namespaces/own/leases": listed(t, "coordination.k8s.io/v1", "Lease", "{metadata: {name: speaker-n1, "+expired, "{metadata: {name: speaker-n2, "+expired),
	})
	said, err := ran(t, append(server(t, content, func(string) bool { return true }), "preflight", "--herald-namespace", "own")...)
	if err != nil && !errors.Is(err, errAttention) {
		t.Fatal(err)
	}
	if !strings.Contains(said, "is known once speakers run") || strings.Contains(said, "speakers hear each other on") || strings.Contains(said, "2 speakers") {
		t.Errorf("it says\n%s", said)
	}

	said, err = ran(t, append(server(t, content, func(path string) bool { return !strings.HasSuffix(path, "/leases") }), "preflight", "--herald-namespace", "own")...)
	if err != nil && !errors.Is(err, errAttention) {
		t.Fatal(err)
	}
	if !strings.Contains(said, "you may not read leases.coordination.k8s.io") || strings.Contains(said, "speakers hear each other on") || strings.Contains(said, "✓ 2 speakers") {
		t.Errorf("it says\n%s", said)
	}
}

// TestPreflightAsksForNoOtherVersion has an API server that serves a resource only in a version that preflight does not
// read.
func TestPreflightAsksForNoOtherVersion(t *testing.T) {
	content := servedBy(map[string][]string{"v1": {"nodes", "services"}, "networking.k8s.io/v1beta1": {"servicecidrs"}}, map[string]any{})
	asked := map[string]bool{}
	var mu sync.Mutex
	said, err := ran(t, append(server(t, content, func(path string) bool {
		mu.Lock()
		defer mu.Unlock()
		asked[path] = true
		return true
	}), "preflight")...)
	if err != nil && !errors.Is(err, errAttention) {
		t.Fatal(err)
	}
	if asked["/apis/networking.k8s.io/v1/servicecidrs"] || !asked["/api/v1/nodes"] {
		t.Errorf("it asks for %v", asked)
	}
	if !strings.Contains(said, "there are no pools") {
		t.Errorf("it says\n%s", said)
	}
}
