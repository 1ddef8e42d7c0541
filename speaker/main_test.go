package speaker

import (
	"fmt"
	"os"
	"testing"

	"go.uber.org/goleak"

	"github.com/heraldlb/herald/e2e/lab/enclave"
)

// enclosed: the network is the tests' own. It takes root to make one; most tests do without.
var enclosed = os.Geteuid() == 0

func TestMain(m *testing.M) {
	if enclosed {
		enclave.RunTests(checked{m})
	}
	os.Exit(checked{m}.Run())
}

// checked fails a run that leaves goroutines behind.
type checked struct{ m *testing.M }

func (c checked) Run() int {
	code := c.m.Run()
	if err := goleak.Find(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return max(code, 1)
	}
	return code
}
