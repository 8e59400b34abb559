//! The language's types: what a value is ([`Scalar`]) and what an array stores ([`Element`]).
//!
//! `byte` and `half` exist in memory only: a byte is loaded as an `int`, a half as a `float`, so that no arithmetic
//! needs a conversion in the middle.

use serde::Serialize;

/// The type of a value while a thread computes with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Scalar {
    /// The outcome of a comparison.
    Bool,
    /// 32-bit signed, wrapping.
    Int,
    /// 32-bit unsigned, wrapping.
    Uint,
    /// IEEE 754 binary32, round to nearest even, subnormals kept.
    Float,
    /// IEEE 754 binary64.
    Double,
    /// Red, green, blue, alpha: one byte each, red in the lowest.
    Pixel,
}

impl Scalar {
    /// The word for it in the language.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Bool => "bool",
            Self::Int => "int",
            Self::Uint => "uint",
            Self::Float => "float",
            Self::Double => "double",
            Self::Pixel => "pixel",
        }
    }

    /// Whether it is `int` or `uint`.
    #[must_use]
    pub const fn is_integer(self) -> bool {
        matches!(self, Self::Int | Self::Uint)
    }

    /// Whether it is `float` or `double`.
    #[must_use]
    pub const fn is_floating(self) -> bool {
        matches!(self, Self::Float | Self::Double)
    }

    /// Whether arithmetic is defined on it.
    #[must_use]
    pub const fn is_number(self) -> bool {
        self.is_integer() || self.is_floating()
    }
}

/// The type of an array's elements, and of a scalar parameter as it is passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Element {
    /// 8 bits; loaded as `int` from 0 to 255, stored from the low 8 bits of an integer.
    Byte,
    /// 32-bit signed.
    Int,
    /// 32-bit unsigned.
    Uint,
    /// binary32.
    Float,
    /// binary64.
    Double,
    /// binary16; loaded as `float`, stored rounded to nearest even.
    Half,
    /// RGBA8.
    Pixel,
}

impl Element {
    /// Every element type.
    pub const ALL: [Self; 7] =
        [Self::Byte, Self::Int, Self::Uint, Self::Float, Self::Double, Self::Half, Self::Pixel];

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

    /// The element type that a word names, synonyms included.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "byte" | "char" | "u8" => Self::Byte,
            "int" | "i32" => Self::Int,
            "uint" | "u32" => Self::Uint,
            "float" | "f32" => Self::Float,
            "double" | "f64" => Self::Double,
            "half" | "f16" => Self::Half,
            "pixel" | "color" | "rgba8" => Self::Pixel,
            _ => return None,
        })
    }

    /// Bytes that one element takes in memory.
    #[must_use]
    pub const fn bytes(self) -> usize {
        match self {
            Self::Byte => 1,
            Self::Half => 2,
            Self::Int | Self::Uint | Self::Float | Self::Pixel => 4,
            Self::Double => 8,
        }
    }

    /// The type of the value that a load gives and a store takes.
    #[must_use]
    pub const fn value(self) -> Scalar {
        match self {
            Self::Byte | Self::Int => Scalar::Int,
            Self::Uint => Scalar::Uint,
            Self::Float | Self::Half => Scalar::Float,
            Self::Double => Scalar::Double,
            Self::Pixel => Scalar::Pixel,
        }
    }
}

/// The type of a kernel parameter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase", tag = "kind", content = "element")]
pub enum ParamType {
    /// One value, passed by value.
    Scalar(Element),
    /// An array in device memory.
    Array(Element),
}

impl std::fmt::Display for ParamType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Scalar(element) => f.write_str(element.name()),
            Self::Array(element) => write!(f, "{}[]", element.name()),
        }
    }
}
