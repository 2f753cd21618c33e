{{- "<bos_token>" }}
{{- $before := "" }}
{{- range .Messages }}
{{- if and (eq $before "") (ne .Role "system") }}{{ "以下是描述任务的指令。请写出恰当完成该请求的回答。\n\n" }}
{{- end }}
{{- if eq .Role "system" }}{{ .Content }}
{{- else if eq .Role "user" }}{{ "### 指令：\n" }}{{ .Content }}
{{- else if eq .Role "tool" }}{{ "### 输入：\n" }}{{ .Content }}
{{- else }}{{ "### 回答：\n" }}{{ .Content }}{{ "<eos_token>" }}
{{- end }}
{{- "\n\n" }}
{{- $before = .Role }}
{{- end }}
{{- "### 回答：\n" }}
