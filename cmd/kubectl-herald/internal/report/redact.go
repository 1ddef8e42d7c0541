package report

import (
	"regexp"
	"slices"
	"strings"
)

// redacted replaces values that may be credentials.
const redacted = "REDACTED"

var (
	// credential matches names of credentials. reference matches names that only refer to one.
	credential = regexp.MustCompile(`(?i)(passw|passphrase|pwd|psk|md5|secret|token|credential|authorization|cookie|bearer|signature|(api|access|private)[-_.]?key)|pass([^a-z]|$)|(^|[-_./])(auth|pw|sig)([-_./]|$)|[-_.]key([-_./]|$)`)
	reference  = regexp.MustCompile(`(^|\.)(secretName|passwordSecret)$`)
	// shapes are the formats by which credentials can be recognized.
	shapes = []struct {
		pattern *regexp.Regexp
		by      string
	}{
		{regexp.MustCompile(`-----BEGIN [A-Z ]*PRIVATE KEY[A-Z ]*-----[\s\S]*?(-----END [A-Z ]*PRIVATE KEY[A-Z ]*-----|$)`), redacted},
		{regexp.MustCompile(`\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]+\.?[A-Za-z0-9_-]*`), redacted}, // A JSON Web Token (RFC 7519).
		{regexp.MustCompile(`\b(gh[a-z]_\w{16,}|github_pat_\w+|glpat-[\w-]+|A[KS]IA[A-Z0-9]{16}|xox[a-z]-[\w-]+)`), redacted},
		{regexp.MustCompile(`\b[a-z0-9]{6}\.[a-z0-9]{16}\b`), redacted}, // A bootstrap token of Kubernetes.
		{regexp.MustCompile(`(?i)\b(bearer|basic)\s+[A-Za-z0-9._~+/=-]{6,}`), "$1 " + redacted},
		{regexp.MustCompile(`://[^\s"']*@`), "://" + redacted + "@"},
		{regexp.MustCompile(`\S+:\S+@(tcp|unix)\(`), redacted + "@$1("}, // A data source name of MySQL.
	}
	// name matches a name and the characters between the name and its value.
	name = regexp.MustCompile(`([\w./-]+)\\*["')\]]*([\s,=:>]+)`)
)

// RedactText replaces what looks like a credential in a text: strings in the format of a credential, and values after the
// name of a credential. A value in quotation marks ends with the closing mark, any other value at the end of the line.
func RedactText(text string) string {
	for _, s := range shapes {
		text = s.pattern.ReplaceAllString(text, s.by)
	}
	var out strings.Builder
	for {
		at := name.FindStringSubmatchIndex(text)
		if at == nil {
			out.WriteString(text)
			return out.String()
		}
		out.WriteString(text[:at[1]])
		before, between := text[at[2]:at[3]], text[at[4]:at[5]]
		text = text[at[1]:]
		// Only the value of a flag may follow after a space, or as the next element of a list.
		if named(before) && (strings.HasPrefix(before, "-") || strings.ContainsAny(between, "=:>")) && text != "" {
			out.WriteString(redacted)
			text = text[valueEnd(text):]
		}
	}
}

