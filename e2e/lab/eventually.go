package lab

import (
	"context"
	"fmt"
	"time"
)

// tick is how often a condition is looked at. Conditions here cost a request at most.
const tick = 25 * time.Millisecond

// Eventually calls check until it returns nil. When ctx ends first, the error has what check said last.
func Eventually(ctx context.Context, check func(context.Context) error) error {
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	var last error
	for {
		err := check(ctx)
		if err == nil {
			return nil
		}
		// What fails for the end of ctx says nothing of the condition.
		if last == nil || ctx.Err() == nil {
			last = err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w; the last time: %w", context.Cause(ctx), last)
		case <-ticker.C:
		}
	}
}
