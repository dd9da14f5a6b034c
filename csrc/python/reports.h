// SPDX-License-Identifier: Apache-2.0
// What Python asks about programs, plans and runs, as plain data.
#pragma once
#include <pybind11/pybind11.h>

#include <vector>

#include "csrc/engine/executor.h"

namespace fi {

pybind11::list profile_list(const Profile&);
// Without a run: the plan of the first segment for these inputs. With it every segment that the run walks is listed.
pybind11::dict explain(Executor&, const std::vector<Tensor>& inputs, bool run_it);
// What planning for inputs of these types (codes) and shapes tells of the values, for another device's plan: "values":
// number → (type code, extents, known array or None) of all that nodes compute; "end": "finished", or why the rest
// depends on data, and "pivot", the node it ends at (-1: none).
pybind11::dict shapes(Executor&, const std::vector<std::pair<int, std::vector<int64_t>>>& inputs);
// expected: (value, type code, extents, whether every call has these).
pybind11::dict findings(const Program&, const pybind11::list& expected);

}  // namespace fi
