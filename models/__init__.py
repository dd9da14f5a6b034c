# SPDX-License-Identifier: Apache-2.0
"""Real trained models from package registries: fetched, converted, and used for their tasks. Not part of the package."""
