"""The wire walker: what is cut and put back is the model that was given; what is no model is refused, never a crash."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
import pytest
from google.protobuf.message import DecodeError, Message
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper, numpy_helper

from gitmodel.formats import wire
from gitmodel.formats.source import InvalidModel
from tests import support
from tests.formats import building

#: What it runs again and again is measured by the tests of each part; tracing it would double its time.
pytestmark = pytest.mark.no_cover

THRESHOLD = 16


def cut(data: bytes, threshold: int = THRESHOLD) -> tuple[bytes, list[memoryview]]:
    return wire.cut(memoryview(data), threshold, "model.onnx")


def parse(data: bytes) -> onnx.ModelProto:
    model = onnx.ModelProto()
    model.ParseFromString(data)
    return model


def messages(message: Message) -> Iterator[onnx.TensorProto]:
    """Every TensorProto anywhere below, found by reflection and not by any knowledge of ONNX."""
    if isinstance(message, onnx.TensorProto):
        yield message
    for field, value in message.ListFields():
        if field.message_type is not None:
            for inner in value if field.is_repeated else [value]:
                yield from messages(inner)


def cuttable(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    """The tensors of initializers and attributes, nested graphs included."""
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            yield from [*([attribute.t] if attribute.HasField("t") else []), *attribute.tensors]
            for inner in [*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs]:
                yield from cuttable(inner)


def plain(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with the default location of data left unsaid: it means the same."""
    for tensor in messages(model):
        if tensor.data_location == onnx.TensorProto.DEFAULT:
            tensor.ClearField("data_location")
    return model


def restored(skeleton: bytes, cuts: list[memoryview]) -> onnx.ModelProto:
    """The model with every cut put back where its mark stands."""
    model, used = parse(skeleton), []
    for tensor in messages(model):
        marks = {entry.key: entry.value for entry in tensor.external_data}
        if wire.CUT_KEY in marks:
            assert tensor.data_location == onnx.TensorProto.EXTERNAL
            assert not tensor.HasField("raw_data")
            used.append(int(marks[wire.CUT_KEY]))
            tensor.raw_data = bytes(cuts[used[-1]])
            tensor.ClearField("external_data")
            tensor.ClearField("data_location")
    assert sorted(used) == list(range(len(cuts)))
    return plain(model)


@st.composite
def tensors(draw: st.DrawFn) -> onnx.TensorProto:
    """Raw, typed, text, sparse in bytes or long, external, with the default location said or unsaid."""
    name = draw(st.text(max_size=5))
    count = draw(st.integers(0, 12))
    kind = draw(st.sampled_from(["raw", "raw", "typed", "text", "external"]))
    if kind == "text":
        texts: Any = [draw(st.binary(max_size=20))] * count
        return helper.make_tensor(name, onnx.TensorProto.STRING, [count], texts)
    if kind == "typed":
        return helper.make_tensor(name, onnx.TensorProto.INT64, [count], range(count))
    tensor = numpy_helper.from_array(np.arange(count, dtype="float32"), name)
    if kind == "external":
        building.point_outside(tensor, location="weights.bin", offset=draw(st.integers(0, 2**40)))
    elif draw(st.booleans()):
        tensor.data_location = onnx.TensorProto.DEFAULT
    if draw(st.booleans()):
        tensor.doc_string = draw(st.text(max_size=20))
    return tensor


@st.composite
def graphs(draw: st.DrawFn, depth: int = 0) -> onnx.GraphProto:
    """Initializers, nodes with tensors and lists of tensors as attributes, and graphs inside nodes."""
    nodes = []
    for number in range(draw(st.integers(0, 2))):
        node = helper.make_node("Constant", ["a"], [f"b{number}"], name=draw(st.text(max_size=3)), n=1, s="text")
        if draw(st.booleans()):
            node.attribute.append(helper.make_attribute("value", draw(tensors())))
        if draw(st.booleans()):
            node.attribute.append(helper.make_attribute("values", draw(st.lists(tensors(), min_size=1, max_size=2))))
        if depth < 2 and draw(st.booleans()):
            node.attribute.append(helper.make_attribute("then_branch", draw(graphs(depth + 1))))
        if depth < 1 and draw(st.booleans()):
            node.attribute.append(helper.make_attribute("all", [draw(graphs(depth + 2)), draw(graphs(depth + 2))]))
        nodes.append(node)
    infos = [support.value_info("x", "float32", ["batch", 4])]
    return helper.make_graph(nodes, draw(st.text(max_size=4)), infos, infos, draw(st.lists(tensors(), max_size=3)))


