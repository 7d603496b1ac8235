"""Ways to reach a trained model, all through `lalm.inference`."""
