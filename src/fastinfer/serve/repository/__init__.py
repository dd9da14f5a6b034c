# SPDX-License-Identifier: Apache-2.0
"""A directory of models: ``name/version/model.onnx`` beside ``name/model.toml``; what was live when; uploads and signatures.

Everything here is blocking file work without an event loop: the server calls it in threads, the command line directly.
"""
