"""What `tubelet weights inspect` shows of a checkpoint."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from rich.console import RenderableType

    from tubelet.models.decoder import DecoderSpec
    from tubelet.weights.imported import Imported

LISTED: Final = 12
"""Names of tensors that are listed one by one; more of them are put together by what they are of."""


def facts(imported: Imported, *, tensors: bool) -> dict[str, Any]:
    """All that is known, as plain JSON; None where the checkpoint has no such part."""
    recipe, encoder = imported.recipe, imported.recipe.model.encoder
    found: dict[str, Any] = {
        "file": str(imported.file),
        "format": imported.format,
        "parameters": sum(tensor.numel() for tensor in imported.state.values()),
        "frames": recipe.clip.frames,
        "size": recipe.clip.size,
        "kind": encoder.kind,
        "patch": encoder.cube.height,
        "tubelet": encoder.cube.frames,
        "encoder": encoder.facts(),
        "decoder": _decoder(imported),
        "positions": encoder.position_kind,
        "positions_of": None if encoder.trained_clip is None else encoder.trained_clip.model_dump(),
        "classes": len(imported.state["head.bias"]) if imported.has_head else None,
        "class_names": None if imported.names is None else list(imported.names),
        "dropped": list(imported.dropped),
        "notes": list(imported.notes),
    }
    if tensors:
        found["tensors"] = {name: list(tensor.shape) for name, tensor in imported.state.items()}
    return found


def facts_table(imported: Imported) -> RenderableType:
    """The same for people."""
    from rich.markup import escape
    from rich.table import Table

    known = facts(imported, tensors=False)
    encoder, decoder = known["encoder"], known["decoder"]
    rows = {
        "format": known["format"],
        "parameters": f"{known['parameters'] / 1e6:.2f} M in {len(imported.state)} tensors",
        "clip": f"{known['frames']} frames of {known['size']} x {known['size']}",
        "positions": _positions(known),
        "cube": f"tubelet {known['tubelet']}, patch {known['patch']}",
        "encoder": _in_words(encoder),
        "decoder": "none" if decoder is None else _in_words(decoder),
        "classes": "none" if known["classes"] is None else f"{known['classes']}{_some(imported.names)}",
        "not used": "\n".join(collapsed(imported.dropped)) or "nothing",
        "notes": "\n".join(imported.notes) or "none",
    }
    table = Table("", "", title=escape(str(imported.file)), show_header=False, box=None, pad_edge=False)
    table.columns[0].no_wrap = True
    table.columns[1].overflow = "fold"
    for name, value in rows.items():
        table.add_row(name, escape(value))
    return table


def tensors_table(imported: Imported) -> RenderableType:
    """Name, shape and kind of number of every tensor."""
    from rich.table import Table

    table = Table("tensor", "shape", "numbers", box=None, pad_edge=False)
    for column in table.columns:
        column.overflow = "fold"
    for name, tensor in imported.state.items():
        shape = " x ".join(str(length) for length in tensor.shape) or "1"
        table.add_row(name, shape, str(tensor.dtype).removeprefix("torch."))
    return table


def left_out(imported: Imported) -> tuple[str, ...]:
    """A line that lists the tensors of the file that are not used; none where all are."""
    if not imported.dropped:
        return ()
    return (f"not used ({len(imported.dropped)} tensors): {', '.join(collapsed(imported.dropped))}",)


def collapsed(names: Sequence[str]) -> list[str]:
    """The names; where there are many, blocks that differ by their number alone as one, with their count."""
    if len(names) <= LISTED:
        return list(names)
    counts: dict[str, int] = {}
    for name in names:
        part = re.sub(r"\.\d+\..*", ".*", name)
        counts[part] = counts.get(part, 0) + 1
    return [f"{part} ({count})" if count > 1 else part for part, count in counts.items()]


def _network(spec: DecoderSpec) -> dict[str, Any]:
    return {
        "width": spec.width,
        "depth": spec.depth,
        "heads": spec.heads,
        "mlp": int(spec.width * spec.mlp_ratio),
        "layer_scale": spec.layer_scale is not None,
        "cosine_attention": spec.cosine_attention,
    }


def _decoder(imported: Imported) -> dict[str, Any] | None:
    return None if imported.decoder is None else _network(imported.decoder)


def _positions(known: dict[str, Any]) -> str:
    trained = known["positions_of"]
    if trained is None:
        return str(known["positions"])
    return (
        f"{known['positions']}, interpolated from {trained['frames']} frames of {trained['size']} x {trained['size']}"
    )


def _in_words(network: dict[str, Any]) -> str:
    options = [name.replace("_", " ") for name, value in network.items() if value is True]
    sizes = [f"{name} {value}" for name, value in network.items() if not isinstance(value, bool)]
    return ", ".join([*sizes, *options])


def _some(names: Sequence[str] | None) -> str:
    if names is None:
        return ", without names"
    return f" ({', '.join(names[:5])}{', ...' if len(names) > 5 else ''})"
