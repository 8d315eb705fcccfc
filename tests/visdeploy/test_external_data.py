"""The files that a graph reads its weights from are found wherever ONNX allows a tensor."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from visdeploy.errors import BundleError
from visdeploy.external_data import _PATHS, external_files

onnx = pytest.importorskip("onnx")

# our names of the messages → those of onnx.proto
MESSAGES = {
    "model": "ModelProto", "training": "TrainingInfoProto", "graph": "GraphProto", "function": "FunctionProto",
    "node": "NodeProto", "attribute": "AttributeProto", "sparse": "SparseTensorProto", "tensor": "TensorProto",
}  # fmt: skip


def external(*locations):
    tensor = onnx.TensorProto(name="w", data_type=onnx.TensorProto.FLOAT, dims=[1])
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for location in locations:
        tensor.external_data.add(key="location", value=location)
        tensor.external_data.add(key="offset", value="0")
    return tensor


def sparse(place):
    return onnx.SparseTensorProto(**{place: external("a.bin")}, dims=[1])


def attribute(**fields):
    return onnx.NodeProto(op_type="Op", attribute=[onnx.AttributeProto(name="value", **fields)])


def graph(**fields):
    return onnx.ModelProto(graph=onnx.GraphProto(**fields))


def in_subgraph(depth):
    inner = onnx.GraphProto(initializer=[external("a.bin")])
    for _ in range(depth):
        inner = onnx.GraphProto(node=[attribute(g=inner)])
    return onnx.ModelProto(graph=inner)


def in_function(**fields):
    return onnx.ModelProto(functions=[onnx.FunctionProto(**fields)])


PLACES = {
    "initializer": graph(initializer=[external("a.bin")]),
    "values of a sparse initializer": graph(sparse_initializer=[sparse("values")]),
    "indices of a sparse initializer": graph(sparse_initializer=[sparse("indices")]),
    "attribute": graph(node=[attribute(t=external("a.bin"))]),
    "list of an attribute": graph(node=[attribute(tensors=[external("a.bin")])]),
    "sparse attribute": graph(node=[attribute(sparse_tensor=sparse("values"))]),
    "list of sparse": graph(node=[attribute(sparse_tensors=[sparse("values")])]),
    "subgraph": in_subgraph(1),
    "deep subgraph": in_subgraph(25),
    "list of graphs": graph(node=[attribute(graphs=[onnx.GraphProto(initializer=[external("a.bin")])])]),
    "function": in_function(node=[attribute(t=external("a.bin"))]),
    "default of a function": in_function(attribute_proto=[onnx.AttributeProto(name="value", t=external("a.bin"))]),
    "training": onnx.ModelProto(
        training_info=[onnx.TrainingInfoProto(algorithm=onnx.GraphProto(initializer=[external("a.bin")]))]
    ),
}


@pytest.mark.parametrize("place", PLACES)
def test_every_place_of_a_tensor(tmp_path, place):
    (tmp_path / "m.onnx").write_bytes(PLACES[place].SerializeToString())
    assert external_files(tmp_path / "m.onnx") == ("a.bin",)


def reachable(descriptor, found):
    """Return the messages that a message can contain, at any depth, by name."""
    if descriptor.name not in found:
        found[descriptor.name] = descriptor
        for field in descriptor.fields:
            if field.message_type:
                reachable(field.message_type, found)
    return found


def test_the_paths_are_those_of_the_format():
    """Every field of onnx.proto whose message can hold a tensor is followed, and no other."""
    messages = reachable(onnx.ModelProto.DESCRIPTOR, {})
    holders = {name for name, each in messages.items() if "TensorProto" in reachable(each, {})}
    assert set(MESSAGES.values()) == holders
    ours = {theirs: mine for mine, theirs in MESSAGES.items()}
    for mine, theirs in MESSAGES.items():
        fields = messages[theirs].fields
        inner = {f.number: f.message_type.name for f in fields if f.message_type}
        followed = {number: ours[name] for number, name in inner.items() if name in ours}
        assert _PATHS[mine] == (followed or {messages[theirs].fields_by_name["external_data"].number: "entry"})
    entry = onnx.StringStringEntryProto.DESCRIPTOR.fields_by_name
    assert _PATHS["entry"] == {entry["key"].number: "key", entry["value"].number: "value"}


def test_all_names_are_given_as_they_are_spelled(tmp_path):
    tensors = [external("b.bin"), external("./a.bin"), external("../c", "/d"), external("b.bin"), external("ä.bin")]
    (tmp_path / "m.onnx").write_bytes(graph(initializer=tensors).SerializeToString())
    assert external_files(tmp_path / "m.onnx") == ("../c", "./a.bin", "/d", "b.bin", "ä.bin")


def test_other_texts_are_no_files(tmp_path):
    model = graph(initializer=[onnx.TensorProto(name="location", raw_data=b"location")], doc_string="location")
    model.metadata_props.add(key="location", value="a.bin")
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    assert external_files(tmp_path / "m.onnx") == ()


def test_a_saved_model_with_large_weights(tmp_path):
    import numpy as np

    weights = onnx.numpy_helper.from_array(np.ones((64, 64), np.float32), "w")
    made = graph(initializer=[weights])
    onnx.save_model(made, tmp_path / "m.onnx", save_as_external_data=True, location="m.onnx.data", size_threshold=0)
    assert external_files(tmp_path / "m.onnx") == ("m.onnx.data",)


@pytest.mark.parametrize("content", [b"", b"garbage", b"\0" * 100])
def test_what_names_no_file_is_left_to_the_engine(tmp_path, content):
    (tmp_path / "m.onnx").write_bytes(content)
    assert external_files(tmp_path / "m.onnx") == ()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"location", "wire type 4"),
        (b"\x3a\x7flocation", "passes the end"),
        (b"\x08" + b"\xff" * 11 + b"location", "more than 10 bytes"),
        (b"\x0b location", "wire type 3"),
        (b"\x3a\x0a\x0d\0\0\0\0location", "passes the end"),
        (b"\x3a\x08location\x80", "ends within a number|passes the end|wire type"),
    ],
)
def test_damage_is_an_error(tmp_path, content, message):
    (tmp_path / "m.onnx").write_bytes(content)
    with pytest.raises(BundleError, match=message) as caught:
        external_files(tmp_path / "m.onnx")
    assert "m.onnx is not a readable ONNX file" in str(caught.value)


@given(st.data())
def test_no_damage_hides_a_file_from_us_that_onnx_still_sees(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("damaged") / "m.onnx"
    good = PLACES[data.draw(st.sampled_from(sorted(PLACES)))].SerializeToString()
    place = data.draw(st.integers(0, len(good) - 1))
    change = data.draw(st.binary(max_size=3))
    path.write_bytes(good[:place] + change + good[place + data.draw(st.integers(0, 3)) :])
    try:
        ours = set(external_files(path))
    except BundleError:
        return
    model = onnx.ModelProto()
    try:
        model.ParseFromString(path.read_bytes())
    except Exception:  # protobuf's own kinds; what it cannot read, no engine loads
        return
    assert {e.value for t in tensors_of(model) for e in t.external_data if e.key == "location"} <= ours


def tensors_of(message):
    """Yield every tensor of a message, by reflection."""
    if message.DESCRIPTOR.name == "TensorProto":
        yield message
    for field, value in message.ListFields():
        if field.message_type:
            for each in [value] if hasattr(value, "DESCRIPTOR") else value:
                yield from tensors_of(each)
