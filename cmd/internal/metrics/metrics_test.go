package metrics

import (
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"k8s.io/client-go/rest"

	"github.com/heraldlb/herald/api/client"
	"github.com/heraldlb/herald/cmd/internal/version"
)

func TestTheVersion(t *testing.T) {
	want := "# HELP herald_build_info Always 1, with the version of the program.\n# TYPE herald_build_info gauge\n" +
		`herald_build_info{version="` + version.String() + `"} 1` + "\n"
	if err := testutil.CollectAndCompare(BuildInfo(), strings.NewReader(want)); err != nil {
		t.Error(err)
	}
}

// TestRequestsAreCounted sends two requests for objects to an API server that does not exist. No object is
// unreadable.
func TestRequestsAreCounted(t *testing.T) {
	requests := Requests()
	set, err := client.New(&rest.Config{Host: "http://127.0.0.1:1"})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := set.Pools.GetClient().Post().Resource("ippools").MaxRetries(0).Do(t.Context()).Error(); err == nil {
			t.Fatal("somebody answers")
		}
	}
	if err := testutil.CollectAndCompare(requests, strings.NewReader(`
# HELP rest_client_requests_total Requests to the API server, by method and status code, or <error> without an answer.
# TYPE rest_client_requests_total counter
rest_client_requests_total{code="<error>",method="POST"} 2
`)); err != nil {
		t.Error(err)
	}
	if n := testutil.CollectAndCount(Unreadable(set)); n != 6 {
		t.Errorf("%d resources, want 6", n)
	}
	if problems, err := testutil.CollectAndLint(Unreadable(set)); err != nil || len(problems) > 0 {
		t.Error(err, problems)
	}
}
