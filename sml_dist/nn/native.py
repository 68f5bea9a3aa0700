"""Kernels in C++ beside their Python: compiled for this machine at their first use, a second once, and kept in the user's cache.

Where there is no compiler, `library` is None and torch's operations take its place: slower, equal but for rounding and random numbers.
"""

import ctypes
import functools
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

# no peeling: where a row lies in memory must not change the order of its sum
FLAGS = "-std=c++17 -O3 -march=native -fno-math-errno -fno-trapping-math --param vect-max-peeling-for-alignment=0".split()
FLAGS += ["-fopenmp", "-shared", "-fPIC"]

# For each type of numbers.h what the names of its functions end in, and the type of their arithmetic.
KINDS = {torch.bfloat16: ("bfloat16", torch.float32), torch.float32: ("float32", torch.float32), torch.float64: ("float64", torch.float64)}


@functools.cache
def library(source: Path) -> ctypes.CDLL | None:
    """The compiled file. It shares torch's OpenMP threads: torch has loaded the libgomp that it asks for by name."""
    compiler = find_compiler()
    if compiler is None:
        return None
    try:
        return ctypes.CDLL(str(_compiled(compiler, source)))
    except (OSError, subprocess.SubprocessError) as error:
        print(f"{source.name} was not compiled ({error}); torch's own operations take its place", file=sys.stderr, flush=True)
        return None


def has_kernel(x: Tensor, source: Path) -> bool:
    """Whether the compiled file can take x."""
    return not traced() and x.device.type == "cpu" and x.dtype in KINDS and library(source) is not None


def call(source: Path, function: str, tensors: Sequence[Tensor], *numbers: Any) -> None:
    """A function of the compiled file on contiguous tensors, then numbers as ctypes has them, then torch's number of threads."""
    places = (ctypes.c_void_p(tensor.data_ptr()) for tensor in tensors)
    getattr(library(source), function)(*places, *numbers, torch.get_num_threads())


def traced() -> bool:
    """An exported or compiled model holds torch's operations: no call of ours."""
    return torch.compiler.is_compiling() or torch.jit.is_tracing()


def find_compiler() -> str | None:
    return shutil.which(os.environ.get("CXX", "c++")) if platform.system() == "Linux" else None


def _compiled(compiler: str, source: Path) -> Path:
    """Compiled once for each source, compiler and processor; renamed into place, so that workers may start together."""
    headers = [header.read_text() for header in sorted(source.parent.glob("*.h"))]
    made_of = "\n".join([source.read_text(), *headers, compiler, *FLAGS, processor()])
    target = _cache() / f"{source.stem}-{hashlib.sha256(made_of.encode()).hexdigest()[:16]}.so"
    if not target.is_file():
        target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.TemporaryDirectory(dir=target.parent) as folder:
            output = Path(folder) / target.name
            subprocess.run([compiler, *FLAGS, str(source), "-o", str(output)], check=True, capture_output=True, timeout=120)
            output.rename(target)
    return target


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sml_dist"


@functools.cache
def processor() -> str:
    """Its maker and what it can, which -march=native depends on."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().split("\n\n")[0].splitlines() if cpuinfo.is_file() else []
    return "\n".join(line for line in lines if line.startswith(("vendor_id", "flags", "Features"))) or platform.machine()
