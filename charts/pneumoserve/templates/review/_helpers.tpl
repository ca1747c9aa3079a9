{{/* Whether console, alert sender or sample Job runs, as "true" or nothing. */}}
{{- define "pneumoserve.hasReview" -}}
{{- if or .Values.console.enabled .Values.alerts.enabled .Values.sample.enabled -}}
true
{{- end -}}
{{- end -}}

{{/* The Secret of the keys of sessions, draws, links and envelopes. */}}
{{- define "pneumoserve.reviewKeys" -}}
{{- .Values.review.keys.existingSecret | default (printf "%s-review-keys" (include "pneumoserve.fullname" .)) -}}
{{- end -}}

{{/* The port at which the alert sender hears of answers that may alert (UDP). */}}
{{- define "pneumoserve.hintPort" -}}
9125
{{- end -}}

{{/* The host name by which browsers ask for the console. */}}
{{- define "pneumoserve.consoleHost" -}}
{{- (urlParse .Values.console.url).hostname -}}
{{- end -}}

{{/* The port of the provider by which people sign in at the console. */}}
{{- define "pneumoserve.signInPort" -}}
{{- include "pneumoserve.portOf" .Values.console.signIn.issuer -}}
{{- end -}}

{{/* Names of the files that the alert policy's channels want beside it, as a JSON list. */}}
{{- define "pneumoserve.alertFiles" -}}
{{- $files := list -}}
{{- range .Values.alerts.policy.channels -}}
{{- range $key, $value := . -}}
{{- if hasSuffix "File" $key -}}{{- $files = append $files $value -}}{{- end -}}
{{- end -}}
{{- end -}}
{{- $files | uniq | sortAlpha | toJson -}}
{{- end -}}

