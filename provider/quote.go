package provider

import (
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// maxQuoted is the most bytes of a user's text that a message repeats.
const maxQuoted = 64

// cut returns a user's text as a message may repeat it: short, and without control characters.
func cut(text string) string { return cutAt(text, maxQuoted) }

// cutAt is cut for a text that may have up to most bytes.
func cutAt(text string, most int) string {
	if len(text) > most {
		end := most - len("...")
		for end > 0 && !utf8.RuneStart(text[end]) {
			end--
		}
		text = text[:end] + "..."
	}
	return strings.Map(func(r rune) rune {
		if r == utf8.RuneError || !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, text)
}

// quote returns a user's text, cut and in quotation marks.
func quote(text string) string { return strconv.Quote(cut(text)) }
