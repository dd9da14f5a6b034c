// SPDX-License-Identifier: Apache-2.0
#include "csrc/engine/program.h"

#include <set>
#include <utility>

namespace fi {
namespace {

// Gives factories their constants and notes which ones are only ever wanted packed.
class Builder final : public BuildContext {
 public:
  Builder(const Node& node, Program& program, std::set<std::pair<int, int>>& packed_uses, int index)
      : BuildContext(node, program.isa), program_(program), packed_uses_(packed_uses), index_(index) {}

  const Desc* constant_desc(int input) const override {
    const Constant* c = find(input);
    return c ? &c->desc : nullptr;
  }

  const Tensor* constant(int input) override {
    Constant* c = find(input);
    if (!c) return nullptr;
    check_model(static_cast<bool>(c->dense), "constant input ", input, " was saved packed only, but is needed dense");
    packed_uses_.erase({index_, input});
    dense_.insert(input);
    return &c->dense;
  }

  const void* packed(int input, const Packing& how) override {
    Constant* c = find(input);
    if (!c) return nullptr;
    if (!dense_.count(input)) packed_uses_.insert({index_, input});
    if (program_.shapes_only) {  // what planning passes on, and nobody reads
      static const std::shared_ptr<void> nothing = allocate_bytes(kAlign);
      return (c->packed[how.layout] = nothing).get();
    }
    const auto it = c->packed.find(how.layout);
    if (it != c->packed.end()) {
      check_model(c->packed_bytes[how.layout] == how.bytes, "packed constant has ", c->packed_bytes[how.layout],
                  " bytes, layout ", how.layout, " needs ", how.bytes);
      return it->second.get();
    }
    auto bytes = allocate_bytes(how.bytes);
    how.pack(dense_of(*c, how), bytes.get());
    c->packed_bytes[how.layout] = how.bytes;
    return (c->packed[how.layout] = bytes).get();
  }

 private:
  Constant* find(int input) const {
    if (!has_input(input)) return nullptr;
    const int c = program_.constant_of[node.inputs[input]];
    return c < 0 ? nullptr : &program_.constants[c];
  }

  // "conv_f32_nr64_g1_8x3x9" → "conv_f32_nr_g1_8x3x9"
  static std::string without_width(std::string layout) {
    const size_t at = layout.find("_nr");
    if (at == std::string::npos) return layout;
    size_t end = at + 3;
    while (end < layout.size() && layout[end] >= '0' && layout[end] <= '9') ++end;
    return layout.erase(at + 3, end - at - 3);
  }

  // The dense form, rebuilt from another instruction set's layout if a saved program holds no other.
  static Tensor dense_of(Constant& c, const Packing& how) {
    if (c.dense) return c.dense;
    Tensor dense = allocate_tensor(c.desc.dtype, c.desc.shape);
    for (const auto& [layout, bytes] : c.packed) {
      if (!how.unpack || without_width(layout) != without_width(how.layout)) continue;
      // Layouts that differ only in the panel's width hold the same elements in as many bytes.
      check_model(c.packed_bytes[layout] == how.bytes, "packed constant has ", c.packed_bytes[layout],
                  " bytes, layout ", layout, " needs ", how.bytes);
      how.unpack(layout, bytes.get(), dense.data);
      return dense;
    }
    throw ModelError(words("the program was saved for another instruction set and layout ", how.layout,
                           " cannot be rebuilt; compile the model again on this machine"));
  }

