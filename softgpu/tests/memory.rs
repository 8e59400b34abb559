//! Memory: allocation, copies, fills, what is known of an address, pools. Answers are those of an H200 with driver 580.
#![expect(
    clippy::tests_outside_test_module,
    clippy::unwrap_used,
    reason = "an integration test is a test as a whole"
)]

mod support;

use pxsoft::api::{array, context, copy, memory, memset, pointer, pool, virtual_memory};
use std::ffi::c_void;
use support::*;

const INVALID: CUresult = CUresult::ERROR_INVALID_VALUE;

fn allocate(bytes: usize) -> CUdeviceptr {
    let mut address = 0;
    ok!(memory::cuMemAlloc_v2(&raw mut address, bytes));
    address
}

fn address_of<T>(data: &[T]) -> CUdeviceptr {
    data.as_ptr().expose_provenance() as CUdeviceptr
}

#[test]
fn ranges_are_known_to_the_byte() {
    primary();
    let (memory, other) = (allocate(1000), allocate(1000));
    let (mut base, mut size) = (0, 0);
    assert_eq!(cu!(memory::cuMemAlloc_v2(&raw mut base, 0)), INVALID);
    assert_eq!(cu!(memory::cuMemAlloc_v2(std::ptr::null_mut(), 16)), INVALID);
    assert_eq!(cu!(memory::cuMemAlloc_v2(&raw mut base, usize::MAX)), CUresult::ERROR_OUT_OF_MEMORY);
    ok!(memory::cuMemGetAddressRange_v2(&raw mut base, &raw mut size, memory + 999));
    assert_eq!((base, size), (memory, 1000));
    let outside = cu!(memory::cuMemGetAddressRange_v2(&raw mut base, &raw mut size, memory + 1000));
    assert_eq!(outside, CUresult::ERROR_NOT_FOUND);
    let bytes = [1u8; 4096];
    let host = bytes.as_ptr().cast::<c_void>();
    for (at, count, answer) in [
        (memory, 1000, CUresult::SUCCESS),
        (memory, 1001, INVALID),
        (memory + 500, 501, INVALID),
        (memory, 0, CUresult::SUCCESS),
        (0, 0, CUresult::SUCCESS),
        (0, 4, INVALID),
        (0x10, 4, INVALID),
        (address_of(&bytes), 4, INVALID),
    ] {
        assert_eq!(cu!(copy::cuMemcpyHtoD_v2(at, host, count)), answer, "{count} bytes to {at:#x}");
    }
    assert_eq!(cu!(copy::cuMemcpyHtoD_v2(memory, std::ptr::null(), 4)), INVALID);
    ok!(copy::cuMemcpyDtoD_v2(memory, other, 1000));
    assert_eq!(cu!(copy::cuMemcpyDtoD_v2(memory, other, 1001)), INVALID);
    for (answer, call) in [
        (CUresult::SUCCESS, cu!(memset::cuMemsetD8_v2(memory, 1, 1000))),
        (INVALID, cu!(memset::cuMemsetD8_v2(memory, 1, 1001))),
        (INVALID, cu!(memset::cuMemsetD32_v2(memory + 2, 1, 4))),
        (INVALID, cu!(memset::cuMemsetD16_v2(memory + 1, 1, 4))),
        (INVALID, cu!(memset::cuMemsetD2D8_v2(memory, 10, 1, 20, 2))),
        (CUresult::SUCCESS, cu!(memset::cuMemsetD2D8_v2(memory, 32, 1, 20, 2))),
        (INVALID, cu!(memory::cuMemFree_v2(memory + 4))),
        (CUresult::SUCCESS, cu!(memory::cuMemFree_v2(memory))),
        (INVALID, cu!(memory::cuMemFree_v2(memory))),
        (INVALID, cu!(copy::cuMemcpyHtoD_v2(memory, host, 4))),
        (CUresult::SUCCESS, cu!(memory::cuMemFree_v2(other))),
    ] {
        assert_eq!(call, answer);
    }
}

