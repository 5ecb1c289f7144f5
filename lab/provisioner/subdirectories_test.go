// SPDX-License-Identifier: GPL-3.0-or-later

package main

import (
	"context"
	"os"
	"path/filepath"
	"reflect"
	"sort"
	"strings"
	"syscall"
	"testing"

	v1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	"sigs.k8s.io/sig-storage-lib-external-provisioner/v6/controller"
)

const (
	server    = "192.0.2.1"
	sharePath = "/nfs/k8s/dynamic"
	className = "managed-nfs-storage"
)

type parameters = map[string]string

func class(given parameters) *storagev1.StorageClass {
	policy := v1.PersistentVolumeReclaimDelete
	return &storagev1.StorageClass{
		ObjectMeta:    metav1.ObjectMeta{Name: className},
		Provisioner:   provisionerName,
		Parameters:    given,
		ReclaimPolicy: &policy,
		MountOptions:  []string{"hard", "nfsvers=4.1"},
	}
}

func claim(namespace, name string) *v1.PersistentVolumeClaim {
	wanted := className
	return &v1.PersistentVolumeClaim{
		ObjectMeta: metav1.ObjectMeta{
			Namespace:   namespace,
			Name:        name,
			UID:         "4711",
			Annotations: map[string]string{"volume.beta.kubernetes.io/storage-provisioner": provisionerName},
		},
		Spec: v1.PersistentVolumeClaimSpec{
			StorageClassName: &wanted,
			AccessModes:      []v1.PersistentVolumeAccessMode{v1.ReadWriteMany},
			Resources: v1.ResourceRequirements{
				Requests: v1.ResourceList{v1.ResourceStorage: resource.MustParse("2Mi")},
			},
		},
	}
}

// volume is a released volume with the given path on the server.
func volume(path string) *v1.PersistentVolume {
	return &v1.PersistentVolume{
		ObjectMeta: metav1.ObjectMeta{
			Name:        "pvc-4711",
			Annotations: map[string]string{"pv.kubernetes.io/provisioned-by": provisionerName},
		},
		Spec: v1.PersistentVolumeSpec{
			StorageClassName:              className,
			PersistentVolumeReclaimPolicy: v1.PersistentVolumeReclaimDelete,
			PersistentVolumeSource: v1.PersistentVolumeSource{
				NFS: &v1.NFSVolumeSource{Server: server, Path: path},
			},
		},
		Status: v1.PersistentVolumeStatus{Phase: v1.VolumeReleased},
	}
}

// share is a mounted share that holds the given files, each in its directory.
func share(t *testing.T, files ...string) string {
	t.Helper()
	root := filepath.Join(t.TempDir(), "mount")
	if err := os.Mkdir(root, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		put(t, filepath.Join(root, file))
	}
	return root
}

func put(t *testing.T, file string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte("data"), 0o644); err != nil {
		t.Fatal(err)
	}
}

