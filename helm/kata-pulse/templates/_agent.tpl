{{- /* What the agent is told, and what it needs for that: sockets, paths, arguments, configuration, capabilities. */ -}}

{{- /* Where a kind of cluster has its runtime's socket. `state` only where the agent would not find it by itself. `shims`
where containerd's shims have their sockets outside the runtime's own directory. `kubelet` where its directory is not the
usual one. */ -}}
{{- define "kata-pulse.distribution" -}}
{{- $k3s := dict "socket" "/run/k3s/containerd/containerd.sock" "shims" true }}
{{- $all := dict
  "k8s" (dict "socket" "/run/containerd/containerd.sock" "shims" false)
  "k3s" $k3s
  "rke2" $k3s
  "k0s" (dict "socket" "/run/k0s/containerd.sock" "state" "/run/k0s/containerd" "shims" true "kubelet" "/var/lib/k0s/kubelet")
  "microk8s" (dict "socket" "/var/snap/microk8s/common/run/containerd.sock" "state" "/var/snap/microk8s/common/run/containerd" "shims" true "kubelet" "/var/snap/microk8s/common/var/lib/kubelet")
  "crio" (dict "socket" "/run/crio/crio.sock" "shims" false) }}
{{- toJson (get $all .Values.k8sDistribution) }}
{{- end }}

{{- /* The runtime: socket on the node, directory to mount and where, socket as the agent sees it. */ -}}
{{- define "kata-pulse.runtime" -}}
{{- $distribution := include "kata-pulse.distribution" . | fromJson }}
{{- $socket := .Values.runtime.endpoint | default $distribution.socket | trimPrefix "unix://" }}
{{- $mount := .Values.hostPaths.runtime }}
{{- $out := dict "mounted" (and $mount.enabled (ne $socket "none")) "endpoint" $socket }}
{{- if $out.mounted }}
{{- $path := $mount.path | default (dir $socket) | clean }}
{{- $mountPath := $mount.mountPath | default $path | clean }}
{{- if not (hasPrefix (printf "%s/" (trimSuffix "/" $path)) $socket) }}
{{- fail (printf "hostPaths.runtime.path %s does not contain the runtime's socket %s" $path $socket) }}
{{- end }}
{{- $_ := set $out "path" $path }}
{{- $_ := set $out "mountPath" $mountPath }}
{{- $_ := set $out "endpoint" (printf "unix://%s" (clean (printf "%s/%s" $mountPath (trimPrefix $path $socket)))) }}
{{- end }}
{{- toJson $out }}
{{- end }}

{{- /* The kubelet's directory on the node. */ -}}
{{- define "kata-pulse.kubeletDir" -}}
{{- with .Values.hostPaths.kubeletPods.path }}{{ dir . }}
{{- else }}{{ (include "kata-pulse.distribution" . | fromJson).kubelet | default "/var/lib/kubelet" }}
{{- end }}
{{- end }}

{{- /* What is mounted from the node, by volume name, sorted: {mounts: [{name, path, mountPath, type, mountPropagation}]} */ -}}
{{- define "kata-pulse.hostMounts" -}}
{{- $root := . }}
{{- $runtime := include "kata-pulse.runtime" . | fromJson }}
{{- $distribution := include "kata-pulse.distribution" . | fromJson }}
{{- $mounts := list }}
{{- range $key, $given := .Values.hostPaths }}
{{- $mount := merge (dict "name" (printf "host-%s" (kebabcase $key))) $given }}
{{- $wanted := $given.enabled }}
{{- if eq $key "runtime" }}
{{- $wanted = $runtime.mounted }}
{{- if $wanted }}{{ $mount = mergeOverwrite $mount (pick $runtime "path" "mountPath") }}{{ end }}
{{- else if eq $key "shimSockets" }}
{{- $wanted = and $wanted $distribution.shims }}
{{- else if eq $key "kubeletPods" }}
{{- $wanted = and $wanted (or $root.Values.collectors.volume.enabled $root.Values.collectors.emptydir.enabled) }}
{{- $pods := printf "%s/pods" (include "kata-pulse.kubeletDir" $root) }}
{{- $mount = mergeOverwrite $mount (dict "path" $pods "mountPath" (printf "/host%s" $pods)) }}
{{- else if eq $key "kataDirectVolumes" }}
{{- $wanted = and $wanted $root.Values.collectors.volume.enabled }}
{{- end }}
{{- if $wanted }}{{ $mounts = append $mounts $mount }}{{ end }}
{{- end }}
{{- toJson (dict "mounts" $mounts) }}
{{- end }}

