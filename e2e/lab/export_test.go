package lab

// Made returns the number of attempts that have ended so far.
func (o *Opener) Made() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.made)
}

// Broken returns the number of connections that were reset or closed so far.
func (h *Holder) Broken() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.report.Broken
}
