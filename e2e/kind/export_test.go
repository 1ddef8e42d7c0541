package kind

// ControlGroups returns the folders of the cluster's control groups that exist.
func (c *Cluster) ControlGroups() ([]string, error) { return c.docker.cgroup.folders() }
