"""Answering: batched generation, scoring of given answers, and one conversation kept open.

Evaluation, the terminal chat and any server go through these files; none of them assembles a prompt itself.
"""
