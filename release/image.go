package main

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"
)

// imagePrograms are the programs in cmd/ that the Dockerfile copies into the image.
var imagePrograms = []string{"herald-ccm", "herald-speaker"}

// imagePlatforms are the platforms of nodes.
var imagePlatforms = []platform{{os: "linux", arch: "amd64"}, {os: "linux", arch: "arm64"}, {os: "linux", arch: "arm", arm: "7"}}

// writeImage writes the image for all platforms as an archive of an OCI image layout, which crane, skopeo and containerd
// read.
func (r *release) writeImage(programs string) error {
	dockerfile, err := os.ReadFile("Dockerfile")
	if err != nil {
		return err
	}
	stage, err := lastStage(string(dockerfile))
	if err != nil {
		return fmt.Errorf("in the Dockerfile: %w", err)
	}
	stage.config.Labels["org.opencontainers.image.version"] = r.version
	l := layout{}
	var images []descriptor
	for _, p := range imagePlatforms {
		files := directories(stage.to)
		for _, name := range stage.programs {
			content, err := os.ReadFile(filepath.Join(p.directory(programs), name))
			if err != nil {
				return err
			}
			files = append(files, file{path.Join(stage.to, name), content, 0o755})
		}
		image, err := l.addImage(p, stage.config, files, r.time)
		if err != nil {
			return err
		}
		images = append(images, image)
	}
	archive, err := l.archive(images, r.image(), r.time)
	if err != nil {
		return err
	}
	return r.writeFile("herald-image_"+r.version+".tar", archive)
}

// stage is the last stage of the Dockerfile: the programs that it copies, and how they run.
type stage struct {
	programs []string
	to       string // Directory, without the leading slash.
	config   runConfig
}

var label = regexp.MustCompile(`(\S+)="([^"]*)"`)

// lastStage reads the instructions of Herald's Dockerfile that come after FROM scratch.
func lastStage(dockerfile string) (stage, error) {
	s := stage{config: runConfig{Labels: map[string]string{}}}
	_, text, found := strings.Cut(dockerfile, "\nFROM scratch\n")
	if !found {
		return s, fmt.Errorf("no stage is FROM scratch: a release has no base image")
	}
	for line := range strings.Lines(strings.ReplaceAll(text, "\\\n", " ")) {
		instruction, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
		words := strings.Fields(rest)
		switch {
		case instruction == "" || strings.HasPrefix(instruction, "#"):
		case instruction == "LABEL":
			for _, l := range label.FindAllStringSubmatch(rest, -1) {
				s.config.Labels[l[1]] = l[2]
			}
		case instruction == "ENV" && len(words) == 1:
			s.config.Env = append(s.config.Env, rest)
		case instruction == "USER" && len(words) == 1:
			s.config.User = rest
		case instruction == "COPY" && len(words) > 2 && words[0] == "--from=build":
			for _, program := range words[1 : len(words)-1] {
				s.programs = append(s.programs, path.Base(program))
			}
			s.to = strings.Trim(words[len(words)-1], "/")
		default:
			return s, fmt.Errorf("release/image.go does not know what a release does with %q: teach it", strings.TrimSpace(line))
		}
	}
	if s.programs == nil {
		return s, fmt.Errorf("the stage FROM scratch copies no programs")
	}
	return s, nil
}

// directories returns a directory and its parents, outermost first.
func directories(dir string) []file {
	if dir == "." {
		return nil
	}
	return append(directories(path.Dir(dir)), file{name: dir + "/", mode: 0o755})
}

