package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/cli-runtime/pkg/genericclioptions"

	herald "github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/cmd/kubectl-herald/internal/report"
	"github.com/heraldlb/herald/provider"
)

// output is the flag --output. If it is empty, the output is text for people.
type output struct{ format string }

func (o *output) printFlags() *genericclioptions.PrintFlags {
	return &genericclioptions.PrintFlags{
		OutputFormat: &o.format, JSONYamlPrintFlags: genericclioptions.NewJSONYamlPrintFlags(), TemplatePrinterFlags: genericclioptions.NewKubeTemplatePrintFlags(),
	}
}

func (o *output) bind(cmd *cobra.Command) {
	formats := []string{"json", "yaml", "jsonpath=", "go-template="}
	cmd.Flags().StringVarP(&o.format, "output", "o", "", "For programs: json, yaml, jsonpath=TEMPLATE or go-template=TEMPLATE. docs/kubectl-herald.md lists the fields.")
	_ = cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions(formats, cobra.ShellCompDirectiveNoFileComp|cobra.ShellCompDirectiveNoSpace))
}

// write writes a report in the format of the flag; text returns it for people.
func (o *output) write(out io.Writer, value any, text func(report.Style) string) error {
	if o.format == "" {
		_, err := io.WriteString(out, text(report.StyleOf(out)))
		return err
	}
	printer, err := o.printFlags().ToPrinter()
	if err != nil {
		return fmt.Errorf("--output: %w", err)
	}
	raw, err := json.Marshal(value)
	if err != nil {
		return err
	}
	return printer.PrintObj(&runtime.Unknown{Raw: raw, ContentType: runtime.ContentTypeJSON}, out)
}

// conclude writes the report of a command. It returns errAttention unless good is true.
func (o *output) conclude(out io.Writer, value any, text func(report.Style) string, good bool) error {
	if err := o.write(out, value, text); err != nil || good {
		return err
	}
	return errAttention
}

// ccm has the flags that describe how herald-ccm is run.
type ccm struct {
	report.CCM
	quota provider.Quota
}

func (c *ccm) bind(cmd *cobra.Command) {
	c.bindServices(cmd)
	cmd.Flags().Var(&c.quota, "namespace-quota", "The value of this flag of herald-ccm.")
}

// bindServices adds the flags that say which Services herald-ccm serves, and how it reads them.
func (c *ccm) bindServices(cmd *cobra.Command) {
	bindForeign(cmd, &c.Foreign)
	cmd.Flags().StringVar(&c.Class, "load-balancer-class", herald.LoadBalancerClass, "The value of this flag of herald-ccm.")
	cmd.Flags().BoolVar(&c.Classless, "serve-classless", true, "The value of this flag of herald-ccm.")
}

// bindForeign adds the flag that says which annotations herald-ccm reads besides its own.
func bindForeign(cmd *cobra.Command, foreign *provider.Foreign) {
	cmd.Flags().Var(foreign, "foreign-annotations", "The value of this flag of herald-ccm.")
}

func (c *ccm) get() *report.CCM {
	c.Quota = c.quota.Limits
	return &c.CCM
}

// bindOwn adds the flag for the namespace of Herald.
func bindOwn(cmd *cobra.Command, own *string) {
	cmd.Flags().StringVar(own, "herald-namespace", "herald-system", "The namespace in which Herald runs.")
}

// completion completes an argument with the results of list. If the cluster cannot be read, it offers nothing.
func (a *access) completion(most int, list func(cmd *cobra.Command, c *cluster, toComplete string) []string) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, toComplete string) ([]string, cobra.ShellCompDirective) {
		if most > 0 && len(args) >= most {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		c, err := a.connect()
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		var fitting []string
		for _, name := range list(cmd, c, toComplete) {
			if strings.HasPrefix(name, toComplete) {
				fitting = append(fitting, name)
			}
		}
		return fitting, cobra.ShellCompDirectiveNoFileComp
	}
}
