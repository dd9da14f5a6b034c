# SPDX-License-Identifier: Apache-2.0
"""What the protocol's messages hold. A line is a message: ``name type number [oneof]``, separated by commas;
what is indented goes on with the line before.

Types: a scalar, a message or an enum; ``*T`` repeated, ``{T}`` a map from string, ``.T`` nested in the same message.
Of Triton's ModelConfig here is what clients and perf_analyzer read; what a client does not know it skips.
"""

MESSAGES = """
ServerLiveRequest:
ServerLiveResponse: live bool 1
ServerReadyRequest:
ServerReadyResponse: ready bool 1
ModelReadyRequest: name string 1, version string 2
ModelReadyResponse: ready bool 1
ServerMetadataRequest:
ServerMetadataResponse: name string 1, version string 2, extensions *string 3
ModelMetadataRequest: name string 1, version string 2
ModelMetadataResponse: name string 1, versions *string 2, platform string 3, inputs *.TensorMetadata 4,
    outputs *.TensorMetadata 5
ModelMetadataResponse.TensorMetadata: name string 1, datatype string 2, shape *int64 3
InferParameter: bool_param bool 1 parameter_choice, int64_param int64 2 parameter_choice,
    string_param string 3 parameter_choice, double_param double 4 parameter_choice,
    uint64_param uint64 5 parameter_choice
InferTensorContents: bool_contents *bool 1, int_contents *int32 2, int64_contents *int64 3, uint_contents *uint32 4,
    uint64_contents *uint64 5, fp32_contents *float 6, fp64_contents *double 7, bytes_contents *bytes 8
ModelInferRequest: model_name string 1, model_version string 2, id string 3, parameters {InferParameter} 4,
    inputs *.InferInputTensor 5, outputs *.InferRequestedOutputTensor 6, raw_input_contents *bytes 7
ModelInferRequest.InferInputTensor: name string 1, datatype string 2, shape *int64 3, parameters {InferParameter} 4,
    contents InferTensorContents 5
ModelInferRequest.InferRequestedOutputTensor: name string 1, parameters {InferParameter} 2
ModelInferResponse: model_name string 1, model_version string 2, id string 3, parameters {InferParameter} 4,
    outputs *.InferOutputTensor 5, raw_output_contents *bytes 6
ModelInferResponse.InferOutputTensor: name string 1, datatype string 2, shape *int64 3, parameters {InferParameter} 4,
    contents InferTensorContents 5
ModelStreamInferResponse: error_message string 1, infer_response ModelInferResponse 2
ModelConfigRequest: name string 1, version string 2
ModelConfigResponse: config ModelConfig 1
ModelStatisticsRequest: name string 1, version string 2
ModelStatisticsResponse: model_stats *ModelStatistics 1
ModelStatistics: name string 1, version string 2, last_inference uint64 3, inference_count uint64 4,
    execution_count uint64 5, inference_stats InferStatistics 6, batch_stats *InferBatchStatistics 7,
    memory_usage *MemoryUsage 8, response_stats {InferResponseStatistics} 9
StatisticDuration: count uint64 1, ns uint64 2
InferStatistics: success StatisticDuration 1, fail StatisticDuration 2, queue StatisticDuration 3,
    compute_input StatisticDuration 4, compute_infer StatisticDuration 5, compute_output StatisticDuration 6,
    cache_hit StatisticDuration 7, cache_miss StatisticDuration 8
InferResponseStatistics: compute_infer StatisticDuration 1, compute_output StatisticDuration 2,
    success StatisticDuration 3, fail StatisticDuration 4, empty_response StatisticDuration 5,
    cancel StatisticDuration 6
InferBatchStatistics: batch_size uint64 1, compute_input StatisticDuration 2, compute_infer StatisticDuration 3,
    compute_output StatisticDuration 4
MemoryUsage: type string 1, id int64 2, byte_size uint64 3
RepositoryIndexRequest: repository_name string 1, ready bool 2
RepositoryIndexResponse: models *.ModelIndex 1
RepositoryIndexResponse.ModelIndex: name string 1, version string 2, state string 3, reason string 4
ModelRepositoryParameter: bool_param bool 1 parameter_choice, int64_param int64 2 parameter_choice,
    string_param string 3 parameter_choice, bytes_param bytes 4 parameter_choice
RepositoryModelLoadRequest: repository_name string 1, model_name string 2, parameters {ModelRepositoryParameter} 3
RepositoryModelLoadResponse:
RepositoryModelUnloadRequest: repository_name string 1, model_name string 2, parameters {ModelRepositoryParameter} 3
RepositoryModelUnloadResponse:
SystemSharedMemoryStatusRequest: name string 1
SystemSharedMemoryStatusResponse: regions {.RegionStatus} 1
SystemSharedMemoryStatusResponse.RegionStatus: name string 1, key string 2, offset uint64 3, byte_size uint64 4
SystemSharedMemoryRegisterRequest: name string 1, key string 2, offset uint64 3, byte_size uint64 4
SystemSharedMemoryRegisterResponse:
SystemSharedMemoryUnregisterRequest: name string 1
SystemSharedMemoryUnregisterResponse:
CudaSharedMemoryStatusRequest: name string 1
CudaSharedMemoryStatusResponse: regions {.RegionStatus} 1
CudaSharedMemoryStatusResponse.RegionStatus: name string 1, device_id uint64 2, byte_size uint64 3
CudaSharedMemoryRegisterRequest: name string 1, raw_handle bytes 2, device_id int64 3, byte_size uint64 4
CudaSharedMemoryRegisterResponse:
CudaSharedMemoryUnregisterRequest: name string 1
CudaSharedMemoryUnregisterResponse:
TraceSettingRequest: settings {.SettingValue} 1, model_name string 2
TraceSettingRequest.SettingValue: value *string 1
TraceSettingResponse: settings {.SettingValue} 1
TraceSettingResponse.SettingValue: value *string 1
LogSettingsRequest: settings {.SettingValue} 1
LogSettingsRequest.SettingValue: bool_param bool 1 parameter_choice, uint32_param uint32 2 parameter_choice,
    string_param string 3 parameter_choice
LogSettingsResponse: settings {.SettingValue} 1
LogSettingsResponse.SettingValue: bool_param bool 1 parameter_choice, uint32_param uint32 2 parameter_choice,
    string_param string 3 parameter_choice
ModelConfig: name string 1, platform string 2, backend string 17, runtime string 25,
    version_policy ModelVersionPolicy 3, max_batch_size int32 4, input *ModelInput 5, output *ModelOutput 6,
    dynamic_batching ModelDynamicBatching 11 scheduling_choice,
    sequence_batching ModelSequenceBatching 13 scheduling_choice,
    ensemble_scheduling ModelEnsembling 15 scheduling_choice, instance_group *ModelInstanceGroup 7,
    default_model_filename string 8, metric_tags {string} 10, parameters {ModelParameter} 14,
    model_warmup *ModelWarmup 16, model_transaction_policy ModelTransactionPolicy 19,
    response_cache ModelResponseCache 24
ModelVersionPolicy: latest .Latest 1 policy_choice, all .All 2 policy_choice, specific .Specific 3 policy_choice
ModelVersionPolicy.Latest: num_versions uint32 1
ModelVersionPolicy.All:
ModelVersionPolicy.Specific: versions *int64 1
ModelInput: name string 1, data_type DataType 2, format .Format 3, dims *int64 4, reshape ModelTensorReshape 5,
    is_shape_tensor bool 6, allow_ragged_batch bool 7, optional bool 8
ModelOutput: name string 1, data_type DataType 2, dims *int64 3, reshape ModelTensorReshape 5,
    label_filename string 4, is_shape_tensor bool 6
ModelTensorReshape: shape *int64 1
ModelDynamicBatching: preferred_batch_size *int32 1, max_queue_delay_microseconds uint64 2, preserve_ordering bool 3,
    priority_levels uint64 4, default_priority_level uint64 5, default_queue_policy ModelQueuePolicy 6
ModelQueuePolicy: timeout_action .TimeoutAction 1, default_timeout_microseconds uint64 2,
    allow_timeout_override bool 3, max_queue_size uint32 4
ModelSequenceBatching: direct .StrategyDirect 3 strategy_choice, oldest .StrategyOldest 4 strategy_choice,
    max_sequence_idle_microseconds uint64 1
ModelSequenceBatching.StrategyDirect: max_queue_delay_microseconds uint64 1, minimum_slot_utilization float 2
ModelSequenceBatching.StrategyOldest: max_candidate_sequences int32 1, preferred_batch_size *int32 2,
    max_queue_delay_microseconds uint64 3, preserve_ordering bool 4
ModelEnsembling: step *.Step 1
ModelEnsembling.Step: model_name string 1, model_version int64 2, input_map {string} 3, output_map {string} 4
ModelInstanceGroup: name string 1, kind .Kind 4, count int32 2, gpus *int32 3, profile *string 5, passive bool 7,
    host_policy string 9
ModelParameter: string_value string 1
ModelWarmup: name string 1, batch_size uint32 2, inputs {.Input} 3, count uint32 4
ModelWarmup.Input: data_type DataType 1, dims *int64 2, zero_data bool 3 input_data_type,
    random_data bool 4 input_data_type, input_data_file string 5 input_data_type
ModelTransactionPolicy: decoupled bool 1
ModelResponseCache: enable bool 1
"""

