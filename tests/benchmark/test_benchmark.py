"""The speed comparison: what it counts and prints, that both sides compute the same, and its command line."""

from __future__ import annotations

import contextlib
import copy
import itertools
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest

pytest.importorskip("caffe", reason="Caffe is not built: make caffe")

import caffe
from caffe.proto import caffe_pb2

from renet.benchmark import results as kept
from renet.benchmark.charts import growth_chart, point
from renet.benchmark.data_parts import draw_files, time_conversion, time_evaluation, time_loading
from renet.benchmark.engine_parts import engine_entries, time_engines
from renet.benchmark.foreign_networks import FOREIGN
from renet.benchmark.kernel_parts import time_crf
from renet.benchmark.kernel_tasks import PRODUCT_SIZE, TRIAD_SIZE, Triad
from renet.benchmark.network_parts import (
    SCORES,
    grown,
    inputs_of,
    measure_errors,
    network,
    network_sides,
    time_foreign,
    time_group,
    time_layers,
    time_network,
)
from renet.benchmark.settings import (
    CAFFE,
    CHART,
    KEEPING,
    NUMPY,
    ONNXRUNTIME,
    OPENVINO,
    OPENVINO_BFLOAT16,
    PYDENSECRF,
    PYTORCH,
    QUICK,
    STOCK,
    STOCK_BUILD,
    Entry,
    Settings,
    has_caffe,
)
from renet.benchmark.sides import (
    BFLOAT16_TOLERANCE,
    PEER_ENVIRONMENT,
    PEER_REQUIREMENTS,
    Side,
    check_results,
    check_whole_gradient,
    compare,
    has_onednn,
    prepare_peer,
)
from renet.benchmark.tables import (
    NOT_MEASURED,
    OVERVIEW,
    SECTIONS,
    described,
    engine_table,
    group_flops,
    group_table,
    machine_peaks,
    overview_table,
    product_gflops,
    section,
    triad_gigabytes,
)
from renet.benchmark.worker import Timed, sampled
from renet.common.document_blocks import block_pattern
from renet.common.errors import UserError
from renet.common.machine import has_matrix_tiles, multiplies_bfloat16
from renet.gpu_check.work import BF16, FLOAT32, FORWARD, FORWARD_BACKWARD, STEP

TINY = (2, 3, 5, 4, 2)


@pytest.fixture
def settings() -> Settings:
    """Tiny sizes, one run, one thread; PyTorch and stock Caffe where they are."""
    return Settings(
        scale=QUICK,
        runs=1,
        threads=1,
        python=sys.executable,
        build=None,
        stock=STOCK_BUILD if has_caffe(STOCK_BUILD) else None,
        peer=prepare_peer() if (PEER_ENVIRONMENT / "installed.txt").is_file() else None,
        onednn=False,
    )


@pytest.fixture
def with_peer(settings: Settings) -> Settings:
    if settings.peer is None:
        pytest.skip(f"no PyTorch in {PEER_ENVIRONMENT}: make bench installs it")
    return settings


def sides(**milliseconds: tuple[float, ...]) -> dict[str, Any]:
    """Measured sides, each of which took as many MiB as it has runs."""
    measured = {
        name.replace("_", " "): {"milliseconds": list(times), "peak_mib": float(len(times)), "version": "1"}
        for name, times in milliseconds.items()
    }
    return {"sides": measured, "differences": dict.fromkeys(list(measured)[1:], 1e-6), "seconds": 1.0}


def part(*entries: dict[str, Any]) -> dict[str, Any]:
    return {"entries": {str(number): entry for number, entry in enumerate(entries)}}


@pytest.fixture
def tool(repository: Path) -> list[str]:
    return [sys.executable, str(repository / "tools" / "benchmark.py")]


