package main

import (
	"encoding/xml"
	"errors"
	"fmt"
	"os"
	"regexp"
	"strings"
)

// feature is the label in the names of the selected specs.
const feature = "[Feature:LoadBalancer]"

// suite is a JUnit file with the selected specs and the versions of the software under test.
type suite struct {
	XMLName    xml.Name   `xml:"testsuite"`
	Name       string     `xml:"name,attr"`
	Tests      int        `xml:"tests,attr"`
	Failures   int        `xml:"failures,attr"`
	Skipped    int        `xml:"skipped,attr"`
	Properties []property `xml:"properties>property"`
	Specs      []spec     `xml:"testcase"`
}

type property struct {
	Name  string `xml:"name,attr"`
	Value string `xml:"value,attr"`
}

type spec struct {
	Name    string   `xml:"name,attr"`
	Seconds float64  `xml:"time,attr"`
	Failure *outcome `xml:"failure"`
	// Error is set by ginkgo if the spec panicked or timed out.
	Error  *outcome `xml:"error"`
	Skip   *outcome `xml:"skipped"`
	Output string   `xml:"system-err,omitempty"`
}

type outcome struct {
	Message string `xml:"message,attr"`
	Text    string `xml:",chardata"`
}

// readSuite reads the selected specs from ginkgo's file, which has all specs of the program.
func readSuite(file string) (*suite, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var all struct {
		Suites []suite `xml:"testsuite"`
	}
	if err := xml.Unmarshal(text, &all); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	found := &suite{}
	for _, s := range all.Suites {
		for _, t := range s.Specs {
			switch setup := strings.HasPrefix(t.Name, "[Synchronized"); {
			case setup && t.failed() != nil:
				return nil, fmt.Errorf("%s: %s", t.Name, t.failed().Message)
			case !strings.Contains(t.Name, feature):
				continue
			}
			found.Specs = append(found.Specs, t)
			found.Tests++
			if t.failed() != nil {
				found.Failures++
			}
			if t.Skip != nil {
				found.Skipped++
			}
		}
	}
	if found.Tests == 0 {
		return nil, fmt.Errorf("%s: no spec is labelled %s", file, feature)
	}
	return found, nil
}

// loadSuite reads a file of write.
func loadSuite(file string) (*suite, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	s := &suite{}
	if err := xml.Unmarshal(text, s); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return s, nil
}

func (s *suite) write(file string) error {
	text, err := xml.MarshalIndent(s, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(file, append([]byte(xml.Header), text...), 0o644)
}

func (s *suite) property(name string) string {
	for _, p := range s.Properties {
		if p.Name == name {
			return p.Value
		}
	}
	return "unknown"
}

// spec finds a spec by its title.
func (s *suite) spec(title string) (spec, bool) {
	for _, t := range s.Specs {
		if t.title() == title {
			return t, true
		}
	}
	return spec{}, false
}

// unforeseen returns an error for each failed spec that is not in the mode's cannot.
func (s *suite) unforeseen(m mode) error {
	var errs []error
	for _, t := range s.Specs {
		if f := t.failed(); f != nil && m.cannot[t.title()] == "" {
			errs = append(errs, fmt.Errorf("%s: %s: %s", m.name, t.title(), f.reason()))
		}
	}
	return errors.Join(errs...)
}

// labels matches the labels in the middle and at the end of a spec's name.
var labels = regexp.MustCompile(` *\[[^\]]*\]`)

// title returns the spec's name without labels.
func (t spec) title() string { return strings.TrimSpace(labels.ReplaceAllString(t.Name, "")) }

func (t spec) failed() *outcome {
	if t.Failure != nil {
		return t.Failure
	}
	return t.Error
}

// reason returns the first line of the message.
func (o *outcome) reason() string {
	text := o.Message
	if text == "" {
		text = o.Text
	}
	line, _, _ := strings.Cut(strings.TrimSpace(text), "\n")
	return strings.TrimPrefix(line, "skipped - ")
}
