"""Makes OpenVINO models of a checkpoint, weights in 8 bits, unless they are there.

    .peers/openvino/bin/python -m benchmarks.peers.openvino_prepare CHECKPOINT FOLDER

optimum-intel's exporter needs transformers 4.57, which reads a flat `config.json`.
"""

# Its packages are in the peer's own environment.
# pyright: reportMissingImports=false

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import nncf
import openvino
from openvino_tokenizers import convert_tokenizer
from optimum.exporters.openvino import main_export
from transformers import PreTrainedTokenizerFast

from benchmarks.peers.flat_checkpoint import flat_checkpoint


def prepare(checkpoint: Path, folder: Path) -> None:
    """Write the models, tokenizers and preprocessor into `folder/openvino-int8`."""
    output = folder / "openvino-int8"
    if (output / "openvino_tokenizer.xml").is_file():
        return
    source = flat_checkpoint(checkpoint, folder / "flat-openvino")
    main_export(str(source), output, task="image-text-to-text", ov_config=None)
    for path in sorted(output.glob("openvino_*_model.xml")):
        model = openvino.Core().read_model(path)
        compressed = nncf.compress_weights(model, mode=nncf.CompressWeightsMode.INT8_SYM)
        part = path.with_name(f"part-{path.name}")
        openvino.save_model(compressed, part)
        del model
        part.with_suffix(".bin").replace(path.with_suffix(".bin"))
        part.replace(path)
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(source / "tokenizer.json"))
    for name, model in zip(
        ("tokenizer", "detokenizer"),
        convert_tokenizer(tokenizer, with_detokenizer=True),
        strict=True,
    ):
        openvino.save_model(model, output / f"openvino_{name}.xml")
    shutil.rmtree(source)


if __name__ == "__main__":
    prepare(Path(sys.argv[1]), Path(sys.argv[2]))
