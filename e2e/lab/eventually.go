package lab

import (
	"context"
	"fmt"
	"time"
)

// tick is the interval between two checks of a condition. A check costs one request at most.
const tick = 25 * time.Millisecond

// Eventually calls check until it returns nil. If ctx ends first, the error includes the last error of check.
func Eventually(ctx context.Context, check func(context.Context) error) error {
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	var last error
	for {
		err := check(ctx)
		if err == nil {
			return nil
		}
		// An error that the end of ctx caused says nothing about the condition.
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
