package speaker

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/heraldlb/herald/api/client"
)

// apiServer is an API server without a network. It creates, reads, lists, updates and deletes objects of any kind, and rejects
// the requests that an API server rejects. It can be used in a synctest bubble.
type apiServer struct {
	mu      sync.Mutex
	objects map[string]map[string]any // by path
	version int
	asked   []string // methods and paths
	// down makes all requests fail.
	down bool
	// refuses is a method whose requests fail.
	refuses string
	// prune, if not nil, drops the fields that the schema does not have.
	prune func(object map[string]any)
}

func newAPIServer() *apiServer { return &apiServer{objects: map[string]map[string]any{}} }

func (s *apiServer) clients(t testing.TB) (kubernetes.Interface, *client.Set) {
	t.Helper()
	config := &rest.Config{Host: "http://api.example", Transport: s, QPS: -1}
	config.ContentType, config.AcceptContentTypes = "application/json", "application/json"
	kube, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	set, err := client.New(config)
	if err != nil {
		t.Fatal(err)
	}
	return kube, set
}

// requests returns the requests since the last call.
func (s *apiServer) requests() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	asked := s.asked
	s.asked = nil
	return asked
}

func (s *apiServer) setDown(down bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.down = down
}

func (s *apiServer) refuse(method string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refuses = method
}

// edit changes an object, or deletes it if change is nil.
func (s *apiServer) edit(path string, change func(object map[string]any)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if change == nil {
		delete(s.objects, path)
		return
	}
	change(s.objects[path])
	s.store(path, s.objects[path])
}

// read decodes an object, and reports whether it exists.
func (s *apiServer) read(t testing.TB, path string, into any) bool {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	o, ok := s.objects[path]
	if !ok {
		return false
	}
	text, err := json.Marshal(o)
	if err == nil {
		err = json.Unmarshal(text, into)
	}
	if err != nil {
		t.Fatal(err)
	}
	return true
}

// RoundTrip implements http.RoundTripper.
func (s *apiServer) RoundTrip(r *http.Request) (*http.Response, error) {
	if err := r.Context().Err(); err != nil {
		return nil, err
	}
	var body []byte
	if r.Body != nil {
		var err error
		if body, err = io.ReadAll(r.Body); err != nil {
			return nil, err
		}
	}
	code, answer := s.serve(r.Method, r.URL.Path, body)
	text, err := json.Marshal(answer)
	if err != nil {
		return nil, err
	}
	return &http.Response{
		StatusCode: code, Status: http.StatusText(code), Header: http.Header{"Content-Type": {"application/json"}},
		Body: io.NopCloser(bytes.NewReader(text)), Request: r,
	}, nil
}

func (s *apiServer) serve(method, path string, body []byte) (int, any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked = append(s.asked, method+" "+path)
	if s.down || method == s.refuses {
		return refusal(http.StatusForbidden, metav1.StatusReasonForbidden) // A client does not retry after this status.
	}
	var sent map[string]any
	if len(body) > 0 {
		if err := json.Unmarshal(body, &sent); err != nil {
			return refusal(http.StatusBadRequest, metav1.StatusReasonBadRequest)
		}
	}
	o, exists := s.objects[path]
	switch method {
	case http.MethodPost:
		path += "/" + metadata(sent)["name"].(string)
		if _, exists := s.objects[path]; exists {
			return refusal(http.StatusConflict, metav1.StatusReasonAlreadyExists)
		}
		metadata(sent)["uid"] = fmt.Sprint("uid-", s.version)
		return http.StatusCreated, s.store(path, sent)
	case http.MethodPut:
		if !exists {
			return refusal(http.StatusNotFound, metav1.StatusReasonNotFound)
		}
		if v := metadata(sent)["resourceVersion"]; v != nil && v != metadata(o)["resourceVersion"] {
			return refusal(http.StatusConflict, metav1.StatusReasonConflict)
		}
		return http.StatusOK, s.store(path, sent)
	case http.MethodGet:
		if exists {
			return http.StatusOK, o
		}
		if !isCollection(path) {
			return refusal(http.StatusNotFound, metav1.StatusReasonNotFound)
		}
		items := []any{}
		for _, p := range slices.Sorted(maps.Keys(s.objects)) {
			if strings.HasPrefix(p, path+"/") {
				items = append(items, s.objects[p])
			}
		}
		return http.StatusOK, map[string]any{"metadata": map[string]any{"resourceVersion": strconv.Itoa(s.version)}, "items": items}
	}
	return refusal(http.StatusMethodNotAllowed, metav1.StatusReasonMethodNotAllowed)
}

func isCollection(path string) bool {
	return strings.HasSuffix(path, "/speakerstatuses") || strings.HasSuffix(path, "/leases")
}

func metadata(o map[string]any) map[string]any { return o["metadata"].(map[string]any) }

func (s *apiServer) store(path string, o map[string]any) map[string]any {
	s.version++
	metadata(o)["resourceVersion"] = strconv.Itoa(s.version)
	if s.prune != nil {
		s.prune(o)
	}
	s.objects[path] = o
	return o
}

func refusal(code int32, reason metav1.StatusReason) (int, any) {
	return int(code), metav1.Status{
		TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, Status: metav1.StatusFailure, Reason: reason, Code: code, Message: string(reason),
	}
}

const statuses = "/apis/herald.dev/v1alpha1/speakerstatuses"
