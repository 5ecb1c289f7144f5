// SPDX-License-Identifier: GPL-3.0-or-later

package main

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
	"sigs.k8s.io/sig-storage-lib-external-provisioner/v6/controller"
)

const (
	provisionerName = "fuseim.pri/ifs"
	lockName        = "fuseim.pri-ifs"
	podNamespace    = "storage"
)

// start runs the whole controller on a cluster that holds the given objects. The library cannot be stopped
// without ending the process, so each controller lives as long as the tests.
func start(t *testing.T, root string, locked bool, objects ...runtime.Object) *fake.Clientset {
	t.Helper()
	t.Setenv("POD_NAMESPACE", podNamespace)
	return startHere(root, locked, objects...)
}

func startHere(root string, locked bool, objects ...runtime.Object) *fake.Clientset {
	cluster := fake.NewSimpleClientset(objects...)
	wanted := settings{
		provisionerName: provisionerName, server: server, share: sharePath, leaderElection: locked,
	}
	go newController(cluster, root, wanted, "v1.37.2").Run(context.Background())
	return cluster
}

// soon waits for what the controller does in its own time.
func soon(t *testing.T, what string, happened func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if happened() {
			return
		}
	}
	t.Fatalf("not seen within 20 s: %s", what)
}

// volumeOf returns the volume of that name, or nil.
func volumeOf(cluster *fake.Clientset, name string) *v1.PersistentVolume {
	found, err := cluster.CoreV1().PersistentVolumes().Get(context.Background(), name, metav1.GetOptions{})
	if err != nil {
		return nil
	}
	return found
}

// event waits for an event with that reason and returns its words.
func event(t *testing.T, cluster *fake.Clientset, reason string) string {
	t.Helper()
	var words string
	soon(t, "event "+reason, func() bool {
		for _, action := range cluster.Actions() {
			created, found := action.(clienttesting.CreateAction)
			if !found || action.GetResource().Resource != "events" {
				continue
			}
			if seen := created.GetObject().(*v1.Event); seen.Reason == reason {
				words = seen.Message
				return true
			}
		}
		return false
	})
	return words
}

func lock(cluster *fake.Clientset, namespace string) string {
	endpoints := cluster.CoreV1().Endpoints(namespace)
	found, err := endpoints.Get(context.Background(), lockName, metav1.GetOptions{})
	if err != nil {
		return ""
	}
	return found.Annotations["control-plane.alpha.kubernetes.io/leader"]
}

func TestLockIsAnEndpointsNamedAfterTheProvisioner(t *testing.T) {
	cluster := start(t, share(t), true)
	soon(t, "lock", func() bool { return lock(cluster, podNamespace) != "" })
	var record resourcelock.LeaderElectionRecord
	if err := json.Unmarshal([]byte(lock(cluster, podNamespace)), &record); err != nil {
		t.Fatal(err)
	}
	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(record.HolderIdentity, host+"_") || record.LeaseDurationSeconds != 15 {
		t.Errorf("record %+v", record)
	}
	for _, action := range cluster.Actions() {
		if action.GetResource().Resource == "leases" {
			t.Errorf("%s of a lease", action.GetVerb())
		}
	}
}

func TestLockLiesInTheNamespaceOfThePod(t *testing.T) {
	t.Setenv("POD_NAMESPACE", "")
	expected := "default"
	if mounted, err := os.ReadFile("/var/run/secrets/kubernetes.io/serviceaccount/namespace"); err == nil {
		expected = strings.TrimSpace(string(mounted))
	}
	cluster := startHere(share(t), true)
	soon(t, "lock in "+expected, func() bool { return lock(cluster, expected) != "" })
}

