{{- "<|begin_of_text|>" }}
{{- range .Messages }}
{{- "<|start_header_id|>" }}
{{- if eq .Role "tool" }}{{ "ipython" }}{{ else }}{{ .Role }}{{ end }}
{{- "<|end_header_id|>\n\n" }}{{ .Content }}{{ "<|eot_id|>" }}
{{- end }}
{{- "<|start_header_id|>assistant<|end_header_id|>\n\n" }}
