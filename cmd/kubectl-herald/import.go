package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime/schema"
	utilerrors "k8s.io/apimachinery/pkg/util/errors"
	utiljson "k8s.io/apimachinery/pkg/util/json"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	"k8s.io/cli-runtime/pkg/resource"
	"k8s.io/client-go/dynamic"

	"github.com/heraldlb/herald/cmd/kubectl-herald/internal/migrate"
)

func importCommand(a *access) *cobra.Command {
	var names []string
	for _, s := range migrate.Sources {
		names = append(names, s.Name)
	}
	var kustomize string
	var check bool
	files := genericclioptions.FileNameFlags{
		Usage: "Files, directories or URLs with the other's objects and Services, in YAML or JSON; - is standard input.", Filenames: &[]string{}, Kustomize: &kustomize, Recursive: new(bool),
	}
	cmd := &cobra.Command{
		Use:   "import " + strings.Join(names, "|") + " [-f FILE]... [-k DIRECTORY] [--check]",
		Short: "Translate the configuration of another load balancer.",
		Long: `Translate the configuration of another load balancer into Herald's objects, and write them to standard output as YAML. The
objects of the other load balancer and the Services are read from the cluster or, with -f or -k, from files. Nothing is applied.

A report goes to standard error: which Services would not keep their addresses, what is translated, what is only approximated and
how it differs, and what cannot be translated and what to do. It also has the commands that give Services Herald's annotations. No
password is written: BGPPeers refer to Secrets, and the report says which ones are wanted.

With --check only what is in the way of a move is written, to standard output: first addresses that Services would not keep, then
what cannot be translated.

The exit code is 0 if all is translated or approximated, 2 if something cannot be translated or a Service would not keep an address,
and 1 if the cluster or a file cannot be read. docs/moving.md says what becomes of each field.`,
		Example: `  kubectl herald import metallb --check
  kubectl herald import metallb > herald.yaml
  kubectl herald import metallb -f metallb/ | kubectl apply --dry-run=server -f -`,
		Args:      one("a load balancer"),
		ValidArgs: names,
		RunE: func(cmd *cobra.Command, args []string) error {
			var source *migrate.Source
			for _, s := range migrate.Sources {
				if s.Name == args[0] {
					source = s
				}
			}
			var objects []*unstructured.Unstructured
			var err error
			if from := files.ToOptions(); len(from.Filenames) > 0 || from.Kustomize != "" {
				objects, err = readObjects(&from)
			} else {
				objects, err = a.configurationOf(cmd.Context(), source)
			}
			if err != nil && len(objects) == 0 {
				return err
			}
			unread := err // The objects that could be read are translated nevertheless.
			r := source.Translate(objects)
			if len(r.Notes) == 0 && unread == nil {
				return fmt.Errorf("there is no configuration of %s among the %d objects: give files with -f, or another --context", source.Title, len(objects))
			}
			if check {
				_, err = io.WriteString(cmd.OutOrStdout(), r.Check())
			} else {
				err = write(cmd, r)
			}
			if err != nil {
				return err
			}
			if unread == nil && !r.Good() {
				return errAttention
			}
			return unread
		},
	}
	files.AddFlags(cmd.Flags())
	cmd.Flags().BoolVar(&check, "check", false, "Write only what is in the way of a move, and no objects.")
	return cmd
}

// write writes objects to standard output, and the report to standard error.
func write(cmd *cobra.Command, r *migrate.Result) error {
	text, err := r.YAML()
	if err != nil {
		return err
	}
	if _, err := io.WriteString(cmd.OutOrStdout(), text); err != nil {
		return err
	}
	_, err = io.WriteString(cmd.ErrOrStderr(), r.Text())
	return err
}

// readObjects reads objects of any kind from the files that kubectl would read.
func readObjects(from *resource.FilenameOptions) ([]*unstructured.Unstructured, error) {
	var d documents
	var errs []error
	read := func(where string, one resource.FilenameOptions) {
		d.where, d.read = where, 0
		err := resource.NewLocalBuilder().Unstructured().Schema(&d).ContinueOnError().FilenameParam(false, &one).Do().Visit(func(_ *resource.Info, err error) error { return err })
		// Documents that cannot be decoded are also in d, and d or the report has the error.
		errs = append(errs, utilerrors.FilterOut(err, func(err error) bool { return strings.HasPrefix(err.Error(), "unable to decode ") }))
	}
	for _, name := range from.Filenames {
		for _, file := range filesOf(name, from.Recursive) {
			where := file
			if file == "-" {
				where = "standard input"
			}
			read(where, resource.FilenameOptions{Filenames: []string{file}})
		}
	}
	if from.Kustomize != "" {
		read(from.Kustomize, resource.FilenameOptions{Kustomize: from.Kustomize})
	}
	return d.objects, errors.Join(append(d.wrong, errs...)...)
}

