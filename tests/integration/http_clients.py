"""Programs for environments of clients that are not ours; each prints what it saw as JSON, and fails by itself where an answer is wrong."""

TRITON = """
import itertools, json, sys
import numpy as np
import tritonclient.http as http
from tritonclient.utils import InferenceServerException

port, x, labels, scores = sys.argv[1], *(json.loads(a) for a in sys.argv[2:5])
client = http.InferenceServerClient("127.0.0.1:" + port, concurrency=4)
assert client.is_server_live() and client.is_server_ready() and client.is_model_ready("tiny") and client.is_model_ready("tiny", "1")
assert not client.is_model_ready("other") and not client.is_model_ready("tiny", "9")
assert "binary_tensor_data" in client.get_server_metadata()["extensions"]
assert client.get_model_metadata("tiny", "1")["inputs"] == [{"name": "inputs", "datatype": "FP32", "shape": [-1, 5]}]
assert [m["name"] for m in client.get_model_repository_index()] == ["tiny", "tiny.explainer"]

def tensor(values, kind, binary):
    one = http.InferInput("inputs", list(values.shape), kind)
    one.set_data_from_numpy(values, binary_data=binary)
    return one

def texts(values):
    return [v.decode() if isinstance(v, bytes) else v for v in values.tolist()]

trips = 0
x = np.array(x, np.float32)
kinds = {"FP32": np.float32, "FP64": np.float64}
for (kind, dtype), binary, asked in itertools.product(kinds.items(), (True, False), (None, True, False)):
    outputs = None if asked is None else [http.InferRequestedOutput(n, binary_data=asked) for n in ("label", "score", "probabilities")]
    got = client.infer("tiny", [tensor(x.astype(dtype), kind, binary)], outputs=outputs, request_id="r-1")
    assert texts(got.as_numpy("label")) == labels, kind
    assert np.allclose(got.as_numpy("score"), scores, atol=1e-6) and got.as_numpy("probabilities").shape == (len(x), 3)
    assert got.get_response()["id"] == "r-1"
    trips += 1
small = {"FP16": np.float16, "INT8": np.int8, "INT16": np.int16, "INT32": np.int32, "INT64": np.int64, "UINT8": np.uint8,
         "UINT16": np.uint16, "UINT32": np.uint32, "UINT64": np.uint64, "BOOL": np.bool_}
whole = np.array([[0, 1, 1, 0, 1], [1, 0, 0, 1, 1]], np.float32)
right = texts(client.infer("tiny", [tensor(whole, "FP32", True)]).as_numpy("label"))
for (kind, dtype), binary in itertools.product(small.items(), (True, False)):
    assert texts(client.infer("tiny", [tensor(whole.astype(dtype), kind, binary)]).as_numpy("label")) == right, kind
    trips += 1
for binary in (True, False):
    columns = []
    for i in range(5):
        one = http.InferInput("f%d" % i, [len(x)], "FP32")
        one.set_data_from_numpy(x[:, i].copy(), binary_data=binary)
        columns.append(one)
    assert texts(client.infer("tiny", columns).as_numpy("label")) == labels
    gap = x.copy()
    gap[0, 0] = np.nan
    got = client.infer("tiny", [tensor(gap, "FP32", binary)])
    assert np.isfinite(got.as_numpy("score")).all()
    trips += 2
for packing in ("gzip", "deflate"):
    got = client.infer("tiny", [tensor(x, "FP32", True)], request_compression_algorithm=packing, response_compression_algorithm=packing)
    assert texts(got.as_numpy("label")) == labels
    trips += 1
waiting = [client.async_infer("tiny", [tensor(x, "FP32", True)], model_version="1") for _ in range(4)]
assert all(texts(one.get_result().as_numpy("label")) == labels for one in waiting)
none = client.infer("tiny", [tensor(np.zeros((0, 5), np.float32), "FP32", True)])
assert none.as_numpy("score").shape == (0,) and none.as_numpy("probabilities").shape == (0, 3)
told = client.infer("tiny.explainer", [tensor(x, "FP32", True)])
assert told.as_numpy("contributions").shape == x.shape and told.as_numpy("contributions").dtype == np.float64
sums = told.as_numpy("base") + told.as_numpy("contributions").sum(axis=1) + told.as_numpy("gap")
assert np.allclose(sums, told.as_numpy("margin"), atol=1e-5)
refused = []
bad = x.copy()
bad[:, 2] = np.inf
for call in (
    lambda: client.infer("tiny", [tensor(bad, "FP32", True)]),
    lambda: client.infer("other", [tensor(x, "FP32", True)]),
    lambda: client.infer("tiny", [tensor(x[:, :4].copy(), "FP32", False)]),
    lambda: client.load_model("tiny"),
    lambda: client.get_inference_statistics(),
):
    try:
        call()
        raise SystemExit("not refused")
    except InferenceServerException as err:
        refused.append(err.message())
client.close()
print(json.dumps({"trips": trips + 6, "refused": refused}))
"""

