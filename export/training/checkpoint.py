"""From a training run to a checkpoint folder that any Qwen2.5-VL runtime can load."""

import json
import shutil
from pathlib import Path

from tokenizers import Tokenizer
from transformers import GenerationConfig

from export.student.tokenizer import special_ids, write_tokenizer
from export.training.course import averaged_weights
from export.training.student import Student
from idetex_edge.prompts import PromptSet


def write_checkpoint(
    preset: str, tokenizer: Tokenizer, prompts: PromptSet, saved: Path, output: Path
) -> None:
    """Write the averaged weights of a run's `model.pt` (float32) with everything beside them.

    The folder holds config, weights, tokenizer, chat template, image processor and prompts.json;
    it appears only when whole.
    """
    ids = special_ids(tokenizer)
    student = Student(preset, tokenizer)
    weights = averaged_weights(saved)
    student.load_state_dict({k: v for k, v in weights.items() if not k.startswith("imitate.")})
    student.fold()
    model = student.model
    model.generation_config = GenerationConfig(
        eos_token_id=ids["<|im_end|>"], pad_token_id=ids["<|endoftext|>"], do_sample=False
    )
    partial = output.with_name(f".{output.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    model.save_pretrained(partial)
    write_tokenizer(tokenizer, partial)
    (partial / "prompts.json").write_text(json.dumps(prompts.to_dict(), indent=2) + "\n")
    shutil.rmtree(output, ignore_errors=True)
    partial.rename(output)
