package lab

// Made is how many attempts have ended so far.
func (o *Opener) Made() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.made)
}

// Broken is how many connections were reset or closed so far.
func (h *Holder) Broken() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.report.Broken
}
