{{- /* The image of a component: include "tulle.image" (list . "ztunnel") */ -}}
{{- define "tulle.image" -}}
{{- $root := index . 0 -}}
{{ $root.Values.hub }}/{{ index . 1 }}:{{ $root.Values.tag | default $root.Chart.AppVersion }}
{{- end -}}

{{- /* Labels of every object of a component: include "tulle.labels" (list . "ztunnel") */ -}}
{{- define "tulle.labels" -}}
{{- $root := index . 0 -}}
app: {{ index . 1 }}
app.kubernetes.io/name: {{ index . 1 }}
app.kubernetes.io/part-of: tulle
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
{{- end -}}

{{- /* Labels of a component's pods, those that selectors may use first. */ -}}
{{- define "tulle.podLabels" -}}
app: {{ index . 1 }}
app.kubernetes.io/name: {{ index . 1 }}
app.kubernetes.io/part-of: tulle
istio.io/dataplane-mode: none
istio.io/rev: default
sidecar.istio.io/inject: "false"
{{- end -}}

{{- /* What a component's pod template has in common with the others': include "tulle.podSpec" (list . .Values.ztunnel) */ -}}
{{- define "tulle.podSpec" -}}
{{- $root := index . 0 -}}
{{- $own := index . 1 -}}
{{- with $root.Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $own.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with $own.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $own.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- /* GOMEMLIMIT, nine tenths of a memory limit in Mi or Gi: the heap is collected
before the kernel ends the process. Nothing without such a limit. */ -}}
{{- define "tulle.memoryLimit" -}}
{{- $limit := toString (dig "limits" "memory" "" .) -}}
{{- $mi := 0 -}}
{{- if regexMatch "^[0-9]+Mi$" $limit -}}
{{- $mi = trimSuffix "Mi" $limit | int64 -}}
{{- else if regexMatch "^[0-9]+Gi$" $limit -}}
{{- $mi = mul (trimSuffix "Gi" $limit | int64) 1024 -}}
{{- end -}}
{{- if $mi }}
- name: GOMEMLIMIT
  value: {{ printf "%dMiB" (div (mul $mi 9) 10) }}
{{- end -}}
{{- end -}}
