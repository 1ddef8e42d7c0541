package main

import (
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"sigs.k8s.io/yaml"
)

// pluginPlatforms are the platforms of administrators.
var pluginPlatforms = []platform{
	{os: "linux", arch: "amd64"}, {os: "linux", arch: "arm64"}, {os: "darwin", arch: "amd64"}, {os: "darwin", arch: "arm64"},
	{os: "windows", arch: "amd64"},
}

// pluginProgram returns the file name that the go command gives the plugin.
func (p platform) pluginProgram() string {
	if p.os == "windows" {
		return plugin + ".exe"
	}
	return plugin
}

// archiveOf packs the plugin in the usual format of the platform, and returns the file extension of the archive.
func (p platform) archiveOf(files []file, at time.Time) (archive []byte, ending string, err error) {
	if p.os == "windows" {
		archive, err = zipOf(files, at)
		return archive, ".zip", err
	}
	if archive, err = tarOf(files, at); err == nil {
		archive, err = gzipOf(archive)
	}
	return archive, ".tar.gz", err
}

// writePlugin writes an archive of kubectl-herald for each platform, and the manifest with which krew installs it.
func (r *release) writePlugin(programs string) error {
	license, err := os.ReadFile("LICENSE")
	if err != nil {
		return err
	}
	var archives []krewPlatform
	for _, p := range pluginPlatforms {
		program, err := os.ReadFile(filepath.Join(p.directory(programs), p.pluginProgram()))
		if err != nil {
			return err
		}
		archive, ending, err := p.archiveOf([]file{{p.pluginProgram(), program, 0o755}, {"LICENSE", license, 0o644}}, r.time)
		if err != nil {
			return err
		}
		asset := plugin + "_" + r.version + "_" + p.os + "_" + p.arch + ending
		if err := r.writeFile(asset, archive); err != nil {
			return err
		}
		archives = append(archives, r.krewPlatform(p, asset, archive))
	}
	manifest, err := yaml.Marshal(r.krewPlugin(archives))
	if err != nil {
		return err
	}
	return r.writeFile("krew.yaml", manifest)
}

// The types of krew's plugin manifest: https://krew.sigs.k8s.io/docs/developer-guide/plugin-manifest/.
type (
	krewPlugin struct {
		APIVersion string `json:"apiVersion"`
		Kind       string `json:"kind"`
		Metadata   struct {
			Name string `json:"name"`
		} `json:"metadata"`
		Spec krewSpec `json:"spec"`
	}
	krewSpec struct {
		Version          string         `json:"version"`
		Homepage         string         `json:"homepage"`
		ShortDescription string         `json:"shortDescription"`
		Description      string         `json:"description"`
		Platforms        []krewPlatform `json:"platforms"`
	}
	krewPlatform struct {
		Selector struct {
			MatchLabels map[string]string `json:"matchLabels"`
		} `json:"selector"`
		URI    string `json:"uri"`
		SHA256 string `json:"sha256"`
		Bin    string `json:"bin"`
	}
)

func (r *release) krewPlatform(p platform, asset string, archive []byte) krewPlatform {
	k := krewPlatform{
		URI:    source + "/releases/download/" + r.version + "/" + asset,
		SHA256: fmt.Sprintf("%x", sha256.Sum256(archive)),
		Bin:    p.pluginProgram(),
	}
	k.Selector.MatchLabels = map[string]string{"os": p.os, "arch": p.arch}
	return k
}

func (r *release) krewPlugin(archives []krewPlatform) krewPlugin {
	k := krewPlugin{APIVersion: "krew.googlecontainertools.github.com/v1alpha2", Kind: "Plugin", Spec: krewSpec{
		Version:          r.version,
		Homepage:         source,
		ShortDescription: "Show what the load balancer Herald does",
		Description: `Says why a Service of type LoadBalancer has its address or none, which nodes
announce it, what the routers are told, and what a change of address pools
would do. Herald has to run in the cluster.
`,
		Platforms: archives,
	}}
	k.Metadata.Name = "herald"
	return k
}