#[test]
fn bytes_arrive_by_every_way() {
    primary();
    let source: Vec<u32> = (0..1000).map(|i| i * 7 + 1).collect();
    let mut target = vec![0u32; 1000];
    let (a, b) = (allocate(4000), allocate(4000));
    ok!(copy::cuMemcpyHtoD_v2(a, source.as_ptr().cast(), 4000));
    ok!(copy::cuMemcpyDtoDAsync_v2(b, a, 4000, CUstream::NULL));
    ok!(copy::cuMemcpyDtoH_v2(target.as_mut_ptr().cast(), b, 4000));
    assert_eq!(source, target);
    target.fill(0);
    ok!(copy::cuMemcpy(address_of(&target), b, 4000));
    assert_eq!(source, target);
    // A staged copy takes the bytes at the call.
    let mut changing = source.clone();
    ok!(copy::cuMemcpyHtoDAsync_v2(a, changing.as_ptr().cast(), 4000, CUstream::NULL));
    changing.fill(9);
    ok!(copy::cuMemcpyDtoHAsync_v2(target.as_mut_ptr().cast(), a, 4000, CUstream::NULL));
    assert_eq!(source, target);
    // A rectangle of 3 by 5 words out of rows of 40.
    let mut rectangle = CUDA_MEMCPY2D {
        src_x_in_bytes: 8,
        src_y: 2,
        src_memory_type: CU_MEMORYTYPE_DEVICE,
        src_host: std::ptr::null(),
        src_device: a,
        src_array: CUarray::NULL,
        src_pitch: 160,
        dst_x_in_bytes: 0,
        dst_y: 0,
        dst_memory_type: CU_MEMORYTYPE_HOST,
        dst_host: target.as_mut_ptr().cast(),
        dst_device: 0,
        dst_array: CUarray::NULL,
        dst_pitch: 12,
        width_in_bytes: 12,
        height: 5,
    };
    ok!(copy::cuMemcpy2D_v2(&raw const rectangle));
    for (row, words) in target[..15].chunks(3).enumerate() {
        assert_eq!(words, &source[(row + 2) * 40 + 2..][..3]);
    }
    rectangle.width_in_bytes = 161;
    assert_eq!(cu!(copy::cuMemcpy2D_v2(&raw const rectangle)), INVALID);
    ok!(memset::cuMemsetD2D16_v2(a, 160, 0xabcd, 3, 4));
    ok!(copy::cuMemcpyDtoH_v2(target.as_mut_ptr().cast(), a, 4000));
    assert_eq!(target[40..43], [0xabcd_abcd, source[41] & 0xffff_0000 | 0xabcd, source[42]]);
    for address in [a, b] {
        ok!(memory::cuMemFree_v2(address));
    }
}

