package deploy

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/tulle-mesh/tulle/istiod-lite/source"
	"github.com/tulle-mesh/tulle/istiod-lite/translate"
)

// Managed is the value of the label gateway.istio.io/managed on all that is made.
const Managed = "istio.io-mesh-controller"

// The ports of a waypoint's pod.
const (
	meshPort   = 15008
	statsPort  = 15020
	statusPort = 15021
)

// proxyUID is the account of a waypoint's process.
const proxyUID int64 = 1337

const (
	// containerName is that of Istio's, so that overlays and commands written for it fit.
	containerName = "istio-proxy"
	// rootConfigMap is what istiod-lite/rootcert writes into every namespace.
	rootConfigMap = "istio-ca-root-cert"
)

// The annotations of a Gateway that change its pods; they are Istio's.
const (
	annotationImage       = "sidecar.istio.io/proxyImage"
	annotationLogLevel    = "sidecar.istio.io/logLevel"
	annotationCPU         = "sidecar.istio.io/proxyCPU"
	annotationMemory      = "sidecar.istio.io/proxyMemory"
	annotationCPULimit    = "sidecar.istio.io/proxyCPULimit"
	annotationMemoryLimit = "sidecar.istio.io/proxyMemoryLimit"
)

// annotationVersion says which generation of templates made a Deployment. An older
// control plane leaves alone what a newer one has made.
const annotationVersion = "gateway.istio.io/controller-version"

// templateVersion is raised when templates change in a way that an older control
// plane must not undo.
const templateVersion = 1

// names are those of what is made for one Gateway.
type names struct {
	namespace, workload, account string
}

func namesOf(gw *gatewayv1.Gateway) names {
	return names{namespace: gw.Namespace, workload: translate.WaypointService(gw), account: translate.WaypointAccount(gw)}
}

// template makes the objects of one Gateway before any overlay.
type template struct {
	settings Settings
	options  translate.Options
	gateway  *gatewayv1.Gateway
	names    names
}

// selector picks the pods of the Gateway. It must never change.
func (t template) selector() map[string]string {
	return map[string]string{source.LabelGatewayName: t.gateway.Name}
}

// meta is the metadata of every object but for its kind.
func (t template) meta(name string) metav1.ObjectMeta {
	labels, annotations := infrastructure(t.gateway)
	maps.Copy(labels, t.labels())
	yes := true
	return metav1.ObjectMeta{
		Namespace: t.names.namespace, Name: name, Labels: labels, Annotations: annotations,
		OwnerReferences: []metav1.OwnerReference{{
			APIVersion: gatewayv1.GroupVersion.String(), Kind: "Gateway", Name: t.gateway.Name, UID: t.gateway.UID, Controller: &yes,
		}},
	}
}

func (t template) labels() map[string]string {
	labels := t.selector()
	labels["gateway.networking.k8s.io/gateway-class-name"] = string(t.gateway.Spec.GatewayClassName)
	labels[source.LabelGatewayManaged] = Managed
	labels["app.kubernetes.io/part-of"] = "tulle"
	return labels
}

// infrastructure returns the labels and annotations that the Gateway's author wants
// on what is made: those of spec.infrastructure, else the Gateway's own. What steers
// the Gateway itself is not among them.
func infrastructure(gw *gatewayv1.Gateway) (labels, annotations map[string]string) {
	labels, annotations = map[string]string{}, map[string]string{}
	infra := gw.Spec.Infrastructure
	if infra != nil && infra.Labels != nil {
		for k, v := range infra.Labels {
			labels[string(k)] = string(v)
		}
	} else {
		maps.Copy(labels, gw.Labels)
	}
	if infra != nil && infra.Annotations != nil {
		for k, v := range infra.Annotations {
			annotations[string(k)] = string(v)
		}
	} else {
		maps.Copy(annotations, gw.Annotations)
	}
	maps.DeleteFunc(labels, func(key, _ string) bool {
		return strings.HasPrefix(key, source.LabelUseWaypoint) || slices.Contains([]string{source.LabelWaypointFor, source.LabelDataplaneMode, source.LabelIngressUseWaypoint}, key) ||
			strings.HasPrefix(key, "app.kubernetes.io/managed-by") || strings.HasPrefix(key, "argocd.argoproj.io/") || strings.HasPrefix(key, "kustomize.toolkit.fluxcd.io/")
	})
	maps.DeleteFunc(annotations, func(key, _ string) bool {
		return key == corev1.LastAppliedConfigAnnotation || strings.HasPrefix(key, "gateway.istio.io/") || strings.HasPrefix(key, "sidecar.istio.io/") ||
			strings.HasPrefix(key, "argocd.argoproj.io/") || strings.HasPrefix(key, "meta.helm.sh/")
	})
	return labels, annotations
}

