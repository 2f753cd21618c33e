{{- "<bos_token>" }}
{{- $system := "" }}
{{- range .Messages }}
{{- if eq .Role "system" }}{{ $system = .Content }}
{{- else if eq .Role "user" }}{{ "[INST] " }}
{{- if ne $system "" }}{{ $system }}{{ "\n\n" }}{{ $system = "" }}{{ end }}
{{- .Content }}{{ "[/INST]" }}
{{- else if eq .Role "assistant" }}{{ " " }}{{ .Content }}{{ "<eos_token>" }}
{{- else if eq .Role "tool" }}{{ "[TOOL_RESULTS] {\"content\": " }}{{ .Content }}{{ "}[/TOOL_RESULTS]" }}
{{- end }}
{{- end }}
