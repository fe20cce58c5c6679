"""What this machine can do: facts for `tubelet doctor`, each with what to do where it falls short."""

from __future__ import annotations

import importlib
import os
import platform
import shutil
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import av
import torch
from av.codec import hwaccel

from tubelet.doctor.trial import decode_trial, matmul_trial, step_trial
from tubelet.video.read.limits import lacking_limits

GIB: Final = 1024**3
WANTED_DECODERS: Final = ("h264", "hevc", "vp9", "av1", "mpeg4", "mjpeg")


@dataclass(frozen=True)
class Finding:
    """One line of the report. `fails` means that tubelet cannot work here."""

    name: str
    state: Literal["ok", "warning", "fails"]
    value: str
    advice: str = ""


def inspect_machine(folder: Path) -> tuple[Finding, ...]:
    """All findings, in the order in which a person reads them; `folder` is where runs would be written."""
    checks: tuple[Callable[[], Iterable[Finding]], ...] = (
        _software,
        _system,
        _gpus,
        _processor,
        _memory,
        _decoders,
        lambda: [_disk(folder)],
        _trials,
    )
    return tuple(finding for check in checks for finding in check())


def is_usable(findings: Iterable[Finding]) -> bool:
    """Whether nothing essential is missing."""
    return all(finding.state != "fails" for finding in findings)


def bf16_flags() -> tuple[str, ...]:
    """Features of the processor that make bf16 fast, as PyTorch names them."""
    able = torch.cpu.get_capabilities()
    return tuple(name for name in ("amx_bf16", "avx512_bf16", "bf16") if able.get(name))


def cores() -> int:
    """Cores that this process may use, which in a container can be fewer than the machine has."""
    affinity = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    quota = Path("/sys/fs/cgroup/cpu.max")
    if not quota.exists():
        return affinity
    limit, period = quota.read_text().split()[:2]
    return affinity if limit == "max" else max(1, min(affinity, round(int(limit) / int(period))))


def memory_bytes() -> int | None:
    """Memory of the machine; None where the system does not say (Windows)."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None


def _software() -> Iterable[Finding]:
    version = platform.python_version()
    yield Finding("Python", "ok" if sys.version_info >= (3, 11) else "fails", version, "install Python 3.11 or newer")
    built_for = f"CUDA {torch.version.cuda}" if torch.version.cuda else "CPU only"
    yield Finding("PyTorch", "ok", f"{torch.__version__} ({built_for})")


def _system() -> Iterable[Finding]:
    lacking = lacking_limits()
    value = f"{platform.system()} {platform.release()}"
    if lacking:
        value += f", which cannot bound the {' and '.join(lacking)} that reading a file takes"
    may_hang = "time" in lacking
    advice = "look through new videos with tubelet check, which gives up a file that hangs its decoder; training cannot"
    yield Finding("System", "warning" if may_hang else "ok", value, advice if may_hang else "")


def _gpus() -> Iterable[Finding]:
    if not torch.cuda.is_available():
        advice = "training runs on the processor: take the demo and the small recipes"
        if Path("/proc/driver/nvidia").exists() and torch.version.cuda is None:
            advice = "there is an NVIDIA driver, but this PyTorch was built for CPU only: install a CUDA build"
        yield Finding("GPU", "warning", "none", advice)
        return
    for index in range(torch.cuda.device_count()):
        facts = torch.cuda.get_device_properties(index)
        yield Finding(f"GPU {index}", "ok", f"{facts.name}, {facts.total_memory / GIB:.0f} GiB")
    has_bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
    advice = "" if has_bf16 else "run.precision=fp32 is the safe choice here"
    yield Finding("GPU bf16", "ok" if has_bf16 else "warning", "yes" if has_bf16 else "no", advice)
    yield Finding("TF32", "ok", f"matmul precision {torch.get_float32_matmul_precision()!r} for fp32 work")


def _processor() -> Iterable[Finding]:
    count = cores()
    advice = "" if count >= 4 else "decoding and training share them: keep data.workers small, set data.cache"
    yield Finding("Cores", "ok" if count >= 4 else "warning", str(count), advice)
    flags = bf16_flags()
    gain = matmul_trial(torch.float32) / matmul_trial(torch.bfloat16)
    value = f"{', '.join(flags) or 'no bf16 instructions'}; a matrix product {gain:.1f} x as fast as in fp32"
    is_slow = bool(flags) and gain < 1
    advice = "set run.precision=fp32 where training runs on this processor" if is_slow else ""
    yield Finding("Processor bf16", "warning" if is_slow else "ok", value, advice)


def _memory() -> Iterable[Finding]:
    total = memory_bytes()
    limit = Path("/sys/fs/cgroup/memory.max")
    if total is not None and limit.exists() and (text := limit.read_text().strip()) != "max":
        total = min(total, int(text))
    is_enough = total is None or total >= 4 * GIB
    value = "this system does not say" if total is None else f"{total / GIB:.1f} GiB"
    yield Finding("Memory", "ok" if is_enough else "warning", value, "" if is_enough else "use few workers")
    shared = Path("/dev/shm")
    if shared.exists():
        size = shutil.disk_usage(shared).total / GIB
        is_enough = size >= 1
        advice = (
            "" if is_enough else "workers pass batches here: start the container with --shm-size=8g, or data.workers=0"
        )
        yield Finding("Shared memory", "ok" if is_enough else "warning", f"{size:.1f} GiB", advice)


def _decoders() -> Iterable[Finding]:
    library = ".".join(str(part) for part in av.library_versions["libavcodec"])
    missing = [name for name in WANTED_DECODERS if name not in av.codecs_available]
    value = f"PyAV {av.__version__}, libavcodec {library}"
    advice = f"no decoder for {', '.join(missing)}: reinstall av from its wheel" if missing else ""
    yield Finding("Decoder", "warning" if missing else "ok", value, advice)
    devices = ", ".join(sorted(hwaccel.hwdevices_available())) or "none"
    yield Finding("Hardware codecs", "ok", f"built in: {devices} (tubelet decodes on the processor)")
    yield Finding("torchcodec", "ok", _torchcodec())


def _torchcodec() -> str:
    try:
        module = importlib.import_module("torchcodec")
    except ModuleNotFoundError:
        return "not installed (not needed)"
    except (ImportError, OSError, RuntimeError) as error:
        return f"installed, does not load (not needed): {str(error).splitlines()[0]}"
    return f"{getattr(module, '__version__', 'unknown version')} (not needed)"


def _disk(folder: Path) -> Finding:
    place = folder.resolve()
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free / GIB
    if not os.access(place, os.W_OK):
        return Finding("Disk", "fails", f"{place}: not writable", "name a folder that you may write to with --out")
    advice = "" if free >= 10 else "a checkpoint of ViT-B takes about 1.2 GB: lower run.keep or choose another disk"
    return Finding("Disk", "ok" if free >= 10 else "warning", f"{free:.0f} GiB free at {place}", advice)


def _trials() -> Iterable[Finding]:
    yield _trial("Decode test", decode_trial, "reinstall av; without a working decoder nothing can be read")
    yield _trial("Training test", step_trial, "reinstall torch; a training step must run")


def _trial(name: str, run: Callable[[], str], advice: str) -> Finding:
    try:
        return Finding(name, "ok", run())
    except Exception as error:  # noqa: BLE001  whatever fails here is the finding
        return Finding(
            name, "fails", f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}", advice
        )
