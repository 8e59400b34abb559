//! C arguments as the bodies of the entry points see them: pointers become [`In`] and [`Out`], which refuse null
//! and can be used without `unsafe`, because only a C caller's promise ([`Argument::seen`]) makes them.

use super::Answer;
use pxos_protocol::types::{
    CUarray, CUcontext, CUevent, CUfunction, CUgraph, CUgraphExec, CUgraphNode, CUgreenCtx, CUhostFn,
    CUipcEventHandle, CUipcMemHandle, CUkernel, CUlibrary, CUlinkState, CUmemLocation, CUmemoryPool,
    CUmipmappedArray, CUmodule, CUoccupancyB2DSize, CUresult, CUstream, CUstreamCallback, CUuserObject,
};
use std::ffi::{CStr, c_char, c_void};

/// How C passes an argument: bytes, and whether in a floating-point register. Two signatures with the same classes are
/// the same to a caller.
#[cfg(test)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Class {
    bytes: usize,
    float: bool,
}

#[cfg(test)]
impl Class {
    /// That of a type.
    pub(crate) fn of<T>() -> Self {
        Self { bytes: size_of::<T>(), float: matches!(std::any::type_name::<T>(), "f32" | "f64") }
    }
}

/// A C argument and what a body sees of it.
pub(crate) trait Argument {
    /// What the body sees.
    type Seen;
    /// Takes the argument at its caller's word.
    ///
    /// # Safety
    /// A pointer is null or valid for what the function of the CUDA API does with it, during the call.
    unsafe fn seen(self) -> Self::Seen;
}

/// A pointer through which the caller takes results; null or valid (by [`Argument::seen`]).
#[derive(Debug)]
pub(crate) struct Out<T>(*mut T);

/// A pointer to something that the caller gives; null or valid (by [`Argument::seen`]).
#[derive(Debug)]
pub(crate) struct In<T>(*const T);

impl<T> Clone for Out<T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for Out<T> {}
impl<T> Clone for In<T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for In<T> {}

// SAFETY: the pointer is only used while the C caller waits for the answer, whichever thread uses it.
unsafe impl<T> Send for Out<T> {}
// SAFETY: as for `Out`.
unsafe impl<T> Send for In<T> {}

impl<T> Out<T> {
    /// A pointer found in a structure or array that the caller of the API gave; valid by the same promise.
    pub(crate) fn from_api(pointer: *mut T) -> Self {
        Self(pointer)
    }

    /// Refuses null with `CUDA_ERROR_INVALID_VALUE`.
    pub(crate) fn required(self) -> Answer<Self> {
        if self.0.is_null() { Err(CUresult::ERROR_INVALID_VALUE) } else { Ok(self) }
    }

    /// Whether the caller passed null.
    pub(crate) fn is_null(self) -> bool {
        self.0.is_null()
    }

    /// The address itself.
    pub(crate) fn raw(self) -> *mut T {
        self.0
    }

    /// Writes a result; null is refused.
    pub(crate) fn put(self, value: T) -> Answer {
        self.required()?.put_if_wanted(value);
        Ok(())
    }

    /// Writes a result unless the caller passed null.
    pub(crate) fn put_if_wanted(self, value: T) {
        if !self.0.is_null() {
            // SAFETY: not null, hence valid for one `T`; C promises no more alignment than it has.
            unsafe { self.0.write_unaligned(value) }
        }
    }

    /// Writes the element at an index; the caller of the API promised as many.
    pub(crate) fn put_at(self, index: usize, value: T) -> Answer {
        let first = self.required()?;
        // SAFETY: the function's contract has the array at least this long.
        unsafe { first.0.add(index).write_unaligned(value) }
        Ok(())
    }

    /// Reads what the caller left there; null is refused.
    pub(crate) fn read(self) -> Answer<T>
    where
        T: Copy,
    {
        In(self.0.cast_const()).read()
    }