# The values count from 0.
ENUMS = """
DataType: TYPE_INVALID, TYPE_BOOL, TYPE_UINT8, TYPE_UINT16, TYPE_UINT32, TYPE_UINT64, TYPE_INT8, TYPE_INT16,
    TYPE_INT32, TYPE_INT64, TYPE_FP16, TYPE_FP32, TYPE_FP64, TYPE_STRING, TYPE_BF16
ModelInput.Format: FORMAT_NONE, FORMAT_NHWC, FORMAT_NCHW
ModelQueuePolicy.TimeoutAction: REJECT, DELAY
ModelInstanceGroup.Kind: KIND_AUTO, KIND_GPU, KIND_CPU, KIND_MODEL
"""

METHODS = (
    "ServerLive", "ServerReady", "ModelReady", "ServerMetadata", "ModelMetadata", "ModelInfer", "ModelStreamInfer",
    "ModelConfig", "ModelStatistics", "RepositoryIndex", "RepositoryModelLoad", "RepositoryModelUnload",
    "SystemSharedMemoryStatus", "SystemSharedMemoryRegister", "SystemSharedMemoryUnregister",
    "CudaSharedMemoryStatus", "CudaSharedMemoryRegister", "CudaSharedMemoryUnregister", "TraceSetting", "LogSettings",
)  # fmt: skip
