//! Primitives on the wire: what a text became, what a submission names, how it ended.
//!
//! A text is sent once and named by its number from then on. The rare messages ([`Compilation`], [`DeviceStatus`]) are
//! bincode as those of [`crate::control`]; the frequent ones ([`Submission`], [`Completion`]) are fields.

use crate::codec::{DecodeError, Reader, Writer};
use serde::{Deserialize, Serialize};

/// Longest text of a program, in bytes.
pub const MAX_TEXT: usize = 256 << 10;

/// Most arguments of one submission; a kernel has at most as many parameters.
pub const MAX_ARGUMENTS: u64 = 64;

/// Wait until the kernel is done: the completion then says how it ended.
pub const WAIT: u64 = 1;

/// What the host made of a text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Compilation {
    /// It can be submitted.
    Compiled(Program),
    /// It is refused.
    Refused(Findings),
}

/// A compiled text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Program {
    /// Names it in submissions, as long as the session lives.
    pub number: u64,
    /// Its kernels, in the order of the text.
    pub kernels: Vec<Kernel>,
    /// `GPU_DISTRIBUTE` asks for its kernels to be split over several GPUs.
    pub distribute: bool,
    /// What the adviser says of it.
    pub warnings: Findings,
}

/// Diagnostics, for people and for editors.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Findings {
    /// With the lines they speak of, carets and hints.
    pub text: String,
    /// A JSON array of them.
    pub json: String,
}

/// A kernel as its callers see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kernel {
    /// Its name.
    pub name: String,
    /// Its parameters, in order.
    pub params: Vec<Param>,
    /// Its launch can be split by ranges of threads.
    pub divisible: bool,
}

/// A parameter of a kernel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Param {
    /// Its name.
    pub name: String,
    /// The type of its elements, or of itself.
    pub element: Element,
    /// An array rather than one value.
    pub array: bool,
    /// The kernel may read what it held before.
    pub read: bool,
    /// The kernel may write it.
    pub written: bool,
    /// Each thread uses the element of its own number only.
    pub elementwise: bool,
}

/// What an array holds, or how a value is passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[repr(u32)]
pub enum Element {
    /// 8 bits.
    Byte = 1,
    /// 32 bits, signed.
    Int = 2,
    /// 32 bits, unsigned.
    Uint = 3,
    /// binary32.
    Float = 4,
    /// binary64.
    Double = 5,
    /// binary16.
    Half = 6,
    /// RGBA8, red lowest.
    Pixel = 7,
}

impl Element {
    /// The word for it in the language.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Byte => "byte",
            Self::Int => "int",
            Self::Uint => "uint",
            Self::Float => "float",
            Self::Double => "double",
            Self::Half => "half",
            Self::Pixel => "pixel",
        }
    }

    /// Bytes that one takes in memory.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        match self {
            Self::Byte => 1,
            Self::Half => 2,
            Self::Int | Self::Uint | Self::Float | Self::Pixel => 4,
            Self::Double => 8,
        }
    }
}

/// An argument of a submission.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Argument {
    /// An array in device memory: its address and elements.
    Array {
        /// Device address of the first element.
        address: u64,
        /// Elements.
        length: u64,
    },
    /// One value's bits, in the low bytes.
    Scalar(u64),
}

/// Stands in the place of a length where an argument is one value.
const SCALAR: u64 = u64::MAX;

/// A kernel to be run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Submission {
    /// [`Program::number`].
    pub program: u64,
    /// Index of the kernel in [`Program::kernels`].
    pub kernel: u64,
    /// Stream, as in every call.
    pub stream: u64,
    /// Threads, 0 for one per element of what the kernel goes over.
    pub elements: u64,
    /// Number of the first thread.
    pub first: u64,
    /// [`WAIT`] or 0.
    pub flags: u64,
    /// One per parameter.
    pub arguments: Vec<Argument>,
}

impl Submission {
    /// Writes its fields.
    pub fn write(&self, writer: &mut Writer<'_>) {
        for field in [self.program, self.kernel, self.stream, self.elements, self.first, self.flags] {
            writer.put(field);
        }
        writer.put(self.arguments.len() as u64);
        for argument in &self.arguments {
            writer.put(match *argument {
                Argument::Array { address, length } => [address, length],
                Argument::Scalar(bits) => [bits, SCALAR],
            });
        }
    }

