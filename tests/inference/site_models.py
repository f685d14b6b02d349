"""Small models as a site would supply them: an ONNX file with a model.toml, a folder in the shape of a MONAI bundle."""

import hashlib
import json
from pathlib import Path

import pytest


def doubling(path: Path, weighty: int = 0) -> str:
    """Write a graph `image` (-1, 2) FP32 -> `twice`; `weighty` > 0 makes it take that many MiB on the way. Returns the sha256."""
    onnx = pytest.importorskip("onnx", reason="onnx comes with the extra torch")
    from onnx import TensorProto, helper

    nodes = [helper.make_node("Add", ["image", "image"], ["sum"])]
    if weighty:
        big = helper.make_tensor("rows", TensorProto.INT64, [2], [weighty << 17, 2])  # times 2 columns times 4 bytes
        nodes += [
            helper.make_node("Constant", [], ["rows"], value=big),
            helper.make_node("Expand", ["sum", "rows"], ["wide"]),
            helper.make_node("ReduceMax", ["wide"], ["twice"], axes=[0], keepdims=1),
        ]
    else:
        nodes.append(helper.make_node("Identity", ["sum"], ["twice"]))
    tensor = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 2]) for name in ("image", "twice")]
    graph = helper.make_graph(nodes, "doubling", tensor[:1], tensor[1:])
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(made, str(path))
    return hashlib.sha256(path.read_bytes()).hexdigest()


def onnx_folder(models: Path, name: str, limits: str = "", weighty: int = 0) -> Path:
    """Write models/NAME with a graph that holds its own weights."""
    digest = doubling(models / name / "net.onnx", weighty)
    tensor = 'name = "{}"\ndatatype = "FP32"\nshape = [-1, 2]\n'
    (models / name / "model.toml").write_text(
        f'name = "{name}"\nversion = "7"\n[graph]\nfile = "net.onnx"\nsha256 = "{digest}"\n[limits]\n{limits}\n'
        f"[[inputs]]\n{tensor.format('image')}[[outputs]]\n{tensor.format('twice')}"
    )
    return models / name


def bundle_folder(models: Path, name: str) -> str:
    """Write models/NAME in the shape of a MONAI bundle, without a model.toml; returns the sha256 of its graph."""
    digest = doubling(models / name / "models" / "model.onnx")
    tensor = {"type": "image", "num_channels": 2, "spatial_shape": [], "dtype": "float32", "value_range": [0, 1]}
    (models / name / "configs").mkdir()
    (models / name / "configs" / "metadata.json").write_text(
        json.dumps(
            {
                "version": "0.1.0",
                "task": "Doubling",
                "intended_use": "Tests",
                "network_data_format": {"inputs": {"image": tensor}, "outputs": {"twice": tensor}},
            }
        )
    )
    return digest
