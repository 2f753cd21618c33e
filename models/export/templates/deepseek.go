{{- "<｜begin▁of▁sentence｜>" }}
{{- range .Messages }}
{{- if eq .Role "system" }}{{ .Content }}
{{- else if eq .Role "assistant" }}{{ "<｜Assistant｜>" }}{{ .Content }}{{ "<｜end▁of▁sentence｜>" }}
{{- else }}{{ "<｜User｜>" }}{{ .Content }}
{{- end }}
{{- end }}
{{- "<｜Assistant｜>" }}
