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
// expected: (value, type code, extents, whether every call has these).
pybind11::dict findings(const Program&, const pybind11::list& expected);

}  // namespace fi
