package report

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// terminal opens a new terminal.
func terminal(t *testing.T) *os.File {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Skipf("there are no terminals here: %v", err)
	}
	t.Cleanup(func() { _ = master.Close() })
	if err := unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	slave, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = slave.Close() })
	return slave
}

func TestColoursAreForThoseWhoWatch(t *testing.T) {
	coloured := func(s Style) bool { return strings.Contains(s.bad.Render("bad"), "\x1b[") }
	t.Setenv("TERM", "xterm")
	for _, name := range []string{"NO_COLOR", "CLICOLOR", "CLICOLOR_FORCE", "CI"} {
		t.Setenv(name, "") // to restore the value after the test
		_ = os.Unsetenv(name)
	}
	tty := terminal(t)
	if !coloured(StyleOf(tty)) {
		t.Error("no colours on a terminal")
	}
	if coloured(StyleOf(&bytes.Buffer{})) {
		t.Error("colours where there is no terminal")
	}
	t.Setenv("NO_COLOR", "1")
	if coloured(StyleOf(tty)) {
		t.Error("colours in spite of NO_COLOR")
	}
}

func TestTable(t *testing.T) {
	var l lines
	l.table("> ", [][]string{{"a", "", "long one"}, {"bcd", "", "→ x"}, {"e", ""}, {}})
	if want := "> a    long one\n> bcd  → x\n> e\n>\n"; l.String() != want {
		t.Errorf("%q, want %q", l.String(), want)
	}
}
