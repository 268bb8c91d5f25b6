"""Evaluation of label maps: accuracies, IoU, VOC submissions, and the results in the paper."""
