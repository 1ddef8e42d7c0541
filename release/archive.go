package main

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// file is a file or directory in an archive. A directory's name ends in a slash.
type file struct {
	name    string
	content []byte
	mode    int64
}

// tarOf returns a tar archive of files that belong to root and have the same time.
func tarOf(files []file, at time.Time) ([]byte, error) {
	var archive bytes.Buffer
	w := tar.NewWriter(&archive)
	for _, f := range files {
		// The name tells whether it is a file or a directory.
		if err := w.WriteHeader(&tar.Header{Name: f.name, Size: int64(len(f.content)), Mode: f.mode, ModTime: at, Format: tar.FormatUSTAR}); err != nil {
			return nil, err
		}
		if _, err := w.Write(f.content); err != nil {
			return nil, err
		}
	}
	err := w.Close()
	return archive.Bytes(), err
}

func gzipOf(content []byte) ([]byte, error) {
	var compressed bytes.Buffer
	w := gzip.NewWriter(&compressed)
	if _, err := w.Write(content); err != nil {
		return nil, err
	}
	err := w.Close()
	return compressed.Bytes(), err
}

// zipOf returns a zip archive of files that have the same time.
func zipOf(files []file, at time.Time) ([]byte, error) {
	var archive bytes.Buffer
	w := zip.NewWriter(&archive)
	for _, f := range files {
		header := &zip.FileHeader{Name: f.name, Method: zip.Deflate, Modified: at}
		header.SetMode(fs.FileMode(f.mode))
		content, err := w.CreateHeader(header)
		if err != nil {
			return nil, err
		}
		if _, err := content.Write(f.content); err != nil {
			return nil, err
		}
	}
	err := w.Close()
	return archive.Bytes(), err
}

// checksums returns the checksums of the files in a directory, in the format of `sha256sum --check`.
func checksums(dir string) ([]byte, error) {
	entries, err := os.ReadDir(dir) // Sorted by name.
	if err != nil {
		return nil, err
	}
	var sums bytes.Buffer
	for _, e := range entries {
		content, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			return nil, err
		}
		fmt.Fprintf(&sums, "%x  %s\n", sha256.Sum256(content), e.Name())
	}
	return sums.Bytes(), nil
}

// setTimes sets the times of all files in a directory.
func setTimes(dir string, at time.Time) error {
	return filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Chtimes(path, at, at)
	})
}