{{- /* The run directory, which the mount paths of what lies in it must agree on. */ -}}
{{- define "kata-pulse.runDir" -}}
{{- $places := dict "kataGo" "/vc/sbs" "kataGoVm" "/vc/vm" "kataGoFirecracker" "/vc/firecracker" "kataRs" "/kata" }}
{{- if (include "kata-pulse.distribution" . | fromJson).shims }}{{ $_ := set $places "shimSockets" "/containerd/s" }}{{ end }}
{{- if .Values.collectors.volume.enabled }}{{ $_ := set $places "kataDirectVolumes" "/kata-containers/shared/direct-volumes" }}{{ end }}
{{- $found := list }}
{{- range $key, $end := $places }}
{{- $mount := get $.Values.hostPaths $key }}
{{- if $mount.enabled }}
{{- if not (hasSuffix $end $mount.mountPath) }}
{{- fail (printf "hostPaths.%s.mountPath %s does not end in %s, where the agent looks below its run directory" $key $mount.mountPath $end) }}
{{- end }}
{{- $found = append $found (trimSuffix $end $mount.mountPath | default "/") }}
{{- end }}
{{- end }}
{{- if gt (len (uniq $found)) 1 }}
{{- fail (printf "mount paths of hostPaths.kataGo, kataGoVm, kataGoFirecracker, kataRs, shimSockets and kataDirectVolumes lie below different run directories: %s" (join ", " (uniq $found | sortAlpha))) }}
{{- end }}
{{- $found | first | default "/run" }}
{{- end }}

{{- /* What collectors need beyond root. */ -}}
{{- define "kata-pulse.securityContext" -}}
{{- $context := deepCopy .Values.securityContext }}
{{- $needed := list }}
{{- if .Values.collectors.fd.enabled }}{{ $needed = list "DAC_READ_SEARCH" "SYS_PTRACE" }}{{ end }}
{{- if .Values.collectors.emptydir.enabled }}{{ $needed = append $needed "DAC_READ_SEARCH" }}{{ end }}
{{- if .Values.collectors.kata.processIo }}{{ $needed = append $needed "SYS_PTRACE" }}{{ end }}
{{- if $needed }}
{{- $capabilities := $context.capabilities | default dict }}
{{- $_ := set $capabilities "add" (concat ($capabilities.add | default list) $needed | uniq | sortAlpha) }}
{{- $_ := set $context "capabilities" $capabilities }}
{{- end }}
{{- toYaml $context }}
{{- end }}

{{- /* The configuration file: what may change without another mount or port. */ -}}
{{- define "kata-pulse.config" -}}
{{- $config := dict "log-level" .Values.logLevel "log-format" .Values.logFormat "scope" .Values.scope "shim-scrape" .Values.collectors.shim.scrape }}
{{- $on := list }}{{ $off := list }}
{{- range $name := list "cgroup" "emptydir" "fd" "filesystem" "kata" "machine" "network" "node" "process" "top" "volume" }}
{{- if (get $.Values.collectors $name).enabled }}{{ $on = append $on $name }}{{ else }}{{ $off = append $off $name }}{{ end }}
{{- end }}
{{- $_ := set $config "enable-collectors" $on }}
{{- $_ := set $config "disable-collectors" $off }}
{{- toYaml (mergeOverwrite $config (deepCopy .Values.config)) }}
{{- end }}

{{- define "kata-pulse.configMapName" -}}
{{- .Values.existingConfigMap | default (include "kata-pulse.fullname" .) }}
{{- end }}

{{- /* The secret with the certificate, or nothing: plain or self-signed. */ -}}
{{- define "kata-pulse.certificateSecret" -}}
{{- if .Values.tls.enabled }}
{{- if .Values.tls.existingSecret }}{{ .Values.tls.existingSecret }}
{{- else if .Values.tls.certificate.enabled }}{{ include "kata-pulse.suffixed" (list . "tls") }}
{{- end }}
{{- end }}
{{- end }}

{{- define "kata-pulse.selfSigned" -}}
{{- $ours := .Values.webConfig.tls_server_config | default dict }}
{{- if and .Values.tls.enabled (not (include "kata-pulse.certificateSecret" .)) (not $ours) (not .Values.existingWebConfigSecret) }}true{{ end }}
{{- end }}