func TestLockOfAnotherIsWaitedFor(t *testing.T) {
	held, err := json.Marshal(resourcelock.LeaderElectionRecord{
		HolderIdentity:       "another",
		LeaseDurationSeconds: 15,
		AcquireTime:          metav1.Now(),
		RenewTime:            metav1.Now(),
	})
	if err != nil {
		t.Fatal(err)
	}
	root := share(t)
	taken := &v1.Endpoints{ObjectMeta: metav1.ObjectMeta{
		Namespace:   podNamespace,
		Name:        lockName,
		Annotations: map[string]string{"control-plane.alpha.kubernetes.io/leader": string(held)},
	}}
	cluster := start(t, root, true, class(nil), claim("shop", "data"), taken)
	soon(t, "look at the lock", func() bool { return len(cluster.Actions()) > 0 })
	time.Sleep(300 * time.Millisecond)
	if lock(cluster, podNamespace) != string(held) || volumeOf(cluster, "pvc-4711") != nil {
		t.Error("it works although another holds the lock")
	}
	holds(t, root)
}

func TestWithoutLeaderElectionThereIsNoLock(t *testing.T) {
	cluster := start(t, share(t), false, class(nil), claim("shop", "data"))
	soon(t, "volume", func() bool { return volumeOf(cluster, "pvc-4711") != nil })
	for _, action := range cluster.Actions() {
		if action.GetResource().Resource == "endpoints" {
			t.Errorf("%s of endpoints", action.GetVerb())
		}
	}
}

func TestTimesOfLockAndRetries(t *testing.T) {
	if controller.DefaultLeaseDuration != 15*time.Second ||
		controller.DefaultRenewDeadline != 10*time.Second ||
		controller.DefaultRetryPeriod != 2*time.Second ||
		controller.DefaultFailedDeleteThreshold != 15 ||
		controller.DefaultFailedProvisionThreshold != 15 {
		t.Error("the library has other times or limits than 6.0.0")
	}
}

func TestClaimGetsAVolume(t *testing.T) {
	root := share(t)
	cluster := start(t, root, true, class(nil), claim("shop", "data"))
	soon(t, "volume", func() bool { return volumeOf(cluster, "pvc-4711") != nil })
	made := volumeOf(cluster, "pvc-4711")
	if made.Annotations["pv.kubernetes.io/provisioned-by"] != provisionerName ||
		made.Spec.StorageClassName != className ||
		made.Spec.ClaimRef.Name != "data" || made.Spec.ClaimRef.UID != "4711" || len(made.Finalizers) != 0 {
		t.Errorf("volume %+v", made)
	}
	holds(t, root, "shop-data-pvc-4711/")
	words := event(t, cluster, "ProvisioningSucceeded")
	if words != "Successfully provisioned volume pvc-4711" {
		t.Errorf("event %q", words)
	}
}

func TestFailedProvisioningIsToldInAnEvent(t *testing.T) {
	wanted := claim("shop", "data")
	wanted.Spec.Selector = &metav1.LabelSelector{}
	cluster := start(t, share(t), false, class(nil), wanted)
	words := event(t, cluster, "ProvisioningFailed")
	expected := `failed to provision volume with StorageClass "managed-nfs-storage": claim Selector is not supported`
	if words != expected {
		t.Errorf("event %q", words)
	}
}

func TestBlockVolumeIsRefused(t *testing.T) {
	wanted := claim("shop", "data")
	block := v1.PersistentVolumeBlock
	wanted.Spec.VolumeMode = &block
	cluster := start(t, share(t), false, class(nil), wanted)
	words := event(t, cluster, "ProvisioningFailed")
	if words != provisionerName+" does not support block volume provisioning" {
		t.Errorf("event %q", words)
	}
}

func TestReleasedVolumeIsDeletedWithItsDirectory(t *testing.T) {
	root := share(t, "shop-data/file", "other/file")
	removing := class(parameters{"archiveOnDelete": "false"})
	cluster := start(t, root, true, removing, volume(sharePath+"/shop-data"))
	soon(t, "deletion", func() bool { return volumeOf(cluster, "pvc-4711") == nil })
	holds(t, root, "other/file")
}

