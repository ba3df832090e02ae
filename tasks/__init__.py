"""Ray work and its plain functions: footage, datasets, training, evaluation, segmentation."""
