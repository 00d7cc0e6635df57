"""Pictures: of a run when it ends, and what they share with the figures of a comparison.

palette.py         colours and markers
plots.py           names as text, legends, PNG files, a confusion matrix
curves.py          losses, scores and learning rates over the steps
samples.py         training images as the network sees them
mistakes.py        classification: the most confident mistakes
scenes.py          segmentation: images, labels and predictions side by side
run_pictures.py    all pictures of a run, by name
"""
