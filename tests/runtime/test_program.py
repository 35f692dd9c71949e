import msgspec
import pytest
from kit.tiny_plan import EXPERTS, VOCAB, WIDTH, tiny_plan

from moesaic.errors import PlanError
from moesaic.partitioner.plan.codecs import CODECS
from moesaic.runtime import _native


def step_of(spec, op, nth=0):
    return [step for step in spec["program"] if step["op"] == op][nth]


def named(items, name):
    return next(item for item in items if item["name"] == name)


@pytest.fixture
def spec():
    return tiny_plan().spec()


@pytest.mark.parametrize("split", [False, True])
def test_a_valid_plan_is_accepted(split):
    plan = tiny_plan(split=split)
    program = _native.Program(plan.spec(), len(plan.weights))
    assert program.vocab_size == VOCAB
    assert program.weights_bytes == len(plan.weights)


@pytest.mark.parametrize("split", [False, True])
def test_a_plan_with_second_rope_tables_is_accepted(split):
    plan = tiny_plan(split=split, original_context=64)
    _native.Program(plan.spec(), len(plan.weights))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda step, spec: step["attrs"].update(original_context=65), "another Rope step has 64"),
        (lambda step, spec: step["attrs"].update(original_context=0), "expected 1 to"),
        (lambda step, spec: step["attrs"].update(original_context=1 << 40), "expected 1 to"),
        (lambda step, spec: step["inputs"].pop(), "expected 3 inputs, got 2"),
        (lambda step, spec: step["inputs"].__setitem__(2, "positions@cpu"), "buffer `extended`"),
        (lambda step, spec: step["inputs"].__setitem__(2, step["inputs"][0]), "buffer `extended`"),
        (lambda step, spec: step["weights"].__setitem__(1, None), "expected 2 inputs, got 3"),
        (lambda step, spec: step["weights"].__setitem__(1, "blk.0.q_bias"), "expected"),
        (lambda step, spec: step["weights"].__setitem__(1, "nothing"), "nothing"),
        (lambda step, spec: named(spec["buffers"], "extended@cpu").update(dtype="f32"), "i32"),
        (lambda step, spec: named(spec["buffers"], "extended@cpu").update(bytes_per_row=8), "i32"),
        (
            lambda step, spec: named(spec["buffers"], "extended@cpu").update(name="other"),
            "no buffer `extended",
        ),
    ],
)
def test_second_rope_tables_are_checked(change, message):
    spec = tiny_plan(original_context=64).spec()
    change(step_of(spec, "Rope", 2), spec)
    with pytest.raises(PlanError, match=message):
        _native.Program(spec)


def test_the_size_of_the_weights_is_the_end_of_the_last_tensor_by_default(spec):
    last = max(t["offset"] + t["bytes"] for t in spec["tensors"])
    assert _native.Program(spec).weights_bytes == last
    with pytest.raises(PlanError, match=r"end in weights\.bin"):
        _native.Program(spec, last - 1)


def test_codecs_are_those_of_the_partitioner():
    expected = [
        {
            "name": codec.name,
            "code_bytes": codec.code_bytes,
            "scale_bytes": codec.scale_bytes,
            "super_bytes": codec.super_bytes,
            "column_multiple": codec.column_multiple,
        }
        for codec in CODECS.values()
    ]
    assert _native.codecs() == expected


def test_an_error_has_a_hint_and_names_step_and_node(spec):
    step_of(spec, "Linear")["inputs"] = ["/x", "/x"]
    with pytest.raises(
        PlanError, match=r"step 2 \(Linear /layers.0/attn/qkv\): .*1 inputs, got 2"
    ) as info:
        _native.Program(spec)
    assert "partition" in info.value.hint


TOP_LEVEL = ["model", "limits", "devices", "memory", "tensors", "caches", "buffers", "program"]


