{{- "<｜begin▁of▁sentence｜>" }}
{{- $before := "" }}
{{- range .Messages }}
{{- if and (eq $before "tool") (ne .Role "tool") }}{{ "<｜tool▁outputs▁end｜>" }}{{ end }}
{{- if eq .Role "system" }}{{ .Content }}
{{- else if eq .Role "assistant" }}
{{- if ne $before "tool" }}{{ "<｜Assistant｜>" }}{{ end }}
{{- .Content }}{{ "<｜end▁of▁sentence｜>" }}
{{- else if eq .Role "tool" }}
{{- if ne $before "tool" }}{{ "<｜tool▁outputs▁begin｜>" }}{{ end }}
{{- "<｜tool▁output▁begin｜>" }}{{ .Content }}{{ "<｜tool▁output▁end｜>" }}
{{- else }}{{ "<｜User｜>" }}{{ .Content }}
{{- end }}
{{- $before = .Role }}
{{- end }}
{{- if eq $before "tool" }}{{ "<｜tool▁outputs▁end｜>" }}{{ else }}{{ "<｜Assistant｜>" }}{{ end }}
