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
func cut(text string) string {
	if len(text) > maxQuoted {
		end := maxQuoted - len("...")
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
