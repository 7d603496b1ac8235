"""Phrases of refusals and of leaked prompts: YAML files, one a language, with `refusal`, `leakage` and `markers`."""
