"""Recipes: their schema, the loader, and the recipes and prompt sets that are shipped."""
