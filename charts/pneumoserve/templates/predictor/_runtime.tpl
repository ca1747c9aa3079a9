{{/* The name carries the content: neither an upgrade nor a changed value edits a runtime under a running release. */}}
{{- define "pneumoserve.runtimeName" -}}
{{- $version := regexReplaceAll "[^a-z0-9]+" (lower .Chart.AppVersion) "-" | trimSuffix "-" -}}
{{- $digest := include "pneumoserve.runtimeSpec" . | fromYaml | toJson | sha256sum | trunc 8 -}}
{{- $mode := ternary "-knative" "" (eq .Values.mode "Knative") -}}
{{- printf "%s-%s%s-%s" (include "pneumoserve.fullname" .) $version $mode $digest -}}
{{- end -}}

{{/*
The spec of the ServingRuntime, as Standard mode has it. KServe takes containers, volumes, nodeSelector, affinity,
tolerations and imagePullSecrets from it; what else a pod needs stands in the InferenceService.
*/}}
{{- define "pneumoserve.standardRuntimeSpec" -}}
{{- $lock := "/run/pneumoserve/front.lock" -}}
{{- $inprocess := eq .Values.engine "inprocess" -}}
{{- $probe := list "python" "-m" "pneumoserve.models.probe" -}}
{{- if $inprocess -}}
{{- $probe = append $probe (printf "--sockets=%s" (include "pneumoserve.modelSockets" .)) -}}
{{- end -}}
supportedModelFormats:
  # No autoSelect: an InferenceService names the runtime it was tested with.
  - name: pneumonia-release
    version: "1"
    autoSelect: false
