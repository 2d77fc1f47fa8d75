"""Directions in W that mean something: found, calibrated in standard deviations, measured, saved with their model."""
