"""Recipes, one YAML file a device, and the prompt sets for pipelines that bring none of their own."""
