#!/usr/bin/env bash
# diffusers 0.42.1: StableCascadeDecoderPipeline.save_pretrained writes its VQGAN into model_index.json as a class of diffusers,
# ["diffusers", "PaellaVQModel"], and from_pretrained of that very folder refuses it: the class has moved to
# diffusers.pipelines.deprecated.wuerstchen and is no longer there under the name that is written. The other components of the
# folder are read before. So a tool that ends with save_pretrained has not made a pipeline that opens: it must open what it wrote.
#
# Seen on 2026-12-01:
#   saved as: ['diffusers', 'PaellaVQModel']
#   reopened: ValueError: `diffusers` has no class `PaellaVQModel`.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet torch==2.13.0 diffusers==0.42.1 transformers==5.23.0 accelerate
cat > "$folder/reopen.py" <<'PYTHON'
import json
import sys
from pathlib import Path

from diffusers import DDPMWuerstchenScheduler, StableCascadeDecoderPipeline
from diffusers.pipelines.deprecated.wuerstchen.modeling_paella_vq_model import PaellaVQModel

folder = Path(sys.argv[1])
vqgan = PaellaVQModel(levels=2, bottleneck_blocks=1, num_vq_embeddings=16, embed_dim=8, latent_channels=4)
absent = dict.fromkeys(("decoder", "tokenizer", "text_encoder"))
StableCascadeDecoderPipeline(scheduler=DDPMWuerstchenScheduler(), vqgan=vqgan, **absent).save_pretrained(folder)
print("saved as:", json.loads((folder / "model_index.json").read_text())["vqgan"])
try:
    StableCascadeDecoderPipeline.from_pretrained(folder, **absent)
    print("reopened: yes")
except ValueError as error:
    print(f"reopened: ValueError: {str(error).split('. ')[0]}.")
PYTHON
seen=$("$folder/env/bin/python" -W ignore "$folder/reopen.py" "$folder/pipeline" 2>"$folder/log")
echo "$seen"
[ "$seen" = "saved as: ['diffusers', 'PaellaVQModel']
reopened: ValueError: \`diffusers\` has no class \`PaellaVQModel\`." ]
