"""Packing: strips against the NumPy twin and `gguf.quants`, and the file around them."""

import errno
import os
import resource
import struct
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import xxhash
from gguf import GGML_QUANT_SIZES, quants
from gguf import GGMLQuantizationType as Q
from kit.blocks import F16_FIELDS, random_blocks, tame_blocks
from reference import strips

from moesaic import _pack
from moesaic.errors import ModelError, PlanError
from moesaic.partitioner.gguf.dtypes import MATRIX_CODECS, row_bytes
from moesaic.partitioner.plan import pack
from moesaic.partitioner.plan.pack import pack_weights
from moesaic.partitioner.plan.sources import Blocks, PartSource, TensorSource, stacked, vector_part
from moesaic.plan_format import plan_uuid, tensor_list_digest

KINDS = pytest.mark.parametrize("kind", MATRIX_CODECS, ids=[kind.name for kind in MATRIX_CODECS])
ROWS = (1, 15, 16, 17, 33)


@pytest.fixture
def rng():
    return np.random.default_rng(20)


def matrix(kind, rows, cols, data, offset=0, name="w", role="weight"):
    """A part of one record, from a file or an array of blocks."""
    blocks = Blocks(name, kind, data, offset)
    return PartSource(role, MATRIX_CODECS[kind], rows, cols, (blocks,))


def part_bytes(path, tensor, record, part):
    start = tensor.offset + record * tensor.stride + tensor.parts[part].offset
    p = tensor.parts[part]
    return np.fromfile(path, np.uint8, _pack.matrix_bytes(p.codec, p.rows, p.cols), offset=start)


@KINDS
@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("cols", [256, 1536])
def test_strips_equal_the_twins_and_decode_exactly(kind, rows, cols, tmp_path, rng):
    raw = random_blocks(kind, rows * cols, rng)
    path = tmp_path / "weights.bin"
    (tensor,) = pack_weights([TensorSource("w", (matrix(kind, rows, cols, raw),))], path)
    packed = part_bytes(path, tensor, 0, 0)
    assert np.array_equal(packed, strips.encode(kind, raw, rows, cols))
    decoded = strips.decode(MATRIX_CODECS[kind], packed, rows, cols)
    with np.errstate(over="ignore"):
        judge = quants.dequantize(raw.reshape(rows, -1), kind).astype(np.float32)
    assert np.array_equal(decoded.view(np.uint32), judge.view(np.uint32))


@KINDS
def test_rows_beyond_the_matrix_are_zero(kind, tmp_path, rng):
    raw = tame_blocks(kind, 17 * 256, rng)  # no row of zeros
    path = tmp_path / "weights.bin"
    (tensor,) = pack_weights([TensorSource("w", (matrix(kind, 17, 256, raw),))], path)
    decoded = strips.decode(MATRIX_CODECS[kind], part_bytes(path, tensor, 0, 0), 32, 256)
    assert decoded[:17].any(axis=1).all()
    assert not decoded[17:].any()


@pytest.mark.parametrize("kind", [Q.F32, Q.F16, Q.BF16])
def test_vectors_become_float32(kind, tmp_path, rng):
    raw = random_blocks(kind, 100, rng)
    part = PartSource("weight", "f32", 100, 1, (Blocks("v", kind, raw, 0),))
    path = tmp_path / "weights.bin"
    (tensor,) = pack_weights([TensorSource("v", (part,))], path)
    values = part_bytes(path, tensor, 0, 0).view(np.float32)
    assert len(values) == 112
    assert np.array_equal(values[:100], quants.dequantize(raw, kind).reshape(-1))
    assert not values[100:].any()


def test_every_half_widens_exactly(tmp_path):
    bits = np.arange(1 << 16, dtype=np.uint16)
    raw = bits[bits & 0x7C00 != 0x7C00]
    part = PartSource("weight", "f32", raw.size, 1, (Blocks("v", Q.F16, raw, 0),))
    path = tmp_path / "weights.bin"
    (tensor,) = pack_weights([TensorSource("v", (part,))], path)
    values = part_bytes(path, tensor, 0, 0).view(np.uint32)[: raw.size]
    assert np.array_equal(values, raw.view(np.float16).astype(np.float32).view(np.uint32))