#[test]
fn pinned_memory_has_one_address() {
    primary();
    let (mut pinned, mut device, mut flags) = (std::ptr::null_mut(), 0, 0);
    ok!(memory::cuMemHostAlloc(&raw mut pinned, 100, 0));
    let base = pinned.expose_provenance() as CUdeviceptr;
    ok!(memory::cuMemHostGetDevicePointer_v2(&raw mut device, pinned.wrapping_byte_add(5), 0));
    assert_eq!(device, base + 5);
    ok!(memory::cuMemHostGetFlags(&raw mut flags, pinned));
    assert_eq!(flags, 2);
    assert_eq!(cu!(memory::cuMemHostAlloc(&raw mut pinned, 100, 0x80)), INVALID);
    assert_eq!(cu!(memory::cuMemFree_v2(base)), INVALID);
    ok!(memset::cuMemsetD8_v2(base, 3, 50));
    // SAFETY: a hundred bytes that the host owns too; the fill has ended, because it is one of host memory.
    assert_eq!(unsafe { pinned.cast::<u8>().add(49).read() }, 3);
    assert_eq!(cu!(copy::cuMemcpyDtoD_v2(base, base, 101)), INVALID);
    assert_eq!(cu!(memory::cuMemFreeHost(pinned.wrapping_byte_add(1))), INVALID);
    ok!(memory::cuMemFreeHost(pinned));
    assert_eq!(cu!(memory::cuMemFreeHost(pinned)), INVALID);
    ok!(memory::cuMemFreeHost(std::ptr::null_mut()));
    let mut own = vec![0u8; 1 << 16];
    let at = own.as_mut_ptr().wrapping_add(100).cast::<c_void>();
    ok!(memory::cuMemHostRegister_v2(at, 8192, 0));
    let taken = cu!(memory::cuMemHostRegister_v2(at.wrapping_byte_add(4000), 100, 0));
    assert_eq!(taken, CUresult::ERROR_HOST_MEMORY_ALREADY_REGISTERED);
    assert_eq!(cu!(memory::cuMemHostUnregister(at.wrapping_byte_add(1))), INVALID);
    assert_eq!(cu!(memory::cuMemFreeHost(at)), INVALID);
    ok!(memory::cuMemHostUnregister(at));
    assert_eq!(cu!(memory::cuMemHostUnregister(at)), CUresult::ERROR_HOST_MEMORY_NOT_REGISTERED);
    assert_eq!(cu!(memory::cuMemHostRegister_v2(at, 0, 0)), INVALID);
    let nowhere = std::ptr::without_provenance_mut(0x1000);
    assert_eq!(cu!(memory::cuMemHostRegister_v2(nowhere, 4096, 0)), INVALID);
}

#[test]
fn an_address_tells_where_it_is_from() {
    let (device, context) = primary();
    let memory = allocate(1000);
    let mut pinned = std::ptr::null_mut();
    ok!(memory::cuMemHostAlloc(&raw mut pinned, 100, 0));
    let host = pinned.expose_provenance() as CUdeviceptr;
    let get = |attribute, address| {
        let mut value = 0u64;
        let answer = cu!(pointer::cuPointerGetAttribute((&raw mut value).cast(), attribute, address));
        (answer.0, value)
    };
    // Context, kind, device and host address, ordinal, range.
    for (attribute, on_device, on_host) in [
        (1, (0, context.0), (0, context.0)),
        (2, (0, 2), (0, 1)),
        (3, (0, memory + 8), (0, host + 8)),
        (4, (1, 0), (0, host + 8)),
        (8, (0, 0), (0, 0)),
        (9, (0, u64::from(device.cast_unsigned())), (0, u64::from(device.cast_unsigned()))),
        (11, (0, memory), (0, host)),
        (12, (0, 1000), (0, 100)),
        (13, (0, 1), (0, 1)),
        (17, (0, 0), (0, 0)),
    ] {
        assert_eq!(get(attribute, memory + 8), on_device, "attribute {attribute} of device memory");
        assert_eq!(get(attribute, host + 8), on_host, "attribute {attribute} of pinned memory");
        assert_eq!(get(attribute, memory + 1000).0, 1, "attribute {attribute} behind the range");
    }
    assert_ne!(get(7, memory).1, get(7, host).1);
    let mut values = [0xeeu64; 4];
    let mut places = values.each_mut().map(|value| std::ptr::from_mut(value).cast::<c_void>());
    let mut attributes = [2, 9, 3, 4];
    let stack = address_of(&[0u8]);
    ok!(pointer::cuPointerGetAttributes(4, attributes.as_mut_ptr(), places.as_mut_ptr(), stack));
    assert_eq!(values, [0, 0xffff_fffe, 0, stack]);
    ok!(memory::cuMemFree_v2(memory));
    ok!(memory::cuMemFreeHost(pinned));
}

