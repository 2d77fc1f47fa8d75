"""Pure tensor functions that the networks are made of; all differentiable twice."""
