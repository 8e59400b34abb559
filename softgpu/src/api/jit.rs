//! The options of the load functions that concern the compiler: where it writes what it has to say (CUDA driver API,
//! `CUjit_option`). Options that tune code generation are accepted and change nothing.

use super::{Answer, Out};
use crate::exec::LoadError;
use pxos_protocol::types::{CUjit_option, CUresult};
use std::ffi::{c_char, c_uint, c_void};

/// The compiler's log of errors, and where the application wants it.
#[derive(Debug, Default)]
pub(crate) struct JitLog {
    text: String,
    errors: Option<Buffer>,
    infos: Option<Buffer>,
}

/// A buffer of the application; its size is written back to the option's own value.
#[derive(Debug, Clone, Copy)]
struct Buffer {
    at: Out<c_char>,
    room: usize,
    size: Option<Out<usize>>,
}

const INFO_LOG_BUFFER: CUjit_option = 3;
const INFO_LOG_BUFFER_SIZE: CUjit_option = 4;
const ERROR_LOG_BUFFER: CUjit_option = 5;
const ERROR_LOG_BUFFER_SIZE: CUjit_option = 6;
/// The newest PTX that CUDA 13.0 knows.
const PTX_VERSION: (u32, u32) = (9, 0);
/// One past the last option of CUDA 13.0.
const OPTIONS: CUjit_option = 35;

impl JitLog {
    /// Reads the options of a load function.
    ///
    /// # Errors
    /// `CUDA_ERROR_INVALID_VALUE` for missing arrays and unknown options.
    pub(crate) fn from_options(
        count: c_uint,
        options: Out<CUjit_option>,
        values: Out<*mut c_void>,
    ) -> Answer<Self> {
        let mut log = Self::default();
        let mut buffers = [Buffer { at: Out::from_api(std::ptr::null_mut()), room: 0, size: None }; 2];
        for index in 0..count as usize {
            let (option, value) = (options.read_at(index)?, values.read_at(index)?);
            let size = Out::from_api(values.raw().wrapping_add(index).cast::<usize>());
            match option {
                INFO_LOG_BUFFER => buffers[0].at = Out::from_api(value.cast()),
                ERROR_LOG_BUFFER => buffers[1].at = Out::from_api(value.cast()),
                INFO_LOG_BUFFER_SIZE => {
                    (buffers[0].room, buffers[0].size) = (size_of_option(value), Some(size));
                }
                ERROR_LOG_BUFFER_SIZE => {
                    (buffers[1].room, buffers[1].size) = (size_of_option(value), Some(size));
                }
                OPTIONS.. => return Err(CUresult::ERROR_INVALID_VALUE),
                _ => {}
            }
        }
        let wanted = |buffer: Buffer| (!buffer.at.is_null()).then_some(buffer);
        [log.infos, log.errors] = buffers.map(wanted);
        Ok(log)
    }

    /// Adds a message that belongs to no line.
    pub(crate) fn error(&mut self, message: &str) {
        self.text = format!("ptxas fatal   : {message}");
    }

    /// Adds why PTX was refused, in the form of the real compiler (measured), and says which error that is.
    pub(crate) fn refuse(&mut self, error: &LoadError) -> CUresult {
        let LoadError { line, message, .. } = error;
        if *line == 0 {
            self.error(message);
        } else {
            self.text = format!(
                "ptxas application ptx input, line {line}; error   : {message}\nptxas fatal   : Ptx assembly aborted due to errors"
            );
        }
        CUresult::ERROR_INVALID_PTX
    }

    /// Refuses a version of PTX that is newer than this library, as the real compiler does (measured).
    ///
    /// # Errors
    /// `CUDA_ERROR_UNSUPPORTED_PTX_VERSION`.
    pub(crate) fn check_version(&mut self, text: &str) -> Answer {
        let version = text.split_once(".version").and_then(|(_, rest)| rest.split_whitespace().next());
        let newer = version.and_then(|version| {
            let (major, minor) = version.split_once('.')?;
            Some((major.parse::<u32>().ok()?, minor.parse::<u32>().ok()?) > PTX_VERSION)
        });
        if newer != Some(true) {
            return Ok(());
        }
        let (version, (major, minor)) = (version.unwrap_or_default(), PTX_VERSION);
        let line = text[..text.find(".version").unwrap_or(0)].lines().count().max(1);
        self.text = format!(
            "ptxas application ptx input, line {line}; fatal   : Unsupported .version {version}; current version is '{major}.{minor}'"
        );
        Err(CUresult::ERROR_UNSUPPORTED_PTX_VERSION)
    }

    /// Writes the logs to where the application wants them.
    pub(crate) fn deliver(&self) -> Answer {
        for (buffer, text) in [(self.errors, self.text.as_str()), (self.infos, "")] {
            let Some(buffer) = buffer else { continue };
            let room = i32::try_from(buffer.room).unwrap_or(i32::MAX);
            if room > 0 {
                buffer.at.put_text(text, room)?;
            }
            if let Some(size) = buffer.size {
                size.put(text.len().min(buffer.room.saturating_sub(1)))?;
            }
        }
        Ok(())
    }

    /// What was said so far.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }
}

/// A size that is passed in a pointer's place; the driver takes its lower 32 bits.
#[expect(clippy::cast_possible_truncation, reason = "the interface passes an unsigned int")]
fn size_of_option(value: *mut c_void) -> usize {
    value.addr() as u32 as usize
}
