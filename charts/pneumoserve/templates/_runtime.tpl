{{/*
The spec of the ServingRuntime, as Standard mode has it. KServe takes containers, volumes, nodeSelector, affinity, tolerations and imagePullSecrets
from it; what else a pod needs stands in the InferenceService.
*/}}
{{- define "pneumoserve.standardRuntimeSpec" -}}
{{- $lock := "/run/pneumoserve/front.lock" -}}
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
  # TorchServe on loopback: no port, no credential. kubelet cannot reach loopback, so it is asked by a command.
  - name: kserve-container
    image: {{ include "pneumoserve.image" (list . .Values.images.models) | quote }}
    imagePullPolicy: {{ .Values.images.pullPolicy }}
    args:
      - --workers={{ .Values.models.workers }}
    startupProbe:
      exec:
        command: [python, -m, pneumoserve.models.probe]
      periodSeconds: 2
      timeoutSeconds: 10
      failureThreshold: 150
    readinessProbe:
      exec:
        command: [python, -m, pneumoserve.models.probe]
      periodSeconds: 10
      timeoutSeconds: 10
      failureThreshold: 3
    lifecycle:
      preStop:
        # A front that ends still answers calls that need the models.
        exec:
          command: [python, -m, pneumoserve.drain, --lock={{ $lock }}, --seconds={{ sub .Values.terminationGracePeriodSeconds 10 }}]
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
  # KServe publishes the first port as the Service's port 80, and the second, by its name, as 8081 for HTTP/2 without TLS.
  - name: transformer-container
    image: {{ include "pneumoserve.image" (list . .Values.images.front) | quote }}
    imagePullPolicy: {{ .Values.images.pullPolicy }}
    args:
      - --drain-lock={{ $lock }}
      {{- if ne .Values.route.signIn.method "none" }}
      - --subject-header={{ include "pneumoserve.subjectHeader" . }}
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
    env: {{- include "pneumoserve.storeEnvironment" . | nindent 6 }}
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

{{/* How a release's pods are spread, by the label that they share: {{ include "pneumoserve.spread" (list . "app: x") }} */}}
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