#[test]
fn pitched_rows_are_512_bytes_apart() {
    primary();
    for (width, pitch) in [(1, 512), (513, 1024), (1198, 1536)] {
        let (mut address, mut found, mut base, mut size) = (0, 0, 0, 0);
        ok!(memory::cuMemAllocPitch_v2(&raw mut address, &raw mut found, width, 3, 4));
        ok!(memory::cuMemGetAddressRange_v2(&raw mut base, &raw mut size, address));
        assert_eq!((found, size), (pitch, 3 * pitch));
        assert!(address.is_multiple_of(256));
        ok!(memory::cuMemFree_v2(address));
    }
    let (mut address, mut pitch) = (0, 0);
    assert_eq!(cu!(memory::cuMemAllocPitch_v2(&raw mut address, &raw mut pitch, 64, 3, 5)), INVALID);
}

#[test]
fn memory_is_given_back_and_runs_out() {
    isolated("memory_is_given_back_and_runs_out", || {
        primary();
        let (mut free, mut total, mut address) = (0, 0, 0);
        ok!(memory::cuMemGetInfo_v2(&raw mut free, &raw mut total));
        assert_eq!(free, total);
        assert_eq!(cu!(memory::cuMemAlloc_v2(&raw mut address, total + 1)), CUresult::ERROR_OUT_OF_MEMORY);
        ok!(memory::cuMemAlloc_v2(&raw mut address, total - (1 << 20)));
        let mut second = 0;
        assert_eq!(cu!(memory::cuMemAlloc_v2(&raw mut second, 2 << 20)), CUresult::ERROR_OUT_OF_MEMORY);
        ok!(memory::cuMemFree_v2(address));
        ok!(memory::cuMemGetInfo_v2(&raw mut free, &raw mut total));
        assert_eq!(free, total);
    });
}

#[test]
fn pools_count_what_they_give() {
    isolated("pools_count_what_they_give", || {
        let (device, _) = primary();
        let (mut pool, mut current) = (CUmemoryPool::NULL, CUmemoryPool::NULL);
        ok!(pool::cuDeviceGetDefaultMemPool(&raw mut pool, device));
        ok!(pool::cuDeviceGetMemPool(&raw mut current, device));
        assert_eq!(pool, current);
        let count = |attribute| {
            let mut value = 0u64;
            ok!(pool::cuMemPoolGetAttribute(pool, attribute, (&raw mut value).cast()));
            value
        };
        let (mut small, mut large) = (0, 0);
        ok!(pool::cuMemAllocAsync(&raw mut small, 1000, CUstream::NULL));
        ok!(pool::cuMemAllocAsync(&raw mut large, 1 << 20, CUstream::NULL));
        assert_eq!([5, 6, 7, 8].map(count), [32 << 20, 32 << 20, (1 << 20) + 1000, (1 << 20) + 1000]);
        ok!(pool::cuMemFreeAsync(small, CUstream::NULL));
        ok!(context::cuCtxSynchronize());
        assert_eq!([5, 7, 8].map(count), [32 << 20, 1 << 20, (1 << 20) + 1000]);
        ok!(memory::cuMemFree_v2(large));
        assert_eq!(cu!(pool::cuMemFreeAsync(large, CUstream::NULL)), INVALID);
        assert_eq!([5, 7].map(count), [0, 0]);
        ok!(pool::cuMemAllocAsync(&raw mut small, 0, CUstream::NULL));
        let mut value = 123u64;
        ok!(pool::cuMemPoolSetAttribute(pool, 4, (&raw mut value).cast()));
        assert_eq!(cu!(pool::cuMemPoolSetAttribute(pool, 8, (&raw mut value).cast())), INVALID);
        assert_eq!(cu!(pool::cuMemPoolDestroy(pool)), INVALID);
        // What cuMemAlloc gave may be freed in a stream too.
        let plain = allocate(64);
        ok!(pool::cuMemFreeAsync(plain, CUstream::NULL));
        ok!(context::cuCtxSynchronize());
        assert_eq!(cu!(memory::cuMemFree_v2(plain)), INVALID);
    });
}

