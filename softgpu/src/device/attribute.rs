//! What the device says of itself: the attributes of a device of compute capability 9.0 (as an H200 gives them, where
//! they follow from the capability), less what this one does not do.

use super::Device;
use pxos_protocol::types::attribute::{
    ASYNC_ENGINE_COUNT, CAN_MAP_HOST_MEMORY, CAN_TEX2D_GATHER, CAN_USE_64_BIT_STREAM_MEM_OPS,
    CAN_USE_HOST_POINTER_FOR_REGISTERED_MEM, CAN_USE_STREAM_WAIT_VALUE_NOR, CLOCK_RATE,
    COMPUTE_CAPABILITY_MAJOR, COMPUTE_CAPABILITY_MINOR, COMPUTE_PREEMPTION_SUPPORTED, CONCURRENT_KERNELS,
    COOPERATIVE_LAUNCH, GENERIC_COMPRESSION_SUPPORTED, GLOBAL_L1_CACHE_SUPPORTED, GLOBAL_MEMORY_BUS_WIDTH,
    GPU_OVERLAP, HANDLE_TYPE_POSIX_FILE_DESCRIPTOR_SUPPORTED, HOST_REGISTER_SUPPORTED, IPC_EVENT_SUPPORTED,
    L2_CACHE_SIZE, LOCAL_L1_CACHE_SUPPORTED, MANAGED_MEMORY, MAX_ACCESS_POLICY_WINDOW_SIZE, MAX_BLOCK_DIM_X,
    MAX_BLOCK_DIM_Y, MAX_BLOCK_DIM_Z, MAX_BLOCKS_PER_MULTIPROCESSOR, MAX_GRID_DIM_X, MAX_GRID_DIM_Y,
    MAX_GRID_DIM_Z, MAX_PERSISTING_L2_CACHE_SIZE, MAX_PITCH, MAX_REGISTERS_PER_BLOCK,
    MAX_REGISTERS_PER_MULTIPROCESSOR, MAX_SHARED_MEMORY_PER_BLOCK, MAX_SHARED_MEMORY_PER_BLOCK_OPTIN,
    MAX_SHARED_MEMORY_PER_MULTIPROCESSOR, MAX_THREADS_PER_BLOCK, MAX_THREADS_PER_MULTIPROCESSOR,
    MEM_SYNC_DOMAIN_COUNT, MEMORY_CLOCK_RATE, MEMORY_POOLS_SUPPORTED, MEMPOOL_SUPPORTED_HANDLE_TYPES,
    MULTIPROCESSOR_COUNT, NUMA_ID, PCI_BUS_ID, READ_ONLY_HOST_REGISTER_SUPPORTED,
    RESERVED_SHARED_MEMORY_PER_BLOCK, SINGLE_TO_DOUBLE_PRECISION_PERF_RATIO, STREAM_PRIORITIES_SUPPORTED,
    SURFACE_ALIGNMENT, TEXTURE_ALIGNMENT, TEXTURE_PITCH_ALIGNMENT, TOTAL_CONSTANT_MEMORY, UNIFIED_ADDRESSING,
    VIRTUAL_ADDRESS_MANAGEMENT_SUPPORTED, WARP_SIZE,
};
use pxos_protocol::types::{CUdevice_attribute, CUuuid, attribute::ATTRIBUTE_COUNT};

/// Most threads of a block.
pub(crate) const MAX_THREADS: u32 = 1024;
/// Shared memory of a block without asking for more.
pub(crate) const SHARED_PER_BLOCK: u32 = 48 << 10;
/// Shared memory of a block that asks for it (`CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES`).
pub(crate) const SHARED_PER_BLOCK_OPTIN: u32 = 227 << 10;
/// Shared memory of a multiprocessor.
pub(crate) const SHARED_PER_MULTIPROCESSOR: u32 = 228 << 10;
/// Shared memory that the system takes from each block.
pub(crate) const SHARED_RESERVED: u32 = 1 << 10;
/// Most blocks on a multiprocessor.
pub(crate) const BLOCKS_PER_MULTIPROCESSOR: u32 = 32;
/// Most threads on a multiprocessor.
pub(crate) const THREADS_PER_MULTIPROCESSOR: u32 = 2048;
/// Registers of a multiprocessor, and of a block.
pub(crate) const REGISTERS: u32 = 64 << 10;
/// Alignment of the rows of pitched memory, and of textures (measured).
pub(crate) const PITCH: u64 = 512;
/// The name of the device.
pub(crate) const NAME: &str = "pxOS softgpu";