@pytest.mark.parametrize("field", TOP_LEVEL)
def test_a_missing_field_is_named(spec, field):
    del spec[field]
    with pytest.raises(PlanError, match=f"{field}: is missing"):
        _native.Program(spec)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("limits", "batch"), True, r"limits\.batch: expected an integer"),
        (("limits", "batch"), 1.0, r"limits\.batch: expected an integer"),
        (("limits", "batch"), 2**63, r"limits\.batch: does not fit 64 bits"),
        (("limits", "batch"), 0, "limits: batch: expected 1 to"),
        (("limits", "context"), 2**40, "limits: context"),
        (("limits", "sequences"), -1, "limits: sequences"),
        (("limits", "logits_rows"), 0, "limits: logits_rows"),
        (("devices",), [], "there is no device `cpu`"),
        (("devices", 0, "provider"), "CUDAExecutionProvider", "device `cpu`: provider"),
        (("devices", 0, "arena_bytes"), 64, "end in the arena"),
        (("devices", 0, "scratch_bytes"), 0, "bytes of scratch"),
        (("memory", 0, "total"), 1, "planned memory in total"),
        (("memory", 0, "device"), "cuda:0", "there is no device `cuda:0`"),
        (("tensors", 0, "offset"), 0, "offset: expected 4096"),
        (("tensors", 0, "offset"), 4097, "multiple of 4096"),
        (("tensors", 0, "offset"), -4096, "offset: expected 4096"),
        (("tensors", 0, "offset"), 2**62, r"weights\.bin: bytes: expected 4096"),
        (("tensors", 0, "bytes"), 64, "tensor `token_embd`: bytes: expected 6144"),
        (("tensors", 0, "count"), 0, "count"),
        (("tensors", 0, "count"), 2**62, "count"),
        (("tensors", 0, "stride"), 64, "stride"),
        (("tensors", 0, "parts"), [], "parts: expected 1 to 6"),
        (("tensors", 0, "parts", 0, "codec"), "q4", "unknown codec `q4`"),
        (("tensors", 0, "parts", 0, "rows"), 0, "rows: expected 1"),
        (("tensors", 0, "parts", 0, "rows"), 2**62, "rows: expected 1"),
        (("tensors", 0, "parts", 0, "cols"), 2**30, "stride: expected"),
        (("tensors", 0, "parts", 0, "offset"), 32, "multiple of 64"),
        (("tensors", 0, "parts", 0, "offset"), -64, "offset: expected 0"),
        (("tensors", 1, "name"), "token_embd", "`token_embd` is there twice"),
        (("tensors", 1, "name"), "", "is empty"),
        (("caches", 0, "window"), -1, "window"),
        (("caches", 0, "kv_heads"), 2**40, "kv_heads"),
        (("caches", 0, "k_dim"), 16, "k_dim: expected 16 to 16"),
        (("caches", 0, "dtype"), "f64", "unknown dtype"),
        (("buffers", 1, "offset"), 1, "multiple of 64"),
        (("buffers", 1, "bytes_per_row"), 6, "multiple of 4"),
        (("buffers", 1, "bytes_per_row"), 2**62, "bytes_per_row: expected 4"),
        (("buffers", 1, "max_rows"), 4, "max_rows: expected 16 to 16, got 4"),
        (("buffers", 1, "rows"), "pages", "unknown kind"),
        (("program", 0, "op"), "Conv", "unknown op `Conv`"),
        (("program", 0, "device"), "cuda:0", "there is no device"),
        (("program", 0, "inputs", 0), "/y", "there is no buffer `/y`"),
        (("program", 0, "weights", 0), None, r"\(Embedding /embed\): weight 0 is missing"),
        (("program", 0, "weights", 0), "w", "there is no tensor `w`"),
        (("program", 0, "attrs"), {"scale": 1.0}, "unknown attribute `scale`"),
        (("program", 0, "experts"), [0], "only `Experts` steps"),
        (("program",), [], "program: expected 1 to 1000000, got 0"),
    ],
)  # fmt: skip
def test_a_wrong_value_is_named(spec, path, value, message):
    target = spec
    for key in path[:-1]:
        target = target[key]
    target[path[-1]] = value
    with pytest.raises(PlanError, match=message):
        _native.Program(spec)


ATTRIBUTES = [
    ("Rope", "original_context"), *((op, name) for op, names in {
        "RMSNorm": ["eps", "groups"],
        "Rope": ["heads", "head_dim", "rotary_dims", "offset", "style", "scale"],
        "Attention": ["cache", "heads", "kv_heads", "k_dim", "v_dim", "scale", "window", "softcap"],
        "Route": ["experts", "used", "gating", "eps", "renormalise", "scale"],
        "Experts": ["experts", "used", "activation", "alpha", "limit"],
        "GatedActivation": ["activation", "alpha", "limit"],
        "Scale": ["factor"],
        "Softcap": ["cap"],
    }.items() for name in names)
]  # fmt: skip


