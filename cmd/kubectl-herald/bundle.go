package main

import (
	"archive/tar"
	"bufio"
	"bytes"
	"cmp"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/yaml"

	herald "github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/cmd/internal/version"
	"github.com/heraldlb/herald/cmd/kubectl-herald/internal/report"
)

func bundleCommand(a *access) *cobra.Command {
	var b bundle
	var file string
	cmd := &cobra.Command{
		Use:   "bundle [-o FILE]",
		Short: "Put what a maintainer needs to know of this cluster into one archive.",
		Long: `Put what a maintainer needs to know of this cluster into one archive: Herald's objects, nodes, Services of type LoadBalancer with
their EndpointSlices, events, the workloads, pods and Leases in Herald's namespace, logs, metrics, versions, and what kubectl herald
status and preflight say.

No Secret is read. Values of environment variables and of most annotations are left out, and so is what looks like a credential elsewhere. Addresses
and names stay as they are: look through the archive before you pass it on.

index.yaml in the archive lists what it has, and what could not be read. The exit code is 0 if everything could be read, 2 if
something could not, and 1 if there is no archive.`,
		Example: `  kubectl herald bundle
  kubectl herald bundle -o /tmp/herald.tar.gz`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var err error
			if b.cluster, err = a.connect(); err != nil {
				return err
			}
			if err := b.write(cmd.Context(), file); err != nil {
				return err
			}
			out := cmd.OutOrStdout()
			if _, err := io.WriteString(out, b.index.Text(report.StyleOf(out), file)); err != nil {
				return err
			}
			if len(b.index.Missing) > 0 {
				return errAttention
			}
			return nil
		},
	}
	cmd.Flags().StringVarP(&file, "output", "o", "herald-bundle.tar.gz", "The archive. One that is there is replaced.")
	_ = cmd.MarkFlagFilename("output", "tar.gz", "tgz")
	b.ccm.bind(cmd)
	b.bind(cmd)
	return cmd
}

const (
	// pageSize is the most objects in memory at once.
	pageSize = 250
	// maxLog and maxLogLines limit the log of a container, maxLine limits a line of it, and maxMetrics the metrics of a
	// pod. The latest lines are kept.
	maxLog, maxLogLines, maxLine, maxMetrics = 4 << 20, 20_000, 16 << 10, 16 << 20
	// ccmPort is the port on which herald-ccm serves its metrics.
	ccmPort = "10258"
)

// bundle is an archive that is being written.
type bundle struct {
	speakers
	ccm   ccm
	at    time.Time
	tar   *tar.Writer
	spool *os.File // The content of a file, until its size is known.
	index report.Index
}

// write writes the archive to a file. The file exists only if write succeeds.
func (b *bundle) write(ctx context.Context, name string) error {
	if info, err := os.Lstat(name); err == nil && !info.Mode().IsRegular() {
		return fmt.Errorf("-o %s: this is not a regular file: choose another name", name)
	}
	dir := filepath.Dir(name)
	archive, err := os.CreateTemp(dir, ".herald-bundle-*")
	if err != nil {
		return err
	}
	defer os.Remove(archive.Name()) // On success it has been renamed.
	defer archive.Close()
	if b.spool, err = os.CreateTemp(dir, ".herald-bundle-*"); err != nil {
		return err
	}
	defer os.Remove(b.spool.Name())
	defer b.spool.Close()
	compressed := gzip.NewWriter(archive)
	b.tar, b.at = tar.NewWriter(compressed), time.Now()
	if err := b.collect(ctx); err != nil {
		return err
	}
	if err := errors.Join(b.tar.Close(), compressed.Close(), archive.Close()); err != nil {
		return err
	}
	return os.Rename(archive.Name(), name)
}

