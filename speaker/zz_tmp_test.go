package speaker

import (
	"testing"
	"time"
)

func TestTmpJitterBoth(t *testing.T) {
	l := newListener()
	l.renew("self")
	l.pass(19*time.Second, "other")
	l.pass(1*time.Second, "self")
	l.pass(12*time.Second, "self")
	if !l.alive("other") { t.Error("dead 13 s after its renewal") }
}
func TestTmpOnePass(t *testing.T) {
	l := newListener()
	l.renew("self", "other")
	l.pass(19*time.Second, "other", "self")
	l.pass(12*time.Second, "self")
	if !l.alive("other") { t.Error("dead 12 s after its renewal") }
}
