"""Calibration finds the parameters that made the times, and refuses what it cannot fit."""

import csv
import json
import random
from pathlib import Path
from typing import Any

import pytest

from perfmodel.files import catalog
from perfmodel.files.folders import names
from perfmodel.files.machines import ideal, load_machine
from perfmodel.files.measurements import read_measurements as read
from perfmodel.measured.reading import Context
from perfmodel.measured.shapes import OPERATORS
from perfmodel.scoring.calibration import fit
from perfmodel.scoring.operator_errors import by_kernel
from perfmodel.scoring.priors import PRIORS
from perfmodel.specs.kernels import KernelSetSpec, parameters
from perfmodel.timing.operators import time_op

MACHINE, _ = load_machine("cloudmatrix384", None, ["vllm-ascend-0.23"])
RATES, IDEAL = MACHINE.rates(), ideal(MACHINE).rates()
CONTEXT = Context(attention=catalog.load_model("deepseek-v3").spec.attention)


def table(path: Path, word: str, shapes: list[dict[str, float]], noise: float = 0.0) -> Path:
    """Write times that the kernels on file predict, with a relative noise."""
    dice = random.Random(1)
    columns = list(shapes[0])
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["operator", *columns, "time_us"])
        for shape in shapes:
            op, _ = OPERATORS[word].build({**OPERATORS[word].defaults, **shape}, CONTEXT.attention)
            time: Any = time_op(op, RATES, repeated=True).time
            time *= 1 + dice.uniform(-noise, noise)
            writer.writerow([word, *shape.values(), f"{time * 1e6:.4f}"])
    return path


def products() -> list[dict[str, float]]:
    return [
        {"rows": rows, "inner": inner, "columns": columns}
        for inner, columns in ((7168, 2048), (2048, 7168), (7168, 16384), (16384, 7168), (1536, 24576), (7168, 4096))
        for rows in (1, 8, 32, 64, 128, 256, 512, 1024, 4096, 8192)
    ]


def test_known_parameters_come_back(tmp_path: Path) -> None:
    """Times made with the public BF16 parameters and 2 % noise: every parameter that matters within its range."""
    rows, _ = read(table(tmp_path / "t.csv", "matmul_bf16", products(), noise=0.02), CONTEXT)
    fitted = fit("matmul_bf16", rows, RATES.kernels["matmul_bf16"], RATES, IDEAL)
    made = parameters(RATES.kernels["matmul_bf16"])
    found = parameters(fitted.kernel)
    assert fitted.within.median < 0.02
    for name in ("start", "compute", "stream"):
        assert found[name] == pytest.approx(made[name], rel=0.2), name
        low, high = fitted.ranges[name]
        assert low <= made[name] <= high, name
        assert low <= found[name] <= high, name


def test_at_most_six_fitted_parameters_of_an_operator_class() -> None:
    """On file those with a range that were not assumed; the ten of the collectives serve three operations."""
    for name in names("kernels"):
        known = catalog.load_kernels(name)
        for word, kernel in known.spec.classes().items():
            figures = [known.figures[f"{word}.{parameter}"] for parameter in parameters(kernel)]
            fitted = [f for f in figures if f.low is not None and f.kind != "assumed"]
            fitted = [f for f in fitted if not (f.note or "").startswith("held")]
            assert len(fitted) <= (10 if word == "collective" else 6), (name, word)
    for kind, priors in PRIORS.items():
        assert set(priors) <= set(kind.model_fields)


@pytest.mark.parametrize("name", ["vllm-ascend-0.23", "hccl-a3", "hccl-a2"])
def test_every_class_on_file_says_what_it_was_fitted_to(name: str) -> None:
    spec = catalog.load_kernels(name).spec
    fitted = [kernel for kernel in spec.classes().values() if kernel.fit is not None]
    assert fitted
    for kernel in fitted:
        assert kernel.fit.rows >= 40
        assert kernel.fit.median_error < 0.1


def test_a_set_can_be_written_and_used(tmp_path: Path, moeplan) -> None:
    source = table(tmp_path / "t.csv", "matmul_int8", products())
    target = tmp_path / "mine.yaml"
    done = moeplan("calibrate", str(source), "--on", "cloudmatrix384", "--output", str(target))
    assert done.returncode == 0, done.stderr
    spec = catalog.load_path("kernels", target).spec
    assert isinstance(spec, KernelSetSpec)
    assert list(spec.classes()) == ["matmul_int8"]
    again = moeplan("accuracy", str(source), "--on", "cloudmatrix384", "--kernels", str(target), "--format", "json")
    assert again.returncode == 0, again.stderr
    used = moeplan("explain", "--evidence", "seed-cm384-decode", "--kernels", str(target), "--sources")
    assert "matmul_int8 (mine)" in used.stdout.replace("\n", " ")


