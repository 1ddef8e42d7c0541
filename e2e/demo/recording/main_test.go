package main

import (
	"bytes"
	"os"
	"slices"
	"strings"
	"testing"
)

func TestScreen(t *testing.T) {
	wide := strings.Repeat("x", columns)
	for name, story := range map[string]struct {
		text  string
		lines []string
		err   string
	}{
		"lines":       {"one\r\n\r\ntwo <&>\r\n", []string{"one", "", "two &lt;&amp;&gt;"}, ""},
		"styles":      {"\x1b[1mbold\x1b[0m, \x1b[32m✓\x1b[m\r\n", []string{`<tspan class="bold">bold</tspan>, <tspan class="good">✓</tspan>`}, ""},
		"a spinner":   {"\r\x1b[K  ⠋ starting\r\x1b[K  ⠙ starting\r\x1b[Kdone\r\n", []string{"done"}, ""},
		"overwritten": {"abc\rx\r\n", []string{"xbc"}, ""},
		"wrapped":     {wide + "y\r\n" + wide + "\r\n", []string{wide, "y", wide}, ""},
		"no line yet": {"begun", nil, ""},
		"unknown":     {"\x1b[2J", nil, `the control sequence "[2J" is not known`},
		"cut":         {"\x1b[3", nil, `the control sequence "[3" has no end`},
	} {
		t.Run(name, func(t *testing.T) {
			var s screen
			err := s.write(story.text)
			if !slices.Equal(s.lines, story.lines) || (err == nil) != (story.err == "") || err != nil && !strings.Contains(err.Error(), story.err) {
				t.Errorf("%q, error %v; want %q, %s", s.lines, err, story.lines, story.err)
			}
		})
	}
}

func TestAsciicast(t *testing.T) {
	cast, err := asciicast([]byte("Script started\n  ✓ done\r\nScript done\n"), []byte("0.5 3\n0.25 8\n"))
	if err != nil {
		t.Fatal(err)
	}
	// The bytes of the mark are split over two writes.
	if _, got, _ := strings.Cut(string(cast), "\n"); got != "[0.5,\"o\",\"  \"]\n[0.75,\"o\",\"✓ done\\r\"]\n" {
		t.Errorf("%q", got)
	}
	if _, err := asciicast([]byte("Script started\nx\n"), []byte("0.5 3\n")); err == nil || !strings.Contains(err.Error(), "2 bytes left") {
		t.Errorf("a log that is too short: %v", err)
	}
}

// TestThePictureIsOfTheRecording checks the files in the tree: the SVG is generated from the asciicast, and the asciicast
// is of a successful run.
func TestThePictureIsOfTheRecording(t *testing.T) {
	cast, err := os.ReadFile("../../../docs/pictures/demo.cast")
	if err != nil {
		t.Fatal(err)
	}
	want, err := picture(cast)
	if err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile("../../../docs/pictures/demo.svg")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Error("docs/pictures/demo.svg is not what demo.cast says: run make recording and commit what changes")
	}
	if !bytes.Contains(got, []byte(">demo: ok ")) {
		t.Error("the demo that was recorded has failed: run make recording")
	}
	if size := len(cast) + len(got); size > 300<<10 {
		t.Errorf("both have %d bytes: they are for a README", size)
	}
}