{{/*
What a pod of console, alert sender or their Jobs has, as its spec. A part says its name, command and resources, the
credential by which it reaches the store, and which of the keys it has. It may say what its container has beside,
further folders by path, each a volume, which one of them it writes (`out`), which of the usual folders it goes without,
and that it works alone, with no database of others:
{{ include "pneumoserve.reviewPod" (list . $part) }}
*/}}
{{- define "pneumoserve.reviewPod" -}}
{{- $part := index . 1 -}}
{{- with index . 0 -}}
{{- $fullname := include "pneumoserve.fullname" . -}}
{{- $review := .Values.review -}}
{{- $keys := list -}}
{{- range $part.keys -}}{{- $keys = append $keys (dict "key" . "path" .) -}}{{- end -}}
{{- $signing := dict "secretName" (include "pneumoserve.keySecret" (list . "signing")) -}}
{{- $_ := set $signing "items" (list (dict "key" "key.pem" "path" "key.pem")) -}}
{{- $folders := dict
    "/etc/pneumoserve/archive" (dict "secret" $signing)
    "/etc/pneumoserve/archive-trust" (include "pneumoserve.archiveTrust" (list . "signing" "writers") | fromYaml)
    "/etc/pneumoserve/sealer-trust" (include "pneumoserve.archiveTrust" (list . "sealer" "sealers") | fromYaml)
    "/etc/pneumoserve/review" (dict "secret" (dict "secretName" (include "pneumoserve.reviewKeys" .) "items" $keys))
-}}
{{- range $part.without -}}{{- $folders = omit $folders . -}}{{- end -}}
{{- $folders = merge $folders ($part.folders | default dict) -}}
{{- with $review.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
serviceAccountName: {{ $fullname }}-{{ $part.name }}
automountServiceAccountToken: false
enableServiceLinks: false
securityContext: {{- include "pneumoserve.podSecurity" . | nindent 2 }}
{{- with include "pneumoserve.placement" . }}
{{ . }}
{{- end }}
containers:
  - name: {{ $part.name }}
    image: {{ include "pneumoserve.image" (list . $review.image) | quote }}
    imagePullPolicy: {{ .Values.images.pullPolicy }}
    command: {{- toYaml $part.command | nindent 6 }}
    env: {{- include "pneumoserve.storeEnvironmentOf" (list . $part.secret) | nindent 6 }}
      - name: REVIEW_DATABASE
        {{- if and $review.database.existingSecret (not $part.alone) }}
        valueFrom:
          secretKeyRef:
            name: {{ $review.database.existingSecret }}
            key: url
        {{- else }}
        # The pod's own, made anew from the archive wherever it starts.
        value: sqlite:////tmp/review.sqlite
        {{- end }}
      {{- include "pneumoserve.logEnvironment" . | nindent 6 }}
      {{- with $review.extraEnv }}
      {{- toYaml . | nindent 6 }}
      {{- end }}
    {{- with $part.container }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
    terminationMessagePolicy: FallbackToLogsOnError
    resources: {{- toYaml $part.resources | nindent 6 }}
    securityContext: {{- include "pneumoserve.containerSecurity" . | nindent 6 }}
    volumeMounts:
      {{- range $path, $_ := $folders }}
      - name: {{ base $path }}
        mountPath: {{ $path }}
        readOnly: {{ ne $path ($part.out | default "") }}
      {{- end }}
      - name: tmp
        mountPath: /tmp
      {{- with include "pneumoserve.storeMount" . }}
      {{- . | nindent 6 }}
      {{- end }}
      {{- with $review.extraVolumeMounts }}
      {{- toYaml . | nindent 6 }}
      {{- end }}
volumes:
  {{- range $path, $volume := $folders }}
  - name: {{ base $path }}
    {{- toYaml $volume | nindent 4 }}
  {{- end }}
  - name: tmp
    emptyDir: {}
  {{- with include "pneumoserve.storeVolume" . }}
  {{- . | nindent 2 }}
  {{- end }}
  {{- with $review.extraVolumes }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end -}}
{{- end -}}

{{/*
A ServiceAccount without a token, for console, alert sender or one of their Jobs:
{{ include "pneumoserve.reviewAccount" (list . "console") }}
*/}}
{{- define "pneumoserve.reviewAccount" -}}
{{- $name := index . 1 -}}
{{- with index . 0 -}}
apiVersion: v1
kind: ServiceAccount
metadata:
  name: {{ include "pneumoserve.fullname" . }}-{{ $name }}
  namespace: {{ .Release.Namespace }}
  labels:
    {{- include "pneumoserve.labels" . | nindent 4 }}
    app.kubernetes.io/component: {{ $name }}
  {{- with .Values.review.serviceAccountAnnotations }}
  annotations: {{- toYaml . | nindent 4 }}
  {{- end }}
automountServiceAccountToken: false
{{- end -}}
{{- end -}}

{{/*
The Deployment of console or alert sender, and its PodDisruptionBudget:
{{ include "pneumoserve.reviewDeployment" (list . $part) }}
*/}}
{{- define "pneumoserve.reviewDeployment" -}}
{{- $part := index . 1 -}}
{{- with index . 0 -}}
{{- $name := printf "%s-%s" (include "pneumoserve.fullname" .) $part.name -}}
apiVersion: apps/v1
kind: Deployment
metadata:
  name: {{ $name }}
  namespace: {{ .Release.Namespace }}
  labels:
    {{- include "pneumoserve.labels" . | nindent 4 }}
    app.kubernetes.io/component: {{ $part.name }}
spec:
  replicas: {{ $part.replicas }}
  {{- if not .Values.review.database.existingSecret }}
  # Two pods that know nothing of each other would give one study to two people, or send a message twice.
  strategy:
    type: Recreate
  {{- end }}
  selector:
    matchLabels:
      {{- include "pneumoserve.selector" . | nindent 6 }}
      app.kubernetes.io/component: {{ $part.name }}
  template:
    metadata:
      labels:
        {{- include "pneumoserve.stableLabels" . | nindent 8 }}
        app.kubernetes.io/component: {{ $part.name }}
      {{- with merge (dict) ($part.annotations | default dict) .Values.review.podAnnotations }}
      annotations: {{- toYaml . | nindent 8 }}
      {{- end }}
    spec:
      {{- if .Values.topologySpread.enabled }}
      topologySpreadConstraints:
        {{- include "pneumoserve.spread" (list . (printf "app.kubernetes.io/component: %s" $part.name)) | nindent 8 }}
      {{- end }}
      {{- include "pneumoserve.reviewPod" (list . $part) | trim | nindent 6 }}
{{- if .Values.podDisruptionBudget.enabled }}
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  name: {{ $name }}
  namespace: {{ .Release.Namespace }}
  labels:
    {{- include "pneumoserve.labels" . | nindent 4 }}
    app.kubernetes.io/component: {{ $part.name }}
spec:
  maxUnavailable: 1
  selector:
    matchLabels:
      {{- include "pneumoserve.selector" . | nindent 6 }}
      app.kubernetes.io/component: {{ $part.name }}
{{- end }}
{{- end -}}
{{- end -}}

{{/*
The CronJob of a part, and its ServiceAccount; `retries` after a failure:
{{ include "pneumoserve.reviewCronJob" (list . $part $retries) }}
*/}}
{{- define "pneumoserve.reviewCronJob" -}}
{{- $part := index . 1 -}}
{{- $retries := index . 2 -}}
{{- with index . 0 -}}
{{ include "pneumoserve.reviewAccount" (list . $part.name) }}
---
apiVersion: batch/v1
kind: CronJob
metadata:
  name: {{ include "pneumoserve.fullname" . }}-{{ $part.name }}
  namespace: {{ .Release.Namespace }}
  labels:
    {{- include "pneumoserve.labels" . | nindent 4 }}
    app.kubernetes.io/component: {{ $part.name }}
spec:
  schedule: {{ (get .Values $part.name).schedule | quote }}
  concurrencyPolicy: Forbid
  successfulJobsHistoryLimit: 1
  failedJobsHistoryLimit: 3
  jobTemplate:
    metadata:
      labels:
        {{- include "pneumoserve.stableLabels" . | nindent 8 }}
        app.kubernetes.io/component: {{ $part.name }}
    spec:
      backoffLimit: {{ $retries }}
      # A failure is there to be seen for a week.
      ttlSecondsAfterFinished: 604800
      template:
        metadata:
          labels:
            {{- include "pneumoserve.stableLabels" . | nindent 12 }}
            app.kubernetes.io/component: {{ $part.name }}
          {{- with .Values.review.podAnnotations }}
          annotations: {{- toYaml . | nindent 12 }}
          {{- end }}
        spec:
          restartPolicy: Never
          {{- include "pneumoserve.reviewPod" (list . $part) | trim | nindent 10 }}
{{- end -}}
{{- end -}}
