"""HuBERT's codebook in fairseq's files: which rows of the label embeddings are clusters.

fairseq stores one embedding per symbol of its dictionaries, concatenated when there are several label sets. A
dictionary begins with special symbols (<s>, <pad>, </s>, <unk>) and may end with fillers (madeupword0000), which are
never targets. ``final_proj`` is shared by all label sets ("tied") or has one part for each. kdkit uses the first set.
"""

from __future__ import annotations

from pathlib import Path

import torch.nn.functional as F
from torch import Tensor

from kdkit.common.errors import CheckpointError
from kdkit.model.checkpoints import check_values
from kdkit.model.codebook import Codebook
from kdkit.teachers.safe_pickle import opened
from kdkit.teachers.settings import Settings

SPECIALS = 4  # special symbols at the start of every fairseq dictionary


def codebook_of(
    beside: dict[str, Tensor], content: dict, task: Settings, dim: int, tau: float, where: Path
) -> tuple[Codebook | None, str]:
    """The codebook or None, and a description: what it is, or "none: " and the reason.

    ``beside``: the file's tensors outside the network; ``content``: the file, searched for dictionaries; ``task``:
    settings that name the label sets; ``dim``: width of the hidden states; ``tau``: temperature. Raises
    :class:`CheckpointError` for tensors that do not fit together.
    """
    names = ("label_embs_concat", "final_proj.weight", "final_proj.bias")
    if names[0] not in beside:  # wav2vec 2.0 has a final_proj, but no clusters
        return None, "none: the file has no label embeddings"
    if names[1] not in beside and names[2] not in beside:
        return None, (
            "none: the file has label embeddings but no final_proj, which fairseq takes away when it fine-tunes; the "
            "file of the model before fine-tuning has both"
        )
    if any(name not in beside for name in names):
        raise CheckpointError(f"{where}: has label embeddings but no whole final_proj: the file is damaged")
    parts = {name: beside[name] for name in (*names, *(n for n in beside if n.startswith("target_glu.")))}
    axes = [getattr(parts[name], "ndim", None) for name in names]
    if axes != [2, 2, 1] or not all(isinstance(part, Tensor) for part in parts.values()):
        raise CheckpointError(f"{where}: final_proj or label_embs_concat is no matrix: the file is damaged")
    check_values(parts, where)
    embeddings, weight, bias = (parts[name].detach().float() for name in names)
    rows, proj = embeddings.shape
    if weight.shape[1] != dim or len(weight) != len(bias) or not proj or len(weight) % proj:
        raise CheckpointError(
            f"{where}: final_proj of {tuple(weight.shape)} and label embeddings of {tuple(embeddings.shape)} do not "
            f"fit a model of width {dim}: the file is damaged"
        )
    symbols, sets = _label_sets(content, task)
    sets = max(sets, len(weight) // proj)
    if not symbols:
        if sets > 1 or rows <= SPECIALS:
            why = f"none: {sets} label sets share {rows} embeddings, and no dictionary says which are whose"
            return None, why
        kept = range(SPECIALS, rows)
        words = f", the first {SPECIALS} rows taken for specials: no dictionary is there"
    elif None in symbols:
        why = "none: the file's dictionaries cannot be read, which say what label embeddings are clusters"
        return None, why
    elif sum(map(len, symbols)) != rows or len(weight) not in (proj, proj * len(symbols)):
        return None, (
            f"none: {rows} label embeddings of {proj} and a final_proj of {len(weight)} do not fit dictionaries of "
            f"{list(map(len, symbols))} symbols"
        )
    else:
        kept = [row for row, symbol in enumerate(symbols[0]) if not _is_filler(row, symbol)]
        words = f" of the first of {len(symbols)} label sets" if len(symbols) > 1 else ""
    if "target_glu.0.weight" in parts:  # the network compares with a function of the embeddings
        glu = {name.removeprefix("target_glu.0."): part.detach().float() for name, part in parts.items()}
        try:
            embeddings = F.glu(F.linear(embeddings, glu["weight"], glu["bias"]))
        except (RuntimeError, KeyError) as error:
            raise CheckpointError(
                f"{where}: target_glu does not fit the label embeddings: damaged"
            ) from error
    if len(kept) < 2:
        return None, f"none: {len(kept)} of {rows} label embeddings are clusters"
    codebook = Codebook.from_hubert(weight[:proj], bias[:proj], embeddings[list(kept)], 0, tau)
    return codebook, f"{len(kept)} clusters{words}"


def _is_filler(row: int, symbol: object) -> bool:
    text = str(opened(symbol))
    return (row < SPECIALS and text.startswith("<")) or text.startswith("madeupword")


def _label_sets(content: dict, task: Settings) -> tuple[list[list | None], int]:
    """The symbols of every cluster dictionary in a file, and the number of label sets in its settings (default 1).

    Dictionaries are in ``dictionaries_symbols`` (s3prl) or ``task_state``, as a list or by label set.
    """
    found = opened(content.get("dictionaries_symbols"))
    if found is None:
        state = opened(content.get("task_state"))
        state = state if isinstance(state, dict) else {}
        found = opened(state.get("dictionaries"))
        found = opened(state.get("pt_dictionaries")) if found is None else found
    found = list(found.values()) if isinstance(found, dict) else found
    symbols = []
    for dictionary in found if isinstance(found, (list, tuple)) else []:
        held = opened(dictionary)
        held = opened(held.get("symbols")) if isinstance(held, dict) else held
        symbols.append(list(held) if isinstance(held, (list, tuple)) else None)
    labels = task.get("labels")
    return symbols, max(1, len(labels) if isinstance(labels, (list, tuple)) else 1)
