//! THE TABLE: every function that libnvidia-ml.so.1 of driver 580 exports, one row each.
//!
//! Entry points, the exports' test and docs/nvml-support.md are expansions of this one list, as those of the driver API are
//! of `protocol/src/api.rs`. A row says who answers:
//!
//! | class | who answers |
//! | --- | --- |
//! | `local` | this library alone |
//! | `snapshot` | what the server said of the devices when NVML was initialised |
//! | `server` | the server, asked each time: quota, processes, device time, sensors |
//! | `unsupported` | nobody: `NVML_ERROR_NOT_SUPPORTED`; the text is the reason |
//!
//! Sensors (temperature, power, clocks) are of class `server` and answer `NVML_ERROR_NOT_SUPPORTED` where the operator
//! does not let guests see them (`guest_sensors`).

/// Calls `$callback!` with every row of the table.
///
/// One row, `snapshot nvmlDeviceGetCount(deviceCount: *mut c_uint);`, reaches the callback as the tokens
/// `{ snapshot nvmlDeviceGetCount () (deviceCount: *mut c_uint) }`, and `unsupported nvmlX "why";` as
/// `{ unsupported nvmlX ("why") () }`.
macro_rules! for_each_nvml_fn {
    ($callback:path) => {
        $crate::table::nvml_table! { $callback;
            // ---- Initialisation, errors ---------------------------------------------------------------------
            local nvmlErrorString(result: nvmlReturn_t);
            local nvmlInit();
            local nvmlInit_v2();
            local nvmlInitWithFlags(flags: c_uint);
            local nvmlInternalGetExportTable(ppExportTable: *mut *const c_void, pExportTableId: *const [u8; 16]);
            local nvmlShutdown();
            // ---- System -------------------------------------------------------------------------------------
            unsupported nvmlSystemGetConfComputeCapabilities "confidential computing is between host and device";
            unsupported nvmlSystemGetConfComputeGpusReadyState "confidential computing is between host and device";
            unsupported nvmlSystemGetConfComputeKeyRotationThresholdInfo "confidential computing is between host and device";
            unsupported nvmlSystemGetConfComputeSettings "confidential computing is between host and device";
            unsupported nvmlSystemGetConfComputeState "confidential computing is between host and device";
            snapshot nvmlSystemGetCudaDriverVersion(cudaDriverVersion: *mut c_int);
            snapshot nvmlSystemGetCudaDriverVersion_v2(cudaDriverVersion: *mut c_int);
            snapshot nvmlSystemGetDriverBranch(branchInfo: *mut nvmlSystemDriverBranchInfo_t, length: c_uint);
            snapshot nvmlSystemGetDriverVersion(version: *mut c_char, length: c_uint);
            local nvmlSystemGetHicVersion(hwbcCount: *mut c_uint, hwbcEntries: *mut nvmlHwbcEntry_t);
            unsupported nvmlSystemGetNvlinkBwMode "links between the host's boards do not lead into the guest";
            local nvmlSystemGetNVMLVersion(version: *mut c_char, length: c_uint);
            local nvmlSystemGetProcessName(pid: c_uint, name: *mut c_char, length: c_uint);
            unsupported nvmlSystemGetTopologyGpuSet "the host's PCI bus, interrupts and NUMA nodes are not the guest's";
            unsupported nvmlSystemSetConfComputeGpusReadyState "confidential computing is between host and device";
            unsupported nvmlSystemSetConfComputeKeyRotationThresholdInfo "confidential computing is between host and device";
            unsupported nvmlSystemSetNvlinkBwMode "settings of the device are the host operator's";
            // ---- Units and excluded devices -----------------------------------------------------------------
            local nvmlGetBlacklistDeviceCount(deviceCount: *mut c_uint);
            unsupported nvmlGetBlacklistDeviceInfoByIndex "devices that are not the VM's are not shown";
            local nvmlGetExcludedDeviceCount(deviceCount: *mut c_uint);
            unsupported nvmlGetExcludedDeviceInfoByIndex "devices that are not the VM's are not shown";
            local nvmlUnitGetCount(unitCount: *mut c_uint);
            unsupported nvmlUnitGetDevices "S-class systems of the host are not shown";
            unsupported nvmlUnitGetFanSpeedInfo "S-class systems of the host are not shown";
            unsupported nvmlUnitGetHandleByIndex "S-class systems of the host are not shown";
            unsupported nvmlUnitGetLedState "S-class systems of the host are not shown";
            unsupported nvmlUnitGetPsuInfo "S-class systems of the host are not shown";
            unsupported nvmlUnitGetTemperature "S-class systems of the host are not shown";
            unsupported nvmlUnitGetUnitInfo "S-class systems of the host are not shown";
            unsupported nvmlUnitSetLedState "S-class systems of the host are not shown";
            // ---- vGPUs --------------------------------------------------------------------------------------
            unsupported nvmlDeviceGetActiveVgpus "vGPUs are made on the host; a guest has its part of a device already";
            unsupported nvmlDeviceGetCreatableVgpus "vGPUs are made on the host; a guest has its part of a device already";
            unsupported nvmlDeviceGetGridLicensableFeatures "vGPUs are made on the host; a guest has its part of a device already";
            unsupported nvmlDeviceGetGridLicensableFeatures_v2 "vGPUs are made on the host; a guest has its part of a device already";
            unsupported nvmlDeviceGetGridLicensableFeatures_v3 "vGPUs are made on the host; a guest has its part of a device already";
            unsupported nvmlDeviceGetGridLicensableFeatures_v4 "vGPUs are made on the host; a guest has its part of a device already";
            unsupported nvmlDeviceGetHostVgpuMode "vGPUs are made on the host; a guest has its part of a device already";
            unsupported nvmlDeviceGetPgpuMetadataString "vGPUs are made on the host; a guest has its part of a device already";
            unsupported nvmlDeviceGetSupportedVgpus "vGPUs are made on the host; a guest has its part of a device already";
            unsupported nvmlDeviceGetVgpuCapabilities "vGPUs are made on the host; a guest has its part of a device already";
            unsupported nvmlDeviceGetVgpuHeterogeneousMode "vGPUs are made on the host; a guest has its part of a device already";
            unsupported nvmlDeviceGetVgpuInstancesUtilizationInfo "vGPUs are made on the host; a guest has its part of a device already";
            unsupported nvmlDeviceGetVgpuMetadata "vGPUs are made on the host; a guest has its part of a device already";
            unsupported nvmlDeviceGetVgpuProcessesUtilizationInfo "vGPUs are made on the host; a guest has its part of a device already";
            unsupported nvmlDeviceGetVgpuProcessUtilization "vGPUs are made on the host; a guest has its part of a device already";
            unsupported nvmlDeviceGetVgpuSchedulerCapabilities "vGPUs are made on the host; a guest has its part of a device already";
            unsupported nvmlDeviceGetVgpuSchedulerLog "vGPUs are made on the host; a guest has its part of a device already";
            unsupported nvmlDeviceGetVgpuSchedulerState "vGPUs are made on the host; a guest has its part of a device already";
            unsupported nvmlDeviceGetVgpuTypeCreatablePlacements "vGPUs are made on the host; a guest has its part of a device already";
            unsupported nvmlDeviceGetVgpuTypeSupportedPlacements "vGPUs are made on the host; a guest has its part of a device already";
            unsupported nvmlDeviceGetVgpuUtilization "vGPUs are made on the host; a guest has its part of a device already";
            unsupported nvmlDeviceSetVgpuCapabilities "vGPUs are made on the host; a guest has its part of a device already";
            unsupported nvmlDeviceSetVgpuHeterogeneousMode "vGPUs are made on the host; a guest has its part of a device already";
            unsupported nvmlDeviceSetVgpuSchedulerState "vGPUs are made on the host; a guest has its part of a device already";
            unsupported nvmlGetVgpuCompatibility "vGPUs are made on the host; a guest has its part of a device already";
            unsupported nvmlGetVgpuDriverCapabilities "vGPUs are made on the host; a guest has its part of a device already";
            unsupported nvmlGetVgpuVersion "vGPUs are made on the host; a guest has its part of a device already";
            unsupported nvmlGpuInstanceGetActiveVgpus "vGPUs are made on the host; a guest has its part of a device already";
            unsupported nvmlGpuInstanceGetCreatableVgpus "vGPUs are made on the host; a guest has its part of a device already";
            unsupported nvmlGpuInstanceGetVgpuHeterogeneousMode "vGPUs are made on the host; a guest has its part of a device already";
            unsupported nvmlGpuInstanceGetVgpuSchedulerLog "vGPUs are made on the host; a guest has its part of a device already";
            unsupported nvmlGpuInstanceGetVgpuSchedulerState "vGPUs are made on the host; a guest has its part of a device already";
            unsupported nvmlGpuInstanceGetVgpuTypeCreatablePlacements "vGPUs are made on the host; a guest has its part of a device already";
            unsupported nvmlGpuInstanceSetVgpuHeterogeneousMode "vGPUs are made on the host; a guest has its part of a device already";
            unsupported nvmlGpuInstanceSetVgpuSchedulerState "vGPUs are made on the host; a guest has its part of a device already";
            unsupported nvmlSetVgpuVersion "vGPUs are made on the host; a guest has its part of a device already";
            unsupported nvmlVgpuInstanceClearAccountingPids "vGPUs are made on the host; a guest has its part of a device already";
            unsupported nvmlVgpuInstanceGetAccountingMode "vGPUs are made on the host; a guest has its part of a device already";
            unsupported nvmlVgpuInstanceGetAccountingPids "vGPUs are made on the host; a guest has its part of a device already";
            unsupported nvmlVgpuInstanceGetAccountingStats "vGPUs are made on the host; a guest has its part of a device already";
            unsupported nvmlVgpuInstanceGetEccMode "vGPUs are made on the host; a guest has its part of a device already";
            unsupported nvmlVgpuInstanceGetEncoderCapacity "vGPUs are made on the host; a guest has its part of a device already";
            unsupported nvmlVgpuInstanceGetEncoderSessions "vGPUs are made on the host; a guest has its part of a device already";
            unsupported nvmlVgpuInstanceGetEncoderStats "vGPUs are made on the host; a guest has its part of a device already";
            unsupported nvmlVgpuInstanceGetFBCSessions "vGPUs are made on the host; a guest has its part of a device already";
            unsupported nvmlVgpuInstanceGetFBCStats "vGPUs are made on the host; a guest has its part of a device already";
            unsupported nvmlVgpuInstanceGetFbUsage "vGPUs are made on the host; a guest has its part of a device already";
            unsupported nvmlVgpuInstanceGetFrameRateLimit "vGPUs are made on the host; a guest has its part of a device already";
            unsupported nvmlVgpuInstanceGetGpuInstanceId "vGPUs are made on the host; a guest has its part of a device already";
            unsupported nvmlVgpuInstanceGetGpuPciId "vGPUs are made on the host; a guest has its part of a device already";
            unsupported nvmlVgpuInstanceGetLicenseInfo "vGPUs are made on the host; a guest has its part of a device already";
            unsupported nvmlVgpuInstanceGetLicenseInfo_v2 "vGPUs are made on the host; a guest has its part of a device already";
            unsupported nvmlVgpuInstanceGetLicenseStatus "vGPUs are made on the host; a guest has its part of a device already";
            unsupported nvmlVgpuInstanceGetMdevUUID "vGPUs are made on the host; a guest has its part of a device already";
            unsupported nvmlVgpuInstanceGetMetadata "vGPUs are made on the host; a guest has its part of a device already";
            unsupported nvmlVgpuInstanceGetPlacementId "vGPUs are made on the host; a guest has its part of a device already";
            unsupported nvmlVgpuInstanceGetRuntimeStateSize "vGPUs are made on the host; a guest has its part of a device already";
            unsupported nvmlVgpuInstanceGetType "vGPUs are made on the host; a guest has its part of a device already";
            unsupported nvmlVgpuInstanceGetUUID "vGPUs are made on the host; a guest has its part of a device already";
            unsupported nvmlVgpuInstanceGetVmDriverVersion "vGPUs are made on the host; a guest has its part of a device already";
            unsupported nvmlVgpuInstanceGetVmID "vGPUs are made on the host; a guest has its part of a device already";
            unsupported nvmlVgpuInstanceSetEncoderCapacity "vGPUs are made on the host; a guest has its part of a device already";
            unsupported nvmlVgpuTypeGetBAR1Info "vGPUs are made on the host; a guest has its part of a device already";
            unsupported nvmlVgpuTypeGetCapabilities "vGPUs are made on the host; a guest has its part of a device already";
            unsupported nvmlVgpuTypeGetClass "vGPUs are made on the host; a guest has its part of a device already";
            unsupported nvmlVgpuTypeGetDeviceID "vGPUs are made on the host; a guest has its part of a device already";
            unsupported nvmlVgpuTypeGetFbReservation "vGPUs are made on the host; a guest has its part of a device already";
            unsupported nvmlVgpuTypeGetFramebufferSize "vGPUs are made on the host; a guest has its part of a device already";
            unsupported nvmlVgpuTypeGetFrameRateLimit "vGPUs are made on the host; a guest has its part of a device already";
            unsupported nvmlVgpuTypeGetGpuInstanceProfileId "vGPUs are made on the host; a guest has its part of a device already";
            unsupported nvmlVgpuTypeGetGspHeapSize "vGPUs are made on the host; a guest has its part of a device already";
            unsupported nvmlVgpuTypeGetLicense "vGPUs are made on the host; a guest has its part of a device already";
            unsupported nvmlVgpuTypeGetMaxInstances "vGPUs are made on the host; a guest has its part of a device already";
            unsupported nvmlVgpuTypeGetMaxInstancesPerGpuInstance "vGPUs are made on the host; a guest has its part of a device already";
            unsupported nvmlVgpuTypeGetMaxInstancesPerVm "vGPUs are made on the host; a guest has its part of a device already";
            unsupported nvmlVgpuTypeGetName "vGPUs are made on the host; a guest has its part of a device already";
            unsupported nvmlVgpuTypeGetNumDisplayHeads "vGPUs are made on the host; a guest has its part of a device already";
            unsupported nvmlVgpuTypeGetResolution "vGPUs are made on the host; a guest has its part of a device already";
            // ---- MIG ----------------------------------------------------------------------------------------
            unsupported nvmlComputeInstanceDestroy "MIG instances are made on the host";
            unsupported nvmlComputeInstanceGetInfo "MIG instances are made on the host";
            unsupported nvmlComputeInstanceGetInfo_v2 "MIG instances are made on the host";
            unsupported nvmlDeviceCreateGpuInstance "MIG instances are made on the host";
            unsupported nvmlDeviceCreateGpuInstanceWithPlacement "MIG instances are made on the host";
            unsupported nvmlDeviceGetAttributes "MIG instances are made on the host";
            unsupported nvmlDeviceGetAttributes_v2 "MIG instances are made on the host";
            unsupported nvmlDeviceGetComputeInstanceId "MIG instances are made on the host";
            unsupported nvmlDeviceGetDeviceHandleFromMigDeviceHandle "MIG instances are made on the host";
            unsupported nvmlDeviceGetGpuInstanceById "MIG instances are made on the host";
            unsupported nvmlDeviceGetGpuInstanceId "MIG instances are made on the host";
            unsupported nvmlDeviceGetGpuInstancePossiblePlacements "MIG instances are made on the host";
            unsupported nvmlDeviceGetGpuInstancePossiblePlacements_v2 "MIG instances are made on the host";
            unsupported nvmlDeviceGetGpuInstanceProfileInfo "MIG instances are made on the host";
            unsupported nvmlDeviceGetGpuInstanceProfileInfoByIdV "MIG instances are made on the host";
            unsupported nvmlDeviceGetGpuInstanceProfileInfoV "MIG instances are made on the host";
            unsupported nvmlDeviceGetGpuInstanceRemainingCapacity "MIG instances are made on the host";
            unsupported nvmlDeviceGetGpuInstances "MIG instances are made on the host";
            local nvmlDeviceGetMaxMigDeviceCount(device: nvmlDevice_t, count: *mut c_uint);
            local nvmlDeviceGetMigDeviceHandleByIndex(device: nvmlDevice_t, index: c_uint, migDevice: *mut nvmlDevice_t);
            local nvmlDeviceGetMigMode(device: nvmlDevice_t, currentMode: *mut c_uint, pendingMode: *mut c_uint);
            local nvmlDeviceIsMigDeviceHandle(device: nvmlDevice_t, isMigDevice: *mut c_uint);
            unsupported nvmlDeviceSetMigMode "MIG instances are made on the host";
            unsupported nvmlGpmMigSampleGet "MIG instances are made on the host";
            unsupported nvmlGpuInstanceCreateComputeInstance "MIG instances are made on the host";
            unsupported nvmlGpuInstanceCreateComputeInstanceWithPlacement "MIG instances are made on the host";
            unsupported nvmlGpuInstanceDestroy "MIG instances are made on the host";
            unsupported nvmlGpuInstanceGetComputeInstanceById "MIG instances are made on the host";
            unsupported nvmlGpuInstanceGetComputeInstancePossiblePlacements "MIG instances are made on the host";
            unsupported nvmlGpuInstanceGetComputeInstanceProfileInfo "MIG instances are made on the host";
            unsupported nvmlGpuInstanceGetComputeInstanceProfileInfoV "MIG instances are made on the host";
            unsupported nvmlGpuInstanceGetComputeInstanceRemainingCapacity "MIG instances are made on the host";
            unsupported nvmlGpuInstanceGetComputeInstances "MIG instances are made on the host";
            unsupported nvmlGpuInstanceGetInfo "MIG instances are made on the host";
            // ---- Finding devices ----------------------------------------------------------------------------
            snapshot nvmlDeviceGetCount(deviceCount: *mut c_uint);
            snapshot nvmlDeviceGetCount_v2(deviceCount: *mut c_uint);
            snapshot nvmlDeviceGetHandleByIndex(index: c_uint, device: *mut nvmlDevice_t);
            snapshot nvmlDeviceGetHandleByIndex_v2(index: c_uint, device: *mut nvmlDevice_t);
            snapshot nvmlDeviceGetHandleByPciBusId(pciBusId: *const c_char, device: *mut nvmlDevice_t);
            snapshot nvmlDeviceGetHandleByPciBusId_v2(pciBusId: *const c_char, device: *mut nvmlDevice_t);
            unsupported nvmlDeviceGetHandleBySerial "what tells one board from all others beside its UUID is not shown";
            snapshot nvmlDeviceGetHandleByUUID(uuid: *const c_char, device: *mut nvmlDevice_t);
            snapshot nvmlDeviceGetHandleByUUIDV(uuid: *const nvmlUUID_t, device: *mut nvmlDevice_t);
            // ---- Identity -----------------------------------------------------------------------------------
            snapshot nvmlDeviceGetArchitecture(device: nvmlDevice_t, arch: *mut nvmlDeviceArchitecture_t);
            snapshot nvmlDeviceGetBoardId(device: nvmlDevice_t, boardId: *mut c_uint);
            snapshot nvmlDeviceGetBoardPartNumber(device: nvmlDevice_t, partNumber: *mut c_char, length: c_uint);
            snapshot nvmlDeviceGetBrand(device: nvmlDevice_t, kind: *mut nvmlBrandType_t);
            unsupported nvmlDeviceGetBridgeChipInfo "the host's PCI bus, interrupts and NUMA nodes are not the guest's";
            snapshot nvmlDeviceGetBusType(device: nvmlDevice_t, kind: *mut nvmlBusType_t);
            unsupported nvmlDeviceGetCapabilities "settings of the device are the host operator's";
            snapshot nvmlDeviceGetCudaComputeCapability(device: nvmlDevice_t, major: *mut c_int, minor: *mut c_int);
            unsupported nvmlDeviceGetGspFirmwareMode "firmware of the board is the host operator's";
            unsupported nvmlDeviceGetGspFirmwareVersion "firmware of the board is the host operator's";
            unsupported nvmlDeviceGetHostname_v1 "what tells one board from all others beside its UUID is not shown";
            snapshot nvmlDeviceGetIndex(device: nvmlDevice_t, index: *mut c_uint);
            unsupported nvmlDeviceGetInforomConfigurationChecksum "the board's health is the host operator's";
            unsupported nvmlDeviceGetInforomImageVersion "the board's health is the host operator's";
            unsupported nvmlDeviceGetInforomVersion "the board's health is the host operator's";
            snapshot nvmlDeviceGetMemoryBusWidth(device: nvmlDevice_t, busWidth: *mut c_uint);
            unsupported nvmlDeviceGetMinorNumber "the host's PCI bus, interrupts and NUMA nodes are not the guest's";
            unsupported nvmlDeviceGetModuleId "the host's PCI bus, interrupts and NUMA nodes are not the guest's";
            local nvmlDeviceGetMultiGpuBoard(device: nvmlDevice_t, multiGpuBool: *mut c_uint);
            snapshot nvmlDeviceGetName(device: nvmlDevice_t, name: *mut c_char, length: c_uint);
            snapshot nvmlDeviceGetNumGpuCores(device: nvmlDevice_t, numCores: *mut c_uint);
            unsupported nvmlDeviceGetPcieLinkMaxSpeed "the host's PCI bus, interrupts and NUMA nodes are not the guest's";
            unsupported nvmlDeviceGetPcieReplayCounter "the board's health is the host operator's";
            unsupported nvmlDeviceGetPcieSpeed "the host's PCI bus, interrupts and NUMA nodes are not the guest's";
            unsupported nvmlDeviceGetPcieThroughput "the host's PCI bus, interrupts and NUMA nodes are not the guest's";
            snapshot nvmlDeviceGetPciInfo(device: nvmlDevice_t, pci: *mut nvmlPciInfo_t);
            snapshot nvmlDeviceGetPciInfoExt(device: nvmlDevice_t, pci: *mut nvmlPciInfoExt_t);
            snapshot nvmlDeviceGetPciInfo_v2(device: nvmlDevice_t, pci: *mut nvmlPciInfo_t);
            snapshot nvmlDeviceGetPciInfo_v3(device: nvmlDevice_t, pci: *mut nvmlPciInfo_t);
            unsupported nvmlDeviceGetPdi "what tells one board from all others beside its UUID is not shown";
            unsupported nvmlDeviceGetPlatformInfo "links between the host's boards do not lead into the guest";
            unsupported nvmlDeviceGetSerial "what tells one board from all others beside its UUID is not shown";
            snapshot nvmlDeviceGetUUID(device: nvmlDevice_t, uuid: *mut c_char, length: c_uint);
            snapshot nvmlDeviceGetVbiosVersion(device: nvmlDevice_t, version: *mut c_char, length: c_uint);
            // ---- Memory and processes -----------------------------------------------------------------------
            unsupported nvmlDeviceClearAccountingPids "settings of the device are the host operator's";
            unsupported nvmlDeviceGetAccountingBufferSize "the server accounts by VM (pxctl accounting)";
            local nvmlDeviceGetAccountingMode(device: nvmlDevice_t, mode: *mut nvmlEnableState_t);
            unsupported nvmlDeviceGetAccountingPids "the server accounts by VM (pxctl accounting)";
            unsupported nvmlDeviceGetAccountingStats "the server accounts by VM (pxctl accounting)";
            unsupported nvmlDeviceGetBAR1MemoryInfo "the host's PCI bus, interrupts and NUMA nodes are not the guest's";
            server nvmlDeviceGetComputeRunningProcesses(device: nvmlDevice_t, infoCount: *mut c_uint, infos: *mut nvmlProcessInfo_v1_t);
            server nvmlDeviceGetComputeRunningProcesses_v2(device: nvmlDevice_t, infoCount: *mut c_uint, infos: *mut nvmlProcessInfo_v2_t);
            server nvmlDeviceGetComputeRunningProcesses_v3(device: nvmlDevice_t, infoCount: *mut c_uint, infos: *mut nvmlProcessInfo_t);
            local nvmlDeviceGetGraphicsRunningProcesses(device: nvmlDevice_t, infoCount: *mut c_uint, infos: *mut nvmlProcessInfo_v1_t);
            local nvmlDeviceGetGraphicsRunningProcesses_v2(device: nvmlDevice_t, infoCount: *mut c_uint, infos: *mut nvmlProcessInfo_v2_t);
            local nvmlDeviceGetGraphicsRunningProcesses_v3(device: nvmlDevice_t, infoCount: *mut c_uint, infos: *mut nvmlProcessInfo_t);
            server nvmlDeviceGetMemoryInfo(device: nvmlDevice_t, memory: *mut nvmlMemory_t);
            server nvmlDeviceGetMemoryInfo_v2(device: nvmlDevice_t, memory: *mut nvmlMemory_v2_t);
            local nvmlDeviceGetMPSComputeRunningProcesses(device: nvmlDevice_t, infoCount: *mut c_uint, infos: *mut nvmlProcessInfo_v1_t);
            local nvmlDeviceGetMPSComputeRunningProcesses_v2(device: nvmlDevice_t, infoCount: *mut c_uint, infos: *mut nvmlProcessInfo_v2_t);
            local nvmlDeviceGetMPSComputeRunningProcesses_v3(device: nvmlDevice_t, infoCount: *mut c_uint, infos: *mut nvmlProcessInfo_t);
            server nvmlDeviceGetProcessesUtilizationInfo(device: nvmlDevice_t, procesesUtilInfo: *mut nvmlProcessesUtilizationInfo_t);
            server nvmlDeviceGetProcessUtilization(device: nvmlDevice_t, utilization: *mut nvmlProcessUtilizationSample_t, processSamplesCount: *mut c_uint, lastSeenTimeStamp: c_ulonglong);
            server nvmlDeviceGetRunningProcessDetailList(device: nvmlDevice_t, plist: *mut nvmlProcessDetailList_t);
            unsupported nvmlDeviceSetAccountingMode "settings of the device are the host operator's";
            // ---- Utilisation --------------------------------------------------------------------------------
            unsupported nvmlDeviceGetDecoderUtilization "video engines are not carried";
            unsupported nvmlDeviceGetEncoderCapacity "video engines are not carried";
            unsupported nvmlDeviceGetEncoderSessions "video engines are not carried";
            unsupported nvmlDeviceGetEncoderStats "video engines are not carried";
            unsupported nvmlDeviceGetEncoderUtilization "video engines are not carried";
            unsupported nvmlDeviceGetFBCSessions "video engines are not carried";
            unsupported nvmlDeviceGetFBCStats "video engines are not carried";
            unsupported nvmlDeviceGetJpgUtilization "video engines are not carried";
            unsupported nvmlDeviceGetOfaUtilization "video engines are not carried";
            unsupported nvmlDeviceGetSamples "samples of the device count all VMs' work together";
            server nvmlDeviceGetUtilizationRates(device: nvmlDevice_t, utilization: *mut nvmlUtilization_t);
            // ---- Temperature, power, clocks -----------------------------------------------------------------
            unsupported nvmlDeviceClearFieldValues "settings of the device are the host operator's";
            unsupported nvmlDeviceGetAdaptiveClockInfoStatus "only clocks, power and limits as they are now are read through";
            unsupported nvmlDeviceGetApplicationsClock "only clocks, power and limits as they are now are read through";
            unsupported nvmlDeviceGetAutoBoostedClocksEnabled "only clocks, power and limits as they are now are read through";
            unsupported nvmlDeviceGetClkMonStatus "the board's health is the host operator's";
            server nvmlDeviceGetClock(device: nvmlDevice_t, clockType: nvmlClockType_t, clockId: nvmlClockId_t, clockMHz: *mut c_uint);
            server nvmlDeviceGetClockInfo(device: nvmlDevice_t, kind: nvmlClockType_t, clock: *mut c_uint);
            unsupported nvmlDeviceGetClockOffsets "only clocks, power and limits as they are now are read through";
            unsupported nvmlDeviceGetCoolerInfo "only temperature and fan speed are read through";
            unsupported nvmlDeviceGetCurrentClockFreqs "only clocks, power and limits as they are now are read through";
            server nvmlDeviceGetCurrentClocksEventReasons(device: nvmlDevice_t, clocksEventReasons: *mut c_ulonglong);
            server nvmlDeviceGetCurrentClocksThrottleReasons(device: nvmlDevice_t, clocksThrottleReasons: *mut c_ulonglong);
            server nvmlDeviceGetCurrPcieLinkGeneration(device: nvmlDevice_t, currLinkGen: *mut c_uint);
            server nvmlDeviceGetCurrPcieLinkWidth(device: nvmlDevice_t, currLinkWidth: *mut c_uint);
            unsupported nvmlDeviceGetDefaultApplicationsClock "only clocks, power and limits as they are now are read through";
            unsupported nvmlDeviceGetDynamicPstatesInfo "only clocks, power and limits as they are now are read through";
            server nvmlDeviceGetEnforcedPowerLimit(device: nvmlDevice_t, limit: *mut c_uint);
            unsupported nvmlDeviceGetFanControlPolicy_v2 "only temperature and fan speed are read through";
            server nvmlDeviceGetFanSpeed(device: nvmlDevice_t, speed: *mut c_uint);
            unsupported nvmlDeviceGetFanSpeedRPM "only temperature and fan speed are read through";
            unsupported nvmlDeviceGetFanSpeed_v2 "only temperature and fan speed are read through";
            server nvmlDeviceGetFieldValues(device: nvmlDevice_t, valuesCount: c_int, values: *mut nvmlFieldValue_t);
            unsupported nvmlDeviceGetGpcClkMinMaxVfOffset "only clocks, power and limits as they are now are read through";
            unsupported nvmlDeviceGetGpcClkVfOffset "only clocks, power and limits as they are now are read through";
            snapshot nvmlDeviceGetGpuMaxPcieLinkGeneration(device: nvmlDevice_t, maxLinkGenDevice: *mut c_uint);
            unsupported nvmlDeviceGetMarginTemperature "only temperature and fan speed are read through";
            snapshot nvmlDeviceGetMaxClockInfo(device: nvmlDevice_t, kind: nvmlClockType_t, clock: *mut c_uint);
            unsupported nvmlDeviceGetMaxCustomerBoostClock "only clocks, power and limits as they are now are read through";
            snapshot nvmlDeviceGetMaxPcieLinkGeneration(device: nvmlDevice_t, maxLinkGen: *mut c_uint);
            snapshot nvmlDeviceGetMaxPcieLinkWidth(device: nvmlDevice_t, maxLinkWidth: *mut c_uint);
            unsupported nvmlDeviceGetMemClkMinMaxVfOffset "only clocks, power and limits as they are now are read through";
            unsupported nvmlDeviceGetMemClkVfOffset "only clocks, power and limits as they are now are read through";
            unsupported nvmlDeviceGetMinMaxClockOfPState "only clocks, power and limits as they are now are read through";
            unsupported nvmlDeviceGetMinMaxFanSpeed "only temperature and fan speed are read through";
            unsupported nvmlDeviceGetNumFans "only temperature and fan speed are read through";
            unsupported nvmlDeviceGetPerformanceModes "only clocks, power and limits as they are now are read through";
            server nvmlDeviceGetPerformanceState(device: nvmlDevice_t, pState: *mut nvmlPstates_t);
            snapshot nvmlDeviceGetPowerManagementDefaultLimit(device: nvmlDevice_t, defaultLimit: *mut c_uint);
            server nvmlDeviceGetPowerManagementLimit(device: nvmlDevice_t, limit: *mut c_uint);
            snapshot nvmlDeviceGetPowerManagementLimitConstraints(device: nvmlDevice_t, minLimit: *mut c_uint, maxLimit: *mut c_uint);
            server nvmlDeviceGetPowerManagementMode(device: nvmlDevice_t, mode: *mut nvmlEnableState_t);
            unsupported nvmlDeviceGetPowerMizerMode_v1 "only clocks, power and limits as they are now are read through";
            unsupported nvmlDeviceGetPowerSource "only clocks, power and limits as they are now are read through";
            server nvmlDeviceGetPowerState(device: nvmlDevice_t, pState: *mut nvmlPstates_t);
            server nvmlDeviceGetPowerUsage(device: nvmlDevice_t, power: *mut c_uint);
            unsupported nvmlDeviceGetSupportedClocksEventReasons "only clocks, power and limits as they are now are read through";
            unsupported nvmlDeviceGetSupportedClocksThrottleReasons "only clocks, power and limits as they are now are read through";
            unsupported nvmlDeviceGetSupportedGraphicsClocks "only clocks, power and limits as they are now are read through";
            unsupported nvmlDeviceGetSupportedMemoryClocks "only clocks, power and limits as they are now are read through";
            unsupported nvmlDeviceGetSupportedPerformanceStates "only clocks, power and limits as they are now are read through";
            unsupported nvmlDeviceGetTargetFanSpeed "only temperature and fan speed are read through";
            server nvmlDeviceGetTemperature(device: nvmlDevice_t, sensorType: nvmlTemperatureSensors_t, temp: *mut c_uint);
            snapshot nvmlDeviceGetTemperatureThreshold(device: nvmlDevice_t, thresholdType: nvmlTemperatureThresholds_t, temp: *mut c_uint);
            server nvmlDeviceGetTemperatureV(device: nvmlDevice_t, temperature: *mut nvmlTemperature_t);
            unsupported nvmlDeviceGetThermalSettings "only temperature and fan speed are read through";
            server nvmlDeviceGetTotalEnergyConsumption(device: nvmlDevice_t, energy: *mut c_ulonglong);
            unsupported nvmlDeviceGetViolationStatus "only clocks, power and limits as they are now are read through";
            unsupported nvmlDevicePowerSmoothingActivatePresetProfile "settings of the device are the host operator's";
            unsupported nvmlDevicePowerSmoothingSetState "settings of the device are the host operator's";
            unsupported nvmlDevicePowerSmoothingUpdatePresetProfileParam "settings of the device are the host operator's";
            unsupported nvmlDeviceWorkloadPowerProfileClearRequestedProfiles "settings of the device are the host operator's";
            unsupported nvmlDeviceWorkloadPowerProfileGetCurrentProfiles "settings of the device are the host operator's";
            unsupported nvmlDeviceWorkloadPowerProfileGetProfilesInfo "settings of the device are the host operator's";
            unsupported nvmlDeviceWorkloadPowerProfileSetRequestedProfiles "settings of the device are the host operator's";
            // ---- Topology and links -------------------------------------------------------------------------
            unsupported nvmlDeviceClearCpuAffinity "settings of the device are the host operator's";
            unsupported nvmlDeviceFreezeNvLinkUtilizationCounter "settings of the device are the host operator's";
            unsupported nvmlDeviceGetC2cModeInfoV "links between the host's boards do not lead into the guest";
            unsupported nvmlDeviceGetCpuAffinity "the host's PCI bus, interrupts and NUMA nodes are not the guest's";
            unsupported nvmlDeviceGetCpuAffinityWithinScope "the host's PCI bus, interrupts and NUMA nodes are not the guest's";
            unsupported nvmlDeviceGetGpuFabricInfo "links between the host's boards do not lead into the guest";
            unsupported nvmlDeviceGetGpuFabricInfoV "links between the host's boards do not lead into the guest";
            unsupported nvmlDeviceGetIrqNum "the host's PCI bus, interrupts and NUMA nodes are not the guest's";
            unsupported nvmlDeviceGetMemoryAffinity "the host's PCI bus, interrupts and NUMA nodes are not the guest's";
            unsupported nvmlDeviceGetNumaNodeId "the host's PCI bus, interrupts and NUMA nodes are not the guest's";
            unsupported nvmlDeviceGetNvlinkBwMode "links between the host's boards do not lead into the guest";
            unsupported nvmlDeviceGetNvLinkCapability "links between the host's boards do not lead into the guest";
            unsupported nvmlDeviceGetNvLinkErrorCounter "links between the host's boards do not lead into the guest";
            unsupported nvmlDeviceGetNvLinkInfo "links between the host's boards do not lead into the guest";
            unsupported nvmlDeviceGetNvLinkRemoteDeviceType "links between the host's boards do not lead into the guest";
            unsupported nvmlDeviceGetNvLinkRemotePciInfo "links between the host's boards do not lead into the guest";
            unsupported nvmlDeviceGetNvLinkRemotePciInfo_v2 "links between the host's boards do not lead into the guest";
            unsupported nvmlDeviceGetNvLinkState "links between the host's boards do not lead into the guest";
            unsupported nvmlDeviceGetNvlinkSupportedBwModes "links between the host's boards do not lead into the guest";
            unsupported nvmlDeviceGetNvLinkUtilizationControl "links between the host's boards do not lead into the guest";
            unsupported nvmlDeviceGetNvLinkUtilizationCounter "links between the host's boards do not lead into the guest";
            unsupported nvmlDeviceGetNvLinkVersion "links between the host's boards do not lead into the guest";
            snapshot nvmlDeviceGetP2PStatus(device1: nvmlDevice_t, device2: nvmlDevice_t, p2pIndex: nvmlGpuP2PCapsIndex_t, p2pStatus: *mut nvmlGpuP2PStatus_t);
            snapshot nvmlDeviceGetTopologyCommonAncestor(device1: nvmlDevice_t, device2: nvmlDevice_t, pathInfo: *mut nvmlGpuTopologyLevel_t);
            snapshot nvmlDeviceGetTopologyNearestGpus(device: nvmlDevice_t, level: nvmlGpuTopologyLevel_t, count: *mut c_uint, deviceArray: *mut nvmlDevice_t);
            snapshot nvmlDeviceOnSameBoard(device1: nvmlDevice_t, device2: nvmlDevice_t, onSameBoard: *mut c_int);
            unsupported nvmlDeviceResetNvLinkErrorCounters "settings of the device are the host operator's";
            unsupported nvmlDeviceResetNvLinkUtilizationCounter "settings of the device are the host operator's";
            unsupported nvmlDeviceSetCpuAffinity "settings of the device are the host operator's";
            unsupported nvmlDeviceSetNvlinkBwMode "settings of the device are the host operator's";
            unsupported nvmlDeviceSetNvLinkDeviceLowPowerThreshold "settings of the device are the host operator's";
            unsupported nvmlDeviceSetNvLinkUtilizationControl "settings of the device are the host operator's";
            // ---- Health -------------------------------------------------------------------------------------
            unsupported nvmlDeviceClearEccErrorCounts "settings of the device are the host operator's";
            unsupported nvmlDeviceGetDefaultEccMode "the board's health is the host operator's";
            unsupported nvmlDeviceGetDetailedEccErrors "the board's health is the host operator's";
            snapshot nvmlDeviceGetEccMode(device: nvmlDevice_t, current: *mut nvmlEnableState_t, pending: *mut nvmlEnableState_t);
            unsupported nvmlDeviceGetLastBBXFlushTime "the board's health is the host operator's";
            unsupported nvmlDeviceGetRemappedRows "the board's health is the host operator's";
            unsupported nvmlDeviceGetRemappedRows_v2 "the board's health is the host operator's";
            unsupported nvmlDeviceGetRepairStatus "the board's health is the host operator's";
            unsupported nvmlDeviceGetRetiredPages "the board's health is the host operator's";
            unsupported nvmlDeviceGetRetiredPagesPendingStatus "the board's health is the host operator's";
            unsupported nvmlDeviceGetRetiredPages_v2 "the board's health is the host operator's";
            unsupported nvmlDeviceGetRowRemapperHistogram "the board's health is the host operator's";
            unsupported nvmlDeviceGetSramEccErrorStatus "the board's health is the host operator's";
            unsupported nvmlDeviceGetSramUniqueUncorrectedEccErrorCounts "the board's health is the host operator's";
            unsupported nvmlDeviceGetTotalEccErrors "the board's health is the host operator's";
            unsupported nvmlDeviceGetUnrepairableMemoryFlag_v1 "the board's health is the host operator's";
            unsupported nvmlDeviceReadPRMCounters_v1 "the board's health is the host operator's";
            unsupported nvmlDeviceReadWritePRM_v1 "settings of the device are the host operator's";
            unsupported nvmlDeviceSetEccMode "settings of the device are the host operator's";
            unsupported nvmlDeviceValidateInforom "settings of the device are the host operator's";
            // ---- Modes --------------------------------------------------------------------------------------
            unsupported nvmlDeviceGetAddressingMode "the guest's page tables are not the device's";
            unsupported nvmlDeviceGetAPIRestriction "settings of the device are the host operator's";
            snapshot nvmlDeviceGetComputeMode(device: nvmlDevice_t, mode: *mut nvmlComputeMode_t);
            unsupported nvmlDeviceGetConfComputeGpuAttestationReport "confidential computing is between host and device";
            unsupported nvmlDeviceGetConfComputeGpuCertificate "confidential computing is between host and device";
            unsupported nvmlDeviceGetConfComputeMemSizeInfo "confidential computing is between host and device";
            unsupported nvmlDeviceGetConfComputeProtectedMemoryUsage "confidential computing is between host and device";
            local nvmlDeviceGetDisplayActive(device: nvmlDevice_t, isActive: *mut nvmlEnableState_t);
            local nvmlDeviceGetDisplayMode(device: nvmlDevice_t, display: *mut nvmlEnableState_t);
            unsupported nvmlDeviceGetDramEncryptionMode "confidential computing is between host and device";
            unsupported nvmlDeviceGetDriverModel "driver models are a matter of Windows";
            unsupported nvmlDeviceGetDriverModel_v2 "driver models are a matter of Windows";
            unsupported nvmlDeviceGetGpuOperationMode "settings of the device are the host operator's";
            unsupported nvmlDeviceGetMemoryErrorCounter "the board's health is the host operator's";
            unsupported nvmlDeviceGetPersistenceMode "settings of the device are the host operator's";
            local nvmlDeviceGetSupportedEventTypes(device: nvmlDevice_t, eventTypes: *mut c_ulonglong);
            unsupported nvmlDeviceGetVirtualizationMode "none of the modes that NVML knows is this one";
            // ---- Events and counters ------------------------------------------------------------------------
            local nvmlDeviceRegisterEvents(device: nvmlDevice_t, eventTypes: c_ulonglong, set: nvmlEventSet_t);
            local nvmlEventSetCreate(set: *mut nvmlEventSet_t);
            local nvmlEventSetFree(set: nvmlEventSet_t);
            local nvmlEventSetWait(set: nvmlEventSet_t, data: *mut nvmlEventData_t, timeoutms: c_uint);
            local nvmlEventSetWait_v2(set: nvmlEventSet_t, data: *mut nvmlEventData_t, timeoutms: c_uint);
            unsupported nvmlGpmMetricsGet "performance counters count all VMs' work together";
            unsupported nvmlGpmQueryDeviceSupport "performance counters count all VMs' work together";
            unsupported nvmlGpmQueryIfStreamingEnabled "performance counters count all VMs' work together";
            unsupported nvmlGpmSampleAlloc "performance counters count all VMs' work together";
            unsupported nvmlGpmSampleFree "performance counters count all VMs' work together";
            unsupported nvmlGpmSampleGet "performance counters count all VMs' work together";
            unsupported nvmlGpmSetStreamingEnabled "performance counters count all VMs' work together";
            unsupported nvmlSystemEventSetCreate "events of the device tell of all VMs";
            unsupported nvmlSystemEventSetFree "events of the device tell of all VMs";
            unsupported nvmlSystemEventSetWait "events of the device tell of all VMs";
            unsupported nvmlSystemRegisterEvents "events of the device tell of all VMs";
            // ---- Settings -----------------------------------------------------------------------------------
            unsupported nvmlDeviceDiscoverGpus "settings of the device are the host operator's";
            unsupported nvmlDeviceModifyDrainState "settings of the device are the host operator's";
            unsupported nvmlDeviceQueryDrainState "settings of the device are the host operator's";
            unsupported nvmlDeviceRemoveGpu "settings of the device are the host operator's";
            unsupported nvmlDeviceRemoveGpu_v2 "settings of the device are the host operator's";
            unsupported nvmlDeviceResetApplicationsClocks "settings of the device are the host operator's";
            unsupported nvmlDeviceResetGpuLockedClocks "settings of the device are the host operator's";
            unsupported nvmlDeviceResetMemoryLockedClocks "settings of the device are the host operator's";
            unsupported nvmlDeviceSetAPIRestriction "settings of the device are the host operator's";
            unsupported nvmlDeviceSetApplicationsClocks "settings of the device are the host operator's";
            unsupported nvmlDeviceSetAutoBoostedClocksEnabled "settings of the device are the host operator's";
            unsupported nvmlDeviceSetClockOffsets "settings of the device are the host operator's";
            unsupported nvmlDeviceSetComputeMode "settings of the device are the host operator's";
            unsupported nvmlDeviceSetConfComputeUnprotectedMemSize "confidential computing is between host and device";
            unsupported nvmlDeviceSetDefaultAutoBoostedClocksEnabled "settings of the device are the host operator's";
            unsupported nvmlDeviceSetDefaultFanSpeed_v2 "settings of the device are the host operator's";
            unsupported nvmlDeviceSetDramEncryptionMode "confidential computing is between host and device";
            unsupported nvmlDeviceSetDriverModel "settings of the device are the host operator's";
            unsupported nvmlDeviceSetFanControlPolicy "settings of the device are the host operator's";
            unsupported nvmlDeviceSetFanSpeed_v2 "settings of the device are the host operator's";
            unsupported nvmlDeviceSetGpcClkVfOffset "settings of the device are the host operator's";
            unsupported nvmlDeviceSetGpuLockedClocks "settings of the device are the host operator's";
            unsupported nvmlDeviceSetGpuOperationMode "settings of the device are the host operator's";
            unsupported nvmlDeviceSetHostname_v1 "settings of the device are the host operator's";
            unsupported nvmlDeviceSetMemClkVfOffset "settings of the device are the host operator's";
            unsupported nvmlDeviceSetMemoryLockedClocks "settings of the device are the host operator's";
            unsupported nvmlDeviceSetPersistenceMode "settings of the device are the host operator's";
            unsupported nvmlDeviceSetPowerManagementLimit "settings of the device are the host operator's";
            unsupported nvmlDeviceSetPowerManagementLimit_v2 "settings of the device are the host operator's";
            unsupported nvmlDeviceSetPowerMizerMode_v1 "settings of the device are the host operator's";
            unsupported nvmlDeviceSetTemperatureThreshold "settings of the device are the host operator's";
            unsupported nvmlDeviceSetVirtualizationMode "settings of the device are the host operator's";
        }
    };
}
pub(crate) use for_each_nvml_fn;