@pytest.mark.parametrize(("op", "name"), ATTRIBUTES)
def test_every_attribute_is_needed_and_typed(spec, op, name):
    attrs = step_of(spec, op)["attrs"]
    value = attrs.pop(name)
    with pytest.raises(PlanError, match=rf"\({op} .*attribute `{name}` is missing"):
        _native.Program(spec)
    attrs[name] = 7 if isinstance(value, str | bool) else "seven"
    with pytest.raises(PlanError, match=rf"\({op} .*attribute `{name}` is not"):
        _native.Program(spec)
    attrs[name] = [value]
    with pytest.raises(PlanError, match=rf"attrs\.{name}: expected a string"):
        _native.Program(spec)
    attrs[name] = value
    _native.Program(spec)


@pytest.mark.parametrize(
    ("op", "name", "value", "message"),
    [
        ("RMSNorm", "groups", 5, "does not divide"),
        ("RMSNorm", "eps", -1.0, "out of range"),
        ("RMSNorm", "eps", float("nan"), "out of range"),
        ("Rope", "style", "gpt", "unknown value `gpt`"),
        ("Rope", "rotary_dims", 31, "even"),
        ("Rope", "rotary_dims", 64, "rotary_dims: expected 2 to 32"),
        ("Rope", "offset", 2, "offset: expected 0 to 0"),
        ("Rope", "heads", 2**40, "heads"),
        ("Rope", "scale", float("inf"), "out of range"),
        ("Attention", "cache", 2, "cache: expected 0 to 1"),
        ("Attention", "window", 3, "window: expected 0 to 0"),
        ("Attention", "softcap", -1.0, "out of range"),
        ("Route", "used", EXPERTS + 1, "used: expected 1 to 4"),
        ("Route", "experts", 5, "expected 5 values a row, got 4"),
        ("Route", "gating", "top", "unknown value"),
        ("Experts", "used", 1, "expected 1 values a row, got 2"),
        ("Experts", "experts", 5, "expected 5 records, got 4"),
        ("Experts", "activation", "relu", "unknown value"),
        ("Experts", "activation", "swiglu_clamped", "limit: 0.000000 is out of range"),
        ("Softcap", "cap", 0.0, "out of range"),
    ],
)
def test_attributes_are_sane(spec, op, name, value, message):
    step_of(spec, op)["attrs"][name] = value
    with pytest.raises(PlanError, match=message):
        _native.Program(spec)


@pytest.mark.parametrize(
    ("experts", "message"),
    [
        ([], "owns none"),
        ([1, 0], "ascending"),
        ([1, 1], "ascending"),
        ([0, EXPERTS], "ascending: expected 1 to 3, got 4"),
        ([-1], "ascending"),
        ([2**40], "32 bits"),
        ([True], "expected an integer"),
    ],
)
def test_owned_experts(spec, experts, message):
    step_of(spec, "Experts")["experts"] = experts
    with pytest.raises(PlanError, match=message):
        _native.Program(spec)


def test_tensors_must_not_overlap(spec):
    spec["tensors"][1]["offset"] = spec["tensors"][0]["offset"]
    with pytest.raises(PlanError, match=r"overlaps tensor .* in weights\.bin"):
        _native.Program(spec)


def test_parts_must_not_overlap(spec):
    parts = named(spec["tensors"], "blk.1.experts")["parts"]
    parts[1]["offset"] = parts[0]["offset"]
    with pytest.raises(PlanError, match="part `up`: offset"):
        _native.Program(spec)


def test_roles_of_an_expert_stack(spec):
    parts = named(spec["tensors"], "blk.1.experts")["parts"]
    parts[3]["role"] = "norm"
    with pytest.raises(PlanError, match="unexpected part `norm`"):
        _native.Program(spec)
    parts[3]["role"] = "gate"
    with pytest.raises(PlanError, match="two parts of this role"):
        _native.Program(spec)


def test_columns_must_fill_blocks(spec):
    named(spec["tensors"], "blk.0.o")["parts"][0]["cols"] = 63
    with pytest.raises(PlanError, match="cols: expected a multiple of 32 for codec u4_f16, got 63"):
        _native.Program(spec)


def test_a_vector_must_be_f32(spec):
    parts = named(spec["tensors"], "output_norm")["parts"]
    parts[0]["codec"] = "f16"  # which takes as many bytes in one column
    with pytest.raises(PlanError, match="expected codec f32"):
        _native.Program(spec)


