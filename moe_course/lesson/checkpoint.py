"""A model from elsewhere in notebook 08: a checkpoint in a folder, and where it sends the documents of the corpus."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, chain

import torch
from torch import Tensor

from moe_course.analysis.routes import windows
from moe_course.lm.corpus.build import AnyDocument
from moe_course.systems.described import transformers_package
from moe_course.systems.observed import Checkpoint, load

LENGTH = 32
"""Tokens in a passage. A sentence of the corpus's facts has about as many."""
PER_DOCUMENT, DOCUMENTS = 2, 12
AT_ONCE = 8  # passages


@dataclass(frozen=True, eq=False)
class Passages:
    """Passages of `LENGTH` tokens, one after the other: the domain of each token, and its experts in each layer.

    idx_LTK: the experts by weight, the largest first. layers: "layer" and its number in the model, for each with
    experts.
    """

    idx_LTK: Tensor
    domain_T: Tensor
    layers: tuple[str, ...]
    num_experts: int

    @property
    def first_LBS(self) -> Tensor:
        """The first choice of each token, by layer and passage."""
        return self.idx_LTK[:, :, 0].unflatten(1, (-1, LENGTH))


def open_or_make(folder: str = "") -> Checkpoint | None:
    """The checkpoint in a folder; without a folder a small OLMoE with random weights, saved and read like any other.

    Prints which it is. None, which it prints too, where transformers is not installed. Errors as in `observed.load`.
    """
    try:
        transformers = transformers_package()
    except ValueError as missing:
        print(f"Skipped: {missing}")
        return None
    transformers.utils.logging.disable_progress_bar()
    if folder:
        found = load(folder)
        experts = next(iter(found.num_experts.values()))
        print(f"{found.name}: {len(found.num_experts)} layers with {experts} experts each")
        return found
    config = transformers.OlmoeConfig(
        vocab_size=256, hidden_size=64, intermediate_size=64, num_hidden_layers=4,
        num_attention_heads=4, num_key_value_heads=4, num_experts=8, num_experts_per_tok=2,
        bos_token_id=None, eos_token_id=None, pad_token_id=None,
    )  # fmt: skip
    with torch.random.fork_rng(), tempfile.TemporaryDirectory() as made:
        torch.manual_seed(8)
        transformers.OlmoeForCausalLM(config).save_pretrained(made)
        found = load(made)
    print(
        "FOLDER is empty, so this is a small OLMoE with random weights. It reads bytes, and nobody trained it."
    )
    return found


def read(
    found: Checkpoint | None, documents: Sequence[AnyDocument], domains: tuple[str, ...]
) -> Passages | None:
    """Let the checkpoint, if there is one, read two passages each of up to twelve documents of a domain.

    A passage lies in one document. Raises ValueError where no document has as many tokens as a passage.
    """
    if found is None:
        return None
    texts = [found.encode(document.text) for document in documents]
    labels = [
        torch.full((len(ids),), domains.index(d.domain)) for ids, d in zip(texts, documents, strict=True)
    ]
    starts = torch.tensor([0, *accumulate(map(len, texts))][:-1])
    line = _Line(torch.tensor([*chain.from_iterable(texts)]), torch.cat(labels), starts, domains)
    sample = windows(line, LENGTH, PER_DOCUMENT, DOCUMENTS)
    sample = sample.only(sample.real_BS.all(dim=1))
    if not len(sample.ids_BS1):
        raise ValueError(f"no document has {LENGTH} tokens")
    pieces = [found.routes(ids_BS) for ids_BS in sample.ids_BS1[:, :-1].split(AT_ONCE)]
    return Passages(
        idx_LTK=torch.stack([torch.cat([piece[name] for piece in pieces]) for name in found.num_experts]),
        domain_T=sample.per_token(sample.domain_B),
        layers=tuple("layer " + re.findall(r"\d+", name)[0] for name in found.num_experts),
        num_experts=next(iter(found.num_experts.values())),
    )


@dataclass(frozen=True, eq=False)
class _Line:
    """Documents one after the other, as `analysis.windows` wants them."""

    ids_T: Tensor
    domain_T: Tensor
    starts: Tensor
    domains: tuple[str, ...]
