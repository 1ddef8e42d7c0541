package reference

import (
	"regexp"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

var (
	// flagGroup and flagName match lines of a command's usage: "Leader election flags:", " -n, --namespace string ...".
	flagGroup = regexp.MustCompile(`^(\S.* )?[Ff]lags:$`)
	flagName  = regexp.MustCompile(`^ {2,6}(?:-\w, )?--([\w.-]+)`)
)

// Command describes a command and its subcommands. The flags are grouped as in the command's own usage. If first is not
// empty, the group of this name comes before the others.
func Command(title string, cmd *cobra.Command, first string) string {
	var out strings.Builder
	out.WriteString("# " + title + "\n\n")
	describe(&out, cmd)
	flags(&out, cmd, "##", first)
	below(&out, cmd, "##")
	return out.String()
}

func below(out *strings.Builder, cmd *cobra.Command, level string) {
	for _, c := range cmd.Commands() {
		if !c.IsAvailableCommand() || c.Name() == "help" || c.Name() == "completion" {
			continue
		}
		out.WriteString("\n" + level + " " + c.CommandPath() + "\n\n")
		describe(out, c)
		if !c.HasSubCommands() {
			out.WriteString("\n```\n" + c.UseLine() + "\n```\n")
		}
		if c.Example != "" {
			out.WriteString("\nExamples:\n\n```\n" + strings.Trim(c.Example, "\n") + "\n```\n")
		}
		flags(out, c, level+"#", "")
		below(out, c, level+"#")
	}
}

func describe(out *strings.Builder, cmd *cobra.Command) {
	text := cmd.Long
	if text == "" {
		text = cmd.Short
	}
	out.WriteString(strings.TrimSpace(text) + "\n")
}

func flags(out *strings.Builder, cmd *cobra.Command, level, first string) {
	cmd.InitDefaultHelpFlag()
	cmd.InitDefaultVersionFlag()
	type group struct{ name, rows string }
	var groups []group
	for line := range strings.Lines(cmd.UsageString()) {
		line = strings.TrimRight(line, "\n")
		if flagGroup.MatchString(line) {
			name := strings.TrimSuffix(line, ":")
			if name == "Global Flags" && cmd.HasParent() {
				break // The parent has them.
			}
			groups = append(groups, group{name: name})
			continue
		}
		m := flagName.FindStringSubmatch(line)
		if m == nil || len(groups) == 0 || m[1] == "help" {
			continue
		}
		if f := cmd.Flag(m[1]); f != nil {
			groups[len(groups)-1].rows += flag(f)
		}
	}
	slices.SortStableFunc(groups, func(a, b group) int {
		return map[bool]int{true: -1}[a.name == first] - map[bool]int{true: -1}[b.name == first]
	})
	for _, g := range groups {
		if g.rows == "" {
			continue
		}
		if g.name != "Flags" {
			out.WriteString("\n" + level + " " + g.name + "\n")
		}
		out.WriteString("\n" + head("flag", "default", "") + g.rows)
	}
}

func flag(f *pflag.Flag) string {
	kind, usage := pflag.UnquoteUsage(f)
	name := "--" + f.Name
	if f.Shorthand != "" {
		name = "-" + f.Shorthand + ", " + name
	}
	if kind != "" {
		name += " " + kind
	}
	value := f.DefValue
	if value == "[]" || strings.Contains(usage, "(default ") {
		value = "" // There is no default, or the text already has it.
	}
	return row(code(name), code(value), sentence(cell(usage)))
}
