//! The kinds of parameter of `forward` and `async` rows, and how each crosses.
//!
//! A kind is a type, so that every expansion of a row is one repetition. On the wire: the `In` parts in the order of the
//! parameters; in the answer: the `Out` parts in that order. Structures and arrays belong to hand-written rows.

use crate::codec::{DecodeError, Plain, Reader, Writer};
use crate::types::{CUdevice, CUresult};
use std::marker::PhantomData;

/// A kind of parameter.
pub trait Param {
    /// The C type.
    type C: Copy;
    /// What the worker holds for it while the driver is called.
    type Held;

    /// Refuses what no call may have (a null pointer to write to), before anything is sent.
    ///
    /// # Errors
    /// The `CUresult` that the call answers.
    fn check(_value: Self::C) -> Result<(), CUresult> {
        Ok(())
    }

    /// Guest: writes what the host needs.
    fn encode(value: Self::C, writer: &mut Writer<'_>);

    /// Host: reads it.
    ///
    /// # Errors
    /// [`DecodeError`] where the payload is too short.
    fn hold(reader: &mut Reader<'_>) -> Result<Self::Held, DecodeError>;

    /// Host: what the driver is given. Pointers point into `held`.
    fn pass(held: &mut Self::Held) -> Self::C;

    /// Host: writes what the guest gets back.
    fn reply(held: &Self::Held, writer: &mut Writer<'_>);

    /// Guest: reads it to where the application wants it.
    ///
    /// # Safety
    /// `value` passed [`Self::check`], and where it is a pointer, the caller of the CUDA API gave it to be written.
    ///
    /// # Errors
    /// [`DecodeError`] where the payload is too short.
    unsafe fn decode(value: Self::C, reader: &mut Reader<'_>) -> Result<(), DecodeError>;
}

/// A value that goes to the host.
#[derive(Debug)]
pub struct In<T>(PhantomData<T>);

impl<T: Plain> Param for In<T> {
    type C = T;
    type Held = T;

    fn encode(value: T, writer: &mut Writer<'_>) {
        writer.put(value);
    }

    fn hold(reader: &mut Reader<'_>) -> Result<T, DecodeError> {
        reader.get()
    }

    fn pass(held: &mut T) -> T {
        *held
    }

    fn reply(_held: &T, _writer: &mut Writer<'_>) {}

    unsafe fn decode(_value: T, _reader: &mut Reader<'_>) -> Result<(), DecodeError> {
        Ok(())
    }
}

/// A value that comes back through a pointer, which must not be null.
#[derive(Debug)]
pub struct Out<T>(PhantomData<T>);

impl<T: Plain + Default> Param for Out<T> {
    type C = *mut T;
    type Held = T;

    fn check(value: *mut T) -> Result<(), CUresult> {
        if value.is_null() { Err(CUresult::ERROR_INVALID_VALUE) } else { Ok(()) }
    }

    fn encode(_value: *mut T, _writer: &mut Writer<'_>) {}

    fn hold(_reader: &mut Reader<'_>) -> Result<T, DecodeError> {
        Ok(T::default())
    }

    fn pass(held: &mut T) -> *mut T {
        held
    }

    fn reply(held: &T, writer: &mut Writer<'_>) {
        writer.put(*held);
    }

    unsafe fn decode(value: *mut T, reader: &mut Reader<'_>) -> Result<(), DecodeError> {
        let answer = reader.get()?;
        // SAFETY: not null and writable, by the caller's promise.
        unsafe { value.write(answer) };
        Ok(())
    }
}

/// A device by the guest's ordinal; the worker knows which of the host's it is.
#[derive(Debug)]
pub struct Dev;

impl Param for Dev {
    type C = CUdevice;
    type Held = CUdevice;

    fn encode(value: CUdevice, writer: &mut Writer<'_>) {
        writer.put(value);
    }

    fn hold(reader: &mut Reader<'_>) -> Result<CUdevice, DecodeError> {
        reader.get()
    }

    fn pass(held: &mut CUdevice) -> CUdevice {
        *held
    }

    fn reply(_held: &CUdevice, _writer: &mut Writer<'_>) {}

    unsafe fn decode(_value: CUdevice, _reader: &mut Reader<'_>) -> Result<(), DecodeError> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_goes_there_and_back() {
        let mut buffer = Vec::new();
        In::<u32>::encode(7, &mut Writer::new(&mut buffer));
        let mut held = In::<u32>::hold(&mut Reader::new(&buffer)).unwrap();
        assert_eq!(In::<u32>::pass(&mut held), 7);

        let mut out = Out::<u64>::hold(&mut Reader::new(&[])).unwrap();
        // SAFETY: the pointer is to a local.
        unsafe { Out::<u64>::pass(&mut out).write(9) };
        Out::<u64>::reply(&out, &mut Writer::new(&mut buffer));
        let mut value = 0;
        // SAFETY: as above.
        unsafe { Out::<u64>::decode(&raw mut value, &mut Reader::new(&buffer)).unwrap() };
        assert_eq!(value, 9);
        assert_eq!(Out::<u64>::check(std::ptr::null_mut()), Err(CUresult::ERROR_INVALID_VALUE));
    }
}
