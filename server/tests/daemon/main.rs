//! The daemon as its guests, its operators and its host see it: the real binary, real processes, fake workers.
#![expect(clippy::tests_outside_test_module, reason = "an integration test is nothing but tests")]
#![expect(unreachable_pub, clippy::unwrap_used, reason = "a test's own helpers")]

mod admission;
mod life;
mod server;
mod workers;
