package main

import "sync"

// serving joins what runs while this process leads. The stock app may win the election after the process has been told
// to stop, so nothing begins once the end has begun.
type serving struct {
	mu      sync.Mutex
	over    bool
	running sync.WaitGroup
}

// begin runs f in a goroutine. It reports false, and runs nothing, after end.
func (s *serving) begin(f func()) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.over {
		s.running.Go(f)
	}
	return !s.over
}

// end waits until everything that begin runs has returned.
func (s *serving) end() {
	s.mu.Lock()
	s.over = true
	s.mu.Unlock()
	s.running.Wait()
}
