//! THE TABLE: every function of libcuda 13.0, one row each, in the order of the CUDA driver API manual.
//!
//! A row says: its class, its number, its exported name (and the name of its per-thread-default-stream twin after a
//! slash), and its parameters. `softgpu`, the shim, the worker, the tests and `docs/api-support.md` are all
//! expansions of this one list, so that moving a row from `unsupported` to another class is a change of one line
//! plus the code it needs.
//!
//! | class | who answers |
//! | --- | --- |
//! | `local` | the shim alone, from what it knows |
//! | `custom` | hand-written on both sides: `shim::api` and `server::worker::api` hold a function of that name or group |
//! | `forward` | the row says everything: parameters are carried by their kinds, the reply is awaited |
//! | `async` | as `forward`, but no reply is awaited; an error surfaces at the next synchronising call |
//! | `unsupported` | exported, answers `CUDA_ERROR_NOT_SUPPORTED`, is counted and named in the log; the text is the reason |
//!
//! In `forward` and `async` rows a parameter is one of the kinds of [`crate::param`]; in the others it is the C type.
//! Numbers are wire opcodes: never changed, never used again. 0–99 belong to [`crate::frame::control`].

/// Calls `$callback!` with every row of the table.
///
/// One row, `local 111 cuDeviceGetCount(count: *mut c_int);`, reaches the callback as the tokens
/// `{ local 111 cuDeviceGetCount () "" (count: *mut c_int) }`; one with a twin,
/// `custom 490 cuEventRecord / cuEventRecord_ptsz(…)`, as `{ custom 490 cuEventRecord (cuEventRecord_ptsz) "" (…) }`; and
/// `unsupported 120 cuX "why";` as `{ unsupported 120 cuX () "why" () }`.
#[macro_export]
macro_rules! for_each_driver_fn {
    ($callback:path) => {
        $crate::driver_table! { $callback;
            // ---- Initialisation, version, errors, entry points -----------------------------------------
            local 100 cuGetErrorString(error: CUresult, pStr: *mut *const c_char);
            local 101 cuGetErrorName(error: CUresult, pStr: *mut *const c_char);
            local 102 cuInit(Flags: c_uint);
            local 103 cuDriverGetVersion(driverVersion: *mut c_int);
            local 104 cuGetProcAddress(symbol: *const c_char, pfn: *mut *mut c_void, cudaVersion: c_int, flags: u64);
            local 105 cuGetProcAddress_v2(symbol: *const c_char, pfn: *mut *mut c_void, cudaVersion: c_int, flags: u64, symbolStatus: *mut CUdriverProcAddressQueryResult);
            local 106 cuGetExportTable(ppExportTable: *mut *const c_void, pExportTableId: *const CUuuid);
            // ---- Device management ---------------------------------------------------------------------
            local 110 cuDeviceGet(device: *mut CUdevice, ordinal: c_int);
            local 111 cuDeviceGetCount(count: *mut c_int);
            local 112 cuDeviceGetName(name: *mut c_char, len: c_int, dev: CUdevice);
            local 113 cuDeviceGetUuid(uuid: *mut CUuuid, dev: CUdevice);
            local 114 cuDeviceGetUuid_v2(uuid: *mut CUuuid, dev: CUdevice);
            local 115 cuDeviceGetLuid(luid: *mut c_char, deviceNodeMask: *mut c_uint, dev: CUdevice);
            local 116 cuDeviceTotalMem(bytes: *mut c_uint, dev: CUdevice);
            custom 117 cuDeviceTotalMem_v2(bytes: *mut usize, dev: CUdevice);
            forward 118 cuDeviceGetTexture1DLinearMaxWidth(maxWidthInElements: Out<usize>, format: In<CUarray_format>, numChannels: In<c_uint>, dev: Dev);
            local 119 cuDeviceGetAttribute(pi: *mut c_int, attrib: CUdevice_attribute, dev: CUdevice);
            custom 120 cuDeviceGetHostAtomicCapabilities(capabilities: *mut c_uint, operations: *const CUatomicOperation, count: c_uint, dev: CUdevice);
            unsupported 121 cuDeviceGetNvSciSyncAttributes "NvSciSync objects belong to the host's processes";
            local 122 cuDeviceGetExecAffinitySupport(pi: *mut c_int, kind: CUexecAffinityType, dev: CUdevice);
            forward 123 cuFlushGPUDirectRDMAWrites(target: In<c_uint>, scope: In<c_uint>);
            local 124 cuDeviceGetProperties(prop: *mut CUdevprop, dev: CUdevice);
            local 125 cuDeviceComputeCapability(major: *mut c_int, minor: *mut c_int, dev: CUdevice);
            unsupported 126 cuDeviceRegisterAsyncNotification "the notifications tell of the whole device's memory, which is the host's affair";
            unsupported 127 cuDeviceUnregisterAsyncNotification "the notifications tell of the whole device's memory, which is the host's affair";
            local 128 cuDeviceGetByPCIBusId(dev: *mut CUdevice, pciBusId: *const c_char);
            local 129 cuDeviceGetPCIBusId(pciBusId: *mut c_char, len: c_int, dev: CUdevice);
            local 130 cuDeviceCanAccessPeer(canAccessPeer: *mut c_int, dev: CUdevice, peerDev: CUdevice);
            forward 131 cuDeviceGetP2PAttribute(value: Out<c_int>, attrib: In<CUdevice_P2PAttribute>, srcDevice: Dev, dstDevice: Dev);
            custom 132 cuDeviceGetP2PAtomicCapabilities(capabilities: *mut c_uint, operations: *const CUatomicOperation, count: c_uint, srcDevice: CUdevice, dstDevice: CUdevice);
            // ---- Primary context management ------------------------------------------------------------
            custom 140 cuDevicePrimaryCtxRetain(pctx: *mut CUcontext, dev: CUdevice);
            custom 141 cuDevicePrimaryCtxRelease(dev: CUdevice);
            custom 142 cuDevicePrimaryCtxRelease_v2(dev: CUdevice);
            custom 143 cuDevicePrimaryCtxSetFlags(dev: CUdevice, flags: c_uint);
            custom 144 cuDevicePrimaryCtxSetFlags_v2(dev: CUdevice, flags: c_uint);
            local 145 cuDevicePrimaryCtxGetState(dev: CUdevice, flags: *mut c_uint, active: *mut c_int);
            custom 146 cuDevicePrimaryCtxReset(dev: CUdevice);
            custom 147 cuDevicePrimaryCtxReset_v2(dev: CUdevice);
            // ---- Context management --------------------------------------------------------------------
            unsupported 150 cuCtxCreate "the 32-bit interface of CUDA 3.1 and before; programs of today call the _v2 form";
            custom 151 cuCtxCreate_v2(pctx: *mut CUcontext, flags: c_uint, dev: CUdevice);
            custom 152 cuCtxCreate_v3(pctx: *mut CUcontext, paramsArray: *mut CUexecAffinityParam, numParams: c_int, flags: c_uint, dev: CUdevice);
            custom 153 cuCtxCreate_v4(pctx: *mut CUcontext, ctxCreateParams: *mut CUctxCreateParams, flags: c_uint, dev: CUdevice);
            custom 154 cuCtxDestroy(ctx: CUcontext);
            custom 155 cuCtxDestroy_v2(ctx: CUcontext);
            local 156 cuCtxPushCurrent(ctx: CUcontext);
            local 157 cuCtxPushCurrent_v2(ctx: CUcontext);
            local 158 cuCtxPopCurrent(pctx: *mut CUcontext);
            local 159 cuCtxPopCurrent_v2(pctx: *mut CUcontext);
            local 160 cuCtxSetCurrent(ctx: CUcontext);
            local 161 cuCtxGetCurrent(pctx: *mut CUcontext);
            local 162 cuCtxGetDevice(device: *mut CUdevice);
            local 163 cuCtxGetDevice_v2(device: *mut CUdevice, ctx: CUcontext);
            local 164 cuCtxGetFlags(flags: *mut c_uint);
            local 165 cuCtxSetFlags(flags: c_uint);
            local 166 cuCtxGetId(ctx: CUcontext, ctxId: *mut u64);
            custom 167 cuCtxSynchronize();
            custom 168 cuCtxSynchronize_v2(ctx: CUcontext);
            custom 169 cuCtxSetLimit(limit: CUlimit, value: usize);
            custom 170 cuCtxGetLimit(pvalue: *mut usize, limit: CUlimit);
            local 171 cuCtxGetCacheConfig(pconfig: *mut CUfunc_cache);
            local 172 cuCtxSetCacheConfig(config: CUfunc_cache);
            local 173 cuCtxGetApiVersion(ctx: CUcontext, version: *mut c_uint);
            local 174 cuCtxGetStreamPriorityRange(leastPriority: *mut c_int, greatestPriority: *mut c_int);
            async 175 cuCtxResetPersistingL2Cache();
            custom 176 cuCtxGetExecAffinity(pExecAffinity: *mut CUexecAffinityParam, kind: CUexecAffinityType);
            custom 177 cuCtxRecordEvent(hCtx: CUcontext, hEvent: CUevent);
            custom 178 cuCtxWaitEvent(hCtx: CUcontext, hEvent: CUevent);
            local 179 cuCtxAttach(pctx: *mut CUcontext, flags: c_uint);
            local 180 cuCtxDetach(ctx: CUcontext);
            local 181 cuCtxGetSharedMemConfig(pConfig: *mut CUsharedconfig);
            local 182 cuCtxSetSharedMemConfig(config: CUsharedconfig);
            custom 183 cuCtxEnablePeerAccess(peerContext: CUcontext, Flags: c_uint);
            custom 184 cuCtxDisablePeerAccess(peerContext: CUcontext);
            // ---- Module management ---------------------------------------------------------------------
            custom 190 cuModuleLoad(module: *mut CUmodule, fname: *const c_char);
            custom 191 cuModuleLoadData(module: *mut CUmodule, image: *const c_void);
            custom 192 cuModuleLoadDataEx(module: *mut CUmodule, image: *const c_void, numOptions: c_uint, options: *mut CUjit_option, optionValues: *mut *mut c_void);
            custom 193 cuModuleLoadFatBinary(module: *mut CUmodule, fatCubin: *const c_void);
            custom 194 cuModuleUnload(hmod: CUmodule);
            local 195 cuModuleGetLoadingMode(mode: *mut CUmoduleLoadingMode);
            custom 196 cuModuleGetFunction(hfunc: *mut CUfunction, hmod: CUmodule, name: *const c_char);
            custom 197 cuModuleGetFunctionCount(count: *mut c_uint, module: CUmodule);
            custom 198 cuModuleEnumerateFunctions(functions: *mut CUfunction, numFunctions: c_uint, module: CUmodule);
            unsupported 199 cuModuleGetGlobal "the 32-bit interface of CUDA 3.1 and before; programs of today call the _v2 form";
            custom 200 cuModuleGetGlobal_v2(dptr: *mut CUdeviceptr, bytes: *mut usize, hmod: CUmodule, name: *const c_char);
            custom 201 cuModuleGetTexRef(pTexRef: *mut CUtexref, hmod: CUmodule, name: *const c_char);
            custom 202 cuModuleGetSurfRef(pSurfRef: *mut CUsurfref, hmod: CUmodule, name: *const c_char);
            // ---- JIT linker ----------------------------------------------------------------------------
            custom 210 cuLinkCreate(numOptions: c_uint, options: *mut CUjit_option, optionValues: *mut *mut c_void, stateOut: *mut CUlinkState);
            custom 211 cuLinkCreate_v2(numOptions: c_uint, options: *mut CUjit_option, optionValues: *mut *mut c_void, stateOut: *mut CUlinkState);
            custom 212 cuLinkAddData(state: CUlinkState, kind: CUjitInputType, data: *mut c_void, size: usize, name: *const c_char, numOptions: c_uint, options: *mut CUjit_option, optionValues: *mut *mut c_void);
            custom 213 cuLinkAddData_v2(state: CUlinkState, kind: CUjitInputType, data: *mut c_void, size: usize, name: *const c_char, numOptions: c_uint, options: *mut CUjit_option, optionValues: *mut *mut c_void);
            custom 214 cuLinkAddFile(state: CUlinkState, kind: CUjitInputType, path: *const c_char, numOptions: c_uint, options: *mut CUjit_option, optionValues: *mut *mut c_void);
            custom 215 cuLinkAddFile_v2(state: CUlinkState, kind: CUjitInputType, path: *const c_char, numOptions: c_uint, options: *mut CUjit_option, optionValues: *mut *mut c_void);
            custom 216 cuLinkComplete(state: CUlinkState, cubinOut: *mut *mut c_void, sizeOut: *mut usize);
            custom 217 cuLinkDestroy(state: CUlinkState);
            // ---- Library management --------------------------------------------------------------------
            custom 220 cuLibraryLoadData(library: *mut CUlibrary, code: *const c_void, jitOptions: *mut CUjit_option, jitOptionsValues: *mut *mut c_void, numJitOptions: c_uint, libraryOptions: *mut CUlibraryOption, libraryOptionValues: *mut *mut c_void, numLibraryOptions: c_uint);
            custom 221 cuLibraryLoadFromFile(library: *mut CUlibrary, fileName: *const c_char, jitOptions: *mut CUjit_option, jitOptionsValues: *mut *mut c_void, numJitOptions: c_uint, libraryOptions: *mut CUlibraryOption, libraryOptionValues: *mut *mut c_void, numLibraryOptions: c_uint);
            custom 222 cuLibraryUnload(library: CUlibrary);
            custom 223 cuLibraryGetKernel(pKernel: *mut CUkernel, library: CUlibrary, name: *const c_char);
            custom 224 cuLibraryGetKernelCount(count: *mut c_uint, lib: CUlibrary);
            custom 225 cuLibraryEnumerateKernels(kernels: *mut CUkernel, numKernels: c_uint, lib: CUlibrary);
            custom 226 cuLibraryGetModule(pMod: *mut CUmodule, library: CUlibrary);
            custom 227 cuKernelGetFunction(pFunc: *mut CUfunction, kernel: CUkernel);
            custom 228 cuKernelGetLibrary(pLib: *mut CUlibrary, kernel: CUkernel);
            custom 229 cuLibraryGetGlobal(dptr: *mut CUdeviceptr, bytes: *mut usize, library: CUlibrary, name: *const c_char);
            custom 230 cuLibraryGetManaged(dptr: *mut CUdeviceptr, bytes: *mut usize, library: CUlibrary, name: *const c_char);
            unsupported 231 cuLibraryGetUnifiedFunction "the pointer would be to code of the host's process";
            custom 232 cuKernelGetAttribute(pi: *mut c_int, attrib: CUfunction_attribute, kernel: CUkernel, dev: CUdevice);
            custom 233 cuKernelSetAttribute(attrib: CUfunction_attribute, val: c_int, kernel: CUkernel, dev: CUdevice);
            custom 234 cuKernelSetCacheConfig(kernel: CUkernel, config: CUfunc_cache, dev: CUdevice);
            custom 235 cuKernelGetName(name: *mut *const c_char, hfunc: CUkernel);
            custom 236 cuKernelGetParamInfo(kernel: CUkernel, paramIndex: usize, paramOffset: *mut usize, paramSize: *mut usize);
            // ---- Execution control: functions and launches ---------------------------------------------
            custom 240 cuFuncGetAttribute(pi: *mut c_int, attrib: CUfunction_attribute, hfunc: CUfunction);
            custom 241 cuFuncSetAttribute(hfunc: CUfunction, attrib: CUfunction_attribute, value: c_int);
            custom 242 cuFuncSetCacheConfig(hfunc: CUfunction, config: CUfunc_cache);
            custom 243 cuFuncGetModule(hmod: *mut CUmodule, hfunc: CUfunction);
            custom 244 cuFuncGetName(name: *mut *const c_char, hfunc: CUfunction);
            custom 245 cuFuncGetParamInfo(func: CUfunction, paramIndex: usize, paramOffset: *mut usize, paramSize: *mut usize);
            custom 246 cuFuncIsLoaded(state: *mut CUfunctionLoadingState, function: CUfunction);
            custom 247 cuFuncLoad(function: CUfunction);
            unsupported 248 cuLaunchCooperativeKernelMultiDevice "removed from CUDA 13; cuLaunchCooperativeKernel is carried";
            local 249 cuFuncSetBlockShape(hfunc: CUfunction, x: c_int, y: c_int, z: c_int);
            local 250 cuFuncSetSharedSize(hfunc: CUfunction, bytes: c_uint);
            local 251 cuParamSetSize(hfunc: CUfunction, numbytes: c_uint);
            local 252 cuParamSeti(hfunc: CUfunction, offset: c_int, value: c_uint);
            local 253 cuParamSetf(hfunc: CUfunction, offset: c_int, value: f32);
            local 254 cuParamSetv(hfunc: CUfunction, offset: c_int, ptr: *mut c_void, numbytes: c_uint);
            custom 255 cuLaunch(f: CUfunction);
            custom 256 cuLaunchGrid(f: CUfunction, grid_width: c_int, grid_height: c_int);
            custom 257 cuLaunchGridAsync(f: CUfunction, grid_width: c_int, grid_height: c_int, hStream: CUstream);
            local 258 cuParamSetTexRef(hfunc: CUfunction, texunit: c_int, hTexRef: CUtexref);
            custom 259 cuFuncSetSharedMemConfig(hfunc: CUfunction, config: CUsharedconfig);
            custom 260 cuLaunchKernel / cuLaunchKernel_ptsz(f: CUfunction, gridDimX: c_uint, gridDimY: c_uint, gridDimZ: c_uint, blockDimX: c_uint, blockDimY: c_uint, blockDimZ: c_uint, sharedMemBytes: c_uint, hStream: CUstream, kernelParams: *mut *mut c_void, extra: *mut *mut c_void);
            custom 261 cuLaunchKernelEx / cuLaunchKernelEx_ptsz(config: *const CUlaunchConfig, f: CUfunction, kernelParams: *mut *mut c_void, extra: *mut *mut c_void);
            custom 262 cuLaunchHostFunc / cuLaunchHostFunc_ptsz(hStream: CUstream, function: CUhostFn, userData: *mut c_void);
            custom 263 cuLaunchCooperativeKernel / cuLaunchCooperativeKernel_ptsz(f: CUfunction, gridDimX: c_uint, gridDimY: c_uint, gridDimZ: c_uint, blockDimX: c_uint, blockDimY: c_uint, blockDimZ: c_uint, sharedMemBytes: c_uint, hStream: CUstream, kernelParams: *mut *mut c_void);
            // ---- Memory management: device and host memory ---------------------------------------------
            unsupported 270 cuMemGetInfo "the 32-bit interface of CUDA 3.1 and before; programs of today call the _v2 form";
            custom 271 cuMemGetInfo_v2(free: *mut usize, total: *mut usize);
            unsupported 272 cuMemAlloc "the 32-bit interface of CUDA 3.1 and before; programs of today call the _v2 form";
            custom 273 cuMemAlloc_v2(dptr: *mut CUdeviceptr, bytesize: usize);
            unsupported 274 cuMemAllocPitch "the 32-bit interface of CUDA 3.1 and before; programs of today call the _v2 form";
            custom 275 cuMemAllocPitch_v2(dptr: *mut CUdeviceptr, pPitch: *mut usize, WidthInBytes: usize, Height: usize, ElementSizeBytes: c_uint);
            unsupported 276 cuMemFree "the 32-bit interface of CUDA 3.1 and before; programs of today call the _v2 form";
            custom 277 cuMemFree_v2(dptr: CUdeviceptr);
            unsupported 278 cuMemGetAddressRange "the 32-bit interface of CUDA 3.1 and before; programs of today call the _v2 form";
            local 279 cuMemGetAddressRange_v2(pbase: *mut CUdeviceptr, psize: *mut usize, dptr: CUdeviceptr);
            custom 280 cuMemAllocHost(pp: *mut *mut c_void, bytesize: c_uint);
            custom 281 cuMemAllocHost_v2(pp: *mut *mut c_void, bytesize: usize);
            custom 282 cuMemFreeHost(p: *mut c_void);
            custom 283 cuMemHostAlloc(pp: *mut *mut c_void, bytesize: usize, Flags: c_uint);
            unsupported 284 cuMemHostGetDevicePointer "the 32-bit interface of CUDA 3.1 and before; programs of today call the _v2 form";
            custom 285 cuMemHostGetDevicePointer_v2(pdptr: *mut CUdeviceptr, p: *mut c_void, Flags: c_uint);
            custom 286 cuMemHostGetFlags(pFlags: *mut c_uint, p: *mut c_void);
            custom 287 cuMemAllocManaged(dptr: *mut CUdeviceptr, bytesize: usize, flags: c_uint);
            custom 288 cuMemHostRegister(p: *mut c_void, bytesize: usize, Flags: c_uint);
            custom 289 cuMemHostRegister_v2(p: *mut c_void, bytesize: usize, Flags: c_uint);
            custom 290 cuMemHostUnregister(p: *mut c_void);
            unsupported 291 cuMemGetHandleForAddressRange "a DMA buffer of the host's device means nothing to the guest's kernel";
            unsupported 292 cuMemGetAttribute "not in any public header";
            unsupported 293 cuMemGetAttribute_v2 "not in any public header";
            // ---- Memory management: copies -------------------------------------------------------------
            unsupported 300 cuMemcpyHtoD "the 32-bit interface of CUDA 3.1 and before; programs of today call the _v2 form";
            custom 301 cuMemcpyHtoD_v2 / cuMemcpyHtoD_v2_ptds(dstDevice: CUdeviceptr, srcHost: *const c_void, ByteCount: usize);
            unsupported 302 cuMemcpyDtoH "the 32-bit interface of CUDA 3.1 and before; programs of today call the _v2 form";
            custom 303 cuMemcpyDtoH_v2 / cuMemcpyDtoH_v2_ptds(dstHost: *mut c_void, srcDevice: CUdeviceptr, ByteCount: usize);
            unsupported 304 cuMemcpyDtoD "the 32-bit interface of CUDA 3.1 and before; programs of today call the _v2 form";
            custom 305 cuMemcpyDtoD_v2 / cuMemcpyDtoD_v2_ptds(dstDevice: CUdeviceptr, srcDevice: CUdeviceptr, ByteCount: usize);
            unsupported 306 cuMemcpyDtoA "the 32-bit interface of CUDA 3.1 and before; programs of today call the _v2 form";
            custom 307 cuMemcpyDtoA_v2 / cuMemcpyDtoA_v2_ptds(dstArray: CUarray, dstOffset: usize, srcDevice: CUdeviceptr, ByteCount: usize);
            unsupported 308 cuMemcpyAtoD "the 32-bit interface of CUDA 3.1 and before; programs of today call the _v2 form";
            custom 309 cuMemcpyAtoD_v2 / cuMemcpyAtoD_v2_ptds(dstDevice: CUdeviceptr, srcArray: CUarray, srcOffset: usize, ByteCount: usize);
            unsupported 310 cuMemcpyHtoA "the 32-bit interface of CUDA 3.1 and before; programs of today call the _v2 form";
            custom 311 cuMemcpyHtoA_v2 / cuMemcpyHtoA_v2_ptds(dstArray: CUarray, dstOffset: usize, srcHost: *const c_void, ByteCount: usize);
            unsupported 312 cuMemcpyAtoH "the 32-bit interface of CUDA 3.1 and before; programs of today call the _v2 form";
            custom 313 cuMemcpyAtoH_v2 / cuMemcpyAtoH_v2_ptds(dstHost: *mut c_void, srcArray: CUarray, srcOffset: usize, ByteCount: usize);
            unsupported 314 cuMemcpyAtoA "the 32-bit interface of CUDA 3.1 and before; programs of today call the _v2 form";
            custom 315 cuMemcpyAtoA_v2 / cuMemcpyAtoA_v2_ptds(dstArray: CUarray, dstOffset: usize, srcArray: CUarray, srcOffset: usize, ByteCount: usize);
            unsupported 316 cuMemcpyHtoAAsync "the 32-bit interface of CUDA 3.1 and before; programs of today call the _v2 form";
            custom 317 cuMemcpyHtoAAsync_v2 / cuMemcpyHtoAAsync_v2_ptsz(dstArray: CUarray, dstOffset: usize, srcHost: *const c_void, ByteCount: usize, hStream: CUstream);
            unsupported 318 cuMemcpyAtoHAsync "the 32-bit interface of CUDA 3.1 and before; programs of today call the _v2 form";
            custom 319 cuMemcpyAtoHAsync_v2 / cuMemcpyAtoHAsync_v2_ptsz(dstHost: *mut c_void, srcArray: CUarray, srcOffset: usize, ByteCount: usize, hStream: CUstream);
            unsupported 320 cuMemcpy2D "the 32-bit interface of CUDA 3.1 and before; programs of today call the _v2 form";
            custom 321 cuMemcpy2D_v2 / cuMemcpy2D_v2_ptds(pCopy: *const CUDA_MEMCPY2D);
            unsupported 322 cuMemcpy2DUnaligned "the 32-bit interface of CUDA 3.1 and before; programs of today call the _v2 form";
            custom 323 cuMemcpy2DUnaligned_v2 / cuMemcpy2DUnaligned_v2_ptds(pCopy: *const CUDA_MEMCPY2D);
            unsupported 324 cuMemcpy3D "the 32-bit interface of CUDA 3.1 and before; programs of today call the _v2 form";
            custom 325 cuMemcpy3D_v2 / cuMemcpy3D_v2_ptds(pCopy: *const CUDA_MEMCPY3D);
            unsupported 326 cuMemcpyHtoDAsync "the 32-bit interface of CUDA 3.1 and before; programs of today call the _v2 form";
            custom 327 cuMemcpyHtoDAsync_v2 / cuMemcpyHtoDAsync_v2_ptsz(dstDevice: CUdeviceptr, srcHost: *const c_void, ByteCount: usize, hStream: CUstream);
            unsupported 328 cuMemcpyDtoHAsync "the 32-bit interface of CUDA 3.1 and before; programs of today call the _v2 form";
            custom 329 cuMemcpyDtoHAsync_v2 / cuMemcpyDtoHAsync_v2_ptsz(dstHost: *mut c_void, srcDevice: CUdeviceptr, ByteCount: usize, hStream: CUstream);
            unsupported 330 cuMemcpyDtoDAsync "the 32-bit interface of CUDA 3.1 and before; programs of today call the _v2 form";
            custom 331 cuMemcpyDtoDAsync_v2 / cuMemcpyDtoDAsync_v2_ptsz(dstDevice: CUdeviceptr, srcDevice: CUdeviceptr, ByteCount: usize, hStream: CUstream);
            unsupported 332 cuMemcpy2DAsync "the 32-bit interface of CUDA 3.1 and before; programs of today call the _v2 form";
            custom 333 cuMemcpy2DAsync_v2 / cuMemcpy2DAsync_v2_ptsz(pCopy: *const CUDA_MEMCPY2D, hStream: CUstream);
            unsupported 334 cuMemcpy3DAsync "the 32-bit interface of CUDA 3.1 and before; programs of today call the _v2 form";
            custom 335 cuMemcpy3DAsync_v2 / cuMemcpy3DAsync_v2_ptsz(pCopy: *const CUDA_MEMCPY3D, hStream: CUstream);
            custom 336 cuMemcpy / cuMemcpy_ptds(dst: CUdeviceptr, src: CUdeviceptr, ByteCount: usize);
            custom 337 cuMemcpyAsync / cuMemcpyAsync_ptsz(dst: CUdeviceptr, src: CUdeviceptr, ByteCount: usize, hStream: CUstream);
            custom 338 cuMemcpyPeer / cuMemcpyPeer_ptds(dstDevice: CUdeviceptr, dstContext: CUcontext, srcDevice: CUdeviceptr, srcContext: CUcontext, ByteCount: usize);
            custom 339 cuMemcpyPeerAsync / cuMemcpyPeerAsync_ptsz(dstDevice: CUdeviceptr, dstContext: CUcontext, srcDevice: CUdeviceptr, srcContext: CUcontext, ByteCount: usize, hStream: CUstream);
            custom 340 cuMemcpy3DPeer / cuMemcpy3DPeer_ptds(pCopy: *const CUDA_MEMCPY3D_PEER);
            custom 341 cuMemcpy3DPeerAsync / cuMemcpy3DPeerAsync_ptsz(pCopy: *const CUDA_MEMCPY3D_PEER, hStream: CUstream);
            custom 342 cuMemcpyBatchAsync / cuMemcpyBatchAsync_ptsz(dsts: *mut CUdeviceptr, srcs: *mut CUdeviceptr, sizes: *mut usize, count: usize, attrs: *mut CUmemcpyAttributes, attrsIdxs: *mut usize, numAttrs: usize, failIdx: *mut usize, hStream: CUstream);
            custom 343 cuMemcpyBatchAsync_v2 / cuMemcpyBatchAsync_v2_ptsz(dsts: *mut CUdeviceptr, srcs: *mut CUdeviceptr, sizes: *mut usize, count: usize, attrs: *mut CUmemcpyAttributes, attrsIdxs: *mut usize, numAttrs: usize, hStream: CUstream);
            custom 344 cuMemcpy3DBatchAsync / cuMemcpy3DBatchAsync_ptsz(numOps: usize, opList: *mut CUDA_MEMCPY3D_BATCH_OP, failIdx: *mut usize, flags: u64, hStream: CUstream);
            custom 345 cuMemcpy3DBatchAsync_v2 / cuMemcpy3DBatchAsync_v2_ptsz(numOps: usize, opList: *mut CUDA_MEMCPY3D_BATCH_OP, flags: u64, hStream: CUstream);
            // ---- Memory management: memset -------------------------------------------------------------
            unsupported 350 cuMemsetD8 "the 32-bit interface of CUDA 3.1 and before; programs of today call the _v2 form";
            custom 351 cuMemsetD8_v2 / cuMemsetD8_v2_ptds(dstDevice: CUdeviceptr, uc: u8, N: usize);
            unsupported 352 cuMemsetD16 "the 32-bit interface of CUDA 3.1 and before; programs of today call the _v2 form";
            custom 353 cuMemsetD16_v2 / cuMemsetD16_v2_ptds(dstDevice: CUdeviceptr, us: u16, N: usize);
            unsupported 354 cuMemsetD32 "the 32-bit interface of CUDA 3.1 and before; programs of today call the _v2 form";
            custom 355 cuMemsetD32_v2 / cuMemsetD32_v2_ptds(dstDevice: CUdeviceptr, ui: c_uint, N: usize);
            unsupported 356 cuMemsetD2D8 "the 32-bit interface of CUDA 3.1 and before; programs of today call the _v2 form";
            custom 357 cuMemsetD2D8_v2 / cuMemsetD2D8_v2_ptds(dstDevice: CUdeviceptr, dstPitch: usize, uc: u8, Width: usize, Height: usize);
            unsupported 358 cuMemsetD2D16 "the 32-bit interface of CUDA 3.1 and before; programs of today call the _v2 form";
            custom 359 cuMemsetD2D16_v2 / cuMemsetD2D16_v2_ptds(dstDevice: CUdeviceptr, dstPitch: usize, us: u16, Width: usize, Height: usize);
            unsupported 360 cuMemsetD2D32 "the 32-bit interface of CUDA 3.1 and before; programs of today call the _v2 form";
            custom 361 cuMemsetD2D32_v2 / cuMemsetD2D32_v2_ptds(dstDevice: CUdeviceptr, dstPitch: usize, ui: c_uint, Width: usize, Height: usize);
            custom 362 cuMemsetD8Async / cuMemsetD8Async_ptsz(dstDevice: CUdeviceptr, uc: u8, N: usize, hStream: CUstream);
            custom 363 cuMemsetD16Async / cuMemsetD16Async_ptsz(dstDevice: CUdeviceptr, us: u16, N: usize, hStream: CUstream);
            custom 364 cuMemsetD32Async / cuMemsetD32Async_ptsz(dstDevice: CUdeviceptr, ui: c_uint, N: usize, hStream: CUstream);
            custom 365 cuMemsetD2D8Async / cuMemsetD2D8Async_ptsz(dstDevice: CUdeviceptr, dstPitch: usize, uc: u8, Width: usize, Height: usize, hStream: CUstream);
            custom 366 cuMemsetD2D16Async / cuMemsetD2D16Async_ptsz(dstDevice: CUdeviceptr, dstPitch: usize, us: u16, Width: usize, Height: usize, hStream: CUstream);
            custom 367 cuMemsetD2D32Async / cuMemsetD2D32Async_ptsz(dstDevice: CUdeviceptr, dstPitch: usize, ui: c_uint, Width: usize, Height: usize, hStream: CUstream);
            // ---- Memory management: arrays -------------------------------------------------------------
            unsupported 370 cuArrayCreate "the 32-bit interface of CUDA 3.1 and before; programs of today call the _v2 form";
            custom 371 cuArrayCreate_v2(pHandle: *mut CUarray, pAllocateArray: *const CUDA_ARRAY_DESCRIPTOR);
            unsupported 372 cuArrayGetDescriptor "the 32-bit interface of CUDA 3.1 and before; programs of today call the _v2 form";
            local 373 cuArrayGetDescriptor_v2(pArrayDescriptor: *mut CUDA_ARRAY_DESCRIPTOR, hArray: CUarray);
            custom 374 cuArrayGetSparseProperties(sparseProperties: *mut CUDA_ARRAY_SPARSE_PROPERTIES, array: CUarray);
            custom 375 cuMipmappedArrayGetSparseProperties(sparseProperties: *mut CUDA_ARRAY_SPARSE_PROPERTIES, mipmap: CUmipmappedArray);
            custom 376 cuArrayGetMemoryRequirements(memoryRequirements: *mut CUDA_ARRAY_MEMORY_REQUIREMENTS, array: CUarray, device: CUdevice);
            custom 377 cuMipmappedArrayGetMemoryRequirements(memoryRequirements: *mut CUDA_ARRAY_MEMORY_REQUIREMENTS, mipmap: CUmipmappedArray, device: CUdevice);
            custom 378 cuArrayGetPlane(pPlaneArray: *mut CUarray, hArray: CUarray, planeIdx: c_uint);
            custom 379 cuArrayDestroy(hArray: CUarray);
            unsupported 380 cuArray3DCreate "the 32-bit interface of CUDA 3.1 and before; programs of today call the _v2 form";
            custom 381 cuArray3DCreate_v2(pHandle: *mut CUarray, pAllocateArray: *const CUDA_ARRAY3D_DESCRIPTOR);
            unsupported 382 cuArray3DGetDescriptor "the 32-bit interface of CUDA 3.1 and before; programs of today call the _v2 form";
            local 383 cuArray3DGetDescriptor_v2(pArrayDescriptor: *mut CUDA_ARRAY3D_DESCRIPTOR, hArray: CUarray);
            custom 384 cuMipmappedArrayCreate(pHandle: *mut CUmipmappedArray, pMipmappedArrayDesc: *const CUDA_ARRAY3D_DESCRIPTOR, numMipmapLevels: c_uint);
            custom 385 cuMipmappedArrayGetLevel(pLevelArray: *mut CUarray, hMipmappedArray: CUmipmappedArray, level: c_uint);
            custom 386 cuMipmappedArrayDestroy(hMipmappedArray: CUmipmappedArray);
            // ---- Unified addressing --------------------------------------------------------------------
            local 390 cuPointerGetAttribute(data: *mut c_void, attribute: CUpointer_attribute, ptr: CUdeviceptr);
            local 391 cuMemAdvise(devPtr: CUdeviceptr, count: usize, advice: CUmem_advise, device: CUdevice);
            local 392 cuMemAdvise_v2(devPtr: CUdeviceptr, count: usize, advice: CUmem_advise, location: CUmemLocation);
            local 393 cuMemRangeGetAttribute(data: *mut c_void, dataSize: usize, attribute: CUmem_range_attribute, devPtr: CUdeviceptr, count: usize);
            local 394 cuMemRangeGetAttributes(data: *mut *mut c_void, dataSizes: *mut usize, attributes: *mut CUmem_range_attribute, numAttributes: usize, devPtr: CUdeviceptr, count: usize);
            custom 395 cuPointerSetAttribute(value: *const c_void, attribute: CUpointer_attribute, ptr: CUdeviceptr);
            local 396 cuPointerGetAttributes(numAttributes: c_uint, attributes: *mut CUpointer_attribute, data: *mut *mut c_void, ptr: CUdeviceptr);
            local 397 cuMemPrefetchAsync / cuMemPrefetchAsync_ptsz(devPtr: CUdeviceptr, count: usize, dstDevice: CUdevice, hStream: CUstream);
            local 398 cuMemPrefetchAsync_v2 / cuMemPrefetchAsync_v2_ptsz(devPtr: CUdeviceptr, count: usize, location: CUmemLocation, flags: c_uint, hStream: CUstream);
            local 399 cuMemPrefetchBatchAsync / cuMemPrefetchBatchAsync_ptsz(dptrs: *mut CUdeviceptr, sizes: *mut usize, count: usize, prefetchLocs: *mut CUmemLocation, prefetchLocIdxs: *mut usize, numPrefetchLocs: usize, flags: u64, hStream: CUstream);
            local 400 cuMemDiscardBatchAsync / cuMemDiscardBatchAsync_ptsz(dptrs: *mut CUdeviceptr, sizes: *mut usize, count: usize, flags: u64, hStream: CUstream);
            local 401 cuMemDiscardAndPrefetchBatchAsync / cuMemDiscardAndPrefetchBatchAsync_ptsz(dptrs: *mut CUdeviceptr, sizes: *mut usize, count: usize, prefetchLocs: *mut CUmemLocation, prefetchLocIdxs: *mut usize, numPrefetchLocs: usize, flags: u64, hStream: CUstream);
            // ---- Virtual memory management -------------------------------------------------------------
            custom 410 cuMemAddressReserve(ptr: *mut CUdeviceptr, size: usize, alignment: usize, addr: CUdeviceptr, flags: u64);
            custom 411 cuMemAddressFree(ptr: CUdeviceptr, size: usize);
            custom 412 cuMemCreate(handle: *mut CUmemGenericAllocationHandle, size: usize, prop: *const CUmemAllocationProp, flags: u64);
            custom 413 cuMemRelease(handle: CUmemGenericAllocationHandle);
            custom 414 cuMemMap(ptr: CUdeviceptr, size: usize, offset: usize, handle: CUmemGenericAllocationHandle, flags: u64);
            custom 415 cuMemUnmap(ptr: CUdeviceptr, size: usize);
            custom 416 cuMemSetAccess(ptr: CUdeviceptr, size: usize, desc: *const CUmemAccessDesc, count: usize);
            custom 417 cuMemGetAccess(flags: *mut u64, location: *const CUmemLocation, ptr: CUdeviceptr);
            custom 418 cuMemExportToShareableHandle(shareableHandle: *mut c_void, handle: CUmemGenericAllocationHandle, handleType: CUmemAllocationHandleType, flags: u64);
            custom 419 cuMemImportFromShareableHandle(handle: *mut CUmemGenericAllocationHandle, osHandle: *mut c_void, shHandleType: CUmemAllocationHandleType);
            custom 420 cuMemGetAllocationGranularity(granularity: *mut usize, prop: *const CUmemAllocationProp, option: c_uint);
            local 421 cuMemGetAllocationPropertiesFromHandle(prop: *mut CUmemAllocationProp, handle: CUmemGenericAllocationHandle);
            custom 422 cuMemRetainAllocationHandle(handle: *mut CUmemGenericAllocationHandle, addr: *mut c_void);
            unsupported 423 cuMemMapArrayAsync / cuMemMapArrayAsync_ptsz "sparse arrays are not carried";
            // ---- Stream-ordered memory allocator -------------------------------------------------------
            local 430 cuDeviceSetMemPool(dev: CUdevice, pool: CUmemoryPool);
            custom 431 cuDeviceGetMemPool(pool: *mut CUmemoryPool, dev: CUdevice);
            custom 432 cuDeviceGetDefaultMemPool(pool_out: *mut CUmemoryPool, dev: CUdevice);
            custom 433 cuMemPoolTrimTo(pool: CUmemoryPool, minBytesToKeep: usize);
            custom 434 cuMemPoolSetAttribute(pool: CUmemoryPool, attr: CUmemPool_attribute, value: *mut c_void);
            custom 435 cuMemPoolGetAttribute(pool: CUmemoryPool, attr: CUmemPool_attribute, value: *mut c_void);
            custom 436 cuMemPoolSetAccess(pool: CUmemoryPool, map: *const CUmemAccessDesc, count: usize);
            custom 437 cuMemPoolGetAccess(flags: *mut CUmemAccess_flags, memPool: CUmemoryPool, location: *mut CUmemLocation);
            custom 438 cuMemPoolCreate(pool: *mut CUmemoryPool, poolProps: *const CUmemPoolProps);
            custom 439 cuMemPoolDestroy(pool: CUmemoryPool);
            custom 440 cuMemGetDefaultMemPool(pool_out: *mut CUmemoryPool, location: *mut CUmemLocation, kind: CUmemAllocationType);
            custom 441 cuMemGetMemPool(pool: *mut CUmemoryPool, location: *mut CUmemLocation, kind: CUmemAllocationType);
            local 442 cuMemSetMemPool(location: *mut CUmemLocation, kind: CUmemAllocationType, pool: CUmemoryPool);
            custom 443 cuMemPoolExportToShareableHandle(handle_out: *mut c_void, pool: CUmemoryPool, handleType: CUmemAllocationHandleType, flags: u64);
            custom 444 cuMemPoolImportFromShareableHandle(pool_out: *mut CUmemoryPool, handle: *mut c_void, handleType: CUmemAllocationHandleType, flags: u64);
            custom 445 cuMemPoolExportPointer(shareData_out: *mut CUmemPoolPtrExportData, ptr: CUdeviceptr);
            custom 446 cuMemPoolImportPointer(ptr_out: *mut CUdeviceptr, pool: CUmemoryPool, shareData: *mut CUmemPoolPtrExportData);
            custom 447 cuMemFreeAsync / cuMemFreeAsync_ptsz(dptr: CUdeviceptr, hStream: CUstream);
            custom 448 cuMemAllocAsync / cuMemAllocAsync_ptsz(dptr: *mut CUdeviceptr, bytesize: usize, hStream: CUstream);
            custom 449 cuMemAllocFromPoolAsync / cuMemAllocFromPoolAsync_ptsz(dptr: *mut CUdeviceptr, bytesize: usize, pool: CUmemoryPool, hStream: CUstream);
            // ---- Stream management ---------------------------------------------------------------------
            custom 450 cuStreamCreate(phStream: *mut CUstream, Flags: c_uint);
            custom 451 cuStreamCreateWithPriority(phStream: *mut CUstream, flags: c_uint, priority: c_int);
            local 452 cuThreadExchangeStreamCaptureMode(mode: *mut CUstreamCaptureMode);
            custom 453 cuStreamDestroy(hStream: CUstream);
            custom 454 cuStreamDestroy_v2(hStream: CUstream);
            local 455 cuStreamGetPriority / cuStreamGetPriority_ptsz(hStream: CUstream, priority: *mut c_int);
            local 456 cuStreamGetId / cuStreamGetId_ptsz(hStream: CUstream, streamId: *mut u64);
            local 457 cuStreamGetFlags / cuStreamGetFlags_ptsz(hStream: CUstream, flags: *mut c_uint);
            local 458 cuStreamGetDevice / cuStreamGetDevice_ptsz(hStream: CUstream, device: *mut CUdevice);
            local 459 cuStreamGetCtx / cuStreamGetCtx_ptsz(hStream: CUstream, pctx: *mut CUcontext);
            local 460 cuStreamGetCtx_v2 / cuStreamGetCtx_v2_ptsz(hStream: CUstream, pCtx: *mut CUcontext, pGreenCtx: *mut CUgreenCtx);
            custom 461 cuStreamWaitEvent / cuStreamWaitEvent_ptsz(hStream: CUstream, hEvent: CUevent, Flags: c_uint);
            custom 462 cuStreamAddCallback / cuStreamAddCallback_ptsz(hStream: CUstream, callback: CUstreamCallback, userData: *mut c_void, flags: c_uint);
            local 463 cuStreamAttachMemAsync / cuStreamAttachMemAsync_ptsz(hStream: CUstream, dptr: CUdeviceptr, length: usize, flags: c_uint);
            custom 464 cuStreamQuery / cuStreamQuery_ptsz(hStream: CUstream);
            custom 465 cuStreamSynchronize / cuStreamSynchronize_ptsz(hStream: CUstream);
            custom 466 cuStreamBeginCapture / cuStreamBeginCapture_ptsz(hStream: CUstream);
            custom 467 cuStreamBeginCapture_v2 / cuStreamBeginCapture_v2_ptsz(hStream: CUstream, mode: CUstreamCaptureMode);
            custom 468 cuStreamBeginCaptureToGraph / cuStreamBeginCaptureToGraph_ptsz(hStream: CUstream, hGraph: CUgraph, dependencies: *const CUgraphNode, dependencyData: *const CUgraphEdgeData, numDependencies: usize, mode: CUstreamCaptureMode);
            custom 469 cuStreamEndCapture / cuStreamEndCapture_ptsz(hStream: CUstream, phGraph: *mut CUgraph);
            custom 470 cuStreamIsCapturing / cuStreamIsCapturing_ptsz(hStream: CUstream, captureStatus: *mut CUstreamCaptureStatus);
            custom 471 cuStreamGetCaptureInfo / cuStreamGetCaptureInfo_ptsz(hStream: CUstream, captureStatus_out: *mut CUstreamCaptureStatus, id_out: *mut u64);
            custom 472 cuStreamGetCaptureInfo_v2 / cuStreamGetCaptureInfo_v2_ptsz(hStream: CUstream, captureStatus_out: *mut CUstreamCaptureStatus, id_out: *mut u64, graph_out: *mut CUgraph, dependencies_out: *mut *const CUgraphNode, numDependencies_out: *mut usize);
            custom 473 cuStreamGetCaptureInfo_v3 / cuStreamGetCaptureInfo_v3_ptsz(hStream: CUstream, captureStatus_out: *mut CUstreamCaptureStatus, id_out: *mut u64, graph_out: *mut CUgraph, dependencies_out: *mut *const CUgraphNode, edgeData_out: *mut *const CUgraphEdgeData, numDependencies_out: *mut usize);
            custom 474 cuStreamCopyAttributes / cuStreamCopyAttributes_ptsz(dst: CUstream, src: CUstream);
            custom 475 cuStreamGetAttribute / cuStreamGetAttribute_ptsz(hStream: CUstream, attr: CUstreamAttrID, value_out: *mut CUattributeValue);
            custom 476 cuStreamSetAttribute / cuStreamSetAttribute_ptsz(hStream: CUstream, attr: CUstreamAttrID, value: *const CUattributeValue);
            custom 477 cuStreamUpdateCaptureDependencies / cuStreamUpdateCaptureDependencies_ptsz(hStream: CUstream, dependencies: *mut CUgraphNode, numDependencies: usize, flags: c_uint);
            custom 478 cuStreamUpdateCaptureDependencies_v2 / cuStreamUpdateCaptureDependencies_v2_ptsz(hStream: CUstream, dependencies: *mut CUgraphNode, dependencyData: *const CUgraphEdgeData, numDependencies: usize, flags: c_uint);
            // ---- Event management ----------------------------------------------------------------------
            custom 480 cuEventCreate(phEvent: *mut CUevent, Flags: c_uint);
            custom 481 cuEventQuery(hEvent: CUevent);
            custom 482 cuEventSynchronize(hEvent: CUevent);
            custom 483 cuEventDestroy(hEvent: CUevent);
            custom 484 cuEventDestroy_v2(hEvent: CUevent);
            custom 485 cuEventElapsedTime(pMilliseconds: *mut f32, hStart: CUevent, hEnd: CUevent);
            custom 486 cuEventElapsedTime_v2(pMilliseconds: *mut f32, hStart: CUevent, hEnd: CUevent);
            custom 487 cuEventRecord / cuEventRecord_ptsz(hEvent: CUevent, hStream: CUstream);
            custom 488 cuEventRecordWithFlags / cuEventRecordWithFlags_ptsz(hEvent: CUevent, hStream: CUstream, flags: c_uint);
            // ---- Stream memory operations --------------------------------------------------------------
            custom 490 cuStreamWriteValue32 / cuStreamWriteValue32_ptsz(stream: CUstream, addr: CUdeviceptr, value: u32, flags: c_uint);
            custom 491 cuStreamWriteValue32_v2 / cuStreamWriteValue32_v2_ptsz(stream: CUstream, addr: CUdeviceptr, value: u32, flags: c_uint);
            custom 492 cuStreamWaitValue32 / cuStreamWaitValue32_ptsz(stream: CUstream, addr: CUdeviceptr, value: u32, flags: c_uint);
            custom 493 cuStreamWaitValue32_v2 / cuStreamWaitValue32_v2_ptsz(stream: CUstream, addr: CUdeviceptr, value: u32, flags: c_uint);
            custom 494 cuStreamWriteValue64 / cuStreamWriteValue64_ptsz(stream: CUstream, addr: CUdeviceptr, value: u64, flags: c_uint);
            custom 495 cuStreamWriteValue64_v2 / cuStreamWriteValue64_v2_ptsz(stream: CUstream, addr: CUdeviceptr, value: u64, flags: c_uint);
            custom 496 cuStreamWaitValue64 / cuStreamWaitValue64_ptsz(stream: CUstream, addr: CUdeviceptr, value: u64, flags: c_uint);
            custom 497 cuStreamWaitValue64_v2 / cuStreamWaitValue64_v2_ptsz(stream: CUstream, addr: CUdeviceptr, value: u64, flags: c_uint);
            custom 498 cuStreamBatchMemOp / cuStreamBatchMemOp_ptsz(stream: CUstream, count: c_uint, paramArray: *mut CUstreamBatchMemOpParams, flags: c_uint);
            custom 499 cuStreamBatchMemOp_v2 / cuStreamBatchMemOp_v2_ptsz(stream: CUstream, count: c_uint, paramArray: *mut CUstreamBatchMemOpParams, flags: c_uint);
            // ---- Occupancy -----------------------------------------------------------------------------
            custom 500 cuOccupancyMaxActiveBlocksPerMultiprocessor(numBlocks: *mut c_int, func: CUfunction, blockSize: c_int, dynamicSMemSize: usize);
            custom 501 cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(numBlocks: *mut c_int, func: CUfunction, blockSize: c_int, dynamicSMemSize: usize, flags: c_uint);
            custom 502 cuOccupancyMaxPotentialBlockSize(minGridSize: *mut c_int, blockSize: *mut c_int, func: CUfunction, blockSizeToDynamicSMemSize: CUoccupancyB2DSize, dynamicSMemSize: usize, blockSizeLimit: c_int);
            custom 503 cuOccupancyMaxPotentialBlockSizeWithFlags(minGridSize: *mut c_int, blockSize: *mut c_int, func: CUfunction, blockSizeToDynamicSMemSize: CUoccupancyB2DSize, dynamicSMemSize: usize, blockSizeLimit: c_int, flags: c_uint);
            custom 504 cuOccupancyAvailableDynamicSMemPerBlock(dynamicSmemSize: *mut usize, func: CUfunction, numBlocks: c_int, blockSize: c_int);
            custom 505 cuOccupancyMaxPotentialClusterSize(clusterSize: *mut c_int, func: CUfunction, config: *const CUlaunchConfig);
            custom 506 cuOccupancyMaxActiveClusters(numClusters: *mut c_int, func: CUfunction, config: *const CUlaunchConfig);
            // ---- Graph management ----------------------------------------------------------------------
            custom 510 cuGraphCreate(phGraph: *mut CUgraph, flags: c_uint);
            custom 511 cuGraphAddKernelNode(phGraphNode: *mut CUgraphNode, hGraph: CUgraph, dependencies: *const CUgraphNode, numDependencies: usize, nodeParams: *const CUDA_KERNEL_NODE_PARAMS_v1);
            custom 512 cuGraphAddKernelNode_v2(phGraphNode: *mut CUgraphNode, hGraph: CUgraph, dependencies: *const CUgraphNode, numDependencies: usize, nodeParams: *const CUDA_KERNEL_NODE_PARAMS_v2);
            custom 513 cuGraphKernelNodeGetParams(hNode: CUgraphNode, nodeParams: *mut CUDA_KERNEL_NODE_PARAMS_v1);
            custom 514 cuGraphKernelNodeGetParams_v2(hNode: CUgraphNode, nodeParams: *mut CUDA_KERNEL_NODE_PARAMS_v2);
            custom 515 cuGraphKernelNodeSetParams(hNode: CUgraphNode, nodeParams: *const CUDA_KERNEL_NODE_PARAMS_v1);
            custom 516 cuGraphKernelNodeSetParams_v2(hNode: CUgraphNode, nodeParams: *const CUDA_KERNEL_NODE_PARAMS_v2);
            custom 517 cuGraphAddMemcpyNode(phGraphNode: *mut CUgraphNode, hGraph: CUgraph, dependencies: *const CUgraphNode, numDependencies: usize, copyParams: *const CUDA_MEMCPY3D, ctx: CUcontext);
            custom 518 cuGraphMemcpyNodeGetParams(hNode: CUgraphNode, nodeParams: *mut CUDA_MEMCPY3D);
            custom 519 cuGraphMemcpyNodeSetParams(hNode: CUgraphNode, nodeParams: *const CUDA_MEMCPY3D);
            custom 520 cuGraphAddMemsetNode(phGraphNode: *mut CUgraphNode, hGraph: CUgraph, dependencies: *const CUgraphNode, numDependencies: usize, memsetParams: *const CUDA_MEMSET_NODE_PARAMS, ctx: CUcontext);
            custom 521 cuGraphMemsetNodeGetParams(hNode: CUgraphNode, nodeParams: *mut CUDA_MEMSET_NODE_PARAMS);
            custom 522 cuGraphMemsetNodeSetParams(hNode: CUgraphNode, nodeParams: *const CUDA_MEMSET_NODE_PARAMS);
            custom 523 cuGraphAddHostNode(phGraphNode: *mut CUgraphNode, hGraph: CUgraph, dependencies: *const CUgraphNode, numDependencies: usize, nodeParams: *const CUDA_HOST_NODE_PARAMS);
            custom 524 cuGraphHostNodeGetParams(hNode: CUgraphNode, nodeParams: *mut CUDA_HOST_NODE_PARAMS);
            custom 525 cuGraphHostNodeSetParams(hNode: CUgraphNode, nodeParams: *const CUDA_HOST_NODE_PARAMS);
            custom 526 cuGraphAddChildGraphNode(phGraphNode: *mut CUgraphNode, hGraph: CUgraph, dependencies: *const CUgraphNode, numDependencies: usize, childGraph: CUgraph);
            custom 527 cuGraphChildGraphNodeGetGraph(hNode: CUgraphNode, phGraph: *mut CUgraph);
            custom 528 cuGraphAddEmptyNode(phGraphNode: *mut CUgraphNode, hGraph: CUgraph, dependencies: *const CUgraphNode, numDependencies: usize);
            custom 529 cuGraphAddEventRecordNode(phGraphNode: *mut CUgraphNode, hGraph: CUgraph, dependencies: *const CUgraphNode, numDependencies: usize, event: CUevent);
            custom 530 cuGraphEventRecordNodeGetEvent(hNode: CUgraphNode, event_out: *mut CUevent);
            custom 531 cuGraphEventRecordNodeSetEvent(hNode: CUgraphNode, event: CUevent);
            custom 532 cuGraphAddEventWaitNode(phGraphNode: *mut CUgraphNode, hGraph: CUgraph, dependencies: *const CUgraphNode, numDependencies: usize, event: CUevent);
            custom 533 cuGraphEventWaitNodeGetEvent(hNode: CUgraphNode, event_out: *mut CUevent);
            custom 534 cuGraphEventWaitNodeSetEvent(hNode: CUgraphNode, event: CUevent);
            unsupported 535 cuGraphAddExternalSemaphoresSignalNode "external memory and semaphores come from a graphics driver that the guest does not have";
            unsupported 536 cuGraphExternalSemaphoresSignalNodeGetParams "external memory and semaphores come from a graphics driver that the guest does not have";
            unsupported 537 cuGraphExternalSemaphoresSignalNodeSetParams "external memory and semaphores come from a graphics driver that the guest does not have";
            unsupported 538 cuGraphAddExternalSemaphoresWaitNode "external memory and semaphores come from a graphics driver that the guest does not have";
            unsupported 539 cuGraphExternalSemaphoresWaitNodeGetParams "external memory and semaphores come from a graphics driver that the guest does not have";
            unsupported 540 cuGraphExternalSemaphoresWaitNodeSetParams "external memory and semaphores come from a graphics driver that the guest does not have";
            custom 541 cuGraphAddBatchMemOpNode(phGraphNode: *mut CUgraphNode, hGraph: CUgraph, dependencies: *const CUgraphNode, numDependencies: usize, nodeParams: *const CUDA_BATCH_MEM_OP_NODE_PARAMS);
            custom 542 cuGraphBatchMemOpNodeGetParams(hNode: CUgraphNode, nodeParams_out: *mut CUDA_BATCH_MEM_OP_NODE_PARAMS);
            custom 543 cuGraphBatchMemOpNodeSetParams(hNode: CUgraphNode, nodeParams: *const CUDA_BATCH_MEM_OP_NODE_PARAMS);
            custom 544 cuGraphExecBatchMemOpNodeSetParams(hGraphExec: CUgraphExec, hNode: CUgraphNode, nodeParams: *const CUDA_BATCH_MEM_OP_NODE_PARAMS);
            custom 545 cuGraphAddMemAllocNode(phGraphNode: *mut CUgraphNode, hGraph: CUgraph, dependencies: *const CUgraphNode, numDependencies: usize, nodeParams: *mut CUDA_MEM_ALLOC_NODE_PARAMS);
            custom 546 cuGraphMemAllocNodeGetParams(hNode: CUgraphNode, params_out: *mut CUDA_MEM_ALLOC_NODE_PARAMS);
            custom 547 cuGraphAddMemFreeNode(phGraphNode: *mut CUgraphNode, hGraph: CUgraph, dependencies: *const CUgraphNode, numDependencies: usize, dptr: CUdeviceptr);
            custom 548 cuGraphMemFreeNodeGetParams(hNode: CUgraphNode, dptr_out: *mut CUdeviceptr);
            custom 549 cuDeviceGraphMemTrim(device: CUdevice);
            custom 550 cuDeviceGetGraphMemAttribute(device: CUdevice, attr: CUgraphMem_attribute, value: *mut c_void);
            custom 551 cuDeviceSetGraphMemAttribute(device: CUdevice, attr: CUgraphMem_attribute, value: *mut c_void);
            custom 552 cuGraphClone(phGraphClone: *mut CUgraph, originalGraph: CUgraph);
            custom 553 cuGraphNodeFindInClone(phNode: *mut CUgraphNode, hOriginalNode: CUgraphNode, hClonedGraph: CUgraph);
            custom 554 cuGraphNodeGetType(hNode: CUgraphNode, kind: *mut CUgraphNodeType);
            custom 555 cuGraphGetNodes(hGraph: CUgraph, nodes: *mut CUgraphNode, numNodes: *mut usize);
            custom 556 cuGraphGetRootNodes(hGraph: CUgraph, rootNodes: *mut CUgraphNode, numRootNodes: *mut usize);
            custom 557 cuGraphGetEdges(hGraph: CUgraph, from: *mut CUgraphNode, to: *mut CUgraphNode, numEdges: *mut usize);
            custom 558 cuGraphGetEdges_v2(hGraph: CUgraph, from: *mut CUgraphNode, to: *mut CUgraphNode, edgeData: *mut CUgraphEdgeData, numEdges: *mut usize);
            custom 559 cuGraphNodeGetDependencies(hNode: CUgraphNode, dependencies: *mut CUgraphNode, numDependencies: *mut usize);
            custom 560 cuGraphNodeGetDependencies_v2(hNode: CUgraphNode, dependencies: *mut CUgraphNode, edgeData: *mut CUgraphEdgeData, numDependencies: *mut usize);
            custom 561 cuGraphNodeGetDependentNodes(hNode: CUgraphNode, dependentNodes: *mut CUgraphNode, numDependentNodes: *mut usize);
            custom 562 cuGraphNodeGetDependentNodes_v2(hNode: CUgraphNode, dependentNodes: *mut CUgraphNode, edgeData: *mut CUgraphEdgeData, numDependentNodes: *mut usize);
            custom 563 cuGraphAddDependencies(hGraph: CUgraph, from: *const CUgraphNode, to: *const CUgraphNode, numDependencies: usize);
            custom 564 cuGraphAddDependencies_v2(hGraph: CUgraph, from: *const CUgraphNode, to: *const CUgraphNode, edgeData: *const CUgraphEdgeData, numDependencies: usize);
            custom 565 cuGraphRemoveDependencies(hGraph: CUgraph, from: *const CUgraphNode, to: *const CUgraphNode, numDependencies: usize);
            custom 566 cuGraphRemoveDependencies_v2(hGraph: CUgraph, from: *const CUgraphNode, to: *const CUgraphNode, edgeData: *const CUgraphEdgeData, numDependencies: usize);
            custom 567 cuGraphDestroyNode(hNode: CUgraphNode);
            custom 568 cuGraphInstantiateWithFlags(phGraphExec: *mut CUgraphExec, hGraph: CUgraph, flags: u64);
            custom 569 cuGraphExecGetFlags(hGraphExec: CUgraphExec, flags: *mut u64);
            custom 570 cuGraphExecKernelNodeSetParams(hGraphExec: CUgraphExec, hNode: CUgraphNode, nodeParams: *const CUDA_KERNEL_NODE_PARAMS_v1);
            custom 571 cuGraphExecKernelNodeSetParams_v2(hGraphExec: CUgraphExec, hNode: CUgraphNode, nodeParams: *const CUDA_KERNEL_NODE_PARAMS_v2);
            custom 572 cuGraphExecMemcpyNodeSetParams(hGraphExec: CUgraphExec, hNode: CUgraphNode, copyParams: *const CUDA_MEMCPY3D, ctx: CUcontext);
            custom 573 cuGraphExecMemsetNodeSetParams(hGraphExec: CUgraphExec, hNode: CUgraphNode, memsetParams: *const CUDA_MEMSET_NODE_PARAMS, ctx: CUcontext);
            custom 574 cuGraphExecHostNodeSetParams(hGraphExec: CUgraphExec, hNode: CUgraphNode, nodeParams: *const CUDA_HOST_NODE_PARAMS);
            custom 575 cuGraphExecChildGraphNodeSetParams(hGraphExec: CUgraphExec, hNode: CUgraphNode, childGraph: CUgraph);
            custom 576 cuGraphExecEventRecordNodeSetEvent(hGraphExec: CUgraphExec, hNode: CUgraphNode, event: CUevent);
            custom 577 cuGraphExecEventWaitNodeSetEvent(hGraphExec: CUgraphExec, hNode: CUgraphNode, event: CUevent);
            unsupported 578 cuGraphExecExternalSemaphoresSignalNodeSetParams "external memory and semaphores come from a graphics driver that the guest does not have";
            unsupported 579 cuGraphExecExternalSemaphoresWaitNodeSetParams "external memory and semaphores come from a graphics driver that the guest does not have";
            custom 580 cuGraphNodeSetEnabled(hGraphExec: CUgraphExec, hNode: CUgraphNode, isEnabled: c_uint);
            custom 581 cuGraphNodeGetEnabled(hGraphExec: CUgraphExec, hNode: CUgraphNode, isEnabled: *mut c_uint);
            custom 582 cuGraphExecDestroy(hGraphExec: CUgraphExec);
            custom 583 cuGraphDestroy(hGraph: CUgraph);
            custom 584 cuGraphExecUpdate(hGraphExec: CUgraphExec, hGraph: CUgraph, hErrorNode_out: *mut CUgraphNode, updateResult_out: *mut c_uint);
            custom 585 cuGraphExecUpdate_v2(hGraphExec: CUgraphExec, hGraph: CUgraph, resultInfo: *mut CUgraphExecUpdateResultInfo);
            custom 586 cuGraphKernelNodeCopyAttributes(dst: CUgraphNode, src: CUgraphNode);
            custom 587 cuGraphKernelNodeGetAttribute(hNode: CUgraphNode, attr: CUkernelNodeAttrID, value_out: *mut CUattributeValue);
            custom 588 cuGraphKernelNodeSetAttribute(hNode: CUgraphNode, attr: CUkernelNodeAttrID, value: *const CUattributeValue);
            custom 589 cuGraphDebugDotPrint(hGraph: CUgraph, path: *const c_char, flags: c_uint);
            custom 590 cuUserObjectCreate(object_out: *mut CUuserObject, ptr: *mut c_void, destroy: CUhostFn, initialRefcount: c_uint, flags: c_uint);
            custom 591 cuUserObjectRetain(object: CUuserObject, count: c_uint);
            custom 592 cuUserObjectRelease(object: CUuserObject, count: c_uint);
            custom 593 cuGraphRetainUserObject(graph: CUgraph, object: CUuserObject, count: c_uint, flags: c_uint);
            custom 594 cuGraphReleaseUserObject(graph: CUgraph, object: CUuserObject, count: c_uint);
            custom 595 cuGraphAddNode(phGraphNode: *mut CUgraphNode, hGraph: CUgraph, dependencies: *const CUgraphNode, numDependencies: usize, nodeParams: *mut CUgraphNodeParams);
            custom 596 cuGraphAddNode_v2(phGraphNode: *mut CUgraphNode, hGraph: CUgraph, dependencies: *const CUgraphNode, dependencyData: *const CUgraphEdgeData, numDependencies: usize, nodeParams: *mut CUgraphNodeParams);
            custom 597 cuGraphNodeSetParams(hNode: CUgraphNode, nodeParams: *mut CUgraphNodeParams);
            custom 598 cuGraphExecNodeSetParams(hGraphExec: CUgraphExec, hNode: CUgraphNode, nodeParams: *mut CUgraphNodeParams);
            custom 599 cuGraphConditionalHandleCreate(pHandle_out: *mut CUgraphConditionalHandle, hGraph: CUgraph, ctx: CUcontext, defaultLaunchValue: c_uint, flags: c_uint);
            custom 600 cuGraphInstantiateWithParams / cuGraphInstantiateWithParams_ptsz(phGraphExec: *mut CUgraphExec, hGraph: CUgraph, instantiateParams: *mut CUDA_GRAPH_INSTANTIATE_PARAMS);
            custom 601 cuGraphUpload / cuGraphUpload_ptsz(hGraphExec: CUgraphExec, hStream: CUstream);
            custom 602 cuGraphLaunch / cuGraphLaunch_ptsz(hGraphExec: CUgraphExec, hStream: CUstream);
            custom 603 cuGraphInstantiate(phGraphExec: *mut CUgraphExec, hGraph: CUgraph, phErrorNode: *mut CUgraphNode, logBuffer: *mut c_char, bufferSize: usize);
            custom 604 cuGraphInstantiate_v2(phGraphExec: *mut CUgraphExec, hGraph: CUgraph, phErrorNode: *mut CUgraphNode, logBuffer: *mut c_char, bufferSize: usize);
            // ---- Texture and surface objects -----------------------------------------------------------
            custom 610 cuTexObjectCreate(pTexObject: *mut CUtexObject, pResDesc: *const CUDA_RESOURCE_DESC, pTexDesc: *const CUDA_TEXTURE_DESC, pResViewDesc: *const CUDA_RESOURCE_VIEW_DESC);
            custom 611 cuTexObjectDestroy(texObject: CUtexObject);
            local 612 cuTexObjectGetResourceDesc(pResDesc: *mut CUDA_RESOURCE_DESC, texObject: CUtexObject);
            local 613 cuTexObjectGetTextureDesc(pTexDesc: *mut CUDA_TEXTURE_DESC, texObject: CUtexObject);
            local 614 cuTexObjectGetResourceViewDesc(pResViewDesc: *mut CUDA_RESOURCE_VIEW_DESC, texObject: CUtexObject);
            custom 615 cuSurfObjectCreate(pSurfObject: *mut CUsurfObject, pResDesc: *const CUDA_RESOURCE_DESC);
            custom 616 cuSurfObjectDestroy(surfObject: CUsurfObject);
            local 617 cuSurfObjectGetResourceDesc(pResDesc: *mut CUDA_RESOURCE_DESC, surfObject: CUsurfObject);
            // ---- Texture and surface references --------------------------------------------------------
            custom 620 cuTexRefSetArray(hTexRef: CUtexref, hArray: CUarray, Flags: c_uint);
            custom 621 cuTexRefSetMipmappedArray(hTexRef: CUtexref, hMipmappedArray: CUmipmappedArray, Flags: c_uint);
            unsupported 622 cuTexRefSetAddress "the 32-bit interface of CUDA 3.1 and before; programs of today call the _v2 form";
            custom 623 cuTexRefSetAddress_v2(ByteOffset: *mut usize, hTexRef: CUtexref, dptr: CUdeviceptr, bytes: usize);
            unsupported 624 cuTexRefSetAddress2D "the 32-bit interface of CUDA 3.1 and before; programs of today call the _v2 form";
            custom 625 cuTexRefSetAddress2D_v2(hTexRef: CUtexref, desc: *const CUDA_ARRAY_DESCRIPTOR, dptr: CUdeviceptr, Pitch: usize);
            custom 626 cuTexRefSetAddress2D_v3(hTexRef: CUtexref, desc: *const CUDA_ARRAY_DESCRIPTOR, dptr: CUdeviceptr, Pitch: usize);
            custom 627 cuTexRefSetFormat(hTexRef: CUtexref, fmt: CUarray_format, NumPackedComponents: c_int);
            custom 628 cuTexRefSetAddressMode(hTexRef: CUtexref, dim: c_int, am: CUaddress_mode);
            custom 629 cuTexRefSetFilterMode(hTexRef: CUtexref, fm: CUfilter_mode);
            custom 630 cuTexRefSetMipmapFilterMode(hTexRef: CUtexref, fm: CUfilter_mode);
            custom 631 cuTexRefSetMipmapLevelBias(hTexRef: CUtexref, bias: f32);
            custom 632 cuTexRefSetMipmapLevelClamp(hTexRef: CUtexref, minMipmapLevelClamp: f32, maxMipmapLevelClamp: f32);
            custom 633 cuTexRefSetMaxAnisotropy(hTexRef: CUtexref, maxAniso: c_uint);
            custom 634 cuTexRefSetBorderColor(hTexRef: CUtexref, pBorderColor: *mut f32);
            custom 635 cuTexRefSetFlags(hTexRef: CUtexref, Flags: c_uint);
            unsupported 636 cuTexRefGetAddress "the 32-bit interface of CUDA 3.1 and before; programs of today call the _v2 form";
            custom 637 cuTexRefGetAddress_v2(pdptr: *mut CUdeviceptr, hTexRef: CUtexref);
            custom 638 cuTexRefGetArray(phArray: *mut CUarray, hTexRef: CUtexref);
            custom 639 cuTexRefGetMipmappedArray(phMipmappedArray: *mut CUmipmappedArray, hTexRef: CUtexref);
            custom 640 cuTexRefGetAddressMode(pam: *mut CUaddress_mode, hTexRef: CUtexref, dim: c_int);
            custom 641 cuTexRefGetFilterMode(pfm: *mut CUfilter_mode, hTexRef: CUtexref);
            custom 642 cuTexRefGetFormat(pFormat: *mut CUarray_format, pNumChannels: *mut c_int, hTexRef: CUtexref);
            custom 643 cuTexRefGetMipmapFilterMode(pfm: *mut CUfilter_mode, hTexRef: CUtexref);
            custom 644 cuTexRefGetMipmapLevelBias(pbias: *mut f32, hTexRef: CUtexref);
            custom 645 cuTexRefGetMipmapLevelClamp(pminMipmapLevelClamp: *mut f32, pmaxMipmapLevelClamp: *mut f32, hTexRef: CUtexref);
            custom 646 cuTexRefGetMaxAnisotropy(pmaxAniso: *mut c_int, hTexRef: CUtexref);
            custom 647 cuTexRefGetBorderColor(pBorderColor: *mut f32, hTexRef: CUtexref);
            custom 648 cuTexRefGetFlags(pFlags: *mut c_uint, hTexRef: CUtexref);
            custom 649 cuTexRefCreate(pTexRef: *mut CUtexref);
            custom 650 cuTexRefDestroy(hTexRef: CUtexref);
            custom 651 cuSurfRefSetArray(hSurfRef: CUsurfref, hArray: CUarray, Flags: c_uint);
            custom 652 cuSurfRefGetArray(phArray: *mut CUarray, hSurfRef: CUsurfref);
            // ---- Tensor maps ---------------------------------------------------------------------------
            custom 660 cuTensorMapEncodeTiled(tensorMap: *mut CUtensorMap, tensorDataType: c_uint, tensorRank: c_uint, globalAddress: *mut c_void, globalDim: *const u64, globalStrides: *const u64, boxDim: *const c_uint, elementStrides: *const c_uint, interleave: c_uint, swizzle: c_uint, l2Promotion: c_uint, oobFill: c_uint);
            custom 661 cuTensorMapEncodeIm2col(tensorMap: *mut CUtensorMap, tensorDataType: c_uint, tensorRank: c_uint, globalAddress: *mut c_void, globalDim: *const u64, globalStrides: *const u64, pixelBoxLowerCorner: *const c_int, pixelBoxUpperCorner: *const c_int, channelsPerPixel: c_uint, pixelsPerColumn: c_uint, elementStrides: *const c_uint, interleave: c_uint, swizzle: c_uint, l2Promotion: c_uint, oobFill: c_uint);
            custom 662 cuTensorMapEncodeIm2colWide(tensorMap: *mut CUtensorMap, tensorDataType: c_uint, tensorRank: c_uint, globalAddress: *mut c_void, globalDim: *const u64, globalStrides: *const u64, pixelBoxLowerCornerWidth: c_int, pixelBoxUpperCornerWidth: c_int, channelsPerPixel: c_uint, pixelsPerColumn: c_uint, elementStrides: *const c_uint, interleave: c_uint, mode: c_uint, swizzle: c_uint, l2Promotion: c_uint, oobFill: c_uint);
            custom 663 cuTensorMapReplaceAddress(tensorMap: *mut CUtensorMap, globalAddress: *mut c_void);
            // ---- Interprocess communication ------------------------------------------------------------
            custom 670 cuIpcGetEventHandle(pHandle: *mut CUipcEventHandle, event: CUevent);
            custom 671 cuIpcOpenEventHandle(phEvent: *mut CUevent, handle: CUipcEventHandle);
            custom 672 cuIpcGetMemHandle(pHandle: *mut CUipcMemHandle, dptr: CUdeviceptr);
            custom 673 cuIpcOpenMemHandle(pdptr: *mut CUdeviceptr, handle: CUipcMemHandle, Flags: c_uint);
            custom 674 cuIpcOpenMemHandle_v2(pdptr: *mut CUdeviceptr, handle: CUipcMemHandle, Flags: c_uint);
            custom 675 cuIpcCloseMemHandle(dptr: CUdeviceptr);
            // ---- Green contexts ------------------------------------------------------------------------
            custom 680 cuGreenCtxCreate(phCtx: *mut CUgreenCtx, desc: CUdevResourceDesc, dev: CUdevice, flags: c_uint);
            custom 681 cuGreenCtxDestroy(hCtx: CUgreenCtx);
            local 682 cuCtxFromGreenCtx(pContext: *mut CUcontext, hCtx: CUgreenCtx);
            custom 683 cuDeviceGetDevResource(device: CUdevice, resource: *mut CUdevResource, kind: CUdevResourceType);
            custom 684 cuCtxGetDevResource(hCtx: CUcontext, resource: *mut CUdevResource, kind: CUdevResourceType);
            custom 685 cuGreenCtxGetDevResource(hCtx: CUgreenCtx, resource: *mut CUdevResource, kind: CUdevResourceType);
            custom 686 cuDevSmResourceSplitByCount(result: *mut CUdevResource, nbGroups: *mut c_uint, input: *const CUdevResource, remaining: *mut CUdevResource, useFlags: c_uint, minCount: c_uint);
            custom 687 cuDevResourceGenerateDesc(phDesc: *mut CUdevResourceDesc, resources: *mut CUdevResource, nbResources: c_uint);
            custom 688 cuGreenCtxRecordEvent(hCtx: CUgreenCtx, hEvent: CUevent);
            custom 689 cuGreenCtxWaitEvent(hCtx: CUgreenCtx, hEvent: CUevent);
            local 690 cuStreamGetGreenCtx(hStream: CUstream, phCtx: *mut CUgreenCtx);
            custom 691 cuGreenCtxStreamCreate(phStream: *mut CUstream, greenCtx: CUgreenCtx, flags: c_uint, priority: c_int);
            local 692 cuGreenCtxGetId(greenCtx: CUgreenCtx, greenCtxId: *mut u64);
            // ---- Multicast -----------------------------------------------------------------------------
            unsupported 700 cuMulticastCreate "multicast objects span GPUs that a guest does not own";
            unsupported 701 cuMulticastAddDevice "multicast objects span GPUs that a guest does not own";
            unsupported 702 cuMulticastBindMem "multicast objects span GPUs that a guest does not own";
            unsupported 703 cuMulticastBindAddr "multicast objects span GPUs that a guest does not own";
            unsupported 704 cuMulticastUnbind "multicast objects span GPUs that a guest does not own";
            unsupported 705 cuMulticastGetGranularity "multicast objects span GPUs that a guest does not own";
            // ---- External resources --------------------------------------------------------------------
            unsupported 710 cuImportExternalMemory "external memory and semaphores come from a graphics driver that the guest does not have";
            unsupported 711 cuExternalMemoryGetMappedBuffer "external memory and semaphores come from a graphics driver that the guest does not have";
            unsupported 712 cuExternalMemoryGetMappedMipmappedArray "external memory and semaphores come from a graphics driver that the guest does not have";
            unsupported 713 cuDestroyExternalMemory "external memory and semaphores come from a graphics driver that the guest does not have";
            unsupported 714 cuImportExternalSemaphore "external memory and semaphores come from a graphics driver that the guest does not have";
            unsupported 715 cuDestroyExternalSemaphore "external memory and semaphores come from a graphics driver that the guest does not have";
            unsupported 716 cuSignalExternalSemaphoresAsync / cuSignalExternalSemaphoresAsync_ptsz "external memory and semaphores come from a graphics driver that the guest does not have";
            unsupported 717 cuWaitExternalSemaphoresAsync / cuWaitExternalSemaphoresAsync_ptsz "external memory and semaphores come from a graphics driver that the guest does not have";
            // ---- Profiler, logs, core dumps, checkpoints -----------------------------------------------
            unsupported 720 cuCoredumpGetAttribute "a core dump of the device would be written on the host";
            unsupported 721 cuCoredumpGetAttributeGlobal "a core dump of the device would be written on the host";
            unsupported 722 cuCoredumpSetAttribute "a core dump of the device would be written on the host";
            unsupported 723 cuCoredumpSetAttributeGlobal "a core dump of the device would be written on the host";
            unsupported 724 cuLogsRegisterCallback "the driver's log belongs to the host";
            unsupported 725 cuLogsUnregisterCallback "the driver's log belongs to the host";
            unsupported 726 cuLogsCurrent "the driver's log belongs to the host";
            unsupported 727 cuLogsDumpToFile "the driver's log belongs to the host";
            unsupported 728 cuLogsDumpToMemory "the driver's log belongs to the host";
            unsupported 729 cuCheckpointProcessGetRestoreThreadId "checkpointing a process is the host operator's decision";
            unsupported 730 cuCheckpointProcessGetState "checkpointing a process is the host operator's decision";
            unsupported 731 cuCheckpointProcessLock "checkpointing a process is the host operator's decision";
            unsupported 732 cuCheckpointProcessCheckpoint "checkpointing a process is the host operator's decision";
            unsupported 733 cuCheckpointProcessRestore "checkpointing a process is the host operator's decision";
            unsupported 734 cuCheckpointProcessUnlock "checkpointing a process is the host operator's decision";
            local 735 cuProfilerInitialize(configFile: *const c_char, outputFile: *const c_char, outputMode: CUoutput_mode);
            local 736 cuProfilerStart();
            local 737 cuProfilerStop();
            // ---- Graphics interoperability -------------------------------------------------------------
            unsupported 740 cuGraphicsUnregisterResource "graphics interoperability needs the application's own display";
            unsupported 741 cuGraphicsSubResourceGetMappedArray "graphics interoperability needs the application's own display";
            unsupported 742 cuGraphicsResourceGetMappedMipmappedArray "graphics interoperability needs the application's own display";
            unsupported 743 cuGraphicsResourceGetMappedPointer "graphics interoperability needs the application's own display";
            unsupported 744 cuGraphicsResourceGetMappedPointer_v2 "graphics interoperability needs the application's own display";
            unsupported 745 cuGraphicsResourceSetMapFlags "graphics interoperability needs the application's own display";
            unsupported 746 cuGraphicsResourceSetMapFlags_v2 "graphics interoperability needs the application's own display";
            unsupported 747 cuGraphicsMapResources / cuGraphicsMapResources_ptsz "graphics interoperability needs the application's own display";
            unsupported 748 cuGraphicsUnmapResources / cuGraphicsUnmapResources_ptsz "graphics interoperability needs the application's own display";
            unsupported 749 cuEGLApiInit "EGL streams need the application's own display";
            unsupported 750 cuEGLStreamConsumerAcquireFrame "EGL streams need the application's own display";
            unsupported 751 cuEGLStreamConsumerConnect "EGL streams need the application's own display";
            unsupported 752 cuEGLStreamConsumerConnectWithFlags "EGL streams need the application's own display";
            unsupported 753 cuEGLStreamConsumerDisconnect "EGL streams need the application's own display";
            unsupported 754 cuEGLStreamConsumerReleaseFrame "EGL streams need the application's own display";
            unsupported 755 cuEGLStreamProducerConnect "EGL streams need the application's own display";
            unsupported 756 cuEGLStreamProducerDisconnect "EGL streams need the application's own display";
            unsupported 757 cuEGLStreamProducerPresentFrame "EGL streams need the application's own display";
            unsupported 758 cuEGLStreamProducerReturnFrame "EGL streams need the application's own display";
            unsupported 759 cuGLCtxCreate "OpenGL interoperability needs the application's own display";
            unsupported 760 cuGLCtxCreate_v2 "OpenGL interoperability needs the application's own display";
            unsupported 761 cuGLGetDevices "OpenGL interoperability needs the application's own display";
            unsupported 762 cuGLGetDevices_v2 "OpenGL interoperability needs the application's own display";
            unsupported 763 cuGLInit "OpenGL interoperability needs the application's own display";
            unsupported 764 cuGLMapBufferObject "OpenGL interoperability needs the application's own display";
            unsupported 765 cuGLMapBufferObject_v2 / cuGLMapBufferObject_v2_ptds "OpenGL interoperability needs the application's own display";
            unsupported 766 cuGLMapBufferObjectAsync "OpenGL interoperability needs the application's own display";
            unsupported 767 cuGLMapBufferObjectAsync_v2 / cuGLMapBufferObjectAsync_v2_ptsz "OpenGL interoperability needs the application's own display";
            unsupported 768 cuGLRegisterBufferObject "OpenGL interoperability needs the application's own display";
            unsupported 769 cuGLSetBufferObjectMapFlags "OpenGL interoperability needs the application's own display";
            unsupported 770 cuGLUnmapBufferObject "OpenGL interoperability needs the application's own display";
            unsupported 771 cuGLUnmapBufferObjectAsync "OpenGL interoperability needs the application's own display";
            unsupported 772 cuGLUnregisterBufferObject "OpenGL interoperability needs the application's own display";
            unsupported 773 cuGraphicsEGLRegisterImage "EGL streams need the application's own display";
            unsupported 774 cuGraphicsGLRegisterBuffer "OpenGL interoperability needs the application's own display";
            unsupported 775 cuGraphicsGLRegisterImage "OpenGL interoperability needs the application's own display";
            unsupported 776 cuGraphicsResourceGetMappedEglFrame "EGL streams need the application's own display";
            unsupported 777 cuGraphicsVDPAURegisterOutputSurface "VDPAU interoperability needs the application's own display";
            unsupported 778 cuGraphicsVDPAURegisterVideoSurface "VDPAU interoperability needs the application's own display";
            unsupported 779 cuVDPAUCtxCreate "VDPAU interoperability needs the application's own display";
            unsupported 780 cuVDPAUCtxCreate_v2 "VDPAU interoperability needs the application's own display";
            unsupported 781 cuVDPAUGetDevice "VDPAU interoperability needs the application's own display";
            // ---- Other ---------------------------------------------------------------------------------
            unsupported 790 cuMemBatchDecompressAsync / cuMemBatchDecompressAsync_ptsz "needs the decompression engine of GPUs later than Hopper; a guest is told that there is none";
        }
    };
}