func (t template) account() *corev1.ServiceAccount {
	sa := &corev1.ServiceAccount{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "ServiceAccount"}, ObjectMeta: t.meta(t.names.account)}
	for _, name := range t.settings.ImagePullSecrets {
		sa.ImagePullSecrets = append(sa.ImagePullSecrets, corev1.LocalObjectReference{Name: name})
	}
	return sa
}

func (t template) service() *corev1.Service {
	svc := &corev1.Service{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Service"}, ObjectMeta: t.meta(t.names.workload)}
	if _, ok := svc.Annotations[source.AnnotationTrafficDistribution]; !ok {
		// The node proxies take a replica of their own zone while one is ready.
		svc.Annotations[source.AnnotationTrafficDistribution] = "PreferClose"
	}
	hbone, tcp := "hbone", "tcp"
	svc.Spec = corev1.ServiceSpec{
		Type:     corev1.ServiceTypeClusterIP,
		Selector: t.selector(),
		Ports: []corev1.ServicePort{
			{Name: "status-port", Port: statusPort, TargetPort: intstr.FromInt32(statusPort), Protocol: corev1.ProtocolTCP, AppProtocol: &tcp},
			{Name: "mesh", Port: meshPort, TargetPort: intstr.FromInt32(meshPort), Protocol: corev1.ProtocolTCP, AppProtocol: &hbone},
		},
	}
	return svc
}

// budget lets one pod at a time be evicted.
func (t template) budget() *policyv1.PodDisruptionBudget {
	one, always := intstr.FromInt32(1), policyv1.AlwaysAllow
	return &policyv1.PodDisruptionBudget{
		TypeMeta: metav1.TypeMeta{APIVersion: "policy/v1", Kind: "PodDisruptionBudget"}, ObjectMeta: t.meta(t.names.workload),
		Spec: policyv1.PodDisruptionBudgetSpec{
			MaxUnavailable: &one, UnhealthyPodEvictionPolicy: &always,
			Selector: &metav1.LabelSelector{MatchLabels: t.selector()},
		},
	}
}

// autoscaler is what an overlay changes; without one it is not made.
func (t template) autoscaler() *autoscalingv2.HorizontalPodAutoscaler {
	least, percent := int32(1), int32(80)
	return &autoscalingv2.HorizontalPodAutoscaler{
		TypeMeta: metav1.TypeMeta{APIVersion: "autoscaling/v2", Kind: "HorizontalPodAutoscaler"}, ObjectMeta: t.meta(t.names.workload),
		Spec: autoscalingv2.HorizontalPodAutoscalerSpec{
			ScaleTargetRef: autoscalingv2.CrossVersionObjectReference{APIVersion: "apps/v1", Kind: "Deployment", Name: t.names.workload},
			MinReplicas:    &least, MaxReplicas: 5,
			Metrics: []autoscalingv2.MetricSpec{{
				Type: autoscalingv2.ResourceMetricSourceType,
				Resource: &autoscalingv2.ResourceMetricSource{Name: corev1.ResourceCPU,
					Target: autoscalingv2.MetricTarget{Type: autoscalingv2.UtilizationMetricType, AverageUtilization: &percent}},
			}},
		},
	}
}

// deployment has no number of replicas: it is one until somebody scales it, by hand,
// by an autoscaler or by an overlay, and nobody is contradicted.
func (t template) deployment() (*appsv1.Deployment, error) {
	resources, err := t.resources()
	if err != nil {
		return nil, err
	}
	none, surge := intstr.FromInt32(0), intstr.FromString("25%")
	d := &appsv1.Deployment{TypeMeta: metav1.TypeMeta{APIVersion: "apps/v1", Kind: "Deployment"}, ObjectMeta: t.meta(t.names.workload)}
	d.Annotations[annotationVersion] = strconv.Itoa(templateVersion)
	pod := metav1.ObjectMeta{Labels: maps.Clone(d.Labels), Annotations: maps.Clone(d.Annotations)}
	delete(pod.Annotations, annotationVersion)
	maps.Copy(pod.Labels, map[string]string{
		source.LabelDataplaneMode: source.ModeNone, "sidecar.istio.io/inject": "false",
		source.LabelCanonicalName: t.names.workload,
	})
	if _, ok := pod.Labels[source.LabelCanonicalRevision]; !ok {
		pod.Labels[source.LabelCanonicalRevision] = "latest"
	}
	for key, value := range map[string]string{"prometheus.io/scrape": "true", "prometheus.io/port": strconv.Itoa(statsPort), "prometheus.io/path": "/metrics"} {
		if _, ok := pod.Annotations[key]; !ok {
			pod.Annotations[key] = value
		}
	}
	d.Spec = appsv1.DeploymentSpec{
		Selector: &metav1.LabelSelector{MatchLabels: t.selector()},
		// A pod goes when its successor is ready, and not before.
		Strategy: appsv1.DeploymentStrategy{Type: appsv1.RollingUpdateDeploymentStrategyType,
			RollingUpdate: &appsv1.RollingUpdateDeployment{MaxUnavailable: &none, MaxSurge: &surge}},
		Template: corev1.PodTemplateSpec{ObjectMeta: pod, Spec: t.pod(resources)},
	}
	return d, nil
}

func (t template) pod(resources corev1.ResourceRequirements) corev1.PodSpec {
	yes, no, uid, grace := true, false, proxyUID, int64(graceSeconds)
	spec := corev1.PodSpec{
		ServiceAccountName: t.names.account,
		// It has no business with the API server.
		AutomountServiceAccountToken:  &no,
		TerminationGracePeriodSeconds: &grace,
		NodeSelector:                  map[string]string{"kubernetes.io/os": "linux"},
		SecurityContext: &corev1.PodSecurityContext{
			RunAsNonRoot: &yes, RunAsUser: &uid, RunAsGroup: &uid,
			SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
		},
		TopologySpreadConstraints: []corev1.TopologySpreadConstraint{t.spread(source.LabelZone), t.spread("kubernetes.io/hostname")},
		Containers: []corev1.Container{{
			Name:  containerName,
			Image: t.image(),
			Args: []string{
				"--log-level=" + t.logLevel(), "--log-format=" + t.settings.LogFormat,
				fmt.Sprintf("--drain-deadline=%ds", drainSeconds),
			},
			ImagePullPolicy: corev1.PullPolicy(t.settings.ImagePullPolicy),
			// What a process says last is in the pod's status.
			TerminationMessagePolicy: corev1.TerminationMessageFallbackToLogsOnError,
			Env:                      t.environment(),
			Ports: []corev1.ContainerPort{
				{Name: "mesh", ContainerPort: meshPort, Protocol: corev1.ProtocolTCP},
				{Name: "metrics", ContainerPort: statsPort, Protocol: corev1.ProtocolTCP},
				{Name: "status-port", ContainerPort: statusPort, Protocol: corev1.ProtocolTCP},
			},
			Resources: resources,
			SecurityContext: &corev1.SecurityContext{
				AllowPrivilegeEscalation: &no, Privileged: &no, ReadOnlyRootFilesystem: &yes, RunAsNonRoot: &yes, RunAsUser: &uid, RunAsGroup: &uid,
				Capabilities: &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
			},
			// The start may wait for a certificate and the first configuration.
			StartupProbe:   probe("/healthz/ready", 1, 120),
			ReadinessProbe: probe("/healthz/ready", 3, 2),
			LivenessProbe:  probe("/healthz/live", 10, 6),
			VolumeMounts: []corev1.VolumeMount{
				{Name: "istiod-ca-cert", MountPath: "/var/run/secrets/istio", ReadOnly: true},
				{Name: "istio-token", MountPath: "/var/run/secrets/tokens", ReadOnly: true},
			},
		}},
	}
	for _, name := range t.settings.ImagePullSecrets {
		spec.ImagePullSecrets = append(spec.ImagePullSecrets, corev1.LocalObjectReference{Name: name})
	}
	seconds := int64(43200)
	spec.Volumes = []corev1.Volume{
		{Name: "istiod-ca-cert", VolumeSource: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: corev1.LocalObjectReference{Name: rootConfigMap}}}},
		{Name: "istio-token", VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{{
			ServiceAccountToken: &corev1.ServiceAccountTokenProjection{Path: "istio-token", Audience: "istio-ca", ExpirationSeconds: &seconds},
		}}}}},
	}
	return spec
}