  Program& program_;
  std::set<std::pair<int, int>>& packed_uses_;
  std::set<int> dense_;
  int index_;
};

bool renames_only(const Node& n) {
  return n.domain.empty() &&
         (n.op == "Reshape" || n.op == "Squeeze" || n.op == "Unsqueeze" || n.op == "Flatten" || n.op == "Identity");
}

}  // namespace

Program::Program(ProgramSpec spec, Fallback fb, bool strict_, bool shapes_only_)
    : inputs(std::move(spec.inputs)),
      outputs(std::move(spec.outputs)),
      constants(std::move(spec.constants)),
      nodes(std::move(spec.nodes)),
      subprograms(std::move(spec.subprograms)),
      fallback(std::move(fb)),
      strict(strict_),
      shapes_only(shapes_only_),
      n_values(spec.n_values),
      isa(active_isa()) {
  validate();
  analyse();
  build();
}

std::string Program::label(int node) const {
  const Node& n = nodes[node];
  return words("node '", n.name, "' (", n.domain.empty() ? "" : n.domain + ".", n.op, ")");
}

void Program::validate() const {
  check_model(n_values >= 0 && n_values < (1 << 26), "program declares ", n_values, " values");
  std::vector<char> defined(n_values, 0);
  const auto define = [&](int v, const std::string& what) {
    check_model(v >= 0 && v < n_values, what, " refers to value ", v, " of ", n_values);
    check_model(!defined[v], what, " defines value ", v, " a second time");
    defined[v] = 1;
  };
  for (const Port& p : inputs) define(p.value, "input '" + p.name + "'");
  for (const Constant& c : constants) define(c.value, "a constant");
  for (size_t i = 0; i < nodes.size(); ++i) {
    const Node& n = nodes[i];
    for (int v : n.inputs)
      if (v >= 0)
        check_model(v < n_values && defined[v], label(static_cast<int>(i)), " reads value ", v,
                    ", which nothing before it computes");
    for (int v : n.outputs)
      if (v >= 0) define(v, label(static_cast<int>(i)));
    for (const auto& [name, a] : n.attributes.items)
      if (const auto* g = std::get_if<GraphRef>(&a))
        check_model(g->index >= 0 && g->index < static_cast<int>(subprograms.size()), label(static_cast<int>(i)),
                    ": attribute '", name, "' refers to subprogram ", g->index, " of ", subprograms.size());
  }
  for (const Port& p : outputs)
    check_model(p.value >= 0 && p.value < n_values && defined[p.value], "output '", p.name,
                "' is not computed by anything");
}

void Program::analyse() {
  constant_of.assign(n_values, -1);
  for (size_t i = 0; i < constants.size(); ++i) constant_of[constants[i].value] = static_cast<int>(i);
  last_use.assign(n_values, -1);
  destiny.assign(n_values, -1);
  for (size_t i = 0; i < nodes.size(); ++i)
    for (int v : nodes[i].inputs)
      if (v >= 0) last_use[v] = static_cast<int>(i);
  for (size_t o = 0; o < outputs.size(); ++o) {
    const int v = outputs[o].value;
    last_use[v] = static_cast<int>(nodes.size());
    if (destiny[v] < 0) destiny[v] = static_cast<int>(o);
  }
  // A value that only gets another shape on its way out is computed in the output's buffer.
  for (size_t i = nodes.size(); i-- > 0;) {
    const Node& n = nodes[i];
    if (!renames_only(n) || n.inputs.empty() || n.inputs[0] < 0 || n.outputs.empty() || n.outputs[0] < 0) continue;
    if (destiny[n.outputs[0]] >= 0 && destiny[n.inputs[0]] < 0) destiny[n.inputs[0]] = destiny[n.outputs[0]];
  }
}

void Program::build() {
  std::set<std::pair<int, int>> packed_uses;
  ops.resize(nodes.size());
  fallback_reasons.resize(nodes.size());
  for (size_t i = 0; i < nodes.size(); ++i) {
    const int index = static_cast<int>(i);
    const OpFactory make = find_op(nodes[i].domain, nodes[i].op);
    try {
      if (!make) throw NotNative{"no native operator"};
      Builder context(nodes[i], *this, packed_uses, index);
      ops[i] = make(context);
    } catch (const NotNative& why) {
      if (strict)
        throw UnsupportedError(
            words(label(index), " has no native form (", why.reason, "), which strict=True forbids"));
      fallback_reasons[i] = why.reason;
    } catch (const UnsupportedError&) {
      throw;
    } catch (const Error& e) {
      throw ModelError(label(index) + ": " + e.what());
    }
  }
  std::vector<char> dense(n_values, 0);
  for (size_t i = 0; i < nodes.size(); ++i)
    for (size_t k = 0; k < nodes[i].inputs.size(); ++k)
      if (const int v = nodes[i].inputs[k]; v >= 0 && !packed_uses.count({static_cast<int>(i), static_cast<int>(k)}))
        dense[v] = 1;
  for (const Port& p : outputs) dense[p.value] = 1;
  for (Constant& c : constants) {
    if (dense[c.value])
      check_model(static_cast<bool>(c.dense), "a constant that is needed dense was saved packed only");
    else if (!c.packed.empty())
      c.dense = {};
  }
}

}  // namespace fi
