//! Shared by the tests of the library and of the program.

#![expect(async_fn_in_trait, reason = "each driver plays scenarios in one thread")]

mod clock;
pub mod scenarios;

pub use clock::TokioClock;
