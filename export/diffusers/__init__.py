"""Export to a folder that stock diffusers and transformers open with the package auto-round."""
