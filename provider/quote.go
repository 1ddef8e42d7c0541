package provider

import (
	"strconv"
	"unicode/utf8"
)

// maxQuoted is the most bytes of what a user wrote that a message repeats.
const maxQuoted = 64

// quote returns what a user wrote for a message: at most maxQuoted bytes of it, in quotation marks and without control
// characters.
func quote(text string) string {
	if len(text) <= maxQuoted {
		return strconv.Quote(text)
	}
	text = text[:maxQuoted]
	for !utf8.ValidString(text) && len(text) > maxQuoted-utf8.UTFMax {
		text = text[:len(text)-1] // It ends within a character.
	}
	return strconv.Quote(text) + "..."
}