def test_computed_values(tmp_path, rng):
    table = rng.random(37, np.float32)
    path = tmp_path / "weights.bin"
    (tensor,) = pack_weights([TensorSource("t", (vector_part("t", table),))], path)
    assert np.array_equal(part_bytes(path, tensor, 0, 0).view(np.float32)[:37], table)


@KINDS
def test_rows_may_be_decoded_as_they_are_packed(kind, tmp_path, rng, monkeypatch):
    monkeypatch.setattr(pack, "CHUNK_BYTES", 40_000)  # two strips a chunk
    raw, file = random_blocks(kind, 70 * 256, rng), tmp_path / "model.gguf"
    if kind == Q.MXFP4:
        raw.reshape(-1, 17)[:, 0] &= 127  # values that float32 holds
    file.write_bytes(bytes(100) + raw.tobytes())
    part = PartSource("weight", "f32", 70, 256, (Blocks("w", kind, file, 100, decoded=True),))
    path = tmp_path / "weights.bin"
    (tensor,) = pack_weights([TensorSource("w", (part,))], path)
    decoded = strips.decode("f32", part_bytes(path, tensor, 0, 0), 70, 256)
    with np.errstate(over="ignore"):
        judge = quants.dequantize(raw.reshape(70, -1), kind).astype(np.float32)
    assert np.array_equal(decoded.view(np.uint32), judge.view(np.uint32))


def test_decoded_rows_that_are_damaged_or_cut_are_named(tmp_path, rng):
    raw, file = random_blocks(Q.Q8_0, 20 * 64, rng).reshape(20, -1), tmp_path / "model.gguf"
    raw[18, 34:36] = 0x00, 0x7C  # the scale of the second block is infinite
    part = PartSource("w", "f32", 20, 64, (Blocks("w", Q.Q8_0, file, 0, decoded=True),))
    file.write_bytes(raw.tobytes())
    with pytest.raises(ModelError, match=r"tensor 'w': row 18: weight 3\d is not finite"):
        pack_weights([TensorSource("w", (part,))], tmp_path / "first")
    os.truncate(file, raw.size - 1)
    with pytest.raises(ModelError, match="'w': cannot be read: the file ends early"):
        pack_weights([TensorSource("w", (part,))], tmp_path / "second")


def expert_sources(path: Path, rng) -> tuple[list[TensorSource], list[list[np.ndarray]]]:
    """Two layers of 3 experts, one of merged tensors and one of separate ones, and a norm."""
    experts, wide, narrow = 3, 256, 96
    roles = (
        ("gate", Q.MXFP4, narrow, wide),
        ("up", Q.Q4_K, narrow, wide),
        ("down", Q.Q8_0, wide, narrow),
        ("gate_bias", Q.F32, narrow, 1),
        ("down_bias", Q.F16, wide, 1),
    )
    data, parts, expected = b"x" * 7, [], []
    for role, kind, rows, cols in roles:
        size, codec = rows * row_bytes(kind, cols), "f32" if cols == 1 else MATRIX_CODECS[kind]
        raw = [random_blocks(kind, rows * cols, rng) for _ in range(experts)]
        records = [Blocks(role, kind, path, len(data) + e * size) for e in range(experts)]
        parts.append(PartSource(role, codec, rows, cols, tuple(records)))
        data += b"".join(r.tobytes() for r in raw)
        values = [quants.dequantize(r, kind).reshape(-1) if cols == 1 else r for r in raw]
        expected.append(
            [
                strips.encode(Q.F32, v.view(np.uint8), rows, 1)
                if cols == 1
                else strips.encode(kind, v, rows, cols)
                for v in values
            ]
        )
    path.write_bytes(data)
    separate = [
        stacked([PartSource(p.role, p.codec, p.rows, p.cols, (blocks,)) for blocks in p.records])
        for p in parts
    ]
    norm = vector_part("norm", np.ones(wide, np.float32))
    sources = [
        TensorSource("first", tuple(parts)),
        TensorSource("norm", (norm,)),
        TensorSource("second", tuple(separate)),
    ]
    return sources, expected