#[test]
fn arrays_hold_what_is_copied_in() {
    primary();
    let descriptor =
        CUDA_ARRAY_DESCRIPTOR { width: 10, height: 4, format: array_format::FLOAT, num_channels: 1 };
    let (mut made, mut told) = (CUarray::NULL, CUDA_ARRAY_DESCRIPTOR::default());
    ok!(array::cuArrayCreate_v2(&raw mut made, &raw const descriptor));
    ok!(array::cuArrayGetDescriptor_v2(&raw mut told, made));
    assert_eq!(told, descriptor);
    let source: Vec<f32> = (0..40u8).map(f32::from).collect();
    let mut target = vec![0f32; 40];
    let mut copy = CUDA_MEMCPY3D {
        src_memory_type: CU_MEMORYTYPE_HOST,
        src_host: source.as_ptr().cast(),
        src_pitch: 40,
        dst_memory_type: CU_MEMORYTYPE_ARRAY,
        dst_array: made,
        width_in_bytes: 40,
        height: 4,
        depth: 1,
        ..CUDA_MEMCPY3D::default()
    };
    ok!(copy::cuMemcpy3D_v2(&raw const copy));
    ok!(copy::cuMemcpyAtoH_v2(target.as_mut_ptr().cast(), made, 8, 32));
    assert_eq!(target[..8], source[2..10]);
    copy.height = 5;
    assert_eq!(cu!(copy::cuMemcpy3D_v2(&raw const copy)), INVALID);
    ok!(array::cuArrayDestroy(made));
    assert_eq!(cu!(array::cuArrayDestroy(made)), CUresult::ERROR_INVALID_HANDLE);
}

#[test]
fn physical_memory_is_mapped_where_wanted() {
    primary();
    let properties = CUmemAllocationProp {
        kind: CU_MEM_ALLOCATION_TYPE_PINNED,
        requested_handle_types: 0,
        location: CUmemLocation { kind: location_type::DEVICE, id: 0 },
        win32_handle_meta_data: std::ptr::null_mut(),
        compression_type: 0,
        gpu_direct_rdma_capable: 0,
        usage: 0,
        reserved: [0; 4],
    };
    let (mut granularity, mut base, mut handle) = (0, 0, 0);
    ok!(virtual_memory::cuMemGetAllocationGranularity(&raw mut granularity, &raw const properties, 0));
    ok!(virtual_memory::cuMemAddressReserve(&raw mut base, 2 * granularity, 0, 0, 0));
    ok!(virtual_memory::cuMemCreate(&raw mut handle, granularity, &raw const properties, 0));
    let odd = cu!(virtual_memory::cuMemCreate(&raw mut handle, granularity + 1, &raw const properties, 0));
    assert_eq!(odd, INVALID);
    let step = granularity as CUdeviceptr;
    // The same memory twice, side by side.
    ok!(virtual_memory::cuMemMap(base, granularity, 0, handle, 0));
    ok!(virtual_memory::cuMemMap(base + step, granularity, 0, handle, 0));
    assert_eq!(cu!(memset::cuMemsetD8_v2(base, 1, 4)), INVALID);
    let access = CUmemAccessDesc { location: properties.location, flags: 3 };
    ok!(virtual_memory::cuMemSetAccess(base, 2 * granularity, &raw const access, 1));
    ok!(memset::cuMemsetD32_v2(base, 0x1234, 1));
    let mut seen = [0u32; 2];
    ok!(copy::cuMemcpyDtoH_v2(seen.as_mut_ptr().cast(), base + step, 4));
    assert_eq!(seen[0], 0x1234);
    // A copy across the seam of both.
    ok!(copy::cuMemcpyDtoH_v2(seen.as_mut_ptr().cast(), base + step - 4, 8));
    assert_eq!(seen, [0, 0x1234]);
    assert_eq!(cu!(virtual_memory::cuMemAddressFree(base, 2 * granularity)), INVALID);
    ok!(virtual_memory::cuMemRelease(handle));
    ok!(virtual_memory::cuMemUnmap(base, 2 * granularity));
    assert_eq!(cu!(copy::cuMemcpyDtoH_v2(seen.as_mut_ptr().cast(), base, 4)), INVALID);
    ok!(virtual_memory::cuMemAddressFree(base, 2 * granularity));
}
