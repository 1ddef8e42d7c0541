package lab

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
)

// stands waits until SIGSTOP has stopped all threads of a program. A thread stops when it next enters the kernel. On a
// busy machine it may answer a request before that.
func stands(pid int) error {
	ctx, cancel := context.WithTimeout(context.Background(), StopGrace)
	defer cancel()
	return Eventually(ctx, func(context.Context) error {
		threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
		if err == nil && len(threads) == 0 {
			err = fmt.Errorf("freeze process %d: %w", pid, ErrNotRunning)
		}
		for _, thread := range threads {
			stat, failed := os.ReadFile(thread)
			// The state is the first field after the name, which is in parentheses (proc_pid_stat(5)).
			_, fields, _ := bytes.Cut(stat[bytes.LastIndexByte(stat, ')')+1:], []byte(" "))
			if failed == nil && len(fields) > 0 && bytes.IndexByte([]byte("TtZX"), fields[0]) < 0 {
				return fmt.Errorf("%s is in state %c", thread, fields[0])
			}
		}
		return err
	})
}
