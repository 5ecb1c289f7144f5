// SPDX-License-Identifier: GPL-3.0-or-later

package main

import (
	"strings"
	"testing"
)

func environment(overrides map[string]string) func(string) string {
	return func(name string) string {
		if value, found := overrides[name]; found {
			return value
		}
		return map[string]string{
			"PROVISIONER_NAME": "fuseim.pri/ifs",
			"NFS_SERVER":       "192.0.2.1",
			"NFS_PATH":         "/nfs/k8s/dynamic",
		}[name]
	}
}

func TestSettingsComeFromTheEnvironment(t *testing.T) {
	read, err := settingsFrom(environment(map[string]string{"KUBECONFIG": "/tmp/kubeconfig"}))
	if err != nil {
		t.Fatal(err)
	}
	expected := settings{
		provisionerName: "fuseim.pri/ifs",
		server:          "192.0.2.1",
		share:           "/nfs/k8s/dynamic",
		kubeconfig:      "/tmp/kubeconfig",
		leaderElection:  true,
	}
	if read != expected {
		t.Fatalf("read %+v, expected %+v", read, expected)
	}
}

func TestMissingVariableEndsTheStart(t *testing.T) {
	for _, name := range []string{"PROVISIONER_NAME", "NFS_SERVER", "NFS_PATH"} {
		err := run(t.TempDir(), environment(map[string]string{name: ""}))
		if err == nil || !strings.Contains(err.Error(), name+" is not set") {
			t.Errorf("without %s: %v", name, err)
		}
	}
}

func TestMissingKubeconfigEndsTheStart(t *testing.T) {
	err := run(t.TempDir(), environment(map[string]string{"KUBECONFIG": "/nonexistent"}))
	if err == nil || !strings.Contains(err.Error(), "no access to the cluster") {
		t.Fatalf("got %v", err)
	}
}

func TestLeaderElectionCanBeSwitchedOff(t *testing.T) {
	for text, expected := range map[string]bool{"": true, "true": true, "1": true, "false": false, "F": false} {
		read, err := settingsFrom(environment(map[string]string{"ENABLE_LEADER_ELECTION": text}))
		if err != nil || read.leaderElection != expected {
			t.Errorf("%q: %v, %v", text, read.leaderElection, err)
		}
	}
	if _, err := settingsFrom(environment(map[string]string{"ENABLE_LEADER_ELECTION": "off"})); err == nil {
		t.Error("off is not a boolean of Go, the start must fail")
	}
}
