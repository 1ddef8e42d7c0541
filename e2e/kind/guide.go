package kind

import (
	"fmt"
	"strings"
)

// Overlay is the folder of the kustomization that Install applies: manifests/base with the component dead-nodes.
const Overlay = "e2e/kind/herald"

const (
	controlPlane = name + "-control-plane" // The node and its container have the same name.

	// app is the image of the web server in e2e/app, and appPort is the port on which it listens.
	app     = "test/app:latest"
	appPort = 8080

	// free are addresses of the segment that neither docker nor a node uses.
	free = "198.18.0.200-198.18.0.250"
)

// containerOf returns the name in docker and kind of a worker; 0 is the first one.
func containerOf(worker int) string {
	if worker == 0 {
		return name + "-worker"
	}
	return fmt.Sprintf("%s-worker%d", name, worker+1)
}

// Guide says what a developer needs to know to work with a cluster.
func Guide() string {
	var nodes []string
	for i, w := range workers {
		nodes = append(nodes, fmt.Sprintf("%s (%s)", w, containerOf(i)))
	}
	return fmt.Sprintf(`Herald is what kubectl apply -k %s installs: manifests/base with the component dead-nodes.
Nodes, with the names of their containers in docker: %s, %s.
An image for pods: %s, a web server on port %d. There is no registry: kind load docker-image --name %s IMAGE brings another image to the nodes.
Addresses for an IPPool: %s. There is no pool yet: CONTRIBUTING.md has the commands for one, and for a Service.
`, Overlay, controlPlane, strings.Join(nodes, ", "), app, appPort, name, free)
}