@st.composite
def models(draw: st.DrawFn) -> onnx.ModelProto:
    """Whole models, functions and metadata included."""
    model = helper.make_model(draw(graphs()), ir_version=support.IR_VERSION, producer_name=draw(st.text(max_size=4)))
    helper.set_model_props(model, {"key": "v" * draw(st.integers(0, 40))})
    if draw(st.booleans()):
        nodes = [helper.make_node("Constant", [], ["b"], value=draw(tensors()))]
        model.functions.append(helper.make_function("d", "F", [], ["b"], nodes, [helper.make_opsetid("", 21)]))
    return model


@settings(max_examples=60)
@given(models(), st.sampled_from([1, THRESHOLD, 40]))
def test_what_is_cut_and_put_back_is_the_model(model: onnx.ModelProto, threshold: int) -> None:
    skeleton, cuts = cut(model.SerializeToString(), threshold)
    assert restored(skeleton, cuts) == plain(model)


@settings(max_examples=60)
@given(models())
def test_every_large_tensor_is_cut_and_no_other(model: onnx.ModelProto) -> None:
    _, cuts = cut(model.SerializeToString())
    expected = [t.raw_data for t in cuttable(model.graph) if len(t.raw_data) >= THRESHOLD]
    assert sorted(map(bytes, cuts)) == sorted(expected)


@settings(max_examples=60)
@given(models())
def test_a_model_without_large_tensors_is_kept_byte_for_byte(model: onnx.ModelProto) -> None:
    data = model.SerializeToString()
    assert cut(data, 1000) == (data, [])


@settings(max_examples=60)
@given(models(), models())
def test_a_model_in_two_parts_is_read_as_protobuf_reads_it(first: onnx.ModelProto, second: onnx.ModelProto) -> None:
    data = first.SerializeToString() + second.SerializeToString()
    assert restored(*cut(data)) == plain(parse(data))


@settings(max_examples=60)
@given(models(), st.data())
def test_a_model_cut_short_is_refused_unless_it_ends_between_fields(
    model: onnx.ModelProto, data: st.DataObject
) -> None:
    whole = model.SerializeToString()
    part = whole[: data.draw(st.integers(0, len(whole) - 1))]
    try:
        expected = plain(parse(part))
    except DecodeError:
        with pytest.raises(InvalidModel, match=r"^model\.onnx is not a whole ONNX file"):
            cut(part)
    else:
        assert restored(*cut(part)) == expected


def test_a_model_cut_short_at_every_seventh_byte_is_never_a_crash() -> None:
    whole = support.wide_model(size=12).SerializeToString()
    refused = 0
    for length in range(0, len(whole), 7):
        try:
            skeleton, cuts = cut(whole[:length])
        except InvalidModel as error:
            refused += 1
            assert "is not a whole ONNX file" in str(error)
        else:
            assert restored(skeleton, cuts) == plain(parse(whole[:length]))
    assert refused > len(whole) // 7 - 5


@settings(max_examples=300)
@given(st.binary(max_size=300))
def test_random_bytes_are_refused_or_kept(data: bytes) -> None:
    try:
        skeleton, cuts = cut(data, 1000)
    except InvalidModel:
        return
    assert (skeleton, cuts) == (data, [])


def test_damaged_models_are_refused_or_read() -> None:
    outcomes = {"read": 0, "refused": 0}
    for data in building.damaged(support.linear_model().SerializeToString(), trials=1000):
        try:
            cut(data)
            outcomes["read"] += 1
        except InvalidModel:
            outcomes["refused"] += 1
    assert min(outcomes.values()) > 50


# join: the inverse ----------------------------------------------------------------------------------------------------


def join(skeleton: bytes, cuts: list[memoryview]) -> bytes:
    return b"".join(wire.join(skeleton, cuts))


@settings(max_examples=60)
@given(models(), st.sampled_from([1, THRESHOLD, 40]))
def test_what_is_cut_and_joined_is_the_file_byte_for_byte(model: onnx.ModelProto, threshold: int) -> None:
    data = model.SerializeToString()
    assert join(*cut(data, threshold)) == data


@settings(max_examples=60)
@given(models(), models())
def test_joining_is_the_inverse_whatever_the_order_of_fields(first: onnx.ModelProto, second: onnx.ModelProto) -> None:
    data = first.SerializeToString() + second.SerializeToString()
    assert plain(parse(join(*cut(data)))) == plain(parse(data))