// holds compares the files and the empty directories of a share with what is expected: "d/" is an empty
// directory.
func holds(t *testing.T, root string, expected ...string) {
	t.Helper()
	found := []string{}
	err := filepath.WalkDir(root, func(path string, entry os.DirEntry, err error) error {
		if err != nil || path == root {
			return err
		}
		name, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		if !entry.IsDir() {
			found = append(found, name)
			return nil
		}
		if below, err := os.ReadDir(path); err != nil || len(below) > 0 {
			return err
		}
		found = append(found, name+"/")
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	sort.Strings(expected)
	sort.Strings(found)
	if strings.Join(found, "\n") != strings.Join(expected, "\n") {
		t.Errorf("the share holds %q, expected %q", found, expected)
	}
}

func on(root string, objects ...runtime.Object) *subdirectories {
	cluster := fake.NewSimpleClientset(objects...)
	return &subdirectories{client: cluster, server: server, share: sharePath, root: root}
}

func provision(
	root string, given parameters, wanted *v1.PersistentVolumeClaim,
) (*v1.PersistentVolume, error) {
	made, _, err := on(root).Provision(context.Background(), controller.ProvisionOptions{
		StorageClass: class(given), PVName: "pvc-4711", PVC: wanted,
	})
	return made, err
}

func mustProvision(
	t *testing.T, root string, given parameters, wanted *v1.PersistentVolumeClaim,
) *v1.PersistentVolume {
	t.Helper()
	made, err := provision(root, given, wanted)
	if err != nil {
		t.Fatal(err)
	}
	return made
}

func remove4711(root string, given parameters, path string) error {
	return on(root, class(given)).Delete(context.Background(), volume(path))
}

func mustRemove(t *testing.T, root string, given parameters, path string) {
	t.Helper()
	if err := remove4711(root, given, path); err != nil {
		t.Fatal(err)
	}
}

func mode(t *testing.T, path string) os.FileMode {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return info.Mode().Perm()
}

func TestDirectoryIsNamedAfterNamespaceClaimAndVolume(t *testing.T) {
	root := share(t)
	made := mustProvision(t, root, nil, claim("shop", "data"))
	holds(t, root, "shop-data-pvc-4711/")
	if made.Spec.NFS.Path != sharePath+"/shop-data-pvc-4711" {
		t.Errorf("path %s", made.Spec.NFS.Path)
	}
}

func TestVolumeTakesAfterClaimAndClass(t *testing.T) {
	made := mustProvision(t, share(t), nil, claim("shop", "data"))
	expected := v1.PersistentVolumeSpec{
		AccessModes:                   []v1.PersistentVolumeAccessMode{v1.ReadWriteMany},
		Capacity:                      v1.ResourceList{v1.ResourceStorage: resource.MustParse("2Mi")},
		MountOptions:                  []string{"hard", "nfsvers=4.1"},
		PersistentVolumeReclaimPolicy: v1.PersistentVolumeReclaimDelete,
		PersistentVolumeSource: v1.PersistentVolumeSource{
			NFS: &v1.NFSVolumeSource{Server: server, Path: sharePath + "/shop-data-pvc-4711"},
		},
	}
	if made.Name != "pvc-4711" || !reflect.DeepEqual(made.Spec, expected) {
		t.Errorf("got %s %+v", made.Name, made.Spec)
	}
}

func TestDirectoryIsOpenToAllWhateverTheUmask(t *testing.T) {
	before := syscall.Umask(0o027)
	defer syscall.Umask(before)
	root := share(t)
	mustProvision(t, root, parameters{"pathPattern": "outer/inner"}, claim("shop", "data"))
	if got := mode(t, filepath.Join(root, "outer/inner")); got != 0o777 {
		t.Errorf("inner directory: %o", got)
	}
	if got := mode(t, filepath.Join(root, "outer")); got != 0o750 {
		t.Errorf("outer directory: %o", got)
	}
}

// procfs refuses a change of mode even to root, as a server with root_squash does for a directory of somebody
// else.
func TestRefusedModeIsNoFailure(t *testing.T) {
	if err := os.Chmod("/proc/self/task", 0o777); err == nil {
		t.Fatal("/proc/self/task took the mode: this test needs another directory")
	}
	made := mustProvision(t, "/proc/self", parameters{"pathPattern": "task"}, claim("shop", "data"))
	if made.Spec.NFS.Path != sharePath+"/task" {
		t.Errorf("path %s", made.Spec.NFS.Path)
	}
}

func TestClaimWithSelectorIsRefused(t *testing.T) {
	root := share(t)
	wanted := claim("shop", "data")
	wanted.Spec.Selector = &metav1.LabelSelector{}
	_, err := provision(root, nil, wanted)
	if err == nil || err.Error() != "claim Selector is not supported" {
		t.Errorf("got %v", err)
	}
	holds(t, root)
}

func TestDirectoryThatCannotBeMadeIsAnError(t *testing.T) {
	root := share(t, "shop")
	_, err := provision(root, parameters{"pathPattern": "shop/data"}, claim("shop", "data"))
	if err == nil || !strings.HasPrefix(err.Error(), "unable to create directory to provision new pv: ") {
		t.Errorf("got %v", err)
	}
	holds(t, root, "shop")
}

func TestPatternNamesTheDirectory(t *testing.T) {
	root := share(t)
	pattern := parameters{"pathPattern": "${.PVC.namespace}/${.PVC.name}"}
	made := mustProvision(t, root, pattern, claim("shop", "data"))
	holds(t, root, "shop/data/")
	if made.Spec.NFS.Path != sharePath+"/shop/data" {
		t.Errorf("path %s", made.Spec.NFS.Path)
	}
}

func TestDirectoryThatIsThereIsTaken(t *testing.T) {
	root := share(t, "data/of-another-claim")
	made := mustProvision(t, root, parameters{"pathPattern": "${.PVC.name}"}, claim("shop", "data"))
	holds(t, root, "data/of-another-claim")
	if made.Spec.NFS.Path != sharePath+"/data" {
		t.Errorf("path %s", made.Spec.NFS.Path)
	}
	if got := mode(t, filepath.Join(root, "data")); got != 0o777 {
		t.Errorf("mode %o", got)
	}
}

func TestEmptyPatternPartGivesTheParentOfOtherVolumes(t *testing.T) {
	pattern := parameters{"pathPattern": "${.PVC.namespace}/${.PVC.labels.none}", "onDelete": "delete"}
	root := share(t, "shop/other-volume/file", "bank/file")
	made := mustProvision(t, root, pattern, claim("shop", "data"))
	if made.Spec.NFS.Path != sharePath+"/shop" {
		t.Errorf("path %s", made.Spec.NFS.Path)
	}
	mustRemove(t, root, pattern, made.Spec.NFS.Path)
	holds(t, root, "bank/file")
}

func TestEmptyPatternGivesTheRootOfTheShare(t *testing.T) {
	for _, pattern := range []string{"", "${.PVC.annotations.none}", "/"} {
		root := share(t, "other-volume/file")
		made := mustProvision(t, root, parameters{"pathPattern": pattern}, claim("shop", "data"))
		if made.Spec.NFS.Path != sharePath {
			t.Errorf("%q: path %s", pattern, made.Spec.NFS.Path)
		}
		if got := mode(t, root); got != 0o777 {
			t.Errorf("%q: mode %o", pattern, got)
		}
		mustRemove(t, root, parameters{"onDelete": "delete"}, made.Spec.NFS.Path)
		holds(t, root, "other-volume/file")
	}
}

// Its last part is the name of the share's own directory: a directory of that name inside is taken for the
// volume.
func TestVolumeOnTheRootTakesADirectoryNamedLikeTheShare(t *testing.T) {
	root := share(t, "dynamic/file", "other-volume/file")
	mustRemove(t, root, parameters{"onDelete": "delete"}, sharePath)
	holds(t, root, "other-volume/file")
}

func TestPatternMayLeaveTheShare(t *testing.T) {
	root := share(t)
	made := mustProvision(t, root, parameters{"pathPattern": "../../${.PVC.name}"}, claim("shop", "data"))
	if made.Spec.NFS.Path != "/nfs/data" {
		t.Errorf("path %s", made.Spec.NFS.Path)
	}
	holds(t, root)
	if got := mode(t, filepath.Join(root, "../../data")); got != 0o777 {
		t.Errorf("the directory above the share: mode %o", got)
	}
}

func TestFateOfTheDirectory(t *testing.T) {
	kept := []string{"shop-data/file", "other/file"}
	archived := []string{"archived-shop-data/file", "other/file"}
	removed := []string{"other/file"}
	for _, row := range []struct {
		given    parameters
		expected []string
	}{
		{nil, archived},
		{parameters{"archiveOnDelete": "true"}, archived},
		{parameters{"archiveOnDelete": "T"}, archived},
		{parameters{"archiveOnDelete": "1"}, archived},
		{parameters{"archiveOnDelete": "false"}, removed},
		{parameters{"archiveOnDelete": "False"}, removed},
		{parameters{"archiveOnDelete": "0"}, removed},
		{parameters{"onDelete": "delete"}, removed},
		{parameters{"onDelete": "delete", "archiveOnDelete": "true"}, removed},
		{parameters{"onDelete": "delete", "archiveOnDelete": "perhaps"}, removed},
		{parameters{"onDelete": "retain"}, kept},
		{parameters{"onDelete": "retain", "archiveOnDelete": "false"}, kept},
		{parameters{"onDelete": ""}, archived},
		{parameters{"onDelete": "Delete"}, archived},
		{parameters{"onDelete": "Retain", "archiveOnDelete": "false"}, removed},
		{parameters{"onDelete": "archive", "archiveOnDelete": "false"}, removed},
	} {
		root := share(t, "shop-data/file", "other/file")
		mustRemove(t, root, row.given, sharePath+"/shop-data")
		t.Logf("%v", row.given)
		holds(t, root, row.expected...)
	}
}

func TestUnreadableArchiveOnDeleteBlocksDeletion(t *testing.T) {
	for _, text := range []string{"yes", "no", ""} {
		root := share(t, "shop-data/file")
		err := remove4711(root, parameters{"archiveOnDelete": text}, sharePath+"/shop-data")
		if err == nil || !strings.Contains(err.Error(), "ParseBool") {
			t.Errorf("%q: %v", text, err)
		}
		holds(t, root, "shop-data/file")
	}
}

func TestNestedDirectoryIsLeftBehind(t *testing.T) {
	root := share(t, "shop/data/file")
	mustRemove(t, root, parameters{"onDelete": "delete"}, sharePath+"/shop/data")
	holds(t, root, "shop/data/file")
}

func TestNestedDirectoryTakesAnotherWithIt(t *testing.T) {
	root := share(t, "shop/data/file", "data/of-another-claim")
	mustRemove(t, root, parameters{"onDelete": "delete"}, sharePath+"/shop/data")
	holds(t, root, "shop/data/file")

	root = share(t, "shop/data/file", "data/of-another-claim")
	mustRemove(t, root, nil, sharePath+"/shop/data")
	holds(t, root, "shop/data/file", "archived-data/of-another-claim")
}

// The server and the leading part of the path count for nothing.
func TestOnlyTheLastPartOfThePathCounts(t *testing.T) {
	root := share(t, "shop-data/file")
	mustRemove(t, root, parameters{"onDelete": "delete"}, "/another/share/shop-data")
	holds(t, root)
}

func TestMissingDirectoryIsNoError(t *testing.T) {
	root := share(t, "other/file")
	mustRemove(t, root, parameters{"onDelete": "delete"}, sharePath+"/shop-data")
	holds(t, root, "other/file")
}

func TestMissingClassBlocksDeletion(t *testing.T) {
	root := share(t, "shop-data/file")
	err := on(root).Delete(context.Background(), volume(sharePath+"/shop-data"))
	if err == nil || err.Error() != `storageclasses.storage.k8s.io "managed-nfs-storage" not found` {
		t.Errorf("got %v", err)
	}
	holds(t, root, "shop-data/file")
}

func TestMissingClassDoesNotMatterWithoutADirectory(t *testing.T) {
	if err := on(share(t)).Delete(context.Background(), volume(sharePath+"/shop-data")); err != nil {
		t.Error(err)
	}
}

func TestVolumeWithoutClassBlocksDeletion(t *testing.T) {
	root := share(t, "shop-data/file")
	released := volume(sharePath + "/shop-data")
	released.Spec.StorageClassName = ""
	err := on(root, class(nil)).Delete(context.Background(), released)
	if err == nil || err.Error() != "Volume has no storage class" {
		t.Errorf("got %v", err)
	}
	holds(t, root, "shop-data/file")
}

func TestBetaAnnotationNamesTheClass(t *testing.T) {
	root := share(t, "shop-data/file")
	released := volume(sharePath + "/shop-data")
	released.Annotations["volume.beta.kubernetes.io/storage-class"] = "another"
	another := class(parameters{"onDelete": "delete"})
	another.Name = "another"
	err := on(root, class(parameters{"onDelete": "retain"}), another).Delete(context.Background(), released)
	if err != nil {
		t.Error(err)
	}
	holds(t, root)
}

func TestClassMadeAnewChangesTheFateOfOldVolumes(t *testing.T) {
	root := share(t)
	made := mustProvision(t, root, parameters{"onDelete": "retain"}, claim("shop", "data"))
	mustRemove(t, root, parameters{"onDelete": "delete"}, made.Spec.NFS.Path)
	holds(t, root)
}

func TestArchiveThatIsThereBlocksDeletion(t *testing.T) {
	for _, there := range []string{"archived-shop-data/file", "archived-shop-data/"} {
		root := share(t, "shop-data/file")
		if strings.HasSuffix(there, "/") {
			if err := os.Mkdir(filepath.Join(root, there), 0o755); err != nil {
				t.Fatal(err)
			}
		} else {
			put(t, filepath.Join(root, there))
		}
		if err := remove4711(root, nil, sharePath+"/shop-data"); err == nil {
			t.Error("no error")
		}
		holds(t, root, "shop-data/file", there)
	}
}

func TestLinkIsRemovedButNotFollowed(t *testing.T) {
	root := share(t, "target/file")
	if err := os.Symlink("target", filepath.Join(root, "shop-data")); err != nil {
		t.Fatal(err)
	}
	mustRemove(t, root, parameters{"onDelete": "delete"}, sharePath+"/shop-data")
	holds(t, root, "target/file")
}

func TestNothingButADirectoryBelowTheRootIsRemoved(t *testing.T) {
	for _, given := range []parameters{{"onDelete": "delete"}, {"archiveOnDelete": "false"}, nil} {
		for _, path := range []string{"/", "//", "", ".", "..", "/nfs/..", "/.."} {
			root := share(t, "other/file")
			put(t, filepath.Join(root, "../beside/file"))
			err := remove4711(root, given, path)
			if err == nil || !strings.Contains(err.Error(), "names no directory below "+root) {
				t.Errorf("%q: %v", path, err)
			}
			holds(t, filepath.Dir(root), "beside/file", "mount/other/file")
		}
	}
}

func TestVolumeThatIsNotNFSIsAnError(t *testing.T) {
	released := volume(sharePath)
	released.Spec.PersistentVolumeSource = v1.PersistentVolumeSource{
		HostPath: &v1.HostPathVolumeSource{Path: "/shop-data"},
	}
	root := share(t, "shop-data/file")
	err := on(root, class(parameters{"onDelete": "delete"})).Delete(context.Background(), released)
	if err == nil || err.Error() != "volume has no NFS source" {
		t.Errorf("got %v", err)
	}
	holds(t, root, "shop-data/file")
}
