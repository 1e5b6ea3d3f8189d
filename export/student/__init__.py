"""The models we train ourselves: architecture presets, their tokenizer, their first weights."""
