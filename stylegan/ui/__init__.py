"""The Gradio app: one file per tab over the same frozen requests that the command line uses."""
