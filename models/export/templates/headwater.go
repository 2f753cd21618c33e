{{- "<|bos|>" }}
{{- range .Messages }}
{{- if eq .Role "tool" }}{{ "<|tool_result|>" }}{{ .Content }}{{ "<|/tool_result|>" }}
{{- else }}{{ "<|" }}{{ .Role }}{{ "|>" }}{{ .Content }}{{ "<|end|>" }}
{{- end }}
{{- end }}
{{- "<|assistant|>" }}
