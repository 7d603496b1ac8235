"""Training: stages of a recipe, one after another, through one thin subclass of transformers' Trainer."""