protocolVersions: [v1, v2, grpc-v2]
multiModel: false
{{- with .Values.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.affinity }}
affinity: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with include "pneumoserve.pullSecrets" . }}
imagePullSecrets: {{- . | nindent 2 }}
{{- end }}
containers:
  # TorchServe on loopback, or workers on sockets: no port, no credential. kubelet reaches neither, so a command asks.
  - name: kserve-container
    image: {{ include "pneumoserve.image" (list . .Values.images.models) | quote }}
    imagePullPolicy: {{ .Values.images.pullPolicy }}
    args:
      - {{ include "pneumoserve.releaseArgument" . }}
      - --workers={{ .Values.models.workers }}
      {{- if $inprocess }}
      - --engine=inprocess
      - --sockets={{ include "pneumoserve.modelSockets" . }}
      {{- end }}
    env: {{- include "pneumoserve.logEnvironment" . | nindent 6 }}
      {{- with .Values.models.extraEnv }}
      {{- toYaml . | nindent 6 }}
      {{- end }}
    startupProbe:
      exec:
        command: {{ toJson $probe }}
      periodSeconds: 2
      timeoutSeconds: 10
      failureThreshold: 150
    readinessProbe:
      exec:
        command: {{ toJson $probe }}
      periodSeconds: 10
      timeoutSeconds: 10
      failureThreshold: 3
    # Java, or a worker, that hangs: within a minute, and without the preStop hook's wait for a front that needs it.
    livenessProbe:
      exec:
        command: {{ append $probe "--alive" | toJson }}
      periodSeconds: 15
      timeoutSeconds: 10
      failureThreshold: 3
      terminationGracePeriodSeconds: 5
    lifecycle:
      preStop:
        # A front that ends still answers calls that need the models.
        exec:
          {{- $seconds := sub .Values.terminationGracePeriodSeconds 10 }}
          command: [python, -m, pneumoserve.drain, --lock={{ $lock }}, --seconds={{ $seconds }}]
    terminationMessagePolicy: FallbackToLogsOnError
    resources: {{- toYaml .Values.models.resources | nindent 6 }}
    securityContext: {{- include "pneumoserve.containerSecurity" . | nindent 6 }}
    volumeMounts:
      - name: trust
        mountPath: /etc/pneumoserve/trust
        readOnly: true
      - name: run
        mountPath: /run/pneumoserve
      - name: models-tmp
        mountPath: /tmp
      {{- with .Values.models.extraVolumeMounts }}
      {{- toYaml . | nindent 6 }}
      {{- end }}
  # KServe publishes the first port as the Service's port 80, and the second, by its name, as 8081 for HTTP/2 without
  # TLS.
  - name: transformer-container
    image: {{ include "pneumoserve.image" (list . .Values.images.front) | quote }}
    imagePullPolicy: {{ .Values.images.pullPolicy }}
    args:
      - --drain-lock={{ $lock }}
      - {{ include "pneumoserve.releaseArgument" . }}
      {{- if $inprocess }}
      - --engine=inprocess
      - --models-sockets={{ include "pneumoserve.modelSockets" . }}
      {{- end }}
      {{- range .Values.front.proxies }}
      - --proxy={{ . }}
      {{- end }}
      {{- range .Values.front.corsOrigins }}
      - {{ printf "--cors-origin=%s" . | quote }}
      {{- end }}
      {{- if ne .Values.route.signIn.method "none" }}
      - --subject-header={{ include "pneumoserve.subjectHeader" . }}
      {{- if .Values.route.signIn.gatewaySecret }}
      - --gateway-secret=/etc/pneumoserve/gateway/credential
      {{- end }}
      {{- end }}
      {{- if .Values.alerts.enabled }}
      - --envelope-key=/etc/pneumoserve/envelope/envelope.pub.pem
      - --alert-hint={{ include "pneumoserve.fullname" . }}-alerts:{{ include "pneumoserve.hintPort" . }}
      {{- end }}
      {{- if .Values.archive.journal.existingClaim }}
      - --journal=/journal
      - --journal-bytes={{ include "pneumoserve.bytes" (.Values.archive.journal.limit | default "1Gi") }}
      {{- end }}
      {{- if .Values.archive.lock.days }}
      - --lock-days={{ .Values.archive.lock.days }}
      - --lock-mode={{ .Values.archive.lock.mode }}
      {{- end }}
    ports:
      - name: http1
        containerPort: 8080
        protocol: TCP
      - name: h2c
        containerPort: 8081
        protocol: TCP
      - name: metrics
        containerPort: 8082
        protocol: TCP
    env: {{- include "pneumoserve.storeEnvironment" . | nindent 6 }}
      {{- include "pneumoserve.logEnvironment" . | nindent 6 }}
      {{- with include "pneumoserve.traceEnvironment" . }}
      {{- . | nindent 6 }}
      {{- end }}
      {{- with .Values.front.extraEnv }}
      {{- toYaml . | nindent 6 }}
      {{- end }}
    startupProbe:
      httpGet:
        path: /v2/health/live
        port: 8080
      periodSeconds: 1
      timeoutSeconds: 5
      failureThreshold: 300
    readinessProbe:
      httpGet:
        path: /v2/health/ready
        port: 8080
      periodSeconds: 2
      timeoutSeconds: 5
      failureThreshold: 3
    livenessProbe:
      httpGet:
        path: /v2/health/live
        port: 8080
      periodSeconds: 10
      timeoutSeconds: 10
      failureThreshold: 6
    lifecycle:
      preStop:
        sleep:
          seconds: {{ .Values.front.preStopSeconds }}
    terminationMessagePolicy: FallbackToLogsOnError
    resources: {{- toYaml .Values.front.resources | nindent 6 }}
    securityContext: {{- include "pneumoserve.containerSecurity" . | nindent 6 }}
    volumeMounts:
      - name: trust
        mountPath: /etc/pneumoserve/trust
        readOnly: true
      - name: archive-key
        mountPath: /etc/pneumoserve/archive
        readOnly: true
      - name: reference-key
        mountPath: /etc/pneumoserve/reference
        readOnly: true
      {{- if .Values.route.signIn.gatewaySecret }}
      - name: gateway-secret
        mountPath: /etc/pneumoserve/gateway
        readOnly: true
      {{- end }}
      {{- if .Values.alerts.enabled }}
      - name: envelope-key
        mountPath: /etc/pneumoserve/envelope
        readOnly: true
      {{- end }}
      {{- with include "pneumoserve.storeMount" . }}
      {{- . | nindent 6 }}
      {{- end }}
      {{- if .Values.archive.journal.existingClaim }}
      - name: journal
        mountPath: /journal
      {{- end }}
      - name: run
        mountPath: /run/pneumoserve
      - name: front-tmp
        mountPath: /tmp
      {{- with .Values.front.extraVolumeMounts }}
      {{- toYaml . | nindent 6 }}
      {{- end }}
