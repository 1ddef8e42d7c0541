package e2e

import (
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/heraldlb/herald/e2e/lab"
)

func keepLogs(t testing.TB, speakers map[string]*lab.Process) {
	t.Cleanup(func() {
		stamp := time.Now().Format("150405")
		for n, p := range speakers {
			_ = os.WriteFile(fmt.Sprintf("/tmp/seg/logs/%s-%s-%s.log", t.Name(), stamp, n), []byte(p.Log()), 0o644)
		}
	})
}
