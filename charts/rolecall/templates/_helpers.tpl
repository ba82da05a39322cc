{{- define "rolecall.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{/* Names are truncated so that suffixes fit. */}}
{{- define "rolecall.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 45 | trimSuffix "-" }}
{{- else if contains (include "rolecall.name" .) .Release.Name }}
{{- .Release.Name | trunc 45 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name (include "rolecall.name" .) | trunc 45 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "rolecall.selectorLabels" -}}
app.kubernetes.io/name: {{ include "rolecall.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "rolecall.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{ include "rolecall.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "rolecall.serviceAccountName" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "rolecall.fullname" .) .Values.serviceAccount.name }}
{{- else }}
{{- default "default" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{- define "rolecall.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ default .Chart.AppVersion .Values.image.tag }}
{{- end }}
{{- end }}

{{- define "rolecall.claimName" -}}
{{- default (printf "%s-database" (include "rolecall.fullname" .)) .Values.database.sqlite.existingClaim }}
{{- end }}

{{/* Rules that a schema cannot refuse with a reason. */}}
{{- define "rolecall.validate" -}}
{{- if gt (int .Values.replicas) 1 }}
{{- fail (printf "replicas: %d is not possible with SQLite: its one file has one writer, and the volume one node. Set replicas to 1" (int .Values.replicas)) }}
{{- end }}
{{- if eq (int .Values.ports.scim) (int .Values.ports.admin) }}
{{- fail (printf "ports: scim and admin are both %d: the admin port answers without authentication and must not be the one that is exposed. Choose another port" (int .Values.ports.scim)) }}
{{- end }}
{{- if or (eq (int .Values.ports.probe) (int .Values.ports.scim)) (eq (int .Values.ports.probe) (int .Values.ports.admin)) }}
{{- fail (printf "ports: probe is %d, which is the port of scim or admin: probes have a port of their own. Choose another one" (int .Values.ports.probe)) }}
{{- end }}
{{- if and .Values.google.endpoint (eq .Values.google.credentials "adc") (not (regexMatch "^https://[^/]+\\.googleapis\\.com(:443)?(/|$)" .Values.google.endpoint)) }}
{{- fail (printf "google.credentials: adc is sent to https://*.googleapis.com only, and google.endpoint is %s. Set google.credentials to none for an emulator" .Values.google.endpoint) }}
{{- end }}
{{- if and .Values.ingress.enabled (not .Values.ingress.hosts) }}
{{- fail "ingress.hosts: is empty: an Ingress without a host would take /idp/ of every other host. Name the host of externalUrl" }}
{{- end }}
{{- if and .Values.httpRoute.enabled (not .Values.httpRoute.parentRefs) }}
{{- fail "httpRoute.parentRefs: is empty: a route belongs to at least one Gateway. Name it, such as [{name: public, namespace: gateways}]" }}
{{- end }}
{{- if and (not .Values.serviceAccount.create) (not .Values.serviceAccount.name) }}
{{- fail "serviceAccount.name: is empty and serviceAccount.create is false: the ServiceAccount `default` would get rolecall's rights. Name the one to use" }}
{{- end }}
{{- end }}
