{{- "<bos_token>" }}
{{- $before := "" }}
{{- range .Messages }}
{{- if and (eq $before "") (ne .Role "system") }}{{ "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n" }}
{{- end }}
{{- if eq .Role "system" }}{{ .Content }}
{{- else if eq .Role "user" }}{{ "### Instruction:\n" }}{{ .Content }}
{{- else if eq .Role "tool" }}{{ "### Input:\n" }}{{ .Content }}
{{- else }}{{ "### Response:\n" }}{{ .Content }}{{ "<eos_token>" }}
{{- end }}
{{- "\n\n" }}
{{- $before = .Role }}
{{- end }}
{{- "### Response:\n" }}