volumes:
  - name: trust
    configMap:
      name: {{ include "pneumoserve.trustName" . }}
  - name: archive-key
    secret:
      secretName: {{ include "pneumoserve.keySecret" (list . "signing") }}
      items:
        - key: key.pem
          path: key.pem
  - name: reference-key
    secret:
      secretName: {{ include "pneumoserve.keySecret" (list . "references") }}
      items:
        - key: key
          path: key
  {{- with .Values.route.signIn.gatewaySecret }}
  - name: gateway-secret
    secret:
      secretName: {{ . }}
      items:
        - key: credential
          path: credential
  {{- end }}
  {{- if .Values.alerts.enabled }}
  - name: envelope-key
    secret:
      secretName: {{ include "pneumoserve.reviewKeys" . }}
      items:
        - key: envelope.pub.pem
          path: envelope.pub.pem
  {{- end }}
  {{- with include "pneumoserve.storeVolume" . }}
  {{- . | nindent 2 }}
  {{- end }}
  {{- with .Values.archive.journal.existingClaim }}
  - name: journal
    persistentVolumeClaim:
      claimName: {{ . }}
  {{- end }}
  - name: run
    emptyDir: {}
  - name: models-tmp
    emptyDir: {}
  - name: front-tmp
    emptyDir: {}
  {{- with concat .Values.front.extraVolumes .Values.models.extraVolumes | uniq }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end -}}

{{/* The folder of the workers' sockets, in the volume that both containers see. */}}
{{- define "pneumoserve.modelSockets" -}}
/run/pneumoserve/models
{{- end -}}

{{/*
Which release a pod must run, as its InferenceService says; KServe fills it in. Who can write to the store could put
another one, signed as well, where the pod's files come from.
*/}}
{{- define "pneumoserve.releaseArgument" -}}
{{ printf "--release-id={{.Labels.%s}}" (include "pneumoserve.releaseLabel" .) | quote }}
{{- end -}}

{{/* The label that says so. Its name is a word of Go's templates, which KServe's placeholders are. */}}
{{- define "pneumoserve.releaseLabel" -}}
pneumoserve_release
{{- end -}}

{{/* A release as KServe's model: {{ include "pneumoserve.releaseModel" (list . "0123456789ab") }} */}}
{{- define "pneumoserve.releaseModel" -}}
{{- $root := index . 0 -}}
modelFormat:
  name: pneumonia-release
  version: "1"
protocolVersion: v2
runtime: {{ include "pneumoserve.runtimeName" $root }}
storageUri: s3://{{ $root.Values.s3.bucket }}/releases/{{ index . 1 }}
{{- end -}}

{{/* How a release's pods are spread, by their common label: {{ include "pneumoserve.spread" (list . "app: x") }} */}}
{{- define "pneumoserve.spread" -}}
{{- $spread := (index . 0).Values.topologySpread -}}
- maxSkew: {{ $spread.maxSkew }}
  topologyKey: {{ $spread.topologyKey }}
  whenUnsatisfiable: {{ $spread.whenUnsatisfiable }}
  labelSelector:
    matchLabels:
      {{ index . 1 }}
  # While pods are replaced, the new ones are spread among themselves.
  matchLabelKeys: [pod-template-hash]
{{- end -}}
