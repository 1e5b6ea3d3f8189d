"""Training's fast forwards equal Hugging Face's."""

import numpy as np
import pytest
import skimage.data
import torch
from PIL import Image
from tokenizers import Tokenizer
from torch import Tensor
from transformers import Qwen2_5_VLForConditionalGeneration

from export.student.architecture import IMAGE_MEAN, IMAGE_STD
from export.supervision.example import Example
from export.training.batched_language import trace
from export.training.batched_vision import encode
from export.training.batches import normalise
from export.training.packing import Packer
from idetex_edge.positions import mrope_positions
from idetex_edge.preprocess import Preprocessor
from idetex_edge.prompts import PromptSet


@pytest.mark.parametrize(("height", "width"), [(224, 224), (252, 364), (84, 56), (28, 280)])
@torch.no_grad()
def test_batched_vision_equals_transformers(
    random_student: Qwen2_5_VLForConditionalGeneration, height: int, width: int
) -> None:
    photo = Image.fromarray(skimage.data.astronaut()).resize((width, height))
    pixels = normalise(np.array(photo).transpose(2, 0, 1))
    processor = Preprocessor(14, 2, 2, 28 * 28, 10**6, IMAGE_MEAN, IMAGE_STD)
    patched = processor.patchify(photo)
    grid = torch.tensor([[1, *patched.grid]])
    output = random_student.model.visual(torch.from_numpy(patched.patches), grid)
    expected = output if isinstance(output, Tensor) else output.pooler_output
    ours = encode(random_student.model.visual, torch.stack((pixels, pixels.flip(-1))))[0]
    assert ours.shape == expected.shape
    assert float((ours - expected).abs().max() / expected.abs().max()) < 1e-5


@torch.no_grad()
def test_packed_language_equals_transformers(
    random_student: Qwen2_5_VLForConditionalGeneration,
    small_tokenizer: Tokenizer,
    nano_prompts: PromptSet,
) -> None:
    packer = Packer(small_tokenizer, nano_prompts)
    examples = [
        Example("score", " good", levels=(0, 0, 0, 1, 0)),
        Example("grounding", "No distortion"),
        Example("choice", "B", {"question": "Which?" * 20, "options": "A. x\nB. y"}),
    ]
    packed = packer.pack([examples, examples[1:]], rows=3, columns=4)
    text = random_student.model.language_model
    embedded = [text.embed_tokens(block.ids) for block in packed.blocks]
    embedded[0][:, packed.image] = torch.randn(2, 12, embedded[0].shape[-1]) * 0.05
    joined = torch.cat([part.flatten(0, 1) for part in embedded])
    passed = trace(text, joined, packed.blocks, told=True)
    hidden = passed.last
    random_student.set_attn_implementation("eager")
    at = 0
    compared = 0
    for number, (block, part) in enumerate(zip(packed.blocks, embedded, strict=True)):
        rows, length = block.ids.shape
        for row in range(rows if block.picture is not None else 0):
            assert block.picture is not None
            owner = int(block.picture[row])
            ids = torch.cat((packed.blocks[0].ids[owner], block.ids[row]))
            positions, _ = mrope_positions(
                ids.numpy(),
                image_token=packer.id_of("<|image_pad|>"),
                grid=(6, 8),
                merge_size=2,
            )
            theirs = text(
                inputs_embeds=torch.cat((embedded[0][owner], part[row]))[None],
                position_ids=torch.from_numpy(positions)[:, None],
                output_attentions=True,
            )
            expected = theirs.last_hidden_state[0, -length:]
            for layer, looked in zip(passed.attention, theirs.attentions, strict=True):
                mean = looked[0].mean(0)[-length:]
                assert torch.allclose(layer[number][row], mean, atol=1e-6)
            ours = hidden[at + row * length : at + (row + 1) * length]
            assert float((ours - expected).abs().max() / expected.abs().max()) < 1e-5
            compared += 1
        at += rows * length
    assert compared == 5
    assert trace(text, joined, packed.blocks).attention == ()
