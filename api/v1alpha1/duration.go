package v1alpha1

import (
	"reflect"
	"strconv"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// durationFields are the names of the fields in specs that are durations.
var durationFields = func() map[string]bool {
	names := map[string]bool{}
	for _, spec := range []any{IPPoolSpec{}, L2AdvertisementSpec{}, BGPAdvertisementSpec{}, BGPPeerSpec{}} {
		addDurations(reflect.TypeOf(spec), names)
	}
	return names
}()

func addDurations(t reflect.Type, names map[string]bool) {
	for t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice {
		t = t.Elem()
	}
	if t.Kind() != reflect.Struct {
		return
	}
	for f := range t.Fields() {
		if inner := f.Type; inner == reflect.TypeFor[*metav1.Duration]() || inner == reflect.TypeFor[metav1.Duration]() {
			name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
			names[name] = true
		} else {
			addDurations(inner, names)
		}
	}
}

// WriteDurations gives the durations in the fields of an object the form that the schemas require (GEP-2257): Go writes 1500 ms as
// "1.5s", and the API server admits only "1s500ms".
func WriteDurations(fields map[string]any) {
	for name, value := range fields {
		switch value := value.(type) {
		case map[string]any:
			WriteDurations(value)
		case string:
			if d, err := time.ParseDuration(value); durationFields[name] && err == nil && d > 0 && strings.Contains(value, ".") {
				fields[name] = formatDuration(d)
			}
		}
	}
}

// formatDuration writes a duration in whole numbers. It leaves out what is less than a millisecond.
func formatDuration(d time.Duration) (text string) {
	for _, unit := range []struct {
		name string
		time.Duration
	}{{"h", time.Hour}, {"m", time.Minute}, {"s", time.Second}, {"ms", time.Millisecond}} {
		if n := d / unit.Duration; n > 0 {
			text += strconv.FormatInt(int64(n), 10) + unit.name
		}
		d %= unit.Duration
	}
	return text
}