@pytest.mark.parametrize("chunk", [1, 3000, 100_000, 16 << 20])
def test_expert_records(chunk, tmp_path, rng, monkeypatch):
    monkeypatch.setattr(pack, "CHUNK_BYTES", chunk)
    sources, expected = expert_sources(tmp_path / "model", rng)
    path = tmp_path / "weights.bin"
    tensors = pack_weights(sources, path)
    data = np.fromfile(path, np.uint8)
    covered = np.zeros(len(data), bool)
    covered[:56] = True
    for tensor in tensors:
        assert tensor.offset % 4096 == 0
        assert tensor.bytes == tensor.count * tensor.stride
        content = data[tensor.offset : tensor.offset + tensor.bytes]
        assert tensor.xxh3 == xxhash.xxh3_64_hexdigest(content.tobytes())
        for record in range(tensor.count):
            for number, part in enumerate(tensor.parts):
                start = tensor.offset + record * tensor.stride + part.offset
                size = _pack.matrix_bytes(part.codec, part.rows, part.cols)
                covered[start : start + size] = True
                if tensor.count > 1:
                    packed = data[start : start + size]
                    assert np.array_equal(packed, expected[number][record]), (record, part)
    assert not data[~covered].any()
    assert tensors[0].xxh3 == tensors[2].xxh3
    assert [p.role for p in tensors[0].parts] == [p.role for p in sources[0].parts]


def test_the_header(tmp_path, rng):
    sources, _ = expert_sources(tmp_path / "model", rng)
    path = tmp_path / "weights.bin"
    tensors = pack_weights(sources, path)
    page = path.read_bytes()[:4096]
    magic, version, size, uuid, digest, file_bytes = struct.unpack_from("<8sII16s16sQ", page)
    assert (magic, version, size) == (b"MOESAICW", 1, 4096)
    assert file_bytes == path.stat().st_size == tensors[-1].offset + tensors[-1].bytes
    assert digest == tensor_list_digest(tensors)
    assert uuid == plan_uuid(digest).bytes
    assert not any(page[56:])


def test_the_digest_is_that_of_compact_sorted_json(tmp_path):
    path = tmp_path / "weights.bin"
    source = TensorSource("norm\u00e9", (vector_part("norm", np.ones(3, np.float32)),))
    tensors = pack_weights([source], path)
    xxh3 = xxhash.xxh3_64_hexdigest(path.read_bytes()[4096:4160])
    text = (
        '[{"bytes":64,"count":1,"name":"norm\u00e9","offset":4096,"parts":[{"codec":"f32","cols":1,'
        '"offset":0,"role":"weight","rows":3}],"stride":64,"xxh3":"' + xxh3 + '"}]'
    )
    digest = xxhash.xxh3_128_digest(text.encode())
    assert tensor_list_digest(tensors) == digest
    uuid = plan_uuid(digest)
    assert (uuid.bytes[6] >> 4, uuid.bytes[8] >> 6) == (8, 2)
    keep = bytes.fromhex("ffffffffffff0fff3fffffffffffffff")
    assert bytes(a & k for a, k in zip(uuid.bytes, keep, strict=True)) == bytes(
        a & k for a, k in zip(digest, keep, strict=True)
    )


def test_the_result_does_not_depend_on_the_number_of_threads(tmp_path, rng):
    raw = random_blocks(Q.Q6_K, 2000 * 512, rng)
    (tmp_path / "model").write_bytes(raw.tobytes())
    with (tmp_path / "model").open("rb") as file:
        piece = _pack.Piece(file.fileno(), 0, int(Q.Q6_K), "u6_super", 2000, 512, 64)
        size = _pack.matrix_bytes("u6_super", 2000, 512)
        one, many = np.full(size + 128, 1, np.uint8), np.full(size + 128, 2, np.uint8)
        assert _pack.pack([piece], one, 1) is None
        assert _pack.pack([piece], many, 7) is None
    assert np.array_equal(one, many)
    assert not one[:64].any()
    assert not one[-64:].any()


