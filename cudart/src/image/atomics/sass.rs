//! System-scope atomics in machine code.
//!
//! Since Volta an instruction takes 16 bytes: bits 0 to 8 are the operation, 9 to 11 the form of its operands, and of
//! an access to memory bits 77 to 80 say how strong it is and for whom.
//!
//! Measured by compiling PTX and CUDA C++ with the `ptxas` of CUDA 13.0 for `sm_75`, 80, 90, 100 and 120, and with
//! that of 12.9 for `sm_70` and 72: every operation, type, order, scope, state space and form of operands, one in a
//! kernel. `nvdisasm` 13.5 then showed all sixteen values of the field in each of the operations.

use std::collections::HashSet;

use super::super::{ImageError, elf};
use super::{Place, SystemAtomics};

/// Adds the kernels of an ELF object.
pub(super) fn find(object: &[u8], found: &mut SystemAtomics) -> Result<(), ImageError> {
    let sections = elf::sections(object)?;
    let Some(architecture) = elf::cuda_architecture(object)?.filter(|number| *number >= VOLTA) else {
        return Ok(());
    };
    // A kernel has its code in `.text.<symbol>` and its parameters in `.nv.constant0.<symbol>`. Functions that are
    // called within one lie behind it in its section; only those that were compiled apart (`-rdc=true`) or kept for
    // calls through pointers have a `.text` of their own, and they have no parameters in constant memory.
    let kernels: HashSet<&[u8]> =
        sections.iter().filter_map(|section| section.name.strip_prefix(b".nv.constant0.")).collect();
    for section in &sections {
        let Some(symbol) = section.name.strip_prefix(b".text.") else { continue };
        if has_system_atomic(section.bytes, architecture) {
            let is_kernel = kernels.contains(symbol);
            found.add(if is_kernel { Place::Kernel(symbol) } else { Place::Function });
        }
    }
    Ok(())
}

/// Whether any of the instructions is a system-scope atomic.
fn has_system_atomic(code: &[u8], architecture: u32) -> bool {
    let system = if architecture < AMPERE { STRONG_SYS_BEFORE_AMPERE } else { STRONG_SYS | MMIO_SYS };
    let (instructions, _) = code.as_chunks::<16>();
    instructions.iter().any(|instruction| {
        let instruction = u128::from_le_bytes(*instruction);
        let scope = 1u16 << (instruction >> 77 & 0xf);
        scope & system != 0 && is_atomic(instruction & 0x1ff, architecture)
    })
}

/// Whether an operation is a read-modify-write one on memory that a CPU can see. Those on shared memory (ATOMS) and
/// on surfaces (SUATOM, SURED) are not among them; the latter always read STRONG.SYS in a disassembly, but CUDA
/// arrays are no managed memory. Nor is UBLKRED, whose scope is always the device (PTX ISA, "cp.reduce.async.bulk").
/// Shared memory of another block in the cluster is addressed as any other memory is, and so counts.
fn is_atomic(operation: u128, architecture: u32) -> bool {
    match operation {
        // ATOM, its compare-and-swap, RED (from sm_90 on REDG, as which `multimem.red` appears too), ATOMG and its
        // compare-and-swap.
        0x18a | 0x18b | 0x18e | 0x1a8 | 0x1a9 => true,
        // The same of 16-bit floats and of vectors: ATOM, ATOMG, REDG.
        0x1a2 | 0x1a3 | 0x1a6 => architecture >= HOPPER,
        // UREDGR, PTX `red.async.mmio`.
        0x178 => architecture >= BLACKWELL,
        _ => false,
    }
}

/// The value 0xb, as a bit. Values there are two fields: 2 for strong, and the scope (0 block, 2 device, 3 system).
const STRONG_SYS_BEFORE_AMPERE: u16 = 1 << 0xb;
/// The value 0xa, as a bit. Others are 5 for the block and 7 for the device, so 0xa before Ampere.
const STRONG_SYS: u16 = 1 << 0xa;
/// The value 0xc, as a bit: memory-mapped input and output of system scope.
const MMIO_SYS: u16 = 1 << 0xc;

/// The first architecture with this form of instructions, `sm_70`.
const VOLTA: u32 = 70;
/// The first with the later values of the field, `sm_80`.
const AMPERE: u32 = 80;
const HOPPER: u32 = 90;
const BLACKWELL: u32 = 100;

#[cfg(test)]
mod tests {
    use super::has_system_atomic;

    /// An instruction from the two words that a disassembly shows.
    fn instruction(low: u64, high: u64) -> [u8; 16] {
        (u128::from(high) << 64 | u128::from(low)).to_le_bytes()
    }

