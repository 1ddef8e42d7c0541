package kind

// ControlGroups are those that are there of the cluster's own.
func (c *Cluster) ControlGroups() ([]string, error) { return c.docker.cgroup.folders() }
