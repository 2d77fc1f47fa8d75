"""Training: settings, losses, augmentation, the run folder and the loop."""