func TestVolumeGoesWhileItsDirectoryIsRetained(t *testing.T) {
	root := share(t, "shop-data/file")
	cluster := start(t, root, false, class(parameters{"onDelete": "retain"}), volume(sharePath+"/shop-data"))
	soon(t, "deletion", func() bool { return volumeOf(cluster, "pvc-4711") == nil })
	holds(t, root, "shop-data/file")
}

func TestFailedDeletionIsToldInAnEventAndTheVolumeStays(t *testing.T) {
	root := share(t, "shop-data/file")
	cluster := start(t, root, false, volume(sharePath+"/shop-data"))
	words := event(t, cluster, "VolumeFailedDelete")
	if words != `storageclasses.storage.k8s.io "managed-nfs-storage" not found` {
		t.Errorf("event %q", words)
	}
	if volumeOf(cluster, "pvc-4711") == nil {
		t.Error("the volume is gone")
	}
	holds(t, root, "shop-data/file")
}

// Each of these looks like a volume to delete but for one thing.
func TestVolumesThatAreLeftAlone(t *testing.T) {
	for what, change := range map[string]func(*v1.PersistentVolume){
		"policy Retain": func(v *v1.PersistentVolume) {
			v.Spec.PersistentVolumeReclaimPolicy = v1.PersistentVolumeReclaimRetain
		},
		"Bound":  func(v *v1.PersistentVolume) { v.Status.Phase = v1.VolumeBound },
		"Failed": func(v *v1.PersistentVolume) { v.Status.Phase = v1.VolumeFailed },
		"static": func(v *v1.PersistentVolume) { v.Annotations = nil },
		"being deleted": func(v *v1.PersistentVolume) {
			now := metav1.Now()
			v.DeletionTimestamp = &now
		},
		"another provisioner": func(v *v1.PersistentVolume) {
			v.Annotations["pv.kubernetes.io/provisioned-by"] = "x/y"
		},
	} {
		root := share(t, "shop-data/file", "last/file")
		spared := volume(sharePath + "/shop-data")
		change(spared)
		// A second volume tells when the controller has been through.
		last := volume(sharePath + "/last")
		last.Name = "last"
		cluster := start(t, root, false, class(parameters{"onDelete": "delete"}), spared, last)
		soon(t, "deletion of the other volume", func() bool { return volumeOf(cluster, "last") == nil })
		time.Sleep(50 * time.Millisecond)
		t.Log(what)
		if volumeOf(cluster, "pvc-4711") == nil {
			t.Errorf("%s: the volume is gone", what)
		}
		holds(t, root, "shop-data/file")
	}
}

// The list that the library works on may be old: what counts is the policy that the API server gives right
// before.
func TestPolicyIsReadAgainBeforeDeletion(t *testing.T) {
	root := share(t, "shop-data/file")
	retained := volume(sharePath + "/shop-data")
	retained.Spec.PersistentVolumeReclaimPolicy = v1.PersistentVolumeReclaimRetain
	cluster := fake.NewSimpleClientset(class(parameters{"onDelete": "delete"}), retained)
	old := &v1.PersistentVolumeList{Items: []v1.PersistentVolume{*volume(sharePath + "/shop-data")}}
	answer := func(clienttesting.Action) (bool, runtime.Object, error) { return true, old, nil }
	cluster.PrependReactor("list", "persistentvolumes", answer)
	wanted := settings{provisionerName: provisionerName, server: server, share: sharePath}
	go newController(cluster, root, wanted, "v1.37.2").Run(context.Background())
	soon(t, "second look", func() bool {
		for _, action := range cluster.Actions() {
			if action.Matches("get", "persistentvolumes") {
				return true
			}
		}
		return false
	})
	time.Sleep(50 * time.Millisecond)
	if volumeOf(cluster, "pvc-4711") == nil {
		t.Error("the volume is gone")
	}
	holds(t, root, "shop-data/file")
}

