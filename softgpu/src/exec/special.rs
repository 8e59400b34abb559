//! Special registers (PTX ISA section 10) and the other values that are set once per launch, block or warp.

/// A value that a constant slot takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Value {
    /// Known when the module is loaded.
    Bits(u64),
    /// Address of a module variable.
    Global { index: usize, offset: i64 },
    /// Bytes of the kernel's parameter buffer; `signed` sign-extends.
    Param { offset: u32, bytes: u32, signed: bool },
    /// Offset of a shared variable; its place depends on the kernel.
    Shared { index: usize, offset: i64 },
    /// Offset of dynamic shared memory.
    DynamicShared { offset: i64 },
    /// A special register.
    Special(Special),
}

impl Value {
    /// Whether lanes of one warp see different values.
    pub(super) fn differs_in_warp(self) -> bool {
        matches!(
            self,
            Self::Special(
                Special::Tid(_)
                    | Special::LaneId
                    | Special::LanemaskEq
                    | Special::LanemaskLe
                    | Special::LanemaskLt
                    | Special::LanemaskGe
                    | Special::LanemaskGt
            )
        )
    }
}

/// Special registers that are constant while a block runs. `usize` is the dimension.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Special {
    Tid(usize),
    Ntid(usize),
    Ctaid(usize),
    Nctaid(usize),
    LaneId,
    WarpId,
    NwarpId,
    SmId,
    NsmId,
    GridId,
    LanemaskEq,
    LanemaskLe,
    LanemaskLt,
    LanemaskGe,
    LanemaskGt,
    DynamicSmem,
    TotalSmem,
    EnvReg(u32),
    /// Where the runtime's scratch in shared memory ends.
    ReservedEnd,
    /// Where the part of it that cooperative groups use begins.
    ReservedOne,
    /// Cluster registers: clusters have one block each.
    ClusterId(usize),
    NclusterId(usize),
    Zero,
    One,
}

/// Bytes at the start of shared memory that kernels which name them find reserved for the runtime, as on an H200 (PTX ISA,
/// "Special registers: %reserved_smem_offset").
pub(super) const RESERVED_SHARED: u32 = 1024;

impl Special {
    /// Whether the register tells of reserved shared memory.
    pub(super) fn is_reserved_shared(name: &str) -> bool {
        name.starts_with("%reserved_smem_offset")
    }

    /// The register named `%name` or `%name.member`, and whether it is 64 bits wide.
    pub(super) fn from_name(name: &str, member: &str) -> Option<(Self, bool)> {
        let dim = match member {
            "x" | "" => 0,
            "y" => 1,
            "z" => 2,
            // `.w` of the vectors is always 0.
            "w" => return Some((Self::Zero, false)),
            _ => return None,
        };
        let vector = !member.is_empty();
        let special = match name {
            "%tid" if vector => Self::Tid(dim),
            "%ntid" if vector => Self::Ntid(dim),
            "%ctaid" if vector => Self::Ctaid(dim),
            "%nctaid" if vector => Self::Nctaid(dim),
            "%clusterid" if vector => Self::ClusterId(dim),
            "%nclusterid" if vector => Self::NclusterId(dim),
            "%cluster_ctaid" if vector => Self::Zero,
            "%cluster_nctaid" if vector => Self::One,
            _ if vector => return None,
            "%laneid" => Self::LaneId,
            "%warpid" => Self::WarpId,
            "%nwarpid" => Self::NwarpId,
            "%smid" => Self::SmId,
            "%nsmid" => Self::NsmId,
            "%gridid" => return Some((Self::GridId, true)),
            "%lanemask_eq" => Self::LanemaskEq,
            "%lanemask_le" => Self::LanemaskLe,
            "%lanemask_lt" => Self::LanemaskLt,
            "%lanemask_ge" => Self::LanemaskGe,
            "%lanemask_gt" => Self::LanemaskGt,
            "%dynamic_smem_size" => Self::DynamicSmem,
            "%total_smem_size" | "%aggr_smem_size" => Self::TotalSmem,
            "%cluster_ctarank" | "%reserved_smem_offset_begin" | "%reserved_smem_offset_0" => Self::Zero,
            "%reserved_smem_offset_end" | "%reserved_smem_offset_cap" => Self::ReservedEnd,
            "%reserved_smem_offset_1" => Self::ReservedOne,
            "%cluster_nctarank" => Self::One,
            "%is_explicit_cluster" => Self::Zero,
            _ => {
                let number = name.strip_prefix("%envreg")?.parse().ok()?;
                if number > 31 {
                    return None;
                }
                Self::EnvReg(number)
            }
        };
        Some((special, false))
    }
}
