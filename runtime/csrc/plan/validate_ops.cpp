// Shapes, weights and attributes of each op: the table of docs/plan-format.md, section 3.
#include <string>

#include "plan/step_check.h"

namespace moesaic {
namespace {

void check_activation(const StepCheck& c) {
  c.one_of("activation", {"silu", "gelu_tanh", "swiglu_clamped"});
  c.number("alpha");
  c.number("limit", c.step.attrs.str("activation") == "swiglu_clamped" ? 1e-30 : -1e30);
}

void check_embedding(const StepCheck& c) {
  c.counts(1, 1, 1);
  c.step.attrs.expect_only({});
  c.reserved(c.input(0), "tokens");
  c.shape(c.output(0), RowKind::kTokens, c.output(0).width());
  // Token ids are checked against the vocabulary once a step, so the table must cover it.
  const int64_t rows = c.plain(c.required(0)).rows;
  if (rows < c.program.vocab_size) {
    c.fail("weight `" + c.required(0).name + "`: expected " + std::to_string(c.program.vocab_size) +
           " rows, got " + std::to_string(rows));
  }
  c.matrix(0, rows, c.output(0).width());
}

void check_rms_norm(const StepCheck& c) {
  c.counts(1, 1, 1);
  c.step.attrs.expect_only({"eps", "groups"});
  const Buffer& x = c.input(0);
  c.shape(x, x.rows, x.width());
  c.shape(c.output(0), x.rows, x.width());
  c.number("eps", 0);
  const int64_t groups = c.count("groups");
  if (x.width() % groups != 0)
    c.fail("groups: " + std::to_string(groups) + " does not divide " + std::to_string(x.width()));
  c.optional_vector(0, x.width() / groups);
}

void check_layer_norm(const StepCheck& c) {
  c.counts(1, 1, 2);
  c.step.attrs.expect_only({"eps"});
  const Buffer& x = c.input(0);
  c.shape(x, x.rows, x.width());
  c.shape(c.output(0), x.rows, x.width());
  c.number("eps", 0);
  c.vector(0, x.width());
  c.optional_vector(1, x.width());
}

void check_linear(const StepCheck& c) {
  const size_t outputs = c.step.outputs.size();
  if (outputs == 0) c.fail("has no output");
  c.counts(1, outputs, 2 * outputs);
  c.step.attrs.expect_only({});
  const Buffer& x = c.input(0);
  c.shape(x, x.rows, x.width());
  for (size_t i = 0; i < outputs; ++i) {
    const int64_t width = c.output(i).width();
    c.shape(c.output(i), x.rows, width);
    c.matrix(2 * i, width, x.width());
    c.optional_vector(2 * i + 1, width);
  }
}

// A second table and the flags that choose it come together.
void check_rope_tables(const StepCheck& c, int64_t pairs) {
  c.vector(0, pairs);
  const bool two = c.weight(1) != nullptr;
  c.expect_count("inputs", c.step.inputs.size(), two ? 3 : 2);
  c.count("original_context", two, two ? kMaxContext : 0);
  if (!two) return;
  c.vector(1, pairs);
  c.reserved(c.input(2), "extended");
}

void check_rope(const StepCheck& c) {
  c.counts(c.step.inputs.size() == 3 ? 3 : 2, 1, 2);
  c.step.attrs.expect_only(
      {"heads", "head_dim", "rotary_dims", "offset", "style", "scale", "original_context"});
  const int64_t heads = c.count("heads"), head_dim = c.count("head_dim");
  const int64_t rotary_dims = c.count("rotary_dims", 2, head_dim);
  c.count("offset", 0, head_dim - rotary_dims);
  if (rotary_dims % 2 != 0)
    c.fail("rotary_dims: expected an even number, got " + std::to_string(rotary_dims));
  c.one_of("style", {"neox", "norm"});
  c.number("scale");
  c.shape(c.input(0), RowKind::kTokens, heads * head_dim);
  c.reserved(c.input(1), "positions");
  c.shape(c.output(0), RowKind::kTokens, heads * head_dim);
  check_rope_tables(c, rotary_dims / 2);
}

void check_attention(const StepCheck& c) {
  c.counts(5, 1, 1);
  c.step.attrs.expect_only(
      {"cache", "heads", "kv_heads", "k_dim", "v_dim", "scale", "window", "softcap"});
  const auto caches = static_cast<int64_t>(c.program.caches.size());
  const Cache& cache = c.program.caches[c.count("cache", 0, caches - 1)];
  if (cache.device != c.step.device) c.fail("cache: it is on another device");
  c.count("kv_heads", cache.kv_heads, cache.kv_heads);
  c.count("k_dim", cache.k_dim, cache.k_dim);
  c.count("v_dim", cache.v_dim, cache.v_dim);
  c.count("window", cache.window, cache.window);
  c.number("scale");
  c.number("softcap", 0);
  const int64_t heads = c.count("heads");
  if (heads % cache.kv_heads != 0)
    c.fail("heads: expected a multiple of kv_heads, got " + std::to_string(heads));
  c.shape(c.input(0), RowKind::kTokens, heads * cache.k_dim);
  c.shape(c.input(1), RowKind::kTokens, cache.kv_heads * cache.k_dim);
  c.shape(c.input(2), RowKind::kTokens, cache.kv_heads * cache.v_dim);
  c.reserved(c.input(3), "positions");
  c.reserved(c.input(4), "sequences");
  c.shape(c.output(0), RowKind::kTokens, heads * cache.v_dim);
  c.optional_vector(0, heads);
}

// Two picks by the logits alone; nothing else is defined.
void check_sparsemixer(const StepCheck& c, int64_t used) {
  if (used != 2) c.fail("used: sparsemixer picks 2 experts, got " + std::to_string(used));
  if (c.step.attrs.flag("renormalise")) c.fail("renormalise: sparsemixer does not");
  if (c.weight(0)) c.fail("sparsemixer has no selection bias");
}

void check_route(const StepCheck& c) {
  c.counts(1, 2, 1);
  c.step.attrs.expect_only({"experts", "used", "gating", "eps", "renormalise", "scale"});
  const int64_t experts = c.count("experts"), used = c.count("used", 1, experts);
  c.one_of("gating", {"softmax", "softmax_selected", "sparsemixer"});
  c.number("eps", 0);
  if (c.step.attrs.str("gating") == "sparsemixer") check_sparsemixer(c, used);
  c.step.attrs.flag("renormalise");
  c.number("scale");
  const RowKind rows = c.input(0).rows;
  c.shape(c.input(0), rows, experts);
  c.shape(c.output(0), rows, used, DType::kI32);
  c.shape(c.output(1), rows, used);
  c.optional_vector(0, experts);
}

void check_stack(const StepCheck& c, int64_t experts, int64_t width) {
  const Tensor& stack = c.required(0);
  if (stack.count != experts) {
    c.fail("weight `" + stack.name + "`: expected " + std::to_string(experts) + " records, got " +
           std::to_string(stack.count));
  }
  static constexpr std::string_view kRoles[] = {"gate",      "up",      "down",
                                                "gate_bias", "up_bias", "down_bias"};
  size_t role = 0;  // parts come in this order, the biases each optional
  for (const Part& part : stack.parts) {
    while (role < 6 && kRoles[role] != part.role) ++role;
    if (role == 6) c.fail("weight `" + stack.name + "`: unexpected part `" + part.role + "`");
  }
  for (std::string_view needed : {"gate", "up", "down"}) {
    if (!stack.part(needed))
      c.fail("weight `" + stack.name + "`: part `" + std::string(needed) + "` is missing");
  }
  const int64_t hidden = stack.part("gate")->rows;
  c.part_shape(stack, *stack.part("gate"), hidden, width);
  c.part_shape(stack, *stack.part("up"), hidden, width);
  c.part_shape(stack, *stack.part("down"), width, hidden);
  if (const Part* bias = stack.part("gate_bias")) c.vector_part(stack, *bias, hidden);
  if (const Part* bias = stack.part("up_bias")) c.vector_part(stack, *bias, hidden);
  if (const Part* bias = stack.part("down_bias")) c.vector_part(stack, *bias, width);
}

void check_owned(const StepCheck& c, int64_t experts) {
  if (!c.step.experts) return;
  if (c.step.experts->empty()) c.fail("experts: owns none");
  int64_t least = 0;
  for (int expert : *c.step.experts) {
    expect_range(c.where, "experts, ascending", expert, least, experts - 1);
    least = int64_t{expert} + 1;
  }
}

void check_experts(const StepCheck& c) {
  c.counts(3, 1, 1);
  c.step.attrs.expect_only({"experts", "used", "activation", "alpha", "limit"});
  const int64_t experts = c.count("experts"), used = c.count("used", 1, experts);
  check_activation(c);
  const Buffer& x = c.input(0);
  c.shape(x, x.rows, x.width());
  c.shape(c.input(1), x.rows, used, DType::kI32);
  c.shape(c.input(2), x.rows, used);
  c.shape(c.output(0), x.rows, x.width());
  check_stack(c, experts, x.width());
  check_owned(c, experts);
}

// Inputs and the output have one shape.
void check_elementwise(const StepCheck& c, size_t inputs) {
  c.counts(inputs, 1, 0);
  const Buffer& y = c.output(0);
  c.shape(y, y.rows, y.width());
  for (size_t i = 0; i < inputs; ++i) c.shape(c.input(i), y.rows, y.width());
}

void check_gated_activation(const StepCheck& c) {
  check_elementwise(c, 2);
  c.step.attrs.expect_only({"activation", "alpha", "limit"});
  check_activation(c);
}

void check_add(const StepCheck& c) {
  check_elementwise(c, 2);
  c.step.attrs.expect_only({});
}

void check_scale(const StepCheck& c) {
  check_elementwise(c, 1);
  c.step.attrs.expect_only({"factor"});
  c.number("factor");
}

void check_sigmoid_gate(const StepCheck& c) {
  c.counts(2, 1, 0);
  c.step.attrs.expect_only({});
  const Buffer &x = c.input(0), &gate = c.input(1);
  c.shape(x, x.rows, x.width());
  c.shape(gate, x.rows, gate.width());
  c.shape(c.output(0), x.rows, x.width());
  if (x.width() % gate.width() != 0) {
    c.fail("buffer `" + gate.name + "`: " + std::to_string(gate.width()) + " gates do not divide " +
           std::to_string(x.width()) + " values");
  }
}

void check_softcap(const StepCheck& c) {
  check_elementwise(c, 1);
  c.step.attrs.expect_only({"cap"});
  c.number("cap", 1e-30);
}

void check_select_rows(const StepCheck& c) {
  c.counts(2, 1, 0);
  c.step.attrs.expect_only({});
  c.shape(c.input(0), RowKind::kTokens, c.input(0).width());
  c.reserved(c.input(1), "wanted");
  c.shape(c.output(0), RowKind::kWanted, c.input(0).width());
}

void check_copy(const StepCheck& c) {
  if (c.step.inputs.empty()) c.fail("has no input");
  c.counts(c.step.inputs.size(), c.step.inputs.size(), 0);
  c.step.attrs.expect_only({});
  for (size_t i = 0; i < c.step.inputs.size(); ++i) {
    const Buffer& from = c.input(i);
    c.shape(c.output(i), from.rows, from.width(), from.dtype);
    if (from.device == c.step.device || from.device != c.input(0).device) {
      c.fail("buffer `" + from.name + "`: expected all inputs on one other device");
    }
  }
}

void check_devices(const StepCheck& c) {
  for (size_t i = 0; i < c.step.outputs.size(); ++i) {
    if (c.output(i).device != c.step.device)
      c.fail("output `" + c.output(i).name + "` is on another device");
  }
  if (c.step.op == Op::kCopy) return;
  for (size_t i = 0; i < c.step.inputs.size(); ++i) {
    if (c.input(i).device != c.step.device)
      c.fail("input `" + c.input(i).name + "` is on another device");
  }
}

void check_op(const StepCheck& c) {
  switch (c.step.op) {
    case Op::kEmbedding:
      return check_embedding(c);
    case Op::kRMSNorm:
      return check_rms_norm(c);
    case Op::kLayerNorm:
      return check_layer_norm(c);
    case Op::kLinear:
      return check_linear(c);
    case Op::kRope:
      return check_rope(c);
    case Op::kAttention:
      return check_attention(c);
    case Op::kRoute:
      return check_route(c);
    case Op::kExperts:
      return check_experts(c);
    case Op::kGatedActivation:
      return check_gated_activation(c);
    case Op::kAdd:
      return check_add(c);
    case Op::kScale:
      return check_scale(c);
    case Op::kSigmoidGate:
      return check_sigmoid_gate(c);
    case Op::kSoftcap:
      return check_softcap(c);
    case Op::kSelectRows:
      return check_select_rows(c);
    case Op::kCopy:
      return check_copy(c);
  }
  c.fail("unknown op");
}

}  // namespace

void validate_step(const Program& program, size_t index) {
  const StepCheck check(program, index);
  if (check.step.experts && check.step.op != Op::kExperts)
    check.fail("experts: only `Experts` steps own experts");
  check_op(check);
  check_devices(check);
  const int64_t available = program.devices[check.step.device].scratch_bytes;
  if (const int64_t need = scratch_bytes(program, check.step); need > available) {
    check.fail("needs " + std::to_string(need) + " bytes of scratch, its device has " +
               std::to_string(available));
  }
}

}  // namespace moesaic
