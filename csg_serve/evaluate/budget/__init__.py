"""Accuracy from few labels: which images to label, the plan and its labels, and the estimates."""
