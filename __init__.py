"""edgepress presses text-to-image pipelines until they fit edge devices.

Importing this package is light: neither torch nor diffusers is imported. `import edgepress.loading` registers the
INT4 loader, after which `from_pretrained` reads pressed pipelines.
"""

__version__ = "0.1.0"