// valueEnd returns the end of the value at the beginning of a text.
func valueEnd(text string) int {
	escapes := len(text) - len(strings.TrimLeft(text, `\`))
	if escapes == len(text) || text[escapes] != '"' && text[escapes] != '\'' {
		if end := strings.IndexByte(text, '\n'); end >= 0 {
			return end
		}
		return len(text)
	}
	// A quotation mark with more escapes than the first, or within a word, is part of the value.
	quote, before := text[escapes], 0
	for i := escapes + 1; i < len(text); i++ {
		switch {
		case text[i] == '\\':
			before++
			continue
		case text[i] == quote && before <= escapes && (i+1 == len(text) || strings.IndexByte(" \t\r\n,;:)]}>&\\", text[i+1]) >= 0):
			return i + 1
		}
		before = 0
	}
	return len(text)
}

// named reports whether a value of this name is a credential.
func named(name string) bool { return credential.MatchString(name) && !reference.MatchString(name) }

var (
	// shown are the prefixes of annotations whose values a bundle contains: those that Herald and its reports read.
	shown = []string{"herald.dev/", "metallb.io/", "metallb.universe.tf/", "kube-vip.io/", "purelb.io/", "lbipam.cilium.io/", "io.cilium/lb-ipam-", "k3s.io/node-args"}
	// described are the fields that a bundle has of containers that are not Herald's.
	described = []string{"name", "image", "imagePullPolicy", "ports", "resources", "restartPolicy", "securityContext", "volumeMounts", "env"}
	// refers are the fields by which an object refers to a credential.
	refers = []string{"name", "namespace", "key", "path", "secretName"}
)

// Redact replaces what may be a credential in an object that was decoded from JSON: the values of environment variables and
// of annotations that no report reads, commands of containers that are not Herald's, values with the name of a credential,
// and text that looks like one. It also removes fieldsV1, which says who wrote which field.
func Redact(object map[string]any) { redactMap(object, false) }

// redactMap redacts a map. If secret is true, the map keeps only references to a credential.
func redactMap(m map[string]any, secret bool) {
	// A header, or another pair of a name and a value.
	if name, ok := m["name"].(string); ok && named(name) && m["value"] != nil {
		m["value"] = redacted
	}
	for key, value := range m {
		switch key {
		case "annotations":
			annotations, _ := value.(map[string]any)
			for name, value := range annotations {
				text, ok := value.(string)
				if annotations[name] = redacted; ok && slices.ContainsFunc(shown, func(s string) bool { return strings.HasPrefix(name, s) }) {
					annotations[name] = RedactText(text)
				}
			}
			if annotations != nil {
				continue
			}
		case "managedFields":
			each(value, func(m map[string]any) { delete(m, "fieldsV1") })
		case "containers", "initContainers", "ephemeralContainers":
			each(value, redactContainer)
		case "env":
			each(value, func(m map[string]any) {
				if m["value"] != nil {
					m["value"] = redacted
				}
			})
		}
		m[key] = redactValue(value, secret && !slices.Contains(refers, key) || named(key))
	}
}

// redactContainer removes all but the described fields of a container that is not Herald's.
func redactContainer(c map[string]any) {
	if c["name"] == "herald-ccm" || c["name"] == "herald-speaker" {
		return
	}
	for key := range c {
		if !slices.Contains(described, key) {
			delete(c, key)
		}
	}
}

// each calls do for each map in a list.
func each(list any, do func(map[string]any)) {
	l, _ := list.([]any)
	for _, item := range l {
		if m, ok := item.(map[string]any); ok {
			do(m)
		}
	}
}

// redactValue redacts a value. secret is true if the value belongs to a credential.
func redactValue(value any, secret bool) any {
	switch v := value.(type) {
	case nil, bool:
	case string:
		if !secret {
			return RedactText(v)
		}
		if v != "" {
			return redacted
		}
	case map[string]any:
		redactMap(v, secret)
	case []any:
		for i := len(v) - 1; i >= 0; i-- { // A flag is checked before it is redacted.
			flag := ""
			if i > 0 {
				flag, _ = v[i-1].(string)
			}
			v[i] = redactValue(v[i], secret || strings.HasPrefix(flag, "-") && !strings.ContainsAny(flag, "= ") && named(flag))
		}
	default:
		if secret {
			return redacted
		}
	}
	return value
}

// Index lists the content of a bundle, and what could not be read for it.
type Index struct {
	Files   []IndexedFile `json:"files"` // In the order of the archive.
	Missing []Missing     `json:"missing"`
}

// IndexedFile is a file of a bundle.
type IndexedFile struct {
	Path  string `json:"path"`
	Bytes int64  `json:"bytes"`
	Note  string `json:"note,omitempty"` // Such as how many objects it has.
}

// Missing is something that could not be read, and the reason.
type Missing struct {
	What   string `json:"what"`
	Reason string `json:"reason"`
}

// Miss notes something that could not be read.
func (x *Index) Miss(what string, err error) {
	x.Missing = append(x.Missing, Missing{what, RedactText(Clean(strings.ReplaceAll(err.Error(), "\n", "; ")))})
}

// Text says for people what the bundle lacks. Things that are missing for the same reason are listed together.
func (x *Index) Text(s Style, archive string) string {
	var l lines
	var reasons []string
	by := map[string][]string{}
	for _, m := range x.Missing {
		if !slices.Contains(reasons, m.Reason) {
			reasons = append(reasons, m.Reason)
		}
		by[m.Reason] = append(by[m.Reason], m.What)
	}
	for _, reason := range reasons {
		l.add(s.warn.Render("! "), some(by[reason]), ": ", reason)
	}
	l.add(archive, " has ", count(len(x.Files), "file", "files"), "; index.yaml lists them. Look through it before you pass it on: no Secret was read, but logs may contain credentials.")
	return l.String()
}