{{- /* The web configuration file, or nothing. */ -}}
{{- define "kata-pulse.webConfig" -}}
{{- $web := dict }}
{{- if include "kata-pulse.certificateSecret" . }}
{{- $server := dict "cert_file" "/etc/kata-pulse/tls/tls.crt" "key_file" "/etc/kata-pulse/tls/tls.key" "min_version" .Values.tls.minVersion }}
{{- if .Values.tls.clientAuth.enabled }}
{{- $_ := set $server "client_auth_type" "RequireAndVerifyClientCert" }}
{{- $_ := set $server "client_ca_file" (printf "/etc/kata-pulse/client-ca/%s" .Values.tls.clientAuth.caKey) }}
{{- with .Values.tls.clientAuth.allowedSans }}{{ $_ := set $server "client_allowed_sans" . }}{{ end }}
{{- end }}
{{- $_ := set $web "tls_server_config" $server }}
{{- end }}
{{- with .Values.basicAuth.users }}{{ $_ := set $web "basic_auth_users" . }}{{ end }}
{{- with mergeOverwrite $web (deepCopy .Values.webConfig) }}{{ toYaml . }}{{ end }}
{{- end }}

{{- /* The secret with the web configuration, or nothing. */ -}}
{{- define "kata-pulse.webSecret" -}}
{{- if .Values.existingWebConfigSecret }}{{ .Values.existingWebConfigSecret }}
{{- else if include "kata-pulse.webConfig" . }}{{ include "kata-pulse.suffixed" (list . "web") }}
{{- end }}
{{- end }}

{{- /* Whether probes have a plain listener of their own: "true" or nothing. The kubelet has no client certificate. */ -}}
{{- define "kata-pulse.healthListener" -}}
{{- if eq .Values.health.separateListener "always" }}true
{{- else if eq .Values.health.separateListener "auto" }}
{{- $web := include "kata-pulse.webConfig" . | fromYaml }}
{{- if hasPrefix "Require" (($web.tls_server_config | default dict).client_auth_type | default "") }}true{{ end }}
{{- end }}
{{- end }}

{{- define "kata-pulse.scheme" -}}
{{- if or .Values.tls.enabled .Values.webConfig.tls_server_config }}https{{ else }}http{{ end }}
{{- end }}

{{- define "kata-pulse.args" -}}
{{- $runtime := include "kata-pulse.runtime" . | fromJson -}}
- --config=/etc/kata-pulse/config/config.yaml
- --listen-address={{ .Values.listen.address }}:{{ .Values.listen.port }}
- --host-root=/host
{{- if .Values.hostPaths.proc.enabled }}
- --procfs={{ .Values.hostPaths.proc.mountPath }}
{{- end }}
{{- if .Values.hostPaths.cgroup.enabled }}
- --cgroupfs={{ .Values.hostPaths.cgroup.mountPath }}
{{- end }}
- --run-dir={{ include "kata-pulse.runDir" . }}
- --runtime-endpoint={{ $runtime.endpoint }}
{{- with .Values.runtime.containerdState | default (include "kata-pulse.distribution" . | fromJson).state }}
- --containerd-state={{ . }}
{{- end }}
{{- if include "kata-pulse.healthListener" . }}
- --health-listen-address={{ .Values.listen.address }}:{{ .Values.health.port }}
{{- end }}
{{- if include "kata-pulse.selfSigned" . }}
- --tls-self-signed
{{- end }}
{{- if include "kata-pulse.webSecret" . }}
- --web-config=/etc/kata-pulse/web/web-config.yaml
{{- end }}
{{- if .Values.auth.kubernetes.enabled }}
- --auth-kubernetes
{{- end }}
{{- if or .Values.collectors.volume.enabled .Values.collectors.emptydir.enabled }}
- --kubelet-dir=/host{{ include "kata-pulse.kubeletDir" . }}
{{- end }}
{{- if .Values.collectors.volume.claims }}
- --volume-claims
{{- end }}
{{- range .Values.extraArgs }}
- {{ tpl . $ | quote }}
{{- end }}
{{- end }}

{{- /* A probe: (list . "livez" $settings). Health paths need no authentication. */ -}}
{{- define "kata-pulse.probe" -}}
{{- $root := index . 0 }}
{{- $get := dict "path" (printf "/%s" (index . 1)) "port" $root.Values.service.portName "scheme" (include "kata-pulse.scheme" $root | upper) }}
{{- if include "kata-pulse.healthListener" $root }}{{ $get = dict "path" $get.path "port" "health" "scheme" "HTTP" }}{{ end }}
{{- toYaml (merge (dict "httpGet" $get) (index . 2)) }}
{{- end }}

