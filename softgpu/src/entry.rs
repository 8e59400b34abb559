//! Every exported name: that all rows of the table are there, those that are not supported yet, and the addresses
//! that `cuGetProcAddress` hands out.
//!
//! The functions of [`crate::api`] export themselves. The list below has the other names of the table; a row without
//! an entry, or with two, fails the build.

use crate::api;
#[cfg_attr(
    not(test),
    expect(clippy::wildcard_imports, reason = "the entry points, wherever they are defined")
)]
use crate::api::{
    array::*, batch::*, capture::*, conditional::*, context::*, copy::*, device::*, error::*, event::*,
    execution::*, graph::*, graph_node::*, graph_object::*, initialise::*, ipc::*, legacy::*, library::*,
    link::*, managed::*, memory::*, memset::*, module::*, occupancy::*, pointer::*, pool::*, stream::*,
    stream_value::*, texture::*, virtual_memory::*,
};
use pxos_protocol::for_each_driver_fn;
use pxos_protocol::types::CUresult;
use std::ffi::c_void;
use std::sync::OnceLock;

/// Exports functions that answer `CUDA_ERROR_NOT_SUPPORTED`. Their parameters do not matter to that answer, and the
/// C calling convention lets a callee ignore them.
macro_rules! not_supported {
    ($($name:ident)*) => {
        $(
            /// Not supported; the table in `pxos_protocol::api` describes it.
            #[unsafe(no_mangle)]
            pub extern "C" fn $name() -> CUresult {
                api::guard(stringify!($name), api::Stage::Ready, || Err(CUresult::ERROR_NOT_SUPPORTED))
            }
        )*
    };
}