def test_operations_of_a_group() -> None:
    # 40 positions; a scan: 8 x 3 and 8 x 2 weights vertically, 8 x 4 and 8 x 2 horizontally; two scans, two operations.
    assert group_flops(TINY, FORWARD) == 40 * ((24 + 16) + (32 + 16)) * 2 * 2
    assert group_flops(TINY, FORWARD_BACKWARD) == 3 * group_flops(TINY, FORWARD)
    assert group_flops((10, 240, 50, 63, 120), FORWARD) == pytest.approx(43.5e9, rel=1e-2)


def test_speed_of_a_product() -> None:
    assert product_gflops(1000) == pytest.approx(2 * PRODUCT_SIZE**3 / 1e9)


def test_bandwidth_of_a_triad() -> None:
    assert triad_gigabytes(1000) == pytest.approx(12 * TRIAD_SIZE / 1e9)


def test_the_triad_adds_all_values() -> None:
    assert (Triad({"threads": 3}).run()["sums"] == 7).all()


# --- The document ----------------------------------------------------------------------------------------------------


# --- The document ----------------------------------------------------------------------------------------------------


@pytest.fixture
def results(repository: Path) -> dict[str, Any]:
    """Results with every part: the document's."""
    return kept.read_results(repository / "docs" / kept.RESULTS)


@pytest.fixture
def document(repository: Path) -> str:
    return (repository / "docs" / kept.DOCUMENT).read_text()


def test_the_document_has_what_its_json_says(results: dict[str, Any], document: str, repository: Path) -> None:
    """So all tables come to what they came to when it was measured."""
    assert kept.filled(document, results) == document
    assert (repository / "docs" / CHART).is_file()


@pytest.mark.parametrize("name", SECTIONS)
def test_sections(results: dict[str, Any], name: str) -> None:
    if name != OVERVIEW and name not in results["parts"]:
        pytest.skip("not measured yet")
    assert len([line for line in section(results, name, for_document=True).splitlines() if line.startswith("|")]) >= 3
    assert "-----" in section(results, name, for_document=False)
    assert section({"parts": {}}, name, for_document=True) == NOT_MEASURED


def test_where_the_other_is_faster_or_missing_it_is_said(results: dict[str, Any]) -> None:
    first, second, *_ = results["parts"]["groups"]["entries"].values()
    first["sides"][CAFFE]["milliseconds"] = [20.0, 10.0, 30.0]
    first["sides"][PYTORCH]["milliseconds"] = [5.0, 8.0, 12.0]
    first["sides"][CAFFE]["peak_mib"], first["sides"][PYTORCH]["peak_mib"] = 30.0, 100.0
    del second["sides"][PYTORCH]
    second["differences"] = {}
    header, *rows = group_table(results["parts"]["groups"]).rows
    slower, alone = (dict(zip(header, row, strict=True)) for row in rows[:2])
    assert (slower["Caffe ms"], slower["times PyTorch's speed"]) == ("20.0 (10.0-30.0)", "0.40 (slower)")
    missing = ("PyTorch ms", "times PyTorch's speed", "PyTorch GFLOP/s", "PyTorch MiB", "difference")
    assert [alone[name] for name in missing] == ["-"] * 5
    assert ["ReNet group 10, 12, 120, 160, 40, forward", "PyTorch", "0.40 (slower)", "0.30"] in overview_table(
        results
    ).rows


def test_chart_of_the_growth(results: dict[str, Any]) -> None:
    growth = results["parts"]["growth"]
    svg = growth_chart(growth)
    assert svg == growth_chart(growth), "the same figures draw the same"
    assert b"FCN, PyTorch" in svg and len(svg) < 100_000
    entry = {"axis": "size", "shape": [2, 3, 8, 16], **sides(pytorch=(20.0,))}
    assert point(entry, PYTORCH) == (8 * 16 / 1e6, 10.0)
    assert point({**entry, "axis": "batch"}, PYTORCH) == (2, 10.0)


