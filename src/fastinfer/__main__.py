# SPDX-License-Identifier: Apache-2.0
from fastinfer.cli import main

main()