@pytest.mark.parametrize("name", ["true.yaml", "1.yaml", "q'uote.yaml", "my set.yaml"])
def test_any_name_and_title_can_be_read_back(name: str, tmp_path: Path, moeplan) -> None:
    source = table(tmp_path / "t.csv", "matmul_int8", products())
    target = tmp_path / name
    title = 'a "quoted" title: with {braces}, # and a\nnew line'
    done = moeplan("calibrate", str(source), "--on", "cloudmatrix384", "--output", str(target), "--title", title)
    assert done.returncode == 0, done.stderr
    assert catalog.load_path("kernels", target).spec.title == title


def test_a_profile_of_serving_has_nothing_in_l2(tmp_path: Path, moeplan) -> None:
    source = table(tmp_path / "t.csv", "matmul_bf16", products())
    words = ("calibrate", str(source), "--on", "cloudmatrix384", "--kernels", "vllm-ascend-0.23", "--format", "json")
    warm, cold = (json.loads(moeplan(*words, *more).stdout) for more in ((), ("--cold",)))
    found = [
        next(r for r in document["tables"][1]["rows"] if r["parameter"] == "resident") for document in (warm, cold)
    ]
    assert found[0]["value"] > 1e7
    assert (found[1]["value"], found[1]["how"]) == (0, "held")


def test_nothing_is_written_without_output(tmp_path: Path, moeplan) -> None:
    source = table(tmp_path / "t.csv", "matmul_int8", products())
    done = moeplan("calibrate", str(source), "--on", "cloudmatrix384")
    assert done.returncode == 0
    assert [path.name for path in tmp_path.iterdir()] == ["t.csv"]


PRODUCT_HEADER = "operator,rows,inner,columns,time_us\n"
BAD = {
    "empty file": ("", 4, "the file is empty"),
    "header only": (PRODUCT_HEADER, 4, "no rows below the header"),
    "unknown form": ("a,b\n1,2\n", 4, "allowed: a table with 'operator'"),
    "no time column": ("operator,rows,inner,columns\nmatmul_bf16,1,2,3\n", 4, "time_us is missing"),
    "no shape column": ("operator,rows,time_us\nmatmul_bf16,1,2\n", 4, "inner, columns is missing"),
    "misspelt operator": (PRODUCT_HEADER + "matmull_bf16,1,7168,512,9\n", 4, "did you mean 'matmul_bf16'"),
    "misspelt column": (PRODUCT_HEADER.replace("rows", "row") + "matmul_bf16,1,2,3,4\n", 4, "did you mean 'rows'"),
    "text for a number": (PRODUCT_HEADER + "matmul_bf16,x,7168,512,9\n", 4, "t.csv:2: rows: found 'x'"),
    "negative time": (PRODUCT_HEADER + "matmul_bf16,1,7168,512,-9\n", 4, "t.csv:2: time_us: found '-9'"),
    "nan": (PRODUCT_HEADER + "matmul_bf16,1,7168,512,nan\n", 4, "found 'nan'"),
    "too few rows": (PRODUCT_HEADER + "matmul_bf16,1,7168,512,9\n", 4, "1 rows for"),
    "seconds for microseconds": (
        PRODUCT_HEADER + "".join(f"matmul_bf16,{m},7168,512,0.00001\n" for m in range(1, 40)),
        4,
        "check the unit",
    ),
    "one row in milliseconds": (
        PRODUCT_HEADER + "".join(f"matmul_bf16,{m},7168,512,{0.01 if m == 7 else 10}\n" for m in range(1, 40)),
        4,
        "t.csv:8: matmul_bf16: found 0.01 us",
    ),
    "profile without durations": (
        "Type,Input Shapes,Input Data Types,Output Shapes\nMatMulV2,1,1,1\n",
        4,
        "column Duration(us) is missing; required of a kernel_details",
    ),
    "zero byte": (PRODUCT_HEADER.replace("rows", "ro\0ws"), 4, "holds a zero byte"),
    "attention without a model": (
        "operator,sequences,context,heads,time_us\nattention_decode,1,2,3,4\n",
        4,
        "add --model NAME",
    ),
    "binary": (b"\xff\xfe\x00\x01\x02", 4, "binary or not UTF-8"),
}


@pytest.mark.parametrize("what", BAD)
def test_what_cannot_be_fitted_is_refused(what: str, tmp_path: Path, moeplan) -> None:
    content, code, text = BAD[what]
    path = tmp_path / "t.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    target = tmp_path / "out.yaml"
    done = moeplan("calibrate", str(path), "--on", "cloudmatrix384", "--output", str(target))
    assert done.returncode == code, done.stderr
    assert text in done.stderr
    assert "Traceback" not in done.stderr
    assert not target.exists()


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["nowhere.csv", "--on", "cloudmatrix384"], "cannot be read"),
        (["t.csv"], "needs --on"),
        (["t.csv", "--on", "cm385"], "did you mean"),
        (["t.csv", "--on", "cloudmatrix384", "--only", "matmul"], "did you mean 'matmul_"),
        (["t.csv", "--on", "cloudmatrix384", "--parameter", "starts"], "did you mean 'start"),
        (["t.csv", "--on", "cloudmatrix384", "--at-least", "tokens=many"], "allowed: a column and a number"),
        (["t.csv", "--on", "cloudmatrix384", "--output", "x.txt"], "ends in .yaml"),
        (["t.csv", "--on", "cloudmatrix384", "--ep", "0"], "--ep"),
    ],
)
def test_wrong_words_are_refused(words: list[str], text: str, moeplan) -> None:
    done = moeplan("calibrate", *words)
    assert done.returncode == 2
    assert text in done.stderr