def test_documents_are_written(results: dict[str, Any], document: str, tmp_path: Path) -> None:
    """Parts that were not measured this time stay as they were."""
    file = tmp_path / kept.DOCUMENT
    file.write_text(
        block_pattern(kept.KIND).sub(
            lambda block: f"<!-- benchmark: {block[1]} -->\n<!-- end of benchmark -->", document
        )
    )
    kept.write_documents(results, tmp_path)
    assert file.read_text() == document
    assert (tmp_path / CHART).read_bytes().startswith(b"<?xml")
    changed = copy.deepcopy(results["parts"]["crf"])
    next(iter(changed["entries"].values()))["shape"] = [5, 6, 7, 8]
    kept.write_documents({"parts": {"crf": changed}}, tmp_path)
    second = file.read_text()
    assert "| 5, 6, 7 | 8 |" in second and "| 10, 240, 50, 63, 120 | forward |" in second
    assert kept.filled(second, kept.read_results(tmp_path / kept.RESULTS)) == second


@pytest.mark.parametrize(("old", "new"), [("benchmark: crf", "benchmark: cfr"), ("<!-- benchmark: crf -->", "")])
def test_a_document_with_wrong_blocks_is_told(document: str, old: str, new: str) -> None:
    with pytest.raises(UserError, match=r"one block each of overview, machine.* look at .*crf"):
        kept.filled(document.replace(old, new), {"parts": {}})


# --- Running, and going on -------------------------------------------------------------------------------------------


def fake_parts(monkeypatch: pytest.MonkeyPatch, taken: list[str], fails: str = "") -> None:
    """Two parts, whose measurements are noted in `taken`; the one named `fails` ends the run."""

    def entry(name: str, task: str) -> Entry:
        def measure() -> dict[str, Any]:
            if name == fails:
                raise UserError("a side died")
            taken.append(name)
            return {"task": task, **sides(numpy=(1.0,))}

        return Entry(name, measure)

    parts = {
        "machine": lambda settings: [entry("product", "product"), entry("triad", "triad")],
        "crf": lambda settings: [entry("a", "x"), entry("b", "x")],
    }
    monkeypatch.setattr(kept, "PARTS", parts)