def test_a_large_record_is_aligned_to_pages():
    plan = tiny_plan()
    tensor = next(t for t in plan.file.tensors if t.name == "blk.1.experts")
    big = msgspec.to_builtins(tensor)
    big["parts"] = [{"role": "weight", "offset": 0, "codec": "f32", "rows": 4112, "cols": 16}]
    record = 4112 * 16 * 4  # 263168: 256 KiB and a kilobyte
    spec = plan.spec()
    index = next(i for i, t in enumerate(spec["tensors"]) if t["name"] == tensor.name)
    spec["tensors"][index] = big
    big["stride"], big["bytes"] = record, EXPERTS * record
    with pytest.raises(PlanError, match="stride: expected 266240"):
        _native.Program(spec)


def test_a_buffer_must_be_written_before_it_is_read(spec):
    del spec["program"][0]
    with pytest.raises(PlanError, match="reads buffer `/x`, which nothing has written"):
        _native.Program(spec)


def test_live_buffers_must_not_overlap(spec):
    x, y = named(spec["buffers"], "/x"), named(spec["buffers"], "/layers.0/attn/y")
    y["offset"] = x["offset"] + 64  # x is added to after attention
    with pytest.raises(PlanError, match="overlap while both are in use"):
        _native.Program(spec)


def test_dead_buffers_may_overlap(spec):
    first, second = (
        named(spec["buffers"], "/layers.0/attn/y"),
        named(spec["buffers"], "/layers.1/attn/y"),
    )
    second["offset"] = first["offset"]
    _native.Program(spec)


def test_inputs_and_outputs_of_a_step_must_not_overlap(spec):
    # The input dies and the output is born in the same step, which would read what it writes.
    q, y = named(spec["buffers"], "/layers.0/attn/q"), named(spec["buffers"], "/layers.0/attn/y")
    y["offset"] = q["offset"]
    with pytest.raises(PlanError, match="overlap while both are in use"):
        _native.Program(spec)


def test_reserved_buffers_live_from_the_start(spec):
    tokens, y = named(spec["buffers"], "wanted@cpu"), named(spec["buffers"], "/layers.0/attn/y")
    y["offset"] = tokens["offset"]
    spec["devices"][0]["arena_bytes"] *= 2
    with pytest.raises(PlanError, match="overlap while both are in use"):
        _native.Program(spec)


def test_the_result_lives_to_the_end(spec):
    # A step after the last use of logits would overwrite them.
    spec["buffers"].append(named(spec["buffers"], "/selected") | {"name": "late"})
    named(spec["buffers"], "late")["offset"] = named(spec["buffers"], "logits")["offset"]
    spec["devices"][0]["arena_bytes"] *= 2
    late = step_of(spec, "Scale") | {"inputs": ["/selected"], "outputs": ["late"]}
    spec["program"].append(late)
    with pytest.raises(PlanError, match="`late` and `logits` overlap"):
        _native.Program(spec)


def test_only_elementwise_ops_work_in_place(spec):
    attention = step_of(spec, "Attention")
    attention["outputs"] = [attention["inputs"][0]]
    step_of(spec, "Linear", 1)["inputs"] = attention["outputs"]
    with pytest.raises(PlanError, match="as input and output"):
        _native.Program(spec)


def test_reserved_buffers_are_not_written(spec):
    route = step_of(spec, "Route")
    spec["buffers"] = [b for b in spec["buffers"] if b["name"] != route["outputs"][0]]
    route["outputs"][0] = "tokens@cpu"
    step_of(spec, "Experts")["inputs"][1] = "tokens@cpu"
    with pytest.raises(PlanError, match="values a row, got 1"):
        _native.Program(spec)


def test_reserved_buffers_have_their_shape(spec):
    named(spec["buffers"], "tokens@cpu")["dtype"] = "f32"
    with pytest.raises(PlanError, match="buffer `tokens@cpu`: expected one i32 a row"):
        _native.Program(spec)


def test_reserved_names_are_for_their_device(spec):
    named(spec["buffers"], "tokens@cpu")["name"] = "tokens@cuda:0"
    spec["program"][0]["inputs"] = ["tokens@cuda:0"]
    with pytest.raises(PlanError, match="reserved name for another device"):
        _native.Program(spec)


