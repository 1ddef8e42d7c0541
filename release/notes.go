package main

import (
	"fmt"
	"strings"
)

// notesOf returns the section of the changelog about a version, without the heading.
func notesOf(changelog, number string) (string, error) {
	const level = "\n## "
	heading := level + "[" + number + "] - "
	_, section, found := strings.Cut("\n"+changelog, heading)
	if !found {
		return "", fmt.Errorf("CHANGELOG.md has no section %q: write it there, out of what is under \"## [Unreleased]\", and commit that", strings.TrimPrefix(heading, "\n")+"YYYY-MM-DD")
	}
	section, _, _ = strings.Cut(section, level)
	_, notes, _ := strings.Cut(section, "\n") // Without the date.
	if notes = strings.TrimSpace(notes); notes == "" {
		return "", fmt.Errorf("CHANGELOG.md has nothing in the section of %s: write there what changes for users", number)
	}
	return notes + "\n", nil
}
