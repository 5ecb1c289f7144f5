// SPDX-License-Identifier: GPL-3.0-or-later

package main

import (
	"testing"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func expand(pattern string) string {
	return expandPattern(pattern, &v1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{
		Name:        "data",
		Namespace:   "shop",
		Labels:      map[string]string{"app": "web", "app.kubernetes.io/part-of": "store"},
		Annotations: map[string]string{"nfs.io/storage-path": "a/b", "nested": "${.PVC.name}"},
	}})
}

func expectExpansions(t *testing.T, expected map[string]string) {
	t.Helper()
	for pattern, path := range expected {
		if got := expand(pattern); got != path {
			t.Errorf("%q became %q, expected %q", pattern, got, path)
		}
	}
}

func TestPatternFillsInFieldsOfTheClaim(t *testing.T) {
	expectExpansions(t, map[string]string{
		"${.PVC.namespace}/${.PVC.name}":            "shop/data",
		"${.PVC.name}-${.PVC.name}":                 "data-data",
		"${.PVC.labels.app}":                        "web",
		"${.PVC.labels.app.kubernetes.io/part-of}":  "store",
		"x/${.PVC.annotations.nfs.io/storage-path}": "x/a/b",
		"fixed": "fixed",
		"":      "",
	})
}

func TestPatternPartThatTheClaimLacksIsEmpty(t *testing.T) {
	expectExpansions(t, map[string]string{
		"${.PVC.namespace}/${.PVC.labels.none}": "shop/",
		"${.PVC.annotations.none}":              "",
		"${.PVC.labels}":                        "",
		"${.PVC.labels.}":                       "",
		"${.PVC.uid}":                           "",
		"${.PVC.}":                              "",
	})
}

func TestPatternKeepsWhatIsNoPlaceholder(t *testing.T) {
	expectExpansions(t, map[string]string{
		"${.PV.name}":              "${.PV.name}",
		"${PVC.name}":              "${PVC.name}",
		"${ .PVC.name}":            "${ .PVC.name}",
		"${.pvc.name}":             "${.pvc.name}",
		"$.PVC.name":               "$.PVC.name",
		"${.PVC.name":              "${.PVC.name",
		"${.PVC.na\nme}":           "${.PVC.na\nme}",
		"${.PVC.x\n${.PVC.name}":   "${.PVC.x\ndata",
		"${.PVC.x${.PVC.name}}":    "}",
		"${.PVC.namespace}}{$name": "shop}{$name",
	})
}

func TestPatternIsFilledInInsideTheValuesOfTenants(t *testing.T) {
	expectExpansions(t, map[string]string{
		"${.PVC.annotations.nested}":              "${.PVC.name}",
		"${.PVC.annotations.nested}/${.PVC.name}": "data/data",
		"${.PVC.name}/${.PVC.annotations.nested}": "data/${.PVC.name}",
	})
}
