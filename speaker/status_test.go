package speaker

import (
	"testing"

	"go.uber.org/zap"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	herald "github.com/heraldlb/herald/api/v1alpha1"
)

// Whoever waits for what was written to stand is told at every step after which it may.
func TestWhenAStatusStands(t *testing.T) {
	w := newStatusWriter(nil, "n1", nil, zap.NewNop())
	version := func(v string) *herald.SpeakerStatus {
		return &herald.SpeakerStatus{ObjectMeta: metav1.ObjectMeta{Name: "n1", ResourceVersion: v}}
	}
	told := func() bool {
		select {
		case <-w.wrote:
			return true
		default:
			return false
		}
	}
	cached := "7"
	for _, step := range []struct {
		what         string
		do           func()
		told, stands bool
	}{
		{"at the start there is what there was", func() {}, false, true},
		{"a write is under way", w.begin, false, false},
		{"it is done, and not yet read back", func() { w.stood(version("8")) }, true, false},
		{"another begins", w.begin, false, false},
		{"the first is read back", func() { cached = "8"; w.observe("n1", version("8")) }, true, false},
		{"the second is done", func() { w.stood(version("9")) }, true, false},
		{"the second is read back", func() { cached = "9"; w.observe("n1", version("9")) }, true, true},
		{"another node's is read", func() { w.observe("n2", version("10")) }, false, true},
		{"somebody else changes it", func() { cached = "11"; w.observe("n1", version("11")) }, true, false},
	} {
		step.do()
		if got := told(); got != step.told {
			t.Errorf("%s: told is %v, want %v", step.what, got, step.told)
		}
		if got := w.stands(cached); got != step.stands {
			t.Errorf("%s: stands is %v, want %v", step.what, got, step.stands)
		}
	}
	if !w.foreign || len(w.changed) != 1 {
		t.Error("what somebody else changed is not written again")
	}
}
