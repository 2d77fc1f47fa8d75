"""Ways to run the pieces of a synthesis network: PyTorch on a processor or a GPU, OpenVINO; and the walk over them."""