NOT_FINITE = [(kind, at) for kind, fields in F16_FIELDS.items() for at in fields]


@pytest.mark.parametrize(("kind", "at"), NOT_FINITE)
@pytest.mark.parametrize("bits", [0x7C00, 0xFC00, 0x7E01])
def test_scales_that_are_not_finite_are_refused(kind, at, bits, tmp_path, rng, monkeypatch):
    monkeypatch.setattr(pack, "CHUNK_BYTES", 20_000)
    rows, cols = 300, 512
    raw = random_blocks(kind, rows * cols, rng).reshape(rows, -1, GGML_QUANT_SIZES[kind][1])
    for row in (290, 211):
        raw[row, 1, at : at + 2] = bits & 255, bits >> 8
    (tmp_path / "model.gguf").write_bytes(b"12345" + raw.tobytes())
    part = matrix(kind, rows, cols, tmp_path / "model.gguf", 5, "blk.3.ffn_up.weight")
    with pytest.raises(ModelError, match=r"model\.gguf: tensor 'blk\.3\.ffn_up\.weight'") as error:
        pack_weights([TensorSource("w", (part,))], tmp_path / "weights.bin")
    what = "weight 1" if kind == Q.F16 else "scale of block 1"
    assert f"row 211: {what} is not finite" in str(error.value)


@pytest.mark.parametrize("kind", [Q.F32, Q.BF16, Q.F16])
@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
def test_float_weights_that_are_not_finite_are_refused(kind, value, tmp_path):
    values = np.ones((20, 3), np.float32)
    values[19, 2] = value
    raw = quants.quantize(values, kind)
    with pytest.raises(ModelError, match="row 19: weight 2 is not finite"):
        pack_weights([TensorSource("w", (matrix(kind, 20, 3, raw),))], tmp_path / "weights.bin")


def test_a_file_that_ends_early(tmp_path):
    (tmp_path / "model.gguf").write_bytes(b"\0" * (17 * 100 - 1))
    part = matrix(Q.MXFP4, 100, 32, tmp_path / "model.gguf")
    with pytest.raises(ModelError, match=r"model\.gguf: tensor 'w': .*ends early"):
        pack_weights([TensorSource("w", (part,))], tmp_path / "weights.bin")


def test_a_missing_file(tmp_path):
    part = matrix(Q.MXFP4, 100, 32, tmp_path / "model.gguf")
    with pytest.raises(ModelError, match=r"model\.gguf: cannot be read: No such file"):
        pack_weights([TensorSource("w", (part,))], tmp_path / "weights.bin")


def test_a_directory_instead_of_a_file(tmp_path):
    with pytest.raises(ModelError, match="cannot be read"):
        pack_weights(
            [TensorSource("w", (matrix(Q.MXFP4, 1, 32, tmp_path),))], tmp_path / "weights.bin"
        )


def test_an_existing_file_is_kept(tmp_path):
    path = tmp_path / "weights.bin"
    path.write_bytes(b"precious")
    with pytest.raises(PlanError, match=r"weights\.bin: cannot be written: File exists"):
        pack_weights([], path)
    assert path.read_bytes() == b"precious"