def test_a_position_is_not_a_token(spec):
    spec["program"][0]["inputs"] = ["positions@cpu"]
    with pytest.raises(
        PlanError, match="expected the reserved buffer `tokens`, got `positions@cpu`"
    ):
        _native.Program(spec)


def test_expert_ids_come_from_a_route():
    # Token ids, copied from another device, would index expert weights.
    spec = tiny_plan(split=True).spec()
    copy = step_of(spec, "Copy")
    ids = copy["outputs"][1]
    copy["inputs"][1] = "tokens@cuda:0"
    for buffer in spec["buffers"]:
        if buffer["name"] in (ids, "/layers.1/moe/ids"):
            buffer["bytes_per_row"] = 4
    for op in ("Route", "Experts"):
        for step in spec["program"]:
            if step["op"] == op:
                step["attrs"]["used"] = 1
    for buffer in spec["buffers"]:
        if buffer["name"].startswith("/layers.1/moe/weights"):
            buffer["bytes_per_row"] = 4
    with pytest.raises(PlanError, match="are not from a Route over as many experts"):
        _native.Program(spec)


def test_the_embedding_table_covers_the_vocabulary(spec):
    table = spec["tensors"][0]
    table["parts"][0]["rows"] = VOCAB - 1  # as many strips
    with pytest.raises(PlanError, match="expected 48 rows, got 47"):
        _native.Program(spec)


def test_a_table_may_have_more_rows_than_the_vocabulary(spec):
    table = spec["tensors"][0]
    spec["model"]["vocab_size"] = VOCAB - 3
    with pytest.raises(PlanError, match="buffer `logits`: expected f32 rows"):
        _native.Program(spec)
    named(spec["buffers"], "logits")["bytes_per_row"] = 4 * (VOCAB - 3)
    named(spec["tensors"], "output")["parts"][0]["rows"] = VOCAB - 3
    assert table["parts"][0]["rows"] == VOCAB
    _native.Program(spec)


def test_there_must_be_a_result(spec):
    named(spec["buffers"], "logits")["name"] = "result"
    for step in spec["program"]:
        for side in ("inputs", "outputs"):
            step[side] = ["result" if name == "logits" else name for name in step[side]]
    with pytest.raises(PlanError, match="no buffer `logits`"):
        _native.Program(spec)


def test_a_cache_has_one_user(spec):
    spec["caches"].append(spec["caches"][0])
    with pytest.raises(PlanError, match="cache 2: expected one Attention step"):
        _native.Program(spec)


def test_steps_stay_on_their_device():
    spec = tiny_plan(split=True).spec()
    spec["program"][1]["device"] = "cpu"
    with pytest.raises(PlanError, match="is on another device"):
        _native.Program(spec)


def test_copies_cross_devices():
    spec = tiny_plan(split=True).spec()
    copy = step_of(spec, "Copy")
    copy["inputs"][0] = step_of(spec, "Experts", 1)["outputs"][0]
    with pytest.raises(PlanError, match=r"\(Copy /copy\)"):
        _native.Program(spec)
    copy["inputs"], copy["outputs"] = [], []
    with pytest.raises(PlanError, match=r"\(Copy /copy\): has no input"):
        _native.Program(spec)


@pytest.mark.parametrize("split", [False, True])
def test_scratch_is_exactly_the_formula(split):
    spec = tiny_plan(split=split).spec()
    batch, used, hidden = 16, 2, 32
    slots = batch * used
    need = (
        slots * WIDTH * 3 // 2  # gate and up, both integer
        + slots * hidden * 3 // 2
        + 4 * slots * WIDTH
        + 8 * slots
        + 64  # 8 · (experts + 1), rounded up
    )
    for device in spec["devices"]:
        device["scratch_bytes"] = need
    _native.Program(spec)
    spec["devices"][0]["scratch_bytes"] = need - 1
    with pytest.raises(
        PlanError, match=rf"\(Experts .*needs {need} bytes of scratch, its device has {need - 1}"
    ):
        _native.Program(spec)


def test_names_may_be_any_unicode(spec):
    spec["tensors"][0]["name"] = "\ud800"
    with pytest.raises(PlanError, match="not valid Unicode"):
        _native.Program(spec)
    spec["tensors"][0]["name"] = spec["program"][0]["weights"][0] = "таблица"
    spec["tensors"][0]["count"] = 0
    with pytest.raises(PlanError, match="таблица"):
        _native.Program(spec)
