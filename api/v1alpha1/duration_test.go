package v1alpha1

import (
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
)

func TestWriteDurations(t *testing.T) {
	fields := map[string]any{"spec": map[string]any{
		"reuseDelay": "1.5s", "drainTime": "1m0.25s", "holdTime": "1m30s", "bfd": map[string]any{"transmitInterval": "2.001s"}, "ttl": "1.5s", "receiveInterval": "x.y",
	}}
	WriteDurations(fields)
	want := map[string]any{"spec": map[string]any{
		"reuseDelay": "1s500ms", "drainTime": "1m250ms", "holdTime": "1m30s", "bfd": map[string]any{"transmitInterval": "2s1ms"}, "ttl": "1.5s", "receiveInterval": "x.y",
	}}
	if diff := gocmp.Diff(want, fields); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if got := formatDuration(25*time.Hour + 61*time.Second + time.Millisecond); got != "25h1m1s1ms" {
		t.Errorf("%s", got)
	}
}
