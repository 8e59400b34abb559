//! Every way to allocate device memory, taken until it is refused.

use super::driver::{Driver, Status};
use pxos_protocol::types::{
    CUDA_ARRAY_DESCRIPTOR, CUDA_ARRAY3D_DESCRIPTOR, CUDA_MEM_ALLOC_NODE_PARAMS, CUmemAllocationProp,
    CUmemLocation, CUmemPoolProps, array_format, location_type,
};
use std::ffi::c_void;

/// Most allocations of one way: whoever gets more has no limit.
const MOST: usize = 4096;
/// `CU_MEM_ALLOCATION_TYPE_PINNED`, `CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR`.
const PINNED: u32 = 1;
const DESCRIPTOR: u64 = 1;

/// How to give one allocation back: functions by name, and their arguments.
type Release = Vec<(&'static str, [u64; 8])>;

/// What is held.
#[derive(Debug, Default)]
pub(crate) struct Filled {
    held: Vec<Release>,
}

/// A pointer as an argument of a call.
fn at<T>(local: &mut T) -> u64 {
    std::ptr::from_mut(local).expose_provenance() as u64
}

fn args(given: &[u64]) -> [u64; 8] {
    std::array::from_fn(|index| given.get(index).copied().unwrap_or(0))
}

fn device() -> CUmemLocation {
    CUmemLocation { kind: location_type::DEVICE, id: 0 }
}

fn pool_props() -> CUmemPoolProps {
    CUmemPoolProps {
        alloc_type: PINNED,
        handle_types: 0,
        location: device(),
        win32_security_attributes: std::ptr::null_mut(),
        max_size: 0,
        usage: 0,
        reserved: [0; 54],
    }
}

impl Filled {
    /// Allocates pieces of `bytes` by the function `name` until that is refused; what the line says.
    pub(crate) fn fill(&mut self, driver: &Driver, name: &str, bytes: u64) -> Result<String, String> {
        for count in 0..MOST {
            let (status, release) = allocate(driver, name, bytes)?;
            if status != 0 {
                return Ok(format!("{name} {} after {count}", driver.name(status)));
            }
            self.held.push(release);
        }
        Ok(format!("{name} is never refused"))
    }

    /// Gives everything back, the last first.
    pub(crate) fn release(&mut self, driver: &Driver) -> Result<Status, String> {
        while let Some(release) = self.held.pop() {
            for (name, arguments) in release {
                match driver.call(name, arguments)? {
                    0 => {}
                    status => return Ok(status),
                }
            }
        }
        driver.call("cuCtxSynchronize", args(&[]))
    }
}

/// Takes the first status that is not success; else goes on.
macro_rules! attempt {
    ($driver:expr, $name:expr, $($argument:expr),*) => {
        match $driver.call($name, args(&[$($argument),*]))? {
            0 => {}
            status => return Ok((status, Vec::new())),
        }
    };
}

fn allocate(driver: &Driver, name: &str, bytes: u64) -> Result<(Status, Release), String> {
    let mut made = 0_u64;
    let release: Release = match name {
        "cuMemAlloc_v2" => {
            attempt!(driver, name, at(&mut made), bytes);
            vec![("cuMemFree_v2", args(&[made]))]
        }
        "cuMemAllocPitch_v2" => {
            let mut pitch = 0_u64;
            attempt!(driver, name, at(&mut made), at(&mut pitch), 4096, bytes / 4096, 4);
            vec![("cuMemFree_v2", args(&[made]))]
        }
        "cuArrayCreate_v2" | "cuArray3DCreate_v2" | "cuMipmappedArrayCreate" => {
            return array(driver, name, bytes);
        }
        "cuMemCreate" => {
            let mut props = physical(0);
            attempt!(driver, name, at(&mut made), bytes, at(&mut props));
            vec![("cuMemRelease", args(&[made]))]
        }
        "cuMemImportFromShareableHandle" => return import(driver, bytes),
        "cuMemAllocAsync" | "cuMemAllocAsync_ptsz" => {
            attempt!(driver, name, at(&mut made), bytes, 0);
            vec![("cuMemFreeAsync", args(&[made, 0])), ("cuCtxSynchronize", args(&[]))]
        }
        "cuMemAllocFromPoolAsync" | "cuMemAllocFromPoolAsync_ptsz" => {
            let (mut pool, mut props) = (0_u64, pool_props());
            attempt!(driver, "cuMemPoolCreate", at(&mut pool), at(&mut props));
            match driver.call(name, args(&[at(&mut made), bytes, pool, 0]))? {
                0 => {}
                status => {
                    driver.call("cuMemPoolDestroy", args(&[pool]))?;
                    return Ok((status, Vec::new()));
                }
            }
            vec![
                ("cuMemFreeAsync", args(&[made, 0])),
                ("cuCtxSynchronize", args(&[])),
                ("cuMemPoolDestroy", args(&[pool])),
            ]
        }
        "cuGraphAddMemAllocNode" => return graph_node(driver, bytes),
        "capture" => return capture(driver, bytes),
        _ => return Err(format!("'{name}' is no way to allocate")),
    };
    Ok((0, release))
}

fn physical(handle_types: u32) -> CUmemAllocationProp {
    CUmemAllocationProp {
        kind: PINNED,
        requested_handle_types: handle_types,
        location: device(),
        win32_handle_meta_data: std::ptr::null_mut(),
        compression_type: 0,
        gpu_direct_rdma_capable: 0,
        usage: 0,
        reserved: [0; 4],
    }
}

/// Arrays of bytes, 4096 wide.
fn array(driver: &Driver, name: &str, bytes: u64) -> Result<(Status, Release), String> {
    let mut made = 0_u64;
    let height = usize::try_from(bytes / 4096).map_err(|error| error.to_string())?;
    let format = array_format::UNSIGNED_INT8;
    let mut flat = CUDA_ARRAY_DESCRIPTOR { width: 4096, height, format, num_channels: 1 };
    let mut deep =
        CUDA_ARRAY3D_DESCRIPTOR { width: 4096, height, depth: 0, format, num_channels: 1, flags: 0 };
    match name {
        "cuArrayCreate_v2" => attempt!(driver, name, at(&mut made), at(&mut flat)),
        "cuArray3DCreate_v2" => attempt!(driver, name, at(&mut made), at(&mut deep)),
        _ => {
            attempt!(driver, name, at(&mut made), at(&mut deep), 1);
            return Ok((0, vec![("cuMipmappedArrayDestroy", args(&[made]))]));
        }
    }
    Ok((0, vec![("cuArrayDestroy", args(&[made]))]))
}

/// Physical memory, and the same once more by an import: both count.
fn import(driver: &Driver, bytes: u64) -> Result<(Status, Release), String> {
    let (mut made, mut again, mut descriptor) = (0_u64, 0_u64, 0_i32);
    let mut props = physical(1);
    attempt!(driver, "cuMemCreate", at(&mut made), bytes, at(&mut props));
    attempt!(driver, "cuMemExportToShareableHandle", at(&mut descriptor), made, DESCRIPTOR, 0);
    let number = u64::from(descriptor.cast_unsigned());
    let status =
        driver.call("cuMemImportFromShareableHandle", args(&[at(&mut again), number, DESCRIPTOR]))?;
    // SAFETY: a descriptor of ours.
    unsafe { libc::close(descriptor) };
    if status != 0 {
        driver.call("cuMemRelease", args(&[made]))?;
        return Ok((status, Vec::new()));
    }
    Ok((0, vec![("cuMemRelease", args(&[again])), ("cuMemRelease", args(&[made]))]))
}

fn graph_node(driver: &Driver, bytes: u64) -> Result<(Status, Release), String> {
    let (mut graph, mut node) = (0_u64, 0_u64);
    attempt!(driver, "cuGraphCreate", at(&mut graph));
    let mut params = CUDA_MEM_ALLOC_NODE_PARAMS {
        pool_props: pool_props(),
        access_descs: std::ptr::null(),
        access_desc_count: 0,
        bytesize: usize::try_from(bytes).map_err(|error| error.to_string())?,
        dptr: 0,
    };
    match driver.call("cuGraphAddMemAllocNode", args(&[at(&mut node), graph, 0, 0, at(&mut params)]))? {
        0 => Ok((0, vec![("cuGraphDestroy", args(&[graph]))])),
        status => {
            driver.call("cuGraphDestroy", args(&[graph]))?;
            Ok((status, Vec::new()))
        }
    }
}

/// A stream-ordered allocation that is captured, and the graph made executable; the graph itself goes.
fn capture(driver: &Driver, bytes: u64) -> Result<(Status, Release), String> {
    let (mut stream, mut made, mut graph, mut exec) = (0_u64, 0_u64, 0_u64, 0_u64);
    attempt!(driver, "cuStreamCreate", at(&mut stream), 1);
    attempt!(driver, "cuStreamBeginCapture_v2", stream, 2);
    let status = driver.call("cuMemAllocAsync", args(&[at(&mut made), bytes, stream]))?;
    attempt!(driver, "cuStreamEndCapture", stream, at(&mut graph));
    attempt!(driver, "cuStreamDestroy_v2", stream);
    if status == 0 {
        attempt!(driver, "cuGraphInstantiateWithFlags", at(&mut exec), graph, 0);
    }
    attempt!(driver, "cuGraphDestroy", graph);
    if status != 0 {
        return Ok((status, Vec::new()));
    }
    Ok((0, vec![("cuGraphExecDestroy", args(&[exec]))]))
}

/// Only to say that pointers of the driver API are as wide as its numbers.
const _: () = assert!(size_of::<*mut c_void>() == size_of::<u64>());
