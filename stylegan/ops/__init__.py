"""Pure tensor functions that the networks are made of; all differentiable twice."""

from stylegan.device import settle_vector_math

settle_vector_math()