    /// Reads its fields.
    ///
    /// # Errors
    /// [`DecodeError`] where they are no submission, or one of more than [`MAX_ARGUMENTS`] arguments.
    pub fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let mut next = || reader.get::<u64>();
        let (program, kernel, stream) = (next()?, next()?, next()?);
        let (elements, first, flags, count) = (next()?, next()?, next()?, next()?);
        if count > MAX_ARGUMENTS {
            return Err(DecodeError::TooLong { claimed: count, limit: MAX_ARGUMENTS });
        }
        let mut arguments = Vec::new();
        for _ in 0..count {
            let [bits, length] = reader.get::<[u64; 2]>()?;
            arguments.push(match length {
                SCALAR => Argument::Scalar(bits),
                length => Argument::Array { address: bits, length },
            });
        }
        Ok(Self { program, kernel, stream, elements, first, flags, arguments })
    }
}

/// How a submission stands.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Completion {
    /// Names it in QUERY_STATUS; 0 where it has ended.
    pub number: u64,
    /// A `CUresult`: success, `CUDA_ERROR_NOT_READY`, or how it failed. A thread that left an array is
    /// `CUDA_ERROR_ILLEGAL_ADDRESS`; the context lives on.
    pub result: u32,
    /// What failed, in words; empty where nothing did.
    pub message: String,
    /// Threads that do the work.
    pub elements: u64,
    /// Time between the events around the launches, in milliseconds.
    pub milliseconds: f32,
    /// Places that may fault, and those of them that this module checks.
    pub checks: [u32; 2],
    /// Line of the fault in the text, 0 for none.
    pub line: u32,
    /// Index that was out of bounds.
    pub index: i64,
}

impl Completion {
    /// Writes its fields.
    pub fn write(&self, writer: &mut Writer<'_>) {
        writer.put(self.number);
        writer.put([self.result, self.line, self.milliseconds.to_bits()]);
        writer.put(self.elements);
        writer.put(self.checks[0]);
        writer.put(self.checks[1]);
        writer.put(self.index);
        writer.put_bytes(self.message.as_bytes());
    }

    /// Reads its fields.
    ///
    /// # Errors
    /// [`DecodeError`] where they are no completion.
    pub fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let number = reader.get()?;
        let [result, line, milliseconds] = reader.get::<[u32; 3]>()?;
        Ok(Self {
            number,
            result,
            line,
            milliseconds: f32::from_bits(milliseconds),
            elements: reader.get()?,
            checks: [reader.get()?, reader.get()?],
            index: reader.get()?,
            message: reader.get_str()?.to_owned(),
        })
    }
}

/// The device, as a guest may know it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceStatus {
    /// Its name.
    pub name: String,
    /// Compute capability.
    pub capability: [i32; 2],
    /// Multiprocessors.
    pub multiprocessors: i32,
    /// Bytes free and in all, within the VM's limit.
    pub free: u64,
    /// Bytes in all, within the VM's limit.
    pub total: u64,
    /// Programs that the worker holds compiled.
    pub programs: u64,
    /// Submissions under way.
    pub running: u64,
    /// Whether the device is the host's CPU.
    pub software: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn submissions_and_completions_come_back() {
        let submission = Submission {
            program: 1,
            kernel: 2,
            stream: 3,
            elements: 4,
            first: 5,
            flags: WAIT,
            arguments: vec![Argument::Array { address: 0x7000, length: 9 }, Argument::Scalar(u64::MAX)],
        };
        let mut buffer = Vec::new();
        submission.write(&mut Writer::new(&mut buffer));
        assert_eq!(Submission::read(&mut Reader::new(&buffer)), Ok(submission));
        let completion = Completion {
            number: 7,
            result: 700,
            message: "kernel `k`".to_owned(),
            elements: 10,
            milliseconds: 0.5,
            checks: [3, 1],
            line: 12,
            index: -1,
        };
        completion.write(&mut Writer::new(&mut buffer));
        assert_eq!(Completion::read(&mut Reader::new(&buffer)), Ok(completion));
    }

    #[test]
    fn a_count_of_arguments_is_not_believed() {
        let mut buffer = Vec::new();
        let mut writer = Writer::new(&mut buffer);
        (0..6).for_each(|_| writer.put(0_u64));
        writer.put(1_u64 << 40);
        assert!(matches!(Submission::read(&mut Reader::new(&buffer)), Err(DecodeError::TooLong { .. })));
    }
}
