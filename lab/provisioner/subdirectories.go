// SPDX-License-Identifier: GPL-3.0-or-later

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	v1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/klog"
	"sigs.k8s.io/sig-storage-lib-external-provisioner/v6/controller"
)

// subdirectories makes each volume a directory of one NFS share. The words of the errors are those of v4.0.2:
// users and tools meet them in the events of claims and volumes.
type subdirectories struct {
	client kubernetes.Interface
	server string
	share  string // path of the share on the server
	root   string // where the share is mounted here
}

var _ controller.Provisioner = &subdirectories{}

// Provision makes the directory of a claim and returns its volume.
func (s *subdirectories) Provision(
	_ context.Context, options controller.ProvisionOptions,
) (*v1.PersistentVolume, controller.ProvisioningState, error) {
	claim := options.PVC
	if claim.Spec.Selector != nil {
		return nil, controller.ProvisioningFinished, errors.New("claim Selector is not supported")
	}

	directory := claim.Namespace + "-" + claim.Name + "-" + options.PVName
	if pattern, found := options.StorageClass.Parameters["pathPattern"]; found {
		directory = expandPattern(pattern, claim)
	}
	made := filepath.Join(s.root, directory)
	if err := os.MkdirAll(made, 0o777); err != nil {
		return nil, controller.ProvisioningFinished,
			fmt.Errorf("unable to create directory to provision new pv: %w", err)
	}
	// Against the umask. A refusal is no failure: a directory that was there may belong to somebody else, and
	// root may be squashed.
	if err := os.Chmod(made, 0o777); err != nil {
		klog.Warningf("the mode of %s stays as it is: %v", made, err)
	}

	size := claim.Spec.Resources.Requests[v1.ResourceStorage]
	volume := &v1.PersistentVolume{
		ObjectMeta: metav1.ObjectMeta{Name: options.PVName},
		Spec: v1.PersistentVolumeSpec{
			AccessModes:                   claim.Spec.AccessModes,
			Capacity:                      v1.ResourceList{v1.ResourceStorage: size},
			MountOptions:                  options.StorageClass.MountOptions,
			PersistentVolumeReclaimPolicy: *options.StorageClass.ReclaimPolicy,
			PersistentVolumeSource: v1.PersistentVolumeSource{
				NFS: &v1.NFSVolumeSource{Server: s.server, Path: filepath.Join(s.share, directory)},
			},
		},
	}
	return volume, controller.ProvisioningFinished, nil
}

// Delete removes, archives or keeps the directory of a volume, as its class says now. Like v4.0.2 it takes
// for that directory whatever lies directly below the root under the last part of the volume's path.
func (s *subdirectories) Delete(ctx context.Context, volume *v1.PersistentVolume) error {
	if volume.Spec.NFS == nil {
		return errors.New("volume has no NFS source")
	}
	name := filepath.Base(volume.Spec.NFS.Path)
	directory := filepath.Join(s.root, name)
	// v4.0.2 goes on here, and with "/" it empties the whole share.
	if name == "." || !filepath.IsLocal(name) {
		return fmt.Errorf("path %s names no directory below %s", volume.Spec.NFS.Path, s.root)
	}

	if _, err := os.Stat(directory); errors.Is(err, os.ErrNotExist) {
		klog.Warningf("path %s does not exist, deletion skipped", directory)
		return nil
	}
	class, err := s.classOf(ctx, volume)
	if err != nil {
		return err
	}
	fate, err := fateOf(class.Parameters)
	if err != nil {
		return err
	}
	klog.Infof("path %s: %s", directory, fate)
	switch fate {
	case keep:
		return nil
	case remove:
		return os.RemoveAll(directory)
	default:
		return os.Rename(directory, filepath.Join(s.root, "archived-"+name))
	}
}

// classOf asks for the class at the time of deletion: a class made anew with other parameters rules old
// volumes too.
func (s *subdirectories) classOf(
	ctx context.Context, volume *v1.PersistentVolume,
) (*storagev1.StorageClass, error) {
	name, found := volume.Annotations[v1.BetaStorageClassAnnotation]
	if !found {
		name = volume.Spec.StorageClassName
	}
	if name == "" {
		return nil, errors.New("Volume has no storage class")
	}
	return s.client.StorageV1().StorageClasses().Get(ctx, name, metav1.GetOptions{})
}

type fate string

const (
	archive fate = "archive"
	keep    fate = "keep"
	remove  fate = "remove"
)

// fateOf reads the parameters of a class: onDelete wins where it is "delete" or "retain" to the letter, any
// other value of it counts as none; without archiveOnDelete the directory is archived.
func fateOf(parameters map[string]string) (fate, error) {
	switch parameters["onDelete"] {
	case "delete":
		return remove, nil
	case "retain":
		return keep, nil
	}
	text, found := parameters["archiveOnDelete"]
	if !found {
		return archive, nil
	}
	archived, err := strconv.ParseBool(text)
	if err != nil {
		return "", err
	}
	if archived {
		return archive, nil
	}
	return remove, nil
}
