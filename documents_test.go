package herald_test

import (
	"bytes"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"golang.org/x/net/html"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"

	herald "github.com/heraldlb/herald/api/v1alpha1"
)

// document is a Markdown file of this repository.
type document struct {
	file string
	// lines are the lines of the document. Those of code blocks are empty.
	lines []string
	// blocks are the code blocks by the line at which they begin.
	blocks map[int]string
}

func documents(t *testing.T) []document {
	t.Helper()
	files := []string{"README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md", "SUPPORT.md"}
	err := filepath.WalkDir("docs", func(path string, _ fs.DirEntry, err error) error {
		if filepath.Ext(path) == ".md" {
			files = append(files, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	var all []document
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, readDocument(f, string(text)))
	}
	return all
}

var inlineCode = regexp.MustCompile("``[^\n]*?``|`[^`\n]*`")

func readDocument(file, text string) document {
	d := document{file: file, blocks: map[int]string{}}
	begin := 0
	for n, line := range strings.Split(text, "\n") {
		switch fence := strings.HasPrefix(line, "```"); {
		case fence && begin == 0:
			begin = n + 1
			d.blocks[begin] = ""
			line = ""
		case fence:
			begin = 0
			line = ""
		case begin != 0:
			d.blocks[begin] += line + "\n"
			line = ""
		}
		d.lines = append(d.lines, line)
	}
	return d
}

var (
	heading = regexp.MustCompile(`^#{1,6} +(.*?) *$`)
	link    = regexp.MustCompile(`\]\(([^)\s]+)(?: "[^"]*")?\)`)
	// GitHub makes the anchor of a heading from its text without Markdown, in lower case. It drops every character that
	// is not a letter, a digit, an underscore, a hyphen or a blank, and replaces blanks by hyphens.
	linked  = regexp.MustCompile(`\[([^\]]*)\]\([^)]*\)`)
	dropped = regexp.MustCompile(`[^\p{L}\p{N}_ -]`)
)

// anchors returns the anchors of the document's headings.
func (d document) anchors() []string {
	var all []string
	for _, line := range d.lines {
		m := heading.FindStringSubmatch(line)
		if m == nil {
			continue
		}
		name := strings.ReplaceAll(dropped.ReplaceAllString(strings.ToLower(linked.ReplaceAllString(m[1], "$1")), ""), " ", "-")
		unique := name
		for n := 1; slices.Contains(all, unique); n++ {
			unique = fmt.Sprintf("%s-%d", name, n)
		}
		all = append(all, unique)
	}
	return all
}

// broken returns the errors in the links of documents. The function there reports whether a file or directory exists.
func broken(all []document, there func(string) bool) []string {
	anchors := map[string][]string{}
	for _, d := range all {
		anchors[d.file] = d.anchors()
	}
	var wrong []string
	for _, d := range all {
		for n, line := range d.lines {
			for _, m := range link.FindAllStringSubmatch(inlineCode.ReplaceAllString(line, ""), -1) {
				to, err := url.Parse(m[1])
				say := func(format string, args ...any) {
					wrong = append(wrong, fmt.Sprintf("%s:%d: link %s: %s", d.file, n+1, m[1], fmt.Sprintf(format, args...)))
				}
				switch {
				case err != nil:
					say("%v", err)
					continue
				case to.Scheme != "" || to.Host != "":
					continue
				case strings.HasPrefix(to.Path, "/"):
					say("write it relative to %s", d.file)
					continue
				}
				file := d.file
				if to.Path != "" {
					file = filepath.Join(filepath.Dir(d.file), to.Path)
				}
				if !there(file) {
					say("there is no %s", file)
				} else if to.Fragment != "" && !slices.Contains(anchors[file], to.Fragment) {
					say("%s has no heading with the anchor %s, but %s", file, to.Fragment, strings.Join(anchors[file], ", "))
				}
			}
		}
	}
	return wrong
}

func TestLinks(t *testing.T) {
	for _, w := range broken(documents(t), func(file string) bool { _, err := os.Stat(file); return err == nil }) {
		t.Error(w)
	}
}

// TestLinksAreChecked checks that broken finds each kind of broken link, and nothing else.
func TestLinksAreChecked(t *testing.T) {
	a := readDocument("docs/a.md", strings.Join([]string{
		"# What's `on`: a [link](b.md)", "## Twice", "## Twice", "[1](#whats-on-a-link) [2](#twice-1) [3](../README.md) [4](https://example.com/x#y)",
		"`[code](gone.md)`", "```", "[block](gone.md)", "```", "[5](#twice-2)", "[6](gone.md)", "[7](../README.md#nothing)", "[8](/docs/a.md)",
	}, "\n"))
	files := []string{"README.md", "docs/a.md", "docs/b.md"}
	got := broken([]document{a, readDocument("README.md", "# Top\n[a](docs/a.md#twice)")}, func(file string) bool { return slices.Contains(files, file) })
	want := []string{"docs/a.md:9: link #twice-2: ", "docs/a.md:10: link gone.md: there is no docs/gone.md", "docs/a.md:11: link ../README.md#nothing: ", "docs/a.md:12: link /docs/a.md: write it"}
	if !slices.EqualFunc(got, want, strings.HasPrefix) {
		t.Errorf("found %q,\nwant %q", got, want)
	}
}

var (
	ours     = regexp.MustCompile(`(?m)^apiVersion: *herald\.dev/`)
	apply    = regexp.MustCompile(`(?m)^apiVersion: `)
	hereText = regexp.MustCompile(`(?ms)<<'?EOF'?\n(.*?)^EOF$`)
	variable = regexp.MustCompile(`\$[A-Z]+`)
)

// TestDocumentedObjects decodes every Herald object in the documents, as strictly as the API server does with
// --validate=strict. TestDocumentedRouters checks that an API server admits them.
func TestDocumentedObjects(t *testing.T) {
	scheme := runtime.NewScheme()
	if err := herald.AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	decoder := serializer.NewCodecFactory(scheme, serializer.EnableStrict).UniversalDeserializer()
	found := 0
	for _, d := range documents(t) {
		for n, block := range d.blocks {
			if m := hereText.FindStringSubmatch(block); m != nil {
				block = variable.ReplaceAllString(m[1], "198.18.0.200")
			}
			if !apply.MatchString(block) {
				continue
			}
			for object := range strings.SplitSeq("\n"+block, "\n---\n") {
				if !ours.MatchString(object) {
					continue
				}
				found++
				if _, _, err := decoder.Decode([]byte(object), nil, nil); err != nil {
					t.Errorf("%s:%d: %v", d.file, n, err)
				}
			}
		}
	}
	if found == 0 {
		t.Error("no document has an object of Herald's")
	}
}

// TestSite checks the links within the site that make docs builds. HERALD_SITE is the site's directory.
func TestSite(t *testing.T) {
	site := os.Getenv("HERALD_SITE")
	if site == "" {
		t.Skip("make docs builds the site and has it checked")
	}
	ids, links := map[string][]string{}, map[string][]string{}
	err := filepath.WalkDir(site, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		ids[path] = nil
		if filepath.Ext(path) != ".html" {
			return nil
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		page, err := html.Parse(bytes.NewReader(text))
		if err != nil {
			return err
		}
		for n := range page.Descendants() {
			for _, a := range n.Attr {
				switch {
				case a.Key == "id":
					ids[path] = append(ids[path], a.Val)
				case n.Data == "a" && a.Key == "href":
					links[path] = append(links[path], a.Val)
				case n.Data == "script" || a.Key == "src" || a.Key == "href":
					// Resources of a page must come from the site.
					if u, err := url.Parse(a.Val); n.Data == "script" || err != nil || u.Scheme != "" && u.Scheme != "data" || u.Host != "" {
						t.Errorf("%s: <%s %s=%q>: the site has no scripts, and takes nothing from elsewhere", path, n.Data, a.Key, a.Val)
					}
					links[path] = append(links[path], a.Val)
				}
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	checked := 0
	for path, all := range links {
		for _, l := range all {
			u, err := url.Parse(l)
			if err != nil {
				t.Errorf("%s: link %s: %v", path, l, err)
				continue
			}
			if u.Scheme != "" {
				continue
			}
			checked++
			file := path
			if u.Path != "" {
				file = filepath.Join(filepath.Dir(path), u.Path)
			}
			if has, ok := ids[file]; !ok {
				t.Errorf("%s: link %s: there is no %s", path, l, file)
			} else if u.Fragment != "" && !slices.Contains(has, u.Fragment) {
				t.Errorf("%s: link %s: %s has no element with the id %s", path, l, file, u.Fragment)
			}
		}
	}
	if checked == 0 {
		t.Errorf("%s has no links: it is not the site", site)
	}
}