def test_an_interrupted_run_goes_on(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, taken = tmp_path / kept.RESULTS, []
    results = kept.read_results(file)
    save = lambda: kept.write_results(file, results)  # noqa: E731
    fake_parts(monkeypatch, taken, fails="b")
    assert not kept.begin(results, ["machine", "crf"], {"runs": 1}, restart=False)
    with pytest.raises(UserError, match=r"^crf, b: a side died$"):
        kept.measure(settings, ["machine", "crf"], results, save)
    fake_parts(monkeypatch, taken)
    results = kept.read_results(file)
    assert kept.begin(copy.deepcopy(results), ["machine", "crf"], {"runs": 1}, restart=False)
    assert not kept.begin(copy.deepcopy(results), ["machine", "crf"], {"runs": 1}, restart=True)
    assert not kept.begin(copy.deepcopy(results), ["machine", "crf"], {"runs": 2}, restart=False)
    kept.measure(settings, ["machine", "crf"], results, save)
    assert taken == ["product", "triad", "a", "b"]
    written = kept.read_results(file)
    assert "unfinished" not in written
    assert written["parts"]["crf"]["peaks"] == machine_peaks(written["parts"]["machine"])


def test_a_part_alone_leaves_the_others(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[str] = []
    fake_parts(monkeypatch, taken)
    results: dict[str, Any] = {"parts": {"crf": part({"old": True})}}
    kept.begin(results, ["machine"], {}, restart=False)
    kept.measure(settings, ["machine"], results, lambda: None)
    assert taken == ["product", "triad"] and results["parts"]["crf"]["entries"]["0"] == {"old": True}


def test_a_half_measured_part_is_not_kept(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another run than the interrupted one would make it look whole; parts that are whole stay."""
    taken: list[str] = []
    fake_parts(monkeypatch, taken, fails="b")
    results: dict[str, Any] = {"parts": {}}
    kept.begin(results, ["machine", "crf"], {}, restart=False)
    with pytest.raises(UserError, match="a side died"):
        kept.measure(settings, ["machine", "crf"], results, lambda: None)
    assert list(results["parts"]["crf"]["entries"]) == ["a"]
    whole = copy.deepcopy(results)
    assert not kept.begin(results, ["machine"], {}, restart=False)
    assert results["parts"] == {}
    assert not kept.begin(whole, [], {}, restart=False)
    assert list(whole["parts"]) == ["machine"]


def test_the_machines_load_is_told(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures of a busy machine are known by it."""
    fake_parts(monkeypatch, [])
    loads = iter([(0.25, 0, 0), (7.53, 0, 0)])
    monkeypatch.setattr(kept.os, "getloadavg", lambda: next(loads))
    results: dict[str, Any] = {"parts": {}}
    kept.begin(results, ["machine"], {}, restart=False)
    kept.measure(settings, ["machine"], results, lambda: None)
    assert [entry["load"] for entry in results["parts"]["machine"]["entries"].values()] == [0.2, 7.5]
    assert "load before a measurement 0.2-7.5" in described(results["parts"]["machine"])


def test_run_of_some_parts(tool: list[str], tmp_path: Path) -> None:
    options = ["--without-pytorch", "--quick", "--runs", "2", "--threads", "1", "--only", "groups", "crf"]
    done = subprocess.run(
        [*tool, *options, "--out", str(tmp_path)], capture_output=True, text=True, cwd="/", timeout=300
    )
    assert done.returncode == 0, done.stderr
    written = json.loads((tmp_path / kept.RESULTS).read_text())
    assert list(written["parts"]) == ["machine", "groups", "crf"]
    groups = written["parts"]["groups"]
    assert groups["settings"] == {"runs": 2, "threads": 1}
    assert groups["peaks"]["sgemm_gflops"][NUMPY] > 0 and groups["peaks"]["triad_gigabytes"] > 0
    precisions = (FLOAT32, BF16) if multiplies_bfloat16() else (FLOAT32,)
    assert [(entry["pass"], entry["precision"]) for entry in groups["entries"].values()] == [
        (passes, precision) for passes in (FORWARD, FORWARD_BACKWARD) for precision in precisions
    ]
    for entry in groups["entries"].values():
        assert list(entry["sides"]) == [CAFFE] and len(entry["sides"][CAFFE]["milliseconds"]) == 2
    assert "2, 3, 11, 9, 5" in done.stdout
    shown = subprocess.run([*tool, "--show", "--out", str(tmp_path)], capture_output=True, text=True, timeout=60)
    assert shown.returncode == 0 and shown.stdout == done.stdout


def test_sampled_values_are_spread() -> None:
    assert sampled(np.arange(6.0).reshape(2, 3)) == [0, 1, 2, 3, 4, 5]
    many = sampled(np.arange(1_000_000.0))
    assert len(many) < 1000
    assert (many[0], many[-1]) == (0, 999_999)


# --- What is measured ------------------------------------------------------------------------------------------------


def test_both_libraries_come_to_the_same_result(with_peer: Settings) -> None:
    for passes in (FORWARD, FORWARD_BACKWARD):
        found = time_group(with_peer, (2, 3, 11, 9, 5), passes)
        assert 0 < found["differences"][PYTORCH] < 1e-5
        assert all(side["milliseconds"][0] > 0 for side in found["sides"].values())
        rounded = time_group(with_peer, (2, 3, 11, 9, 5), passes, BF16)
        assert (1e-5 < rounded["differences"][PYTORCH] < 3e-2) == multiplies_bfloat16()


@pytest.mark.parametrize("shape", QUICK.crfs, ids=str)
def test_a_crf_is_pydensecrfs(with_peer: Settings, shape: tuple[int | str, ...]) -> None:
    found = time_crf(with_peer, shape)
    assert found["differences"][PYDENSECRF] < 1e-3


def test_networks_of_the_benchmark() -> None:
    forward, step = network("fcn", FORWARD, (1, 3, 48, 64)), network(SCORES, STEP, (2, 3, 49, 64))
    assert inputs_of(forward) == "data:1,3,48,64"
    assert inputs_of(step) == "data:2,3,49,64 label:2,1,7,8:21"
    kinds = {layer.type for layer in step.layer}
    assert kinds == {"Input", "Convolution", "ReLU", "Pooling", "SoftmaxWithLoss"}, "what stock Caffe has"
    frozen = [layer.name for layer in step.layer if layer.param and layer.param[0].lr_mult == 0]
    assert frozen == ["conv1_1", "conv1_2", "conv2_1", "conv2_2"]
    assert isinstance(step, caffe_pb2.NetParameter)


@pytest.mark.parametrize("passes", [FORWARD, STEP])
def test_a_network_is_the_same_on_all_sides(settings: Settings, passes: str) -> None:
    if settings.peer is None and settings.stock is None:
        pytest.skip("neither PyTorch nor stock Caffe: make bench makes them")
    found = time_network(settings, SCORES, passes, (2, 3, 32, 40), 1)
    ours = [CAFFE, KEEPING]
    assert list(found["sides"]) == [*ours, *([STOCK] if settings.stock else []), *([PYTORCH] if settings.peer else [])]
    assert all(difference < 1e-4 for difference in found["differences"].values())
    assert all(side["peak_mib"] > 50 for side in found["sides"].values())


def test_the_recurrent_network_beside_pytorchs(with_peer: Settings) -> None:
    found = grown(with_peer, "h_renet_bn_mlfb", "batch", (2, 3, 32, 40))
    assert found["axis"] == "batch" and found["differences"][PYTORCH] < 1e-4


@pytest.mark.parametrize("passes", [FORWARD, STEP])
@pytest.mark.parametrize("model", FOREIGN)
def test_a_network_of_others_beside_pytorchs(with_peer: Settings, model: str, passes: str) -> None:
    found = time_foreign(with_peer, model, passes, (QUICK.foreign_batch, 3, *QUICK.foreign))
    assert CAFFE in found["sides"] and found["differences"][PYTORCH] < 1e-4


OTHERS_LAYERS = """
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 2 dim: 6 dim: 11 dim: 9 } } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
  convolution_param { num_output: 4 kernel_size: 3 pad: 1 group: 2 weight_filler { type: "xavier" } } }
layer { name: "lrn" type: "LRN" bottom: "conv" top: "lrn" lrn_param { local_size: 3 alpha: 0.5 beta: 0.75 k: 2 } }
layer { name: "ave" type: "Pooling" bottom: "lrn" top: "ave"
  pooling_param { pool: AVE kernel_size: 3 stride: 2 pad: 1 } }
layer { name: "up" type: "Deconvolution" bottom: "ave" top: "up"
  convolution_param { num_output: 4 kernel_size: 4 stride: 2 group: 4 weight_filler { type: "xavier" } } }
layer { name: "cut" type: "Crop" bottom: "up" bottom: "conv" top: "cut" crop_param { axis: 2 offset: 1 offset: 2 } }
layer { name: "sum" type: "Eltwise" bottom: "cut" bottom: "conv" bottom: "lrn" top: "sum" }
layer { name: "all" type: "Pooling" bottom: "sum" top: "all" pooling_param { pool: AVE global_pooling: true } }
layer { name: "scores" type: "InnerProduct" bottom: "all" top: "scores"
  inner_product_param { num_output: 3 weight_filler { type: "xavier" } } }
"""


def test_layers_of_others_networks_in_pytorch(with_peer: Settings, tmp_path: Path) -> None:
    sides = network_sides(with_peer, OTHERS_LAYERS, "", tmp_path, FORWARD, alone=True)
    assert compare(sides, 1, with_peer.threads)["differences"][PYTORCH] < 1e-5


@pytest.mark.parametrize(("model", "millions"), [
    ("resnet50", 25.6), ("mobilenet_v1", 4.2), ("mobilenet_v2", 3.5), ("googlenet", 7.0), ("squeezenet", 1.24),
])  # fmt: skip
def test_networks_of_others_have_their_papers_parameters(tmp_path: Path, model: str, millions: float) -> None:
    file = tmp_path / "net.prototxt"
    file.write_text(FOREIGN[model]((1, 3, 224, 224)))
    net = caffe.Net(str(file), caffe.TEST)
    trained = [blob for layer in net.layers if layer.type != "BatchNorm" for blob in layer.blobs]
    assert sum(blob.count for blob in trained) / 1e6 == pytest.approx(millions, rel=0.02)
    assert net.blobs[net.outputs[0]].count == 1000


def test_an_exported_network_in_both_engines(with_peer: Settings) -> None:
    found = time_engines(with_peer, "h_renet", (1, 3, 32, 40))
    assert list(found["sides"]) == [CAFFE, ONNXRUNTIME, OPENVINO, OPENVINO_BFLOAT16]
    assert found["differences"][ONNXRUNTIME] < 1e-4 and found["differences"][OPENVINO] < 1e-4
    assert 0 < found["differences"][OPENVINO_BFLOAT16] < BFLOAT16_TOLERANCE
    row = dict(zip(*engine_table({"entries": {"h_renet": found}}).rows, strict=True))
    assert row["network"] == "H-ReNet" and "-" not in (row["difference in float32"], row["in bfloat16"])
    assert found["precision"] == FLOAT32


def test_an_exported_network_in_bfloat16_on_both_sides(with_peer: Settings) -> None:
    found = time_engines(with_peer, "h_renet", (1, 3, 32, 40), BF16)
    assert list(found["sides"]) == [CAFFE, OPENVINO_BFLOAT16]
    row = dict(zip(*engine_table({"entries": {"h_renet, BF16": found}}).rows, strict=True))
    assert row["network"] == "H-ReNet, BF16" and row["difference in float32"] == "-"
    rounded = [entry.name for entry in engine_entries(with_peer) if "BF16" in entry.name]
    assert rounded == (["fcn, BF16", "h_renet, BF16", "h_renet_bn_mlfb, BF16"] if has_matrix_tiles() else [])


def test_layer_by_layer(settings: Settings) -> None:
    found = time_layers(settings)
    layers = {layer["name"]: layer for layer in found["layers"]}
    height, width = QUICK.image
    assert layers["conv1_2"]["type"] == "Convolution + ReLU"
    assert layers["conv1_2"]["operations"] == 2 * 9 * 64 * 64 * height * width
    assert layers["pool1"]["operations"] == 0 and layers["pool1"]["bytes"] > 0
    assert {layer["type"] for layer in found["layers"]} >= {"ReNetLSTM", "BatchNorm", "BilinearInterpolation"}
    assert 0 < sum(layer["milliseconds"][CAFFE] for layer in found["layers"]) < 60_000


def test_errors_of_convolutions(settings: Settings) -> None:
    """Every convolution of the network, padded, dilated and 1x1, within rounding of double precision."""
    (entry, *_) = measure_errors(settings)["errors"].values()
    assert {layer["name"] for layer in entry["layers"]} >= {"conv1_1", "conv5_3", "conv6", "conv8"}
    assert all(0 < layer["mean"] <= layer["largest"] < 1e-4 for layer in entry["layers"])
    assert 0 <= entry["labels_changed"] < 0.01


def test_files_of_the_data_part(tmp_path: Path) -> None:
    draw_files(tmp_path, 12, (48, 64))
    for name in ("images", "labels", "predictions"):
        assert len(list((tmp_path / name).iterdir())) == 12


def test_conversion_is_timed(settings: Settings) -> None:
    found = time_conversion(settings)
    assert found["images"] == QUICK.converted and found["sides"][CAFFE]["peak_mib"] > 1


def test_loaded_batches_are_the_same(with_peer: Settings) -> None:
    found = time_loading(with_peer)
    assert found["images"] == 10 * QUICK.loaded and found["differences"][PYTORCH] < 2e-2


def test_augmented_loading_is_timed(settings: Settings) -> None:
    found = time_loading(settings, augmented=True)
    assert found["what"] == "augmented loading" and list(found["sides"]) == [CAFFE]


def test_scores_are_the_same(settings: Settings) -> None:
    found = time_evaluation(settings)
    assert found["differences"] == {NUMPY: 0.0}


def test_results_that_differ_are_told() -> None:
    with pytest.raises(UserError, match=r"the two sides do not come to the same: prob differs by 5\.0e-01"):
        check_results({"prob": [1.0]}, {"prob": [2.0]})
    with pytest.raises(UserError, match=r"conv gradient"):
        check_results({"conv gradient": [1.0]}, {"conv gradient": [2.0]}, branching=True)
    with pytest.raises(UserError, match=r"conv gradient"):
        check_results({"conv gradient": [1.0]}, {"conv gradient": [1.01]})
    values = {"prob": [1.0], "x gradient": [1.0]}
    assert check_results(values, {**values, "x gradient": [1.01]}, branching=True) == 0
    assert check_results(values, {**values, "prob": [1.1]}, tolerance=0.2) == pytest.approx(0.1 / 1.1)
    with pytest.raises(UserError, match=r"do not give the same: .*x gradient"):
        check_results(values, {"prob": [1.0]})


def test_a_gradient_is_one_vector() -> None:
    values = {"loss": [1.0], "conv gradient": [3.0, 4.0], "bias gradient": [1e-9]}
    assert check_whole_gradient(values, values) == 0
    assert check_whole_gradient(values, {**values, "loss": [1.0001], "bias gradient": [-1e-9]}) == pytest.approx(
        1e-4, 0.01
    )
    with pytest.raises(UserError, match=r"gradients differ by 1\.7e-01 of their length"):
        check_whole_gradient(values, {**values, "conv gradient": [3.6, 4.8]})
    with pytest.raises(UserError, match="nan"):
        check_whole_gradient(values, {**values, "conv gradient": [3.0, float("nan")]})
    with pytest.raises(UserError, match="loss differs"):
        check_whole_gradient(values, {**values, "loss": [2.0]})
    with pytest.raises(UserError, match="bias gradient"):
        check_whole_gradient(values, {"loss": [1.0], "conv gradient": [3.0, 4.0]})


def caffe_side(folder: Path, text: str, caffe: Path | None = None) -> Side:
    """A network of Caffe that draws its own values."""
    (folder / "net.prototxt").write_text(text)
    job = {"model": str(folder / "net.prototxt"), "inputs": "", "values": str(folder), "passes": FORWARD}
    job |= {"draw": True, "share": True}
    return Side("caffe", "network_tasks.CaffeNetwork", sys.executable, job, caffe=caffe)


INPUT = 'layer { name: "data" type: "Input" top: "data" input_param { shape { dim: [1, 2, 3, 4] } } }\n'
LSTM = 'layer { name: "x" type: "ReNetLSTM" bottom: "data" top: "x" renet_param { num_output: 0 } }'


class Asked:
    """A worker whose work takes so many milliseconds; counts how often it is done."""

    ready: ClassVar = {"version": "1", "onednn": False}

    def __init__(self, milliseconds: float) -> None:
        self._milliseconds, self.times = milliseconds, []

    def ask(self, do: str, times: int = 1) -> dict[str, Any]:
        if do == "results":
            return {"values": {}, "peak_mib": 1.0}
        self.times.append(times)
        return {"milliseconds": self._milliseconds}


@pytest.mark.parametrize(
    ("milliseconds", "repeats", "times"), [(20.0, True, 10), (500.0, True, 1), (150.0, True, 1), (20.0, False, 1)]
)
def test_short_work_is_repeated_as_often_on_each_side(
    milliseconds: float, repeats: bool, times: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    workers = {"ours": Asked(milliseconds), "theirs": Asked(1000.0)}
    monkeypatch.setattr("renet.benchmark.sides.started", lambda *_: contextlib.nullcontext(workers))
    monkeypatch.setattr("renet.benchmark.sides.PAUSE_SECONDS", 0)
    side = Side("numpy", "kernel_tasks.Product", sys.executable, {})
    compare(dict.fromkeys(workers, side), 3, 1, repeats)
    for worker in workers.values():
        assert worker.times == ([1, 1] if repeats else []) + [times] * 4


def test_a_run_has_the_time_of_one(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = itertools.count()
    monkeypatch.setattr("renet.benchmark.worker.time.perf_counter", lambda: float(next(clock)))
    work = SimpleNamespace(run=lambda: next(clock) and {})
    assert Timed(work, 0.0).run(times=4)["milliseconds"] == 5000 / 4  # each run ticks once, and so does its end


def test_dead_sides_are_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^ours: ended with status 1; last line: AttributeError"):
        compare({"ours": Side("numpy", "kernel_tasks.Nonsense", sys.executable, {})}, 1, 1)
    with pytest.raises(UserError, match=r"^ours: Check failed: .*num_output"):
        compare({"ours": caffe_side(tmp_path, INPUT + LSTM)}, 1, 1)


def test_a_build_folder_is_chosen(tmp_path: Path) -> None:
    """The Caffe of the folder is imported, not that of the Python."""
    package = tmp_path / "python" / "caffe"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise ImportError('the chosen one')")
    with pytest.raises(UserError, match="the chosen one"):
        compare({"ours": caffe_side(tmp_path, INPUT, caffe=tmp_path)}, 1, 1)
    with pytest.raises(UserError, match=r"Caffe cannot be imported: .*the chosen one"):
        has_onednn(sys.executable, tmp_path)


def test_failed_installation_names_its_log(tmp_path: Path) -> None:
    (tmp_path / "bench-venv").write_text("in the way")
    with pytest.raises(UserError, match=r"could not be installed .*logs/bench-venv\.log.*--without-pytorch"):
        prepare_peer(tmp_path / "bench-venv")
    assert (tmp_path / "logs" / "bench-venv.log").read_text()


def test_complete_installation_is_taken(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python").touch()
    (tmp_path / "installed.txt").write_text("\n".join(PEER_REQUIREMENTS) + "\n")
    assert prepare_peer(tmp_path) == tmp_path / "bin" / "python"


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--only", "speed"], "invalid choice"),
        (["--runs", "0"], "at least 1"),
        (["--threads", "x"], "at least 1"),
        (["--quick", "--docs"], "none for a document"),
        (["--build", "/no/folder"], "no python/caffe/_caffe.so in it"),
        (["--show", "--out", "OUT"], "no results to show yet"),
    ],
)
def test_wrong_arguments(tool: list[str], arguments: list[str], complaint: str, tmp_path: Path) -> None:
    given = ["--out", str(tmp_path), *[str(tmp_path) if word == "OUT" else word for word in arguments]]
    done = subprocess.run([*tool, *given], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert complaint in done.stderr
    assert done.stderr.count("\n") == 1


def test_help_has_examples(tool: list[str]) -> None:
    done = subprocess.run([*tool, "--help"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0
    assert "tools/benchmark.py --show --docs" in done.stdout