@settings(max_examples=60)
@given(models())
def test_a_skeleton_that_went_through_protobuf_joins_to_what_protobuf_writes(model: onnx.ModelProto) -> None:
    skeleton, cuts = cut(model.SerializeToString())
    assert join(plain(parse(skeleton)).SerializeToString(), cuts) == plain(model).SerializeToString()


def test_joining_copies_no_body() -> None:
    bodies = [memoryview(bytes(1 << 20)), memoryview(bytes(2 << 20))]
    skeleton, _ = cut(support.wide_model(size=12).SerializeToString())
    chunks = wire.join(skeleton, bodies)
    assert [chunk for chunk in chunks if len(chunk) >= 1 << 20] == bodies
    assert sum(len(chunk) for chunk in chunks) > 3 << 20


def test_a_skeleton_without_marks_is_joined_as_it_is() -> None:
    data = support.linear_model().SerializeToString()
    assert join(data, [memoryview(b"unused")]) == data


def test_external_data_of_the_users_own_are_no_mark() -> None:
    model = support.wide_model(size=12)
    building.point_outside(model.graph.initializer[0], location="w.bin", offset=0)
    data = model.SerializeToString()
    assert join(*cut(data)) == data


def test_what_was_cut_is_a_view_and_no_copy() -> None:
    data = memoryview(support.wide_model(size=12).SerializeToString())
    _, cuts = wire.cut(data, THRESHOLD, "model.onnx")
    assert len(cuts) == 2
    assert all(view.obj is data.obj for view in cuts)


def delimited(field: int, body: bytes) -> bytes:
    return wire._tag(field) + wire._encode(len(body)) + body


def nested(levels: int) -> bytes:
    """A model whose graphs stand in each other: graph, node, attribute, graph and so on."""
    graph = delimited(2, b"inner")
    for _ in range(levels):
        graph = delimited(1, delimited(5, delimited(6, graph)))
    return delimited(7, graph)


def test_graphs_nest_as_deep_as_real_models_do() -> None:
    data = nested(15)
    assert cut(data) == (data, [])


@pytest.mark.parametrize("levels", [30, 5000])
def test_graphs_that_nest_deeper_are_refused(levels: int) -> None:
    with pytest.raises(InvalidModel, match="nest more than"):
        cut(nested(levels))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"\x08", "cut short"),
        (b"\x88", "cut short"),
        (b"\x3a\x05\x08\x01", "3 bytes are missing"),
        (b"\x3a" + b"\xff" * 9 + b"\x01", "bytes are missing"),
        (b"\x3a" + b"\xff" * 10 + b"\x01", "malformed"),
        (b"\xff" * 20, "malformed"),
        (b"\x0d\x00\x00\x00", "cut short"),
        (b"\x09\x00\x00\x00\x00\x00\x00\x00", "cut short"),
        (b"\x0b\x0c", "wire type 3"),
        (b"\x0e", "wire type 6"),
    ],
)
def test_bytes_that_are_no_message_are_refused_with_the_reason(data: bytes, reason: str) -> None:
    with pytest.raises(InvalidModel, match=f"is not a whole ONNX file.*{reason}"):
        cut(data)


def test_scalars_of_every_width_are_walked_over() -> None:
    data = b"\x08\x0a" + b"\x0d\x00\x00\x00\x00" + b"\x09" + b"\x00" * 8 + delimited(99, b"unknown")
    assert cut(data) == (data, [])


def test_lengths_written_longer_than_needed_are_read() -> None:
    raw = bytes(range(32))
    tensor = b"\x4a\xa0\x00" + raw  # raw_data, its length 32 in two bytes
    graph = b"\x2a" + bytes([len(tensor) | 0x80, 0x80, 0x00]) + tensor
    skeleton, cuts = cut(delimited(7, graph))
    assert [bytes(view) for view in cuts] == [raw]
    assert restored(skeleton, cuts).graph.initializer[0].raw_data == raw


@pytest.mark.parametrize("said", [None, onnx.TensorProto.DEFAULT])
def test_the_mark_holds_although_the_file_says_where_its_data_is(said: Any) -> None:
    model = support.wide_model(size=12, tensors=1)
    if said is not None:
        model.graph.initializer[0].data_location = said
    skeleton, _ = cut(model.SerializeToString())
    (tensor,) = parse(skeleton).graph.initializer
    assert tensor.data_location == onnx.TensorProto.EXTERNAL
    assert [(entry.key, entry.value) for entry in tensor.external_data] == [(wire.CUT_KEY, "0")]