func waiting() *storagev1.StorageClass {
	late := class(nil)
	mode := storagev1.VolumeBindingWaitForFirstConsumer
	late.VolumeBindingMode = &mode
	return late
}

func TestWaitForFirstConsumerReadsTheNode(t *testing.T) {
	wanted := claim("shop", "data")
	wanted.Annotations["volume.kubernetes.io/selected-node"] = "node1"
	node := &v1.Node{ObjectMeta: metav1.ObjectMeta{Name: "node1"}}
	cluster := start(t, share(t), false, waiting(), wanted, node)
	soon(t, "volume", func() bool { return volumeOf(cluster, "pvc-4711") != nil })
	for _, action := range cluster.Actions() {
		if action.Matches("get", "nodes") {
			return
		}
	}
	t.Error("the node was not read")
}

func TestWaitForFirstConsumerWaits(t *testing.T) {
	root := share(t)
	other := claim("shop", "other")
	other.UID = "4712"
	at := "immediate"
	other.Spec.StorageClassName = &at
	immediate := class(nil)
	immediate.Name = at
	cluster := start(t, root, false, waiting(), immediate, claim("shop", "data"), other)
	soon(t, "volume of the other claim", func() bool { return volumeOf(cluster, "pvc-4712") != nil })
	time.Sleep(50 * time.Millisecond)
	holds(t, root, "shop-other-pvc-4712/")
}

// The rights of deploy/rbac.yaml in v4.0.2: whoever hands out just these must see the pod work.
func TestCallsStayWithinTheRights(t *testing.T) {
	rights := map[string]string{
		"persistentvolumes":      "get list watch create delete",
		"persistentvolumeclaims": "get list watch update",
		"storageclasses":         "get list watch",
		"events":                 "create update patch",
		"endpoints":              "get list watch create update patch",
	}
	root := share(t, "old/file")
	old := volume(sharePath + "/old")
	old.Name = "old"
	cluster := start(t, root, true, class(nil), claim("shop", "data"), old)
	soon(t, "volume and deletion", func() bool {
		return volumeOf(cluster, "pvc-4711") != nil && volumeOf(cluster, "old") == nil
	})
	event(t, cluster, "ProvisioningSucceeded")
	holds(t, root, "archived-old/file", "shop-data-pvc-4711/")
	for _, action := range cluster.Actions() {
		resource := action.GetResource().Resource
		if !strings.Contains(" "+rights[resource]+" ", " "+action.GetVerb()+" ") {
			t.Errorf("no right to %s %s", action.GetVerb(), resource)
		}
		if resource == "endpoints" && action.GetNamespace() != podNamespace {
			t.Errorf("endpoints in %q", action.GetNamespace())
		}
	}
}

// The table in README.md names a test for each row, and each test has its row.
func TestReadmeNamesEveryTest(t *testing.T) {
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	sources, err := filepath.Glob("*_test.go")
	if err != nil {
		t.Fatal(err)
	}
	defined := map[string]bool{}
	for _, source := range sources {
		text, err := os.ReadFile(source)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(text)) {
			if name, found := strings.CutPrefix(line, "func Test"); found {
				name, _, _ = strings.Cut(name, "(")
				defined["Test"+name] = true
			}
		}
	}
	delete(defined, t.Name())
	named := map[string]bool{}
	for line := range strings.Lines(string(readme)) {
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
		if !strings.HasPrefix(line, "| ") || len(cells) != 4 {
			continue
		}
		for word := range strings.FieldsSeq(strings.ReplaceAll(cells[3], "`", " ")) {
			if strings.HasPrefix(word, "Test") {
				named[word] = true
			}
		}
	}
	for name := range named {
		if !defined[name] {
			t.Errorf("README.md names %s, which does not exist", name)
		}
	}
	for name := range defined {
		if !named[name] {
			t.Errorf("README.md has no row for %s", name)
		}
	}
}
