"""Released weights of published systems, read into our model: one file each says how their names map on ours."""
