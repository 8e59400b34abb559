//! The only code that calls a real libcuda (or softgpu, which is one): symbols, looked up once, and a method each.
//!
//! Every method answers `Err` with the `CUresult` that is not success; a symbol that this driver lacks answers
//! `CUDA_ERROR_NOT_SUPPORTED`.
#![expect(non_snake_case, reason = "methods and parameters carry CUDA's own names")]
#![expect(clippy::too_many_arguments, reason = "CUDA's own signatures")]
#![cfg_attr(not(test), expect(clippy::wildcard_imports, reason = "the functions name most of CUDA's types"))]

use libloading::Library;
use pxos_protocol::api::{Class, NUMBERS, ROWS};
use pxos_protocol::types::*;
use std::ffi::{c_char, c_int, c_uint, c_void};
use std::path::Path;

/// A function that the shim has and no driver.
const SHIM: &str = "px_submit_primitive";

/// What a driver call answers.
pub(crate) type Result<T = (), E = CUresult> = std::result::Result<T, E>;

/// Why there is no driver.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DriverError {
    /// The library cannot be loaded.
    #[error("{path} cannot be loaded: {}", why(error))]
    Load {
        /// What was asked for.
        path: String,
        /// What the loader says.
        error: libloading::Error,
    },
    /// The library is the shim, whose driver is this server: it would serve itself.
    #[error(
        "{path} is pxOS's own shim, for guests; name the real libcuda in driver, or take the shim out of the library path"
    )]
    Shim {
        /// What was asked for.
        path: String,
    },
    /// A function without which nothing works is missing.
    #[error("{path} lacks {symbol}; is it a libcuda?")]
    Symbol {
        /// What was asked for.
        path: String,
        /// The function.
        symbol: &'static str,
    },
    /// The driver refuses to start.
    #[error("{call} answers {result}")]
    Call {
        /// The function.
        call: &'static str,
        /// Its answer.
        result: CUresult,
    },
}

/// The loader's own words, which `libloading` keeps in the source of its error.
fn why(error: &libloading::Error) -> String {
    std::error::Error::source(error).map_or_else(|| error.to_string(), ToString::to_string)
}

/// A host function as the driver calls it.
pub(crate) type HostFn = unsafe extern "C" fn(user_data: *mut c_void);
/// A stream callback as the driver calls it.
pub(crate) type StreamCallback = unsafe extern "C" fn(stream: u64, status: CUresult, user_data: *mut c_void);

