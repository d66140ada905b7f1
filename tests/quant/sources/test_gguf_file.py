"""GGUF files: every type against the package's own reader and by hand, shapes, parts, damage."""

from __future__ import annotations

import struct
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from nvfp4_foundry.quant.errors import SourceError
from nvfp4_foundry.quant.sources import GgufFile, open_tensors
from nvfp4_foundry.quant.sources import gguf_file as module
from nvfp4_foundry.quant.sources.gguf_header import bits_of, read_gguf_header

from tests.helpers.gguf_files import BLOCK_TYPES, WRITABLE, write_blocks, write_gguf


def same(a: torch.Tensor, b: torch.Tensor) -> bool:
    return a.shape == b.shape and bool(((a == b) | (a.isnan() & b.isnan())).all())


def read_by_package(path: Path) -> dict[str, torch.Tensor]:
    """Decode whole tensors through the package's memory map."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # random scales are NaN at times
        return {
            t.name: torch.from_numpy(gguf.dequantize(t.data, t.tensor_type).astype(np.float32))
            for t in gguf.GGUFReader(path).tensors
        }


@pytest.mark.parametrize("kind", BLOCK_TYPES)
def test_every_type_decodes_as_the_package_does_whole(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[kind]][0]
    monkeypatch.setattr(module, "_CHUNK", 4 * size)  # several chunks, the last of them short
    path = write_blocks(tmp_path / "m.gguf", {"Q4_0": 2, kind: 7} if kind != "Q4_0" else {kind: 7})
    expected = read_by_package(path)[kind]
    with GgufFile(path) as source:
        loaded = source.load(kind)
        assert loaded.dtype == torch.float32 and loaded.shape == (3, 7 * size)
        assert same(loaded, expected)
        assert source.info(kind).dtype == torch.bfloat16
        stored = source.info(kind).stored
        assert stored is not None and stored.label == kind and stored.nbytes > 0
        starts = [0, size - 3, 13 * size + 5, 21 * size - 9]
        flat = expected.flatten()
        runs = torch.stack([flat[s : s + 9] for s in starts])
        assert same(source.load_runs(kind, starts, 9), runs)


def test_two_types_by_hand(tmp_path: Path) -> None:
    """Q8_0: scale and 32 signed bytes. Q4_0: scale, then nibbles less 8, low ones first."""
    path = write_blocks(tmp_path / "m.gguf", {"Q8_0": 1, "Q4_0": 1}, rows=1)
    offsets = {t.name: int(t.data_offset) for t in gguf.GGUFReader(path).tensors}
    data = path.read_bytes()
    (scale,) = struct.unpack_from("<e", data, offsets["Q8_0"])
    codes = struct.unpack_from("32b", data, offsets["Q8_0"] + 2)
    (scale4,) = struct.unpack_from("<e", data, offsets["Q4_0"])
    packed = data[offsets["Q4_0"] + 2 : offsets["Q4_0"] + 18]
    nibbles = [b & 15 for b in packed] + [b >> 4 for b in packed]
    with GgufFile(path) as source:
        assert source.load("Q8_0").tolist() == [[scale * c for c in codes]]
        assert source.load("Q4_0").tolist() == [[scale4 * (n - 8) for n in nibbles]]


@pytest.mark.parametrize(
    ("kind", "dtype"), [("F32", torch.float32), ("F16", torch.float16), ("BF16", torch.bfloat16)]
)
def test_floats_keep_their_bits(kind: str, dtype: torch.dtype, tmp_path: Path) -> None:
    values = torch.randn(5, 6, generator=torch.Generator().manual_seed(0)).to(dtype)
    path = write_gguf(tmp_path / "m.gguf", {"a.weight": values}, kind)
    with GgufFile(path) as source:
        assert source.info("a.weight").dtype == dtype and source.info("a.weight").stored is None
        assert torch.equal(source.load("a.weight"), values)
        runs = source.load_runs("a.weight", [0, 17], 4)
        assert torch.equal(runs, torch.stack([values.flatten()[:4], values.flatten()[17:21]]))
        assert source.notes == ()


def test_original_shapes_are_restored(tmp_path: Path) -> None:
    patch = torch.arange(32 * 4 * 1 * 2 * 2.0).view(32, 4, 1, 2, 2)
    tensors = {"patch_embedding.weight": patch, "b.weight": torch.ones(6, 64)}
    path = write_gguf(tmp_path / "m.gguf", tensors, "F16", flattened=("patch_embedding.weight",))
    with GgufFile(path) as source:
        assert source.info("b.weight").shape == (6, 64)
        assert torch.equal(source.load("patch_embedding.weight").float(), patch)


def test_an_impossible_original_shape_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    writer = gguf.GGUFWriter(str(path), "wan")
    writer.add_array("comfy.gguf.orig_shape.a", [3, 3])
    writer.add_tensor("a", np.ones((2, 4), dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(SourceError, match=r"tensor a holds \(2, 4\), which cannot be .*\(3, 3\)"):
        GgufFile(path)


def test_only_what_is_needed_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_blocks(tmp_path / "m.gguf", {"Q4_K": 64}, rows=64)
    read: list[int] = []
    original = module.read_into

    def count(buffer: np.ndarray, *place: Any) -> None:
        read.append(buffer.nbytes)
        original(buffer, *place)

    monkeypatch.setattr(module, "read_into", count)
    with GgufFile(path) as source:
        assert read == []
        source.load_runs("Q4_K", [10, 256 * 100 + 250], 16)
    assert sum(read) == 3 * 144  # one block, then two, of 144 bytes


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_no_memory_map_is_left(tmp_path: Path) -> None:
    path = write_blocks(tmp_path / "mapped.gguf", {"Q4_K": 4})
    with GgufFile(path) as source:
        source.load("Q4_K")
        assert "mapped.gguf" not in Path("/proc/self/maps").read_text()


def test_what_the_weights_went_through_is_said(tmp_path: Path) -> None:
    path = write_blocks(tmp_path / "m.gguf", {"Q4_K": 1, "Q6_K": 1})
    with open_tensors(path) as source:
        (note,) = source.notes
    assert "1 from Q4_K, 1 from Q6_K" in note and "cannot be better" in note


def test_every_cut_is_an_error_and_ends(tmp_path: Path) -> None:
    tensors = {"a.weight": torch.ones(4, 64), "b.weight": torch.ones(4, 32)}
    path = write_gguf(tmp_path / "m.gguf", tensors, "Q8_0")
    data = path.read_bytes()
    end = max(int(t.data_offset + t.n_bytes) for t in gguf.GGUFReader(path).tensors)
    cut = tmp_path / "cut.gguf"
    for length in [*range(0, end - 1, 7), end - 1]:
        cut.write_bytes(data[:length])
        with pytest.raises(SourceError, match=r"cut\.gguf"):
            GgufFile(cut)


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_any_damage_is_read_or_refused(data: st.DataObject) -> None:
    """Flipped bytes: what opens also loads, everything else is our own error."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "m.gguf")
        tensors = {"a.weight": torch.ones(4, 64), "b": torch.ones(3, 2, 2)}
        write_gguf(path, tensors, lambda n, _: "F32" if n == "b" else "Q8_0", flattened=("b",))
        content = bytearray(path.read_bytes())
        for _ in range(data.draw(st.integers(1, 3))):
            at = data.draw(st.integers(0, len(content) - 1))
            content[at] = data.draw(st.integers(0, 255))
        path.write_bytes(content)
        try:
            with GgufFile(path) as source:
                for name, info in source.tensors.items():
                    assert source.load(name).shape == info.shape
        except SourceError as error:
            assert str(path) in str(error)