func probe(path string, period, failures int32) *corev1.Probe {
	return &corev1.Probe{
		ProbeHandler:  corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Path: path, Port: intstr.FromInt32(statusPort), Scheme: corev1.URISchemeHTTP}},
		PeriodSeconds: period, TimeoutSeconds: 5, FailureThreshold: failures, SuccessThreshold: 1,
	}
}

// spread prefers different zones or nodes for the pods of one version: those of the
// version before must not keep the new ones from where they should be.
func (t template) spread(topology string) corev1.TopologySpreadConstraint {
	return corev1.TopologySpreadConstraint{
		MaxSkew: 1, TopologyKey: topology, WhenUnsatisfiable: corev1.ScheduleAnyway,
		LabelSelector: &metav1.LabelSelector{MatchLabels: t.selector()}, MatchLabelKeys: []string{"pod-template-hash"},
	}
}

func (t template) environment() []corev1.EnvVar {
	field := func(name, path string) corev1.EnvVar {
		return corev1.EnvVar{Name: name, ValueFrom: &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{APIVersion: "v1", FieldPath: path}}}
	}
	env := []corev1.EnvVar{
		field("POD_NAME", "metadata.name"), field("POD_NAMESPACE", "metadata.namespace"), field("SERVICE_ACCOUNT", "spec.serviceAccountName"),
		field("NODE_NAME", "spec.nodeName"), field("INSTANCE_IP", "status.podIP"),
		{Name: "GATEWAY_NAME", Value: t.gateway.Name},
		{Name: "XDS_ADDRESS", Value: t.settings.XDSAddress},
		{Name: "CLUSTER_ID", Value: t.options.ClusterID},
		{Name: "TRUST_DOMAIN", Value: t.options.TrustDomain},
	}
	if t.options.Network != "" {
		env = append(env, corev1.EnvVar{Name: "NETWORK", Value: t.options.Network})
	}
	return env
}

