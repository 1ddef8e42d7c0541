package main

import (
	"encoding/json"
	"fmt"
	"io"

	"github.com/spf13/cobra"
	"sigs.k8s.io/yaml"
)

// format is the flag --output: empty is text for people.
type format string

func (f *format) bind(cmd *cobra.Command) {
	cmd.Flags().VarP(f, "output", "o", "json or yaml, for programs. What is in it is in docs/kubectl-herald.md.")
}

// String, Set and Type make it a flag.
func (f *format) String() string { return string(*f) }

func (f *format) Set(text string) error {
	if text != "json" && text != "yaml" {
		return fmt.Errorf("write json or yaml")
	}
	*f = format(text)
	return nil
}

func (f *format) Type() string { return "format" }

// write writes a report in the format that is asked for; text writes it for people.
func (f *format) write(out io.Writer, report any, text func() string) error {
	var b []byte
	var err error
	switch *f {
	case "json":
		if b, err = json.MarshalIndent(report, "", "  "); err == nil {
			b = append(b, '\n')
		}
	case "yaml":
		b, err = yaml.Marshal(report)
	default:
		b = []byte(text())
	}
	if err != nil {
		return err
	}
	_, err = out.Write(b)
	return err
}