// collect writes everything into the archive. It notes what cannot be read; it fails only if writing fails or ctx ends.
func (b *bundle) collect(ctx context.Context) error {
	b.index = report.Index{Files: []report.IndexedFile{}, Missing: []report.Missing{}}
	for _, part := range []func(context.Context) error{b.versions, b.objects, b.logs, b.metrics, b.reports} {
		if err := part(ctx); err != nil {
			return err
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	index, err := yaml.Marshal(b.index)
	if err != nil {
		return err
	}
	return b.file("index.yaml", func(w io.Writer) (string, error) {
		_, err := w.Write(index)
		return "", err
	})
}

// file adds a file to the archive. If fill fails, the content so far is kept, and the error is noted in the index.
func (b *bundle) file(path string, fill func(io.Writer) (note string, err error)) error {
	if _, err := b.spool.Seek(0, io.SeekStart); err != nil {
		return err
	}
	if err := b.spool.Truncate(0); err != nil {
		return err
	}
	buffered := bufio.NewWriter(b.spool)
	note, failed := fill(buffered)
	if err := buffered.Flush(); err != nil {
		return err
	}
	size, err := b.spool.Seek(0, io.SeekCurrent)
	if err != nil {
		return err
	}
	if failed != nil {
		b.index.Miss(path, failed)
		if size == 0 {
			return nil
		}
	}
	if _, err := b.spool.Seek(0, io.SeekStart); err != nil {
		return err
	}
	if err := b.tar.WriteHeader(&tar.Header{Name: "herald-bundle/" + path, Mode: 0o644, Size: size, ModTime: b.at, Typeflag: tar.TypeReg}); err != nil {
		return err
	}
	b.index.Files = append(b.index.Files, report.IndexedFile{Path: path, Bytes: size, Note: note})
	_, err = io.Copy(b.tar, b.spool)
	return err
}

func (b *bundle) versions(context.Context) error {
	return b.file("versions.yaml", func(w io.Writer) (string, error) {
		server, err := b.kube.Discovery().ServerVersion()
		v := map[string]any{"kubectl-herald": version.String(), "collected": b.at.UTC().Format(time.RFC3339), "kubernetes": server}
		text, failed := yaml.Marshal(v)
		if failed != nil {
			return "", failed
		}
		_, failed = w.Write(text)
		return "", errors.Join(err, failed)
	})
}

// collected is a resource whose objects a bundle contains.
type collected struct {
	schema.GroupVersionResource
	namespace, fields string
	keep              func(*unstructured.Unstructured) bool // nil means all
}

func (b *bundle) objects(ctx context.Context) error {
	services := map[types.NamespacedName]bool{}
	ours := func(resource string) collected {
		return collected{GroupVersionResource: herald.GroupVersion.WithResource(resource)}
	}
	of := func(group, version, resource, namespace string) collected {
		return collected{GroupVersionResource: schema.GroupVersionResource{Group: group, Version: version, Resource: resource}, namespace: namespace}
	}
	balanced := of("", "v1", "services", "")
	balanced.fields = "spec.type=" + string(corev1.ServiceTypeLoadBalancer)
	balanced.keep = func(o *unstructured.Unstructured) bool {
		services[types.NamespacedName{Namespace: o.GetNamespace(), Name: o.GetName()}] = true
		return true
	}
	slices := of("discovery.k8s.io", "v1", "endpointslices", "")
	slices.keep = func(o *unstructured.Unstructured) bool {
		return services[types.NamespacedName{Namespace: o.GetNamespace(), Name: o.GetLabels()[discoveryv1.LabelServiceName]}]
	}
	events := of("", "v1", "events", "")
	events.keep = func(o *unstructured.Unstructured) bool {
		about, _, _ := unstructured.NestedStringMap(o.Object, "involvedObject")
		return o.GetNamespace() == b.own || about["kind"] == "Node" || strings.HasPrefix(about["apiVersion"], herald.GroupVersion.Group+"/") ||
			about["kind"] == "Service" && services[types.NamespacedName{Namespace: about["namespace"], Name: about["name"]}]
	}
	for _, c := range []collected{
		ours("bgpadvertisements"), ours("bgppeers"), ours("ipallocations"), ours("ippools"), ours("l2advertisements"), ours("speakerstatuses"),
		of("", "v1", "nodes", ""), balanced, slices, events,
		of("", "v1", "pods", b.own), of("apps", "v1", "daemonsets", b.own), of("apps", "v1", "deployments", b.own), of("coordination.k8s.io", "v1", "leases", b.own),
	} {
		if err := b.file("objects/"+c.GroupResource().String()+".yaml", func(w io.Writer) (string, error) { return b.list(ctx, c, w) }); err != nil {
			return err
		}
	}
	return nil
}

// list writes the objects of a resource, one page at a time.
func (b *bundle) list(ctx context.Context, c collected, w io.Writer) (note string, err error) {
	n := 0
	options := metav1.ListOptions{Limit: pageSize, FieldSelector: c.fields}
	for {
		page, err := b.dynamic.Resource(c.GroupVersionResource).Namespace(c.namespace).List(ctx, options)
		if err != nil {
			return objectCount(n), err
		}
		for i := range page.Items {
			o := &page.Items[i]
			if c.keep != nil && !c.keep(o) {
				continue
			}
			report.Redact(o.Object)
			text, err := yaml.Marshal(o.Object)
			if err != nil {
				return "", err
			}
			if _, err := fmt.Fprintf(w, "---\n%s", text); err != nil {
				return "", err
			}
			n++
		}
		if options.Continue = page.GetContinue(); options.Continue == "" {
			return objectCount(n), nil
		}
	}
}

// pods lists the pods of Herald's namespace, by name.
func (b *bundle) pods(ctx context.Context) ([]corev1.Pod, error) {
	list, err := b.kube.CoreV1().Pods(b.own).List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, err
	}
	slices.SortFunc(list.Items, func(x, y corev1.Pod) int { return cmp.Compare(x.Name, y.Name) })
	return list.Items, nil
}

func (b *bundle) logs(ctx context.Context) error {
	pods, err := b.pods(ctx)
	if err != nil {
		b.index.Miss("logs", err)
	}
	for i := range pods {
		p := &pods[i]
		for _, s := range slices.Concat(p.Status.InitContainerStatuses, p.Status.ContainerStatuses) {
			path := "logs/" + p.Name + "/" + s.Name
			if err := b.file(path+".log", b.log(ctx, p.Name, s.Name, false)); err != nil {
				return err
			}
			if s.RestartCount == 0 {
				continue
			}
			if err := b.file(path+".previous.log", b.log(ctx, p.Name, s.Name, true)); err != nil {
				return err
			}
		}
		if len(p.Status.ContainerStatuses) == 0 {
			b.index.Miss("logs/"+p.Name, errors.New("no container of the pod has been started"))
		}
	}
	return nil
}

// log reads the end of a container's log.
func (b *bundle) log(ctx context.Context, pod, container string, previous bool) func(io.Writer) (string, error) {
	return func(w io.Writer) (string, error) {
		lines := int64(maxLogLines) // LimitBytes would leave out the latest lines.
		stream, err := b.kube.CoreV1().Pods(b.own).GetLogs(pod, &corev1.PodLogOptions{
			Container: container, Previous: previous, Timestamps: true, TailLines: &lines,
		}).Stream(ctx)
		if err != nil {
			return "", err
		}
		defer stream.Close()
		end := &ending{most: maxLog}
		if _, err := redactLines(end, stream, math.MaxInt64); err != nil {
			return "", err
		}
		return end.writeTo(w)
	}
}

// ending keeps the last of the lines that are written to it.
type ending struct {
	most int // bytes
	kept bytes.Buffer
	cut  bool
}

// Write takes whole lines.
func (e *ending) Write(line []byte) (int, error) {
	n, err := e.kept.Write(line)
	if e.kept.Len() > 2*e.most {
		e.trim()
	}
	return n, err
}

func (e *ending) trim() {
	if over := e.kept.Len() - e.most; over > 0 {
		e.kept.Next(over - 1) // All but the byte before the rest, which may end a line.
		_, _ = e.kept.ReadBytes('\n')
		e.cut = true
	}
}

func (e *ending) writeTo(w io.Writer) (note string, err error) {
	e.trim()
	if e.cut {
		note = fmt.Sprintf("the last %d bytes", e.most)
	}
	_, err = e.kept.WriteTo(w)
	return note, err
}

const (
	keyBegins, keyEnds = "-----BEGIN", "-----END"
	// maxKeyLines limits a private key whose end is missing.
	maxKeyLines = 200
	// maxMarker is more than the length of "-----BEGIN ENCRYPTED PRIVATE KEY-----" and the like.
	maxMarker = 64
)

// redactLine redacts a line. If key is not 0, the line is part of a private key. redactLine returns how many of the next
// lines may be part of one.
func redactLine(line string, key int) (string, int) {
	switch begins := strings.LastIndex(line, keyBegins); {
	case begins >= 0 && strings.Contains(line[begins:], "PRIVATE KEY") && !strings.Contains(line[begins:], keyEnds):
		key = maxKeyLines
		if before := line[:begins]; !strings.Contains(before, keyEnds) {
			return report.RedactText(before) + "REDACTED", key
		}
		return "REDACTED", key
	case key == 0:
		return report.RedactText(line), 0
	case strings.Contains(line, keyEnds):
		return "REDACTED", 0
	default:
		return "REDACTED", key - 1
	}
}

// redactLines copies a text line by line, without credentials. It cuts lines that are too long.
func redactLines(w io.Writer, from io.Reader, most int64) (note string, err error) {
	limited := &io.LimitedReader{R: from, N: most}
	in := bufio.NewReaderSize(limited, maxLine)
	key := 0 // how many of the next lines may be part of a private key
	for {
		line, err := in.ReadSlice('\n')
		if len(line) > 0 {
			cut := errors.Is(err, bufio.ErrBufferFull)
			text, of := redactLine(strings.TrimSuffix(string(line), "\n"), key)
			key = of
			// A private key may begin or end in the part of the line that is cut.
			end := string(line[max(0, len(line)-maxMarker):])
			for errors.Is(err, bufio.ErrBufferFull) {
				line, err = in.ReadSlice('\n')
				end += string(line)
				if strings.Contains(end, keyBegins) || strings.Contains(end, keyEnds) {
					_, key = redactLine(strings.TrimSuffix(end, "\n"), key)
				}
				end = end[max(0, len(end)-maxMarker):]
			}
			if cut {
				text += " (cut)"
			}
			if _, failed := io.WriteString(w, text+"\n"); failed != nil {
				return "", failed
			}
		}
		if errors.Is(err, io.EOF) {
			if limited.N == 0 {
				note = fmt.Sprintf("cut at %d bytes", most)
			}
			return note, nil
		}
		if err != nil {
			return "", err
		}
	}
}

// metrics reads the metrics of herald-ccm through the API server, and those of the speakers as kubectl herald verify does.
func (b *bundle) metrics(ctx context.Context) error {
	pods, err := b.pods(ctx)
	if err != nil {
		b.index.Miss("metrics/herald-ccm", err)
	}
	for _, p := range pods {
		if p.Labels["app.kubernetes.io/name"] != "herald-ccm" {
			continue
		}
		if err := b.file("metrics/herald-ccm/"+p.Name+".txt", func(w io.Writer) (string, error) {
			stream, err := b.kube.CoreV1().Pods(b.own).ProxyGet("https", p.Name, ccmPort, "/metrics", nil).Stream(ctx)
			if apierrors.IsUnauthorized(err) || apierrors.IsForbidden(err) {
				return "not read: herald-ccm requires a token, and the API server passes none on: see the metrics in Prometheus", nil
			}
			if err != nil {
				return "", err
			}
			defer stream.Close()
			return redactLines(w, stream, maxMetrics)
		}); err != nil {
			return err
		}
	}
	o, err := b.readAll(ctx, "speakerstatuses.herald.dev", "nodes")
	if err != nil {
		b.index.Miss("metrics/herald-speaker", err)
		return nil
	}
	all, unasked, err := report.NewNetwork(o).Askable(nil)
	if err != nil {
		b.index.Miss("metrics/herald-speaker", err)
		return nil
	}
	for _, u := range unasked {
		b.index.Miss("metrics/herald-speaker/"+u.Node+".txt", errors.New(u.Reason))
	}
	for _, s := range all {
		if err := b.file("metrics/herald-speaker/"+s.Node+".txt", func(w io.Writer) (note string, err error) {
			if err := b.renewToken(ctx); err != nil {
				return "", err
			}
			err = b.speaker(s).Open(ctx, http.MethodGet, "/metrics", nil, func(body io.Reader) error {
				note, err = redactLines(w, body, maxMetrics)
				return err
			})
			return note, err
		}); err != nil {
			return err
		}
	}
	return nil
}

// reports writes the reports of status and preflight.
func (b *bundle) reports(ctx context.Context) error {
	say := func(path string, text func() (func(report.Style) string, error)) error {
		return b.file(path, func(w io.Writer) (string, error) {
			written, err := text()
			if err != nil {
				return "", err
			}
			_, err = io.WriteString(w, report.RedactText(written(report.StyleOf(w))))
			return "", err
		})
	}
	err := say("status.txt", func() (func(report.Style) string, error) {
		o, err := b.network(ctx, b.own)
		if err != nil {
			return nil, err
		}
		at := time.Now() // The Leases were renewed while the bundle was written.
		r := report.Status(o, b.ccm.get(), at)
		return func(s report.Style) string { return r.Text(s, true, at) }, nil
	})
	if err != nil {
		return err
	}
	return say("preflight.txt", func() (func(report.Style) string, error) {
		in, err := b.surroundings(ctx, b.own)
		if err != nil {
			return nil, err
		}
		r, err := report.Preflight(in, b.ccm.get(), time.Now())
		if err != nil {
			return nil, err
		}
		return r.Text, nil
	})
}

func objectCount(n int) string {
	if n == 1 {
		return "1 object"
	}
	return fmt.Sprintf("%d objects", n)
}
