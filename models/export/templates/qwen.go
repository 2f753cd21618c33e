{{- $before := "" }}
{{- range .Messages }}
{{- if and (eq $before "") (ne .Role "system") }}{{ "<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>\n" }}
{{- end }}
{{- if eq .Role "tool" }}
{{- if ne $before "tool" }}{{ "<|im_start|>user" }}{{ end }}
{{- "\n<tool_response>\n" }}{{ .Content }}{{ "\n</tool_response>" }}
{{- else }}
{{- if eq $before "tool" }}{{ "<|im_end|>\n" }}{{ end }}
{{- "<|im_start|>" }}{{ .Role }}{{ "\n" }}{{ .Content }}{{ "<|im_end|>\n" }}
{{- end }}
{{- $before = .Role }}
{{- end }}
{{- if eq $before "tool" }}{{ "<|im_end|>\n" }}{{ end }}
{{- "<|im_start|>assistant\n" }}
