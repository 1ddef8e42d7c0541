package lab

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/heraldlb/herald/e2e/lab/enclave"
)

// losses matches the counters of snmp and netstat (proc_net_snmp(5)) that grow when packets are lost.
var losses = regexp.MustCompile(`Drop|Discard|NoRoute|Overflow|Retrans|Skipped|PAWS|Rejected|Unreach|AddrErrors|Rcvbuf`)

// Losses returns the host's counters of lost packets that are not zero, and its counters of connection tracking.
func Losses(h enclave.Host) (counters []string, err error) {
	err = h.Do(func() error {
		counters = lossesIn(h.Name, "/proc/thread-self/net")
		return nil
	})
	return counters, err
}

// LossesOf returns the same counters where processes with the given name run, for example in pods.
func LossesOf(program string) (counters []string, err error) {
	all, err := filepath.Glob("/proc/[0-9]*/comm")
	for _, file := range all {
		if name, err := os.ReadFile(file); err == nil && strings.TrimSpace(string(name)) == program {
			dir := filepath.Dir(file)
			counters = append(counters, lossesIn(program+" "+filepath.Base(dir), filepath.Join(dir, "net"))...)
		}
	}
	return counters, err
}

// lossesIn reads the counters of one network namespace. A file that cannot be read is left out: a process may have ended.
func lossesIn(where, dir string) (counters []string) {
	var found []string
	for _, file := range []string{"snmp", "netstat"} {
		data, _ := os.ReadFile(filepath.Join(dir, file))
		lines := strings.Split(strings.TrimSpace(string(data)), "\n")
		for i := 0; i+1 < len(lines); i += 2 { // A line of names comes before a line of values.
			names, values := strings.Fields(lines[i]), strings.Fields(lines[i+1])
			for j := 1; j < min(len(names), len(values)); j++ {
				if values[j] != "0" && losses.MatchString(names[j]) {
					found = append(found, names[j]+"="+values[j])
				}
			}
		}
	}
	counters = append(counters, fmt.Sprintf("%s: %s", where, strings.Join(found, " ")))
	if data, err := os.ReadFile(filepath.Join(dir, "stat", "nf_conntrack")); err == nil {
		for line := range slices.Values(strings.Split(strings.TrimSpace(string(data)), "\n")) {
			counters = append(counters, fmt.Sprintf("%s: connection tracking: %s", where, strings.Join(strings.Fields(line), " ")))
		}
	}
	return counters
}
