"""The dense part as programs that need none of our code: torch.export's and ONNX."""

import io
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn
from torch.export import Dim, ExportedProgram

from sml_dist.models.fields import FieldShape
from sml_dist.quiet import quiet
from sml_dist.scoring.explain import Explained

INPUTS, OUTPUTS = ["embeddings", "dense"], ["logit", "contributions"]
PROBE_ROWS = 2  # torch.export takes sizes 0 and 1 of an example for fixed


def trace(model: nn.Module, shape: FieldShape, labels: Sequence[str]) -> tuple[ExportedProgram, list[str]]:
    """(program, names of its contributions): embeddings (B, F, D), dense (B, N) -> logit (B,), contributions (B, L), any B.

    Of several labels the logit is (B, labels).
    """
    probe = torch.zeros(PROBE_ROWS, shape.fields, shape.dim), torch.zeros(PROBE_ROWS, shape.dense)
    explained = Explained(model, *probe, labels=labels)
    batch = Dim("batch")
    with quiet(), torch.no_grad():
        program = torch.export.export(explained, probe, dynamic_shapes=(({0: batch}, {0: batch}),), strict=False)
    simplify(program)
    for node in program.graph.nodes:  # where our code lies is nobody's business, and would make the bytes depend on it
        for key in ("stack_trace", "nn_module_stack", "source_fn_stack", "torch_fn"):
            node.meta.pop(key, None)
    return program, explained.names


def simplify(program: ExportedProgram) -> None:
    """Takes out what does nothing: checks of types that export has proven, conversions of a type to itself, detach.

    They were half the operations of a DCN-V2 with SML, and a lone row pays as much for each as for one that computes.
    """
    ops = torch.ops.aten
    for node in list(program.graph.nodes):
        if node.target is ops._assert_tensor_metadata.default:
            program.graph.erase_node(node)
        elif node.target in (ops.to.dtype, ops.detach.default) and not any(user.op == "output" for user in node.users):
            source = node.args[0]
            if source.meta["val"].dtype == node.meta["val"].dtype:
                node.replace_all_uses_with(source)
                program.graph.erase_node(node)
    program.graph.eliminate_dead_code()
    program.graph_module.recompile()


def write_pt2(program: ExportedProgram, path: Path) -> None:
    """By way of memory: torch's own writer aborts the process when the disk is full."""
    made = io.BytesIO()
    torch.export.save(program, made)
    path.write_bytes(made.getbuffer())


def write_onnx(program: ExportedProgram, path: Path) -> None:
    with quiet():
        made = torch.onnx.export(program, (), input_names=INPUTS, output_names=OUTPUTS, dynamo=True, verbose=False, external_data=False)
    made.save(path)
