package main

import "sync"

// serving waits for the functions that run while this process is the leader. The stock app may win the election after
// the process was told to stop, so nothing starts after end.
type serving struct {
	mu      sync.Mutex
	over    bool
	running sync.WaitGroup
}

// begin runs f in a goroutine. After end it runs nothing and returns false.
func (s *serving) begin(f func()) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.over {
		s.running.Go(f)
	}
	return !s.over
}

// end waits until all functions that begin started have returned.
func (s *serving) end() {
	s.mu.Lock()
	s.over = true
	s.mu.Unlock()
	s.running.Wait()
}
