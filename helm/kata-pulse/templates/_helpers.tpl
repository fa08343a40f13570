{{- /* Names. 63 characters is the longest that a label and many kinds of objects may have. */ -}}

{{- define "kata-pulse.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "kata-pulse.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 63 | trimSuffix "-" }}
{{- else }}
{{- $name := include "kata-pulse.name" . }}
{{- if contains $name .Release.Name }}
{{- .Release.Name | trunc 63 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name $name | trunc 63 | trimSuffix "-" }}
{{- end }}
{{- end }}
{{- end }}

{{- /* The full name with a suffix that is never cut off: (list . "web") */ -}}
{{- define "kata-pulse.suffixed" -}}
{{- $root := index . 0 }}{{ $suffix := index . 1 }}
{{- $most := sub 62 (len $suffix) | int }}
{{- printf "%s-%s" (include "kata-pulse.fullname" $root | trunc $most | trimSuffix "-") $suffix }}
{{- end }}

{{- /* Of objects outside namespaces, which two releases of one name must not share. */ -}}
{{- define "kata-pulse.clusterName" -}}
{{- printf "%s-%s" (include "kata-pulse.namespace" .) (include "kata-pulse.fullname" .) | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "kata-pulse.namespace" -}}
{{- default .Release.Namespace .Values.namespaceOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "kata-pulse.chart" -}}
{{- printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- /* Name and instance are the selector of the DaemonSet, which cannot be changed: nothing else goes in here. */ -}}
{{- define "kata-pulse.selectorLabels" -}}
app.kubernetes.io/name: {{ include "kata-pulse.name" . }}
app.kubernetes.io/instance: {{ .Release.Name | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- /* A map whose values are templates, as a JSON map of texts: (list . $map) */ -}}
{{- define "kata-pulse.rendered" -}}
{{- $root := index . 0 }}{{ $out := dict }}
{{- range $key, $value := index . 1 }}
{{- $_ := set $out $key (tpl (toString $value) $root) }}
{{- end }}
{{- toJson $out }}
{{- end }}

{{- /* The labels of an object: (list . $more $andMore…). What the chart says wins over what the user adds. */ -}}
{{- define "kata-pulse.labels" -}}
{{- $root := index . 0 }}
{{- $fixed := include "kata-pulse.selectorLabels" $root | fromYaml }}
{{- $_ := set $fixed "app.kubernetes.io/component" "agent" }}
{{- $_ := set $fixed "app.kubernetes.io/part-of" "kata-pulse" }}
{{- $_ := set $fixed "app.kubernetes.io/managed-by" $root.Release.Service }}
{{- $_ := set $fixed "app.kubernetes.io/version" ($root.Chart.AppVersion | replace "+" "_" | trunc 63) }}
{{- $_ := set $fixed "helm.sh/chart" (include "kata-pulse.chart" $root) }}
{{- $labels := include "kata-pulse.rendered" (list $root $root.Values.commonLabels) | fromJson }}
{{- range rest . }}
{{- $labels = mergeOverwrite $labels (include "kata-pulse.rendered" (list $root .) | fromJson) }}
{{- end }}
{{- toYaml (mergeOverwrite $labels $fixed) }}
{{- end }}

{{- /* Annotations whose values are templates, or nothing: (list . $map) */ -}}
{{- define "kata-pulse.annotations" -}}
{{- with include "kata-pulse.rendered" . | fromJson }}{{ toYaml . }}{{ end }}
{{- end }}

{{- define "kata-pulse.image" -}}
{{- $registry := .Values.global.imageRegistry | default .Values.image.registry }}
{{- $name := .Values.image.repository }}
{{- if $registry }}{{ $name = printf "%s/%s" $registry $name }}{{ end }}
{{- if .Values.image.digest }}
{{- printf "%s@%s" $name .Values.image.digest }}
{{- else }}
{{- printf "%s:%s" $name (.Values.image.tag | default .Chart.AppVersion) }}
{{- end }}
{{- end }}

{{- define "kata-pulse.imagePullSecrets" -}}
{{- $secrets := list }}
{{- range concat .Values.global.imagePullSecrets .Values.imagePullSecrets }}
{{- $secrets = append $secrets (ternary (dict "name" .) . (kindIs "string" .)) }}
{{- end }}
{{- with $secrets | uniq }}{{ toYaml . }}{{ end }}
{{- end }}

{{- define "kata-pulse.serviceAccountName" -}}
{{- if .Values.serviceAccount.create }}
{{- .Values.serviceAccount.name | default (include "kata-pulse.fullname" .) }}
{{- else }}
{{- .Values.serviceAccount.name | default "default" }}
{{- end }}
{{- end }}

{{- /* Whether something asks the Kubernetes API: "true" or nothing. */ -}}
{{- define "kata-pulse.usesApi" -}}
{{- if or .Values.auth.kubernetes.enabled .Values.collectors.volume.claims }}true{{ end }}
{{- end }}

{{- define "kata-pulse.rules" -}}
{{- $rules := list }}
{{- if .Values.auth.kubernetes.enabled }}
{{- $rules = append $rules (dict "apiGroups" (list "authentication.k8s.io") "resources" (list "tokenreviews") "verbs" (list "create")) }}
{{- $rules = append $rules (dict "apiGroups" (list "authorization.k8s.io") "resources" (list "subjectaccessreviews") "verbs" (list "create")) }}
{{- end }}
{{- if .Values.collectors.volume.claims }}
{{- $rules = append $rules (dict "apiGroups" (list "") "resources" (list "persistentvolumes") "verbs" (list "get")) }}
{{- end }}
{{- toJson (dict "rules" (concat $rules .Values.rbac.extraRules)) }}
{{- end }}