/// Attributes with a value other than zero that no configuration changes.
const VALUES: &[(CUdevice_attribute, i32)] = &[
    (MAX_THREADS_PER_BLOCK, MAX_THREADS.cast_signed()),
    (MAX_BLOCK_DIM_X, 1024),
    (MAX_BLOCK_DIM_Y, 1024),
    (MAX_BLOCK_DIM_Z, 64),
    (MAX_GRID_DIM_X, i32::MAX),
    (MAX_GRID_DIM_Y, 65535),
    (MAX_GRID_DIM_Z, 65535),
    (MAX_SHARED_MEMORY_PER_BLOCK, SHARED_PER_BLOCK.cast_signed()),
    (TOTAL_CONSTANT_MEMORY, 64 << 10),
    (WARP_SIZE, 32),
    (MAX_PITCH, i32::MAX),
    (MAX_REGISTERS_PER_BLOCK, REGISTERS.cast_signed()),
    (CLOCK_RATE, 1_000_000),
    (TEXTURE_ALIGNMENT, 512),
    (GPU_OVERLAP, 1),
    (CAN_MAP_HOST_MEMORY, 1),
    (SURFACE_ALIGNMENT, 512),
    (CONCURRENT_KERNELS, 1),
    (MEMORY_CLOCK_RATE, 1_000_000),
    (GLOBAL_MEMORY_BUS_WIDTH, 128),
    (L2_CACHE_SIZE, 62_914_560),
    (MAX_THREADS_PER_MULTIPROCESSOR, THREADS_PER_MULTIPROCESSOR.cast_signed()),
    (ASYNC_ENGINE_COUNT, 3),
    (UNIFIED_ADDRESSING, 1),
    (CAN_TEX2D_GATHER, 1),
    (TEXTURE_PITCH_ALIGNMENT, 32),
    (COMPUTE_CAPABILITY_MAJOR, 9),
    (COMPUTE_CAPABILITY_MINOR, 0),
    (STREAM_PRIORITIES_SUPPORTED, 1),
    (GLOBAL_L1_CACHE_SUPPORTED, 1),
    (LOCAL_L1_CACHE_SUPPORTED, 1),
    (MAX_SHARED_MEMORY_PER_MULTIPROCESSOR, SHARED_PER_MULTIPROCESSOR.cast_signed()),
    (MAX_REGISTERS_PER_MULTIPROCESSOR, REGISTERS.cast_signed()),
    (MANAGED_MEMORY, 1),
    (SINGLE_TO_DOUBLE_PRECISION_PERF_RATIO, 2),
    (COMPUTE_PREEMPTION_SUPPORTED, 1),
    (CAN_USE_HOST_POINTER_FOR_REGISTERED_MEM, 1),
    (COOPERATIVE_LAUNCH, 1),
    (MAX_SHARED_MEMORY_PER_BLOCK_OPTIN, SHARED_PER_BLOCK_OPTIN.cast_signed()),
    (HOST_REGISTER_SUPPORTED, 1),
    (VIRTUAL_ADDRESS_MANAGEMENT_SUPPORTED, 1),
    (MAX_BLOCKS_PER_MULTIPROCESSOR, BLOCKS_PER_MULTIPROCESSOR.cast_signed()),
    (MAX_PERSISTING_L2_CACHE_SIZE, 39_321_600),
    (MAX_ACCESS_POLICY_WINDOW_SIZE, 134_217_728),
    (RESERVED_SHARED_MEMORY_PER_BLOCK, SHARED_RESERVED.cast_signed()),
    (READ_ONLY_HOST_REGISTER_SUPPORTED, 1),
    (HANDLE_TYPE_POSIX_FILE_DESCRIPTOR_SUPPORTED, 1),
    (GENERIC_COMPRESSION_SUPPORTED, 1),
    (MEMORY_POOLS_SUPPORTED, 1),
    // CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR.
    (MEMPOOL_SUPPORTED_HANDLE_TYPES, 1),
    (IPC_EVENT_SUPPORTED, 1),
    (CAN_USE_64_BIT_STREAM_MEM_OPS, 1),
    (CAN_USE_STREAM_WAIT_VALUE_NOR, 1),
    (MEM_SYNC_DOMAIN_COUNT, 1),
    (NUMA_ID, -1),
];

/// Sizes of textures and surfaces, attributes 21 to 29, 42 to 49, 52 to 74 and 77 (H200, measured).
const TEXTURE_SIZES: &[(CUdevice_attribute, &[i32])] = &[
    (21, &[131_072, 131_072, 65_536, 16_384, 16_384, 16_384, 32_768, 32_768, 2_048]),
    (42, &[32_768, 2_048]),
    (45, &[32_768, 32_768, 8_192, 8_192, 32_768]),
    (
        52,
        &[
            32_768,
            32_768,
            2_046,
            32_768,
            131_072,
            65_536,
            16_384,
            16_384,
            16_384,
            32_768,
            2_048,
            32_768,
            32_768,
            2_048,
            32_768,
            32_768,
            2_046,
            268_435_456,
            131_072,
            65_000,
            2_097_120,
            32_768,
            32_768,
        ],
    ),
    (77, &[32_768]),
];

impl Device {
    /// An attribute's value; `None` for a number that CUDA 13.0 does not know.
    pub(crate) fn attribute(&self, attribute: CUdevice_attribute) -> Option<i32> {
        match attribute {
            MULTIPROCESSOR_COUNT => return Some(self.multiprocessors),
            PCI_BUS_ID => return Some(self.board + 1),
            0 | ATTRIBUTE_COUNT.. => return None,
            _ => {}
        }
        if let Some((_, value)) = VALUES.iter().find(|(known, _)| *known == attribute) {
            return Some(*value);
        }
        let sizes = TEXTURE_SIZES.iter().find_map(|(first, sizes)| {
            let index = usize::try_from(attribute.checked_sub(*first)?).ok()?;
            sizes.get(index).copied()
        });
        Some(sizes.unwrap_or(0))
    }

    /// A UUID that is the same in every process: "pxOS softgpu", and the number of the board.
    pub(crate) fn uuid(&self) -> CUuuid {
        super::visible::uuid(self.board)
    }

    /// Domain, bus, device and function as text.
    pub(crate) fn pci_bus_id(&self) -> String {
        format!("0000:{:02X}:00.0", self.board + 1)
    }
}