{{- /* What cannot work is said here, in one line, before anything is rendered. */ -}}
{{- define "kata-pulse.validate" -}}
{{- $tls := .Values.tls }}
{{- if and .Values.podMonitor.enabled .Values.serviceMonitor.enabled }}
{{- fail "podMonitor.enabled and serviceMonitor.enabled exclude each other: every sample would be scraped twice" }}
{{- end }}
{{- if and .Values.serviceMonitor.enabled (not .Values.service.enabled) }}
{{- fail "serviceMonitor.enabled needs service.enabled" }}
{{- end }}
{{- if and (eq .Values.scope "kata") (not .Values.collectors.kata.enabled) }}
{{- fail "scope kata without collectors.kata.enabled measures nothing" }}
{{- end }}
{{- if and .Values.collectors.volume.claims (not .Values.collectors.volume.enabled) }}
{{- fail "collectors.volume.claims needs collectors.volume.enabled" }}
{{- end }}
{{- if and $tls.existingSecret $tls.certificate.enabled }}
{{- fail "tls.existingSecret and tls.certificate.enabled exclude each other" }}
{{- end }}
{{- if and $tls.certificate.enabled (not $tls.enabled) }}
{{- fail "tls.certificate.enabled needs tls.enabled" }}
{{- end }}
{{- if and $tls.certificate.enabled (not $tls.certificate.issuerRef.name) }}
{{- fail "tls.certificate.enabled needs tls.certificate.issuerRef.name" }}
{{- end }}
{{- if $tls.clientAuth.enabled }}
{{- if not (include "kata-pulse.certificateSecret" .) }}
{{- fail "tls.clientAuth.enabled needs tls.enabled with tls.existingSecret or tls.certificate.enabled" }}
{{- end }}
{{- if not $tls.clientAuth.caSecret }}
{{- fail "tls.clientAuth.enabled needs tls.clientAuth.caSecret" }}
{{- end }}
{{- end }}
{{- if and .Values.existingWebConfigSecret (or .Values.webConfig .Values.basicAuth.users (include "kata-pulse.certificateSecret" .)) }}
{{- fail "existingWebConfigSecret excludes webConfig, basicAuth.users, tls.existingSecret and tls.certificate: it is the whole file" }}
{{- end }}
{{- if and (include "kata-pulse.healthListener" .) (eq (int .Values.health.port) (int .Values.listen.port)) }}
{{- fail "health.port and listen.port must differ" }}
{{- end }}
{{- range $name := list "podMonitor" "serviceMonitor" }}
{{- $monitor := get $.Values $name }}
{{- if and $monitor.enabled $.Values.kubeletCompat.enabled (not $monitor.honorLabels) (not $.Values.kubeletCompat.restoreExportedLabels) }}
{{- fail (printf "kubeletCompat.enabled needs %s.honorLabels, or kubeletCompat.restoreExportedLabels" $name) }}
{{- end }}
{{- if and $monitor.enabled (not $monitor.scrapeClass) }}
{{- if and (include "kata-pulse.certificateSecret" $) (not $monitor.tlsConfig) }}
{{- fail (printf "%s.tlsConfig must say how Prometheus verifies the certificate: ca and serverName, or insecureSkipVerify: true" $name) }}
{{- end }}
{{- if and $tls.clientAuth.enabled (not (and $monitor.tlsConfig.cert $monitor.tlsConfig.keySecret)) }}
{{- if not (and (eq $name "serviceMonitor") $monitor.tlsConfig.certFile $monitor.tlsConfig.keyFile) }}
{{- fail (printf "tls.clientAuth.enabled needs a client certificate in %s.tlsConfig: cert and keySecret" $name) }}
{{- end }}
{{- end }}
{{- if and $.Values.auth.kubernetes.enabled (eq $name "podMonitor") (not $monitor.authorization) (not (and $.Values.basicAuth.users $monitor.basicAuth)) }}
{{- fail "auth.kubernetes.enabled needs a token that a PodMonitor does not send by itself: set podMonitor.authorization or podMonitor.scrapeClass, or use serviceMonitor" }}
{{- end }}
{{- if and $.Values.basicAuth.users (not $.Values.auth.kubernetes.enabled) (not $monitor.basicAuth) }}
{{- fail (printf "basicAuth.users needs %s.basicAuth: the secret with Prometheus' user name and password" $name) }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