KERNEL_DETAILS = (
    "Model ID,Task ID,Stream ID,Name,Type,OP State,Accelerator Core,Start Time(us),Duration(us),Wait Time(us),"
    "Block Dim,Input Shapes,Input Data Types,Input Formats,Output Shapes,Output Data Types,Output Formats\n"
)


def test_profiles_of_torch_npu_are_read(tmp_path: Path) -> None:
    """No Step Id, tabs behind numbers, quoted shapes, N/A, weights in either order, blocked and grouped ones."""
    path = tmp_path / "kernel_details.csv"
    path.write_text(
        KERNEL_DETAILS
        + '0,1,2,mm,MatMulV2,dynamic,AI_CORE,1.0\t,20.5\t,0.1,24,"""16,7168;2048,7168""",DT_BF16;DT_BF16,ND;ND,'
        + '"16,2048",DT_BF16,ND\n'
        + '0,1,2,mm,MatMulV2,dynamic,AI_CORE,1.0,21.5,0.1,24,"16,7168;7168,2048",DT_BF16;DT_BF16,ND;ND,'
        + '"16,2048",DT_BF16,ND\n'
        + '0,1,2,q,QuantBatchMatmulV3,dynamic,MIX_AIC,1.0,30,0.1,24,"16,7168;64,448,16,32;2048",'
        + 'INT8;INT8;FLOAT,ND;FRACTAL_NZ;ND,"16,2048",DT_BF16,ND\n'
        + '0,1,2,g,GroupedMatmul,dynamic,MIX_AIC,1.0,300,0.1,24,"256,7168;8,7168,4096",INT8;INT8,ND;ND,'
        + '"256,4096",DT_BF16,ND\n'
        + '0,1,2,f,FusedInferAttentionScore,dynamic,MIX_AIC,1.0,99,0.1,24,"1,2;3",DT_BF16;DT_BF16,ND;ND,'
        + '"1,2",DT_BF16,ND\n'
        + '0,1,2,m,MatMulV2,dynamic,AI_CORE,1.0,N/A,0.1,24,"16,7168;7168,2048",DT_BF16;DT_BF16,ND;ND,'
        + '"16,2048",DT_BF16,ND\n'
        + "0,1,2,a,Add,dynamic,AI_VECTOR_CORE,1.0,3,0.1,48,N/A,N/A,N/A,N/A,N/A,N/A\n",
        encoding="utf-8",
    )
    rows, remarks = read(path, Context())
    found = [(row.op.kernel, row.op.rows, row.op.weight_bytes, round(row.time * 1e6, 1)) for row in rows]
    assert found == [
        ("matmul_bf16", 16, 2 * 7168 * 2048, 20.5),
        ("matmul_bf16", 16, 2 * 7168 * 2048, 21.5),
        ("matmul_int8", 16, 7168 * 2048, 30.0),
        ("grouped_matmul_int8", 32, 8 * 7168 * 4096, 300.0),
    ]
    assert any("paged cache" in remark for remark in remarks)
    assert any("N/A" in remark for remark in remarks)
    assert any("operators without a class" in remark for remark in remarks)


def test_summaries_of_msprof_are_read(tmp_path: Path) -> None:
    """Dispatch needs the group's dies; with it, tokens, experts per token and message come from the shapes."""
    path = tmp_path / "op_summary_0.csv"
    path.write_text(
        "Device_id,Op Name,OP Type,Task Duration(us),Input Shapes,Input Data Types,Output Shapes,Output Data Types\n"
        '0,d,MoeDistributeDispatch,152.3,"128,7168;128,8",DT_BF16;INT32,"1024,7168;1024",INT8;FLOAT\n'
        '0,c,MoeDistributeCombine,149.0,"1024,7168;128,8",DT_BF16;INT32,"128,7168",DT_BF16\n',
        encoding="utf-8",
    )
    rows, _ = read(path, Context(ep=256))
    assert [row.op.kernel for row in rows] == ["dispatch", "combine"]
    assert [row.op.exchange.messages for row in rows] == [1024, 1024]  # type: ignore[union-attr]
    assert [row.op.exchange.payload for row in rows] == [7680, 14336]  # type: ignore[union-attr]
    assert set(by_kernel(rows)) == {"dispatch", "combine"}
    from perfmodel.errors import DataError

    with pytest.raises(DataError, match="add --ep DIES"):
        read(path, Context())
