//! What everything in a guest has in common: where the server is ([`config`]), and questions to it that need no session
//! ([`inquiry`]). The shim, NVML and pxctl are made with it.
#![forbid(unsafe_code)]

pub mod config;
pub mod inquiry;