def test_absurd_counts_end(tmp_path: Path) -> None:
    """Reading a damaged count of 2^60 values one by one would take years."""
    path = write_gguf(tmp_path / "m.gguf", {"a": torch.ones(2, 3)}, flattened=("a",))
    data = bytearray(path.read_bytes())
    at = data.index(b"comfy.gguf.orig_shape.a") + len(b"comfy.gguf.orig_shape.a") + 8
    assert struct.unpack_from("<Q", data, at) == (2,)
    struct.pack_into("<Q", data, at, 1 << 60)
    path.write_bytes(data)
    with pytest.raises(SourceError, match="damaged or truncated"):
        GgufFile(path)


def test_the_header_is_what_the_package_reads(tmp_path: Path) -> None:
    """Fields of every kind, a word list and an alignment of its own between header and tensors."""
    path = tmp_path / "m.gguf"
    writer = gguf.GGUFWriter(str(path), "t5encoder")
    writer.add_custom_alignment(64)
    writer.add_token_list([f"word {i}" for i in range(300)])
    writer.add_token_scores([0.5] * 300)
    kinds = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64", "float32")
    for kind in (*kinds, "float64"):
        getattr(writer, f"add_{kind}")(f"number.{kind}", 1)
    writer.add_bool("yes", True)
    writer.add_string("text", "ü" * 40)
    writer.add_array("array.of.bools", [True, False])
    writer.add_tensor("a.weight", np.ones((3, 5), dtype=np.float32))
    quantized = gguf.GGMLQuantizationType.Q8_0
    rows = gguf.quantize(np.ones((2, 64), dtype=np.float32), quantized)
    writer.add_tensor("b.weight", rows, raw_dtype=quantized)
    writer.add_tensor("c", np.ones(7, dtype=np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    header = read_gguf_header(path)
    assert header.architecture == "t5encoder"
    theirs = {
        t.name: (t.tensor_type.name, tuple(reversed(t.shape.tolist())), t.data_offset, t.n_bytes)
        for t in gguf.GGUFReader(path).tensors
    }
    ours = {n: (t.type, t.shape, t.offset, t.nbytes) for n, t in header.tensors.items()}
    assert ours == theirs and all(t.offset % 64 == 0 for t in header.tensors.values())


@pytest.mark.parametrize(
    ("at", "value", "message"),
    [(4, b"\x00\x00\x00\x03", "other byte order"), (4, b"\x01\x00\x00\x00", "of version 1")],
)
def test_other_versions_are_named(at: int, value: bytes, message: str, tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "m.gguf", {"a": torch.ones(2, 2)})
    data = bytearray(path.read_bytes())
    data[at : at + len(value)] = value
    path.write_bytes(data)
    with pytest.raises(SourceError, match=message):
        GgufFile(path)


def test_a_type_newer_than_the_package_is_named(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "m.gguf", {"a.weight": torch.ones(2, 3)})
    data = bytearray(path.read_bytes())
    at = data.index(b"a.weight") + len(b"a.weight") + 4 + 16
    data[at : at + 4] = (999).to_bytes(4, "little")
    path.write_bytes(data)
    with pytest.raises(SourceError, match=r"a\.weight is of type 999.*pip install -U gguf"):
        GgufFile(path)


@pytest.mark.parametrize("content", [b"", b"GGUF", b"nothing of the kind" * 10])
def test_what_is_no_gguf_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(content)
    with pytest.raises(SourceError, match=r"m\.gguf is .*GGUF file"):
        open_tensors(path)


def test_types_that_cannot_be_decoded_are_named(tmp_path: Path) -> None:
    path = write_blocks(tmp_path / "m.gguf", {"Q4_0": 1, "Q8_K": 1})
    with pytest.raises(SourceError, match=r"cannot dequantize: Q8_K \(e\.g\. Q8_K\)"):
        GgufFile(path)


def test_a_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_gguf(tmp_path / "m.gguf", {"a": torch.ones(2, 2)})
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(SourceError, match="pip install gguf"):
        GgufFile(path)


def test_bits_by_name() -> None:
    bits = {"Q2_K": 2, "Q3_K": 3, "Q4_0": 4, "Q4_1": 4, "Q4_K": 4, "Q5_1": 5, "Q6_K": 6,
            "Q8_0": 8, "IQ1_S": 1, "IQ2_XXS": 2, "IQ3_S": 3, "IQ4_NL": 4, "IQ4_XS": 4, "TQ1_0": 1,
            "TQ2_0": 2, "MXFP4": 4, "NVFP4": 4, "F16": 16, "BF16": 16, "F32": 32}  # fmt: skip
    assert {name: bits_of(name) for name in bits} == bits
    assert set(BLOCK_TYPES) | set(WRITABLE) <= {*bits, "Q5_0", "Q5_K", "IQ1_M", "IQ2_S", "IQ2_XS",
                                                "IQ3_XXS"}  # fmt: skip