func (t template) image() string {
	if image := t.gateway.Annotations[annotationImage]; image != "" {
		return image
	}
	return t.settings.Image
}

func (t template) logLevel() string {
	if level := t.gateway.Annotations[annotationLogLevel]; level != "" {
		return level
	}
	return t.settings.LogLevel
}

// resources are Istio's defaults, changed by the annotations that Istio knows.
func (t template) resources() (corev1.ResourceRequirements, error) {
	r := corev1.ResourceRequirements{
		Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("100m"), corev1.ResourceMemory: resource.MustParse("128Mi")},
		Limits:   corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("2"), corev1.ResourceMemory: resource.MustParse("1Gi")},
	}
	for _, a := range []struct {
		annotation string
		list       corev1.ResourceList
		name       corev1.ResourceName
	}{
		{annotationCPU, r.Requests, corev1.ResourceCPU}, {annotationMemory, r.Requests, corev1.ResourceMemory},
		{annotationCPULimit, r.Limits, corev1.ResourceCPU}, {annotationMemoryLimit, r.Limits, corev1.ResourceMemory},
	} {
		text := t.gateway.Annotations[a.annotation]
		if text == "" {
			continue
		}
		q, err := resource.ParseQuantity(text)
		if err != nil {
			return r, fmt.Errorf("metadata.annotations[%s]: %q is not a quantity", a.annotation, text)
		}
		a.list[a.name] = q
	}
	return r, nil
}

// limitHeap tells the process nine tenths of its memory limit, so that memory is
// collected before the kernel ends it.
func limitHeap(d *appsv1.Deployment) {
	for i := range d.Spec.Template.Spec.Containers {
		c := &d.Spec.Template.Spec.Containers[i]
		if c.Name != containerName || slices.ContainsFunc(c.Env, func(e corev1.EnvVar) bool { return e.Name == "GOMEMLIMIT" }) {
			continue
		}
		if limit, ok := c.Resources.Limits[corev1.ResourceMemory]; ok {
			c.Env = append(c.Env, corev1.EnvVar{Name: "GOMEMLIMIT", Value: strconv.FormatInt(limit.Value()/10*9, 10)})
		}
	}
}
