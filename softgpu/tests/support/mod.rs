//! What the API's tests share: calls that must succeed, a context, and bodies that need a process of their own.
#![allow(
    dead_code,
    unreachable_pub,
    unused_imports,
    unused_macros,
    clippy::allow_attributes,
    reason = "no test file uses all of it, and each has its own copy"
)]

pub use pxos_protocol::types::*;
use pxsoft::api::{context, device, initialise, module};
use std::ffi::{CString, c_void};

/// What a call answers.
macro_rules! cu {
    ($call:expr) => {
        // SAFETY: tests pass pointers to their own values.
        unsafe { $call }
    };
}

/// A call that must succeed.
macro_rules! ok {
    ($call:expr) => {
        assert_eq!(cu!($call), CUresult::SUCCESS, "{}", stringify!($call))
    };
}

pub(crate) use {cu, ok};

/// Kernels that most tests launch.
pub const PTX: &str = r"
.version 7.0
.target sm_70
.address_size 64
.visible .global .align 4 .b8 numbers[16] = {1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16};
.visible .global .align 8 .u64 pointer = numbers;
.const .align 4 .u32 constant = 7;
.visible .entry empty() { ret; }
.visible .entry parameters(.param .u64 a, .param .u32 b, .param .align 8 .b8 s[24], .param .u8 d)
{
    .reg .b64 %r<4>; .reg .b32 %i<4>;
    ld.param.u64 %r1, [a];
    ld.param.u32 %i1, [b];
    cvta.to.global.u64 %r2, %r1;
    st.global.u32 [%r2], %i1;
    ret;
}
.visible .entry bounded() .maxntid 128, 1, 1 { ret; }
.visible .entry required() .reqntid 64, 1, 1 { ret; }
.visible .entry shared()
{
    .shared .align 4 .b8 s[4096];
    .reg .b32 %i<4>;
    mov.u32 %i1, s;
    st.shared.u32 [%i1], 1;
    ret;
}
.visible .entry traps() { trap; }
.visible .entry store(.param .u64 a)
{
    .reg .b64 %r<4>; .reg .b32 %i<4>;
    ld.param.u64 %r1, [a];
    cvta.to.global.u64 %r2, %r1;
    mov.u32 %i1, 5;
    st.global.u32 [%r2], %i1;
    ret;
}
.visible .entry add(.param .u64 data, .param .u32 count, .param .u32 value)
{
    .reg .b64 %r<6>; .reg .b32 %i<10>; .reg .pred %p<2>;
    ld.param.u64 %r1, [data];
    ld.param.u32 %i1, [count];
    ld.param.u32 %i2, [value];
    mov.u32 %i3, %ctaid.x;
    mov.u32 %i4, %ntid.x;
    mov.u32 %i5, %tid.x;
    mad.lo.u32 %i6, %i3, %i4, %i5;
    setp.ge.u32 %p1, %i6, %i1;
    @%p1 ret;
    cvta.to.global.u64 %r2, %r1;
    mul.wide.u32 %r3, %i6, 4;
    add.u64 %r4, %r2, %r3;
    ld.global.u32 %i7, [%r4];
    add.u32 %i8, %i7, %i2;
    st.global.u32 [%r4], %i8;
    ret;
}
";

/// The first device, after `cuInit`.
pub fn device() -> CUdevice {
    let mut found = -1;
    ok!(initialise::cuInit(0));
    ok!(device::cuDeviceGet(&raw mut found, 0));
    found
}

/// The primary context, retained and current.
pub fn primary() -> (CUdevice, CUcontext) {
    let (device, mut context) = (device(), CUcontext::NULL);
    ok!(device::cuDevicePrimaryCtxRetain(&raw mut context, device));
    ok!(context::cuCtxSetCurrent(context));
    (device, context)
}

/// [`PTX`] as a module of the current context.
pub fn module() -> CUmodule {
    let (mut module, text) = (CUmodule::NULL, CString::new(PTX).unwrap());
    ok!(module::cuModuleLoadData(&raw mut module, text.as_ptr().cast()));
    module
}

/// A kernel of a module.
pub fn function(module: CUmodule, name: &str) -> CUfunction {
    let (mut function, name) = (CUfunction::NULL, CString::new(name).unwrap());
    ok!(module::cuModuleGetFunction(&raw mut function, module, name.as_ptr()));
    function
}

/// Launches over one dimension.
pub fn launch(
    function: CUfunction,
    grid: u32,
    block: u32,
    stream: CUstream,
    parameters: &mut [*mut c_void],
) -> CUresult {
    let given = if parameters.is_empty() { std::ptr::null_mut() } else { parameters.as_mut_ptr() };
    cu!(pxsoft::api::execution::cuLaunchKernel(
        function,
        grid,
        1,
        1,
        block,
        1,
        1,
        0,
        stream,
        given,
        std::ptr::null_mut()
    ))
}

/// Runs a body in a process of its own, because what it does to the device cannot be undone: the test starts itself
/// again with the body's name in the environment.
pub fn isolated(test: &str, body: impl FnOnce()) {
    const NAME: &str = "PXSOFT_TEST_ISOLATED";
    if std::env::var(NAME).is_ok_and(|name| name == test) {
        return body();
    }
    let this = std::env::current_exe().unwrap();
    let output = std::process::Command::new(this)
        .args([test, "--exact", "--nocapture", "--test-threads=1"])
        .env(NAME, test)
        .output()
        .unwrap();
    let text =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
}
