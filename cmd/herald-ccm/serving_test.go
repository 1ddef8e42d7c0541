package main

import "testing"

// TestNothingBeginsToServeAtTheEnd has a process that wins the election while it stops. The race detector finds goroutines
// that end does not wait for.
func TestNothingBeginsToServeAtTheEnd(t *testing.T) {
	for range 100 {
		var s serving
		served := false
		begun := make(chan bool)
		go func() { begun <- s.begin(func() { served = true }) }()
		s.end()
		atEnd := served
		if b := <-begun; b != atEnd {
			t.Fatalf("begun: %v, served when everything had ended: %v", b, atEnd)
		}
	}
}
