// SPDX-License-Identifier: Apache-2.0
// Binding of kernels/attention: what the attention operators have in common.
#pragma once
#include "csrc/ops/copy_step.h"
#include "csrc/ops/op.h"
#include "kernels/attention/attention.h"

namespace fi {

// A dense tensor seen as [batch, heads, sequence, size].
struct HeadView {
  int64_t batch, heads, sequence, size;
  AttentionTensor at;
};
enum class HeadLayout { bnsh, bsnh, bnhs };
HeadLayout parse_head_layout(const std::string&);
// A tensor of rank 4 in a layout.
HeadView view_heads(const Shape&, HeadLayout);
// [batch, sequence, heads·size], where `row` elements (0: heads·size) lie between two tokens.
HeadView split_heads(int64_t batch, int64_t sequence, int64_t heads, int64_t size, int64_t row = 0);
HeadView split_heads(const Shape&, int64_t heads);
inline Shape bnsh(const HeadView& x) { return {x.batch, x.heads, x.sequence, x.size}; }

struct AttentionOperands {
  Operand q, k, v, mask, lengths, o, scores;  // those left out have base 0, offset 0
};
constexpr Operand kNoOperand{0, 0};

// Any of these inputs that is present must be float32, else the operator is not native.
void need_f32(PlanContext&, std::initializer_list<int> inputs);
// The same of the inputs 0 to 2, which may also be bfloat16 under precision="bf16"; gives the output's type.
DType attention_types(PlanContext&, const Node&);
void bind_types(AttentionStep& step, PlanContext&, const Node&);
// The kernel for the step's types.
AttentionKernel kernel_of(const AttentionStep&, Isa);
// Fills in the extents and strides of `step`, checking that they fit.
void bind_heads(AttentionStep& step, const HeadView& q, const HeadView& k, const HeadView& v, const HeadView& o);
// Fills in the mask's; its type must be float32 or bool, its shape broadcastable to [batch, heads, sq, sk].
void bind_mask(AttentionStep& step, const Desc& mask);
void add_attention(PlanContext&, const AttentionStep&, const AttentionOperands&);

// past then x along the sequence, as [batch, heads, sequence, size], into y.
void add_concat(PlanContext&, const HeadView& past, Operand past_data, const HeadView& x, Operand x_data, Operand y);
// x as [batch, heads, sequence, size], into y.
void add_gather_heads(PlanContext&, const HeadView& x, Operand x_data, Operand y);

}  // namespace fi
