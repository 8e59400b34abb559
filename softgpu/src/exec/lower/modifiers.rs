//! The modifiers of an instruction, taken one by one until none is left.

use super::Result;
use crate::isa::{FloatMode, Round};
use crate::ptx::ast::Instruction;
use crate::ptx::{PtxError, Ty};

/// Modifiers not yet taken.
pub(super) struct Modifiers<'i, 'a> {
    instruction: &'i Instruction<'a>,
    left: Vec<&'a str>,
}

impl<'i, 'a> Modifiers<'i, 'a> {
    pub(super) fn new(instruction: &'i Instruction<'a>) -> Self {
        Self { instruction, left: instruction.modifiers.clone() }
    }

    pub(super) fn error<T>(&self, message: &str) -> Result<T> {
        let Instruction { line, column, .. } = *self.instruction;
        Err(PtxError::new(line, column, format!("instruction {}: {message}", self.instruction.spelled())))
    }

    /// Takes a modifier if it is there.
    pub(super) fn flag(&mut self, name: &str) -> bool {
        let found = self.left.iter().position(|left| *left == name);
        found.inspect(|at| {
            self.left.remove(*at);
        });
        found.is_some()
    }

    /// Takes the first modifier for which `f` has a value.
    pub(super) fn take<T>(&mut self, f: impl Fn(&'a str) -> Option<T>) -> Option<T> {
        let (at, value) = self.left.iter().enumerate().find_map(|(at, name)| Some((at, f(name)?)))?;
        self.left.remove(at);
        Some(value)
    }

    /// Takes the first of several modifiers that is there.
    pub(super) fn one_of(&mut self, names: &[&'static str]) -> Option<&'static str> {
        self.take(|left| names.iter().find(|name| **name == left).copied())
    }

    /// Takes the first type.
    pub(super) fn ty(&mut self) -> Result<Ty> {
        match self.take(Ty::from_name) {
            Some(ty) => Ok(ty),
            None => self.error("a type is missing"),
        }
    }

    pub(super) fn maybe_ty(&mut self) -> Option<Ty> {
        self.take(Ty::from_name)
    }

    /// Takes `.rn`, `.rz`, `.rm`, `.rp`.
    pub(super) fn round(&mut self) -> Option<Round> {
        self.take(|name| {
            Some(match name {
                "rn" => Round::Rn,
                "rz" => Round::Rz,
                "rm" => Round::Rm,
                "rp" => Round::Rp,
                "rna" => Round::Rna,
                _ => return None,
            })
        })
    }

    /// Takes rounding, `.ftz` and `.sat`.
    pub(super) fn float_mode(&mut self) -> FloatMode {
        FloatMode { round: self.round().unwrap_or_default(), ftz: self.flag("ftz"), sat: self.flag("sat") }
    }

    /// Whether one of the types is a floating-point type.
    pub(super) fn any_float(&self) -> bool {
        self.left.iter().any(|name| Ty::from_name(name).is_some_and(Ty::float))
    }

    /// What is left, for families with open lists of hints.
    pub(super) fn drop_if(&mut self, f: impl Fn(&str) -> bool) {
        self.left.retain(|name| !f(name));
    }

    /// Whether a modifier is there, without taking it.
    pub(super) fn has(&self, name: &str) -> bool {
        self.left.contains(&name)
    }

    /// Every modifier must have been taken.
    pub(super) fn finish(&self) -> Result<()> {
        match self.left.first() {
            None => Ok(()),
            Some(left) => self.error(&format!("modifier .{left} is not supported")),
        }
    }
}
