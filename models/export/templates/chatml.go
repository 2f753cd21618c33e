{{- range .Messages }}
{{- if eq .Role "tool" }}{{ "<|im_start|>tool\n<tool_response>\n" }}{{ .Content }}{{ "\n</tool_response><|im_end|>\n" }}
{{- else }}{{ "<|im_start|>" }}{{ .Role }}{{ "\n" }}{{ .Content }}{{ "<|im_end|>\n" }}
{{- end }}
{{- end }}
{{- "<|im_start|>assistant\n" }}