/// Puts a row into the one form that callbacks take.
macro_rules! nvml_table {
    ($callback:path; $($class:ident $name:ident $($reason:literal)? $(($($params:tt)*))? ;)*) => {
        $callback! { $({ $class $name ($($reason)?) ($($($params)*)?) })* }
    };
}
pub(crate) use nvml_table;

/// Who answers a function; see the module's head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "described at the head of this file")]
pub enum Class {
    Local,
    Snapshot,
    Server,
    Unsupported,
}

/// What the table says of one function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// Exported symbol.
    pub name: &'static str,
    /// Who answers.
    pub class: Class,
    /// Why an `unsupported` row is unsupported; empty otherwise.
    pub reason: &'static str,
}

macro_rules! class {
    (local) => {
        Class::Local
    };
    (snapshot) => {
        Class::Snapshot
    };
    (server) => {
        Class::Server
    };
    (unsupported) => {
        Class::Unsupported
    };
}

macro_rules! reason {
    () => {
        ""
    };
    ($reason:literal) => {
        $reason
    };
}

macro_rules! rows {
    ($({ $class:ident $name:ident ($($reason:literal)?) $params:tt })*) => {
        /// Every row, in the table's order.
        pub const ROWS: &[Row] = &[$(Row {
            name: stringify!($name),
            class: class!($class),
            reason: reason!($($reason)?),
        },)*];
    };
}

for_each_nvml_fn!(rows);