not_supported! {
    cuDeviceGetHostAtomicCapabilities cuDeviceGetNvSciSyncAttributes cuDeviceRegisterAsyncNotification
    cuDeviceUnregisterAsyncNotification cuDeviceGetP2PAtomicCapabilities cuCtxCreate cuCtxGetExecAffinity
    cuModuleGetGlobal cuModuleGetTexRef cuModuleGetSurfRef cuLibraryGetUnifiedFunction
    cuLaunchCooperativeKernelMultiDevice cuParamSetTexRef cuMemGetInfo cuMemAlloc cuMemAllocPitch cuMemFree
    cuMemGetAddressRange cuMemHostGetDevicePointer cuMemGetHandleForAddressRange cuMemGetAttribute
    cuMemGetAttribute_v2 cuMemcpyHtoD cuMemcpyDtoH cuMemcpyDtoD cuMemcpyDtoA cuMemcpyAtoD cuMemcpyHtoA cuMemcpyAtoH
    cuMemcpyAtoA cuMemcpyHtoAAsync cuMemcpyAtoHAsync cuMemcpy2D cuMemcpy2DUnaligned cuMemcpy3D cuMemcpyHtoDAsync
    cuMemcpyDtoHAsync cuMemcpyDtoDAsync cuMemcpy2DAsync cuMemcpy3DAsync cuMemsetD8 cuMemsetD16 cuMemsetD32
    cuMemsetD2D8 cuMemsetD2D16 cuMemsetD2D32 cuArrayCreate cuArrayGetDescriptor cuArray3DCreate cuArray3DGetDescriptor
    cuMemMapArrayAsync cuMemMapArrayAsync_ptsz cuStreamWriteValue32 cuStreamWriteValue32_ptsz cuStreamWaitValue32
    cuStreamWaitValue32_ptsz cuStreamWriteValue64 cuStreamWriteValue64_ptsz cuStreamWaitValue64
    cuStreamWaitValue64_ptsz cuStreamBatchMemOp cuStreamBatchMemOp_ptsz cuGraphAddExternalSemaphoresSignalNode
    cuGraphExternalSemaphoresSignalNodeGetParams cuGraphExternalSemaphoresSignalNodeSetParams
    cuGraphAddExternalSemaphoresWaitNode cuGraphExternalSemaphoresWaitNodeGetParams
    cuGraphExternalSemaphoresWaitNodeSetParams cuGraphAddBatchMemOpNode cuGraphBatchMemOpNodeGetParams
    cuGraphBatchMemOpNodeSetParams cuGraphExecBatchMemOpNodeSetParams cuGraphExecExternalSemaphoresSignalNodeSetParams
    cuGraphExecExternalSemaphoresWaitNodeSetParams cuTexRefSetArray
    cuTexRefSetMipmappedArray cuTexRefSetAddress cuTexRefSetAddress_v2 cuTexRefSetAddress2D cuTexRefSetAddress2D_v2
    cuTexRefSetAddress2D_v3 cuTexRefSetFormat cuTexRefSetAddressMode cuTexRefSetFilterMode cuTexRefSetMipmapFilterMode
    cuTexRefSetMipmapLevelBias cuTexRefSetMipmapLevelClamp cuTexRefSetMaxAnisotropy cuTexRefSetBorderColor
    cuTexRefSetFlags cuTexRefGetAddress cuTexRefGetAddress_v2 cuTexRefGetArray cuTexRefGetMipmappedArray
    cuTexRefGetAddressMode cuTexRefGetFilterMode cuTexRefGetFormat cuTexRefGetMipmapFilterMode
    cuTexRefGetMipmapLevelBias cuTexRefGetMipmapLevelClamp cuTexRefGetMaxAnisotropy cuTexRefGetBorderColor
    cuTexRefGetFlags cuTexRefCreate cuTexRefDestroy cuSurfRefSetArray cuSurfRefGetArray cuTensorMapEncodeTiled
    cuTensorMapEncodeIm2col cuTensorMapEncodeIm2colWide cuTensorMapReplaceAddress cuGreenCtxCreate cuGreenCtxDestroy
    cuCtxFromGreenCtx cuDeviceGetDevResource cuCtxGetDevResource cuGreenCtxGetDevResource cuDevSmResourceSplitByCount
    cuDevResourceGenerateDesc cuGreenCtxRecordEvent cuGreenCtxWaitEvent cuStreamGetGreenCtx cuGreenCtxStreamCreate
    cuGreenCtxGetId cuMulticastCreate cuMulticastAddDevice cuMulticastBindMem cuMulticastBindAddr cuMulticastUnbind
    cuMulticastGetGranularity cuImportExternalMemory cuExternalMemoryGetMappedBuffer
    cuExternalMemoryGetMappedMipmappedArray cuDestroyExternalMemory cuImportExternalSemaphore
    cuDestroyExternalSemaphore cuSignalExternalSemaphoresAsync cuSignalExternalSemaphoresAsync_ptsz
    cuWaitExternalSemaphoresAsync cuWaitExternalSemaphoresAsync_ptsz cuCoredumpGetAttribute
    cuCoredumpGetAttributeGlobal cuCoredumpSetAttribute cuCoredumpSetAttributeGlobal cuLogsRegisterCallback
    cuLogsUnregisterCallback cuLogsCurrent cuLogsDumpToFile cuLogsDumpToMemory cuCheckpointProcessGetRestoreThreadId
    cuCheckpointProcessGetState cuCheckpointProcessLock cuCheckpointProcessCheckpoint cuCheckpointProcessRestore
    cuCheckpointProcessUnlock cuGraphicsUnregisterResource cuGraphicsSubResourceGetMappedArray
    cuGraphicsResourceGetMappedMipmappedArray cuGraphicsResourceGetMappedPointer cuGraphicsResourceGetMappedPointer_v2
    cuGraphicsResourceSetMapFlags cuGraphicsResourceSetMapFlags_v2 cuGraphicsMapResources cuGraphicsMapResources_ptsz
    cuGraphicsUnmapResources cuGraphicsUnmapResources_ptsz cuEGLApiInit cuEGLStreamConsumerAcquireFrame
    cuEGLStreamConsumerConnect cuEGLStreamConsumerConnectWithFlags cuEGLStreamConsumerDisconnect
    cuEGLStreamConsumerReleaseFrame cuEGLStreamProducerConnect cuEGLStreamProducerDisconnect
    cuEGLStreamProducerPresentFrame cuEGLStreamProducerReturnFrame cuGLCtxCreate cuGLCtxCreate_v2 cuGLGetDevices
    cuGLGetDevices_v2 cuGLInit cuGLMapBufferObject cuGLMapBufferObject_v2 cuGLMapBufferObject_v2_ptds
    cuGLMapBufferObjectAsync cuGLMapBufferObjectAsync_v2 cuGLMapBufferObjectAsync_v2_ptsz cuGLRegisterBufferObject
    cuGLSetBufferObjectMapFlags cuGLUnmapBufferObject cuGLUnmapBufferObjectAsync cuGLUnregisterBufferObject
    cuGraphicsEGLRegisterImage cuGraphicsGLRegisterBuffer cuGraphicsGLRegisterImage
    cuGraphicsResourceGetMappedEglFrame cuGraphicsVDPAURegisterOutputSurface cuGraphicsVDPAURegisterVideoSurface
    cuVDPAUCtxCreate cuVDPAUCtxCreate_v2 cuVDPAUGetDevice cuMemBatchDecompressAsync cuMemBatchDecompressAsync_ptsz
}