/// Brings every row of [`for_each_driver_fn!`] to one shape; not called by hand.
#[doc(hidden)]
#[macro_export]
macro_rules! driver_table {
    ($callback:path; $($class:ident $number:literal $name:ident $(/ $twin:ident)? $($reason:literal)? $(($($params:tt)*))? ;)*) => {
        $callback! { $({ $class $number $name ($($twin)?) ($($reason)?) ($($($params)*)?) })* }
    };
}

/// What the table says of one function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// Wire opcode.
    pub number: u16,
    /// Exported symbol.
    pub name: &'static str,
    /// Exported symbol of the per-thread-default-stream form, where there is one.
    pub twin: Option<&'static str>,
    /// Who answers.
    pub class: Class,
    /// Why an `unsupported` row is unsupported; empty otherwise.
    pub reason: &'static str,
}

/// The classes of the table; see the module's head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "described at the head of this file")]
pub enum Class {
    Local,
    Custom,
    Forward,
    Async,
    Unsupported,
}

macro_rules! class {
    (local) => {
        Class::Local
    };
    (custom) => {
        Class::Custom
    };
    (forward) => {
        Class::Forward
    };
    (async) => {
        Class::Async
    };
    (unsupported) => {
        Class::Unsupported
    };
}

macro_rules! first {
    () => {
        None
    };
    ($twin:ident) => {
        Some(stringify!($twin))
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
    ($({ $class:ident $number:literal $name:ident ($($twin:ident)?) ($($reason:literal)?) ($($params:tt)*) })*) => {
        /// Every row, in the table's order.
        pub const ROWS: &[Row] = &[$(Row {
            number: $number,
            name: stringify!($name),
            twin: first!($($twin)?),
            class: class!($class),
            reason: reason!($($reason)?),
        },)*];

        /// Wire opcodes under the functions' own names.
        #[expect(non_upper_case_globals, reason = "the names are CUDA's own")]
        #[expect(missing_docs, reason = "the row of that name")]
        pub mod op {
            $(pub const $name: u16 = $number;)*
        }

        /// The row with this number; duplicates are unreachable patterns, which the build refuses.
        #[must_use]
        pub fn name_of(number: u16) -> Option<&'static str> {
            match number {
                $($number => Some(stringify!($name)),)*
                _ => None,
            }
        }
    };
}

for_each_driver_fn!(rows);

/// The highest number in the table plus one: the length of a per-function counter array.
pub const NUMBERS: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_ascending_and_leave_room_for_control() {
        let mut last = 99;
        for row in ROWS {
            assert!(row.number > last, "{} has number {} after {last}", row.name, row.number);
            assert!(usize::from(row.number) < NUMBERS, "{}", row.name);
            last = row.number;
        }
    }

    #[test]
    fn unsupported_rows_say_why() {
        for row in ROWS {
            assert_eq!(row.class == Class::Unsupported, !row.reason.is_empty(), "{}", row.name);
        }
    }
}
