//! What a table is made of: slots, the size word, and the functions that stand in unknown slots.

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::driver;
use crate::result::{ERROR_INVALID_VALUE, ERROR_NOT_SUPPORTED, ERROR_UNKNOWN, SUCCESS};

/// Eight bytes of a table: a function of the C ABI, the size word, or null.
#[repr(transparent)]
#[derive(Clone, Copy)]
pub(super) struct Slot(pub(super) *const ());

// SAFETY: a slot is never written, and what it points at is code.
unsafe impl Sync for Slot {}

impl Slot {
    pub(super) const NULL: Self = Self(std::ptr::null());
}

/// How many slots of each table can be called, whatever size it publishes: the biggest table of any known driver
/// (13.3) has 105.
pub(super) const CALLABLE: usize = 106;

/// A table of `published` slots (the size word counts as one) in which all functions are unsupported, to be filled
/// in by the static's initialiser.
pub(super) const fn unsupported_table<const TABLE: usize>(published: usize) -> [Slot; CALLABLE] {
    let mut slots = [Slot::NULL; CALLABLE];
    slots[0] = Slot(std::ptr::without_provenance(published * size_of::<Slot>()));
    let mut slot = 1;
    while slot < CALLABLE {
        slots[slot] = Unsupported::<TABLE>::SLOTS[slot];
        slot += 1;
    }
    slots
}

/// The tables with unsupported slots, by the number that their stand-in functions carry.
pub(super) const NAMES: [&str; 6] = [
    "CUDART_INTERFACE",
    "TOOLS_TLS",
    "CONTEXT_CHECKS",
    "CONTEXT_AND_STREAM (21318c60)",
    "MODULE_FUNCTIONS (6e163fbe)",
    "CUBLASLT (1734dc26)",
];

/// Stands in every slot of unknown meaning. Takes whatever arguments the caller passes: in the System V ABI the
/// caller cleans up, so that a function of no parameters can be called with any.
extern "C" fn unsupported<const TABLE: usize, const SLOT: usize>() -> u32 {
    guard(|| {
        driver::driver()?.unsupported_slot(NAMES[TABLE], SLOT);
        Err(ERROR_NOT_SUPPORTED)
    })
}

struct Unsupported<const TABLE: usize>;

macro_rules! stand_ins {
    ($($slot:literal)*) => { [$(Slot(unsupported::<TABLE, $slot> as *const ())),*] };
}

impl<const TABLE: usize> Unsupported<TABLE> {
    #[rustfmt::skip]
    const SLOTS: [Slot; CALLABLE] = stand_ins![
          0   1   2   3   4   5   6   7   8   9  10  11  12  13  14  15  16  17  18  19
         20  21  22  23  24  25  26  27  28  29  30  31  32  33  34  35  36  37  38  39
         40  41  42  43  44  45  46  47  48  49  50  51  52  53  54  55  56  57  58  59
         60  61  62  63  64  65  66  67  68  69  70  71  72  73  74  75  76  77  78  79
         80  81  82  83  84  85  86  87  88  89  90  91  92  93  94  95  96  97  98  99
        100 101 102 103 104 105
    ];
}

/// Runs a slot's body and turns its outcome, or a panic in it, into the `CUresult` that the C caller sees.
pub(super) fn guard(body: impl FnOnce() -> Result<(), u32>) -> u32 {
    // Asserting is right: a body holds no state of this crate across a call that can panic.
    match catch_unwind(AssertUnwindSafe(body)) {
        Ok(Ok(())) => SUCCESS,
        Ok(Err(error)) => error,
        Err(_) => ERROR_UNKNOWN,
    }
}

/// Writes an out parameter of a slot.
///
/// # Safety
/// `out` is null (an error) or may be written.
///
/// # Errors
/// `ERROR_INVALID_VALUE` for null, where the real driver would crash.
pub(super) unsafe fn write<T>(out: *mut T, value: T) -> Result<(), u32> {
    if out.is_null() {
        return Err(ERROR_INVALID_VALUE);
    }
    // SAFETY: not null, and then writable by this function's contract.
    unsafe { out.write(value) };
    Ok(())
}
