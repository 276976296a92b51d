//! Decisions of a central token server, and the data they are made on.
//!
//! Everything here is plain data and pure functions: the current time and random numbers are arguments. There
//! is no runtime, no network and no disk; [`clock`] alone reads the machine's clocks. The crate `wxtokend`
//! drives it.
//!
//! | module | what it answers |
//! |---|---|
//! | [`token::decide`] | what an account does next, and why |
//! | [`token::state`] | what is known of an account; whether its token may be served, and for how long |
//! | [`token::transition`] | what the end of a call changes |
//! | [`token::rejection`] | what a client's report or an operator's request leads to |
//! | [`token::schedule`] | when a token is refreshed, how long to wait after a failed call |
//! | [`ticket`] | the same for a ticket |
//! | [`fault`] | what WeChat's error codes mean, and what to do about them |
//! | [`budget`] | how many calls a day are left |
//! | [`sdk`] | how SDKs keep tokens in Redis, and how pages are signed |
//! | [`mod@reference`] | what the program offers to the outside, as tables for its documents |

pub mod account;
pub mod budget;
pub mod clock;
pub mod fault;
pub mod last_failure;
pub mod phase;
pub mod reference;
pub mod sdk;
pub mod secret;
pub mod ticket;
pub mod token;
