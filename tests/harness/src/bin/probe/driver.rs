//! The driver API as the program found it at start: the libcuda that is preloaded, or the system's.

use std::ffi::{CStr, CString, c_char, c_int, c_uint, c_void};

/// A `CUresult`.
pub(crate) type Status = u32;

macro_rules! driver {
    ($($name:ident($($p:ident: $t:ty),*);)*) => {
        /// The functions that the probe calls.
        #[expect(non_snake_case, reason = "the C names")]
        #[derive(Debug)]
        pub(crate) struct Driver {
            library: *mut c_void,
            $(pub(crate) $name: unsafe extern "C" fn($($t),*) -> Status,)*
        }

        impl Driver {
            /// Finds them all.
            fn of(library: *mut c_void) -> Result<Self, String> {
                Ok(Self {
                    library,
                    $($name: {
                        let address = find(library, concat!(stringify!($name), "\0"))?;
                        // SAFETY: the driver API's symbol of this name has this signature.
                        unsafe { std::mem::transmute::<*mut c_void, unsafe extern "C" fn($($t),*) -> Status>(address) }
                    },)*
                })
            }
        }
    };
}

driver! {
    cuInit(flags: c_uint);
    cuDeviceGetCount(count: *mut c_int);
    cuDevicePrimaryCtxRetain(context: *mut u64, device: c_int);
    cuCtxSetCurrent(context: u64);
    cuCtxSynchronize();
    cuMemAlloc_v2(address: *mut u64, bytes: usize);
    cuMemFree_v2(address: u64);
    cuMemHostAlloc(address: *mut *mut c_void, bytes: usize, flags: c_uint);
    cuMemFreeHost(address: *mut c_void);
    cuMemGetInfo_v2(free: *mut usize, total: *mut usize);
    cuMemcpyHtoD_v2(to: u64, from: *const c_void, bytes: usize);
    cuMemcpyDtoH_v2(to: *mut c_void, from: u64, bytes: usize);
    cuMemcpyHtoDAsync_v2(to: u64, from: *const c_void, bytes: usize, stream: u64);
    cuMemcpyDtoHAsync_v2(to: *mut c_void, from: u64, bytes: usize, stream: u64);
    cuMemsetD8Async(to: u64, value: u8, bytes: usize, stream: u64);
    cuMemsetD8_v2(address: u64, value: u8, count: usize);
    cuModuleLoadData(module: *mut u64, image: *const c_void);
    cuModuleGetFunction(function: *mut u64, module: u64, name: *const c_char);
    cuFuncGetAttribute(value: *mut c_int, attribute: c_uint, function: u64);
    cuFuncSetAttribute(function: u64, attribute: c_uint, value: c_int);
    cuLaunchKernel(function: u64, gx: c_uint, gy: c_uint, gz: c_uint, bx: c_uint, by: c_uint, bz: c_uint, shared: c_uint,
        stream: u64, parameters: *mut *mut c_void, extra: *mut *mut c_void);
    cuStreamCreate(stream: *mut u64, flags: c_uint);
    cuStreamDestroy_v2(stream: u64);
    cuStreamSynchronize(stream: u64);
    cuLaunchHostFunc(stream: u64, function: extern "C" fn(*mut c_void), user_data: *mut c_void);
    cuModuleUnload(module: u64);
    cuGetErrorName(error: Status, name: *mut *const c_char);
}

// SAFETY: function pointers and the handle of a library that is never closed.
unsafe impl Send for Driver {}
// SAFETY: as above; the driver API may be called from any thread.
unsafe impl Sync for Driver {}

/// The address of a symbol whose name ends with a NUL.
pub(crate) fn find(library: *mut c_void, name: &str) -> Result<*mut c_void, String> {
    // SAFETY: an open library and a C string, whose NUL the macro wrote.
    let address = unsafe { libc::dlsym(library, name.as_ptr().cast()) };
    if address.is_null() { Err(format!("{} is not there", name.trim_end_matches('\0'))) } else { Ok(address) }
}

/// Opens a library; a preloaded one answers to its soname.
pub(crate) fn open(library: &str) -> Result<*mut c_void, String> {
    let name = CString::new(library).map_err(|error| error.to_string())?;
    // SAFETY: a C string; the libraries under test run no code that matters when they are loaded.
    let handle = unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_NOW) };
    if handle.is_null() { Err(format!("{library} cannot be opened")) } else { Ok(handle) }
}

impl Driver {
    /// Opens a libcuda; one that is preloaded answers to the name `libcuda.so.1`.
    pub(crate) fn open(library: &str) -> Result<Self, String> {
        open(library).and_then(Self::of)
    }

    /// Calls any function.
    pub(crate) fn call(&self, name: &str, arguments: [u64; 8]) -> Result<Status, String> {
        let address = find(self.library, &format!("{name}\0"))?;
        // SAFETY: every function of the driver API that is called so returns a CUresult and takes at most eight words.
        let function: unsafe extern "C" fn(u64, u64, u64, u64, u64, u64, u64, u64) -> Status =
            unsafe { std::mem::transmute(address) };
        let [a, b, c, d, e, f, g, h] = arguments;
        // SAFETY: as above; the caller's pointers lead to what the function takes, null ones are refused.
        Ok(unsafe { function(a, b, c, d, e, f, g, h) })
    }

    /// The name of a result: `CUDA_SUCCESS`.
    pub(crate) fn name(&self, status: Status) -> String {
        let mut name = std::ptr::null();
        // SAFETY: a pointer to a local; what comes back is a C string that lives as long as the library.
        unsafe {
            if (self.cuGetErrorName)(status, &raw mut name) != 0 || name.is_null() {
                return status.to_string();
            }
            CStr::from_ptr(name).to_string_lossy().into_owned()
        }
    }
}
