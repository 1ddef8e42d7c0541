package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// written is shortened output of ginkgo.
const written = `<?xml version="1.0" encoding="UTF-8"?>
<testsuites><testsuite name="Kubernetes e2e suite">
<properties><property name="RandomSeed" value="1"></property></properties>
<testcase name="[SynchronizedBeforeSuite]" status="passed" time="1"></testcase>
<testcase name="[It] [sig-network] DNS should be there" time="0"><skipped message="skipped"></skipped></testcase>
<testcase name="[It] [sig-network] LoadBalancers [Feature:LoadBalancer] should work [Slow] [sig-network, Feature:LoadBalancer, Slow]" time="61.4"></testcase>
<testcase name="[It] [sig-network] LoadBalancers [Feature:LoadBalancer] should work from pods" time="3">
<failure message="no answer&#xA;at all" type="failed">long story</failure><system-err>log</system-err></testcase>
<testcase name="[It] [sig-network] LoadBalancers ExternalTrafficPolicy: Local [Feature:LoadBalancer] [Slow] should target all nodes with endpoints [sig-network, Feature:LoadBalancer, Slow]" time="3">
<failure type="failed">
Affinity held</failure></testcase>
<testcase name="[It] [sig-network] LoadBalancers [Feature:LoadBalancer] should need nodes" time="0"><skipped message="skipped - too few"></skipped></testcase>
</testsuite></testsuites>`

func TestReport(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "all.xml")
	if err := os.WriteFile(file, []byte(written), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, m := range modes {
		s, err := readSuite(file)
		if err != nil {
			t.Fatal(err)
		}
		if s.Tests != 4 || s.Failures != 2 || s.Skipped != 1 {
			t.Errorf("%d specs, %d failed, %d skipped; want 4, 2, 1", s.Tests, s.Failures, s.Skipped)
		}
		s.Properties = []property{{"kubernetes", "v1.36.3"}, {"herald", "abc-" + m.name}}
		if err := s.write(filepath.Join(dir, m.name+".xml")); err != nil {
			t.Fatal(err)
		}
	}
	document := filepath.Join(dir, "conformance.md")
	err := report(dir, document, modes)
	if err == nil {
		t.Fatal("no error about specs that failed")
	}
	for _, want := range []string{
		"bgp: LoadBalancers should work from pods: no answer",
		"bgp: LoadBalancers ExternalTrafficPolicy: Local should target all nodes with endpoints: Affinity held",
		"l2: LoadBalancers should work from pods: no answer",
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("the error lacks %q:\n%v", want, err)
		}
	}
	if strings.Contains(err.Error(), "l2: LoadBalancers ExternalTrafficPolicy") {
		t.Errorf("the error is about what the mode cannot do, too:\n%v", err)
	}
	text, err := os.ReadFile(document)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"- L2: Herald abc-l2, Kubernetes v1.36.3: 1 of 4 passed\n",
		"| LoadBalancers should work | passed, 1m1s | passed, 1m1s |\n",
		"| LoadBalancers should work from pods | **failed** (6) | **failed** (7) |\n",
		"| LoadBalancers should need nodes | skipped (4) | skipped (5) |\n",
		"3. On L2 this failure is expected. On a segment",
		"4. BGP: too few\n",
	} {
		if !strings.Contains(string(text), want) {
			t.Errorf("the document lacks %q:\n%s", want, text)
		}
	}
	if strings.Contains(string(text), "DNS") {
		t.Errorf("the document has specs that were not selected:\n%s", text)
	}
}

func TestNoReport(t *testing.T) {
	file := filepath.Join(t.TempDir(), "all.xml")
	for text, want := range map[string]string{
		`<testsuites><testsuite></testsuite></testsuites>`: "no spec is labelled",
		`<testsuites><testsuite><testcase name="[SynchronizedBeforeSuite]"><failure message="no nodes"></failure></testcase></testsuite></testsuites>`: "no nodes",
		`<testsuites>`: "EOF",
	} {
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := readSuite(file); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v; want an error with %q", text, err, want)
		}
	}
}
