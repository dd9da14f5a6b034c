# SPDX-License-Identifier: Apache-2.0
"""Program nodes → steps: one file per operator family, each with ``BINDERS``: (domain, op) → binder."""
