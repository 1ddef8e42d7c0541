package kind

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// repository is the name of the node images that this package builds.
const repository = "herald-e2e/node"

// nodeImage returns the name of the node image in Docker. It builds the image if necessary.
func (c *Cluster) nodeImage(ctx context.Context) (string, error) {
	if c.options.NodeImage != "" {
		return c.loadNodeImage(ctx)
	}
	recipe := filepath.Join(c.options.Root, "e2e/kind/node")
	tag, err := fingerprint(recipe, c.cache("base"), c.cache("debian.tar"), c.binary("kubernetes"), c.binary("coredns"), c.binary("pause"))
	if err != nil {
		return "", err
	}
	image := repository + ":" + tag
	known, err := c.docker.run(ctx, nil, "images", "--format", "{{.Repository}}:{{.Tag}}", repository)
	if err != nil {
		return "", err
	}
	outdated := strings.Fields(known)
	if slices.Contains(outdated, image) {
		return image, nil
	}
	c.options.Progress("making the node image")
	if len(outdated) > 0 { // Outdated images are big.
		if _, err := c.docker.run(ctx, nil, append([]string{"image", "rm"}, outdated...)...); err != nil {
			return "", err
		}
	}
	_, err = c.docker.call(ctx, nil, filepath.Join(recipe, "build.sh"), image, c.cache(""), c.binary(""))
	return image, err
}

// loadNodeImage loads the image file in Options and returns the image's name.
func (c *Cluster) loadNodeImage(ctx context.Context) (string, error) {
	c.options.Progress("loading " + c.options.NodeImage)
	said, err := c.docker.run(ctx, nil, "load", "--input", c.options.NodeImage)
	if err != nil {
		return "", err
	}
	_, image, ok := strings.Cut(said, "Loaded image: ")
	if !ok || strings.Contains(image, "\n") {
		return "", fmt.Errorf("kind: %s is not docker save's file of one image with a name: docker load said %q", c.options.NodeImage, said)
	}
	return image, nil
}

// fingerprint returns a hash of the contents of files and folders.
func fingerprint(paths ...string) (string, error) {
	sum := sha256.New()
	for _, root := range paths {
		err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			info, err := d.Info()
			if err != nil {
				return err
			}
			f, err := os.Open(path)
			if err != nil {
				return err
			}
			defer f.Close()
			relative, err := filepath.Rel(root, path)
			if err != nil {
				return err
			}
			fmt.Fprintf(sum, "%s %v %d\n", relative, info.Mode(), info.Size())
			_, err = io.Copy(sum, f)
			return err
		})
		if err != nil {
			return "", err
		}
	}
	return hex.EncodeToString(sum.Sum(nil))[:12], nil
}
