// SPDX-License-Identifier: GPL-3.0-or-later

package main

import (
	"fmt"
	"strconv"
)

// settings are what the Deployment says in environment variables.
type settings struct {
	provisionerName string
	server          string
	share           string
	kubeconfig      string
	leaderElection  bool
}

func settingsFrom(getenv func(string) string) (settings, error) {
	read := settings{
		provisionerName: getenv("PROVISIONER_NAME"),
		server:          getenv("NFS_SERVER"),
		share:           getenv("NFS_PATH"),
		kubeconfig:      getenv("KUBECONFIG"),
		leaderElection:  true,
	}
	needed := []struct{ name, value string }{
		{"NFS_SERVER", read.server},
		{"NFS_PATH", read.share},
		{"PROVISIONER_NAME", read.provisionerName},
	}
	for _, variable := range needed {
		if variable.value == "" {
			return settings{}, fmt.Errorf("environment variable %s is not set", variable.name)
		}
	}
	if text := getenv("ENABLE_LEADER_ELECTION"); text != "" {
		enabled, err := strconv.ParseBool(text)
		if err != nil {
			return settings{}, fmt.Errorf("environment variable ENABLE_LEADER_ELECTION: %w", err)
		}
		read.leaderElection = enabled
	}
	return read, nil
}
