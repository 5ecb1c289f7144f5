// SPDX-License-Identifier: GPL-3.0-or-later

// The provisioner of the lab: it stands in for nfs-subdir-external-provisioner v4.0.2 where no container
// registry can be reached, and behaves like it, known defects included. README.md says how the two compare.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/klog"
	"sigs.k8s.io/sig-storage-lib-external-provisioner/v6/controller"
)

func main() {
	klog.InitFlags(nil)
	root := flag.String("root", "/persistentvolumes", "folder on which the share is mounted")
	flag.Parse()

	if err := run(*root, os.Getenv); err != nil {
		klog.Exit(err)
	}
}

// run returns only when the start fails.
func run(root string, getenv func(string) string) error {
	wanted, err := settingsFrom(getenv)
	if err != nil {
		return err
	}
	config, err := access(wanted.kubeconfig)
	if err != nil {
		return fmt.Errorf("no access to the cluster: %w", err)
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return fmt.Errorf("no access to the cluster: %w", err)
	}
	// The library decides by the version which phases and annotations count.
	version, err := client.Discovery().ServerVersion()
	if err != nil {
		return fmt.Errorf("the version of the API server cannot be read: %w", err)
	}
	newController(client, root, wanted, version.GitVersion).Run(context.Background())
	return nil
}

// access is that of a kubeconfig, or of the service account of the pod.
func access(kubeconfig string) (*rest.Config, error) {
	if kubeconfig == "" {
		return rest.InClusterConfig()
	}
	return clientcmd.BuildConfigFromFlags("", kubeconfig)
}

// newController joins the volumes of one share with the library's loops. The lock is the library's: on
// Endpoints, named like the provisioner with "-" for "/", in the namespace of the pod.
func newController(
	client kubernetes.Interface, root string, wanted settings, version string,
) *controller.ProvisionController {
	volumes := &subdirectories{client: client, server: wanted.server, share: wanted.share, root: root}
	return controller.NewProvisionController(client, wanted.provisionerName, volumes, version,
		controller.LeaderElection(wanted.leaderElection))
}
