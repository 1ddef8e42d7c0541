{{- /* The image, by its digest if there is one. */ -}}
{{- define "herald.image" -}}
{{- with .Values.image }}
{{- if .digest }}{{ .repository }}@{{ .digest }}{{ else }}{{ .repository }}:{{ .tag | default $.Chart.AppVersion }}{{ end }}
{{- end }}
{{- end }}

{{- /* The file of this name, in the release's namespace in place of herald-system. */ -}}
{{- define "herald.file" -}}
{{ .root.Files.Get (printf "files/%s.yaml" .name) | replace "herald-system" .root.Release.Namespace }}
{{- end }}