KSERVE = """
import asyncio, json, sys, warnings
warnings.filterwarnings("ignore")
import numpy as np
from kserve import InferenceRESTClient, InferInput, InferOutput, InferRequest, RESTConfig
from kserve.protocol.infer_type import RequestedOutput

async def main(port, x, labels, scores):
    url, client = "http://127.0.0.1:" + port, InferenceRESTClient(RESTConfig(protocol="v2", retries=0))
    assert await client.is_server_live(url) and await client.is_server_ready(url)
    assert await client.is_model_ready(url, "tiny") and not await client.is_model_ready(url, "other")
    x, trips = np.array(x, np.float32), 0
    for kind, dtype in {"FP32": np.float32, "FP64": np.float64}.items():
        for binary_in in (True, False):
            for binary_out in (True, False):
                one = InferInput("inputs", list(x.shape), kind)
                one.set_data_from_numpy(x.astype(dtype), binary_data=binary_in)
                request = InferRequest("tiny", [one], request_id="r-1", parameters={"binary_data_output": binary_out})
                got = await client.infer(url, request, model_name="tiny")
                found = {o.name: o.as_numpy() for o in got.outputs}
                assert [str(v) for v in found["label"].tolist()] == labels, found["label"]
                assert np.allclose(found["score"], scores, atol=1e-6) and got.id == "r-1"
                trips += 1
    whole = np.array([[0, 1, 1, 0, 1], [1, 0, 0, 1, 1]])
    right = None
    for kind in ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "bool"):
        for binary_in in (True, False):
            one = InferInput("inputs", list(whole.shape), kind.upper())
            one.set_data_from_numpy(whole.astype(kind), binary_data=binary_in)
            got = await client.infer(url, InferRequest("tiny", [one]), model_name="tiny")
            found = {o.name: o.as_numpy() for o in got.outputs}["label"].tolist()
            right = right or found
            assert found == right, kind
            trips += 1
    one = InferInput("inputs", [1, 4], "FP32")
    one.set_data_from_numpy(x[:1, :4].copy(), binary_data=False)
    try:
        await client.infer(url, InferRequest("tiny", [one]), model_name="tiny")
        raise SystemExit("not refused")
    except Exception as err:
        refused = str(err)
    await client.close()
    print(json.dumps({"trips": trips, "refused": refused}))

asyncio.run(main(sys.argv[1], *(json.loads(a) for a in sys.argv[2:5])))
"""

REQUESTS = """
import json, sys
import requests

port, x = sys.argv[1], json.loads(sys.argv[2])
names = ["f%d" % i for i in range(5)]
records = [dict(zip(names, row)) for row in x]
csv = ",".join(names) + "\\n" + "\\n".join(",".join(map(str, row)) for row in x) + "\\n"
missing = json.loads(json.dumps(records))
missing[0]["f0"] = None
asked = {
    "split": dict(json={"dataframe_split": {"columns": names, "data": x}}),
    "records": dict(json={"dataframe_records": records}),
    "instances": dict(json={"instances": records}),
    "inputs": dict(json={"inputs": {n: [r[n] for r in records] for n in names}}),
    "csv": dict(data=csv, headers={"Content-Type": "text/csv"}),
    "charset": dict(data=json.dumps({"dataframe_records": records}), headers={"Content-Type": "application/json; charset=utf-8"}),
    "unnamed": dict(json={"inputs": x}),
    "two keys": dict(json={"inputs": {}, "instances": records}),
    "no key": dict(json={"rows": records}),
    "bare list": dict(json=x),
    "parquet": dict(data=b"PAR1", headers={"Content-Type": "application/vnd.apache.parquet"}),
    "missing": dict(json={"dataframe_records": missing}),
    "unlabelled": dict(json={"dataframe_records": [{**records[0], "f1": "wet"}]}),
}
said = {}
with requests.Session() as session:
    for name, request in asked.items():
        reply = session.post("http://127.0.0.1:%s/invocations" % port, timeout=60, **request)
        said[name] = [reply.status_code, reply.headers["content-type"], reply.text]
    ping = [session.get("http://127.0.0.1:%s/%s" % (port, path), timeout=60).status_code for path in ("ping", "health")]
print(json.dumps({"said": said, "ping": ping}))
"""

PROMETHEUS = """
import json, sys, urllib.request
from prometheus_client.parser import text_string_to_metric_families

text = urllib.request.urlopen("http://127.0.0.1:%s/metrics" % sys.argv[1], timeout=60).read().decode()
families = list(text_string_to_metric_families(text))
print(json.dumps({f.name: [f.type, f.documentation, [[s.name, s.labels, s.value] for s in f.samples]] for f in families}))
"""
