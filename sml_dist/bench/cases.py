"""The cases of `sml-dist bench`, by name."""

from functools import partial

from sml_dist.bench import gpu, in_memory, limits, raw_logs, runs
from sml_dist.bench.case import Case

LIST = (
    Case("memory", "bandwidth of a copy in memory, read and written", "GB/s", limits.memory),
    Case(
        "step", "the whole step, data in memory: DNN 400-400-400 without SML", "samples/s", in_memory.step,
        ratios={
            "bf16_over_gemm": ("bf16", "GEMM bf16"),
            "fp32_over_gemm": ("fp32", "GEMM fp32"),
            "fp32_over_hand_written": ("fp32", "hand-written fp32"),
            "bf16_over_hand_written": ("bf16", "hand-written bf16"),
        },
        at_least={"bf16_over_gemm": 0.55, "fp32_over_hand_written": 1.1},
    ),
    Case(
        "sml", "the same step by what of SML is on, bf16", "samples/s", in_memory.sml,
        ratios={
            "off_over_on": ("off", "on"),
            "off_over_skip_alone": ("off", "Skip Logit alone"),
            "off_over_both": ("off", "MTN in tower and skip"),
            "off_over_on_normed": ("off, batch norm and dropout", "on, batch norm and dropout"),
        },
        at_most={"off_over_on": 1.12},
    ),
    Case("stream", "the same step fed by the exact stream through Ray Data", "samples/s", runs.stream,
         ratios={"stream_over_memory": ("stream", "memory")}, at_least={"stream_over_memory": 0.95}),
    *(
        Case(
            f"{model.replace('_', '-')}-end-to-end", f"`sml-dist train` of a {says} on 1 M rows, beside published packages", "samples/s",
            partial(runs.end_to_end, model=model),
            ratios={
                "ours_over_fuxictr": ("train", "fuxictr"),
                "ours_over_deepctr": ("train", "deepctr"),
                "train_over_memory": ("train", "memory"),
            },
            at_least={"ours_over_fuxictr": 10, "train_over_memory": 0.95}, rounds=3, warm_up=False,
        )
        for model, says in (("dnn", "DNN"), ("dcn_v2", "DCN-V2 of 3 cross layers"))
    ),
    Case("prepare", "Criteo TSV to a prepared dataset", "rows/s", raw_logs.preparing,
         ratios={"long_over_short": ("1 M rows", "250 k rows")}, at_least={"1 M rows": 60_000}, rounds=3, warm_up=False),
    Case("predict", "scoring a prepared dataset, beside the same model's training", "rows/s", runs.predicting,
         ratios={"predict_over_train": ("predict", "train")}, at_least={"predict_over_train": 2}, rounds=3, warm_up=False),
    Case("start", "from the command to the end of its first step", "s", runs.start, at_most={"train": 12}, rounds=3),
    Case("workers", "`sml-dist train`, the machine's two threads in one worker or two", "samples/s", runs.workers,
         ratios={"two_over_one": ("2 x 1 threads", "1 x 2 threads")}, at_least={"two_over_one": 0.95}, rounds=3, warm_up=False),
    Case("table-rows", "the step as tables grow from 1 M rows and the touched ones stay", "samples/s", in_memory.table_rows,
         ratios={"time_at_8x": ("1x", "8x"), "time_at_64x": ("1x", "64x")}, at_most={"time_at_64x": 1.25}),
    Case("rows", "`sml-dist train` as the dataset grows", "samples/s", runs.rows, ratios={"many_over_few": ("16 M rows", "1 M rows")},
         rounds=3, warm_up=False),
    Case("fields", "the step as fields grow", "samples/s", in_memory.fields, ratios={"time_at_200": ("26 fields", "200 fields")}),
    Case("depth", "the step with SML as layers are added", "samples/s", in_memory.depth, ratios={"time_at_30": ("3 layers", "30 layers")}),
    *(
        Case(
            f"gpu-{model.replace('_', '-')}-{dim}", f"the step on a GPU, batch 65,536, tables of dim {dim}: {says}", "samples/s",
            partial(gpu.step, model=model, dim=dim),
            ratios={
                "bf16_over_gemm": ("bf16", "GEMM bf16"),
                "bf16_over_moves": ("bf16", "embeddings moved"),
                "compiled_over_not": ("bf16", "bf16, not compiled"),
                "off_over_on": ("bf16", "bf16, SML"),
            },
            gpu=True,
        )
        for model, says in (("dnn", "DNN 400-400-400"), ("dcn_v2", "DCN-V2 of 3 cross layers"))
        for dim in (16, 128)
    ),
    Case("gpu-end-to-end", "`sml-dist train` of the DNN on a GPU, batch 65,536, fed by Ray Data", "samples/s", gpu.end_to_end,
         ratios={"train_over_memory": ("train", "memory")}, rounds=2, warm_up=False, gpu=True),
)  # fmt: skip
CASES = {case.name: case for case in LIST}
