"""A helpful error where the folder of an artifact is opened in place of the pipeline in it."""

from __future__ import annotations

from functools import cache, wraps
from pathlib import Path
from typing import Any

from diffusers import DiffusionPipeline

from ..storage.layout import MODEL_INDEX, Artifact, is_pipeline


@cache
def explain_artifact_folders() -> None:
    """Makes `DiffusionPipeline.from_pretrained` name `model/` if it is given the folder of an artifact."""
    load_config = DiffusionPipeline.load_config.__func__

    @wraps(load_config)
    def load_config_of_pipeline(cls: type[DiffusionPipeline], folder: Any, *args: Any, **kwargs: Any) -> Any:
        artifact = Artifact(Path(folder))
        if artifact.has_model and not is_pipeline(artifact.path):
            raise OSError(
                f"{folder} is an artifact of edgepress and has no {MODEL_INDEX}. Open the pipeline in it: "
                f"from_pretrained({str(artifact.model)!r})"
            )
        return load_config(cls, folder, *args, **kwargs)

    DiffusionPipeline.load_config = classmethod(load_config_of_pipeline)
