package provider

import (
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// maxQuoted is the most bytes of what a user wrote that a message repeats.
const maxQuoted = 64

// cut returns what a user wrote as a message may repeat it: short, and without control characters.
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

// quote returns what a user wrote in quotation marks, cut.
func quote(text string) string { return strconv.Quote(cut(text)) }