def test_no_space_is_seen_before_writing(tmp_path):
    part = matrix(Q.MXFP4, 1 << 33, 1 << 20, tmp_path / "model.gguf")
    with pytest.raises(PlanError, match=r"needs \d+ bytes, but only \d+ are free") as error:
        pack_weights([TensorSource("w", (part,))], tmp_path / "weights.bin")
    assert error.value.hint
    assert not (tmp_path / "weights.bin").exists()


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
def test_a_disk_that_fills_up(code, tmp_path, rng, monkeypatch):
    monkeypatch.setattr(pack, "CHUNK_BYTES", 20_000)
    written = []
    pwrite = os.pwrite

    def failing(fd, data, offset):
        written.append(offset)
        if len(written) > 3:
            raise OSError(code, os.strerror(code))
        return pwrite(fd, data[: len(data) // 2 + 1], offset)

    (tmp_path / "model").write_bytes(random_blocks(Q.Q8_0, 512 * 512, rng).tobytes())
    monkeypatch.setattr(os, "pwrite", failing)
    source = TensorSource("w", (matrix(Q.Q8_0, 512, 512, tmp_path / "model"),))
    with pytest.raises(PlanError, match=r"weights\.bin: cannot be written") as error:
        pack_weights([source], tmp_path / "weights.bin")
    assert ("space" in error.value.hint) == (code == errno.ENOSPC)
    assert threading.active_count() == 1


def test_a_file_size_limit(tmp_path, rng):
    (tmp_path / "model").write_bytes(random_blocks(Q.Q8_0, 512 * 512, rng).tobytes())
    source = TensorSource("w", (matrix(Q.Q8_0, 512, 512, tmp_path / "model"),))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        with pytest.raises(PlanError, match="File too large"):
            pack_weights([source], tmp_path / "weights.bin")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_progress_and_partial_writes(tmp_path, rng, monkeypatch):
    monkeypatch.setattr(pack, "CHUNK_BYTES", 20_000)
    sources, _ = expert_sources(tmp_path / "model", rng)
    seen = []
    plain = pack_weights(sources, tmp_path / "a.bin", lambda *done: seen.append(done))
    size = (tmp_path / "a.bin").stat().st_size
    assert seen == sorted(set(seen))
    assert len(seen) > 10
    assert seen[-1] == (size, size)
    pwrite = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda fd, data, at: pwrite(fd, data[:1000], at))
    assert pack_weights(sources, tmp_path / "b.bin") == plain
    assert (tmp_path / "a.bin").read_bytes() == (tmp_path / "b.bin").read_bytes()


def test_an_interrupt_stops_the_packing(tmp_path, rng, monkeypatch):
    monkeypatch.setattr(pack, "CHUNK_BYTES", 20_000)
    sources, _ = expert_sources(tmp_path / "model", rng)
    files = len(os.listdir("/proc/self/fd"))

    def interrupt(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pack_weights(sources, tmp_path / "weights.bin", interrupt)
    assert threading.active_count() == 1
    assert len(os.listdir("/proc/self/fd")) == files


def test_native_arguments_are_checked():
    for bad in (
        {"codec": "u3"},
        {"codec": "u8_f16"},
        {"type": 3},
        {"cols": 33},
        {"rows": 0},
        {"rows": -1},
        {"rows": 1 << 50},
        {"rows": 1 << 39, "cols": 1 << 39},
        {"offset": -1},
        {"out": -1},
    ):
        good = {"fd": -1, "offset": 0, "type": 2, "codec": "u4_f16", "rows": 16, "cols": 32}
        with pytest.raises(ValueError, match=r"bad shape|cannot be packed|no codec"):
            _pack.Piece(**({**good, "out": 0} | bad))
    piece = _pack.Piece(-1, 0, 2, "u4_f16", 17, 32, 1)
    with pytest.raises(ValueError, match="does not fit"):
        _pack.pack([piece], np.zeros(640, np.uint8), 1)
    with pytest.raises(OSError, match="Bad file descriptor"):
        _pack.pack([piece], np.zeros(641, np.uint8), 2)


MEASURE = """
import resource, sys
from pathlib import Path
from gguf import GGMLQuantizationType as Q
from moesaic.partitioner.plan.pack import pack_weights
from moesaic.partitioner.plan.sources import Blocks, PartSource, TensorSource
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
before, rows, cols = peak(), 1 << 21, 1024
blocks = Blocks("w", Q.MXFP4, Path(sys.argv[1]), 0)
part = PartSource("weight", "u4_e8m0_fp4", rows, cols, (blocks,))
pack_weights([TensorSource("w", (part,))], Path(sys.argv[2]))
print(peak() - before)
"""


@pytest.mark.slow
def test_memory_is_bounded(tmp_path):
    with (tmp_path / "model").open("wb") as file:
        file.truncate((1 << 21) * 1024 // 32 * 17)  # 1.1 GB, a hole
    arguments = [sys.executable, "-c", MEASURE, tmp_path / "model", tmp_path / "weights.bin"]
    done = subprocess.run(arguments, check=True, capture_output=True, text=True)
    assert int(done.stdout) < 128 << 20
