package main

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// report writes the document from all existing results, including those of earlier runs. It returns an error
// about unexpected failures in the modes of this run.
func report(dir, document string, ran []mode) error {
	results := map[string]*suite{}
	for _, m := range modes {
		s, err := loadSuite(filepath.Join(dir, m.name+".xml"))
		switch {
		case errors.Is(err, fs.ErrNotExist):
			continue
		case err != nil:
			return err
		}
		results[m.name] = s
	}
	text := markdown(results)
	fmt.Print(text)
	errs := []error{os.WriteFile(document, []byte(text), 0o644)}
	for _, m := range ran {
		errs = append(errs, results[m.name].unforeseen(m))
	}
	return errors.Join(errs...)
}

const introduction = `# Kubernetes' own load-balancer tests

Made by ` + "`make conformance`" + `: the specs of Kubernetes' end-to-end tests that are labelled ` + "`" + feature + "`" + `, all
of them, against Herald on a kind cluster of three nodes. The client is outside of the nodes' subnet, behind a router; with BGP
the router learns the addresses from Herald, on L2 it asks for them by ARP.

`

// markdown returns the document. The results are by the name of their mode.
func markdown(results map[string]*suite) string {
	var b, notes strings.Builder
	b.WriteString(introduction)
	head, rule := "| |", "|---|"
	titles := map[string]bool{}
	for _, m := range modes {
		s, ok := results[m.name]
		if !ok {
			continue
		}
		head, rule = head+" "+m.title+" |", rule+"---|"
		fmt.Fprintf(&b, "- %s: Herald %s, Kubernetes %s: %d of %d passed\n", m.title, s.property("herald"), s.property("kubernetes"), s.Tests-s.Failures-s.Skipped, s.Tests)
		for _, t := range s.Specs {
			titles[t.title()] = true
		}
	}
	fmt.Fprintf(&b, "\n%s\n%s\n", head, rule)
	count := 0
	mark := func(text, note string) string {
		if note == "" {
			return text
		}
		count++
		fmt.Fprintf(&notes, "%d. %s\n", count, note)
		return fmt.Sprintf("%s (%d)", text, count)
	}
	for _, title := range slices.Sorted(maps.Keys(titles)) {
		fmt.Fprintf(&b, "| %s |", mark(title, remarks[title]))
		for _, m := range modes {
			s, ok := results[m.name]
			if !ok {
				continue
			}
			fmt.Fprintf(&b, " %s |", mark(s.verdict(m, title)))
		}
		b.WriteString("\n")
	}
	if count > 0 {
		b.WriteString("\n" + notes.String())
	}
	return b.String()
}

// verdict returns a cell of the table, and the note on it, if any.
func (s *suite) verdict(m mode, title string) (cell, note string) {
	t, ok := s.spec(title)
	switch f := t.failed(); {
	case !ok:
		return "not run", ""
	case f != nil && m.cannot[title] != "":
		return "failed", "On " + m.title + " this failure is expected. " + m.cannot[title] + "."
	case f != nil:
		return "**failed**", m.title + ": " + f.reason()
	case t.Skip != nil:
		return "skipped", m.title + ": " + t.Skip.reason()
	}
	return "passed, " + time.Duration(t.Seconds*float64(time.Second)).Round(time.Second).String(), ""
}
