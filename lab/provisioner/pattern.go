// SPDX-License-Identifier: GPL-3.0-or-later

package main

import (
	"strings"

	v1 "k8s.io/api/core/v1"
)

const opening = "${.PVC."

// expandPattern fills in the placeholders of a class's pathPattern: ${.PVC.name}, ${.PVC.namespace},
// ${.PVC.labels.KEY}, ${.PVC.annotations.KEY}. What the claim does not have becomes nothing, and nothing is
// checked.
func expandPattern(pattern string, claim *v1.PersistentVolumeClaim) string {
	expanded := pattern
	for _, field := range placeholders(pattern) {
		// Everywhere, also in values filled in before: so does v4.0.2, though tenants write annotations.
		expanded = strings.ReplaceAll(expanded, opening+field+"}", claimField(claim, field))
	}
	return expanded
}

// placeholders returns what stands between "${.PVC." and the next "}", in order.
func placeholders(pattern string) []string {
	var fields []string
	for {
		_, rest, found := strings.Cut(pattern, opening)
		if !found {
			return fields
		}
		field, after, closed := strings.Cut(rest, "}")
		if !closed || strings.Contains(field, "\n") {
			pattern = rest
			continue
		}
		fields = append(fields, field)
		pattern = after
	}
}

func claimField(claim *v1.PersistentVolumeClaim, field string) string {
	if key, found := strings.CutPrefix(field, "labels."); found {
		return claim.Labels[key]
	}
	if key, found := strings.CutPrefix(field, "annotations."); found {
		return claim.Annotations[key]
	}
	switch field {
	case "name":
		return claim.Name
	case "namespace":
		return claim.Namespace
	}
	return ""
}