/// The signatures of every chapter.
#[cfg(test)]
#[expect(unused_qualifications, reason = "each chapter has a function of that name")]
fn chapters() -> Vec<Vec<(&'static str, Vec<api::Class>)>> {
    vec![
        api::array::signatures(),
        api::batch::signatures(),
        api::capture::signatures(),
        api::conditional::signatures(),
        api::context::signatures(),
        api::copy::signatures(),
        api::device::signatures(),
        api::error::signatures(),
        api::event::signatures(),
        api::execution::signatures(),
        api::graph::signatures(),
        api::graph_node::signatures(),
        api::graph_object::signatures(),
        api::initialise::signatures(),
        api::ipc::signatures(),
        api::legacy::signatures(),
        api::library::signatures(),
        api::link::signatures(),
        api::managed::signatures(),
        api::memory::signatures(),
        api::memset::signatures(),
        api::module::signatures(),
        api::occupancy::signatures(),
        api::pointer::signatures(),
        api::pool::signatures(),
        api::stream::signatures(),
        api::stream_value::signatures(),
        api::texture::signatures(),
        api::virtual_memory::signatures(),
    ]
}

/// An exported function and where it is.
struct Entry {
    name: &'static str,
    address: *const c_void,
}

// SAFETY: addresses of functions, which are never written through.
unsafe impl Sync for Entry {}
// SAFETY: as above.
unsafe impl Send for Entry {}

macro_rules! entries {
    ($({ $class:ident $number:literal $name:ident ($($twin:ident)?) ($($reason:literal)?) ($($params:tt)*) })*) => {
        /// Every exported function, in the table's order.
        fn all() -> Vec<Entry> {
            vec![$(
                Entry { name: stringify!($name), address: $name as *const c_void },
                $(Entry { name: stringify!($twin), address: $twin as *const c_void },)?
            )*]
        }

        /// The rows whose signature the table gives in C types, with how their arguments are passed.
        #[cfg(test)]
        fn rows() -> Vec<(&'static str, Vec<api::Class>)> {
            use pxos_protocol::types::*;
            use std::ffi::*;
            [$(row!($class $name ($($params)*))),*].into_iter().flatten().collect()
        }
    };
}

#[cfg(test)]
macro_rules! row {
    (local $name:ident ($($arg:ident: $ty:ty),*)) => {
        Some((stringify!($name), vec![$(api::Class::of::<$ty>()),*]))
    };
    (custom $name:ident ($($arg:ident: $ty:ty),*)) => {
        Some((stringify!($name), vec![$(api::Class::of::<$ty>()),*]))
    };
    ($class:ident $name:ident $params:tt) => {
        None
    };
}

for_each_driver_fn!(entries);

/// Where an exported function is.
pub(crate) fn address(name: &str) -> Option<*const c_void> {
    static SORTED: OnceLock<Vec<Entry>> = OnceLock::new();
    let sorted = SORTED.get_or_init(|| {
        let mut all = all();
        all.sort_unstable_by_key(|entry| entry.name);
        all
    });
    let index = sorted.binary_search_by_key(&name, |entry| entry.name).ok()?;
    Some(sorted[index].address)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    #[test]
    fn every_symbol_of_the_real_library_has_an_address() {
        for name in pxos_cudart::procaddress::EXPORTS {
            assert!(address(name).is_some(), "{name}");
        }
        assert!(address("cuNoSuchFunction").is_none());
    }

    /// A row of a function that is not supported here has nothing to be compared with.
    #[test]
    fn signatures_are_those_of_the_table() {
        let known: HashMap<_, _> = chapters().into_iter().flatten().collect();
        let mut compared = 0;
        for (name, row) in rows() {
            if let Some(signature) = known.get(name) {
                assert_eq!(*signature, row, "{name}");
                compared += 1;
            }
        }
        assert!(compared > 200, "{compared}");
    }

    #[test]
    fn addresses_are_those_of_the_functions() {
        assert_eq!(address("cuMemAlloc_v2"), Some(cuMemAlloc_v2 as *const c_void));
        assert_ne!(address("cuMemcpyHtoD_v2"), address("cuMemcpyHtoD_v2_ptds"));
    }
}
