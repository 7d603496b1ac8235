"""Generates audio question-answer data: sources, scenes, questions, filters, pipeline."""