macro_rules! driver {
    ($($(#[$required:ident])? fn $name:ident($($p:ident: $t:ty),*);)*) => {
        /// The functions of one libcuda.
        pub(crate) struct Driver {
            $($name: Option<unsafe extern "C" fn($($t),*) -> CUresult>,)*
            generic: Box<[Option<unsafe extern "C" fn() -> CUresult>]>,
            _library: Library,
        }

        impl Driver {
            /// Loads the library at `path`, or the one of that name that the loader finds.
            pub(crate) fn open(path: &Path) -> Result<Self, DriverError> {
                let shown = path.display().to_string();
                // SAFETY: a libcuda's initialisers have no preconditions; the operator chose the library.
                let library = unsafe { Library::new(path) }
                    .map_err(|error| DriverError::Load { path: shown.clone(), error })?;
                // SAFETY: only whether it is there is asked.
                if unsafe { library.get::<unsafe extern "C" fn()>(SHIM) }.is_ok() {
                    return Err(DriverError::Shim { path: shown });
                }
                let mut generic = vec![None; NUMBERS].into_boxed_slice();
                for row in ROWS.iter().filter(|row| matches!(row.class, Class::Forward | Class::Async)) {
                    // SAFETY: a function pointer; its signature is that of the row, by which alone it is called.
                    let symbol = unsafe { library.get::<unsafe extern "C" fn() -> CUresult>(row.name) };
                    generic[usize::from(row.number)] = symbol.ok().map(|symbol| *symbol);
                }
                let driver = Self {
                    // SAFETY: function pointers of cuda.h's signatures, which a libcuda has.
                    $($name: unsafe { library.get(stringify!($name)) }.ok().map(|symbol| *symbol),)*
                    generic,
                    _library: library,
                };
                $($(
                    let _ = stringify!($required);
                    if driver.$name.is_none() {
                        return Err(DriverError::Symbol { path: shown.clone(), symbol: stringify!($name) });
                    }
                )?)*
                Ok(driver)
            }

            $(
                /// The driver function of that name.
                ///
                /// # Safety
                /// As the CUDA driver API manual says of its pointers and handles.
                pub(crate) unsafe fn $name(&self, $($p: $t),*) -> Result {
                    match self.$name {
                        // SAFETY: by this function's contract.
                        Some(function) => unsafe { function($($p),*) }.ok(),
                        None => Err(CUresult::ERROR_NOT_SUPPORTED),
                    }
                }
            )*

            /// The function of a `forward` or `async` row, to be called by the row's signature.
            pub(crate) fn generic(&self, number: u16) -> Option<unsafe extern "C" fn() -> CUresult> {
                self.generic.get(usize::from(number)).copied().flatten()
            }
        }
    };
}

driver! {
    #[required] fn cuInit(flags: c_uint);
    #[required] fn cuDriverGetVersion(version: *mut c_int);
    fn cuGetErrorString(error: CUresult, text: *mut *const c_char);
    #[required] fn cuDeviceGetCount(count: *mut c_int);
    #[required] fn cuDeviceGetName(name: *mut c_char, length: c_int, device: CUdevice);
    fn cuDeviceGetUuid(uuid: *mut CUuuid, device: CUdevice);
    fn cuDeviceGetUuid_v2(uuid: *mut CUuuid, device: CUdevice);
    fn cuDeviceGetLuid(luid: *mut [u8; 8], mask: *mut c_uint, device: CUdevice);
    #[required] fn cuDeviceTotalMem_v2(bytes: *mut usize, device: CUdevice);
    #[required] fn cuDeviceGetAttribute(value: *mut c_int, attribute: CUdevice_attribute, device: CUdevice);
    fn cuDeviceGetPCIBusId(text: *mut c_char, length: c_int, device: CUdevice);
    fn cuDeviceCanAccessPeer(can: *mut c_int, device: CUdevice, peer: CUdevice);
    fn cuDeviceGetExecAffinitySupport(can: *mut c_int, kind: CUexecAffinityType, device: CUdevice);
    #[required] fn cuDevicePrimaryCtxRetain(context: *mut u64, device: CUdevice);
    #[required] fn cuDevicePrimaryCtxRelease_v2(device: CUdevice);
    fn cuDevicePrimaryCtxReset_v2(device: CUdevice);
    fn cuCtxCreate_v2(context: *mut u64, flags: c_uint, device: CUdevice);
    fn cuCtxCreate_v4(context: *mut u64, params: *mut CUctxCreateParams, flags: c_uint, device: CUdevice);
    fn cuCtxDestroy_v2(context: u64);
    #[required] fn cuCtxSetCurrent(context: u64);
    fn cuCtxPopCurrent_v2(context: *mut u64);
    #[required] fn cuCtxSynchronize();
    fn cuCtxGetLimit(value: *mut usize, limit: CUlimit);
    fn cuCtxSetLimit(limit: CUlimit, value: usize);
    fn cuCtxGetApiVersion(context: u64, version: *mut c_uint);
    fn cuCtxGetStreamPriorityRange(least: *mut c_int, greatest: *mut c_int);
    fn cuModuleGetLoadingMode(mode: *mut CUmoduleLoadingMode);
    fn cuModuleLoadDataEx(module: *mut u64, image: *const c_void, count: c_uint, options: *mut CUjit_option, values: *mut *mut c_void);
    fn cuModuleUnload(module: u64);
    fn cuModuleGetFunction(function: *mut u64, module: u64, name: *const c_char);
    fn cuModuleGetFunctionCount(count: *mut c_uint, module: u64);
    fn cuModuleEnumerateFunctions(functions: *mut u64, count: c_uint, module: u64);
    fn cuModuleGetGlobal_v2(address: *mut CUdeviceptr, bytes: *mut usize, module: u64, name: *const c_char);
    fn cuLibraryLoadData(library: *mut u64, code: *const c_void, jit: *mut CUjit_option, values: *mut *mut c_void, count: c_uint, options: *mut CUlibraryOption, option_values: *mut *mut c_void, option_count: c_uint);
    fn cuLibraryUnload(library: u64);
    fn cuLibraryGetKernel(kernel: *mut u64, library: u64, name: *const c_char);
    fn cuLibraryGetKernelCount(count: *mut c_uint, library: u64);
    fn cuLibraryEnumerateKernels(kernels: *mut u64, count: c_uint, library: u64);
    fn cuLibraryGetModule(module: *mut u64, library: u64);
    fn cuLibraryGetGlobal(address: *mut CUdeviceptr, bytes: *mut usize, library: u64, name: *const c_char);
    fn cuLibraryGetManaged(address: *mut CUdeviceptr, bytes: *mut usize, library: u64, name: *const c_char);
    fn cuPointerGetAttribute(value: *mut c_void, attribute: CUpointer_attribute, address: CUdeviceptr);
    fn cuKernelGetAttribute(value: *mut c_int, attribute: CUfunction_attribute, kernel: u64, device: CUdevice);
    fn cuKernelSetAttribute(attribute: CUfunction_attribute, value: c_int, kernel: u64, device: CUdevice);
    fn cuKernelGetName(name: *mut *const c_char, kernel: u64);
    fn cuKernelGetParamInfo(kernel: u64, index: usize, offset: *mut usize, size: *mut usize);
    fn cuFuncGetAttribute(value: *mut c_int, attribute: CUfunction_attribute, function: u64);
    fn cuFuncSetAttribute(function: u64, attribute: CUfunction_attribute, value: c_int);
    fn cuFuncGetName(name: *mut *const c_char, function: u64);
    fn cuFuncGetParamInfo(function: u64, index: usize, offset: *mut usize, size: *mut usize);
    fn cuLaunchKernelEx(config: *const CUlaunchConfig, function: u64, params: *mut *mut c_void, extra: *mut *mut c_void);
    #[required] fn cuLaunchKernel(function: u64, grid_x: c_uint, grid_y: c_uint, grid_z: c_uint, block_x: c_uint, block_y: c_uint, block_z: c_uint, shared: c_uint, stream: u64, params: *mut *mut c_void, extra: *mut *mut c_void);
    fn cuLaunchHostFunc(stream: u64, function: HostFn, user_data: *mut c_void);
    fn cuStreamAddCallback(stream: u64, function: StreamCallback, user_data: *mut c_void, flags: c_uint);
    #[required] fn cuMemGetInfo_v2(free: *mut usize, total: *mut usize);
    #[required] fn cuMemAlloc_v2(address: *mut CUdeviceptr, bytes: usize);
    fn cuMemAllocPitch_v2(address: *mut CUdeviceptr, pitch: *mut usize, width: usize, height: usize, element: c_uint);
    #[required] fn cuMemFree_v2(address: CUdeviceptr);
    fn cuMemHostAlloc(address: *mut *mut c_void, bytes: usize, flags: c_uint);
    fn cuMemFreeHost(address: *mut c_void);
    fn cuMemHostRegister_v2(address: *mut c_void, bytes: usize, flags: c_uint);
    fn cuMemHostUnregister(address: *mut c_void);
    fn cuMemcpyAsync(to: CUdeviceptr, from: CUdeviceptr, bytes: usize, stream: u64);
    #[required] fn cuMemcpyHtoDAsync_v2(to: CUdeviceptr, from: *const c_void, bytes: usize, stream: u64);
    #[required] fn cuMemcpyDtoHAsync_v2(to: *mut c_void, from: CUdeviceptr, bytes: usize, stream: u64);
    fn cuMemcpyHtoD_v2(to: CUdeviceptr, from: *const c_void, bytes: usize);
    fn cuMemcpyDtoH_v2(to: *mut c_void, from: CUdeviceptr, bytes: usize);
    fn cuMemcpyDtoDAsync_v2(to: CUdeviceptr, from: CUdeviceptr, bytes: usize, stream: u64);
    fn cuMemcpy3DAsync_v2(copy: *const CUDA_MEMCPY3D, stream: u64);
    fn cuMemcpy3DPeerAsync(copy: *const CUDA_MEMCPY3D_PEER, stream: u64);
    fn cuArray3DCreate_v2(array: *mut u64, descriptor: *const CUDA_ARRAY3D_DESCRIPTOR);
    fn cuArray3DGetDescriptor_v2(descriptor: *mut CUDA_ARRAY3D_DESCRIPTOR, array: u64);
    fn cuArrayDestroy(array: u64);
    fn cuArrayGetPlane(plane: *mut u64, array: u64, number: c_uint);
    fn cuArrayGetMemoryRequirements(requirements: *mut CUDA_ARRAY_MEMORY_REQUIREMENTS, array: u64, device: CUdevice);
    fn cuArrayGetSparseProperties(properties: *mut CUDA_ARRAY_SPARSE_PROPERTIES, array: u64);
    fn cuMipmappedArrayCreate(array: *mut u64, descriptor: *const CUDA_ARRAY3D_DESCRIPTOR, levels: c_uint);
    fn cuMipmappedArrayGetLevel(level: *mut u64, array: u64, number: c_uint);
    fn cuMipmappedArrayDestroy(array: u64);
    fn cuMipmappedArrayGetMemoryRequirements(requirements: *mut CUDA_ARRAY_MEMORY_REQUIREMENTS, array: u64, device: CUdevice);
    fn cuMipmappedArrayGetSparseProperties(properties: *mut CUDA_ARRAY_SPARSE_PROPERTIES, array: u64);
    fn cuTexObjectCreate(object: *mut CUtexObject, resource: *const CUDA_RESOURCE_DESC, texture: *const CUDA_TEXTURE_DESC, view: *const CUDA_RESOURCE_VIEW_DESC);
    fn cuTexObjectDestroy(object: CUtexObject);
    fn cuSurfObjectCreate(object: *mut CUsurfObject, resource: *const CUDA_RESOURCE_DESC);
    fn cuSurfObjectDestroy(object: CUsurfObject);
    fn cuTensorMapEncodeTiled(map: *mut CUtensorMap, kind: c_uint, rank: c_uint, address: *mut c_void, dimensions: *const u64, strides: *const u64, sides: *const c_uint, element_strides: *const c_uint, interleave: c_uint, swizzle: c_uint, promotion: c_uint, fill: c_uint);
    fn cuTensorMapEncodeIm2col(map: *mut CUtensorMap, kind: c_uint, rank: c_uint, address: *mut c_void, dimensions: *const u64, strides: *const u64, lower: *const c_int, upper: *const c_int, channels: c_uint, pixels: c_uint, element_strides: *const c_uint, interleave: c_uint, swizzle: c_uint, promotion: c_uint, fill: c_uint);
    fn cuTensorMapEncodeIm2colWide(map: *mut CUtensorMap, kind: c_uint, rank: c_uint, address: *mut c_void, dimensions: *const u64, strides: *const u64, lower: c_int, upper: c_int, channels: c_uint, pixels: c_uint, element_strides: *const c_uint, interleave: c_uint, mode: c_uint, swizzle: c_uint, promotion: c_uint, fill: c_uint);
    fn cuTensorMapReplaceAddress(map: *mut CUtensorMap, address: *mut c_void);
    fn cuModuleGetTexRef(reference: *mut u64, module: u64, name: *const c_char);
    fn cuModuleGetSurfRef(reference: *mut u64, module: u64, name: *const c_char);
    fn cuTexRefCreate(reference: *mut u64);
    fn cuTexRefDestroy(reference: u64);
    fn cuTexRefSetArray(reference: u64, array: u64, flags: c_uint);
    fn cuTexRefSetMipmappedArray(reference: u64, array: u64, flags: c_uint);
    fn cuTexRefSetAddress_v2(offset: *mut usize, reference: u64, address: CUdeviceptr, bytes: usize);
    fn cuTexRefSetAddress2D_v3(reference: u64, descriptor: *const CUDA_ARRAY_DESCRIPTOR, address: CUdeviceptr, pitch: usize);
    fn cuTexRefSetFormat(reference: u64, format: CUarray_format, channels: c_int);
    fn cuTexRefSetAddressMode(reference: u64, dimension: c_int, mode: CUaddress_mode);
    fn cuTexRefSetFilterMode(reference: u64, mode: CUfilter_mode);
    fn cuTexRefSetMipmapFilterMode(reference: u64, mode: CUfilter_mode);
    fn cuTexRefSetMipmapLevelBias(reference: u64, bias: f32);
    fn cuTexRefSetMipmapLevelClamp(reference: u64, least: f32, most: f32);
    fn cuTexRefSetMaxAnisotropy(reference: u64, most: c_uint);
    fn cuTexRefSetBorderColor(reference: u64, colour: *mut f32);
    fn cuTexRefSetFlags(reference: u64, flags: c_uint);
    fn cuTexRefGetAddress_v2(address: *mut CUdeviceptr, reference: u64);
    fn cuTexRefGetArray(array: *mut u64, reference: u64);
    fn cuTexRefGetMipmappedArray(array: *mut u64, reference: u64);
    fn cuTexRefGetAddressMode(mode: *mut CUaddress_mode, reference: u64, dimension: c_int);
    fn cuTexRefGetFilterMode(mode: *mut CUfilter_mode, reference: u64);
    fn cuTexRefGetFormat(format: *mut CUarray_format, channels: *mut c_int, reference: u64);
    fn cuTexRefGetMipmapFilterMode(mode: *mut CUfilter_mode, reference: u64);
    fn cuTexRefGetMipmapLevelBias(bias: *mut f32, reference: u64);
    fn cuTexRefGetMipmapLevelClamp(least: *mut f32, most: *mut f32, reference: u64);
    fn cuTexRefGetMaxAnisotropy(most: *mut c_int, reference: u64);
    fn cuTexRefGetBorderColor(colour: *mut f32, reference: u64);
    fn cuTexRefGetFlags(flags: *mut c_uint, reference: u64);
    fn cuSurfRefSetArray(reference: u64, array: u64, flags: c_uint);
    fn cuSurfRefGetArray(array: *mut u64, reference: u64);
    fn cuMemsetD8Async(to: CUdeviceptr, value: u8, count: usize, stream: u64);
    fn cuMemsetD16Async(to: CUdeviceptr, value: u16, count: usize, stream: u64);
    fn cuMemsetD32Async(to: CUdeviceptr, value: c_uint, count: usize, stream: u64);
    fn cuMemsetD2D8Async(to: CUdeviceptr, pitch: usize, value: u8, width: usize, height: usize, stream: u64);
    fn cuMemsetD2D16Async(to: CUdeviceptr, pitch: usize, value: u16, width: usize, height: usize, stream: u64);
    fn cuMemsetD2D32Async(to: CUdeviceptr, pitch: usize, value: c_uint, width: usize, height: usize, stream: u64);
    fn cuPointerSetAttribute(value: *const c_void, attribute: CUpointer_attribute, pointer: CUdeviceptr);
    #[required] fn cuStreamCreateWithPriority(stream: *mut u64, flags: c_uint, priority: c_int);
    #[required] fn cuStreamDestroy_v2(stream: u64);
    fn cuStreamWaitEvent(stream: u64, event: u64, flags: c_uint);
    #[required] fn cuStreamQuery(stream: u64);
    #[required] fn cuStreamSynchronize(stream: u64);
    #[required] fn cuEventCreate(event: *mut u64, flags: c_uint);
    #[required] fn cuEventDestroy_v2(event: u64);
    #[required] fn cuEventRecord(event: u64, stream: u64);
    fn cuEventRecordWithFlags(event: u64, stream: u64, flags: c_uint);
    #[required] fn cuEventQuery(event: u64);
    #[required] fn cuEventSynchronize(event: u64);
    fn cuEventElapsedTime(milliseconds: *mut f32, start: u64, end: u64);
    fn cuDeviceGetDefaultMemPool(pool: *mut u64, device: CUdevice);
    fn cuMemPoolCreate(pool: *mut u64, props: *const CUmemPoolProps);
    fn cuMemPoolDestroy(pool: u64);
    fn cuMemPoolTrimTo(pool: u64, keep: usize);
    fn cuMemPoolSetAttribute(pool: u64, attribute: CUmemPool_attribute, value: *mut c_void);
    fn cuMemPoolGetAttribute(pool: u64, attribute: CUmemPool_attribute, value: *mut c_void);
    fn cuMemPoolSetAccess(pool: u64, list: *const CUmemAccessDesc, count: usize);
    fn cuMemPoolGetAccess(flags: *mut CUmemAccess_flags, pool: u64, location: *mut CUmemLocation);
    fn cuMemPoolExportToShareableHandle(handle: *mut c_void, pool: u64, kind: CUmemAllocationHandleType, flags: u64);
    fn cuMemPoolImportFromShareableHandle(pool: *mut u64, handle: *mut c_void, kind: CUmemAllocationHandleType, flags: u64);
    fn cuMemPoolExportPointer(data: *mut CUmemPoolPtrExportData, address: CUdeviceptr);
    fn cuMemPoolImportPointer(address: *mut CUdeviceptr, pool: u64, data: *mut CUmemPoolPtrExportData);
    fn cuMemAllocFromPoolAsync(address: *mut CUdeviceptr, bytes: usize, pool: u64, stream: u64);
    fn cuMemFreeAsync(address: CUdeviceptr, stream: u64);
    fn cuMemGetAddressRange_v2(base: *mut CUdeviceptr, size: *mut usize, address: CUdeviceptr);
    fn cuMemAddressReserve(address: *mut CUdeviceptr, size: usize, alignment: usize, wanted: CUdeviceptr, flags: u64);
    fn cuMemAddressFree(address: CUdeviceptr, size: usize);
    fn cuMemCreate(handle: *mut u64, size: usize, props: *const CUmemAllocationProp, flags: u64);
    fn cuMemRelease(handle: u64);
    fn cuMemRetainAllocationHandle(handle: *mut u64, address: *mut c_void);
    fn cuMemMap(address: CUdeviceptr, size: usize, offset: usize, handle: u64, flags: u64);
    fn cuMemUnmap(address: CUdeviceptr, size: usize);
    fn cuMemSetAccess(address: CUdeviceptr, size: usize, list: *const CUmemAccessDesc, count: usize);
    fn cuMemGetAccess(flags: *mut u64, location: *const CUmemLocation, address: CUdeviceptr);
    fn cuMemGetAllocationGranularity(granularity: *mut usize, props: *const CUmemAllocationProp, option: c_uint);
    fn cuMemExportToShareableHandle(shareable: *mut c_void, handle: u64, kind: CUmemAllocationHandleType, flags: u64);
    fn cuMemImportFromShareableHandle(handle: *mut u64, shareable: *mut c_void, kind: CUmemAllocationHandleType);
    fn cuLinkCreate_v2(count: c_uint, options: *mut CUjit_option, values: *mut *mut c_void, state: *mut u64);
    fn cuLinkAddData_v2(state: u64, kind: CUjitInputType, data: *mut c_void, size: usize, name: *const c_char, count: c_uint, options: *mut CUjit_option, values: *mut *mut c_void);
    fn cuLinkComplete(state: u64, program: *mut *mut c_void, size: *mut usize);
    fn cuLinkDestroy(state: u64);
    fn cuStreamWriteValue32(stream: u64, address: CUdeviceptr, value: u32, flags: c_uint);
    fn cuStreamWriteValue32_v2(stream: u64, address: CUdeviceptr, value: u32, flags: c_uint);
    fn cuStreamWaitValue32(stream: u64, address: CUdeviceptr, value: u32, flags: c_uint);
    fn cuStreamWaitValue32_v2(stream: u64, address: CUdeviceptr, value: u32, flags: c_uint);
    fn cuStreamWriteValue64(stream: u64, address: CUdeviceptr, value: u64, flags: c_uint);
    fn cuStreamWriteValue64_v2(stream: u64, address: CUdeviceptr, value: u64, flags: c_uint);
    fn cuStreamWaitValue64(stream: u64, address: CUdeviceptr, value: u64, flags: c_uint);
    fn cuStreamWaitValue64_v2(stream: u64, address: CUdeviceptr, value: u64, flags: c_uint);
    fn cuStreamBatchMemOp(stream: u64, count: c_uint, list: *mut CUstreamBatchMemOpParams, flags: c_uint);
    fn cuStreamBatchMemOp_v2(stream: u64, count: c_uint, list: *mut CUstreamBatchMemOpParams, flags: c_uint);
    fn cuCtxEnablePeerAccess(context: u64, flags: c_uint);
    fn cuCtxDisablePeerAccess(context: u64);
    fn cuDeviceGetHostAtomicCapabilities(capabilities: *mut c_uint, operations: *const CUatomicOperation, count: c_uint, device: CUdevice);
    fn cuDeviceGetP2PAtomicCapabilities(capabilities: *mut c_uint, operations: *const CUatomicOperation, count: c_uint, device: CUdevice, other: CUdevice);
    fn cuCtxGetExecAffinity(affinity: *mut CUexecAffinityParam, kind: CUexecAffinityType);
    fn cuCtxRecordEvent(context: u64, event: u64);
    fn cuCtxWaitEvent(context: u64, event: u64);
    fn cuDeviceGetDevResource(device: CUdevice, resource: *mut CUdevResource, kind: CUdevResourceType);
    fn cuCtxGetDevResource(context: u64, resource: *mut CUdevResource, kind: CUdevResourceType);
    fn cuGreenCtxGetDevResource(green: u64, resource: *mut CUdevResource, kind: CUdevResourceType);
    fn cuDevSmResourceSplitByCount(result: *mut CUdevResource, groups: *mut c_uint, input: *const CUdevResource, remaining: *mut CUdevResource, flags: c_uint, smallest: c_uint);
    fn cuDevResourceGenerateDesc(descriptor: *mut u64, resources: *mut CUdevResource, count: c_uint);
    fn cuGreenCtxCreate(green: *mut u64, descriptor: u64, device: CUdevice, flags: c_uint);
    fn cuGreenCtxDestroy(green: u64);
    fn cuCtxFromGreenCtx(context: *mut u64, green: u64);
    fn cuGreenCtxRecordEvent(green: u64, event: u64);
    fn cuGreenCtxWaitEvent(green: u64, event: u64);
    fn cuGreenCtxStreamCreate(stream: *mut u64, green: u64, flags: c_uint, priority: c_int);
    fn cuIpcGetMemHandle(handle: *mut CUipcMemHandle, address: CUdeviceptr);
    fn cuIpcOpenMemHandle_v2(address: *mut CUdeviceptr, handle: CUipcMemHandle, flags: c_uint);
    fn cuIpcCloseMemHandle(address: CUdeviceptr);
    fn cuIpcGetEventHandle(handle: *mut CUipcEventHandle, event: u64);
    fn cuIpcOpenEventHandle(event: *mut u64, handle: CUipcEventHandle);
    fn cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(blocks: *mut c_int, function: u64, threads: c_int, shared: usize, flags: c_uint);
    fn cuOccupancyAvailableDynamicSMemPerBlock(bytes: *mut usize, function: u64, blocks: c_int, threads: c_int);
    fn cuOccupancyMaxPotentialClusterSize(size: *mut c_int, function: u64, config: *const CUlaunchConfig);
    fn cuOccupancyMaxActiveClusters(clusters: *mut c_int, function: u64, config: *const CUlaunchConfig);
    fn cuGraphCreate(graph: *mut u64, flags: c_uint);
    fn cuGraphDestroy(graph: u64);
    fn cuGraphClone(clone: *mut u64, original: u64);
    fn cuGraphNodeFindInClone(node: *mut u64, original: u64, clone: u64);
    fn cuGraphAddNode_v2(node: *mut u64, graph: u64, dependencies: *const u64, data: *const CUgraphEdgeData, count: usize, params: *mut CUgraphNodeParams);
    fn cuGraphNodeSetParams(node: u64, params: *mut CUgraphNodeParams);
    fn cuGraphExecNodeSetParams(exec: u64, node: u64, params: *mut CUgraphNodeParams);
    fn cuGraphDestroyNode(node: u64);
    fn cuGraphNodeGetType(node: u64, kind: *mut CUgraphNodeType);
    fn cuGraphKernelNodeGetParams_v2(node: u64, params: *mut CUDA_KERNEL_NODE_PARAMS_v2);
    fn cuGraphMemcpyNodeGetParams(node: u64, params: *mut CUDA_MEMCPY3D);
    fn cuGraphMemsetNodeGetParams(node: u64, params: *mut CUDA_MEMSET_NODE_PARAMS);
    fn cuGraphHostNodeGetParams(node: u64, params: *mut CUDA_HOST_NODE_PARAMS);
    fn cuGraphChildGraphNodeGetGraph(node: u64, graph: *mut CUgraph);
    fn cuGraphEventRecordNodeGetEvent(node: u64, event: *mut CUevent);
    fn cuGraphEventWaitNodeGetEvent(node: u64, event: *mut CUevent);
    fn cuGraphMemAllocNodeGetParams(node: u64, params: *mut CUDA_MEM_ALLOC_NODE_PARAMS);
    fn cuGraphMemFreeNodeGetParams(node: u64, address: *mut CUdeviceptr);
    fn cuGraphBatchMemOpNodeGetParams(node: u64, params: *mut CUDA_BATCH_MEM_OP_NODE_PARAMS);
    fn cuGraphGetNodes(graph: u64, nodes: *mut u64, count: *mut usize);
    fn cuGraphGetRootNodes(graph: u64, nodes: *mut u64, count: *mut usize);
    fn cuGraphGetEdges_v2(graph: u64, from: *mut u64, to: *mut u64, data: *mut CUgraphEdgeData, count: *mut usize);
    fn cuGraphNodeGetDependencies_v2(node: u64, nodes: *mut u64, data: *mut CUgraphEdgeData, count: *mut usize);
    fn cuGraphNodeGetDependentNodes_v2(node: u64, nodes: *mut u64, data: *mut CUgraphEdgeData, count: *mut usize);
    fn cuGraphAddDependencies_v2(graph: u64, from: *const u64, to: *const u64, data: *const CUgraphEdgeData, count: usize);
    fn cuGraphRemoveDependencies_v2(graph: u64, from: *const u64, to: *const u64, data: *const CUgraphEdgeData, count: usize);
    fn cuGraphKernelNodeCopyAttributes(to: u64, from: u64);
    fn cuGraphKernelNodeGetAttribute(node: u64, attribute: CUkernelNodeAttrID, value: *mut CUattributeValue);
    fn cuGraphKernelNodeSetAttribute(node: u64, attribute: CUkernelNodeAttrID, value: *const CUattributeValue);
    fn cuGraphConditionalHandleCreate(handle: *mut CUgraphConditionalHandle, graph: u64, context: u64, value: c_uint, flags: c_uint);
    fn cuGraphInstantiateWithParams(exec: *mut u64, graph: u64, params: *mut CUDA_GRAPH_INSTANTIATE_PARAMS);
    fn cuGraphExecUpdate_v2(exec: u64, graph: u64, info: *mut CUgraphExecUpdateResultInfo);
    fn cuGraphExecGetFlags(exec: u64, flags: *mut u64);
    fn cuGraphNodeSetEnabled(exec: u64, node: u64, enabled: c_uint);
    fn cuGraphNodeGetEnabled(exec: u64, node: u64, enabled: *mut c_uint);
    fn cuGraphExecDestroy(exec: u64);
    fn cuGraphLaunch(exec: u64, stream: u64);
    fn cuGraphUpload(exec: u64, stream: u64);
    fn cuGraphDebugDotPrint(graph: u64, path: *const c_char, flags: c_uint);
    fn cuUserObjectCreate(object: *mut u64, data: *mut c_void, destroy: HostFn, references: c_uint, flags: c_uint);
    fn cuUserObjectRetain(object: u64, references: c_uint);
    fn cuUserObjectRelease(object: u64, references: c_uint);
    fn cuGraphRetainUserObject(graph: u64, object: u64, references: c_uint, flags: c_uint);
    fn cuGraphReleaseUserObject(graph: u64, object: u64, references: c_uint);
    fn cuDeviceGraphMemTrim(device: CUdevice);
    fn cuDeviceGetGraphMemAttribute(device: CUdevice, attribute: CUgraphMem_attribute, value: *mut c_void);
    fn cuDeviceSetGraphMemAttribute(device: CUdevice, attribute: CUgraphMem_attribute, value: *mut c_void);
    fn cuStreamBeginCapture_v2(stream: u64, mode: CUstreamCaptureMode);
    fn cuStreamBeginCaptureToGraph(stream: u64, graph: u64, dependencies: *const u64, data: *const CUgraphEdgeData, count: usize, mode: CUstreamCaptureMode);
    fn cuStreamEndCapture(stream: u64, graph: *mut u64);
    fn cuStreamGetCaptureInfo_v3(stream: u64, status: *mut CUstreamCaptureStatus, id: *mut u64, graph: *mut u64, dependencies: *mut *const u64, data: *mut *const CUgraphEdgeData, count: *mut usize);
    fn cuStreamUpdateCaptureDependencies_v2(stream: u64, dependencies: *mut u64, data: *const CUgraphEdgeData, count: usize, flags: c_uint);
    fn cuThreadExchangeStreamCaptureMode(mode: *mut CUstreamCaptureMode);
    fn cuStreamCopyAttributes(to: u64, from: u64);
    fn cuStreamGetAttribute(stream: u64, attribute: CUstreamAttrID, value: *mut CUattributeValue);
    fn cuStreamSetAttribute(stream: u64, attribute: CUstreamAttrID, value: *const CUattributeValue);
    fn cuKernelGetFunction(function: *mut u64, kernel: u64);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_libcuda_is_refused_by_name() {
        let error = Driver::open(Path::new("/nonexistent/libcuda.so.1")).err().unwrap().to_string();
        assert!(error.contains("/nonexistent/libcuda.so.1"), "{error}");
        let error = Driver::open(Path::new("libc.so.6")).err().unwrap().to_string();
        assert!(error.contains("cuInit"), "{error}");
    }
}
