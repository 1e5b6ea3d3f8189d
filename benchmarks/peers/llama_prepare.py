"""Makes llama.cpp's files of a checkpoint, weights in Q8_0, unless they are there.

    .peers/llama.cpp/bin/python -m benchmarks.peers.llama_prepare CHECKPOINT FOLDER

The converter of llama.cpp reads a flat `config.json`, and knows tokenizers by a fingerprint that
nano's is not among: it is told that it splits text as Qwen2's.
"""

# Its packages are in the peer's own environment.
# pyright: reportMissingImports=false

from __future__ import annotations

import runpy
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

from benchmarks.peers.catalogue import ENVIRONMENTS
from benchmarks.peers.flat_checkpoint import flat_checkpoint

CONVERTER: Final = ENVIRONMENTS / "llama.cpp" / "source" / "convert_hf_to_gguf.py"
FILES: Final = {"model.gguf": (), "vision.gguf": ("--mmproj",)}


def prepare(checkpoint: Path, folder: Path) -> None:
    """Write language model and vision encoder into `folder/llama-q8_0`."""
    output = folder / "llama-q8_0"
    if all((output / name).is_file() for name in FILES):
        return
    output.mkdir(parents=True, exist_ok=True)
    source = flat_checkpoint(checkpoint, folder / "flat-llama")
    for name, options in FILES.items():
        call = [sys.executable, "-m", "benchmarks.peers.llama_prepare", "--convert", str(source)]
        call += ["--outtype", "q8_0", "--outfile", str(output / name), *options]
        subprocess.run(call, check=True)
    shutil.rmtree(source)


def convert(arguments: list[str]) -> None:
    """Run the converter in this process, its fingerprint of tokenizers set aside."""
    sys.path.insert(0, str(CONVERTER.parent))
    from conversion.base import TextModel

    def qwen2(model: object, tokenizer: object) -> str:
        return "qwen2"

    TextModel.get_vocab_base_pre = qwen2
    sys.argv = [str(CONVERTER), *arguments]
    runpy.run_path(str(CONVERTER), run_name="__main__")


if __name__ == "__main__":
    if sys.argv[1] == "--convert":
        convert(sys.argv[2:])
    else:
        prepare(Path(sys.argv[1]), Path(sys.argv[2]))