    /// Instructions of system scope as `ptxas` wrote them.
    const SYSTEM: [(u32, u64, u64); 17] = [
        (70, 0x0000_0005_0205_738a, 0x020e_a200_0011_69ff), // ATOM.E.ADD.F16x2.RN.STRONG.SYS P0, R0, [R2], R5
        (75, 0x0000_0005_0200_798e, 0x020f_e200_0011_6900), // RED.E.ADD.F16x2.RN.STRONG.SYS [R2], R5
        (75, 0x0000_000b_040d_738b, 0x000e_a400_001f_610d), // ATOM.E.CAS.STRONG.SYS PT, R13, [R4], R11, R13
        (75, 0x0000_0005_0205_73a8, 0x020e_a400_001f_69ff), // ATOMG.E.ADD.F16x2.RN.STRONG.SYS PT, R5, [R2], R5
        (75, 0x0000_000b_040d_73a9, 0x000e_a400_001f_610d), // ATOMG.E.CAS.STRONG.SYS PT, R13, [R4], R11, R13
        (80, 0x0000_0005_0200_798a, 0x020e_a200_0811_49c4), // ATOM.E.ADD.F16x2.RN.STRONG.SYS P0, R0, [R2.64], R5
        (80, 0x0000_0005_0200_798e, 0x020f_e200_0c11_4984), // RED.E.ADD.F16x2.RN.STRONG.SYS [R2.64], R5
        (80, 0x0000_000b_060d_73a9, 0x000e_2400_001f_410d), // ATOMG.E.CAS.STRONG.SYS PT, R13, [R6], R11, R13
        (90, 0x0000_0005_0200_098e, 0x002f_e200_0c11_4184), // @P0 REDG.E.ADD.STRONG.SYS desc[UR4][R2.64], R5
        (90, 0x0000_0009_060f_738b, 0x000e_a800_001f_410f), // ATOM.E.CAS.STRONG.SYS PT, R15, [R6], R9, R15
        (90, 0x0000_0007_0200_79a2, 0x0040_a800_0811_47c4), // ATOM.E.ADD.BF16x2.RN.STRONG.SYS P0, R0, …, R7
        (90, 0x0000_0007_0400_73a2, 0x0040_a800_0011_4700), // ATOM.E.ADD.BF16x2.RN.STRONG.SYS P0, R0, [R4], R7
        (90, 0x0000_0008_0208_79a3, 0x004e_a800_081f_45c4), // ATOMG.E.ADD.F16x8.RN.STRONG.SYS PT, R8, …, R8
        (100, 0x0000_0008_0200_79a6, 0x004f_e200_0c13_4504), // REDG.E.ADD.F16x8.RN.STRONG.SYS desc[UR4][R2.64], R8
        (100, 0x0000_0006_0400_7378, 0x0013_e200_0809_8000), // UREDGR.E.ADD.NA.MMIO.SYS [UR4], UR6
        (120, 0x8000_0008_0208_79a8, 0x004e_a800_0c1f_5904), // ATOMG.E.EXCH.128.STRONG.SYS PT, R8, …, R8
        (121, 0x0000_0004_0200_798e, 0x004f_e200_0d13_4704), // REDG.E.MAX.S64.STRONG.SYS desc[UR4][R2.64], R4
    ];

    /// Others: of a smaller scope, on memory of the block, or no atomics.
    const OTHER: [(u32, u64, u64); 13] = [
        (75, 0x0000_0005_0205_738a, 0x020e_a200_0011_49ff), // ATOM.E.ADD.F16x2.RN.STRONG.GPU P0, R0, [R2], R5
        (75, 0x0000_000b_070d_738d, 0x000e_6400_0000_000a), // ATOMS.CAS R13, [R7], R11, R10
        (75, 0x0001_0804_0205_7981, 0x000e_a800_0c1e_e900), // LDG.E.SYS R5, [R2.64+UR4+0x108]
        (75, 0x0000_0005_0200_7386, 0x004f_e200_0011_e900), // STG.E.MMIO.SYS [R2], R5
        (80, 0x0000_0005_0200_798e, 0x020f_e200_0c10_e984), // RED.E.ADD.F16x2.RN.STRONG.GPU [R2.64], R5
        (80, 0x0000_0000_0000_7992, 0x000f_ec00_0000_3000), // MEMBAR.SC.SYS
        (90, 0x0000_0000_0205_7381, 0x000e_a200_001f_8900), // LDG.E.MMIO.SYS R5, [R2]
        (90, 0x0000_0000_0205_79a4, 0x001e_a200_0801_417f), // LDGMC.E.ADD.32.STRONG.SYS R5, [R2.64+URZ]
        (90, 0x0000_0006_0400_73bb, 0x0001_d800_0800_0405), // UBLKRED.G.S.ADD [UR6], [UR4], UR5
        (90, 0x7000_0402_0200_7f9f, 0x000f_e200_0811_4100), // SURED.D.BA.2D.ADD.STRONG.SYS.TRAP [R2], R2, UR4, 0x0
        (100, 0x0000_0009_060f_738b, 0x000e_a800_001e_e10f), // ATOM.E.CAS.STRONG.GPU PT, R15, [R6], R9, R15
        (100, 0x0000_0008_0600_758d, 0x000e_2400_0180_0009), // ATOMS.CAST.SPIN P0, [R6], R8, R9
        (120, 0x8000_0007_0200_79a2, 0x0040_a800_0c10_e704), // ATOM.E.ADD.BF16x2.RN.STRONG.GPU P0, R0, …, R7
    ];

    #[test]
    fn only_atomics_of_system_scope_are_found() {
        for (architecture, low, high) in SYSTEM {
            assert!(has_system_atomic(&instruction(low, high), architecture), "{low:#x} {high:#x}");
        }
        for (architecture, low, high) in OTHER {
            assert!(!has_system_atomic(&instruction(low, high), architecture), "{low:#x} {high:#x}");
        }
    }

    #[test]
    fn the_same_bits_mean_another_scope_before_ampere() {
        // ATOM.E.EXCH.STRONG.GPU PT, R5, [R2], R5 of sm_75, which a disassembler for sm_90 reads as STRONG.SYS.
        let exchange = instruction(0x0000_0005_0205_738a, 0x004e_a800_041f_41ff);
        assert!(!has_system_atomic(&exchange, 75));
        assert!(has_system_atomic(&exchange, 90));
    }

    #[test]
    fn instructions_begin_at_multiples_of_their_length() {
        let (architecture, low, high) = SYSTEM[8];
        let code = [[0; 16], instruction(low, high)].concat();
        assert!(has_system_atomic(&code, architecture));
        assert!(!has_system_atomic(&code[8..], architecture));
        assert!(!has_system_atomic(&code[..31], architecture));
    }
}
