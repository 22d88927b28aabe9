package v1alpha1

import "k8s.io/apimachinery/pkg/runtime/schema"

// GroupName is the group of all kinds here.
const GroupName = "policy.tulle.dev"

// SchemeGroupVersion is their group and version.
var SchemeGroupVersion = schema.GroupVersion{Group: GroupName, Version: "v1alpha1"}
