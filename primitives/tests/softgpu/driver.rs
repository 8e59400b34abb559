//! Programs made at random through a driver's own API: libpxsoft.so, or with `PXOS_TEST_DRIVER=auto` the libcuda of this
//! machine's GPU. What the device gives is what the CPU executor gives, bit for bit.
#![expect(clippy::tests_outside_test_module, reason = "all of it is tests")]
#![expect(non_snake_case, reason = "CUDA's own names")]
#![expect(clippy::too_many_arguments, reason = "CUDA's own signatures")]

use crate::common::{Value, compiled, generate, same};
use crate::cuda::softgpu;
use crate::differential::on_cpu;
use pxos_primitives::{Arg, FAULT_RECORD_BYTES, Fault, Kernel, Options, Request};
use std::ffi::{CString, c_char, c_int, c_uint, c_void};
use std::ptr::{null_mut, without_provenance_mut};

/// A libcuda.
struct Device {
    library: libloading::Library,
}

macro_rules! functions {
    ($($name:ident($($p:ident: $t:ty),*);)*) => {
        impl Device {
            $(
                fn $name(&self, $($p: $t),*) {
                    type Function = unsafe extern "C" fn($($t),*) -> c_int;
                    // SAFETY: a function of cuda.h by its own signature.
                    let function = unsafe { self.library.get::<Function>(stringify!($name)) }.unwrap();
                    // SAFETY: pointers to locals of the callers, handles and addresses that the library gave.
                    let result = unsafe { function($($p),*) };
                    assert_eq!(result, 0, stringify!($name));
                }
            )*
        }
    };
}

functions! {
    cuInit(flags: c_uint);
    cuDevicePrimaryCtxRetain(context: *mut u64, device: c_int);
    cuCtxSetCurrent(context: u64);
    cuCtxSynchronize();
    cuMemAlloc_v2(address: *mut u64, bytes: usize);
    cuMemFree_v2(address: u64);
    cuMemcpyHtoD_v2(to: u64, from: *const c_void, bytes: usize);
    cuMemcpyDtoH_v2(to: *mut c_void, from: u64, bytes: usize);
    cuModuleLoadData(module: *mut u64, image: *const c_char);
    cuModuleUnload(module: u64);
    cuModuleGetFunction(function: *mut u64, module: u64, name: *const c_char);
    cuLaunchKernel(function: u64, x: c_uint, y: c_uint, z: c_uint, u: c_uint, v: c_uint, w: c_uint, shared: c_uint,
        stream: u64, params: *mut *mut c_void, extra: *mut *mut c_void);
}

impl Device {
    fn open(library: libloading::Library) -> Self {
        let device = Self { library };
        let mut context = 0;
        device.cuInit(0);
        device.cuDevicePrimaryCtxRetain(&raw mut context, 0);
        device.cuCtxSetCurrent(context);
        device
    }

    fn put(&self, bytes: &[u8]) -> u64 {
        let mut address = 0;
        self.cuMemAlloc_v2(&raw mut address, bytes.len().max(1));
        if !bytes.is_empty() {
            self.cuMemcpyHtoD_v2(address, bytes.as_ptr().cast(), bytes.len());
        }
        address
    }

    /// Runs a kernel as the worker does; the values are changed in place.
    fn run(&self, kernel: &Kernel, values: &mut [Value], elements: u64) -> Result<(), Fault> {
        let args: Vec<Arg> = values
            .iter()
            .map(|value| match value {
                Value::Array(element, bytes) => {
                    Arg::Array { address: self.put(bytes), length: (bytes.len() / element.bytes()) as u64 }
                }
                Value::Scalar(bits) => Arg::Scalar(*bits),
            })
            .collect();
        let record = self.put(&[0; FAULT_RECORD_BYTES]);
        let request = Request { elements: Some(elements), fault_record: record, ..Request::default() };
        let plan = kernel.plan(&args, &request).unwrap();
        let text = CString::new(plan.module.ptx.as_str()).unwrap();
        let mut module = 0;
        self.cuModuleLoadData(&raw mut module, text.as_ptr());
        for step in &plan.steps {
            let name = CString::new(step.entry.as_str()).unwrap();
            let mut function = 0;
            self.cuModuleGetFunction(&raw mut function, module, name.as_ptr());
            let mut size = step.params.len();
            let mut extra: [*mut c_void; 5] = [
                without_provenance_mut(1),
                step.params.as_ptr().cast_mut().cast(),
                without_provenance_mut(2),
                (&raw mut size).cast(),
                null_mut(),
            ];
            let ([x, y, z], [u, v, w]) = (step.grid, step.block);
            self.cuLaunchKernel(function, x, y, z, u, v, w, 0, 0, null_mut(), extra.as_mut_ptr());
        }
        self.cuCtxSynchronize();
        let mut told = [0; FAULT_RECORD_BYTES];
        self.cuMemcpyDtoH_v2(told.as_mut_ptr().cast(), record, told.len());
        for (value, arg) in values.iter_mut().zip(&args) {
            if let (Value::Array(_, bytes), Arg::Array { address, .. }) = (value, arg) {
                if !bytes.is_empty() {
                    self.cuMemcpyDtoH_v2(bytes.as_mut_ptr().cast(), *address, bytes.len());
                }
                self.cuMemFree_v2(*address);
            }
        }
        self.cuMemFree_v2(record);
        self.cuModuleUnload(module);
        kernel.fault(&told).map_or(Ok(()), Err)
    }
}

#[test]
fn random_programs_agree_on_a_device() {
    let on_gpu = std::env::var("PXOS_TEST_DRIVER").as_deref() == Ok("auto");
    let path = if on_gpu { Some("libcuda.so.1".into()) } else { softgpu() };
    // SAFETY: a libcuda's initialisers have no preconditions.
    let Some(Ok(library)) = path.map(|path| unsafe { libloading::Library::new(path) }) else {
        // No libpxsoft.so beside this test, or a machine without a GPU.
        return;
    };
    let device = Device::open(library);
    for seed in 0..if on_gpu { 300 } else { 60 } {
        let case = generate::program(seed * 31 + 7);
        let program = compiled(&case.text, &Options::default());
        let kernel = &program.kernels()[0];
        let (mut here, mut there) = (case.values.clone(), case.values.clone());
        let cpu = on_cpu(kernel, &mut here, Some(case.elements));
        let gpu = device.run(kernel, &mut there, case.elements);
        match (&cpu, &gpu) {
            (Ok(()), Ok(())) => {}
            (Err(a), Err(b)) if a.kind == b.kind => continue,
            _ => panic!("seed {seed}: {cpu:?} here, {gpu:?} there\n{}", case.text),
        }
        for (index, (a, b)) in here.iter().zip(&there).enumerate() {
            if let (Value::Array(element, a), Value::Array(_, b)) = (a, b) {
                same(*element, a, b)
                    .unwrap_or_else(|why| panic!("seed {seed}, argument {index}: {why}\n{}", case.text));
            }
        }
    }
}
