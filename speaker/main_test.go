package speaker

import (
	"fmt"
	"os"
	"testing"

	"go.uber.org/goleak"

	"github.com/heraldlb/herald/e2e/lab/enclave"
)

// enclosed reports whether the tests have a network of their own. Creating one requires root, but most tests do not need it.
var enclosed = os.Geteuid() == 0

func TestMain(m *testing.M) {
	if enclosed {
		enclave.RunTests(checked{m})
	}
	os.Exit(checked{m}.Run())
}

// checked fails a test run that leaves goroutines behind.
type checked struct{ m *testing.M }

func (c checked) Run() int {
	code := c.m.Run()
	if err := goleak.Find(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return max(code, 1)
	}
	return code
}