// The parts of the OCI image specification 1.1 that a release uses:
// https://github.com/opencontainers/image-spec/tree/v1.1.1.
type (
	descriptor struct {
		MediaType   string            `json:"mediaType"`
		Digest      string            `json:"digest"`
		Size        int               `json:"size"`
		Platform    *imagePlatform    `json:"platform,omitempty"`
		Annotations map[string]string `json:"annotations,omitempty"`
	}
	index struct {
		SchemaVersion int          `json:"schemaVersion"`
		MediaType     string       `json:"mediaType"`
		Manifests     []descriptor `json:"manifests"`
	}
	manifest struct {
		SchemaVersion int          `json:"schemaVersion"`
		MediaType     string       `json:"mediaType"`
		Config        descriptor   `json:"config"`
		Layers        []descriptor `json:"layers"`
	}
	imageConfig struct {
		Created time.Time `json:"created"`
		imagePlatform
		Config  runConfig `json:"config"`
		RootFS  rootFS    `json:"rootfs"`
		History []history `json:"history"`
	}
	imagePlatform struct {
		Architecture string `json:"architecture"`
		OS           string `json:"os"`
		Variant      string `json:"variant,omitempty"`
	}
	runConfig struct {
		User   string            `json:"User,omitempty"`
		Env    []string          `json:"Env,omitempty"`
		Labels map[string]string `json:"Labels,omitempty"`
	}
	rootFS struct {
		Type    string   `json:"type"`
		DiffIDs []string `json:"diff_ids"`
	}
	history struct {
		Created   time.Time `json:"created"`
		CreatedBy string    `json:"created_by"`
	}
)

const (
	indexType    = "application/vnd.oci.image.index.v1+json"
	manifestType = "application/vnd.oci.image.manifest.v1+json"
	configType   = "application/vnd.oci.image.config.v1+json"
	layerType    = "application/vnd.oci.image.layer.v1.tar+gzip"
)

// layout maps digests to the blobs of images.
type layout map[string][]byte

func digest(content []byte) string { return fmt.Sprintf("sha256:%x", sha256.Sum256(content)) }

func (l layout) add(mediaType string, content []byte) descriptor {
	d := digest(content)
	l[d] = content
	return descriptor{MediaType: mediaType, Digest: d, Size: len(content)}
}

func (l layout) addJSON(mediaType string, content any) (descriptor, error) {
	encoded, err := json.Marshal(content)
	if err != nil {
		return descriptor{}, err
	}
	return l.add(mediaType, encoded), nil
}

// addImage adds an image of one layer for one platform.
func (l layout) addImage(p platform, run runConfig, files []file, at time.Time) (descriptor, error) {
	layer, err := tarOf(files, at)
	if err != nil {
		return descriptor{}, err
	}
	compressed, err := gzipOf(layer)
	if err != nil {
		return descriptor{}, err
	}
	on := imagePlatform{Architecture: p.arch, OS: p.os}
	if p.arm != "" {
		on.Variant = "v" + p.arm
	}
	config, err := l.addJSON(configType, imageConfig{
		Created: at, imagePlatform: on, Config: run,
		RootFS:  rootFS{Type: "layers", DiffIDs: []string{digest(layer)}},
		History: []history{{Created: at, CreatedBy: "make release"}},
	})
	if err != nil {
		return descriptor{}, err
	}
	image, err := l.addJSON(manifestType, manifest{
		SchemaVersion: 2, MediaType: manifestType,
		Config: config, Layers: []descriptor{l.add(layerType, compressed)},
	})
	image.Platform = &on
	return image, err
}

// archive returns the layout as a tar archive, with the images under one name.
func (l layout) archive(images []descriptor, name string, at time.Time) ([]byte, error) {
	all, err := l.addJSON(indexType, index{SchemaVersion: 2, MediaType: indexType, Manifests: images})
	if err != nil {
		return nil, err
	}
	// The tag, as the specification requires, and the name under which containerd imports the image.
	all.Annotations = map[string]string{"org.opencontainers.image.ref.name": name[strings.LastIndex(name, ":")+1:], "io.containerd.image.name": name}
	top, err := json.Marshal(index{SchemaVersion: 2, MediaType: indexType, Manifests: []descriptor{all}})
	if err != nil {
		return nil, err
	}
	files := []file{{"oci-layout", []byte(`{"imageLayoutVersion":"1.0.0"}`), 0o644}, {"index.json", top, 0o644}}
	files = append(files, directories("blobs/sha256")...)
	for _, d := range slices.Sorted(maps.Keys(l)) {
		files = append(files, file{"blobs/" + strings.Replace(d, ":", "/", 1), l[d], 0o644})
	}
	return tarOf(files, at)
}