// filesOf lists the files of a directory that kubectl would read. It returns anything else, such as a URL or a pattern,
// unchanged.
func filesOf(name string, recursive bool) (files []string) {
	visitors, err := resource.ExpandPathsToFileVisitors(nil, name, recursive, resource.FileExtensions, nil)
	for _, v := range visitors {
		if f, ok := v.(*resource.FileVisitor); ok {
			files = append(files, f.Path)
		}
	}
	if err != nil || len(files) == 0 {
		return []string{name}
	}
	return files
}

// documents collects the documents of files. It takes the place of kubectl's schema validator, which gets each document
// unchanged. If metadata or an element of a list has the wrong type, kubectl itself returns no object, and an error in
// terms of Go.
type documents struct {
	where   string // what is being read
	read    int    // how many documents of it were read
	objects []*unstructured.Unstructured
	wrong   []error
}

// ValidateBytes reads a document. It never returns an error, because kubectl would then stop reading the file.
func (d *documents) ValidateBytes(raw []byte) error {
	d.read++
	where := fmt.Sprintf("document %d of %s", d.read, d.where)
	var content any
	if err := utiljson.Unmarshal(raw, &content); err != nil {
		d.wrong = append(d.wrong, fmt.Errorf("%s: %w", where, err))
		return nil
	}
	d.add(where, content, schema.GroupVersionKind{})
	return nil
}

// add adds an object, or the objects of a list. The elements of a list of one kind may leave out the kind.
func (d *documents) add(where string, content any, kind schema.GroupVersionKind) {
	fields, _ := content.(map[string]any)
	u := &unstructured.Unstructured{Object: fields}
	items, several := fields["items"]
	if list, whole := items.([]any); several && (whole || items == nil) {
		kind = u.GroupVersionKind()
		kind.Kind = strings.TrimSuffix(kind.Kind, "List")
		for n, item := range list {
			d.add(fmt.Sprintf("items[%d] of %s", n, where), item, kind)
		}
		return
	}
	if fields != nil && u.GetKind() == "" && u.GetAPIVersion() == "" && kind.Kind != "" {
		u.SetGroupVersionKind(kind)
	}
	if why := unreadable(u, several); why != "" {
		d.wrong = append(d.wrong, errors.New(where+why))
		return
	}
	d.objects = append(d.objects, u)
}

// unreadable returns what is wrong with the form of an object; empty if nothing is. list is true if it has the field items
// and must be a list.
func unreadable(u *unstructured.Unstructured, list bool) string {
	metadata, isMap := u.Object["metadata"].(map[string]any)
	_, isText := metadata["name"].(string)
	switch {
	case u.Object == nil:
		return " is not an object: write one with apiVersion, kind and metadata, or leave it out"
	case list:
		return ": items is not a list: write a list of objects"
	case u.GetKind() == "" || u.GetAPIVersion() == "":
		return " has no apiVersion or no kind: write both"
	case u.Object["metadata"] != nil && !isMap:
		return ": metadata of this " + u.GetKind() + " is not a map: write one with a name"
	case metadata["name"] != nil && !isText:
		return ": metadata.name of this " + u.GetKind() + " is not a string: write it in quotation marks"
	}
	return ""
}

// configurationOf reads the configuration of another load balancer, and the Services of type LoadBalancer, from the
// cluster. If the cluster does not serve a resource, there are no objects of it.
func (a *access) configurationOf(ctx context.Context, source *migrate.Source) (objects []*unstructured.Unstructured, err error) {
	c, err := a.connect()
	if err != nil {
		return nil, err
	}
	mapper, err := a.ToRESTMapper()
	if err != nil {
		return nil, err
	}
	for _, r := range source.Resources {
		served, err := mapper.ResourceFor(r.WithVersion(""))
		if meta.IsNoMatchError(err) {
			continue
		}
		if err != nil {
			return nil, err
		}
		var options metav1.ListOptions
		if r.Name != "" {
			options.FieldSelector = fields.OneTermEqualSelector("metadata.name", r.Name).String()
		}
		of, err := list(ctx, c.dynamic, served, r.Namespace, options)
		if apierrors.IsNotFound(err) {
			continue // kubectl's cache of what is served is old.
		}
		if err != nil {
			return nil, err // An incomplete configuration would be taken for the whole.
		}
		objects = append(objects, of...)
	}
	services, err := list(ctx, c.dynamic, corev1.SchemeGroupVersion.WithResource("services"), metav1.NamespaceAll, metav1.ListOptions{
		FieldSelector: fields.OneTermEqualSelector("spec.type", string(corev1.ServiceTypeLoadBalancer)).String(),
	})
	if err != nil {
		return nil, err
	}
	return append(objects, services...), nil
}

func list(ctx context.Context, c dynamic.Interface, what schema.GroupVersionResource, namespace string, options metav1.ListOptions) (objects []*unstructured.Unstructured, err error) {
	for options.Limit = pageSize; ; {
		page, err := c.Resource(what).Namespace(namespace).List(ctx, options)
		if apierrors.IsForbidden(err) {
			return nil, fmt.Errorf("%w: ask for the right to list %s", err, what.GroupResource())
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", what.GroupResource(), err)
		}
		objects = append(objects, pointers(page.Items)...)
		if options.Continue = page.GetContinue(); options.Continue == "" {
			return objects, nil
		}
	}
}
