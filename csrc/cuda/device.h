// SPDX-License-Identifier: Apache-2.0
#pragma once

namespace fi {

// 0 where there is no driver, or none that this build's runtime can work with.
int device_count();
int runtime_version();  // 13000: 13.0

}  // namespace fi