    /// Reads the element at an index.
    pub(crate) fn read_at(self, index: usize) -> Answer<T>
    where
        T: Copy,
    {
        In(self.0.cast_const()).read_at(index)
    }

    /// The same address as a pointer to something else.
    pub(crate) fn cast<U>(self) -> Out<U> {
        Out(self.0.cast())
    }
}

impl Out<c_char> {
    /// Writes a text into a buffer of `room` bytes, cut to fit, always ended by NUL.
    pub(crate) fn put_text(self, text: &str, room: i32) -> Answer {
        let room =
            usize::try_from(room).ok().filter(|room| *room > 0).ok_or(CUresult::ERROR_INVALID_VALUE)?;
        let first = self.required()?;
        for (index, byte) in text.bytes().take(room - 1).chain([0]).enumerate() {
            first.put_at(index, byte.cast_signed())?;
        }
        Ok(())
    }
}

impl<T> In<T> {
    /// A pointer found in a structure or array that the caller of the API gave; valid by the same promise.
    pub(crate) fn from_api(pointer: *const T) -> Self {
        Self(pointer)
    }

    /// The same address as a pointer to something else.
    pub(crate) fn cast<U>(self) -> In<U> {
        In(self.0.cast())
    }

    /// Whether the caller passed null.
    pub(crate) fn is_null(self) -> bool {
        self.0.is_null()
    }

    /// The address itself.
    pub(crate) fn raw(self) -> *const T {
        self.0
    }

    /// Reads the value; null is refused with `CUDA_ERROR_INVALID_VALUE`.
    pub(crate) fn read(self) -> Answer<T>
    where
        T: Copy,
    {
        self.read_at(0)
    }

    /// Reads the element at an index; the caller of the API promised as many.
    pub(crate) fn read_at(self, index: usize) -> Answer<T>
    where
        T: Copy,
    {
        if self.0.is_null() {
            return Err(CUresult::ERROR_INVALID_VALUE);
        }
        // SAFETY: not null, hence valid for the elements that the function's contract names.
        Ok(unsafe { self.0.add(index).read_unaligned() })
    }
}

impl In<c_char> {
    /// The text; null is refused, and so is a text that is not UTF-8, which no name or path of ours is.
    pub(crate) fn text(self) -> Answer<String> {
        if self.0.is_null() {
            return Err(CUresult::ERROR_INVALID_VALUE);
        }
        // SAFETY: not null, hence a NUL-ended string by the function's contract.
        let text = unsafe { CStr::from_ptr(self.0) };
        text.to_str().map(ToOwned::to_owned).map_err(|_| CUresult::ERROR_INVALID_VALUE)
    }
}

impl In<c_void> {
    /// The address as a number.
    pub(crate) fn address(self) -> u64 {
        self.0.addr() as u64
    }
}

impl Out<c_void> {
    /// The address as a number.
    pub(crate) fn address(self) -> u64 {
        self.0.addr() as u64
    }
}

impl<T> Argument for *mut T {
    type Seen = Out<T>;
    unsafe fn seen(self) -> Out<T> {
        Out(self)
    }
}

impl<T> Argument for *const T {
    type Seen = In<T>;
    unsafe fn seen(self) -> In<T> {
        In(self)
    }
}

macro_rules! by_value {
    ($($ty:ty)*) => {
        $(impl Argument for $ty {
            type Seen = Self;
            unsafe fn seen(self) -> Self {
                self
            }
        })*
    };
}

by_value! {
    u8 u16 u32 i32 u64 usize f32 CUresult CUcontext CUstream CUevent CUmodule CUfunction CUkernel CUlibrary CUlinkState CUgraph
    CUgraphExec CUgraphNode CUuserObject CUmemLocation CUipcMemHandle CUipcEventHandle
    CUmemoryPool CUarray CUmipmappedArray CUgreenCtx CUhostFn CUstreamCallback CUoccupancyB2DSize
}
