//! The primitive language.
