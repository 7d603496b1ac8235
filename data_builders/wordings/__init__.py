"""Wordings of questions, as YAML data files."""
