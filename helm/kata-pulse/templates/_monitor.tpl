{{- /* What PodMonitor and ServiceMonitor have in common. */ -}}

{{- /* One endpoint: (list . $monitor) */ -}}
{{- define "kata-pulse.endpoint" -}}
{{- $root := index . 0 }}{{ $monitor := index . 1 }}
{{- $endpoint := dict "port" $root.Values.service.portName "path" $monitor.path }}
{{- $_ := set $endpoint "scheme" ($monitor.scheme | default (include "kata-pulse.scheme" $root)) }}
{{- range $key := list "honorLabels" "honorTimestamps" "trackTimestampsStaleness" "enableHttp2" "followRedirects" "filterRunning" }}
{{- $value := get $monitor $key }}
{{- if kindIs "bool" $value }}{{ $_ := set $endpoint $key $value }}{{ end }}
{{- end }}
{{- range $key := list "interval" "scrapeTimeout" "params" "tlsConfig" "authorization" "basicAuth" "oauth2" "proxyUrl" "bearerTokenFile" }}
{{- with get $monitor $key }}{{ $_ := set $endpoint $key . }}{{ end }}
{{- end }}
{{- if and (include "kata-pulse.selfSigned" $root) (not $monitor.tlsConfig) }}
{{- $_ := set $endpoint "tlsConfig" (dict "insecureSkipVerify" true) }}
{{- end }}
{{- if and (hasKey $monitor "bearerTokenFile") $root.Values.auth.kubernetes.enabled (not (or $monitor.bearerTokenFile $monitor.authorization $monitor.basicAuth $monitor.scrapeClass)) }}
{{- $_ := set $endpoint "bearerTokenFile" "/var/run/secrets/kubernetes.io/serviceaccount/token" }}
{{- end }}
{{- $_ := set $endpoint "relabelings" (prepend $monitor.relabelings (dict "sourceLabels" (list "__meta_kubernetes_pod_node_name") "targetLabel" "node")) }}
{{- with concat (include "kata-pulse.metricRelabelings" $root | fromJson).rules $monitor.metricRelabelings }}
{{- $_ := set $endpoint "metricRelabelings" . }}
{{- end }}
{{- toYaml $endpoint }}
{{- end }}

{{- /* On samples, not on the target: `up` and the agent's own families keep the agent's job. */ -}}
{{- define "kata-pulse.metricRelabelings" -}}
{{- $rules := list }}
{{- with .Values.kubeletCompat }}
{{- if .restoreExportedLabels }}
{{- /* A row without a pod must not keep the agent's own. */}}
{{- range $label := list "namespace" "pod" "container" }}
{{- $rules = append $rules (dict "sourceLabels" (list "__name__") "regex" "container_.+" "targetLabel" $label "replacement" "") }}
{{- end }}
{{- $rules = append $rules (dict "action" "labelmap" "regex" "exported_(namespace|pod|container)" "replacement" "$1") }}
{{- $rules = append $rules (dict "action" "labeldrop" "regex" "exported_(namespace|pod|container)") }}
{{- end }}
{{- if .enabled }}
{{- $rules = append $rules (dict "sourceLabels" (list "__name__") "regex" "container_.+" "targetLabel" "job" "replacement" .job) }}
{{- $rules = append $rules (dict "sourceLabels" (list "__name__") "regex" "container_.+" "targetLabel" "metrics_path" "replacement" .metricsPath) }}
{{- end }}
{{- end }}
{{- toJson (dict "rules" $rules) }}
{{- end }}

{{- /* The rest of the spec: (list . $monitor) */ -}}
{{- define "kata-pulse.monitorSpec" -}}
{{- $root := index . 0 }}{{ $monitor := index . 1 -}}
jobLabel: {{ $monitor.jobLabel }}
namespaceSelector:
  matchNames:
    - {{ include "kata-pulse.namespace" $root }}
selector:
  matchLabels:
    {{- include "kata-pulse.selectorLabels" $root | nindent 4 }}
{{- range $key := list "targetLabels" "podTargetLabels" "attachMetadata" "scrapeClass" "scrapeProtocols" "fallbackScrapeProtocol" "sampleLimit" "targetLimit" "labelLimit" "labelNameLengthLimit" "labelValueLengthLimit" "keepDroppedTargets" "bodySizeLimit" }}
{{- $value := get $monitor $key }}
{{- if $value }}
{{- /* Numbers of a values file are floats: they are written as integers. */}}
{{ toYaml (dict $key (ternary (int64 (kindIs "float64" $value | ternary $value 0)) $value (kindIs "float64" $value))) }}
{{- end }}
{{- end }}
{{- end }}
