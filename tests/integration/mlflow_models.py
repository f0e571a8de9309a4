"""Small models that an MLflow without edgefleet can load, and the programs that load them there."""

DOWNLOAD = """
import hashlib, json, pathlib, sys
import mlflow
mlflow.set_tracking_uri(sys.argv[1])
version = mlflow.MlflowClient().get_model_version_by_alias(sys.argv[2], "champion")
folder = pathlib.Path(mlflow.artifacts.download_artifacts(f"models:/{sys.argv[2]}@champion"))
digests = {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.rglob("*") if p.is_file()}
print(json.dumps({"version": version.version, "source": version.source, "digests": digests}))
"""

LOAD = """
import json, sys
import mlflow, numpy, pandas
mlflow.set_tracking_uri(sys.argv[1])
model = mlflow.pyfunc.load_model(f"models:/{sys.argv[2]}@champion")
answer = model.predict(pandas.DataFrame({sys.argv[3]: [1.0, 2.0], sys.argv[4]: [0.5, -1.0]}))
print(json.dumps({"answer": numpy.asarray(answer).ravel().tolist(), "digest": model.metadata.metadata["edgefleet_package"]}))
"""


def graph(operation: str) -> bytes:
    """input + input, or input * input."""
    import onnx
    from onnx import TensorProto, helper

    inputs = [helper.make_tensor_value_info("input", TensorProto.FLOAT, [None, 2])]
    outputs = [helper.make_tensor_value_info("margin", TensorProto.FLOAT, [None, 2])]
    nodes = [helper.make_node(operation, ["input", "input"], ["margin"])]
    model = helper.make_model(helper.make_graph(nodes, "g", inputs, outputs), opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())
