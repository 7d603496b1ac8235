"""Recipes of sets that come with the toolkit: `lalm data build NAME`."""
